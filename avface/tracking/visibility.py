"""Which parts of a face are occluded in each frame, from the images, since the landmark network does not report it.

MediaPipe puts its landmarks confidently under a hand. But the texels of the face (`face_texture`) then differ from
those of the rest of the clip, or of faces in general. Every frame is compared with the clip's median texture, with
lighting compensated, in colour, brightness and structure over windows of several sizes, and with the mean of synthetic
faces, which reveals constant occluders. A small network, trained on synthetic clips (`avface.training.visibility`),
turns these features into log-odds of occlusion for each texel; they are smoothed over five frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from avface.arrays import F32, U8, Bool, Floats, Ints
from avface.tracking.face_texture import HEIGHT, WIDTH, FaceTexture, Texture
from avface.tracking.face_track import RecordFile, StoredArray

WEIGHTS_FILE = Path(__file__).parent / "assets" / "visibility.npz"
VISIBLE = 0.5
"""A landmark whose visibility is above this counts as seen, others as occluded."""
REFERENCE_FRAMES = 100
"""Frames, evenly over the clip, from which its median texture is computed."""
_BLOCK = 128
"""Frames that are evaluated together."""
_KERNEL = np.array([1, 2, 3, 2, 1], np.float32) / 9
"""Smoothing over time."""
_RADIUS = len(_KERNEL) // 2
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
_LIGHT_SCALE = (0.15, 0.05, 0.07)
"""Scales of the Cauchy weights of the lighting fit: differences of brightness, red and blue (logarithms)."""
_NOISE = np.array([0.10, 0.03, 0.04], np.float32)
"""Noise floor of each, added to the clip's own spread."""
_SKIN = np.array([0.10, 0.14], np.float32)
"""Standard deviation of red and blue over a face's skin."""
_MIN_WEIGHT = 0.03
"""Weight of a texel that is not seen, in means over windows."""

_BASELINE_QUANTILE = 0.3
"""Quantile over frames of a texel's log-odds that is its baseline."""
_UNOCCLUDED, _ALWAYS, _TAPER = -3.0, 1.6, 0.8
"""Log-odds: baseline of a texel that is never occluded, down to which higher baselines are subtracted; baseline from
which on a texel is taken as occluded in the entire clip, so that nothing is subtracted; width of the transition."""

_CONTOUR_WEIGHT = 8.0
"""Log-odds subtracted from texels whose surroundings have all turned away: along the contour of a turned face texels
show background, or skin that was not seen before, and the detector tracks profiles well."""

_RESULT = np.dtype([("visibility", "<f4", (478,))])


class FaceReference(NamedTuple):
    """The typical appearance of the face in a clip."""

    median: F32
    """(N, 3) brightness, red and blue."""
    spread: F32
    """(N, 3) median absolute deviation, as a standard deviation."""


class FaceMean(NamedTuple):
    """The mean appearance of many people's faces."""

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
    values = np.stack([logarithm @ _LUMINANCE, logarithm[..., 0] - green, logarithm[..., 2] - green], -1)
    return values, textures[..., 3].astype(np.float32) / 255


def _masked_median(values: F32, mask: Bool, axis: int) -> F32:
    """Median of values (T, N, C) along axis 0 or 1 where mask (T, N), the lower of two; 0 where the mask is empty."""
    ordered = np.sort(np.where(mask[..., None], values, np.float32(np.inf)), axis)
    count = mask.sum(axis)
    middle = np.expand_dims(np.maximum(count - 1, 0) // 2, (axis, 2))
    median = np.take_along_axis(ordered, middle, axis).squeeze(axis)
    return np.asarray(np.where(count[:, None] > 0, median, 0), np.float32)


def _lighting(difference: F32, weight: F32, plane: F32) -> F32:
    """The part of the difference (T, N, 3) to the median appearance that a change of light explains, (T, N, 3).

    An offset for each channel, for brightness also a slope across and down the face; by iteratively reweighted least
    squares with Cauchy weights, starting from the median, so that an occluded half does not bias it.
    """
    offset = _masked_median(difference, weight > 0.3, 1)[:, None]
    fit = np.repeat(offset, difference.shape[1], 1)
    for channel, scale in enumerate(_LIGHT_SCALE):
        terms = plane if channel == 0 else plane[:, :1]
        products = (terms[:, :, None] * terms[:, None]).reshape(len(terms), -1)
        ridge = np.diag([1e-3, *[8.0] * (terms.shape[1] - 1)]).astype(np.float32)
        value = difference[..., channel]
        for _ in range(5):
            robust = weight / (1 + ((value - fit[..., channel]) / (1.5 * scale)) ** 2) ** 2
            left = (robust @ products).reshape(-1, terms.shape[1], terms.shape[1]) + ridge
            right = (robust * value) @ terms
            fit[..., channel] = np.linalg.solve(left, right[..., None])[..., 0] @ terms.T
    return fit


class VisibilityModel:
    """The network of `avface.training.visibility`, and its input features.

    Without a file of weights, as in training, `face` must be given.
    """

    def __init__(self, face: FaceMean | None = None) -> None:
        self.texture = FaceTexture()
        if face is None:
            with np.load(WEIGHTS_FILE, allow_pickle=False) as file:
                weights = {name: file[name] for name in file.files}
            face = FaceMean(weights["face_mean"], weights["face_spread"])
            self.set_weights(weights)
        self._face = face
        row, column = np.nonzero(self.texture.inside)
        across, down = 2 * column / WIDTH - 1, 2 * row / HEIGHT - 1
        self._plane: F32 = np.stack([np.ones(len(row)), across, down], 1).astype(np.float32)

    def set_weights(self, weights: Mapping[str, F32]) -> None:
        """Use the network's weights from a mapping with hidden_weight (K, F), hidden_bias (K,), ..."""
        self._hidden = weights["hidden_weight"].T, weights["hidden_bias"]
        self._output = weights["output_weight"].T, weights["output_bias"]

    def reference(self, textures: Texture, occluded: Bool | None = None) -> FaceReference:
        """Median appearance over textures (T, N, 4), without occluded texels (T, N) where enough others remain."""
        values, weight = appearance(textures)
        use = weight > 0.3
        if occluded is not None:
            kept = use & ~occluded
            use = np.where(kept.sum(0) >= max(3, 0.1 * len(use)), kept, use)
        else:
            use = np.where(use.sum(0) >= max(3, 0.1 * len(use)), use, True)
        offset = _masked_median(values, use, 1)[:, None]
        fit = offset - np.median(offset, 0)
        median = _masked_median(values - fit, use, 0)
        for _ in range(2):
            fit = _lighting(values - median, weight * use, self._plane)
            median = _masked_median(values - fit, use, 0)
        residual = values - median - _lighting(values - median, weight * use, self._plane)
        return FaceReference(median, np.float32(1.4826) * _masked_median(np.abs(residual), use, 0))

    def clear_reference(self, textures: Texture) -> FaceReference:
        """Median appearance over textures (T, N, 4), computed again without the texels that are then found occluded."""
        reference = self.reference(textures)
        return self.reference(textures, self.log_odds(textures, reference) > 0)

    def features(self, textures: Texture, reference: FaceReference) -> F32:
        """Differences of frames from the clip's median appearance and from faces in general, (T, N, 18).

        Shapes: textures (T, N, 4).
        """
        values, weight = appearance(textures)
        residual = values - reference.median
        residual -= _lighting(residual, weight, self._plane)
        relit = reference.median + residual
        windows = _Windows(self.texture.inside, weight + np.float32(_MIN_WEIGHT))
        median_brightness = np.broadcast_to(reference.median[:, 0], weight.shape)

        scores = np.abs(residual) / (reference.spread + _NOISE)
        light = np.minimum(scores[..., 0], 8)
        colour = np.minimum(np.hypot(scores[..., 1], scores[..., 2]) / 1.2, 8)
        colour_change = np.minimum(np.hypot(residual[..., 1] / 0.08, residual[..., 2] / 0.1), 8)
        skin = np.median(reference.median[:, 1:], 0)
        from_skin = np.hypot(*np.moveaxis((relit[..., 1:] - skin) / _SKIN, -1, 0))
        median_from_skin = np.hypot(*((reference.median[:, 1:] - skin) / _SKIN).T)
        # relative to the mean of many faces
        level = np.median(reference.median, 0)
        face_scores = np.abs(relit - level - self._face.mean) / (self._face.spread + _NOISE)
        face_light = np.minimum(face_scores[..., 0], 8)
        face_colour = np.minimum(np.hypot(face_scores[..., 1], face_scores[..., 2]), 8)
        face_brightness = np.broadcast_to(self._face.mean[:, 0], weight.shape)

        small = windows.mean(np.stack([light, colour], -1), 3)
        changes = [
            np.minimum(np.abs(residual[..., 0]) / 0.2, 8),
            colour_change,
            np.maximum(from_skin - median_from_skin, 0),
        ]
        middle = windows.mean(np.stack([*changes, from_skin, face_light, face_colour], -1), 5)
        brightness = relit[..., 0]
        large = windows.mean(
            np.stack(
                [
                    light, colour,
                    brightness, median_brightness,
                    brightness**2, median_brightness**2, brightness * median_brightness,
                ],
                -1,
            ),
            7,
        )  # fmt: skip
        huge = windows.mean(
            np.stack(
                [
                    light + colour, from_skin, face_light, face_colour,
                    brightness, face_brightness,
                    brightness**2, face_brightness**2, brightness * face_brightness,
                ],
                -1,
            ),
            13,
        )  # fmt: skip
        clip_correlation, contrast = _correlation(large[..., 2:])
        face_correlation, _ = _correlation(huge[..., 4:])
        overall = np.broadcast_to(np.minimum(light + colour, 8).mean(1, keepdims=True), weight.shape)
        magnitudes = [small, large[..., :2], huge[..., :4], middle, overall[..., None]]
        structure = [1 - clip_correlation, np.abs(contrast), 1 - face_correlation]
        return np.concatenate([np.log1p(np.concatenate(magnitudes, -1)), np.stack(structure, -1)], -1)

    def turned_share(self, textures: Texture) -> F32:
        """Share of the window around each texel (T, N) that is turned away from the camera, in textures (T, N, 4)."""
        _, weight = appearance(textures)
        return _Windows(self.texture.inside, np.ones_like(weight)).mean(1 - weight[..., None], 9)[..., 0]

    def log_odds(self, textures: Texture, reference: FaceReference) -> F32:
        """Log-odds that each texel is occluded, (T, N), from textures (T, N, 4)."""
        units = np.tanh(self.features(textures, reference) @ self._hidden[0] + self._hidden[1])
        return np.asarray((units @ self._output[0] + self._output[1])[..., 0])


def _correlation(means: F32) -> tuple[F32, F32]:
    """Correlation and log-ratio of contrast of a and b from the means (..., 5) of a, b, a^2, b^2, ab."""
    a, b, aa, bb, ab = np.moveaxis(means, -1, 0)
    noise = np.float32(0.03**2)
    in_a, in_b = np.maximum(aa - a * a, 0) + noise, np.maximum(bb - b * b, 0) + noise
    return (ab - a * b + noise) / np.sqrt(in_a * in_b), 0.5 * np.log(in_a / in_b)


class FaceVisibility:
    """Collects one person's textures over a clip and estimates the visibility of the landmarks from all of them.

    The textures lie in a temporary file (4 KB a frame); memory does not grow with the clip.
    """

    def __init__(self) -> None:
        self._model = VisibilityModel()
        fields = [("texture", "u1", self._model.texture.shape), ("seen", "?"), ("new_shot", "?")]
        self._record = np.zeros(1, np.dtype(fields))
        self._file = RecordFile(self._record.dtype)

    def __len__(self) -> int:
        """Number of frames so far."""
        return len(self._file)

    def add(self, texture: Texture | None = None, *, new_shot: bool = False) -> None:
        """Take in the next frame: its texture (N, 4) uint8, or None for a frame without the person.

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
        """The same from an image (H, W, 3) uint8 RGB and its landmarks (478, 2 or more); nan or None for no face."""
        texture = None if landmarks is None else self._model.texture.sample(image, landmarks)
        self.add(texture, new_shot=new_shot)

    def estimate(self) -> StoredArray:
        """The probability in [0, 1] that each landmark is seen, (T, 478) float32; 1 in frames without the face.

        It lies in a temporary file and is read as it is sliced.
        """
        result = RecordFile(_RESULT)
        reference, excess, median_turned = self._reference()
        frames = len(self)
        for start in range(0, frames, _BLOCK):
            stop = min(start + _BLOCK, frames)
            first, last = max(start - _RADIUS, 0), min(stop + _RADIUS, frames)
            records = self._file.read(first, last)
            block = np.ones(stop - start, _RESULT)
            seen, shot = records["seen"], np.cumsum(records["new_shot"])
            evaluated = seen & _evaluated_frames(first, seen, records["new_shot"])
            here = seen[start - first : stop - first]
            if reference is not None and here.any():
                odds = np.zeros((len(records), len(excess)), np.float32)
                textures = records["texture"][evaluated]
                turned = (self._model.turned_share(textures) - median_turned).clip(0)
                odds[evaluated] = (
                    self._model.log_odds(textures, reference) - excess - _CONTOUR_WEIGHT * turned
                )
                odds = _smoothed(odds, evaluated, shot)[start - first : stop - first][here]
                odds = odds[:, self._model.texture.landmark_texel]
                block["visibility"][here] = 1 / (1 + np.exp(np.clip(odds, -30, 30)))
            result.append(block)
        return StoredArray(result, "visibility")

    def _reference(self) -> tuple[FaceReference | None, F32, F32]:
        """The clip's median appearance without occluded texels; the excess of each texel's baseline log-odds (N,) over
        those of a visible one; and the median `VisibilityModel.turned_share` (N,). None if the face is never seen.

        In small or coarse videos all texels differ a little in all frames: this baseline is subtracted, unless it is so
        high that the texel must be occluded in the entire clip.
        """
        frames = len(self)
        chosen = (
            np.unique(np.linspace(0, frames - 1, min(REFERENCE_FRAMES, frames)).astype(int)) if frames else []
        )
        records = [record for t in chosen if (record := self._file.read(t, t + 1))["seen"][0]]
        if not records:
            none = np.zeros(self._model.texture.shape[0], np.float32)
            return None, none, none
        textures = np.concatenate(records)["texture"]
        reference = self._model.clear_reference(textures)
        baseline = np.quantile(self._model.log_odds(textures, reference), _BASELINE_QUANTILE, axis=0)
        sometimes_seen = ((_ALWAYS - baseline) / _TAPER).clip(0, 1)
        excess = sometimes_seen * (baseline - _UNOCCLUDED).clip(0)
        return reference, excess.astype(np.float32), np.median(self._model.turned_share(textures), 0)


def _evaluated_frames(first: int, seen: Bool, new_shot: Bool) -> Bool:
    """Which frames, numbered from `first`, the network evaluates: every other one, and those that begin or end a run:
    the face may be lost because something comes before it."""
    chosen = new_shot | ((np.arange(len(seen)) + first) % 2 == 0)
    chosen[1:] |= ~seen[:-1]
    chosen[:-1] |= ~seen[1:] | new_shot[1:]
    return np.asarray(chosen)


def _smoothed(odds: F32, evaluated: Bool, shot: Ints) -> F32:
    """The mean log-odds (T, N) over the evaluated frames around each that are of the same shot."""
    total, weights = np.zeros_like(odds), np.zeros((len(odds), 1), np.float32)
    index = np.arange(len(odds))
    for step, share in zip(range(-_RADIUS, _RADIUS + 1), _KERNEL, strict=True):
        source = np.clip(index + step, 0, len(odds) - 1)
        usable = (evaluated[source] & (shot[source] == shot) & (source == index + step))[:, None]
        total += share * usable * odds[source]
        weights += share * usable
    return total / np.maximum(weights, 1e-6)
