"""Which parts of a face are hidden in each frame: what the pictures say, since the landmark network does not.

MediaPipe puts its landmarks confidently under a hand. But the texels of the face (`face_texture`) then show something
else than they do in the rest of the clip, or than faces do at all. Every frame is compared with the clip's own median
texture, light evened out, in colour, brightness and structure over windows of several sizes, and with the average of
synthetic faces, for what is before the face all the time. A small network, fitted to synthetic clips
(`avface.training.visibility`), turns the differences into a log-odds for each texel; it is smoothed over five frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from avface.arrays import F32, U8, Bool, Floats, Ints
from avface.tracking.face_texture import HEIGHT, TEXELS, WIDTH, FaceTexture, Texture
from avface.tracking.face_track import RecordFile, StoredArray

WEIGHTS_FILE = Path(__file__).parent / "assets" / "visibility.npz"
VISIBLE = 0.5
"""A landmark whose visibility is above this counts as seen, others as occluded."""
REFERENCE_FRAMES = 100
"""Frames, evenly over the clip, from which its usual texture is taken."""
_BLOCK = 128
"""Frames looked at together."""
_KERNEL = np.array([1, 2, 3, 2, 1], np.float32) / 9
"""Smoothing over time."""
_REACH = len(_KERNEL) // 2
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
_LIGHT_SCALE = (0.15, 0.05, 0.07)
"""Differences of brightness, red and blue (logarithms) that light is fitted to; larger ones count less."""
_NOISE = np.array([0.10, 0.03, 0.04], np.float32)
"""Added to the clip's own spread of each."""
_SKIN = np.array([0.10, 0.14], np.float32)
"""Spread of red and blue over a face's skin."""
_LEAST = 0.03
"""Weight of a texel that isn't seen, in averages over windows."""

_USUAL_SHARE = 0.3
"""Share of the frames in which a texel looks no more hidden than it usually does."""
_UNREMARKABLE, _ALWAYS, _TAPER = -3.0, 1.6, 0.8
"""Log-odds that are usual for a texel that is seen; those from which on it is taken to be hidden all the time; and how
far below them one turns into the other."""

_TURNED = 8.0
"""Log-odds taken off texels all around which the face has turned away: what is seen of a face's edge is the background
or looks like nothing before. The tracker follows profiles well enough."""

_RECORD = np.dtype([("texture", "u1", FaceTexture.SHAPE), ("seen", "?"), ("new_shot", "?")])
_RESULT = np.dtype([("visibility", "<f4", (478,))])


class FaceReference(NamedTuple):
    """What the face looks like in most of a clip."""

    median: F32
    """(N, 3) brightness, red and blue."""
    spread: F32
    """(N, 3) median absolute deviation, as a standard deviation."""


class FaceMean(NamedTuple):
    """What faces look like, over many people."""

    mean: F32
    """(N, 3) brightness, red and blue less their medians over the face."""
    spread: F32
    """(N, 3) standard deviation."""


class _Windows:
    """Weighted means over square windows of texels."""

    def __init__(self, inside: Bool, weight: F32) -> None:
        self._inside, self._weight = inside, weight

    def mean(self, values: F32, size: int) -> F32:
        """Shapes: values (T, N, C) -> (T, N, C)."""
        frames, _, channels = values.shape
        out = np.empty(values.shape, np.float32)
        grid = np.zeros((HEIGHT, WIDTH, channels + 1), np.float32)
        for t in range(frames):
            weight = self._weight[t, :, None]
            grid[self._inside] = np.concatenate([values[t] * weight, weight], 1)
            total = cv2.boxFilter(grid, -1, (size, size), normalize=False, borderType=cv2.BORDER_CONSTANT)
            total = total[self._inside]
            out[t] = total[:, :-1] / np.maximum(total[:, -1:], 1e-3)
        return out


def appearance(textures: Texture) -> tuple[F32, F32]:
    """Textures (T, N, 4) as brightness, red and blue (T, N, 3), logarithms, and weights (T, N) in [0, 1].

    In logarithms a change of light is an offset. Red and blue are relative to green.
    """
    logarithm = np.log(textures[..., :3].astype(np.float32) + 4)
    green = logarithm[..., 1]
    look = np.stack([logarithm @ _LUMINANCE, logarithm[..., 0] - green, logarithm[..., 2] - green], -1)
    return look, textures[..., 3].astype(np.float32) / 255


def _masked_median(values: F32, mask: Bool, axis: int) -> F32:
    """Median of values (T, N, C) along axis 0 or 1 where mask (T, N), the lower of two; 0 where there is nothing."""
    ordered = np.sort(np.where(mask[..., None], values, np.float32(np.inf)), axis)
    count = mask.sum(axis)
    middle = np.expand_dims(np.maximum(count - 1, 0) // 2, (axis, 2))
    median = np.take_along_axis(ordered, middle, axis).squeeze(axis)
    return np.asarray(np.where(count[:, None] > 0, median, 0), np.float32)


def _light(difference: F32, weight: F32, plane: F32) -> F32:
    """What changed light explains of the difference (T, N, 3) to the usual look, (T, N, 3).

    An offset for each channel, for brightness also a slope across and down the face; by least squares with Cauchy's
    weights, starting from the median, so that a hidden half does not pull it over.
    """
    offset = _masked_median(difference, weight > 0.3, 1)[:, None]
    fit = np.repeat(offset, difference.shape[1], 1)
    for channel, scale in enumerate(_LIGHT_SCALE):
        terms = plane if channel == 0 else plane[:, :1]
        products = (terms[:, :, None] * terms[:, None]).reshape(len(terms), -1)
        ridge = np.diag([1e-3, *[8.0] * (terms.shape[1] - 1)]).astype(np.float32)
        value = difference[..., channel]
        for _ in range(5):
            trust = weight / (1 + ((value - fit[..., channel]) / (1.5 * scale)) ** 2) ** 2
            left = (trust @ products).reshape(-1, terms.shape[1], terms.shape[1]) + ridge
            right = (trust * value) @ terms
            fit[..., channel] = np.linalg.solve(left, right[..., None])[..., 0] @ terms.T
    return fit


class VisibilityModel:
    """The network of `avface.training.visibility`, and what it looks at.

    Without a file of weights, as when it is being fitted, `face` must be given.
    """

    def __init__(self, face: FaceMean | None = None) -> None:
        self.texture = FaceTexture()
        if face is None:
            with np.load(WEIGHTS_FILE, allow_pickle=False) as file:
                weights = {name: file[name] for name in file.files}
            face = FaceMean(weights["face_mean"], weights["face_spread"])
            self.use(weights)
        self._face = face
        row, column = np.nonzero(self.texture.inside)
        across, down = 2 * column / WIDTH - 1, 2 * row / HEIGHT - 1
        self._plane: F32 = np.stack([np.ones(TEXELS), across, down], 1).astype(np.float32)

    def use(self, weights: Mapping[str, F32]) -> None:
        """Take the network's weights from a mapping with hidden_weight (K, F), hidden_bias (K,), ..."""
        self._hidden = weights["hidden_weight"].T, weights["hidden_bias"]
        self._output = weights["output_weight"].T, weights["output_bias"]

    def reference(self, textures: Texture, hidden: Bool | None = None) -> FaceReference:
        """The usual look over textures (T, N, 4), without what is known to be hidden (T, N) where that leaves any."""
        look, weight = appearance(textures)
        use = weight > 0.3
        if hidden is not None:
            kept = use & ~hidden
            use = np.where(kept.sum(0) >= max(3, 0.1 * len(use)), kept, use)
        else:
            use = np.where(use.sum(0) >= max(3, 0.1 * len(use)), use, True)
        offset = _masked_median(look, use, 1)[:, None]
        fit = offset - np.median(offset, 0)
        median = _masked_median(look - fit, use, 0)
        for _ in range(2):
            fit = _light(look - median, weight * use, self._plane)
            median = _masked_median(look - fit, use, 0)
        off = look - median - _light(look - median, weight * use, self._plane)
        return FaceReference(median, np.float32(1.4826) * _masked_median(np.abs(off), use, 0))

    def clear_reference(self, textures: Texture) -> FaceReference:
        """The usual look over textures (T, N, 4), taken again without what then turns out hidden."""
        reference = self.reference(textures)
        return self.reference(textures, self.log_odds(textures, reference) > 0)

    def evidence(self, textures: Texture, reference: FaceReference) -> F32:
        """How frames differ from the usual look and from faces in general, (T, N, 18).

        Shapes: textures (T, N, 4).
        """
        look, seen = appearance(textures)
        off = look - reference.median
        off -= _light(off, seen, self._plane)
        now = reference.median + off
        windows = _Windows(self.texture.inside, seen + np.float32(_LEAST))
        usual = np.broadcast_to(reference.median[:, 0], seen.shape)

        strange = np.abs(off) / (reference.spread + _NOISE)
        light = np.minimum(strange[..., 0], 8)
        colour = np.minimum(np.hypot(strange[..., 1], strange[..., 2]) / 1.2, 8)
        change = np.minimum(np.hypot(off[..., 1] / 0.08, off[..., 2] / 0.1), 8)
        skin = np.median(reference.median[:, 1:], 0)
        from_skin = np.hypot(*np.moveaxis((now[..., 1:] - skin) / _SKIN, -1, 0))
        usually = np.hypot(*((reference.median[:, 1:] - skin) / _SKIN).T)
        # what faces in general look like
        level = np.median(reference.median, 0)
        unlike = np.abs(now - level - self._face.mean) / (self._face.spread + _NOISE)
        unlike_light = np.minimum(unlike[..., 0], 8)
        unlike_colour = np.minimum(np.hypot(unlike[..., 1], unlike[..., 2]), 8)
        general = np.broadcast_to(self._face.mean[:, 0], seen.shape)

        small = windows.mean(np.stack([light, colour], -1), 3)
        changes = [np.minimum(np.abs(off[..., 0]) / 0.2, 8), change, np.maximum(from_skin - usually, 0)]
        middle = windows.mean(np.stack([*changes, from_skin, unlike_light, unlike_colour], -1), 5)
        brightness = now[..., 0]
        large = windows.mean(
            np.stack([light, colour, brightness, usual, brightness**2, usual**2, brightness * usual], -1), 7
        )
        huge = windows.mean(
            np.stack(
                [
                    light + colour, from_skin, unlike_light, unlike_colour,
                    brightness, general, brightness**2, general**2, brightness * general,
                ],
                -1,
            ),
            13,
        )  # fmt: skip
        alike, contrast = _correlation(large[..., 2:])
        like_faces, _ = _correlation(huge[..., 4:])
        everywhere = np.broadcast_to(np.minimum(light + colour, 8).mean(1, keepdims=True), seen.shape)
        amounts = [small, large[..., :2], huge[..., :4], middle, everywhere[..., None]]
        others = [1 - alike, np.abs(contrast), 1 - like_faces]
        return np.concatenate([np.log1p(np.concatenate(amounts, -1)), np.stack(others, -1)], -1)

    def edge(self, textures: Texture) -> F32:
        """The share of what is around each texel (T, N) that is turned away from the camera, in textures (T, N, 4)."""
        _, seen = appearance(textures)
        return _Windows(self.texture.inside, np.ones_like(seen)).mean(1 - seen[..., None], 9)[..., 0]

    def log_odds(self, textures: Texture, reference: FaceReference) -> F32:
        """Log-odds that each texel is hidden, (T, N), from textures (T, N, 4)."""
        units = np.tanh(self.evidence(textures, reference) @ self._hidden[0] + self._hidden[1])
        return np.asarray((units @ self._output[0] + self._output[1])[..., 0])


def _correlation(means: F32) -> tuple[F32, F32]:
    """Correlation and log-ratio of contrast of a and b from the means (..., 5) of a, b, a^2, b^2, ab."""
    a, b, aa, bb, ab = np.moveaxis(means, -1, 0)
    noise = np.float32(0.03**2)
    in_a, in_b = np.maximum(aa - a * a, 0) + noise, np.maximum(bb - b * b, 0) + noise
    return (ab - a * b + noise) / np.sqrt(in_a * in_b), 0.5 * np.log(in_a / in_b)


class FaceVisibility:
    """Collects one person's textures over a clip and then tells what was hidden.

    The textures lie in a temporary file (4 KB a frame); memory does not grow with the clip.
    """

    def __init__(self) -> None:
        self._model = VisibilityModel()
        self._file = RecordFile(_RECORD)
        self._record = np.zeros(1, _RECORD)

    def __len__(self) -> int:
        """Number of frames so far."""
        return len(self._file)

    def add(self, texture: Texture | None = None, *, new_shot: bool = False) -> None:
        """Take in the next frame: its texture (N, 4) uint8, or None for a frame in which the person is not seen.

        new_shot: whether this is the first frame after a cut, over which nothing is smoothed.
        """
        self._record["seen"] = texture is not None and bool(texture[:, 3].any())
        self._record["texture"] = 0 if texture is None else texture
        self._record["new_shot"] = new_shot
        self._file.append(self._record)

    def add_frame(
        self,
        image: U8,
        landmarks: Floats | None,
        *,
        new_shot: bool = False,
    ) -> None:
        """The same from a picture (H, W, 3) uint8 RGB and landmarks (478, 2 or more) in it; nan or None for no face."""
        texture = None if landmarks is None else self._model.texture.sample(image, landmarks)
        self.add(texture, new_shot=new_shot)

    def estimate(self) -> StoredArray:
        """The probability in [0, 1] that each landmark is seen, (T, 478) float32; 1 in frames without the face.

        It lies in a temporary file and is read as it is sliced.
        """
        result = RecordFile(_RESULT)
        reference, usual, usual_edge = self._reference()
        frames = len(self)
        for start in range(0, frames, _BLOCK):
            stop = min(start + _BLOCK, frames)
            first, last = max(start - _REACH, 0), min(stop + _REACH, frames)
            records = self._file.read(first, last)
            result_block = np.ones(stop - start, _RESULT)
            seen, shot = records["seen"], np.cumsum(records["new_shot"])
            looked = seen & _looked_at(first, seen, records["new_shot"])
            here = seen[start - first : stop - first]
            if reference is not None and here.any():
                odds = np.zeros((len(records), TEXELS), np.float32)
                textures = records["texture"][looked]
                turned = (self._model.edge(textures) - usual_edge).clip(0)
                odds[looked] = self._model.log_odds(textures, reference) - usual - _TURNED * turned
                odds = _smoothed(odds, looked, shot)[start - first : stop - first][here]
                odds = odds[:, self._model.texture.landmark_texel]
                result_block["visibility"][here] = 1 / (1 + np.exp(np.clip(odds, -30, 30)))
            result.append(result_block)
        return StoredArray(result, "visibility")

    def _reference(self) -> tuple[FaceReference | None, F32, F32]:
        """The clip's usual look without what is hidden, by how much texels (N,) usually look more hidden than they
        are, and how near they usually are to the face's edge (`VisibilityModel.edge`). None if nobody is ever seen.

        In small or coarse pictures everything differs from everything. That is no news, and is taken off, unless a
        texel looks so hidden that something must be before it all the time.
        """
        frames = len(self)
        chosen = (
            np.unique(np.linspace(0, frames - 1, min(REFERENCE_FRAMES, frames)).astype(int)) if frames else []
        )
        records = [record for t in chosen if (record := self._file.read(t, t + 1))["seen"][0]]
        if not records:
            return None, np.zeros(TEXELS, np.float32), np.zeros(TEXELS, np.float32)
        textures = np.concatenate(records)["texture"]
        reference = self._model.clear_reference(textures)
        usual = np.quantile(self._model.log_odds(textures, reference), _USUAL_SHARE, axis=0)
        seen = ((_ALWAYS - usual) / _TAPER).clip(0, 1)
        edge = np.median(self._model.edge(textures), 0)
        return reference, (seen * (usual - _UNREMARKABLE).clip(0)).astype(np.float32), edge


def _looked_at(first: int, seen: Bool, new_shot: Bool) -> Bool:
    """Which frames, numbered from `first`, are compared: every other one, and those at the beginning of a run."""
    begins = new_shot.copy()
    begins[1:] |= ~seen[:-1]
    return np.asarray(begins | ((np.arange(len(seen)) + first) % 2 == 0))


def _smoothed(odds: F32, looked: Bool, shot: Ints) -> F32:
    """The mean log-odds (T, N) over the frames around that were looked at and are of the same shot."""
    total, weights = np.zeros_like(odds), np.zeros((len(odds), 1), np.float32)
    index = np.arange(len(odds))
    for step, share in zip(range(-_REACH, _REACH + 1), _KERNEL, strict=True):
        source = np.clip(index + step, 0, len(odds) - 1)
        usable = (looked[source] & (shot[source] == shot) & (source == index + step))[:, None]
        total += share * usable * odds[source]
        weights += share * usable
    return total / np.maximum(weights, 1e-6)
