"""Skin: colours of pigments, features at the landmarks, independence of the resolution."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from avface.errors import AvfaceError
from avface.head import HeadModel, load_head
from avface.head import schemes as marks
from avface.synthetic.person.albedo import paint_albedo
from avface.synthetic.person.colour import SkinPalette, hair_reflectance, skin_reflectance
from avface.synthetic.person.feature_masks import CHEEKS, FaceMap, face_map
from avface.synthetic.person.skin import make_skin, sample_skin
from avface.synthetic.person.texture import build_atlas, head_atlas, value_noise
from avface.synthetic.person.traits import SkinTraits, sample_traits

SIZE = 160
PLAIN = SkinTraits(moles=0, blemishes=0, mottling=0.2)


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return load_head()


@pytest.fixture(scope="module")
def face(head) -> FaceMap:
    return face_map(head, SIZE)


def painted(head: HeadModel, traits: SkinTraits, resolution: int = SIZE) -> np.ndarray:
    """Colours (R * R, 3) of one person with given traits."""
    return paint_albedo(np.random.default_rng(0), traits, head, face_map(head, resolution)).reshape(-1, 3)


def relief(head: HeadModel, traits: SkinTraits, resolution: int) -> np.ndarray:
    """Displacement (R * R,) in metres at rest."""
    return make_skin(
        np.random.default_rng(0), traits, head, np.zeros(head.num_shape), resolution
    ).relief.ravel()


def near(albedo: np.ndarray, face: FaceMap, numbers: list[int], radius: float = 0.004) -> np.ndarray:
    """Mean colour (3,) around landmarks."""
    return np.average(albedo[face.texels], axis=0, weights=face.near(np.array(numbers), radius))


def test_more_melanin_is_darker_in_every_channel():
    colours = skin_reflectance(np.geomspace(0.003, 0.5, 30), 0.02)
    assert (np.diff(colours, axis=0) < 0).all()


def test_more_blood_is_darker_and_redder():
    colours = skin_reflectance(0.02, np.geomspace(0.002, 0.15, 30))
    assert (np.diff(colours, axis=0) < 1e-9).all()
    assert (np.diff(colours[:, 0] / colours[:, 1]) > 0).all()


def test_skin_colours_are_skin_colours():
    """Linear red over green over blue, light skin about 0.5 in red and dark skin under 0.15."""
    colours = skin_reflectance(np.array([0.012, 0.05, 0.2, 0.42]), 0.02)
    assert (colours[:, 0] > colours[:, 1]).all() and (colours[:, 1] > colours[:, 2]).all()
    assert 0.4 < colours[0, 0] < 0.7
    assert colours[3, 0] < 0.16


def test_palette_is_the_model():
    rng = np.random.default_rng(0)
    melanin, blood = np.exp(rng.uniform(np.log(0.004), np.log(0.5), 200)), rng.uniform(0.004, 0.15, 200)
    np.testing.assert_allclose(
        SkinPalette(0.1)(melanin, blood), skin_reflectance(melanin, blood, 0.1), atol=0.004
    )


def test_more_pigment_is_darker_hair():
    colours = [hair_reflectance(e, 0.3).sum() for e in (0.1, 0.5, 1.5, 5)]
    assert colours == sorted(colours, reverse=True)


def test_noise_has_unit_size_and_its_wavelength():
    line = np.linspace(0, 4, 40_000)[:, None] * np.array([0.8, 0.5, 0.33166])
    for wavelength in (0.02, 0.005):
        noise = value_noise(np.random.default_rng(0), line, wavelength)
        assert abs(noise.std() - 1) < 0.1 and abs(noise.mean()) < 0.1
        crossings = (np.diff(np.sign(noise)) != 0).sum() / 4  # per metre; two in a wave
        assert 0.5 < crossings / 2 * wavelength < 1.3


def test_atlas_bakes_the_surface(head):
    atlas = head_atlas(head, 128)
    uv_vertices = np.zeros((head.num_vertices, 2))
    uv_vertices[head.faces.numpy().ravel()] = head.uv[head.uv_faces.ravel()]
    baked = atlas.bake(uv_vertices)
    centre = (np.arange(128) + 0.5) / 128
    error = np.abs(baked - np.stack(np.meshgrid(centre, 1 - centre), 2)).max(2)[atlas.inside]
    assert np.median(error) < 1e-5
    assert (error < 1e-4).mean() > 0.9  # elsewhere a vertex on a seam has two places


def test_a_mesh_that_no_texel_meets_is_refused():
    with pytest.raises(ValueError, match="no texel"):
        build_atlas(np.array([[0, 1, 2]]), np.zeros((3, 2)) + 0.111, np.array([[0, 1, 2]]), 3, 8)


@pytest.mark.parametrize("seed", range(4))
def test_sampled_skin_is_sound(head, seed):
    rng = np.random.default_rng(seed)
    shape = rng.normal(0, 1, head.num_shape)

    skin = sample_skin(rng, head, shape, SIZE)

    assert skin.albedo.shape == (SIZE, SIZE, 3) and skin.albedo.dtype == np.float32
    assert skin.albedo.min() >= 0 and skin.albedo.max() <= 1
    assert skin.relief.shape == (SIZE, SIZE) and skin.relief.dtype == np.float32
    assert np.isfinite(skin.relief).all() and np.abs(skin.relief).max() < 1e-3
    neutral = head.neutral(torch.as_tensor(shape, dtype=torch.float32)).numpy()
    np.testing.assert_array_equal(skin.displacement(neutral), skin.relief)
    expression = torch.as_tensor(rng.uniform(0, 1, (1, head.num_expression)), dtype=torch.float32)
    strong = skin.displacement(head(torch.as_tensor(shape, dtype=torch.float32)[None], expression)[0].numpy())
    assert np.isfinite(strong).all() and np.abs(strong).max() < 3e-3


def test_same_seed_same_skin_and_another_seed_another(head):
    one, two, other = (
        sample_skin(np.random.default_rng(s), head, np.zeros(head.num_shape), 96) for s in (5, 5, 6)
    )
    np.testing.assert_array_equal(one.albedo, two.albedo)
    np.testing.assert_array_equal(one.relief, two.relief)
    assert one.traits == two.traits
    assert np.abs(one.albedo - other.albedo).mean() > 0.01


def test_darker_skin_is_darker_and_the_rest_stays(head, face):
    light, dark = (painted(head, replace(PLAIN, melanin=m)) for m in (0.02, 0.3))
    forehead = [151, 108, 337]
    assert (near(dark, face, forehead) < 0.5 * near(light, face, forehead)).all()
    eyes = np.isin(face.parts, [head.part_names.index("left_eye"), head.part_names.index("left_iris")])
    np.testing.assert_array_equal(light[eyes], dark[eyes])


def test_lips_cheeks_and_nose_are_redder_than_the_forehead(head, face):
    skin = painted(head, replace(PLAIN, flush=0.6))

    def red(numbers: list[int]) -> float:
        colour = near(skin, face, numbers, 0.003)
        return float(colour[0] / colour[1])

    rest = red([151, 108, 337])
    assert red([11, 16]) > 1.25 * rest
    assert red(list(CHEEKS)) > 1.08 * rest
    assert red([4]) > 1.08 * rest


def test_brows_and_lashes_are_dark_where_the_landmarks_are(head, face):
    skin = painted(head, replace(PLAIN, brow_density=0.9, lashes=1.0))
    brow = 0.5 * (
        near(skin, face, list(marks.LEFT_BROW_UPPER[1:4]), 0.002)
        + near(skin, face, list(marks.LEFT_BROW_LOWER[1:4]), 0.002)
    )
    assert brow.sum() < 0.75 * near(skin, face, [337, 108]).sum()
    bare = painted(head, replace(PLAIN, lashes=0.0))
    lid = list(marks.LEFT_EYE_UPPER[1:-1])
    assert near(skin, face, lid, 0.001).sum() < 0.8 * near(bare, face, lid, 0.001).sum()


@pytest.mark.parametrize(
    ("change", "touched", "untouched"),
    [
        ({"lipstick": 0.9}, [11, 16], [151, 50, 199]),
        ({"blush": 0.8}, [117, 346], [151, 11, 199]),
        ({"eye_shadow": 0.9}, [257, 27], [151, 11, 199]),
        ({"beard": 0.8, "goatee": 0.8, "moustache": 0.8}, [199, 416, 192], [151, 11, 117]),
        ({"shadow": 0.8}, [199, 416, 192], [151, 11, 117]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_make_up_and_beard_change_their_areas_only(head, face, change, touched, untouched):
    plain, made_up = painted(head, PLAIN), painted(head, replace(PLAIN, **change))
    difference = np.abs(plain - made_up)[face.texels].sum(1)
    for mark in touched:
        assert np.average(difference, weights=face.near(np.array([mark]), 0.002)) > 0.02
    assert difference[face.near(np.array(untouched), 0.003) > 0.6].max() < 0.01


def test_hair_covers_the_scalp_and_not_the_face(head, face):
    bald, short = (painted(head, replace(PLAIN, hair_density=d)) for d in (0.0, 1.0))
    darker = (bald - short)[face.texels].sum(1)
    top = face.place[:, 1] > np.quantile(face.place[:, 1], 0.97)
    assert darker[top].mean() > 0.3
    assert np.abs(darker[face.near(np.setdiff1d(np.arange(468), marks.FACE_OVAL), 0.004) > 0.6]).max() < 0.05


@pytest.mark.parametrize(("trait", "count"), [("freckles", 300), ("moles", 10), ("blemishes", 15)])
def test_spots_are_many_and_small(head, face, trait, count):
    plain = painted(head, replace(PLAIN, age=30))
    spotted = painted(head, replace(PLAIN, age=30, **{trait: count}))
    change = (plain - spotted)[face.texels].sum(1)
    assert change.min() > -0.02  # never lighter
    assert 0.03 < change.max() < 1.2
    assert (change > 0.02).mean() < 0.05


def test_old_skin_is_creased_at_rest_and_young_skin_is_not(head, face):
    around = face.near(np.array([151, 108, 337, 35, 265]), 0.008) > 0.5
    depth = [
        relief(head, replace(PLAIN, age=age, pores=0.0), SIZE)[face.texels][around].std() for age in (20, 75)
    ]
    assert depth[0] < 1e-6
    assert depth[1] > 2e-5


def test_pores_are_some_hundredths_of_a_millimetre(head):
    fine = face_map(head, 384)
    values = relief(head, replace(PLAIN, age=20, pores=1.0), 384)[fine.texels]
    values = values[fine.near(CHEEKS, 0.008) > 0.5]
    assert 1e-5 < np.quantile(values, 0.98) - np.quantile(values, 0.02) < 2e-4


def test_albedo_is_the_same_person_at_another_resolution(head):
    traits = sample_traits(np.random.default_rng(2))
    small, large = (painted(head, traits, resolution=r) for r in (128, 256))
    shrunk = large.reshape(128, 2, 128, 2, 3).mean((1, 3))
    inside = head_atlas(head, 128).inside
    assert np.abs(small.reshape(128, 128, 3) - shrunk)[inside].mean() < 0.015


def test_irises_have_their_colour(head, face):
    blue, brown = (painted(head, replace(PLAIN, iris=c)) for c in ((0.05, 0.1, 0.3), (0.1, 0.05, 0.02)))
    iris = np.isin(face.parts, [head.part_names.index(f"{side}_iris") for side in ("left", "right")])
    difference = blue[iris].mean(0) - brown[iris].mean(0)
    assert difference[2] > 0.03 and difference[0] < 0


@pytest.mark.parametrize("part", ["upper_gums", "lower_gums", "left_tear_line"])
def test_gums_and_tear_lines_are_pink(head, face, part):
    """Whichever parts the head has: one of them stands for it."""
    renamed = copy.copy(head)
    renamed.part_names = tuple(
        part if name == "tongue" else name if name == "skin" else "other" for name in head.part_names
    )
    shown = painted(renamed, PLAIN)[face.parts == renamed.part_names.index(part)].mean(0)
    assert shown[0] > 0.1 and shown[0] > 1.2 * shown[1:].max()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"melanin": 1.2}, "melanin=1.2 must be from 0 to 1"),
        ({"beard": -0.1}, "beard=-0.1 must be from 0 to 1"),
        ({"pores": float("nan")}, "pores=nan must be from 0 to 1"),
        ({"moles": -1}, "moles=-1 must not be negative"),
        ({"wrinkling": -0.5}, "wrinkling=-0.5 must not be negative"),
        ({"age": -3}, "age=-3 must not be negative"),
    ],
)
def test_impossible_traits_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SkinTraits(**settings)


def test_wrong_shape_is_refused(head):
    with pytest.raises(ValueError, match="shape has shape"):
        sample_skin(np.random.default_rng(0), head, np.zeros(3), 64)


def test_a_head_without_landmarks_is_refused():
    head = load_head()
    head.embeddings = {}
    with pytest.raises(AvfaceError, match="mediapipe478"):
        sample_skin(np.random.default_rng(0), head, np.zeros(head.num_shape), 64)


def test_sampled_traits_stay_in_their_ranges():
    people = [sample_traits(np.random.default_rng(s)) for s in range(300)]
    shares = [
        "grey",
        "hair_density",
        "brow_density",
        "beard",
        "lipstick",
        "sclera",
        "teeth",
        "flush",
        "pores",
    ]
    for person in people:
        assert 18 <= person.age <= 80 and 0.01 < person.melanin < 0.45
        assert all(0 <= getattr(person, share) <= 1 for share in shares)
        assert not (person.beard and person.lipstick)
    melanin = np.array([p.melanin for p in people])
    assert melanin.min() < 0.016 and melanin.max() > 0.33
    assert 0.1 < np.mean([p.lipstick > 0 for p in people]) < 0.5
    assert 0.1 < np.mean([p.beard > 0 for p in people]) < 0.5
