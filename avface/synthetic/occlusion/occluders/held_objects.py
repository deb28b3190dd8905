"""Objects that move freely in front of a face, most of them held in a hand: microphones, cups, phones and paper."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from avface.synthetic.occlusion.occluders.arm import sample_arm, sample_holding_arm, upright_rotation
from avface.synthetic.occlusion.occluders.drawing import Surface
from avface.synthetic.occlusion.occluders.hand_model import HandPose, perturbed
from avface.synthetic.occlusion.occluders.occluder import Occluder, in_image_plane, sample_gap, sample_target
from avface.synthetic.occlusion.occluders.shapes import (
    grid,
    noise,
    plain,
    printed_page,
    random_colour,
    slab,
    surface_of_revolution,
    tube,
)
from avface.synthetic.rendering.sensor import linear_light


def sample_microphone(rng: np.random.Generator, over_mouth: bool) -> Occluder:
    """A random handheld microphone with a spherical grille."""
    ball = rng.uniform(0.022, 0.032)
    length = rng.uniform(0.13, 0.18)
    angle = np.linspace(0, 2.4, 12)
    head = np.stack([ball * np.sin(angle), ball * np.cos(angle)], 1)
    mesh, faces, uv = surface_of_revolution(
        np.concatenate([[[1e-5, ball]], head[1:], [[ball * 0.72, -ball * 0.9]]]), 28
    )
    size = 96
    y, x = np.mgrid[:size, :size]
    wire = 0.55 + 0.45 * (np.sin(x * np.pi * 0.75) * np.sin(y * np.pi * 0.75))
    metal = random_colour(rng) * 0.5 if rng.random() < 0.4 else np.full(3, rng.choice([0.12, 0.3, 0.55]))
    grille = Surface.of(mesh, faces, uv, linear_light(np.clip(metal * wire[..., None], 0, 1)), gloss=0.5)
    top = -ball * 0.85
    handle = [
        [ball * 0.78, top], [ball * 0.85, top - 0.004], [ball * 0.85, top - 0.012], [ball * 0.68, top - 0.016],
        [ball * 0.48, top - length], [1e-5, top - length - 0.002],
    ]  # fmt: skip
    mesh, faces, uv = surface_of_revolution(handle, 24)
    body = Surface.of(
        mesh,
        faces,
        uv,
        plain(rng, rng.choice([0.07, 0.12, 0.25, 0.6]) * np.ones(3)),
        gloss=rng.uniform(0.3, 0.7),
    )
    arm, side = sample_holding_arm(rng, "grip", radius=0.013, below=ball + rng.uniform(0.045, 0.09))
    tilt = Rotation.from_euler(
        "xz", [rng.uniform(-35, 5), -side * rng.uniform(-10, 40)], degrees=True
    ).as_matrix()
    parts = tuple(part.transformed(tilt) for part in (grille, body))
    arm = replace(arm, rotation=tilt @ arm.rotation, shift=tilt @ arm.shift)
    target = sample_target(rng, over_mouth, 0.008)
    return Occluder(
        "microphone",
        False,
        over_mouth,
        target,
        sample_gap(rng),
        in_image_plane(tilt @ [0.0, -1.0, 0.0]),
        parts,
        arm,
    )


def sample_boom_microphone(rng: np.random.Generator, over_mouth: bool) -> Occluder:
    """A random microphone with a foam windscreen on a stand or boom."""
    radius, length = rng.uniform(0.018, 0.032), rng.uniform(0.05, 0.13)
    if rng.random() < 0.3:
        radius, length = rng.uniform(0.035, 0.05), rng.uniform(0.02, 0.06)  # a large one in a studio
    t = np.linspace(0, np.pi / 2, 7)
    cap = np.stack([radius * np.sin(t), radius * np.cos(t)], 1)
    cap[0, 0] = 1e-5
    half = np.array([0, length / 2])
    bottom = np.stack([cap[::-1, 0], -cap[::-1, 1]], 1)
    mesh, faces, uv = surface_of_revolution(np.concatenate([cap + half, bottom - half]), 28)
    normals = mesh * [1, 0, 1]
    mesh = mesh + normals * rng.normal(0, 0.02, (len(mesh), 1))
    colour = np.full(3, rng.uniform(0.05, 0.25)) if rng.random() < 0.7 else random_colour(rng)
    foam = Surface.of(mesh, faces, uv, plain(rng, colour, 96, 0.05), gloss=0.02)
    pole, faces, uv = tube(
        np.linspace(0, 1, 12)[:, None] * [0, -1.4, 0], np.full(12, rng.uniform(0.005, 0.011)), 10
    )
    stand = Surface.of(pole, faces, uv, plain(rng, np.full(3, rng.choice([0.08, 0.2, 0.5]))), gloss=0.5)
    angle = rng.choice([rng.uniform(-70, 70), 180 + rng.uniform(-60, 60)], p=[0.75, 0.25])
    tilt = Rotation.from_euler("xz", [rng.uniform(-30, 30), angle], degrees=True).as_matrix()
    head_tilt = Rotation.from_euler("z", angle + rng.normal(0, 20), degrees=True).as_matrix()
    parts = (foam.transformed(head_tilt), stand.transformed(tilt))
    target = sample_target(rng, over_mouth, 0.008)
    return Occluder(
        "boom_microphone",
        False,
        over_mouth,
        target,
        sample_gap(rng),
        in_image_plane(tilt @ [0.0, -1.0, 0.0]),
        parts,
    )


def sample_cup(rng: np.random.Generator, over_mouth: bool) -> Occluder:
    """A random mug with a handle or paper cup, with or without a lid, in a hand."""
    paper = bool(rng.random() < 0.4)
    top, low, height = rng.uniform(0.036, 0.045), rng.uniform(0.026, 0.043), rng.uniform(0.08, 0.12)
    if not paper:
        low = min(low, top)
    wall = [[top, 0.0], [top * 1.02, -0.002], [low, -height + 0.004], [low * 0.93, -height], [1e-5, -height]]
    inside = [[1e-5, -height * 0.25], [top * 0.93, -height * 0.2], [top * 0.97, 0.0]]
    profile = inside + wall
    if paper and rng.random() < 0.6:  # a lid
        profile = [
            [1e-5, 0.008],
            [top * 0.85, 0.008],
            [top * 0.9, 0.002],
            [top * 1.07, 0.0],
            [top * 1.07, -0.006],
            *wall,
        ]
    mesh, faces, uv = surface_of_revolution(profile, 36)
    picture = np.ones((128, 128, 3)) * (
        np.array([0.93, 0.92, 0.9]) if rng.random() < 0.4 else random_colour(rng)
    )
    if rng.random() < 0.6:
        band = slice(*sorted(rng.integers(60, 120, 2)))
        picture[band] = random_colour(rng)
    if rng.random() < 0.4:
        picture[noise(rng, 128, 128, 8) > 0.65] = random_colour(rng)
    gloss = 0.1 if paper else rng.uniform(0.4, 0.8)
    parts = [Surface.of(mesh, faces, uv, linear_light(np.clip(picture, 0, 1)), gloss=gloss)]
    arm, side = sample_holding_arm(
        rng, "grip", radius=0.5 * (top + low) + 0.008, below=height * rng.uniform(0.5, 0.65)
    )
    arm = replace(
        arm, pose=replace(arm.pose, flexion=arm.pose.flexion - np.array([[0.15]] + 4 * [[0.38]])).limited()
    )
    if not paper:
        t = np.linspace(-0.5, np.pi + 0.5, 14)
        loop = np.stack([-side * (low + 0.024 * np.sin(t)), -height / 2 + 0.03 * np.cos(t), np.zeros(14)], 1)
        mesh, faces, uv = tube(loop, 0.005, 10)
        parts.append(Surface.of(mesh, faces, uv, plain(rng, picture[2, 2]), gloss=gloss))
    tilt = Rotation.from_euler("xz", [rng.uniform(-25, 40), rng.normal(0, 10)], degrees=True).as_matrix()
    centre = np.array([0, height * 0.3, 0])
    arm = replace(arm, rotation=tilt @ arm.rotation, shift=tilt @ (arm.shift + centre))
    down = arm.rotation @ [0.0, -1.0, 0.0] + np.array([0, -0.7, 0])
    return Occluder(
        "cup", False, over_mouth, sample_target(rng, over_mouth), sample_gap(rng), in_image_plane(down),
        tuple(part.transformed(tilt, tilt @ centre) for part in parts), arm,
    )  # fmt: skip


def sample_phone(rng: np.random.Generator, over_mouth: bool) -> Occluder:
    """A random phone in a hand behind it: its back with cameras, or its screen."""
    width, height, thickness = rng.uniform(0.066, 0.078), rng.uniform(0.135, 0.165), rng.uniform(0.007, 0.010)
    mesh, faces, uv = slab(width, height, thickness, 0.010)
    rows, columns = 256, 256
    picture = np.ones((rows, columns, 3)) * np.clip(random_colour(rng) * 0.6, 0, 1)
    lens = picture[:, : columns // 2]
    for k in range(int(rng.integers(1, 4))):  # the camera on its back
        y, x = np.mgrid[:rows, : columns // 2]
        centre = np.array([28 + 30 * k, 26 + 26 * (k % 2)])
        ring = np.hypot((y - centre[0]) * 0.55, x - centre[1]) * 1.1
        lens[ring < 11] = 0.25
        lens[ring < 9] = 0.03
    if rng.random() < 0.5:
        screen = lens
        screen[:] = 0.03
        lit = rng.random() < 0.5
        for k in range(3):
            screen[8:-8, 5:-5, k] = (
                0.02 if not lit else 0.25 + 0.5 * noise(rng, rows - 16, columns // 2 - 10, 5)
            )
    body = Surface.of(mesh, faces, uv, linear_light(np.clip(picture, 0, 1)), gloss=rng.uniform(0.4, 0.8))
    arm, side = sample_holding_arm(rng, "relaxed", radius=0.008, below=rng.uniform(0.0, 0.05), dorsal=False)
    flexion = np.array([[0.05, 0.2, 0.2]] + 4 * [[0.45, 0.55, 0.35]])
    arm = replace(arm, pose=perturbed(HandPose(flexion, np.array([0.35, 0.1, 0.03, -0.03, -0.08])), rng, 0.5))
    tilt = Rotation.from_euler(
        "yxz", [rng.normal(0, 12), rng.normal(-8, 10), rng.normal(0, 18)], degrees=True
    ).as_matrix()
    if rng.random() < 0.25:
        tilt = Rotation.from_euler("z", 90 * side, degrees=True).as_matrix() @ tilt
    arm = replace(arm, rotation=tilt @ arm.rotation, shift=tilt @ (arm.shift - [0, 0, 0.010]))
    down = arm.rotation @ [0.0, -1.0, 0.0] + np.array([0, -0.7, 0])
    return Occluder(
        "phone",
        False,
        over_mouth,
        sample_target(rng, over_mouth),
        sample_gap(rng),
        in_image_plane(down),
        (body.transformed(tilt),),
        arm,
    )


def sample_paper(rng: np.random.Generator, over_mouth: bool) -> Occluder:
    """A random bent sheet of paper, in a hand in 70 % of cases."""
    height = rng.uniform(0.12, 0.26)
    width = height * rng.uniform(0.65, 0.8)
    faces, uv = grid(14, 18)
    across, up = (uv[:, 0] - 0.5).astype(np.float64), (uv[:, 1] - 0.5).astype(np.float64)
    axis = rng.uniform(-0.6, 0.6)
    bend = rng.uniform(-2.0, 2.0)
    along = across * np.cos(axis) + up * np.sin(axis)
    angle = bend * along
    safe = np.where(abs(bend) < 0.05, 0.05, bend)
    z = (1 - np.cos(angle)) / safe * width
    shrink = np.where(np.abs(along) > 1e-6, np.sin(angle) / np.where(np.abs(angle) > 1e-6, angle, 1), 1)
    curl = 0.02 * np.clip(np.abs(up) - 0.3, 0, None) / 0.2 * rng.normal()
    mesh = np.stack([across * width * shrink, up * height, z + curl], 1)
    sheet = Surface.of(mesh, faces, uv, printed_page(rng), gloss=0.05, two_sided=True)
    tilt = Rotation.from_euler(
        "yxz", [rng.normal(0, 15), rng.normal(-10, 14), rng.normal(0, 15)], degrees=True
    ).as_matrix()
    target = sample_target(rng, over_mouth, 0.02)
    arm = None
    if rng.random() < 0.7:
        from_right = bool(rng.random() < 0.5)
        side = -1 if from_right else 1
        arm = sample_arm(
            rng,
            "pinch",
            left_hand=from_right,
            rotation=tilt @ upright_rotation(side * rng.uniform(10, 50), True),
            anchor=(0.045, 0.11, 0.035),
        )
        corner = np.array([-side * width * rng.uniform(0.1, 0.4), -height / 2 + 0.015, 0.01])
        arm = replace(arm, shift=arm.shift + tilt @ corner)
    way = np.array([rng.normal(0, 0.5), -1.0, 0.0])
    return Occluder(
        "paper",
        False,
        over_mouth,
        target,
        sample_gap(rng),
        in_image_plane(way),
        (sheet.transformed(tilt),),
        arm,
    )
