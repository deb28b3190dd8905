"""The mouth of the open head: lips that meet, jaw, teeth, gums, tongue and a closed cavity."""

from __future__ import annotations

from avface.head.open.draft import Draft
from avface.head.open.mouth.config import MouthConfig
from avface.head.open.mouth.following import mouth_follows
from avface.head.open.mouth.jaw import with_jaw
from avface.head.open.mouth.placement import with_cavity, with_teeth, with_thickness
from avface.head.open.mouth.rings import mouth_rings
from avface.head.open.mouth.sealing import seal
from avface.head.open.mouth.tongue import with_tongue


def mouth(draft: Draft, config: MouthConfig | None = None) -> Draft:
    """The draft with lips that meet, `jawOpen` and `mouthClose` anew, teeth, gums, and cavity and tongue fitted to
    them.

    Raises:
        AvfaceError: if the mesh has no rings around the mouth.
    """
    config = config or MouthConfig()
    rings = mouth_rings(draft)
    draft = with_thickness(seal(draft, rings), rings, config)
    draft = with_cavity(draft, rings, config)
    draft = with_jaw(draft, rings, config)
    draft = with_teeth(draft, rings, config)
    return mouth_follows(with_tongue(draft, rings, config), config)
