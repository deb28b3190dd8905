"""From a video of a talking person to a detailed, animated 3D head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avface.capture import Capture
    from avface.pipeline import reconstruct

__version__ = "0.1.0"
__all__ = ["Capture", "__version__", "reconstruct"]


def __getattr__(name: str) -> Any:
    """Load the public names when first used, so that importing avface costs nothing."""
    if name == "Capture":
        from avface.capture import Capture

        return Capture
    if name == "reconstruct":
        from avface.pipeline import reconstruct

        return reconstruct
    raise AttributeError(f"module 'avface' has no attribute {name!r}")
