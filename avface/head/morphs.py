"""A head as morph targets and moving joints, as scene files represent it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from avface.arrays import F32, Int
from avface.geometry.rotations import rotvec_to_rotmat
from avface.head.blend import pair_weights
from avface.head.model import HeadModel


@dataclass(frozen=True)
class MorphTargets:
    """Offsets (M, V, 3) in metres at weight 1, their names, and the sources of their weights.

    First the expression units with a basis (`units`, their numbers), then the head's correctives of pairs of units
    (`pairs`, their number), both as they are on the person, then those of joints (`correctives`, their rows in the
    head's basis). Applied before the joints turn, they reproduce the head's vertices exactly.
    """

    names: tuple[str, ...]
    offsets: F32
    units: Int
    correctives: Int
    pairs: int = 0


@dataclass(frozen=True)
class MorphMotion:
    """A head's motion in T frames: weights (T, M) of the morph targets, rotations (T, J, 3) axis-angle of the joints
    against their parents, and their places (T, J, 3) in metres in the head's frame; minus the parent's neutral centre,
    a place is the joint's translation in its parent. They are the neutral centres unless expression moves the
    joints."""

    weights: F32
    rotations: F32
    places: F32


def morph_targets(head: HeadModel, shape: F32) -> MorphTargets:
    """The morph targets of a head of shape (S,).

    The corrective of two units has both names (`mouthSmileLeft_jawOpen`), that of one unit half-way is its in-between
    (`eyeBlinkLeft_inbetween`).
    """
    units = np.setdiff1d(np.arange(head.num_expression), list(head.joint_units))
    basis = head.personal_basis(torch.as_tensor(shape)).cpu().numpy()
    rows = np.concatenate([units, np.arange(head.num_expression, len(basis))])
    offsets = basis if len(rows) == len(basis) else basis[rows]
    names = tuple(head.expression_names[unit] for unit in units)
    names += tuple(_pair_name(head, *pair) for pair in head.pairs)
    correctives = np.flatnonzero(head.corrective_basis.cpu().numpy().any((1, 2)))
    if len(correctives):
        offsets = np.concatenate([offsets, head.corrective_basis.cpu().numpy()[correctives]])
        names += tuple(
            f"{head.joint_names[row // 9]}_corrective_{row % 9 // 3}{row % 3}" for row in correctives.tolist()
        )
    return MorphTargets(names, offsets, units, correctives, len(head.pairs))


def _pair_name(head: HeadModel, first: int, second: int) -> str:
    names = head.expression_names
    return f"{names[first]}_inbetween" if first == second else f"{names[first]}_{names[second]}"


def morph_motion(
    head: HeadModel, targets: MorphTargets, shape: F32, expression: F32, joints: F32
) -> MorphMotion:
    """Weights of the morph targets and motion of the joints: shape (S,), expression (T, E), joints (T, J, 3) of a
    capture."""
    with torch.inference_mode():
        weights, person = torch.as_tensor(expression), torch.as_tensor(shape)[None]
        turned = head.joint_rotations(weights, torch.as_tensor(joints))
        assert turned is not None
        places = rest = head.joint_positions(person).expand(len(turned), -1, -1)
        if head.joints_follow_expression:
            # About a centre c other than the neutral one, r, a joint turns x to R (x - c) + c = R (x - r) + place.
            centres = head.joint_positions(person, weights)
            places = (rotvec_to_rotmat(turned) @ (rest - centres)[..., None])[..., 0] + centres
        corrections = head.corrective_weights(turned).numpy()[:, targets.correctives]
        products = pair_weights(weights, head.pair_units).numpy()
    chosen = expression if len(targets.units) == expression.shape[1] else expression[:, targets.units]
    if targets.pairs or len(targets.correctives):
        chosen = np.concatenate([chosen, products, corrections], 1)
    return MorphMotion(chosen, turned.numpy(), places.numpy())
