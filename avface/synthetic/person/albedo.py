"""Albedo textures: pigments, then spots, lips, make-up, brows, lashes, beard and hair, then eyes and mouth."""

from __future__ import annotations

import numpy as np

from avface.arrays import F64, Floats
from avface.geometry.interpolation import smoothstep
from avface.head.model import HeadModel
from avface.synthetic.person.colour import MELANIN_RANGE, SkinPalette
from avface.synthetic.person.feature_masks import CHEEKBONES, FaceMap
from avface.synthetic.person.texture import Texture, value_noise
from avface.synthetic.person.traits import Colour, SkinTraits

_GREY = np.array([0.46, 0.45, 0.43])
"""Linear sRGB of grey hair."""
_MOUTH = np.array([0.24, 0.045, 0.04])
_TONGUE = np.array([0.36, 0.12, 0.11])
_GUMS = np.array([0.4, 0.13, 0.12])
_TEAR_LINE = np.array([0.9, 0.62, 0.58])
"""Of the wet line where a lid meets the eyeball, over the sclera's white."""
_PUPIL = np.array([0.004, 0.004, 0.004])


def paint_albedo(rng: np.random.Generator, traits: SkinTraits, head: HeadModel, face: FaceMap) -> Texture:
    """Linear sRGB (R, R, 3), 0 to 1."""
    streams = dict(
        zip(
            ("pigment", "spots", "lips", "beard", "brows", "hair", "eyes", "mouth"), rng.spawn(8), strict=True
        )
    )
    melanin, blood = _pigments(streams["pigment"], traits, face)
    melanin, blood = _spots(streams["spots"], traits, face, melanin, blood)
    lips = smoothstep(0.0012, -0.0008, face.lips)
    folds = value_noise(streams["lips"], _lip_folds(face), 1.0)
    melanin = melanin * (1 - lips) + lips * _lip_melanin(face, melanin)
    lip_blood = traits.lip_blood * (1 + 0.12 * folds) * (1 + 0.35 * smoothstep(0.004, 0, face.mouth))
    blood = np.exp((1 - lips) * np.log(blood) + lips * np.log(lip_blood))
    skin = SkinPalette(traits.pheomelanin)(melanin, blood)
    skin = _make_up(traits, face, skin, lips)
    skin = _beard(streams["beard"], traits, face, skin)
    skin = _brows(streams["brows"], traits, face, skin)
    skin = _lashes(traits, face, skin)
    skin = _scalp(streams["hair"], traits, face, skin)

    albedo = np.zeros((face.atlas.resolution**2, 3), np.float32)
    albedo[face.texels] = skin
    _eyes(streams["eyes"], traits, head, face, albedo)
    _mouth(streams["mouth"], traits, head, face, albedo)
    return np.clip(albedo, 0, 1).reshape(face.atlas.resolution, face.atlas.resolution, 3)


def _pigments(rng: np.random.Generator, traits: SkinTraits, face: FaceMap) -> tuple[Texture, Texture]:
    """Shares of melanin and blood, each (N,)."""
    uneven = (
        traits.mottling
        * (1 - 0.7 * traits.foundation)
        * float(np.interp(traits.melanin, [0.05, 0.3], [1, 0.6]))
    )
    coarse, fine = (value_noise(rng, face.place, size, 2) for size in (0.05, 0.006))
    tanned = 0.12 * face.forehead + 0.1 * face.nose + 0.08 * face.near(CHEEKBONES, 0.012) - 0.15 * face.neck
    melanin = traits.melanin * np.exp(
        uneven * (0.07 * coarse + 0.05 * fine)
        + tanned
        + 0.3 * traits.under_eyes * face.under_eyes
        + 0.15 * traits.under_eyes * smoothstep(0.012, 0.002, face.lids)
    )
    coarse, fine = (value_noise(rng, face.place, size, 2) for size in (0.022, 0.005))
    redder = (
        0.75 * face.cheeks
        + 0.7 * face.nose
        + 0.6 * face.ears
        + 0.25 * smoothstep(0.006, 0.001, face.lids)
        + 0.2 * face.moustache
        - 0.2 * face.forehead
    )
    blood = traits.blood * np.exp(
        (0.35 + 1.0 * traits.flush) * (1 - 0.6 * traits.foundation) * redder
        + uneven * (0.11 * coarse + 0.11 * fine)
        + 0.35 * traits.under_eyes * face.under_eyes
    )
    return melanin.astype(np.float32), blood.astype(np.float32)


def _spots(
    rng: np.random.Generator, traits: SkinTraits, face: FaceMap, melanin: Texture, blood: Texture
) -> tuple[Texture, Texture]:
    """Freckles, age spots and moles in the melanin, blemishes in the blood."""
    bare: Texture = (1 - smoothstep(0.002, -0.002, face.lips)) * smoothstep(-0.001, 0.002, face.lids)
    sunny = (0.1 + face.nose + face.cheeks + 0.35 * face.forehead) * bare
    skin = (np.cos(np.radians(np.minimum(face.around, 120))) + 0.6) * bare
    covered = 1 - 0.75 * traits.foundation
    freckles = _dots(rng, face, sunny, traits.freckles, (0.0004, 0.0011))
    melanin = melanin * np.exp(np.minimum(freckles, 1.3) * 0.95 * covered)
    old = int(max(traits.age - 50, 0) * rng.uniform(0, 0.6))
    melanin = melanin * np.exp(np.minimum(_dots(rng, face, skin, old, (0.0012, 0.003)), 1) * 0.55 * covered)
    moles = _dots(rng, face, skin, traits.moles, (0.0006, 0.0016), sharp=True)
    melanin = melanin + np.minimum(moles, 1) * (0.22 + 0.5 * melanin) * (1 - 0.3 * traits.foundation)
    blemishes = _dots(rng, face, sunny + 0.3 * face.forehead, traits.blemishes, (0.0008, 0.002))
    blood = blood * np.exp(np.minimum(blemishes, 1) * 0.8 * covered)
    return np.minimum(melanin, MELANIN_RANGE[1]), blood


def _dots(
    rng: np.random.Generator,
    face: FaceMap,
    density: Floats,
    count: int,
    radii: tuple[float, float],
    sharp: bool = False,
) -> Texture:
    """Round spots (N,), 1 in their middle, at random places with a relative density (N,).

    Places are sampled on the surface, not among texels, so that they are the same at any resolution.
    """
    dots = np.zeros(len(face.place), np.float32)
    if count == 0:
        return dots
    edges = face.triangles[:, 1:] - face.triangles[:, :1]
    area = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1)
    limit, found = float(density.max()), 0
    for _ in range(100):
        chosen = rng.choice(len(area), 1024, p=area / area.sum())
        root, side = np.sqrt(rng.uniform(size=1024)), rng.uniform(size=1024)
        weights = np.stack([1 - root, root * (1 - side), root * side], 1)
        places = np.einsum("nk,nkc->nc", weights, face.triangles[chosen])
        chance, sizes = (
            rng.uniform(0, limit, 1024),
            np.exp(rng.uniform(np.log(radii[0]), np.log(radii[1]), 1024)),
        )
        strengths = rng.uniform(0.35, 1, 1024)
        _, nearest = face.tree.query(places)
        hits = np.flatnonzero(chance < density[nearest])[: count - found]
        for one, close in zip(hits, face.tree.query_ball_point(places[hits], 3 * sizes[hits]), strict=True):
            reach = np.linalg.norm(face.place[close] - places[one], axis=1) / sizes[one]
            bump = 1 / (1 + reach**6) if sharp else np.exp(-(reach**2))
            dots[close] += (strengths[one] * bump).astype(np.float32)
        found += len(hits)
        if found >= count:
            break
    return dots


def _lip_melanin(face: FaceMap, melanin: Texture) -> Texture:
    """Melanin of lips: less than of the skin around them, least in the lower lip."""
    upper = smoothstep(-0.004, 0.004, face.place[:, 1] - face.landmarks[13, 1])
    return melanin * (0.5 + 0.28 * upper)


def _lip_folds(face: FaceMap) -> Texture:
    """Coordinates (N, 3) in which noise of wavelength 1 has the lips' vertical folds, 1.3 mm apart."""
    scale = np.array([1 / 0.0013, 1 / 0.012, 1 / 0.012], np.float32)
    return face.place * scale


def _over(below: Texture, colour: Colour | Floats, cover: Floats) -> Texture:
    """A colour (3,) or (N, 3) composited over another (N, 3) with an opacity (N,)."""
    share = np.clip(np.asarray(cover, np.float32), 0, 1)[:, None]
    return below + share * (np.asarray(colour, np.float32) - below)


def _make_up(traits: SkinTraits, face: FaceMap, skin: Texture, lips: Texture) -> Texture:
    if traits.blush:
        cover = traits.blush * 0.45 * face.near(CHEEKBONES, 0.011)
        skin = skin * (1 - cover[:, None] * np.array([0.05, 0.5, 0.4], np.float32))
    if traits.eye_shadow:
        cover = face.upper_lid * smoothstep(0.013, 0.003, face.lids) * smoothstep(-0.006, 0, face.lids)
        skin = _over(skin, traits.eye_shadow_colour, 0.75 * traits.eye_shadow * cover)
    if traits.lipstick:
        tint = np.array(traits.lipstick_colour) * (0.85 + 0.3 * float(skin.mean()))
        skin = _over(
            skin, tint, traits.lipstick * smoothstep(0.0008, -0.0004, face.lips) * np.minimum(1, lips + 0.2)
        )
    return skin


def _hair_colours(rng: np.random.Generator, traits: SkinTraits, strands: Texture, grey: float) -> F64:
    """Colours (N, 3) of hair with lighter, darker and grey strands."""
    own = np.array(traits.hair) * np.exp(0.2 * strands)[:, None]
    if not grey:
        return own
    share = 0.25 * grey + 0.75 * smoothstep(-1.6, 1.6, strands + 4 * (grey - 0.5))
    return own + share[:, None] * (_GREY - own)


def _beard(rng: np.random.Generator, traits: SkinTraits, face: FaceMap, skin: Texture) -> Texture:
    if not traits.shadow + traits.beard + traits.goatee + traits.moustache:
        return skin
    patchy = value_noise(rng, face.place, 0.012)
    shadow = np.clip(traits.shadow * face.beard * (0.8 + 0.12 * patchy), 0, 1)[:, None]
    skin = skin * (1 - shadow * np.array([0.36, 0.3, 0.24], np.float32))
    cheek = face.beard * (1 - np.maximum(face.goatee, face.moustache))
    chin = face.goatee * (1 - face.moustache)
    grown = traits.beard * cheek + traits.goatee * chin + traits.moustache * face.moustache
    if not grown.any():
        return skin
    grown = np.clip(grown, 0, 1)
    strands = value_noise(rng, face.place * np.array([1, 0.3, 1], np.float32), 0.0016)
    full = smoothstep(0.45, 0.7, grown)
    cover = grown * (1 + (0.1 - 0.07 * full) * patchy) + (0.22 - 0.1 * full) * strands * np.sqrt(grown)
    edge = smoothstep(0.02, 0.5, grown + 0.1 * strands * (grown > 0.01))
    colours = _hair_colours(rng, traits, strands, min(1.0, traits.grey * 1.3)) * 1.15
    return _over(skin, colours, np.clip(cover, 0, 0.95) * edge)


def _brows(rng: np.random.Generator, traits: SkinTraits, face: FaceMap, skin: Texture) -> Texture:
    """Brows as oriented strokes: upright at the inner end, along the brow further out."""
    near = np.flatnonzero(face.brow_along > -0.02)
    length = face.brow_length
    along = face.brow_along[near]
    across = face.brow_across[near] - np.float32(traits.brow_lift)
    share = np.clip(along / length, -0.1, 1.1)
    half = traits.brow_thickness * np.interp(
        share, [-0.1, 0.0, 0.25, 0.6, 0.9, 1.05], [0.75, 0.85, 1, 0.85, 0.4, 0.15]
    )
    middle = np.interp(share, [0, 0.3, 0.65, 1], [-0.0006, 0, 0.0008, 0])
    over = (across - middle) / half
    body = smoothstep(1.35, 0.55, np.abs(over)) * smoothstep(-0.004, 0.003, along)
    body *= smoothstep(length + 0.006, length - 0.006, along)
    lean = np.radians(np.interp(share, [0, 0.2, 0.5, 1], [72, 45, 20, -12])) + 0.25 * np.clip(-over, -1, 1)
    side = np.sign(face.place[near, 0])
    stroke = np.stack(
        [
            (along * np.sin(lean) - across * np.cos(lean)) / 0.0008,
            (along * np.cos(lean) + across * np.sin(lean)) / 0.007,
            side * 7.0,
        ],
        1,
    )
    strands = value_noise(rng, stroke, 1.0)
    cover = traits.brow_density * body * (0.85 + 0.3 * strands)
    cover = np.where(body > 0, cover * smoothstep(0.05, 0.4, body + 0.15 * strands), 0)
    colours = _hair_colours(rng, traits, strands, 0.4 * traits.grey) * (1.1 - 0.75 * traits.brow_darkness)
    skin = skin.copy()
    skin[near] = _over(skin[near], colours, np.clip(cover, 0, 0.96))
    return skin


def _lashes(traits: SkinTraits, face: FaceMap, skin: Texture) -> Texture:
    """A dark line along the lids' edges, stronger above, and pink inner rims."""
    wide = np.where(face.upper_lid > 0.5, 0.0013, 0.0007).astype(np.float32)
    line = np.exp(-((np.maximum(face.lids, 0) / wide) ** 2)) * smoothstep(-0.0018, -0.0006, face.lids)
    strength = traits.lashes * np.where(face.upper_lid > 0.5, 0.92, 0.4)
    rim = smoothstep(-0.0002, -0.0014, face.lids)
    skin = _over(skin, skin * np.array([1.05, 0.72, 0.68]), 0.6 * rim)
    return _over(skin, np.array(traits.hair) * 0.35, strength * line)


def _hair_cover(rng: np.random.Generator, traits: SkinTraits, face: FaceMap) -> tuple[Texture, Texture]:
    """Coverage (N,) of the scalp by short hair, and its strands (N,), noise of unit standard deviation."""
    crown = np.array([0, face.place[:, 1].max(), -0.02], np.float32)
    away = face.place - crown
    # contiguous, because the last digits of numpy's arctan2 of strided columns depend on memory alignment
    x, _, z = np.ascontiguousarray(away.T)
    turn = np.arctan2(x, z)
    down = np.linalg.norm(away, axis=1)
    strand = np.stack([np.sin(turn) * 45, np.cos(turn) * 45, down / 0.009], 1)
    strands = value_noise(rng, strand, 1.0)
    ragged = value_noise(rng, face.place, 0.006, 2)
    over = face.hairline - traits.hairline * (face.around < 70) - traits.recession * face.temple
    cover = smoothstep(-0.003, 0.013, over + 0.0022 * ragged + 0.0025 * strands)
    return cover * np.float32(traits.hair_density), strands


def _scalp(rng: np.random.Generator, traits: SkinTraits, face: FaceMap, skin: Texture) -> Texture:
    if not traits.hair_density:
        over = smoothstep(-0.002, 0.012, face.hairline)
        return skin * (1 - 0.06 * over[:, None])
    cover, strands = _hair_cover(rng, traits, face)
    colours = _hair_colours(rng, traits, strands, traits.grey)
    faded = smoothstep(-0.01, 0.03, face.hairline) * 0.12 + 0.88  # hair is thinner towards the hairline
    return _over(skin, colours, cover * faded * (1 + 0.12 * strands))


def _eyes(
    rng: np.random.Generator, traits: SkinTraits, head: HeadModel, face: FaceMap, albedo: Texture
) -> None:
    """Tear lines; sclera, iris and pupil by distance from the pupil's middle, not by triangle, for soft edges."""
    template = head.template.cpu().double().numpy()
    vertex_parts = head.vertex_parts()
    triangles = head.faces.cpu().numpy()
    white = traits.sclera * np.array([0.86, 0.82, 0.76])
    lines = [number for number, name in enumerate(head.part_names) if name.endswith("tear_line")]
    albedo[np.isin(face.parts, lines)] = white * _TEAR_LINE
    for side in ("left", "right"):
        names = [f"{side}_{part}" for part in ("eye", "iris", "pupil")]
        if not set(names) <= set(head.part_names):
            continue
        eye, iris, pupil = (head.part_names.index(name) for name in names)
        texels = np.flatnonzero(np.isin(face.parts, [eye, iris, pupil]))
        place = face.atlas.matrix[texels] @ template
        of_iris = template[np.unique(triangles[head.face_parts == iris])]
        middle = template[vertex_parts == pupil].mean(0)
        ball = template[np.unique(triangles[np.isin(head.face_parts, [eye, iris, pupil])])]
        front = place[:, 2] > ball[:, 2].mean()
        offset = (place - middle)[:, :2]
        radius = np.linalg.norm((of_iris - middle)[:, :2], axis=1).max()
        reach = np.where(front, np.linalg.norm(offset, axis=1) / radius, 9).astype(np.float32)
        turn = np.arctan2(*np.ascontiguousarray(offset[:, 1::-1].T))
        fibres = value_noise(rng, np.stack([np.cos(turn) * 5, np.sin(turn) * 5, reach * 1.5], 1), 1.0, 2)
        veins = np.abs(value_noise(rng, place, 0.006, 3))
        colour = np.broadcast_to(white, (len(texels), 3)).astype(np.float32)
        reddish = (0.1 + 0.5 * smoothstep(1.2, 2.4, reach)) * smoothstep(0.3, 0.0, veins)
        colour = _over(colour, white * np.array([0.9, 0.55, 0.5]), 0.6 * reddish)
        own = np.array(traits.iris) * np.exp(0.35 * fibres)[:, None]
        own = own * (1 + 0.5 * smoothstep(0.75, 0.45, reach))[:, None]
        own = _over(own.astype(np.float32), np.array(traits.iris) * 0.2, smoothstep(0.78, 1.0, reach))
        soft = max(0.05, 0.6 * float(np.sqrt(np.pi / max((reach < 1).sum(), 1))))  # at least a texel
        colour = _over(colour, own, smoothstep(1.01 + soft, 1.01 - soft, reach))
        albedo[texels] = _over(colour, _PUPIL, smoothstep(0.4 + soft, 0.4 - soft, reach))


def _mouth(
    rng: np.random.Generator, traits: SkinTraits, head: HeadModel, face: FaceMap, albedo: Texture
) -> None:
    """Teeth, tongue, mouth cavity and gums, darker further back."""
    template = head.template.cpu().double().numpy()
    teeth = np.array([0.62, 0.58, 0.47]) + (traits.teeth - 0.5) * np.array([0.25, 0.3, 0.42])
    colours = {
        "mouth_cavity": _MOUTH,
        "upper_teeth": teeth,
        "lower_teeth": teeth,
        "tongue": _TONGUE,
        "upper_gums": _GUMS,
        "lower_gums": _GUMS,
    }
    front = float(face.landmarks[13, 2])
    for name, colour in colours.items():
        if name not in head.part_names:
            continue
        texels = np.flatnonzero(face.parts == head.part_names.index(name))
        if not len(texels):
            continue
        place = face.atlas.matrix[texels] @ template
        uneven = value_noise(rng, place, 0.004, 2)
        deep = smoothstep(0.055, 0.01, front - place[:, 2])
        shade = (0.25 + 0.75 * deep) * (1 + 0.04 * uneven)
        albedo[texels] = (colour * shade[:, None]).astype(np.float32)
