"""The ablation: AVFace's Tables 1, 2 and 3 on our material, one row for each file of weights.

What a row is (expression from video, sound or both; modality dropout; time; occlusions; kind of speech features) stands
in the recipe inside its file. Measured is what the networks say by themselves, as in the paper; the solver, which
sees the landmarks too, would make all rows alike where nothing is hidden.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from avface.arrays import F64
from avface.capture import Capture
from avface.errors import AvfaceError
from avface.evaluation.clips import Progress, find_videos
from avface.evaluation.metrics import WORST_ERROR, auc, jitter, nme, vertex_error_mm
from avface.evaluation.network_clips import (
    NetworkClip,
    check_measurable,
    read_clip,
    synthetic_clips,
    video_clip,
)
from avface.evaluation.occluded_clips import make_occluded_clip
from avface.evaluation.tables import aligned
from avface.head.measures import box_size
from avface.head.schemes import IBUG_LIPS_INNER, IBUG_LIPS_OUTER, ibug68_from_mediapipe
from avface.networks.coarse.model import FORMAT, CoarseNetworks, load_networks
from avface.training.coarse.recipes import Recipe, read_recipe

VIDEO, AUDIO, BOTH = "video", "audio", "AV"
SYNTHETIC, REAL = "synthetic test split", "real clips"
FACE_REGIONS = ("face", "lips", "eyelids", "nose")
_LIPS = np.concatenate([IBUG_LIPS_OUTER, IBUG_LIPS_INNER])
_BLOCK = 64
"""Frames whose meshes are compared at a time."""


@dataclass(frozen=True)
class AblationRow:
    """What a file of weights is a row of."""

    name: str
    """The file's name without its suffix."""
    source: str
    """Where the expression comes from: "video", "audio" or "AV"."""
    dropout: bool
    """Whether sound and picture were left out at random in training."""
    temporal: bool
    """Whether the networks see more than one frame."""
    occlusion: str
    """What the training hid: "none", "some" windows, or "tuned" with mostly hidden faces afterwards."""
    speech: str
    """Kind of speech features; "-" without sound."""

    @classmethod
    def of(cls, name: str, recipe: Recipe) -> AblationRow:
        """The row that a recipe is."""
        branch = recipe.network.expression
        source = VIDEO if branch.audio_dropout >= 1 else AUDIO if branch.video_dropout >= 1 else BOTH
        tuned = recipe.name.endswith("+occlusion")
        return cls(
            name=name,
            source=source,
            dropout=source == BOTH and branch.audio_dropout + branch.video_dropout > 0,
            temporal=recipe.network.window > 1,
            occlusion="tuned" if tuned else "some" if recipe.hiding.hidden > 0 else "none",
            speech="-" if source == VIDEO else branch.audio.speech,
        )

    @property
    def said(self) -> str:
        """In the paper's words."""
        parts = [f"e from {self.source}"]
        parts += ["+ dropout"] if self.dropout else []
        parts += ["+ temporal"] if self.temporal else []
        return " ".join(parts)

    @property
    def _order(self) -> tuple[int, bool, bool, int, str]:
        """As in the paper's tables."""
        return (
            (VIDEO, AUDIO, BOTH).index(self.source),
            self.dropout,
            self.temporal,
            ("none", "some", "tuned").index(self.occlusion),
            self.speech,
        )


@dataclass(frozen=True)
class NetworkFigures:
    """Figures of one row on one material; nan where it has no such figure. Errors in per cent of the face's size."""

    nme: float
    """Mean over all frames of the error of iBUG's 68 points, in the clips in which the lips are never hidden."""
    auc10: float
    """Area under the cumulative curve of these errors up to 10 %."""
    lips: float
    """Mean error of the 20 points of the lips, by the box of the 68."""
    occluded: float
    """`nme` of the frames whose lips are hidden."""
    occluded_lips: float
    """`lips` of the frames whose lips are hidden."""
    vertices_mm: float
    """Mean distance of the face's vertices from the true ones, each frame aligned with scale."""
    jitter: float
    """Mean second difference of the 478 points."""


_COLUMNS = (
    ("NME", "nme", ".2f"),
    ("AUC", "auc10", ".3f"),
    ("lips", "lips", ".2f"),
    ("NME occ", "occluded", ".2f"),
    ("lips occ", "occluded_lips", ".2f"),
    ("vertices mm", "vertices_mm", ".2f"),
    ("jitter", "jitter", ".3f"),
)


@dataclass(frozen=True)
class AblationReport:
    """Figures of all rows by material, as the paper's three tables (`table`) and as JSON (`to_json`)."""

    rows: tuple[AblationRow, ...]
    figures: dict[str, dict[str, NetworkFigures]]
    """By material, then by the row's name."""
    failed: dict[str, str] = field(default_factory=dict)
    """By what was left out: why."""

    def table(self) -> str:
        """Plain text: for each material the tables of those rows that differ in nothing but the table's subject."""
        parts = []
        for material, figures in self.figures.items():
            rows = [row for row in self.rows if row.name in figures]
            parts += [
                self._table(f"{material}: {title}", group, figures) for title, group in paper_tables(rows)
            ]
            parts.append(self._table(f"{material}: all", rows, figures))
        parts += [f"left out: {reason}" for reason in self.failed.values()]
        return "\n\n".join(parts)

    @staticmethod
    def _table(title: str, rows: Sequence[AblationRow], figures: dict[str, NetworkFigures]) -> str:
        cells = [[title, "speech", "occlusion", *(heading for heading, _, _ in _COLUMNS), "weights"]]
        for row in rows:
            values = [(getattr(figures[row.name], name), style) for _, name, style in _COLUMNS]
            numbers = ["-" if value != value else format(value, style) for value, style in values]
            cells.append([row.said, row.speech, row.occlusion, *numbers, row.name])
        return aligned(cells)

    def to_json(self) -> str:
        """Rows and figures as a JSON object; figures that a row hasn't are null."""
        content = {
            "rows": [asdict(row) for row in self.rows],
            "figures": {
                material: {
                    name: {key: value if np.isfinite(value) else None for key, value in asdict(each).items()}
                    for name, each in figures.items()
                }
                for material, figures in self.figures.items()
            },
            "failed": self.failed,
        }
        return json.dumps(content, indent=2, allow_nan=False)


def paper_tables(rows: Sequence[AblationRow]) -> list[tuple[str, list[AblationRow]]]:
    """Title and rows of the paper's tables, as far as there are two rows or more to compare.

    Table 1: rows of one kind of speech features and one way of hiding, with those that use no sound. Table 2: rows that
    differ in nothing but the speech features. Table 3: in nothing but what the training hid.
    """
    tables: list[tuple[str, list[AblationRow]]] = []
    heard = [row for row in rows if row.source != VIDEO]
    for occlusion, speech in dict.fromkeys((row.occlusion, row.speech) for row in heard):
        group = [row for row in rows if row.occlusion == occlusion and row.speech in (speech, "-")]
        tables.append(("Table 1", group))
    by_rest: dict[tuple[str, AblationRow], list[AblationRow]] = {}
    for row in heard:
        by_rest.setdefault(("Table 2, speech features", replace(row, name="", speech="")), []).append(row)
    for row in rows:
        by_rest.setdefault(("Table 3, occlusions", replace(row, name="", occlusion="")), []).append(row)
    tables += [(title, group) for (title, _), group in by_rest.items()]
    return [(title, group) for title, group in tables if len(group) > 1]


def evaluate_ablation(
    weights: Path,
    *,
    shards: Sequence[Path] = (),
    clips: Path | None = None,
    seeds: int = 2,
    work: Path | None = None,
    progress: Progress = lambda clip, stage, done, total: None,
) -> AblationReport:
    """Measure every file of weights of a folder on synthetic and real clips.

    Args:
        weights: A folder of .safetensors files with their recipes inside.
        shards: Prepared synthetic clips, of which the test split is used; one folder for each kind of speech features.
        clips: A folder of real videos; they are measured clean, and with the lower face hidden.
        seeds: Occluded versions of each real video.
        work: Folder in which occluded videos are kept for the next run; by default they are thrown away.
        progress: Told about the work as it goes on.

    Raises:
        AvfaceError: if there are no weights, nothing to measure them on, or no row can be measured.
    """
    if not shards and clips is None:
        raise AvfaceError(
            "nothing to measure on; give prepared synthetic clips (--shards), real ones (--clips) or both"
        )
    failed: dict[str, str] = {}
    networks: list[tuple[AblationRow, CoarseNetworks]] = []
    for path in _weights(weights):
        try:
            networks.append(read_row(path))
        except AvfaceError as problem:
            failed[path.name] = str(problem)
    if not networks:
        raise AvfaceError(f"{weights}: no row can be measured; {next(iter(failed.values()))}")
    networks.sort(key=lambda pair: pair[0]._order)
    materials: dict[str, list[list[NetworkClip]]] = {}
    if shards:
        materials[SYNTHETIC] = []
        for number, folder in enumerate(shards):
            materials[SYNTHETIC].append(synthetic_clips(folder)[0])
            progress("shards", "read", number + 1, len(shards))
    with tempfile.TemporaryDirectory(prefix="avface-") if work is None else nullcontext(work) as place:
        if clips is not None:
            materials[REAL] = [_real_clips(clips, seeds, Path(place), failed, progress)]
    figures: dict[str, dict[str, NetworkFigures]] = {name: {} for name in materials}
    for material, sets in materials.items():
        for done, (row, each) in enumerate(networks):
            progress(material, "networks", done, len(networks))
            try:
                figures[material][row.name] = _figures_on(sets, row, each)
            except AvfaceError as problem:
                failed[f"{row.name}, {material}"] = str(problem)
    if not any(figures.values()):
        raise AvfaceError(f"{weights}: no row can be measured; {next(iter(failed.values()))}")
    return AblationReport(tuple(row for row, _ in networks), figures, failed)


def read_row(path: Path) -> tuple[AblationRow, CoarseNetworks]:
    """The row that a file of weights is, and its networks.

    Raises:
        AvfaceError: if the file can't be read, has no recipe inside, or its networks can't be measured here.
    """
    networks = load_networks(path)
    try:
        recipe = read_recipe(FORMAT.metadata(path).get("recipe", ""))
    except ValueError as error:
        raise AvfaceError(f"{path}: {error}; train it again to have its recipe inside") from None
    check_measurable(path, recipe)
    return AblationRow.of(path.stem, recipe), networks


def _weights(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise AvfaceError(f"{folder}: no such folder; give a folder of weights")
    found = sorted(
        path
        for path in folder.glob("[!.]*.safetensors")  # those that are being written begin with a dot
        if not path.name.endswith(".checkpoint.safetensors")
    )
    if not found:
        raise AvfaceError(f"{folder}: no weights in it (.safetensors); train some")
    return found


def _real_clips(
    folder: Path, seeds: int, work: Path, failed: dict[str, str], progress: Progress
) -> list[NetworkClip]:
    clips: list[NetworkClip] = []
    for path in find_videos(folder):
        try:
            clean = video_clip(path)
            clips.append(clean)
            for seed in range(seeds):

                def told(stage: str, done: int, name: str = f"{path.name} #{seed}") -> None:
                    progress(name, stage, done, None)

                made = make_occluded_clip(path, seed, work, on_frame=told)
                clips.append(video_clip(made.video, made.reference, made.lips_occluded))
        except AvfaceError as problem:
            failed[path.name] = str(problem)
    if not clips:
        raise AvfaceError(f"{folder}: none of its videos could be measured; {next(iter(failed.values()))}")
    return clips


def _figures_on(
    sets: Sequence[Sequence[NetworkClip]], row: AblationRow, networks: CoarseNetworks
) -> NetworkFigures:
    """Figures on the first set of clips that has, or can have, the row's kind of speech features."""
    problem: AvfaceError | None = None
    for clips in sets:
        try:
            read = [
                read_clip(networks, clip, heard=row.source != VIDEO, watched=row.source != AUDIO)
                for clip in clips
            ]
        except AvfaceError as error:
            problem = problem or error
            continue
        return network_figures(clips, read)
    raise problem or AvfaceError("there are no clips")


def network_figures(clips: Sequence[NetworkClip], captures: Sequence[Capture]) -> NetworkFigures:
    """Figures of what was read from clips; every frame with a reference counts alike, no error is above 100 %.

    Raises:
        ValueError: if a capture has another number of frames than its clip.
    """
    errors: list[F64] = []
    lips: list[F64] = []
    occluded_errors: list[F64] = []
    occluded_lips: list[F64] = []
    vertices: list[F64] = []
    restless: list[tuple[float, int]] = []
    for clip, capture in zip(clips, captures, strict=True):
        points = np.asarray(capture.landmarks(), np.float64)
        if len(points) != len(clip.reference):
            raise ValueError(f"{clip.name}: {len(points)} frames read, {len(clip.reference)} in the clip")
        known = np.isfinite(clip.reference).all((1, 2))
        found, true = (ibug68_from_mediapipe(np.asarray(p, np.float64)) for p in (points, clip.reference))
        face = np.minimum(nme(found[known], true[known]), WORST_ERROR)
        mouth = np.minimum(nme(found[known][:, _LIPS], true[known][:, _LIPS], true[known]), WORST_ERROR)
        occluded = clip.lips_occluded[known]
        if not occluded.any():
            errors.append(face)
            lips.append(mouth)
            if clip.truth is not None:
                vertices.append(_vertex_errors(capture, clip.truth))
            value = jitter(points, box_size(points))
            if np.isfinite(value):
                restless.append((value, len(points)))
        occluded_errors.append(face[occluded])
        occluded_lips.append(mouth[occluded])
    values, weights = np.array(restless).reshape(-1, 2).T
    return NetworkFigures(
        nme=_mean(errors),
        auc10=auc(np.concatenate(errors), 10) if errors else float("nan"),
        lips=_mean(lips),
        occluded=_mean(occluded_errors),
        occluded_lips=_mean(occluded_lips),
        vertices_mm=_mean(vertices),
        jitter=float(np.average(values, weights=weights)) if restless else float("nan"),
    )


def _vertex_errors(capture: Capture, truth: Capture) -> F64:
    """Mean millimetres (T,) of the face's vertices in each frame."""
    regions = truth.head_model.regions
    face = np.logical_or.reduce([regions[name] for name in FACE_REGIONS])
    errors = []
    for start in range(0, len(truth), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(truth)))
        found, true = (each.vertices(rows, "head") for each in (capture, truth))
        errors.append(vertex_error_mm(found, true, face, "similarity").mean(1))
    return np.concatenate(errors)


def _mean(values: Sequence[F64]) -> float:
    pooled = np.concatenate([np.zeros(0), *values])
    return float(pooled.mean()) if len(pooled) else float("nan")
