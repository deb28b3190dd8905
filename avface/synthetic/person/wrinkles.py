"""Wrinkles driven by the compression of the skin, perpendicular to its direction.

For each site (forehead, between the brows, beside the eyes, ...) the pattern is generated once per person: ridges
perpendicular to the principal compression of the expression that folds the skin there. In each frame its depth at each
texel is a function of the mesh's compression.

Sources: ridges are phasor noise (Tricard et al., "Procedural Phasor Noise", 2019) with kernels on the surface whose
phases are aligned with their neighbours'; mesh tension as the driver after Raman et al., "Mesh-Tension Driven
Expression-Based Wrinkles for Synthetic Faces" (2022), here with its direction. Strain is the Green strain of triangles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix, diags, vstack
from scipy.spatial import cKDTree
from scipy.special import ive

from avface.arrays import F64, Floats, Int
from avface.geometry.interpolation import smoothstep
from avface.synthetic.person.texture import Texture, TextureAtlas, value_noise

FULL = 0.175
"""Compression, as a share of the length, of the most compressed tenth of a site in its own expression. Where a head's
skin gives way over a wider area and is compressed less, it is scaled to that: people wrinkle on any head."""
THRESHOLD = 0.035
"""Compression up to which skin is smooth, where it is FULL in the site's own expression."""
_DEPTH_SCALE = 0.09
"""The same over the threshold at which a wrinkle has 63 % of its full depth."""
_LARGEST_GAIN = 8.0
"""Largest factor of that scale: skin that is hardly compressed doesn't wrinkle."""
_SHARPNESS = 1.7
"""Concentration kappa of the von Mises profile of a valley; above 0, valleys are narrower than ridges."""
_KERNEL_SPACING = 0.45
"""Distance between the noise's kernels in wavelengths."""
_NEIGHBOURS = 12
"""Nearest kernels summed at a texel."""
_PHASE_ITERATIONS = 25
"""Iterations of the phase alignment."""
_MIN_TEXELS = 2.2
"""Minimum texels per wavelength; finer ridges are faded out, because they would alias."""


class StrainEstimator:
    """In-plane strain of the triangles of a mesh against its rest shape, smoothed over the vertices.

    Shapes: rest (V, 3), faces (F, 3); only triangles in `faces` count.
    """

    def __init__(self, rest: Floats, faces: Int, rounds: int = 1) -> None:
        """A vertex has the mean strain of its triangles, smoothed over neighbouring vertices in `rounds` iterations."""
        rest = np.asarray(rest, np.float64)
        self._faces = faces
        along, across = rest[faces[:, 1]] - rest[faces[:, 0]], rest[faces[:, 2]] - rest[faces[:, 0]]
        normal = np.cross(along, across)
        area = np.linalg.norm(normal, axis=1) / 2
        sound = area > 1e-12
        first = along / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-12)
        second = np.cross(normal / np.maximum(2 * area, 1e-18)[:, None], first)
        self._axes = np.stack([first, second], 2)  # (F, 3, 2)
        edges = np.einsum("fki,fek->fie", self._axes, np.stack([along, across], 1))
        edges[~sound] = np.eye(2)
        self._inverse = np.where(sound[:, None, None], np.linalg.inv(edges), 0)  # (F, 2, 2)
        count = len(rest)
        index = np.arange(len(faces))
        mean = coo_matrix(
            (np.tile(area * sound, 3), (faces.T.ravel(), np.tile(index, 3))), shape=(count, len(faces))
        )
        self.mean = _rows_to_one(mean.tocsr())
        """(V, F): weights of the triangles in a vertex' strain."""
        pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        links = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count)).tocsr()
        links = ((links + links.T) > 0).astype(np.float64)
        blend = _rows_to_one(links + diags(np.asarray(links.sum(1)).ravel() * 0.7 + 1e-9))
        for _ in range(rounds):
            self.mean = blend @ self.mean

    def metric(self, vertices: Floats) -> F64:
        """(3 F,): squared lengths and the product of two edges a, b of every triangle: a.a, a.b, b.b in turn."""
        corners = np.asarray(vertices, np.float64)[self._faces]
        a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        dot = "fk,fk->f"
        return np.concatenate([np.einsum(dot, a, a), np.einsum(dot, a, b), np.einsum(dot, b, b)])

    def tensors(self, vertices: Floats) -> F64:
        """Green strain (V, 3, 3) of vertices (V, 3) in the rest shape's axes; 0 along the normal."""
        aa, ab, bb = self.metric(vertices).reshape(3, -1)
        metric = np.stack([np.stack([aa, ab], 1), np.stack([ab, bb], 1)], 1)
        valid = np.any(self._inverse != 0, axis=(1, 2))[:, None, None]
        plane = (self._inverse.transpose(0, 2, 1) @ metric @ self._inverse - np.eye(2)) / 2 * valid
        space = self._axes @ plane @ self._axes.transpose(0, 2, 1)
        tensors: F64 = (self.mean @ space.reshape(-1, 9)).reshape(-1, 3, 3)
        return tensors

    def along(self, vertices: Int, directions: F64) -> tuple[csr_matrix, F64]:
        """Compression (N,) of vertices (N,) along unit directions (N, 3) as a linear function of `metric`.

        Returns matrix (N, 3 F) and offset (N,): compression = matrix @ metric + offset, 0 at rest, positive where
        the skin is shorter.
        """
        weights = self.mean[vertices].tocoo()
        flat = np.einsum("nki,nk->ni", self._axes[weights.col], directions[weights.row])
        share = np.einsum("nij,nj->ni", self._inverse[weights.col], flat)
        half = weights.data / 2
        count = len(self._faces)
        shape = (len(vertices), 3 * count)
        values = np.concatenate(
            [-half * share[:, 0] ** 2, -2 * half * share[:, 0] * share[:, 1], -half * share[:, 1] ** 2]
        )
        columns = np.concatenate([weights.col, weights.col + count, weights.col + 2 * count])
        matrix = coo_matrix((values, (np.tile(weights.row, 3), columns)), shape=shape).tocsr()
        sound = np.any(self._inverse[weights.col] != 0, axis=(1, 2))
        offset = np.bincount(weights.row, half * (flat**2).sum(1) * sound, minlength=len(vertices))
        return matrix, offset.astype(np.float64)


def _rows_to_one(matrix: csr_matrix) -> csr_matrix:
    """The matrix with rows normalised to a sum of 1; empty rows stay empty."""
    total = np.asarray(matrix.sum(1)).ravel()
    return (diags(1 / np.where(total > 0, total, 1)) @ matrix).tocsr()


@dataclass(frozen=True)
class WrinkleSite:
    """An area with wrinkles, on one person's mesh.

    Shapes: reach (V,) from 0 to 1, a soft mask of its vertices; expressed (V, 3) in metres, the face in the expression
            that folds the skin there; curves are lines (K, 3) in metres along single folds; none for ridges in the
            whole area.
    """

    name: str
    reach: F64
    expressed: F64
    wavelength: float
    """Metres between ridges; for single folds their width."""
    depth: float
    """Metres from ridge to valley under strong compression."""
    static: float = 0.0
    """Share of the depth at rest."""
    curves: tuple[F64, ...] = ()
    driver: Int | None = None
    """(V,) for each vertex, the one whose compression drives it; itself if None."""


@dataclass(frozen=True)
class _Pattern:
    """The ridges of a site: heights (N,) float32 in metres at texels (N,) at full depth, and their driver."""

    texels: Int
    heights: Texture
    bake: csr_matrix
    """(N, M): interpolates from the site's vertices to its texels."""


class Wrinkles:
    """The wrinkles of one person, as a displacement map for any expression."""

    def __init__(
        self,
        rng: np.random.Generator,
        rest: Floats,
        faces: Int,
        atlas: TextureAtlas,
        sites: Sequence[WrinkleSite],
    ) -> None:
        """rest (V, 3) is the face at rest in metres, faces (F, 3) the skin's triangles, atlas of the whole mesh."""
        rest = np.asarray(rest, np.float64)
        self._gauge = StrainEstimator(rest, faces)
        flow = StrainEstimator(rest, faces, rounds=3)
        place = atlas.bake(rest).reshape(-1, 3)
        size = _texel_sizes(rest, faces, atlas)
        self._patterns: list[_Pattern] = []
        self._resolution = atlas.resolution
        self.static = np.zeros((atlas.resolution, atlas.resolution), np.float32)
        """(R, R) metres: the wrinkles at rest."""
        matrices, offsets = [], []
        for site in sites:
            streams = rng.spawn(2)
            tensors = flow.tensors(site.expressed)
            reached = np.flatnonzero(site.reach > 0.01)
            driver = reached if site.driver is None else site.driver[reached]
            squeeze, directions = _principal_compression(tensors[driver])
            gain = _gain(squeeze)
            strength = np.zeros(len(rest))
            strength[reached] = site.reach[reached]
            if not site.curves:  # ridges need compression; a single fold has its full length
                strength[reached] *= smoothstep(0.015, 0.07, gain * squeeze)
            envelope = atlas.matrix @ strength.astype(np.float32)
            texels = np.flatnonzero((envelope > 0.01) & atlas.inside.ravel())
            if not len(texels):
                continue
            if site.curves:
                shape = _fold_profile(place[texels], site)
            else:
                shape = _ridges(streams[0], rest, faces, tensors, strength, place[texels], site.wavelength)
            fade = smoothstep(_MIN_TEXELS - 0.8, _MIN_TEXELS + 0.8, site.wavelength / size[texels])
            uneven = 1 + 0.25 * np.clip(value_noise(streams[1], place[texels], 0.03), -2, 2)
            heights = (site.depth * fade * uneven * envelope[texels] * shape).astype(np.float32)
            matrix, offset = (flow if site.curves else self._gauge).along(driver, directions)
            self._patterns.append(
                _Pattern(texels, heights, atlas.matrix[texels][:, reached].astype(np.float32))
            )
            matrices.append(gain * matrix)
            offsets.append(gain * offset)
            self.static.ravel()[texels] += site.static * heights
        self._splits = np.cumsum([len(offset) for offset in offsets])[:-1]
        self._matrix = vstack(matrices).tocsr() if matrices else csr_matrix((0, 3 * len(faces)))
        self._offset = np.concatenate(offsets) if offsets else np.zeros(0)

    def displacement(self, vertices: Floats) -> Texture:
        """Displacement (R, R) in metres along the normal of the expressed face (V, 3); all 0 for the face at rest."""
        compression = self._matrix @ self._gauge.metric(vertices) + self._offset  # scaled to FULL
        depth = 1 - np.exp(-np.clip(compression - THRESHOLD, 0, None) / _DEPTH_SCALE)
        result = np.zeros(self._resolution**2, np.float32)
        shares = np.split(depth.astype(np.float32), self._splits)  # one, an empty one, if there is no pattern
        for pattern, share in zip(self._patterns, shares, strict=False):
            if share.any():
                result[pattern.texels] += pattern.heights * (pattern.bake @ share)
        return result.reshape(self._resolution, self._resolution)


def _gain(squeeze: F64) -> float:
    """The factor that scales a site's compressions (N,) in its own expression to FULL."""
    return float(np.clip(FULL / max(float(np.quantile(squeeze, 0.9)), 1e-6), 1.0, _LARGEST_GAIN))


def _principal_compression(tensors: F64) -> tuple[F64, F64]:
    """The strongest compression (N,) of strains (N, 3, 3), 0 or less if there is none, and its direction (N, 3)."""
    values, vectors = np.linalg.eigh(tensors)
    return -values[:, 0], vectors[:, :, 0]


def _texel_sizes(rest: F64, faces: Int, atlas: TextureAtlas) -> F64:
    """Side of each texel (R * R,) on the surface in metres, from the distance to its neighbours."""
    place = atlas.bake(rest).astype(np.float64)
    down = np.linalg.norm(np.diff(place, axis=0, append=place[-2:-1]), axis=2)
    right = np.linalg.norm(np.diff(place, axis=1, append=place[:, -2:-1]), axis=2)
    size: F64 = np.sqrt((down**2 + right**2) / 2).ravel()
    return np.maximum(size, 1e-6)


def _ridges(
    rng: np.random.Generator,
    rest: F64,
    faces: Int,
    tensors: F64,
    strength: F64,
    points: Texture,
    wavelength: float,
) -> F64:
    """Heights (N,) of zero mean at points (N, 3): ridges across the strongest compression, 1 from valley to ridge."""
    weights, corners = _scatter(rng, rest, faces, strength, _KERNEL_SPACING * wavelength)
    centres = np.einsum("nk,nkc->nc", weights, rest[corners])
    squeeze, directions = _principal_compression(np.einsum("nk,nkij->nij", weights, tensors[corners]))
    kept = squeeze > 0.003
    centres, directions = centres[kept], directions[kept]
    if len(centres) < 2:
        return np.zeros(len(points))
    _, axes = np.linalg.eigh(directions.T @ directions)
    directions *= np.where(directions @ axes[:, -1] < 0, -1, 1)[:, None]
    phases, depths = _aligned_phases(rng, centres, directions, wavelength)

    tree = cKDTree(centres)
    distance, near = tree.query(points, k=min(_NEIGHBOURS, len(centres)))
    offset = points[:, None] - centres[near]
    across = np.einsum("nkc,nkc->nk", offset, directions[near])
    along_squared = np.clip(distance**2 - across**2, 0, None)
    window = (
        1 - (distance / np.maximum(distance[:, -1:], 1e-9)) ** 2
    )  # continuous where the set of kernels changes
    weight = (
        np.exp(-(across**2) / (0.6 * wavelength) ** 2 - along_squared / (1.2 * wavelength) ** 2) * window**2
    )
    angle = 2 * np.pi / wavelength * across + phases[near]
    angle *= np.where(np.einsum("nkc,nc->nk", directions[near], directions[near[:, 0]]) < 0, -1, 1)
    real, imaginary = (weight * np.cos(angle)).sum(1), (weight * np.sin(angle)).sum(1)
    total = np.maximum(weight.sum(1), 1e-9)
    length = np.hypot(real, imaginary)
    valley = np.exp(_SHARPNESS * (real / np.maximum(length, 1e-12) - 1)) - ive(0, _SHARPNESS)
    clear = smoothstep(0.05, 0.6, length / total)  # fades bifurcations, where phases disagree
    heights: F64 = -valley * clear * (weight * depths[near]).sum(1) / total
    return heights


def _scatter(
    rng: np.random.Generator, rest: F64, faces: Int, strength: F64, spacing: float
) -> tuple[F64, Int]:
    """Random points on the triangles where strength (V,) is over 0: weights (N, 3) and vertices (N, 3)."""
    faces = faces[strength[faces].max(1) > 0.005]
    edges = rest[faces[:, 1:]] - rest[faces[:, :1]]
    area = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1) / 2
    count = int(np.clip(area.sum() / spacing**2, 4, 6000))
    chosen = rng.choice(len(faces), count, p=area / area.sum())
    root, side = np.sqrt(rng.uniform(size=count)), rng.uniform(size=count)
    return np.stack([1 - root, root * (1 - side), root * side], 1), faces[chosen]


def _aligned_phases(
    rng: np.random.Generator, centres: F64, directions: F64, wavelength: float
) -> tuple[F64, F64]:
    """Phases (N,) with which neighbouring kernels' ridges join, and the kernels' depths (N,) around 1."""
    count = len(centres)
    distance, near = cKDTree(centres).query(centres, k=min(_NEIGHBOURS, count))
    distance, near = distance[:, 1:], near[:, 1:]
    weight = np.exp(-((distance / wavelength) ** 2))
    same = np.einsum("nkc,nc->nk", directions[near], directions)
    turned = same < 0
    mean = directions[:, None] + np.where(turned, -1, 1)[..., None] * directions[near]
    mean /= np.maximum(np.linalg.norm(mean, axis=2, keepdims=True), 1e-9)
    shift = np.exp(2j * np.pi / wavelength * np.einsum("nkc,nkc->nk", centres[:, None] - centres[near], mean))
    weight = weight * np.abs(same)
    phasor = np.exp(2j * np.pi * rng.uniform(size=count))
    depth = rng.standard_normal(count)
    for _ in range(_PHASE_ITERATIONS):
        theirs = np.where(turned, phasor[near].conj(), phasor[near])
        phasor = 0.5 * phasor + (weight * shift * theirs).sum(1) / np.maximum(weight.sum(1), 1e-9)
        phasor /= np.maximum(np.abs(phasor), 1e-9)
    for _ in range(2):
        depth = 0.5 * depth + 0.5 * (weight * depth[near]).sum(1) / np.maximum(weight.sum(1), 1e-9)
    depth *= 0.3 / max(float(depth.std()), 1e-9)
    return np.angle(phasor), np.clip(1 + depth, 0.3, 1.8)


def _fold_profile(points: Texture, site: WrinkleSite) -> F64:
    """Heights (N,) at points (N, 3) of single folds: a valley along each line, with a bulge on either side."""
    heights = np.zeros(len(points))
    for curve in site.curves:
        line = _resampled(curve, site.wavelength / 8)
        distance, nearest = cKDTree(line).query(points)
        share = nearest / max(len(line) - 1, 1)
        taper = smoothstep(0, 0.22, share) * smoothstep(1, 0.7, share)
        reach = distance / site.wavelength
        valley = np.exp(-((reach / 0.28) ** 2))
        bulge = 0.4 * np.exp(-(((reach - 0.75) / 0.45) ** 2))
        heights += taper * (bulge - valley)
    return heights


def _resampled(curve: F64, step: float) -> F64:
    """A cubic spline (N, 3) through points (K, 3), sampled every `step` metres or less."""
    from scipy.interpolate import CubicSpline

    lengths = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    fine = np.linspace(0, lengths[-1], max(int(np.ceil(lengths[-1] / step)), 2) + 1)
    line: F64 = CubicSpline(lengths, curve)(fine)
    return line
