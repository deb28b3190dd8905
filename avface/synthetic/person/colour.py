"""Colour of skin and hair from their pigments.

Skin has two layers: light passes the epidermis with the melanin, is scattered back by the dermis with the blood, and
passes the epidermis again. Sources: absorption and scattering coefficients from Donner and Jensen,
"A Spectral BSSRDF for Shading Human Skin" (2006), tables 1 and 2; diffuse reflectance of the dermis from Jensen et al.,
"A Practical Model for Subsurface Light Transport" (2001), eq. 15; haemoglobin from S. Prahl's compilation of
Gratzer's and Kollias' measurements (omlc.org); colour matching functions as fitted by Wyman, Sloan and Shirley (2013).
Hair: Chiang et al., "A Practical and Controllable Hair and Fur Model" (2016).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates

from avface.arrays import F32, F64, Floats

WAVELENGTHS = np.arange(400.0, 721.0, 10.0)
"""Nanometres."""

MELANIN_RANGE = (0.002, 0.55)
"""Share of the epidermis' volume that is melanin: 1 to 6 % in light skin, 18 to 43 % in dark skin, more in moles."""
BLOOD_RANGE = (0.0005, 0.2)
"""Share of the dermis' volume that is blood: 0.2 to 7 % in skin, more in lips."""

_EPIDERMIS = 0.06
"""Thickness of the epidermis in mm."""
_SLANT = 1.2
"""Path length of light through a layer relative to its thickness."""
_BACK_SCATTER = 0.018
"""Share of light that the epidermis scatters back before it reaches the dermis; it keeps dark skin from deep orange.
Chosen by eye."""
_FLATTENING = 0.9
"""Exponent by which melanin's absorption falls less steeply with wavelength than the power laws of the pure pigments.
Chosen by eye: with the pure pigments' slope brown skin is orange."""
_REFRACTION = 1.4
_HAEMOGLOBIN_PER_BLOOD = 2.303 * 150 / 64_500 / 10
"""From molar extinction in 1/(cm M) to absorption of whole blood (150 g/l) in 1/mm."""

# Molar extinction in 1/(cm M), 400 to 720 nm in steps of 10
_OXYGENATED = np.array(
    [266232, 466840, 480360, 246072, 102580, 62816, 44480, 33209.2, 26629.2, 23684.4, 20932.8, 20035.2, 24202.4,
     39956.8, 53236, 43016, 32613.2, 44496, 50104, 14400.8, 3200, 1506, 942, 610, 442, 368, 319.6, 294, 277.6, 276,
     290, 314, 348]
)  # fmt: skip
_DEOXYGENATED = np.array(
    [223296, 303956, 407560, 528600, 413280, 103292, 23388.8, 16156.4, 14550, 16684, 20862, 25773.6, 31589.6,
     39036.4, 46592, 53412, 53788, 45072, 37020, 28324.4, 14677.2, 9443.6, 6509.6, 5148.8, 4345.2, 3750.12, 3226.56,
     2795.12, 2407.92, 2051.96, 1794.28, 1540.48, 1325.88]
)  # fmt: skip


def _lobe(mean: float, left: float, right: float) -> F64:
    width = np.where(mean > WAVELENGTHS, left, right)
    lobe: F64 = np.exp(-0.5 * ((WAVELENGTHS - mean) * width) ** 2)
    return lobe


def _rgb_weights() -> F64:
    """(3, 33): a reflectance spectrum to linear sRGB, so that a white surface is (1, 1, 1)."""
    xyz = np.stack(
        [
            0.362 * _lobe(442.0, 0.0624, 0.0374)
            + 1.056 * _lobe(599.8, 0.0264, 0.0323)
            - 0.065 * _lobe(501.1, 0.0490, 0.0382),
            0.821 * _lobe(568.8, 0.0213, 0.0247) + 0.286 * _lobe(530.9, 0.0613, 0.0322),
            1.217 * _lobe(437.0, 0.0845, 0.0278) + 0.681 * _lobe(459.0, 0.0385, 0.0725),
        ]
    )
    to_rgb = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
    weights = to_rgb @ xyz
    return weights / weights.sum(1, keepdims=True)


_RGB_WEIGHTS = _rgb_weights()


def skin_reflectance(
    melanin: npt.ArrayLike, blood: npt.ArrayLike, pheomelanin: float = 0.15, oxygenation: float = 0.75
) -> F64:
    """Linear sRGB (..., 3), 0 to 1, of skin with volume shares of melanin and blood, each (...).

    pheomelanin is its share of the melanin, oxygenation the share of oxygenated haemoglobin.
    """
    melanin = np.asarray(melanin, np.float64)[..., None]
    blood = np.asarray(blood, np.float64)[..., None]
    baseline = 0.0244 + 8.53 * np.exp(-(WAVELENGTHS - 154) / 66.2)
    pigment = (1 - pheomelanin) * 6.6e10 * WAVELENGTHS**-3.33 + pheomelanin * 2.9e14 * WAVELENGTHS**-4.75
    pigment *= (WAVELENGTHS / 550) ** _FLATTENING
    epidermis = np.exp(-2 * _SLANT * _EPIDERMIS * (melanin * pigment + (1 - melanin) * baseline))
    haemoglobin = _HAEMOGLOBIN_PER_BLOOD * (oxygenation * _OXYGENATED + (1 - oxygenation) * _DEOXYGENATED)
    absorbed = blood * haemoglobin + (1 - blood) * baseline
    scattered = 14.74 * WAVELENGTHS**-0.22 + 2.2e11 * WAVELENGTHS**-4
    left = np.sqrt(3 * absorbed / (absorbed + scattered))
    inner = -1.440 / _REFRACTION**2 + 0.710 / _REFRACTION + 0.668 + 0.0636 * _REFRACTION
    boundary = (1 + inner) / (1 - inner)
    dermis = scattered / (absorbed + scattered) / 2 * (1 + np.exp(-4 / 3 * boundary * left)) * np.exp(-left)
    return np.clip((_BACK_SCATTER + (1 - _BACK_SCATTER) * epidermis * dermis) @ _RGB_WEIGHTS.T, 0, 1)


class SkinPalette:
    """Skin colours of one person by a lookup table of melanin and blood."""

    def __init__(self, pheomelanin: float = 0.15, oxygenation: float = 0.75, steps: int = 48) -> None:
        grid = np.meshgrid(
            np.geomspace(*MELANIN_RANGE, steps), np.geomspace(*BLOOD_RANGE, steps), indexing="ij"
        )
        self._table = skin_reflectance(grid[0], grid[1], pheomelanin, oxygenation).astype(np.float32)

    def __call__(self, melanin: Floats, blood: Floats) -> F32:
        """Linear sRGB (..., 3) of shares of melanin and blood (...); shares outside the ranges are clipped."""
        last = len(self._table) - 1
        place = [
            (np.log(np.clip(share, *limits)) - np.log(limits[0])) * (last / np.log(limits[1] / limits[0]))
            for share, limits in ((melanin, MELANIN_RANGE), (blood, BLOOD_RANGE))
        ]
        return np.stack(
            [
                map_coordinates(self._table[..., channel], place, order=1, mode="nearest", output=np.float32)
                for channel in range(3)
            ],
            -1,
        )


def hair_reflectance(eumelanin: float, pheomelanin: float) -> F64:
    """Linear sRGB (3,) of hair: eumelanin 0.05 (fair) to 8 (black), pheomelanin up to about 2 (red)."""
    absorption = eumelanin * np.array([0.419, 0.697, 1.37]) + pheomelanin * np.array([0.187, 0.4, 1.05])
    rough = 0.3
    slope = 5.969 - 0.215 * rough + 2.532 * rough**2 - 10.73 * rough**3 + 5.574 * rough**4 + 0.245 * rough**5
    colour: F64 = 0.012 + np.exp(-np.sqrt(absorption) * slope / 1.8)  # the surface reflection is grey
    return colour
