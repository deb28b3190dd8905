"""Lip refinement of a whole clip, from its sound and the face that was found in it.

Where the lips are seen, the picture has the last word: it says when they are shut, and how far what is heard moves this
person's lips. Where they aren't, the sound says both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from avface.arrays import F32, F64, Bool, Int
from avface.head.lip_contact import LipContact
from avface.head.lips import landmark_rows, lip_region
from avface.head.model import HeadModel
from avface.head.schemes import LIPS
from avface.networks.frames import CHUNK_FRAMES
from avface.networks.lips.network import (
    GATE_FADE,
    GATE_REACH,
    LipMotion,
    LipsNetwork,
    check_lips,
    predict_lips,
    pretrained_lips,
    speech_gate,
)
from avface.networks.lips.visual_evidence import LipGain, LipView
from avface.networks.running_pca import RunningPca
from avface.speech.stream import SoundStream

COMPONENTS = 8
"""Ways in which the lips of a clip move beyond their expression units, at most."""
CONTACT_WEIGHT = 3.0
"""How much more an error of the gap between the lips counts than one of a vertex, when a clip's ways are found."""
HEARD_NEAR = 0.12
"""Seconds around a closure that is heard in which one that is seen can be the same."""
GATE_AROUND = GATE_REACH + 2 * GATE_FADE + HEARD_NEAR + 0.02
"""Seconds before and after a frame that decide whether it is in speech, and what is heard around it."""
HEARD_SOFT = 0.06
"""Seconds over which lips that only are heard shut and open."""
_BLOCK = 128


@dataclass(frozen=True, eq=False)
class ClipLips:
    """Offsets of the lips over T frames: weights (T, K) @ basis (K, N, 3), metres on the head before any joint turns,
    of the head's vertices (N,). K is 0 where the lips do nothing but what their units say."""

    vertices: Int
    basis: F32
    weights: F32


@dataclass(frozen=True, eq=False)
class _Heard:
    """What is heard of T frames: how far they are in speech, how far lips are shut, and the most that they are shut
    within `HEARD_NEAR`, each (T,)."""

    gate: Tensor
    closure: Tensor
    near: Tensor


@dataclass(frozen=True, eq=False)
class LipRefinement:
    """A lips network with the head that it is about, where the head's lips meet, and where the tracker sees them:
    outline (40, N) takes vertices to the landmarks `LIPS`."""

    network: LipsNetwork
    head: HeadModel
    contact: LipContact
    outline: Tensor

    @classmethod
    def of(cls, network: LipsNetwork, head: HeadModel) -> LipRefinement:
        """Bring a network and a head together.

        Raises:
            AvfaceError: if the network isn't about this head's lips.
        """
        check_lips(network, head)
        region = lip_region(head)
        outline = torch.from_numpy(landmark_rows(head, region, LIPS)).float()
        return cls(network, head, LipContact.of(head, region), outline)

    def refine(
        self,
        shape: F32,
        expression: F32,
        times: F64,
        sound: Iterable[F32],
        chosen: Bool,
        view: LipView | None = None,
        on_frames: Callable[[int], None] = lambda more: None,
    ) -> ClipLips:
        """How the lips of a clip move beyond their expression units.

        Args:
            shape: (S,) of the person.
            expression: (T, E) as it was found.
            times: (T,) ascending seconds.
            sound: blocks of samples at 16 kHz, sample 0 at time 0 (`Clip.audio_blocks`).
            chosen: (T,) frames of the person; others get no offsets.
            view: the lips in the picture; None: nobody looks.
            on_frames: told how many more frames are done.

        In and around speech upper and lower lip end outside each other, apart from what is lost by keeping few
        components; from silence into speech, where the offsets fade in, so does what parts lips that the units alone
        have put inside each other. Frames in silence get offsets of exactly 0. Memory depends on `CHUNK_FRAMES`, apart
        from a few weights a frame.
        """
        head, numbers = self.head, self.network.numbers.cpu()
        person = head.neutral(torch.as_tensor(shape)).cpu()[numbers]
        units = head.expression_basis.cpu()[:, numbers].flatten(1)
        width = len(numbers) * 3
        pca = RunningPca(width, COMPONENTS)
        parts = [_Heard(*torch.zeros(3, 0))]
        for offsets, heard in self._listen(sound, times, torch.from_numpy(chosen)):
            for block in offsets.flatten(1).split(_BLOCK):
                pca.add(block.double().numpy())
            parts.append(heard)
        heard = _Heard(
            *(torch.cat([getattr(p, name) for p in parts]) for name in ("gate", "closure", "near"))
        )
        basis, weights = (torch.from_numpy(part).float() for part in pca.finish())

        def base(rows: slice) -> Tensor:
            here = torch.from_numpy(np.ascontiguousarray(expression[rows]))
            return person + (here @ units).unflatten(1, (-1, 3))

        if view is not None:
            gain = LipGain(basis.unflatten(1, (-1, 3)), self.outline)
            for rows in _blocks(len(times)):
                gain.add(view, rows, base(rows), weights[rows])
            weights = weights * gain.factor(times)
        gaps = CONTACT_WEIGHT * (self.contact.upper - self.contact.lower)
        found = RunningPca(width + len(gaps), COMPONENTS)
        for rows in _blocks(len(times)):
            lips, gate = base(rows), heard.gate[rows]
            shut = heard.closure[rows]  # which is gated already
            if view is not None:
                seen, say = view.shut(rows, self.outline @ lips, heard.near[rows])
                shut = say * gate * seen + (1 - say) * shut
            offsets = torch.zeros_like(lips)
            moving = gate > 0
            if moving.any():
                moved = (weights[rows][moving] @ basis).unflatten(1, (-1, 3))
                offsets[moving] = self._touching(lips[moving], moved, shut[moving], gate[moving])
            found.add(torch.cat([offsets.flatten(1), offsets[..., 1] @ gaps.T], 1).double().numpy())
            on_frames(rows.stop - rows.start)
        ways, every = found.finish()
        ways = ways[:, :width].reshape(-1, len(numbers), 3)
        return ClipLips(numbers.numpy(), ways.astype(np.float32), every.astype(np.float32))

    def heard_closures(self, times: F64, sound: Iterable[F32]) -> F32:
        """How far lips are heard to be shut in frames at times (T,), from 0 to 1: what decides where they are hidden.

        times: ascending seconds; sound: as for `refine`.
        """
        parts = [heard.closure.numpy() for _, heard in self._listen(sound, times, torch.ones(len(times)))]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _listen(self, sound: Iterable[F32], times: F64, chosen: Tensor) -> Iterator[tuple[Tensor, _Heard]]:
        """The network's offsets (B, N, 3) and what is heard of all frames, stretch by stretch."""
        stream = SoundStream(sound)
        for outer, inner in _stretches(times):
            motion, heard = self._heard(stream, times[outer], chosen[outer])
            here = slice(inner.start - outer.start, inner.stop - outer.start)
            yield motion.offsets[here], _Heard(heard.gate[here], heard.closure[here], heard.near[here])

    def _heard(self, stream: SoundStream, times: F64, chosen: Tensor) -> tuple[LipMotion, _Heard]:
        """What the network makes of the sound around some frames."""
        network = self.network
        _, features = stream.features(times, network.config.audio.speech, network.place.device)
        if features is None:
            gate = np.zeros(len(times), np.float32)
            speech = np.zeros((len(times), 0), np.float32)  # of which nothing is asked
        else:
            gate, speech = speech_gate(features.speech_activity, times), features.values
        gate = gate * chosen.numpy()
        motion = predict_lips(network, speech, gate)
        soft, near = _in_time(motion.closure.numpy(), times)
        soft = np.minimum(soft, gate)
        return motion, _Heard(torch.from_numpy(gate), torch.from_numpy(soft), torch.from_numpy(near))

    def _touching(self, base: Tensor, offsets: Tensor, closure: Tensor, gate: Tensor) -> Tensor:
        """Offsets (B, N, 3) with which lips at `base` meet and don't pass through each other."""
        lips = self.contact.parted(self.contact.closed(base + offsets, closure))
        fading = gate < 1
        if fading.any():  # what is wrong without the offsets, too, is put right as far as there is speech
            own = self.contact.parted(base[fading]) - base[fading]
            lips[fading] -= (1 - gate[fading])[:, None, None] * own
        return lips - base


def pretrained_lip_refinement(head: HeadModel, device: str) -> LipRefinement | None:
    """The refinement with the weights that come with avface; None where none do, or they are about another head.

    Raises:
        AvfaceError: if the weights are damaged.
    """
    if not pretrained_lips.path.exists():
        return None
    network = pretrained_lips(device)
    return LipRefinement.of(network, head) if network.config.head == head.name else None


def _in_time(closure: F32, times: F64) -> tuple[F32, F32]:
    """A closure (T,) that comes and goes softly, and the greatest around each frame."""
    reach = max(HEARD_SOFT, HEARD_NEAR)
    soft, near = np.zeros_like(closure), np.zeros_like(closure)
    first = np.searchsorted(times, times - reach)
    last = np.searchsorted(times, times + reach, side="right")
    for frame in range(len(times)):
        here = slice(int(first[frame]), int(last[frame]))
        away = np.abs(times[here] - times[frame])
        weight = 1 + np.cos(np.pi * np.minimum(away / HEARD_SOFT, 1))
        soft[frame] = weight @ closure[here] / weight.sum()
        near[frame] = closure[here][away <= HEARD_NEAR].max()
    return soft, near


def _blocks(frames: int) -> Iterator[slice]:
    for start in range(0, frames, _BLOCK):
        yield slice(start, min(start + _BLOCK, frames))


def _stretches(times: F64) -> Iterator[tuple[slice, slice]]:
    """Stretches of about `CHUNK_FRAMES` frames: the frames to look at, and those among them to keep."""
    frames = len(times)
    edges = np.linspace(0, frames, max(1, -(-frames // CHUNK_FRAMES)) + 1).round().astype(int).tolist()
    for start, end in pairwise(edges):
        if start < end:
            around = np.searchsorted(times, [times[start] - GATE_AROUND, times[end - 1] + GATE_AROUND])
            yield slice(int(around[0]), int(around[1])), slice(start, end)
