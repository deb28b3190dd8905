"""Face regions, for each of which the networks predict a variance.

Every landmark and every ARKit unit belongs to one region, so that one number a region and frame can weigh both the
solver's landmarks and its prior. A landmark belongs to the region whose marked points (lip rings, lids, brows, outline
and so on) are nearest on the neutral open head, symmetric for the left and the right half.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from avface.head.schemes import IBUG68_FROM_MEDIAPIPE, NUM_MEDIAPIPE

REGIONS = ("lips", "jaw", "brows", "eyes", "nose", "cheeks")
"""The regions, in the order of every last axis of length 6."""
AUDIO_DRIVEN_REGIONS = ("lips", "jaw", "cheeks")
"""Regions that are predicted from sound where the mouth is occluded or the picture isn't used."""

_LIPS = (
    0, 11, 12, 13, 14, 15, 16, 17, 18, 37, 38, 39, 40, 41, 42, 43, 57, 61, 62, 72, 73, 74, 76, 77, 78, 80,
    81, 82, 84, 85, 86, 87, 88, 89, 90, 91, 92, 95, 96, 106, 146, 164, 165, 167, 178, 179, 180, 181, 182,
    183, 184, 185, 186, 191, 202, 212, 267, 268, 269, 270, 271, 272, 273, 287, 291, 292, 302, 303, 304,
    306, 307, 308, 310, 311, 312, 314, 315, 316, 317, 318, 319, 320, 321, 322, 324, 325, 335, 375, 391,
    393, 402, 403, 404, 405, 406, 407, 408, 409, 410, 415, 422, 432,
)  # fmt: skip
"""Both lip rings, the corners of the mouth and the skin between nose and upper lip (102)."""
_JAW = (
    32, 58, 83, 93, 132, 135, 136, 137, 138, 140, 148, 149, 150, 152, 169, 170, 171, 172, 175, 176, 177,
    194, 199, 200, 201, 204, 208, 210, 211, 215, 262, 288, 313, 323, 361, 364, 365, 366, 367, 369, 377,
    378, 379, 394, 395, 396, 397, 400, 401, 418, 421, 424, 428, 430, 431, 435,
)  # fmt: skip
"""Chin, lower edge of the jaw and the outline up to the ears (56)."""
_BROWS = (
    9, 10, 46, 52, 53, 54, 55, 63, 65, 66, 67, 68, 69, 70, 71, 103, 104, 105, 107, 108, 109, 124, 151,
    156, 221, 222, 223, 224, 225, 276, 282, 283, 284, 285, 293, 295, 296, 297, 298, 299, 300, 301, 332,
    333, 334, 336, 337, 338, 353, 383, 441, 442, 443, 444, 445,
)  # fmt: skip
"""Brows, the skin between them and the forehead (55)."""
_EYES = (
    7, 22, 23, 24, 25, 26, 27, 28, 29, 30, 33, 35, 56, 110, 112, 113, 120, 130, 133, 144, 145, 153, 154,
    155, 157, 158, 159, 160, 161, 163, 173, 190, 226, 229, 230, 231, 232, 233, 243, 246, 247, 249, 252,
    253, 254, 255, 256, 257, 258, 259, 260, 263, 265, 286, 339, 341, 342, 349, 359, 362, 373, 374, 380,
    381, 382, 384, 385, 386, 387, 388, 390, 398, 414, 446, 449, 450, 451, 452, 453, 463, 466, 467, 468,
    469, 470, 471, 472, 473, 474, 475, 476, 477,
)  # fmt: skip
"""Lids, irises and the skin around the eyes (92)."""
_NOSE = (
    1, 2, 3, 4, 5, 6, 8, 19, 20, 44, 45, 47, 48, 49, 51, 59, 60, 64, 75, 79, 94, 97, 98, 99, 100, 102,
    114, 115, 121, 122, 125, 126, 128, 129, 131, 134, 141, 142, 166, 168, 174, 188, 189, 193, 195, 196,
    197, 198, 203, 209, 217, 218, 219, 220, 235, 236, 237, 238, 239, 240, 241, 242, 244, 245, 248, 250,
    274, 275, 277, 278, 279, 281, 289, 290, 294, 305, 309, 326, 327, 328, 329, 331, 343, 344, 350, 351,
    354, 355, 357, 358, 360, 363, 370, 371, 392, 399, 412, 413, 417, 419, 420, 423, 429, 437, 438, 439,
    440, 455, 456, 457, 458, 459, 460, 461, 462, 464, 465,
)  # fmt: skip
"""Bridge, flanks, tip and nostrils (117)."""
_CHEEKS = (
    21, 31, 34, 36, 50, 101, 111, 116, 117, 118, 119, 123, 127, 139, 143, 147, 162, 187, 192, 205, 206,
    207, 213, 214, 216, 227, 228, 234, 251, 261, 264, 266, 280, 330, 340, 345, 346, 347, 348, 352, 356,
    368, 372, 376, 389, 411, 416, 425, 426, 427, 433, 434, 436, 447, 448, 454,
)  # fmt: skip
"""Cheeks, and the outline at the temples (56)."""

_UNIT_STEMS = {
    "mouth": "lips",
    "tongue": "lips",
    "jaw": "jaw",
    "brow": "brows",
    "eye": "eyes",
    "nose": "nose",
    "cheek": "cheeks",
}
"""Region of an ARKit unit by the first word of its name. mouthClose is of the lips, too; jawOpen moves the jaw."""


def audio_driven_units(names: tuple[str, ...]) -> Tensor:
    """Indices (U,) of the expression units that belong to `AUDIO_DRIVEN_REGIONS` alone."""
    regions = [REGIONS.index(name) for name in AUDIO_DRIVEN_REGIONS]
    return (unit_regions(names)[:, regions].sum(1) > 0.99).nonzero()[:, 0]


def _landmark_regions() -> Tensor:
    regions = torch.full((NUM_MEDIAPIPE,), -1)
    for number, members in enumerate((_LIPS, _JAW, _BROWS, _EYES, _NOSE, _CHEEKS)):
        regions[list(members)] = number
    return regions


LANDMARK_REGIONS = _landmark_regions()
"""(478,) the region of each of MediaPipe's landmarks."""
IBUG_REGIONS = LANDMARK_REGIONS[torch.from_numpy(IBUG68_FROM_MEDIAPIPE[:, 0])]
"""(68,) the region of each iBUG landmark: that of the (first) MediaPipe point it is made from."""


def unit_regions(names: tuple[str, ...]) -> Tensor:
    """How much each region has to do with each expression unit, (E, 6) with rows that add up to 1.

    An ARKit unit belongs to one region. Units with other names, such as FLAME's, which move the whole face, belong
    to all alike.
    """
    shares = torch.full((len(names), len(REGIONS)), 1 / len(REGIONS))
    for row, name in zip(shares, names, strict=True):
        stem = re.match("[a-z]*", name)
        region = _UNIT_STEMS.get(stem.group() if stem else "")
        if region is not None:
            row.zero_()[REGIONS.index(region)] = 1
    return shares


def unit_log_variance(log_variance: Tensor, shares: Tensor) -> Tensor:
    """Log-variance (..., E) of expression units from that of the regions (..., 6): the log of the mean variance.

    shares (E, 6) as of `unit_regions`.
    """
    # log 0 is -inf, which adds nothing
    return torch.logsumexp(log_variance[..., None, :] + shares.to(log_variance).log(), -1)
