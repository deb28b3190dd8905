"""Lip refinement of a whole clip from its sound and picture.

The lips network predicts offsets and closures from sound. Where the lips are visible, the picture determines the
closures, and the gain of the offsets for this person; where they aren't, the prediction is used as it is.
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
    GATE_HOLD,
    LipMotion,
    LipsNetwork,
    check_lips,
    predict_lips,
    pretrained_lips,
    speech_gate,
)
from avface.networks.lips.visual_evidence import LipGain, LipObservation
from avface.networks.running_pca import RunningPca
from avface.speech.stream import SoundStream

COMPONENTS = 8
"""Most principal components of a clip's lip offsets."""
CONTACT_WEIGHT = 3.0
"""Weight of the gap between the lips against that of a vertex in the principal component analysis."""
CLOSURE_TOLERANCE = 0.12
"""Seconds by which a closure in the picture and one predicted from sound may differ in time."""
CHUNK_MARGIN = GATE_HOLD + 2 * GATE_FADE + CLOSURE_TOLERANCE + 0.02
"""Seconds before and after a frame that its gate and closure depend on."""
CLOSURE_SMOOTHING = 0.06
"""Half width in seconds of the raised cosine that smooths closures predicted from sound."""
_BLOCK = 128


@dataclass(frozen=True, eq=False)
class ClipLips:
    """Offsets of the lips over T frames, weights (T, K) @ basis (K, N, 3), in metres, of the head's vertices (N,).

    They are added to the vertices before skinning. K is 0 without offsets.
    """

    vertices: Int
    basis: F32
    weights: F32


@dataclass(frozen=True, eq=False)
class _AudioCues:
    """Predictions from sound for T frames, each (T,) from 0 to 1."""

    gate: Tensor
    """Of speech."""
    closure: Tensor
    """Of the lips, smoothed."""
    closure_near: Tensor
    """Maximum of the closure within `CLOSURE_TOLERANCE`."""


@dataclass(frozen=True, eq=False)
class LipRefinement:
    """A lips network and the head that it was trained for."""

    network: LipsNetwork
    head: HeadModel
    contact: LipContact
    outline: Tensor
    """(40, N) maps the vertices of the lips to the landmarks `LIPS`."""

    @classmethod
    def of(cls, network: LipsNetwork, head: HeadModel) -> LipRefinement:
        """Combine a network with its head.

        Raises:
            AvfaceError: if the network was trained for other lips.
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
        observation: LipObservation | None = None,
        on_frames: Callable[[int], None] = lambda more: None,
    ) -> ClipLips:
        """The offsets of a clip's lips from those of their expression units.

        Args:
            shape: (S,) of the person.
            expression: (T, E) as fitted.
            times: (T,) ascending seconds.
            sound: blocks of samples at 16 kHz, sample 0 at time 0 (`Clip.audio_blocks`).
            chosen: (T,) frames of the person; others get no offsets.
            observation: the lips in the picture; None for sound alone.
            on_frames: called with the number of further frames done.

        In and around speech the lips don't intersect, up to the truncation to `COMPONENTS`. Where the gate is below 1,
        the correction of an intersection by the units alone is faded by the gate, too. Frames in silence get offsets of
        exactly 0. Memory depends on `CHUNK_FRAMES`, apart from a few weights a frame.
        """
        head, numbers = self.head, self.network.numbers.cpu()
        person = head.neutral(torch.as_tensor(shape)).cpu()[numbers]
        units, terms = head.blend_basis.cpu()[:, numbers].flatten(1), head.blend_terms.to("cpu")
        width = len(numbers) * 3
        pca = RunningPca(width, COMPONENTS)
        parts = [_AudioCues(*torch.zeros(3, 0))]
        for offsets, chunk in self._predict_chunks(sound, times, torch.from_numpy(chosen)):
            for block in offsets.flatten(1).split(_BLOCK):
                pca.add(block.double().numpy())
            parts.append(chunk)
        cues = _AudioCues(
            *(torch.cat([getattr(p, name) for p in parts]) for name in ("gate", "closure", "closure_near"))
        )
        basis, weights = (torch.from_numpy(part).float() for part in pca.finish())

        def base(rows: slice) -> Tensor:
            """The lips (B, N, 3) by the expression units alone."""
            here = torch.from_numpy(np.ascontiguousarray(expression[rows]))
            weights = terms.weights(here, torch.as_tensor(shape))
            return person + (weights @ units).unflatten(1, (-1, 3))

        if observation is not None:
            gain = LipGain(basis.unflatten(1, (-1, 3)), self.outline)
            for rows in _blocks(len(times)):
                gain.add(observation, rows, base(rows), weights[rows])
            weights = weights * gain.gain(times)
        gaps = CONTACT_WEIGHT * (self.contact.upper - self.contact.lower)
        final_pca = RunningPca(width + len(gaps), COMPONENTS)
        for rows in _blocks(len(times)):
            lips, gate = base(rows), cues.gate[rows]
            closure = cues.closure[rows]  # gated already
            if observation is not None:
                visible = observation.closure(rows, self.outline @ lips, cues.closure_near[rows])
                picture_weight = observation.picture_weight(rows)
                closure = picture_weight * gate * visible + (1 - picture_weight) * closure
            offsets = torch.zeros_like(lips)
            moving = gate > 0
            if moving.any():
                predicted = (weights[rows][moving] @ basis).unflatten(1, (-1, 3))
                offsets[moving] = self._resolve_contact(
                    lips[moving], predicted, closure[moving], gate[moving]
                )
            final_pca.add(torch.cat([offsets.flatten(1), offsets[..., 1] @ gaps.T], 1).double().numpy())
            on_frames(rows.stop - rows.start)
        components, final_weights = final_pca.finish()
        components = components[:, :width].reshape(-1, len(numbers), 3)
        return ClipLips(numbers.numpy(), components.astype(np.float32), final_weights.astype(np.float32))

    def audio_closures(self, times: F64, sound: Iterable[F32]) -> F32:
        """Closures (T,) of the lips predicted from sound, from 0 to 1, as used where the lips aren't visible.

        times: (T,) ascending seconds; sound: as for `refine`.
        """
        chunks = self._predict_chunks(sound, times, torch.ones(len(times)))
        parts = [cues.closure.numpy() for _, cues in chunks]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _predict_chunks(
        self, sound: Iterable[F32], times: F64, chosen: Tensor
    ) -> Iterator[tuple[Tensor, _AudioCues]]:
        """The network's offsets (B, N, 3) and the cues of all frames, chunk by chunk."""
        stream = SoundStream(sound)
        for outer, inner in _chunks(times):
            motion, cues = self._predict(stream, times[outer], chosen[outer])
            here = slice(inner.start - outer.start, inner.stop - outer.start)
            yield (
                motion.offsets[here],
                _AudioCues(cues.gate[here], cues.closure[here], cues.closure_near[here]),
            )

    def _predict(self, stream: SoundStream, times: F64, chosen: Tensor) -> tuple[LipMotion, _AudioCues]:
        """The network's prediction for some frames, from the sound around them."""
        network = self.network
        _, features = stream.features(times, network.config.audio.speech, network.place.device)
        if features is None:
            gate = np.zeros(len(times), np.float32)
            speech = np.zeros((len(times), 0), np.float32)  # not used
        else:
            gate, speech = speech_gate(features.speech_activity, times), features.values
        gate = gate * chosen.numpy()
        motion = predict_lips(network, speech, gate)
        smooth, near = _smooth_closure(motion.closure.numpy(), times)
        smooth = np.minimum(smooth, gate)
        return motion, _AudioCues(torch.from_numpy(gate), torch.from_numpy(smooth), torch.from_numpy(near))

    def _resolve_contact(self, base: Tensor, offsets: Tensor, closure: Tensor, gate: Tensor) -> Tensor:
        """Offsets (B, N, 3) with which lips at `base` close by `closure` and don't intersect."""
        lips = self.contact.resolve_penetration(self.contact.close_gap(base + offsets, closure))
        fading = gate < 1
        if fading.any():  # the correction of an intersection that exists without offsets is faded by the gate
            own = self.contact.resolve_penetration(base[fading]) - base[fading]
            lips[fading] -= (1 - gate[fading])[:, None, None] * own
        return lips - base


def pretrained_lip_refinement(head: HeadModel, device: str) -> LipRefinement | None:
    """The refinement with the pretrained network; None if there is none for this head.

    Raises:
        AvfaceError: if the weights are damaged.
    """
    network = pretrained_lips.of_head(head.name, device)
    return None if network is None else LipRefinement.of(network, head)


def _smooth_closure(closure: F32, times: F64) -> tuple[F32, F32]:
    """The smoothed closure (T,), and its maximum within `CLOSURE_TOLERANCE` of each frame."""
    reach = max(CLOSURE_SMOOTHING, CLOSURE_TOLERANCE)
    smooth, near = np.zeros_like(closure), np.zeros_like(closure)
    first = np.searchsorted(times, times - reach)
    last = np.searchsorted(times, times + reach, side="right")
    for frame in range(len(times)):
        here = slice(int(first[frame]), int(last[frame]))
        away = np.abs(times[here] - times[frame])
        weight = 1 + np.cos(np.pi * np.minimum(away / CLOSURE_SMOOTHING, 1))
        smooth[frame] = weight @ closure[here] / weight.sum()
        near[frame] = closure[here][away <= CLOSURE_TOLERANCE].max()
    return smooth, near


def _blocks(frames: int) -> Iterator[slice]:
    for start in range(0, frames, _BLOCK):
        yield slice(start, min(start + _BLOCK, frames))


def _chunks(times: F64) -> Iterator[tuple[slice, slice]]:
    """Chunks of about `CHUNK_FRAMES` frames: the frames to process, with a margin, and those of the chunk."""
    frames = len(times)
    edges = np.linspace(0, frames, max(1, -(-frames // CHUNK_FRAMES)) + 1).round().astype(int).tolist()
    for start, end in pairwise(edges):
        if start < end:
            around = np.searchsorted(times, [times[start] - CHUNK_MARGIN, times[end - 1] + CHUNK_MARGIN])
            yield slice(int(around[0]), int(around[1])), slice(start, end)
