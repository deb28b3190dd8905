"""Training data of the landmark network: views of synthetic people with true and tracked landmarks.

The people are out-of-model heads (`avface.synthetic.out_of_model`). Each of their images is also warped and degraded,
which gives other faces at little cost, and tracked again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt
import torch

from avface.arrays import F32, U8, Bool, Floats, Int
from avface.errors import AvfaceError
from avface.files import replacing
from avface.head import HeadModel, load_head
from avface.synthetic.out_of_model import LANDMARKS_SEED, OutOfModelConfig, out_of_model_head
from avface.synthetic.performance.performance import perform
from avface.synthetic.person.albedo import paint_albedo
from avface.synthetic.person.feature_masks import face_map
from avface.synthetic.person.relief import paint_relief
from avface.synthetic.person.skin import Skin
from avface.synthetic.person.traits import sample_traits
from avface.synthetic.person.wrinkle_sites import wrinkle_sites
from avface.synthetic.person.wrinkles import Wrinkles
from avface.synthetic.rendering.backdrop import sample_backdrop
from avface.synthetic.rendering.light import sample_light
from avface.synthetic.rendering.renderer import SceneRenderer
from avface.synthetic.rendering.scene import (
    BACKDROP,
    CAMERA,
    LIGHT,
    PERFORMANCE,
    SENSOR,
    Scene,
    sample_camera,
    sample_clothes,
    sample_hair,
)
from avface.synthetic.rendering.sensor import sample_sensor
from avface.tracking.aligned_crops import aligned_crop, crop_matrix, to_crop
from avface.tracking.facemesh import FaceMesh
from avface.training.loop.config import check_not_negative, check_positive

if TYPE_CHECKING:
    from typing_extensions import Self

Detector = Callable[[U8], "Floats | None"]
"""(H, W, 3) RGB picture -> (478, 2 or more) landmarks in pixels, or None where no face is found."""

PEOPLE_A_FILE = 50
_LOST = 0.12
"""Mean error relative to the face's size above which a view is left out: the tracker has lost the face."""
_MAPS = 512
_SKIN, _PERSON, _TURN = 77, 99, 9


@dataclass(frozen=True, eq=False)
class StoredViews:
    """Arrays of N rows each, the fields of a subclass, in files."""

    def save(self, path: Path) -> None:
        """Write a file (npz), which appears whole.

        Raises:
            AvfaceError: if it can't be written.
        """
        with replacing(path) as temporary:
            np.savez(temporary, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, paths: list[Path]) -> Self:
        """Read files that `save` wrote, one after the other.

        Raises:
            AvfaceError: if one of them can't be read.
        """
        parts: dict[str, list[npt.NDArray[np.generic]]] = {field.name: [] for field in fields(cls)}
        for path in paths:
            try:
                with np.load(path, allow_pickle=False) as archive:
                    for name, values in parts.items():
                        values.append(archive[name])
            except Exception as error:  # zipfile and zlib raise a family of errors on damaged archives
                raise AvfaceError(f"{path}: not a readable file of views ({error}); delete it") from None
        return cls(**{name: np.concatenate(values) for name, values in parts.items()})


@dataclass(frozen=True, eq=False)
class LandmarkViews(StoredViews):
    """N views of faces: images (N, S, S) uint8, tracked and true landmarks (N, 478, 2) in their pixels, the number of
    the person (N,), and whether the image was warped (N,)."""

    pictures: U8
    tracked: F32
    true: F32
    person: Int
    warped: Bool

    def __len__(self) -> int:
        return len(self.person)


@dataclass(frozen=True)
class LandmarkViewsConfig:
    """How many images are made, and how."""

    people: int = 1500
    """Number of synthetic people; two consecutive ones have the same skin."""
    scenes: int = 2
    """Scenes of each person, with different light, camera and performance."""
    frames: int = 4
    """Rendered frames of each scene."""
    warps: int = 2
    """Warped images of each rendered one."""
    size: int = 256
    """Width and height of an image in pixels."""

    def __post_init__(self) -> None:
        check_positive(self, "people", "scenes", "frames", "size")
        check_not_negative(self, "warps")


def prepare_views(
    folder: Path, config: LandmarkViewsConfig, on_people: Callable[[int], None] = lambda done: None
) -> list[Path]:
    """Make the files of a config that don't exist yet. `on_people` is called with the number of people that are done.

    Raises:
        AvfaceError: if the folder can't be written, or espeak-ng is missing.
    """
    with FaceMesh() as mesh:
        renderer = ViewRenderer(config, lambda image: track_image(mesh, image))
        return prepare_files(folder, config.people, renderer.views, on_people)


def prepare_files(
    folder: Path, people: int, make: Callable[[range], StoredViews], on_people: Callable[[int], None]
) -> list[Path]:
    """Files of views of `PEOPLE_A_FILE` people each; those that don't exist yet are made.

    Raises:
        AvfaceError: if the folder can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AvfaceError(f"{folder}: can't be made ({error.strerror}); choose another folder") from None
    paths = []
    for first in range(0, people, PEOPLE_A_FILE):
        last = min(first + PEOPLE_A_FILE, people)
        path = folder / f"{first:05d}-{last:05d}.npz"
        if not path.is_file():
            make(range(first, last)).save(path)
        paths.append(path)
        on_people(last)
    return paths


def track_image(mesh: FaceMesh, image: U8) -> Floats | None:
    """Landmarks of the tracker after several passes over one image, as in a video."""
    regions = mesh.detect(image)
    face = mesh.landmarks(image, max(regions, key=lambda one: one.side)) if regions else None
    for _ in range(2):
        face = mesh.landmarks(image, face.next_region) if face is not None else None
    return None if face is None else face.landmarks


class ViewRenderer:
    """Renders people and tracks them."""

    def __init__(
        self,
        config: LandmarkViewsConfig,
        track: Detector,
        seed: int = LANDMARKS_SEED,
        people_a_skin: int = 2,
    ) -> None:
        """seed: of the people; people_a_skin: number of consecutive people that have the same skin."""
        self._config, self.track, self._seed = config, track, seed
        self._people_a_skin = people_a_skin
        self._base = load_head()
        self._map = face_map(self._base, _MAPS)
        self._skin_faces = self._base.faces.numpy()[
            self._base.face_parts == self._base.part_names.index("skin")
        ]
        self._places = self._map.atlas.bake(self._base.template.double().numpy()).reshape(-1, 3)

    def views(self, people: range) -> LandmarkViews:
        """All views of some people."""
        found: list[tuple[U8, Floats, Floats, int, bool]] = []
        for person in people:
            rng = np.random.default_rng([LANDMARKS_SEED, person])
            for image, true in self._pictures(person):
                for number in range(1 + self._config.warps):
                    shown, points = image, np.asarray(true, np.float32)
                    if number:
                        shown, points = warped(image, true, rng)
                        shown = degraded(shown, rng)
                    tracked = self.track(shown)
                    if tracked is None or is_lost(tracked, points):
                        continue
                    matrix = crop_matrix(tracked)
                    view = aligned_crop(shown, matrix)
                    found.append(
                        (view, to_crop(matrix, tracked), to_crop(matrix, points), person, number > 0)
                    )
        pictures, tracked_, true_, person_, warped_ = zip(*found, strict=True)
        return LandmarkViews(
            np.stack(pictures), np.stack(tracked_), np.stack(true_), np.array(person_), np.array(warped_)
        )

    def _pictures(self, person: int) -> Iterator[tuple[U8, Floats]]:
        """Rendered pictures of a person and where the landmarks are in them."""
        head = out_of_model_head(person, OutOfModelConfig(seed=LANDMARKS_SEED))
        for scene in self.scenes(person, head):
            frames = np.linspace(3, len(scene) - 4, self._config.frames).round().astype(int)
            for _, image, true in self.pictures(SceneRenderer(scene, head), frames):
                yield image, true

    def pictures(self, renderer: SceneRenderer, frames: Int) -> Iterator[tuple[int, U8, Floats]]:
        """Number, compressed picture and true landmarks (478, 2) of some frames of a scene."""
        scene, head = renderer.scene, renderer.head
        embedding = head.embedding("mediapipe478")
        triangles = torch.from_numpy(embedding.triangles)
        shares = torch.from_numpy(embedding.barycentric).float()
        generator = torch.Generator().manual_seed(scene.noise_seed)
        rotation, translation = scene.motion(head)
        performance = scene.performance
        quality = int(np.interp(scene.sensor.quality, [18, 32], [96, 55]))
        for frame in frames.tolist():
            image = scene.sensor.develop(renderer.light(range(frame, frame + 1)), generator)[0].numpy()
            posed = head(
                torch.as_tensor(scene.shape)[None],
                torch.as_tensor(performance.expression[frame : frame + 1]),
                torch.as_tensor(performance.joints[frame : frame + 1]),
            )[0]
            points = torch.einsum("lkc,lk->lc", posed[triangles], shares)
            placed = points @ rotation[frame].T + translation[frame]
            yield frame, _compressed(image, quality), scene.camera.project(placed[None])[0].numpy()

    def scenes(self, person: int, head: HeadModel) -> Iterator[Scene]:
        """Scenes of a person with this head, with different light, camera and performance."""
        own = np.random.default_rng([self._seed, person, _PERSON])
        clothes = sample_clothes(own)
        skin = self._skin(person, head)
        hair = sample_hair(own, head, skin.traits)
        size = self._config.size
        for number in range(self._config.scenes):

            def stream(ingredient: int, number: int = number) -> np.random.Generator:
                return np.random.default_rng([self._seed, person, number, ingredient])

            camera, rest, turn = sample_camera(stream(CAMERA), size)
            more = stream(_TURN).normal(0, [0.09, 0.2, 0.03]).clip([-0.2, -0.45, -0.08], [0.2, 0.45, 0.08])
            filmed = stream(SENSOR)
            yield Scene(
                shape=np.zeros(head.num_shape, np.float32),
                skin=skin,
                performance=perform(stream(PERFORMANCE), head, 3.0, 25.0, "speech"),
                light=sample_light(stream(LIGHT)),
                camera=camera,
                rest=rest,
                rest_turn=(turn + more).astype(np.float32),
                backdrop=sample_backdrop(stream(BACKDROP), size, size),
                sensor=sample_sensor(filmed),
                clothes=clothes,
                hair=hair,
                noise_seed=int(filmed.integers(2**31)),
            )

    def _skin(self, person: int, head: HeadModel) -> Skin:
        """The skin of a person: texture of the mean head, wrinkles of this head's expressions."""
        whose, how = np.random.default_rng([self._seed, person // self._people_a_skin, _SKIN]).spawn(2)
        traits = sample_traits(whose)
        paint, rough, where, ridges = how.spawn(4)
        neutral = head.template.double().numpy()
        sites = wrinkle_sites(where, head, neutral, traits.age, traits.wrinkling)
        wrinkles = Wrinkles(ridges, neutral, self._skin_faces, self._map.atlas, sites)
        return Skin(
            albedo=paint_albedo(paint, traits, self._base, self._map),
            relief=paint_relief(rough, traits, self._map, self._places) + wrinkles.static,
            wrinkles=wrinkles,
            traits=traits,
            roughness=0.4,
            specular=0.028,
        )


def is_lost(tracked: Floats, true: Floats) -> bool:
    """Whether the tracker has lost a face with true landmarks (478, 2): its own (478, 2 or more) are far from them."""
    size = float(np.sqrt(np.ptp(true, axis=0).prod()))
    return bool(np.linalg.norm(tracked[:, :2] - true, axis=1).mean() > _LOST * size)


def warped(image: U8, landmarks: Floats, rng: np.random.Generator) -> tuple[U8, F32]:
    """An image (S, S, 3) of another face, by a random affine map and a smooth random field, and its landmarks."""
    size = image.shape[0]
    face = float(np.sqrt(np.ptp(landmarks, axis=0).prod()))
    cells = int(rng.integers(4, 9))
    field = np.stack(
        [
            cv2.resize(rng.normal(size=(cells, cells)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
            for _ in range(2)
        ],
        -1,
    )  # fmt: skip
    y, x = np.mgrid[:size, :size].astype(np.float32)
    away = np.stack([x, y], -1) - landmarks.mean(0).astype(np.float32)
    field *= np.exp(-(away**2).sum(-1, keepdims=True) / (2 * face**2)) * rng.uniform(0.01, 0.035) * face
    field = (field + away @ rng.normal(0, 0.035, (2, 2)).T.astype(np.float32)).astype(np.float32)
    moved = cv2.remap(
        image, x + field[..., 0], y + field[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    )
    points = np.asarray(landmarks, np.float32)
    for _ in range(12):  # inverse of the sampling field, by fixed-point iteration
        shift = cv2.remap(
            field, points[None, :, 0], points[None, :, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )[0]
        points = np.asarray(landmarks, np.float32) - shift
    return np.asarray(moved, np.uint8), points


def degraded(image: U8, rng: np.random.Generator) -> U8:
    """An image with random downsampling, blur, gamma, contrast, white balance, noise and compression."""
    if rng.random() < 0.3:
        share = rng.uniform(0.4, 0.9)
        small = cv2.resize(image, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
        image = np.asarray(cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.uint8)
    if rng.random() < 0.2:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.3)), np.uint8)
    light = image.astype(np.float32)
    if rng.random() < 0.6:
        light = 255 * (light / 255) ** np.float32(np.exp(rng.normal(0, 0.3)))
    if rng.random() < 0.6:
        light = (light - 128) * np.float32(np.exp(rng.normal(0, 0.2))) + np.float32(128 + rng.normal(0, 14))
    light = light * np.exp(rng.normal(0, 0.08, 3)).astype(np.float32)
    if rng.random() < 0.4:
        light = light + rng.normal(0, rng.uniform(1, 7), light.shape).astype(np.float32)
    image = light.clip(0, 255).astype(np.uint8)
    return _compressed(image, int(rng.integers(25, 80))) if rng.random() < 0.4 else image


def _compressed(image: U8, quality: int) -> U8:
    """The image after JPEG compression."""
    data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1], np.uint8)
