"""A small texture of the face, sampled through the landmarks, so that a texel always shows the same skin.

The layout is the open head's landmarks at rest, unrolled about a vertical axis and divided into texels of about 4.5 mm
(`avface.training.visibility` makes it). A texel has barycentric coordinates in the three landmarks around it.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from avface.arrays import F32, U8, Bool, Floats, Int

Texture = U8

LAYOUT_FILE = Path(__file__).parent / "assets" / "face_layout.npz"
WIDTH, HEIGHT = 40, 36
"""Texels across and down the layout; those outside of the face's outline are left out."""
_GLANCING = (0.12, 0.32)
"""Area of a texel in the image, over the third quartile of all, up to which it is not seen (turned away, or folded over
by a wrong landmark), and from which it is fully seen."""
_CROP_SIDE = 90
"""Larger faces are reduced to about this many pixels before they are sampled, against aliasing."""
_QUARTERS = np.array([[-0.25, -0.25], [0.25, -0.25], [-0.25, 0.25], [0.25, 0.25]], np.float32)


class FaceTexture:
    """Samples faces into textures of N texels, those of the layout within the outline."""

    def __init__(self) -> None:
        with np.load(LAYOUT_FILE, allow_pickle=False) as layout:
            self.inside: Bool = layout["inside"]
            """(HEIGHT, WIDTH) texels within the outline."""
            self.landmark_texel: Int = layout["landmark_texel"].astype(np.int64)
            """(478,) the texel at each landmark."""
            self._corners = layout["corners"].astype(np.int64)
            self._weights: F32 = layout["weights"].astype(np.float32)
        self.shape = (int(self.inside.sum()), 4)
        """Of a texture: N texels; red, green, blue, and how well the texel is seen (255 fully, 0 not at all)."""
        number = np.full((HEIGHT + 2, WIDTH + 2), -1)
        number[1:-1, 1:-1][self.inside] = own = np.arange(self.shape[0])
        row, column = np.nonzero(self.inside)

        def neighbour(down: int, right: int) -> Int:
            there = number[row + 1 + down, column + 1 + right]
            return np.where(there < 0, own, there)

        self._sides = [neighbour(0, 1), neighbour(0, -1), neighbour(1, 0), neighbour(-1, 0)]
        right, left, below, above = self._sides
        self._across = 1 / np.maximum((right != own).astype(np.float32) + (left != own), 1)
        self._down = 1 / np.maximum((below != own).astype(np.float32) + (above != own), 1)

    def sample(self, image: U8, landmarks: Floats) -> Texture:
        """The texture (N, 4) uint8 of one face.

        Shapes: image (H, W, 3) uint8 RGB; landmarks (478, 2 or more) pixels, (0, 0) the middle of the top-left pixel.
        Texels outside of the picture are not seen; landmarks that are not finite, or a face without extent, give a
        texture of zeros.
        """
        points = np.array(landmarks[:, :2].T, np.float32, order="C")
        texture = np.zeros(self.shape, np.uint8)
        if not np.isfinite(points).all():
            return texture
        height, width = image.shape[:2]
        place = np.einsum("cnk,nk->cn", np.take(points, self._corners, 1), self._weights)
        right, left, below, above = (np.take(place, side, 1) for side in self._sides)
        across, down = (right - left) * self._across, (below - above) * self._down
        size = across[0] * down[1] - across[1] * down[0]
        quartile = len(size) * 3 // 4
        typical = float(np.partition(size, quartile)[quartile])
        x, y = place
        x0, y0 = max(int(x.min()) - 2, 0), max(int(y.min()) - 2, 0)
        x1, y1 = min(int(x.max()) + 4, width), min(int(y.max()) + 4, height)
        if typical <= 0 or x1 - x0 < 2 or y1 - y0 < 2:
            return texture
        seen = (size / typical - _GLANCING[0]) * (255 / (_GLANCING[1] - _GLANCING[0]))
        seen *= (x > -0.5) & (y > -0.5) & (x < width - 0.5) & (y < height - 0.5)
        crop = image[y0:y1, x0:x1]
        place -= np.array([[x0], [y0]], np.float32)
        step = max(x1 - x0, y1 - y0) // _CROP_SIDE
        if step > 1 and min(crop.shape[:2]) >= step:
            rows, columns = crop.shape[0] // step, crop.shape[1] // step
            crop = cv2.resize(
                crop[: rows * step, : columns * step], (columns, rows), interpolation=cv2.INTER_AREA
            )
            place, across, down = (place + 0.5) / step - 0.5, across / step, down / step
        quarters = place[:, None] + _QUARTERS[:, :1] * across[:, None] + _QUARTERS[:, 1:] * down[:, None]
        colour = cv2.remap(crop, quarters[0], quarters[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        texture[:, :3] = cv2.resize(colour, (len(size), 1), interpolation=cv2.INTER_AREA)[0]
        texture[:, 3] = np.clip(seen, 0, 255)
        return texture
