"""How much the lip refinement helps, on synthetic performances by voices and in languages it wasn't trained on.

python -m avface.evaluation.studies.lips lips.safetensors
python -m avface.evaluation.studies.lips lips.safetensors --seed 2   # others than those by which choices were made
"""
# ruff: noqa: RUF001 - IPA

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import tyro
from torch import Tensor

from avface.arrays import F64, Bool, Int
from avface.errors import AvfaceError
from avface.evaluation.tables import aligned
from avface.head.model import HeadModel, load_head
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
"""Letters of the classes of phonemes; all others are "other", and pauses "silence"."""
NAMES = (*CLASSES, "other", "silence")
"""The classes in the order of the tables."""
BLUR = 0.06
"""Seconds, the standard deviation by which units are smoothed where a video stage that hurries over closures is
imitated."""


@dataclass(frozen=True, eq=False)
class LipErrors:
    """Of T frames: mean and largest distance over the lips in mm, opening and penetration in mm, each (T,)."""

    mean: Tensor
    largest: Tensor
    opening: Tensor
    penetration: Tensor


@dataclass(frozen=True, eq=False)
class LipFigures:
    """Classes (T,) of the frames, numbers into `NAMES`, and the errors of each way to make the lips."""

    classes: Int
    errors: dict[str, LipErrors]
    saturated: float

    def table(self) -> str:
        """The figures as text: mean over frames of the mean and of the largest error, and the lips' opening."""
        rows = [["lips, mm", *(f"{name}" for name in NAMES), "all"]]
        rows.append(["frames", *(str(int((self.classes == k).sum())) for k in range(len(NAMES)))])
        rows[-1].append(str(len(self.classes)))
        rules = [1]
        for title, part in (
            ("error, mean", "mean"),
            ("error, largest", "largest"),
            ("gap", "opening"),
            ("inside each other", "penetration"),
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
    """Figures of a network on performances, each by a random person.

    "before": what units alone make of the lips. "after": with the network's offsets, contact and closure. "other
    sound": the same with the sound of another performance. "offsets alone": without contact and closure. "blurred
    units" begin with units that are smoothed in time.

    Raises:
        AvfaceError: if the network isn't of the head's lips.
    """
    check_lips(network, head)
    shapes = LipEffects.of(head)
    numbers = network.numbers
    basis = head.expression_basis[:, numbers].flatten(1)
    full = network.falloff > 0.99
    parts: dict[str, list[LipErrors]] = {}
    classes: list[Int] = []
    saturated: list[float] = []
    talks = torch.nonzero(performances.kind == 0)[:, 0].tolist()
    for number in range(len(performances)):
        count = int(performances.count[number])
        times = np.arange(count) / performances.frame_rate
        phonemes = performances.phonemes(number)
        rng = np.random.default_rng([seed, number])
        shape = torch.from_numpy((0.75 * rng.normal(size=head.num_shape)).astype(np.float32))
        style = lip_style_vector(sample_lip_style(rng))
        person = head.neutral(shape)[numbers]
        units = _rows(performances, "expression", number).float()

        def lips_of(weights: Tensor, person: Tensor = person) -> Tensor:
            return person + (weights @ basis).unflatten(-1, (-1, 3))

        base = lips_of(units)
        blurred = lips_of(_blurred(units, BLUR * performances.frame_rate))
        curves = torch.from_numpy(effect_curves(phonemes, times[-1] + 0.1, times)).float()
        true = base + shapes.offsets(base, curves, style)
        other = talks[(talks.index(number) + 7) % len(talks)] if number in talks else number
        own_motion, other_motion = (
            predict_lips(
                network,
                _rows(performances, "speech", source).float().numpy(),
                speech_gate(_rows(performances, "activity", source).numpy(), times),
            )
            for source in (number, other)
        )
        saturated.append(float(network.saturated(own_motion.offsets)))
        made = {"before": base, "offsets alone": base + own_motion.offsets}
        for name, motion, begun in (
            ("after", own_motion, base),
            ("other sound", other_motion, base),
            ("blurred units, after", own_motion, blurred),
        ):
            made[name] = shapes.contact.resolve_penetration(shapes.contact.close_gap(begun + motion.offsets, motion.closure))
        made = {**made, "blurred units, before": blurred, "truth": true}
        for name, vertices in made.items():
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
            _classes(phonemes, times) if number in talks else np.full(count, NAMES.index("silence"))
        )
    order = (
        "before", "offsets alone", "after", "other sound",
        "blurred units, before", "blurred units, after", "truth",
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


def _blurred(units: Tensor, sigma: float) -> Tensor:
    """Units (T, E) smoothed in time; sigma in frames."""
    from scipy.ndimage import gaussian_filter1d

    return torch.from_numpy(gaussian_filter1d(units.numpy(), sigma, axis=0, mode="nearest"))


def _classes(phonemes: tuple[Phoneme, ...], times: F64) -> Int:
    """What the lips are about at each time (T,), by the phoneme that is heard a moment later."""
    said: list[tuple[float, int]] = [(-np.inf, NAMES.index("silence"))]
    ends = [*(phoneme.start for phoneme in phonemes[1:]), times[-1] + 1]
    for phoneme, until in zip(phonemes, ends, strict=False):
        start = phoneme.start
        for letter, share in ipa_letters(phoneme.symbol) or [("", 1.0)]:
            found = [k for k, name in enumerate(CLASSES) if letter and letter in CLASSES[name]]
            said.append((start, found[0] if found else NAMES.index("other" if letter else "silence")))
            start += share * (until - phoneme.start)
    starts = np.array([start for start, _ in said])
    return np.array([number for _, number in said])[np.searchsorted(starts, times + LEAD, side="right") - 1]


@dataclass(frozen=True)
class LipEvaluation:
    """Print figures of a lips network."""

    weights: tyro.conf.Positional[Path] = pretrained_lips.path
    """The network; the shipped one if not given."""
    performances: Path | None = None
    """File that keeps the test performances; made and forgotten if not given."""
    hours: float = 0.25
    """Length of the performances."""
    seed: int = 1
    """Seed of everything random: who says what, in which voice and room. 1 makes the performances of the model card,
    which were looked at when choices were made; with any other number they are a blind split, to be looked at once."""


def main() -> None:
    """Print the figures that the command asks for."""
    asked = tyro.cli(LipEvaluation, description=__doc__)
    try:
        network = load_lips(asked.weights)
        config = LipPerformancesConfig(hours=asked.hours, seed=asked.seed, split="test")
        head = load_head(network.config.head)
        with TemporaryDirectory() as folder:
            path = asked.performances or Path(folder) / "lip-performances.safetensors"
            performances = prepare_lip_performances(path, network.config.head, config)
            print(lip_figures(network, head, performances, asked.seed).table())
    except AvfaceError as error:
        raise SystemExit(f"avface: error: {error}") from None


if __name__ == "__main__":
    main()
