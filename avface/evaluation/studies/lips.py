"""Accuracy of the lip refinement on synthetic performances with held-out voices and languages.

python -m avface.evaluation.studies.lips lips.safetensors
python -m avface.evaluation.studies.lips lips.safetensors --seed 2   # a blind test split
"""
# ruff: noqa: RUF001 - IPA

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor

from avface.arrays import F64, Bool, Int
from avface.errors import AvfaceError
from avface.evaluation.tables import aligned
from avface.files.temporary import temporary_folder
from avface.head.asset import load_head
from avface.head.model import HeadModel
from avface.networks.lips.network import (
    LipsNetwork,
    check_lips,
    load_lips,
    predict_lips,
    pretrained_lips,
    speech_gate,
)
from avface.synthetic.performance.coarticulation import ipa_letters
from avface.synthetic.performance.espeak import Phoneme
from avface.synthetic.performance.lip_effects import (
    LEAD,
    LipEffects,
    effect_curves,
    lip_style_vector,
    sample_lip_style,
)
from avface.training.lips.performances import (
    LipPerformances,
    LipPerformancesConfig,
    prepare_lip_performances,
)

CLASSES: dict[str, str] = {
    "bilabial": "pbm",
    "labiodental": "fvɱʋ",
    "rounded": "uʉyʏwʍɥoʊøɵɔœʃʒʂ",
    "spread": "iɪᵻɨejɯ",
}
"""IPA letters of the phoneme classes; all others are "other", pauses "silence"."""
NAMES = (*CLASSES, "other", "silence")
"""Classes in the order of the tables."""
BLUR = 0.06
"""Standard deviation in seconds of the Gaussian filter of expression units that simulates a video stage which smooths
out closures."""


@dataclass(frozen=True, eq=False)
class LipErrors:
    """Errors of T frames in mm, each (T,): mean and largest vertex distance over the lips, opening, penetration."""

    mean: Tensor
    largest: Tensor
    opening: Tensor
    penetration: Tensor


@dataclass(frozen=True, eq=False)
class LipFigures:
    """Classes (T,) of the frames, indices of `NAMES`, and the errors of each variant of the lips."""

    classes: Int
    errors: dict[str, LipErrors]
    saturated: float

    def table(self) -> str:
        """The figures as text: means over frames of the mean and the largest error, the opening and the penetration."""
        rows = [["lips, mm", *(f"{name}" for name in NAMES), "all"]]
        rows.append(["frames", *(str(int((self.classes == k).sum())) for k in range(len(NAMES)))])
        rows[-1].append(str(len(self.classes)))
        rules = [1]
        for title, part in (
            ("error, mean", "mean"),
            ("error, largest", "largest"),
            ("opening", "opening"),
            ("penetration", "penetration"),
        ):
            rules.append(len(rows))
            for name, errors in self.errors.items():
                values = getattr(errors, part)
                cells = [self._mean(values, self.classes == k) for k in range(len(NAMES))]
                rows.append([f"{title}: {name}", *cells, self._mean(values, np.ones(len(values), bool))])
        return aligned(rows, rules) + f"\nsaturated offsets: {self.saturated:.2%}"

    @staticmethod
    def _mean(values: Tensor, chosen: Bool) -> str:
        return f"{float(values[torch.from_numpy(chosen)].mean()):.3f}" if chosen.any() else "-"


@torch.no_grad()
def lip_figures(
    network: LipsNetwork, head: HeadModel, performances: LipPerformances, seed: int = 0
) -> LipFigures:
    """Figures of a network on performances, each with a random person.

    "before": expression units only. "after": with the network's offsets, contact and closure. "other audio": the same
    with the audio of another performance. "offsets alone": without contact and closure. "smoothed units": the same
    starting from units that are smoothed in time.

    Raises:
        AvfaceError: if the network isn't for the head's lips.
    """
    check_lips(network, head)
    shapes = LipEffects.of(head)
    numbers = network.numbers
    basis = head.blend_basis[:, numbers].flatten(1)
    full = network.falloff > 0.99
    parts: dict[str, list[LipErrors]] = {}
    classes: list[Int] = []
    saturated: list[float] = []
    speaking = torch.nonzero(performances.kind == 0)[:, 0].tolist()
    for number in range(len(performances)):
        count = int(performances.count[number])
        times = np.arange(count) / performances.frame_rate
        phonemes = performances.phonemes(number)
        rng = np.random.default_rng([seed, number])
        shape = torch.from_numpy((0.75 * rng.normal(size=head.num_shape)).astype(np.float32))
        style = lip_style_vector(sample_lip_style(rng))
        person = head.neutral(shape)[numbers]
        units = _rows(performances, "expression", number).float()

        def lips_of(weights: Tensor, person: Tensor = person, shape: Tensor = shape) -> Tensor:
            return person + (head.blend_terms.weights(weights, shape) @ basis).unflatten(-1, (-1, 3))

        base = lips_of(units)
        smoothed = lips_of(_smoothed(units, BLUR * performances.frame_rate))
        curves = torch.from_numpy(effect_curves(phonemes, times[-1] + 0.1, times)).float()
        true = base + shapes.offsets(base, curves, style)
        other = speaking[(speaking.index(number) + 7) % len(speaking)] if number in speaking else number
        own_motion, other_motion = (
            predict_lips(
                network,
                _rows(performances, "speech", source).float().numpy(),
                speech_gate(_rows(performances, "activity", source).numpy(), times),
            )
            for source in (number, other)
        )
        saturated.append(float(network.saturated(own_motion.offsets)))
        variants = {"before": base, "offsets alone": base + own_motion.offsets}
        for name, motion, start in (
            ("after", own_motion, base),
            ("other audio", other_motion, base),
            ("smoothed units, after", own_motion, smoothed),
        ):
            variants[name] = shapes.contact.resolve_penetration(
                shapes.contact.close_gap(start + motion.offsets, motion.closure)
            )
        variants = {**variants, "smoothed units, before": smoothed, "truth": true}
        for name, vertices in variants.items():
            distance = 1000 * torch.linalg.vector_norm(vertices - true, dim=-1)[:, full]
            parts.setdefault(name, []).append(
                LipErrors(
                    distance.mean(1),
                    distance.amax(1),
                    1000 * shapes.contact.opening(vertices),
                    1000 * shapes.contact.penetration(vertices),
                )
            )
        classes.append(
            _classes(phonemes, times) if number in speaking else np.full(count, NAMES.index("silence"))
        )
    order = (
        "before", "offsets alone", "after", "other audio",
        "smoothed units, before", "smoothed units, after", "truth",
    )  # fmt: skip
    joined = {
        name: LipErrors(
            *(
                torch.cat([getattr(part, measure) for part in parts[name]])
                for measure in ("mean", "largest", "opening", "penetration")
            )
        )
        for name in order
    }
    return LipFigures(np.concatenate(classes), joined, float(np.mean(saturated)))


def _rows(performances: LipPerformances, name: str, number: int) -> Tensor:
    first, count = int(performances.first[number]), int(performances.count[number])
    rows: Tensor = getattr(performances, name)[first : first + count]
    return rows


def _smoothed(units: Tensor, sigma: float) -> Tensor:
    """Units (T, E) smoothed in time; sigma in frames."""
    from scipy.ndimage import gaussian_filter1d

    return torch.from_numpy(gaussian_filter1d(units.numpy(), sigma, axis=0, mode="nearest"))


def _classes(phonemes: tuple[Phoneme, ...], times: F64) -> Int:
    """Class at each time (T,): that of the phoneme that is audible `LEAD` seconds later."""
    entries: list[tuple[float, int]] = [(-np.inf, NAMES.index("silence"))]
    ends = [*(phoneme.start for phoneme in phonemes[1:]), times[-1] + 1]
    for phoneme, until in zip(phonemes, ends, strict=False):
        start = phoneme.start
        for letter, share in ipa_letters(phoneme.symbol) or [("", 1.0)]:
            found = [k for k, name in enumerate(CLASSES) if letter and letter in CLASSES[name]]
            entries.append((start, found[0] if found else NAMES.index("other" if letter else "silence")))
            start += share * (until - phoneme.start)
    starts = np.array([start for start, _ in entries])
    return np.array([number for _, number in entries])[
        np.searchsorted(starts, times + LEAD, side="right") - 1
    ]


@dataclass(frozen=True)
class LipEvaluation:
    """Print figures of a lips network.

    Raises:
        AvfaceError: if a value can't work.
    """

    weights: tyro.conf.Positional[Path] = pretrained_lips.path
    """Weight file; by default the shipped one."""
    performances: Path | None = None
    """File that caches the test performances; by default they are generated and discarded."""
    hours: float = 0.25
    """Total length of the performances."""
    seed: int = 1
    """Seed of texts, voices and rooms. 1 gives the performances of the model card, which were also used for model
    selection; any other number gives a blind test split, to be evaluated once."""

    def __post_init__(self) -> None:
        if not self.hours > 0:
            raise AvfaceError(f"hours={self.hours}: must be above 0")


def main() -> None:
    """Print the figures that the command asks for."""
    try:
        asked = tyro.cli(LipEvaluation, description=__doc__)
        network = load_lips(asked.weights)
        config = LipPerformancesConfig(hours=asked.hours, seed=asked.seed, split="test")
        head = load_head(network.config.head)
        with temporary_folder() as folder:
            path = asked.performances or Path(folder) / "lip-performances.safetensors"
            performances = prepare_lip_performances(path, network.config.head, config)
            print(lip_figures(network, head, performances, asked.seed).table())
    except AvfaceError as error:
        raise SystemExit(f"avface: error: {error}") from None


if __name__ == "__main__":
    main()
