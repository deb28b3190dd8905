"""Fine relief of the skin at rest: pores, fine lines, folds of the lips, beard."""

from __future__ import annotations

import numpy as np

from avface.arrays import Floats
from avface.geometry.interpolation import smoothstep
from avface.synthetic.person.feature_masks import FaceMap
from avface.synthetic.person.texture import Texture, value_noise
from avface.synthetic.person.traits import SkinTraits

PORE_DEPTH = 50e-6
"""Metres at `SkinTraits.pores` = 1."""


def paint_relief(rng: np.random.Generator, traits: SkinTraits, face: FaceMap, place: Floats) -> Texture:
    """Displacement (R, R) in metres along the normal; place (R * R, 3) are the person's texels at rest, in metres."""
    place = np.asarray(place, np.float32)
    place = place[face.texels]
    texel = float(np.median(np.linalg.norm(np.diff(place, axis=0), axis=1)))
    pore, lattice, coarse, lip, stubble = rng.spawn(5)

    def visible(wavelength: float) -> float:
        """1 for wavelengths that the texture resolves, 0 for those that would alias."""
        return float(smoothstep(1.2, 2.2, np.array(wavelength / texel)))

    depth = PORE_DEPTH * traits.pores
    oily = 0.55 + 0.6 * face.nose + 0.45 * face.cheeks + 0.25 * face.forehead
    smooth = smoothstep(0.0, 0.004, face.lids) * smoothstep(0.0, 0.002, face.lips)
    pits = np.clip(value_noise(pore, place, 0.0016) - 0.35, 0, None)
    relief = -depth * visible(0.0016) * oily * smooth * np.minimum(pits, 2)
    fine = 1 - np.abs(value_noise(lattice, place, 0.0026, 2))
    aged = 0.35 + 0.65 * smoothstep(25, 70, np.array(traits.age))
    relief += depth * visible(0.0026) * aged * smooth * (fine - 0.2)
    relief += 0.5 * depth * smooth * value_noise(coarse, place, 0.008, 2)

    lips = smoothstep(0.0005, -0.001, face.lips)
    folds = value_noise(lip, place * np.array([1, 0.12, 0.12], np.float32), 0.0022)
    relief += lips * visible(0.0022) * 1.6 * PORE_DEPTH * (0.6 + 0.4 * aged) * folds

    grown = face.beard * max(traits.beard, traits.goatee, traits.moustache)
    strands = value_noise(stubble, place * np.array([1, 0.4, 1], np.float32), 0.0018)
    relief += 1.2 * PORE_DEPTH * visible(0.0018) * grown * strands
    texture = np.zeros(face.atlas.resolution**2, np.float32)
    texture[face.texels] = relief
    return texture.reshape(face.atlas.resolution, face.atlas.resolution)
