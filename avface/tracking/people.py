"""Which tracklets are one person: decided at the end of a clip, from means over all their frames."""

from __future__ import annotations

import math

import numpy as np

from avface.arrays import F64
from avface.tracking.reidentification import AppearanceDescriptor, merge, similarity
from avface.tracking.tracklet import Tracklet

SAME_PERSON = 0.5
"""Least similarity of tracklets of one person, which are never seen at once."""
SAME_PERSON_NEARBY = 0.02
"""The same for a face that reappears soon and close to where it was lost: in the same shot or, if no face is seen in
between, after cuts, which something that covers the whole picture causes as well."""
SOON_SECONDS = 2.0
"""Longest time until then."""
FEW_FRAMES = 2
"""Frames of a face that may be seen in between, on what covers the picture."""


def group_people(tracklets: list[Tracklet], times: F64) -> list[list[Tracklet]]:
    """Tracklets, in the order of their starts, grouped into people, the most prominent first.

    times (T,) are those of the frames, in seconds.

    Greedy, in the order of time within a shot and of length across shots: a tracklet joins the most similar
    person not seen at the same time, if similar enough.
    """
    groups: list[list[Tracklet]] = []
    for tracklet in tracklets:  # in order of time: first within a shot
        nearby = [
            (alike, group)
            for group in groups
            if _reappears(group[-1], tracklet, tracklets, times)
            and not _at_once(group, [tracklet])
            and (alike := similarity(_mean_descriptor(group), tracklet.descriptor)) >= SAME_PERSON_NEARBY
        ]
        if nearby:
            max(nearby, key=lambda pair: pair[0])[1].append(tracklet)
        else:
            groups.append([tracklet])

    people: list[list[Tracklet]] = []
    descriptors: list[AppearanceDescriptor] = []
    for group in sorted(groups, key=lambda one: -sum(tracklet.frames for tracklet in one)):
        own = _mean_descriptor(group)
        similarities = [
            0.0 if _at_once(person, group) else similarity(known, own)
            for person, known in zip(people, descriptors, strict=True)
        ]
        best = int(np.argmax(similarities)) if similarities else -1
        if best >= 0 and similarities[best] >= SAME_PERSON:
            people[best] += group
            descriptors[best] = merge(descriptors[best], own)
        else:
            people.append(list(group))
            descriptors.append(own)
    return sorted(people, key=lambda person: -sum(tracklet.prominence for tracklet in person))


def _mean_descriptor(group: list[Tracklet]) -> AppearanceDescriptor:
    total = group[0].descriptor
    for tracklet in group[1:]:
        total = merge(total, tracklet.descriptor)
    return total


def _at_once(one: list[Tracklet], other: list[Tracklet]) -> bool:
    return any(a.start <= b.end and b.start <= a.end for a in one for b in other)


def _reappears(old: Tracklet, new: Tracklet, tracklets: list[Tracklet], times: F64) -> bool:
    """Whether a face appears soon after another was lost and close by; after cuts closer still, and with hardly a face
    in between."""
    if new.start <= old.end or times[new.start] - times[old.end] > SOON_SECONDS:
        return False
    if old.segment == new.segment:
        return _close(old, new, 1.5, 1.6)
    return _close(old, new, 0.4, 1.3) and all(
        other.frames <= FEW_FRAMES
        for other in tracklets
        if other is not old and other is not new and other.end > old.end and other.start < new.start
    )


def _close(old: Tracklet, new: Tracklet, most_apart: float, most_growth: float) -> bool:
    """Whether a face begins near the end of another: distance in its sizes, and ratio of the sizes."""
    size, centre = old.face.size, old.face.centre
    apart = math.hypot(new.first_centre[0] - centre[0], new.first_centre[1] - centre[1])
    return apart < most_apart * size and 1 / most_growth < new.first_size / size < most_growth
