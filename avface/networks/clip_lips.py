"""Lip refinement of a whole clip, from its sound and the face that was found in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from avface.head.lip_contact import LipContact
from avface.head.lips import lip_region
from avface.head.model import HeadModel
from avface.networks import lips as lips_network
from avface.networks.clips import STRETCH, SoundStream
from avface.networks.lips import (
    GATE_FADE,
    GATE_REACH,
    LipMotion,
    LipsNetwork,
    check_lips,
    predict_lips,
    shipped_lips,
    speech_gate,
)
from avface.networks.running_pca import RunningPca

Float = npt.NDArray[np.float32]

COMPONENTS = 8
"""Ways in which the lips of a clip move beyond their expression units, at most."""
CONTACT_WEIGHT = 3.0
"""How much more an error of the gap between the lips counts than one of a vertex, when a clip's ways are found."""
GATE_AROUND = GATE_REACH + 2 * GATE_FADE + 0.02
"""Seconds before and after a frame that decide whether it is in speech."""
_BLOCK = 128


@dataclass(frozen=True, eq=False)
class ClipLips:
    """Offsets of the lips over T frames: weights (T, K) @ basis (K, N, 3), metres on the head before any joint turns,
    of the head's vertices (N,). K is 0 where the lips do nothing but what their units say."""

    vertices: npt.NDArray[np.int64]
    basis: Float
    weights: Float


@dataclass(frozen=True, eq=False)
class LipRefinement:
    """A lips network with the head that it is about, and where the head's lips meet."""

    network: LipsNetwork
    head: HeadModel
    contact: LipContact

    @classmethod
    def of(cls, network: LipsNetwork, head: HeadModel) -> LipRefinement:
        """Bring a network and a head together.

        Raises:
            AvfaceError: if the network isn't about this head's lips.
        """
        check_lips(network, head)
        return cls(network, head, LipContact.of(head, lip_region(head)))

    def refine(
        self,
        shape: Float,
        expression: Float,
        times: npt.NDArray[np.float64],
        sound: Iterable[Float],
        chosen: npt.NDArray[np.bool_],
        on_frames: Callable[[int], None] = lambda more: None,
    ) -> ClipLips:
        """How the lips of a clip move beyond their expression units.

        Args:
            shape: (S,) of the person.
            expression: (T, E) as it was found.
            times: (T,) ascending seconds.
            sound: blocks of samples at 16 kHz, sample 0 at time 0 (`Clip.audio_blocks`).
            chosen: (T,) frames of the person; others get no offsets.
            on_frames: told how many more frames are done.

        In and around speech upper and lower lip end outside each other, apart from what is lost by keeping few
        components; from silence into speech, where the offsets fade in, so does what parts lips that the units alone
        have put inside each other. Frames in silence get offsets of exactly 0. Memory depends on `STRETCH`, apart from
        a few weights a frame.
        """
        head, numbers = self.head, self.network.numbers.cpu()
        person = head.neutral(torch.as_tensor(shape)).cpu()[numbers]
        units = head.expression_basis.cpu()[:, numbers].flatten(1)
        gaps = CONTACT_WEIGHT * (self.contact.upper - self.contact.lower)
        width = len(numbers) * 3
        found = RunningPca(width + len(gaps), COMPONENTS)
        stream = SoundStream(sound)
        for outer, inner in _stretches(times):
            motion, gate = self._heard(stream, times[outer])
            gate *= torch.from_numpy(chosen[outer])
            for start in range(inner.start, inner.stop, _BLOCK):
                end = min(start + _BLOCK, inner.stop)
                here = slice(start - outer.start, end - outer.start)
                weights = torch.from_numpy(np.ascontiguousarray(expression[start:end]))
                base = person + (weights @ units).unflatten(1, (-1, 3))
                offsets = torch.zeros_like(base)
                moving = gate[here] > 0
                if moving.any():
                    offsets[moving] = self._touching(
                        base[moving],
                        motion.offsets[here][moving],
                        motion.closure[here][moving],
                        gate[here][moving],
                    )
                found.add(torch.cat([offsets.flatten(1), offsets[..., 1] @ gaps.T], 1).double().numpy())
                on_frames(end - start)
        basis, every = found.finish()
        basis = basis[:, :width].reshape(-1, len(numbers), 3)
        return ClipLips(numbers.numpy(), basis.astype(np.float32), every.astype(np.float32))

    def _heard(self, stream: SoundStream, times: npt.NDArray[np.float64]) -> tuple[LipMotion, Tensor]:
        """What the network makes of the sound around some frames, and how far they are in speech, (T,)."""
        network = self.network
        _, features = stream.features(times, network.config.audio.speech, network.place.device)
        if features is None:
            gate = np.zeros(len(times), np.float32)
            speech = np.zeros((len(times), 0), np.float32)  # of which nothing is asked
        else:
            gate, speech = speech_gate(features.speech_activity, times), features.values
        return predict_lips(network, speech, gate), torch.from_numpy(gate)

    def _touching(self, base: Tensor, offsets: Tensor, closure: Tensor, gate: Tensor) -> Tensor:
        """Offsets (B, N, 3) with which lips at `base` meet and don't pass through each other."""
        lips = self.contact.parted(self.contact.closed(base + offsets, closure))
        fading = gate < 1
        if fading.any():  # what is wrong without the offsets, too, is put right as far as there is speech
            own = self.contact.parted(base[fading]) - base[fading]
            lips[fading] -= (1 - gate[fading])[:, None, None] * own
        return lips - base


def shipped_refinement(head: HeadModel, device: str) -> LipRefinement | None:
    """The refinement with the weights that come with avface; None where none do, or they are about another head.

    Raises:
        AvfaceError: if the weights are damaged.
    """
    if not lips_network.WEIGHTS.exists():
        return None
    network = shipped_lips(device)
    return LipRefinement.of(network, head) if network.config.head == head.name else None


def _stretches(times: npt.NDArray[np.float64]) -> Iterator[tuple[slice, slice]]:
    """Stretches of about `STRETCH` frames: the frames to look at, and those among them to keep."""
    frames = len(times)
    edges = np.linspace(0, frames, max(1, -(-frames // STRETCH)) + 1).round().astype(int).tolist()
    for start, end in pairwise(edges):
        if start < end:
            around = np.searchsorted(times, [times[start] - GATE_AROUND, times[end - 1] + GATE_AROUND])
            yield slice(int(around[0]), int(around[1])), slice(start, end)
