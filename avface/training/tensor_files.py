"""Files of tensors that appear whole or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from avface.errors import AvfaceError


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors as safetensors.

    Raises:
        AvfaceError: if the file can't be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        # clones: tensors of one state may share memory, which safetensors refuses
        save_file(
            {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()},
            temporary,
            dict(metadata),
        )
        temporary.replace(path)
    except (SafetensorError, OSError) as error:
        raise AvfaceError(
            f"{path}: can't be written ({error}); free some space or name another --out"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
