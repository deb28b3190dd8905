"""Skin of made people: colours as a UV texture, fine relief, and wrinkles that follow the expression."""

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
    """Of the skin's specular lobe, as in GGX: 0 is a mirror, 1 dull."""
    specular: float
    """Reflectance of the skin's surface at normal incidence; 0.028 is that of refractive index 1.4."""

    def displacement(self, vertices: Floats) -> Texture:
        """Relief and the wrinkles of an expressed face (V, 3): (R, R) metres along the normal.

        How the head is turned and placed doesn't matter. At rest it is `relief`, exactly.
        """
        return self.relief + self.wrinkles.displacement(vertices)


def sample_skin(
    rng: np.random.Generator, head: HeadModel, shape: npt.ArrayLike | torch.Tensor, resolution: int = 512
) -> Skin:
    """Draw a person's skin; shape (S,) is the person's head.

    Raises:
        AvfaceError: if the head has no landmarks `mediapipe478`, which say where the features are.
        ValueError: if shape doesn't fit the head.
    """
    whose, how = rng.spawn(2)
    return make_skin(how, sample_traits(whose), head, shape, resolution)


def make_skin(
    rng: np.random.Generator,
    traits: SkinTraits,
    head: HeadModel,
    shape: npt.ArrayLike | torch.Tensor,
    resolution: int = 512,
) -> Skin:
    """The skin of a person with given traits; rng decides where freckles, pores and wrinkles are.

    Raises:
        AvfaceError: if the head has no landmarks `mediapipe478`, which say where the features are.
        ValueError: if shape doesn't fit the head.
    """
    weights = torch.as_tensor(shape, dtype=head.template.dtype).cpu()
    if weights.shape != (head.num_shape,):
        raise ValueError(
            f"shape has shape {tuple(weights.shape)}, the {head.name} head needs ({head.num_shape},)"
        )
    with torch.no_grad():
        neutral = head.neutral(weights.to(head.template.device)).cpu().double().numpy()
    paint, rough, where, ridges = rng.spawn(4)
    face = face_map(head, resolution)
    faces = head.faces.cpu().numpy()[head.face_parts == head.part_names.index("skin")]
    wrinkles = Wrinkles(
        ridges,
        neutral,
        faces,
        face.atlas,
        wrinkle_sites(where, head, neutral, traits.age, traits.wrinkling),
    )
    relief = paint_relief(rough, traits, face, face.atlas.bake(neutral).reshape(-1, 3)) + wrinkles.static
    return Skin(
        albedo=paint_albedo(paint, traits, head, face),
        relief=relief,
        wrinkles=wrinkles,
        traits=traits,
        roughness=float(np.interp(traits.age, [18, 78], [0.38, 0.5]) - 0.08 * traits.flush),
        specular=0.028,
    )
