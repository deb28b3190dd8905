"""One .html file that plays a capture: the video beside the head, synchronised, without network access."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from avface.arrays import F32
from avface.capture import Capture
from avface.errors import AvfaceError
from avface.files.names import readable
from avface.geometry.axes import flip_axes
from avface.head.appearance import vertex_colours
from avface.media import Clip, EncodingConfig, VideoWriter

if TYPE_CHECKING:
    from avface.head.model import HeadModel

VIDEO_HEIGHT = 480
"""Height in pixels to which larger videos are scaled down, unless the face is small in them."""
FACE_HEIGHT = 360
"""Height in pixels that the part around the face keeps, as far as the video has it."""
LARGEST_HEIGHT = 1080
"""Largest height of the video in the page, pixels, however small the face is."""
VIDEO_ENCODING = EncodingConfig(crf=25, preset="veryfast", keyframe_interval=15, audio_bit_rate=64_000)
"""A low bit rate, with a keyframe about every half second, so that seeking is fast."""
HEAD_DISTANCE = 0.9
"""Metres from the initial camera to the fixed head, far enough for natural perspective."""
CURVES = 6
"""Number of curves that the page draws at first. A unit of the left half and its counterpart count as one."""
FIRST_CURVES = ("jawOpen", "mouthSmile")
"""Curves that are among them in every clip; the others are the strongest in the clip."""
CROP_MARGIN = 1.1
"""Half side of the part of the picture around the face, relative to the radius of a sphere around the head."""
CROP_SMOOTHING = 0.4
"""Seconds: standard deviation of the Gaussian that smooths the part of the picture around the face in time."""
CROP_JUMP = 0.5
"""Faster movement in one frame, in half sides of the part, is a cut, over which nothing is smoothed."""
SMALLEST_OFFSET = 1e-6
"""Metres. Smaller offsets of vertices are omitted; a hundredth of the tolerated error of 0.1 mm."""
CHUNK = 3 << 20
"""Bytes of video that are base64-encoded at a time."""
WITHOUT_FONT_FILES = r"""k3dSource = k3dSource.replace(/,url\(fonts\/[^)]*\) format\("\w+"\)/g, '');"""
"""Removes URLs of font files, which the page doesn't have, from K3D's script; the fonts are embedded too."""
SECURITY_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; media-src blob:; font-src data:; worker-src blob:; connect-src data: blob:"
)
"""Content-Security-Policy of the page, without network access. K3D's script needs unsafe-eval to unpack itself."""


def export_page(
    capture: Capture,
    path: str | os.PathLike[str],
    *,
    video: str | os.PathLike[str] | None = None,
    on_frame: Callable[[], None] = lambda: None,
) -> Path:
    """Write a self-contained .html page that plays the capture; returns its path.

    Args:
        capture: the capture to show.
        path: file to write; it appears only when complete.
        video: the captured video, by default `capture.source` if it exists. Without one the page shows the head alone.
        on_frame: called after each frame of the video.

    The page stores morph targets and the weights of every frame, not vertices: about 240 bytes per frame.

    Raises:
        AvfaceError: if `video` is given and can't be read, or the page can't be written.
    """
    path = Path(path)
    clip = _find_video(capture, video)
    try:
        with tempfile.TemporaryDirectory(prefix=".avface-page-", dir=path.parent) as folder:
            small = None if clip is None else Path(folder) / "video.mp4"
            if clip is not None and small is not None:
                scale = _video_scale(capture, clip.info.height)
                _transcode(clip, small, scale, clip.info.existing_track(capture.audio_track), on_frame)
            page = Path(folder) / f"{secrets.token_hex(4)}.html"
            with page.open("w", encoding="utf-8") as file:
                for text in _page(capture, clip, small):
                    file.write(text)
            page.replace(path)
    except FileNotFoundError as error:
        raise AvfaceError(
            f"{path}: the folder {path.parent} doesn't exist; make it or choose another"
        ) from error
    except OSError as error:
        reason = error.strerror or "not possible"
        raise AvfaceError(f"{path}: can't be written ({reason}); choose another folder or name") from error
    return path


def _find_video(capture: Capture, video: str | os.PathLike[str] | None) -> Clip | None:
    if video is not None:
        return Clip.open(Path(video), rotate=capture.rotate)
    found = bool(capture.source) and Path(capture.source).is_file()
    return Clip.open(capture.source, rotate=capture.rotate) if found else None


def _video_scale(capture: Capture, height: int) -> float:
    """Scale of a video of this height: to `VIDEO_HEIGHT`, or what the part around the face needs."""
    face = (
        height * 2 * float(np.median(_crops(capture)[:, 2])) / capture.image_size[1]
        if len(capture)
        else height
    )
    return min(1.0, LARGEST_HEIGHT / height, max(VIDEO_HEIGHT / height, FACE_HEIGHT / face))


def _transcode(
    clip: Clip, path: Path, scale: float, audio_track: int | None, on_frame: Callable[[], None]
) -> None:
    """Encode a clip with `VIDEO_ENCODING`, scaled down, keeping a sound track and times."""
    from av.video.frame import VideoFrame
    from av.video.reformatter import Interpolation, VideoReformatter

    width, height = (max(2, 2 * round(side * scale / 2)) for side in (clip.info.width, clip.info.height))
    scaler = VideoReformatter()
    with VideoWriter(
        path, sound_from=clip.info.path, audio_track=audio_track, encoding=VIDEO_ENCODING
    ) as writer:
        for frame in clip.frames():
            image = frame.image
            if scale < 1:
                picture = VideoFrame.from_ndarray(image, format="rgb24")
                small = scaler.reformat(picture, width=width, height=height, interpolation=Interpolation.AREA)
                image = np.asarray(small.to_ndarray(), np.uint8)
            writer.write(image, frame.time)
            on_frame()


def _page(capture: Capture, clip: Clip | None, small: Path | None) -> Iterator[str]:
    """The page as parts of text, so that the video is never in memory as a whole."""
    room = Path(__file__).parent
    before, after = _k3d_snapshot(capture.head_model, _neutral(capture), capture.detail is not None)
    name = readable(Path(clip.info.path if clip is not None else capture.source).name)
    facts = f"{len(capture)} frames, {float(capture.times[-1] - capture.times[0]):.1f} s"
    if capture.frame_rate:
        facts += f", {capture.frame_rate:.4g} frames/s, face found in {(capture.confidence > 0).mean():.0%}"
    style = (room / "page.css").read_text(encoding="utf-8")
    title = html.escape(f"{name} - avface" if name else "avface")
    yield _with_head(before, f"<title>{title}</title>", style)
    body = (room / "page.html").read_text(encoding="utf-8")
    yield body.replace("__SOURCE__", html.escape(name)).replace("__FACTS__", html.escape(facts))
    # "<" could end the script element or start a comment in it
    data = json.dumps(_page_data(capture)).replace("<", "\\u003c")
    yield f'<script type="application/json" id="capture">{data}</script>\n'
    if small is not None:
        with small.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield f'<script type="text/plain" class="video">{base64.b64encode(chunk).decode()}</script>\n'
    yield f"<script>{WITHOUT_FONT_FILES}</script>\n"
    yield f"<script>\n{(room / 'page.js').read_text(encoding='utf-8')}</script>\n"
    yield after


MESH_ID = 1
"""K3D's object id of the head's mesh, by which the page's script finds it."""


TEXTURE_ID = 2
"""Object id of an invisible picture, from which the page's script obtains the class of textures."""


def _k3d_snapshot(head: HeadModel, neutral: F32, has_detail: bool) -> tuple[str, str]:
    """K3D's HTML snapshot of the head at rest: the parts before and after its target element."""
    import k3d

    colours = np.round(255 * vertex_colours(head)).astype(np.uint32)
    mesh = k3d.mesh(
        neutral,
        head.faces.cpu().numpy().astype(np.uint32),
        colors=(colours[:, 0] << 16 | colours[:, 1] << 8 | colours[:, 2]).tolist(),
        flat_shading=False,
        roughness=0.65,
        side="double",
    )
    mesh.id = MESH_ID
    plot = k3d.plot(
        background_color=-1,  # transparent
        camera_auto_fit=False,
        grid_visible=False,
        grid_auto_fit=False,
        grid=(-0.3, -0.3, -0.3, 0.3, 0.3, 0.3),
        axes_helper=0.0,
        menu_visibility=False,
        camera_mode="orbit",
        camera_up_axis="y",
        lighting=1.4,
        name="avface",
    )
    plot += mesh
    if has_detail:
        _, packed = cv2.imencode(".png", np.zeros((2, 2, 3), np.uint8))
        texture = k3d.texture(packed.tobytes(), "png", visible=False)
        texture.id = TEXTURE_ID
        plot += texture
    snapshot = plot.get_snapshot(additional_js_code="startAvface(K3DInstance);")
    target = '<div id="canvasTarget"></div>'
    if snapshot.count(target) != 1:
        raise RuntimeError("the snapshot of this version of K3D has an unexpected structure")
    before, after = snapshot.split(target)
    return before, after


def _with_head(before: str, title: str, style: str) -> str:
    """K3D's snapshot with the page's title, style and security policy in its head element."""
    before, titles = re.subn(r"<title>.*?</title>", lambda _: title, before, count=1, flags=re.S)
    before, styles = re.subn(
        r"<style>.*?</style>", lambda _: f"<style>\n{style}</style>", before, count=1, flags=re.S
    )
    metas = (
        f'<meta http-equiv="Content-Security-Policy" content="{SECURITY_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    )
    before, charsets = re.subn(
        r'<meta charset="utf-8">', lambda match: f"{match[0]}\n{metas}", before, count=1
    )
    before, languages = re.subn(r"<html[^>]*>", '<html lang="en">', before, count=1)
    if titles + styles + charsets + languages != 4:
        raise RuntimeError("the snapshot of this version of K3D has an unexpected structure")
    return before


def _neutral(capture: Capture) -> F32:
    """Vertices (V, 3) of the person's head at rest."""
    import torch

    return capture.head_model.neutral(torch.as_tensor(capture.shape)).cpu().numpy()


def _page_data(capture: Capture) -> dict[str, Any]:
    """Data of the page's script: the head, weights and poses of all frames, and the two initial views."""
    import torch

    head = capture.head_model
    neutral = _neutral(capture)
    targets, motion = capture.morphs()
    # Units come first, for the curves, then correctives of units and of joints, then lips.
    # Units that rotate joints have no vertex offsets.
    linear = len(targets.units)
    offsets = np.zeros((head.num_expression, *neutral.shape), np.float32)
    offsets[targets.units] = targets.offsets[:linear]
    offsets = np.concatenate([offsets, targets.offsets[linear:]])
    weights = np.concatenate([capture.expression, motion.weights[:, linear:]], 1)
    low = np.minimum(weights.min(0), 0)
    step = (np.maximum(weights.max(0), 0) - low) / 65535
    steps = np.round((weights - low) / np.where(step > 0, step, 1)).astype(np.uint16)
    curves = _curves(capture)
    arrays = {
        "neutral": (neutral, "f4"),
        "skin": (head.skin_weights.cpu().numpy(), "f4"),
        "pivots": (head.joint_positions(torch.as_tensor(capture.shape)).cpu().numpy(), "f4"),
        "weights": (steps, "u2"),
        "weightLow": (low, "f4"),
        "weightStep": (step, "f8"),
        "rotation": (capture.rotation, "f4"),
        "translation": (capture.translation, "f4"),
        "joints": (motion.rotations, "f4"),
        **({"places": (motion.places, "f4")} if head.joints_follow_expression else {}),
        "times": (capture.times, "f8"),
        "crops": (_crops(capture), "f4"),
        # rounded up, so that only 0 becomes 0, which means "no face"
        "confidence": (np.ceil(255 * np.clip(capture.confidence, 0, 1)), "u1"),
        "inShot": (capture.in_shot, "u1"),
        **_sparse_offsets(offsets),
        **_detail_arrays(capture),
    }
    return {
        "meshId": MESH_ID,
        "imageSize": capture.image_size,
        "focalLength": capture.focal_length,
        "principalPoint": capture.principal_point,
        "lips": 0 if capture.lips is None else len(capture.lips.basis),
        "textureId": TEXTURE_ID,
        "detailComponents": None if capture.detail is None else len(capture.detail.basis),
        "jointParents": head.joint_parents,
        "curves": curves,
        "curveLow": float(np.floor(capture.expression.min(initial=0))),
        "curveHigh": float(np.ceil(capture.expression.max(initial=1))),
        **_initial_views(capture, neutral),
        "arrays": {
            name: (kind, base64.b64encode(np.ascontiguousarray(values, dtype=f"<{kind}").tobytes()).decode())
            for name, (values, kind) in arrays.items()
        },
    }


def _curves(capture: Capture) -> list[dict[str, Any]]:
    """Curves to choose from: name, units (one, or those of the left and the right half), and whether it is drawn at
    first: `FIRST_CURVES` and the strongest."""
    low, high = np.percentile(capture.expression, [2, 98], axis=0)
    activity = high - low
    if not activity.any():  # one frame, or constant weights
        activity = np.abs(capture.expression).max(0)
    numbers = {name: unit for unit, name in enumerate(capture.expression_names)}
    curves: list[dict[str, Any]] = []
    for unit, name in enumerate(capture.expression_names):
        stem = name.removesuffix("Left")
        if name.endswith("Left") and f"{stem}Right" in numbers:
            curves.append({"name": stem, "units": [unit, numbers[f"{stem}Right"]]})
        elif not (name.endswith("Right") and f"{name.removesuffix('Right')}Left" in numbers):
            curves.append({"name": name, "units": [unit]})
    strength = [float(activity[curve["units"]].max()) for curve in curves]
    order = sorted(range(len(curves)), key=lambda k: (curves[k]["name"] not in FIRST_CURVES, -strength[k]))
    for rank, k in enumerate(order):
        first = curves[k]["name"] in FIRST_CURVES
        curves[k]["drawn"] = first or (rank < CURVES and strength[k] > 0)
    return curves


def _crops(capture: Capture) -> F32:
    """Part of the picture around the head: (T, 3) centre x, centre y and half its side in pixels of the capture.

    Smoothed in time, so that the picture is steady while the head moves within it, but not over cuts.
    """
    from scipy.ndimage import gaussian_filter1d
    from scipy.spatial.transform import Rotation

    middle, radius = _middle(_neutral(capture))
    centre = Rotation.from_rotvec(capture.rotation).apply(middle) + capture.translation
    depth = np.maximum(centre[:, 2], radius)
    crops = np.empty((len(capture), 3))
    crops[:, :2] = capture.focal_length * centre[:, :2] / depth[:, None] + capture.principal_point
    crops[:, 2] = CROP_MARGIN * capture.focal_length * radius / depth
    moved = np.linalg.norm(np.diff(crops[:, :2], axis=0), axis=1) > CROP_JUMP * crops[1:, 2]
    sigma = CROP_SMOOTHING * (capture.frame_rate or 25)
    for rows in np.split(np.arange(len(crops)), np.flatnonzero(moved) + 1):
        crops[rows] = gaussian_filter1d(crops[rows], sigma, axis=0, mode="nearest")
    return crops.astype(np.float32)


def _middle(neutral: F32) -> tuple[F32, float]:
    """Centre (3,) and radius in metres of a sphere around a head."""
    middle = (neutral.min(0) + neutral.max(0)) / 2
    return middle, float(np.linalg.norm(neutral - middle, axis=1).max())


def _sparse_offsets(basis: F32) -> dict[str, tuple[npt.NDArray, str]]:
    """Offsets (M, V, 3) of the moved vertices only, quantised to 16 bits with a scale per unit."""
    scale = np.abs(basis).max((1, 2)).astype(np.float64) / 32767
    moved = np.abs(basis).max(2) > SMALLEST_OFFSET
    unit, vertex = moved.nonzero()
    offsets = basis[unit, vertex] / np.where(scale > 0, scale, 1)[unit, None]
    return {
        "delta": (np.round(offsets), "i2"),
        "deltaVertex": (vertex, "u2" if basis.shape[1] <= 65536 else "u4"),
        "deltaStart": (np.concatenate([[0], moved.sum(1).cumsum()]), "u4"),
        "deltaScale": (scale, "f8"),
    }


def _detail_arrays(capture: Capture) -> dict[str, tuple[npt.NDArray, str]]:
    """Tangent-space slopes of the static displacement and of its components, quantised to 8 bits with a scale each;
    empty without detail."""
    import torch

    detail = capture.detail
    if detail is None:
        return {}
    atlas = detail.atlas(capture.head_model)
    maps = np.concatenate([detail.static[None], detail.basis]).astype(np.float32)
    slopes = atlas.tangent_slopes(torch.as_tensor(maps)).numpy()
    scale = np.abs(slopes).max((1, 2, 3)).astype(np.float64) / 127
    steps = np.round(slopes / np.where(scale > 0, scale, 1)[:, None, None, None])
    return {
        "detailSlope": (steps, "i1"),
        "detailScale": (scale, "f8"),
        "detailWeight": (detail.weights, "f4"),
        "detailUv": (atlas.vertex_places().numpy(), "f4"),
    }


def _initial_views(capture: Capture, neutral: F32) -> dict[str, Any]:
    """Initial cameras in the page's world (y up, metres): position, target, up.

    radius: of a sphere around the target that the view shows completely.
    """
    middle, radius = _middle(neutral)
    positions = flip_axes(capture.translation)
    centre = (positions.min(0) + positions.max(0)) / 2
    range_radius = float(np.linalg.norm(positions - centre, axis=1).max())
    return {
        "stillView": {
            "camera": [*map(float, middle + np.array([0, 0, HEAD_DISTANCE])), *map(float, middle), 0, 1, 0],
            "radius": radius,
        },
        "filmedView": {"camera": [0, 0, 0, *map(float, centre), 0, 1, 0], "radius": radius + range_radius},
    }
