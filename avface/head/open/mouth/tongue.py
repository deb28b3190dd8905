"""The tongue: MakeHuman's, between the arches of teeth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from avface.geometry.interpolation import smoothstep
from avface.head.open.draft import Draft
from avface.head.open.mouth.config import MouthConfig
from avface.head.open.mouth.placement import bite_of, lip_fit
from avface.head.open.mouth.rings import Rings
from avface.head.open.mouth.teeth import OVERBITE

TONGUE_SCALE = (0.68, 0.72, 0.75)
"""Size of the tongue, by axis, as a share of MakeHuman's."""
TONGUE_TIP = (0.0055, 0.0125)
"""Depth of the tip's underside below, and of the tip behind, the upper incisors' edge; metres."""
TONGUE_PATH = (
    # share of the length from the root; share of the way to the tip's place; height of the tongue's middle over the
    # lower incisors' edge and half its thickness there, metres
    (0.0, 0.0, 0.0, 0.0060),
    (0.3, 0.22, 0.0030, 0.0060),
    (0.5, 0.42, 0.0045, 0.0050),
    (0.65, 0.60, 0.0042, 0.0035),
    (0.8, 0.78, 0.0032, 0.0030),
    (0.9, 0.90, -0.0005, 0.0028),
    (1.0, 1.0, -0.0065, 0.0022),
)


def with_tongue(draft: Draft, rings: Rings, config: MouthConfig) -> Draft:
    """The draft with MakeHuman's tongue narrowed and placed between the arches, and `tongueOut` over the lower lip."""
    rows = draft.rows("tongue")
    bite = bite_of(draft, rings, config)
    old = draft.template[rows]
    tip, root = old[:, 2].max(), old[:, 2].min()
    along = (old[:, 2] - root) / (tip - root)
    front_low = old[along > 0.95, 1].min()
    rest = np.stack(
        [
            old[:, 0] * TONGUE_SCALE[0],
            bite[1] - TONGUE_TIP[0] + TONGUE_SCALE[1] * (old[:, 1] - front_low),
            bite[2] - TONGUE_TIP[1] + TONGUE_SCALE[2] * (old[:, 2] - tip),
        ],
        1,
    )
    knots = np.linspace(0.05, 1.0, 12)
    near = [np.abs(along - knot) < 0.09 for knot in knots]
    top = np.interp(along, knots, [rest[rows_, 1].max() for rows_ in near])
    bottom = np.interp(along, knots, [rest[rows_, 1].min() for rows_ in near])
    middle, half = (top + bottom) / 2, np.maximum((top - bottom) / 2, 0.002)
    lip = draft.template[rings[4]][rings.lower]
    out = lip[:, 2].max() + config.tongue_out
    edge = bite[1] + OVERBITE * 1e-3
    share, depth, height, thick = np.array(TONGUE_PATH).T
    start = rest[:, 2].min()
    goal = np.empty_like(rest)
    goal[:, 0] = rest[:, 0]
    goal[:, 2] = start + (out - start) * np.interp(along, share, depth)
    centre = edge + np.interp(along, share, height)
    blend = smoothstep(0.15, 0.5, along)
    goal[:, 1] = (1 - blend) * rest[:, 1] + blend * (
        centre + (rest[:, 1] - middle) / half * np.interp(along, share, thick)
    )
    template, expression, shape = draft.template.copy(), draft.expression.copy(), draft.shape.copy()
    template[rows] = rest
    expression[:, rows] = 0.0
    expression[draft.unit("tongueOut")] = 0.0
    expression[draft.unit("tongueOut"), rows] = goal - rest
    shape[:, rows] = lip_fit(draft, rings)(rest)
    return replace(draft, template=template, expression=expression, shape=shape)
