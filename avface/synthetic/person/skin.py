"""Skin of synthetic people: albedo and relief as UV textures, and wrinkles that depend on the expression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from avface.arrays import Floats
from avface.head.model import HeadModel
from avface.synthetic.person.albedo import paint_albedo
from avface.synthetic.person.feature_masks import face_map
from avface.synthetic.person.relief import paint_relief
from avface.synthetic.person.texture import Texture
from avface.synthetic.person.traits import SkinTraits, sample_traits
from avface.synthetic.person.wrinkle_sites import wrinkle_sites
from avface.synthetic.person.wrinkles import Wrinkles


@dataclass(frozen=True)
class Skin:
    """One person's skin as textures of the head's UV square; row 0 is v = 1.

    Shapes: albedo (R, R, 3) linear sRGB, 0 to 1; relief (R, R) metres along the normal of the face at rest.
    """

    albedo: Texture
    relief: Texture
    wrinkles: Wrinkles
    traits: SkinTraits
    roughness: float
    """Roughness of the specular lobe, as in GGX: from 0, a mirror, to 1."""
    specular: float
    """Reflectance at normal incidence; 0.028 for a refractive index of 1.4."""

    def displacement(self, vertices: Floats) -> Texture:
        """Relief with the wrinkles of a face (V, 3) in an expression: (R, R) metres along the normal.

        Independent of the head's pose. At rest it is `relief`, exactly.
        """
        return self.relief + self.wrinkles.displacement(vertices)


def sample_skin(
    rng: np.random.Generator, head: HeadModel, shape: npt.ArrayLike | torch.Tensor, resolution: int = 512
) -> Skin:
    """Sample a person's skin; shape (S,) is the person's head.

    Raises:
        AvfaceError: if the head has no landmarks `mediapipe478`, which locate its features.
        ValueError: if shape doesn't fit the head.
    """
    of_traits, of_skin = rng.spawn(2)
    return make_skin(of_skin, sample_traits(of_traits), head, shape, resolution)


def make_skin(
    rng: np.random.Generator,
    traits: SkinTraits,
    head: HeadModel,
    shape: npt.ArrayLike | torch.Tensor,
    resolution: int = 512,
) -> Skin:
    """The skin of a person with given traits; rng determines the places of freckles, pores and wrinkles.

    Raises:
        AvfaceError: if the head has no landmarks `mediapipe478`, which locate its features.
        ValueError: if shape doesn't fit the head.
    """
    weights = torch.as_tensor(shape, dtype=head.template.dtype).cpu()
    if weights.shape != (head.num_shape,):
        raise ValueError(
            f"shape has shape {tuple(weights.shape)}, the {head.name} head needs ({head.num_shape},)"
        )
    with torch.no_grad():
        neutral = head.neutral(weights.to(head.template.device)).cpu().double().numpy()
    of_albedo, of_relief, of_sites, of_ridges = rng.spawn(4)
    face = face_map(head, resolution)
    faces = head.faces.cpu().numpy()[head.face_parts == head.part_names.index("skin")]
    wrinkles = Wrinkles(
        of_ridges,
        neutral,
        faces,
        face.atlas,
        wrinkle_sites(of_sites, head, neutral, traits.age, traits.wrinkling),
    )
    relief = paint_relief(of_relief, traits, face, face.atlas.bake(neutral).reshape(-1, 3)) + wrinkles.static
    return Skin(
        albedo=paint_albedo(of_albedo, traits, head, face),
        relief=relief,
        wrinkles=wrinkles,
        traits=traits,
        roughness=float(np.interp(traits.age, [18, 78], [0.38, 0.5]) - 0.08 * traits.flush),
        specular=0.028,
    )
