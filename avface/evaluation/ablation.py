"""The ablation study: Tables 1, 2 and 3 of AVFace on avface's own test data, one row per weight file.

The recipe inside a weight file says what its row is (expression from video, audio or both; modality dropout; temporal
context; occlusions in training; kind of speech features). The networks' own predictions are measured, as in the paper;
the solver, which also fits the landmarks, would make all rows alike wherever nothing is occluded.
"""

from __future__ import annotations

import json
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
from avface.files.temporary import temporary_folder
from avface.head.measures import box_size
from avface.head.schemes import IBUG_LIPS_INNER, IBUG_LIPS_OUTER, ibug68_from_mediapipe
from avface.networks.coarse.model import FORMAT, CoarseNetworks, load_networks
from avface.training.coarse.recipes import Recipe, read_recipe

VIDEO, AUDIO, BOTH = "video", "audio", "AV"
SYNTHETIC, REAL = "synthetic test split", "real clips"
FACE_REGIONS = ("face", "lips", "eyelids", "nose")
_LIPS = np.concatenate([IBUG_LIPS_OUTER, IBUG_LIPS_INNER])
_BLOCK = 64
"""Frames whose meshes are compared in one batch."""


@dataclass(frozen=True)
class AblationRow:
    """The row of the ablation tables that a weight file belongs to."""

    name: str
    """File name without suffix."""
    source: str
    """Input of the expression branch: "video", "audio" or "AV"."""
    dropout: bool
    """Whether training used modality dropout."""
    temporal: bool
    """Whether the networks have temporal context (a window of more than one frame)."""
    occlusion: str
    """Occlusions in training: "none", "some" windows, or "tuned": fine-tuned on mostly occluded faces."""
    speech: str
    """Kind of speech features; "-" without audio."""

    @classmethod
    def of(cls, name: str, recipe: Recipe) -> AblationRow:
        """The row of a training recipe."""
        branch = recipe.network.expression
        source = VIDEO if branch.audio_dropout >= 1 else AUDIO if branch.video_dropout >= 1 else BOTH
        tuned = recipe.name.endswith("+occlusion")
        return cls(
            name=name,
            source=source,
            dropout=source == BOTH and branch.audio_dropout + branch.video_dropout > 0,
            temporal=recipe.network.window > 1,
            occlusion="tuned" if tuned else "some" if recipe.occlusion.occluded > 0 else "none",
            speech="-" if source == VIDEO else branch.audio.speech,
        )

    @property
    def label(self) -> str:
        """The row's name in the paper."""
        parts = [f"e from {self.source}"]
        parts += ["+ dropout"] if self.dropout else []
        parts += ["+ temporal"] if self.temporal else []
        return " ".join(parts)

    @property
    def _order(self) -> tuple[int, bool, bool, int, str]:
        """Sort key: the order of the paper's tables."""
        return (
            (VIDEO, AUDIO, BOTH).index(self.source),
            self.dropout,
            self.temporal,
            ("none", "some", "tuned").index(self.occlusion),
            self.speech,
        )


@dataclass(frozen=True)
class NetworkFigures:
    """Figures of one row on one dataset; nan where undefined. Errors in per cent of the face's size."""

    nme: float
    """NME of iBUG's 68 points, mean over all frames of the clips whose lips are never occluded."""
    auc10: float
    """Area under the cumulative curve of these errors up to 10 %."""
    lips: float
    """Mean error of the 20 lip points, normalised by the box of the 68."""
    occluded: float
    """`nme` over the frames whose lips are occluded."""
    occluded_lips: float
    """`lips` over the frames whose lips are occluded."""
    vertices_mm: float
    """Mean vertex error of the face after similarity alignment of each frame."""
    jitter: float
    """Mean second difference in time of the 478 points."""


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
    """Figures of all rows by dataset, as the paper's three tables (`table`) and as JSON (`to_json`)."""

    rows: tuple[AblationRow, ...]
    figures: dict[str, dict[str, NetworkFigures]]
    """By dataset, then by the row's name."""
    failed: dict[str, str] = field(default_factory=dict)
    """Reasons for what was left out, by its name."""

    def table(self) -> str:
        """Plain text: for each dataset the tables of the rows that differ only in the table's subject."""
        parts = []
        for dataset, figures in self.figures.items():
            rows = [row for row in self.rows if row.name in figures]
            parts += [
                self._table(f"{dataset}: {title}", group, figures) for title, group in paper_tables(rows)
            ]
            parts.append(self._table(f"{dataset}: all", rows, figures))
        parts += [f"left out: {reason}" for reason in self.failed.values()]
        return "\n\n".join(parts)

    @staticmethod
    def _table(title: str, rows: Sequence[AblationRow], figures: dict[str, NetworkFigures]) -> str:
        cells = [[title, "speech", "occlusion", *(heading for heading, _, _ in _COLUMNS), "weights"]]
        for row in rows:
            values = [(getattr(figures[row.name], name), style) for _, name, style in _COLUMNS]
            numbers = ["-" if value != value else format(value, style) for value, style in values]
            cells.append([row.label, row.speech, row.occlusion, *numbers, row.name])
        return aligned(cells)

    def to_json(self) -> str:
        """Rows and figures as a JSON object; undefined figures are null."""
        content = {
            "rows": [asdict(row) for row in self.rows],
            "figures": {
                dataset: {
                    name: {key: value if np.isfinite(value) else None for key, value in asdict(each).items()}
                    for name, each in figures.items()
                }
                for dataset, figures in self.figures.items()
            },
            "failed": self.failed,
        }
        return json.dumps(content, indent=2, allow_nan=False)


def paper_tables(rows: Sequence[AblationRow]) -> list[tuple[str, list[AblationRow]]]:
    """Title and rows of those of the paper's tables that have at least two rows.

    Table 1: rows with the same speech features and the same occlusions in training, and those without audio. Table 2:
    rows that differ only in the speech features. Table 3: rows that differ only in the occlusions in training.
    """
    tables: list[tuple[str, list[AblationRow]]] = []
    with_audio = [row for row in rows if row.source != VIDEO]
    for occlusion, speech in dict.fromkeys((row.occlusion, row.speech) for row in with_audio):
        group = [row for row in rows if row.occlusion == occlusion and row.speech in (speech, "-")]
        tables.append(("Table 1", group))
    by_rest: dict[tuple[str, AblationRow], list[AblationRow]] = {}
    for row in with_audio:
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
    """Measure every weight file of a folder on synthetic and real clips.

    Args:
        weights: A folder of .safetensors files with their recipes inside.
        shards: Prepared synthetic clips, of which the test split is used; one folder for each kind of speech features.
        clips: A folder of real videos, measured as they are and with the lower face occluded.
        seeds: Number of occluded versions of each real video; with 0 they are measured as they are only.
        work: Folder that keeps occluded videos for the next run; by default a temporary one.
        progress: Called as the work advances.

    Raises:
        AvfaceError: if `seeds` is negative, or there are no weights, no test data, or no row that can be measured.
    """
    if seeds < 0:
        raise AvfaceError(f"seeds={seeds}: must be 0 or more occluded versions of each video")
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
    datasets: dict[str, list[list[NetworkClip]]] = {}
    if shards:
        datasets[SYNTHETIC] = []
        for number, folder in enumerate(shards):
            datasets[SYNTHETIC].append(synthetic_clips(folder)[0])
            progress("shards", "read", number + 1, len(shards))
    with temporary_folder() if work is None else nullcontext(work) as place:
        if clips is not None:
            datasets[REAL] = [_real_clips(clips, seeds, Path(place), failed, progress)]
    figures: dict[str, dict[str, NetworkFigures]] = {name: {} for name in datasets}
    for dataset, sets in datasets.items():
        for done, (row, each) in enumerate(networks):
            progress(dataset, "networks", done, len(networks))
            try:
                figures[dataset][row.name] = _figures_on(sets, row, each)
            except AvfaceError as problem:
                failed[f"{row.name}, {dataset}"] = str(problem)
    if not any(figures.values()):
        raise AvfaceError(f"{weights}: no row can be measured; {next(iter(failed.values()))}")
    return AblationReport(tuple(row for row, _ in networks), figures, failed)


def read_row(path: Path) -> tuple[AblationRow, CoarseNetworks]:
    """The row of a weight file, and its networks.

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

                def on_frame(stage: str, done: int, name: str = f"{path.name} #{seed}") -> None:
                    progress(name, stage, done, None)

                made = make_occluded_clip(path, seed, work, on_frame=on_frame)
                clips.append(video_clip(made.video, made.reference, made.lips_occluded))
        except AvfaceError as problem:
            failed[path.name] = str(problem)
    if not clips:
        raise AvfaceError(f"{folder}: none of its videos could be measured; {next(iter(failed.values()))}")
    return clips


def _figures_on(
    sets: Sequence[Sequence[NetworkClip]], row: AblationRow, networks: CoarseNetworks
) -> NetworkFigures:
    """Figures on the first set of clips with speech features of the row's kind, stored or computed."""
    problem: AvfaceError | None = None
    for clips in sets:
        try:
            read = [
                read_clip(networks, clip, use_audio=row.source != VIDEO, use_video=row.source != AUDIO)
                for clip in clips
            ]
        except AvfaceError as error:
            problem = problem or error
            continue
        return network_figures(clips, read)
    raise problem or AvfaceError("there are no clips")


def network_figures(clips: Sequence[NetworkClip], captures: Sequence[Capture]) -> NetworkFigures:
    """Figures of predicted captures; each frame with a reference has the same weight, errors are capped at 100 %.

    Raises:
        ValueError: if a capture has another number of frames than its clip.
    """
    errors: list[F64] = []
    lips: list[F64] = []
    occluded_errors: list[F64] = []
    occluded_lips: list[F64] = []
    vertices: list[F64] = []
    jitters: list[tuple[float, int]] = []
    for clip, capture in zip(clips, captures, strict=True):
        points = np.asarray(capture.landmarks(), np.float64)
        if len(points) != len(clip.reference):
            raise ValueError(
                f"{clip.name}: {len(points)} frames predicted, {len(clip.reference)} in the clip"
            )
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
                jitters.append((value, len(points)))
        occluded_errors.append(face[occluded])
        occluded_lips.append(mouth[occluded])
    values, weights = np.array(jitters).reshape(-1, 2).T
    return NetworkFigures(
        nme=_mean(errors),
        auc10=auc(np.concatenate(errors), 10) if errors else float("nan"),
        lips=_mean(lips),
        occluded=_mean(occluded_errors),
        occluded_lips=_mean(occluded_lips),
        vertices_mm=_mean(vertices),
        jitter=float(np.average(values, weights=weights)) if jitters else float("nan"),
    )


def _vertex_errors(capture: Capture, truth: Capture) -> F64:
    """Mean error in millimetres (T,) of the face's vertices in each frame."""
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
