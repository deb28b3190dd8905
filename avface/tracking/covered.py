"""Frames in which the whole face is covered: what isn't seen is not believed.

When a hand, a microphone or a sheet of paper covers the whole face, the tracker loses it, draws a face on what covers
it, or takes the change of picture for a shot cut. The decision is made for entire runs of frames, after the clip was
tracked, from the visibility of the landmarks, from the frames in which the detector finds no face, and from jumps of
the landmarks against the motion before and after:

- Frames of which next to nothing is visible are covered.
- In the frames beside those, and beside frames in which the face is lost, something comes before the face or leaves it.
  The tracker drags the landmarks along. Such frames are unobserved as well, while they are partly hidden or off the
  motion of the clear frames beyond them: the velocity at the edge of a gap is what carries the fit across it.
- Where the face is partly hidden for longer than that before or after a gap, its landmarks are kept: what is visible of
  it has weight, and optical flow refines it.
- A cut in such a gap is none if the face is in about the same place after it as before.

Unobserved frames become frames without the person: nan, confidence 0. All that uses a `FaceTrack` (flow, networks, fit)
has that case already; this is the only place where it is decided. In covered frames not even optical flow is used.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from avface.arrays import F32, F64, Bool, Int, runs
from avface.tracking.face_track import BLOCK, FaceTrack, RecordFile, Segment, StoredArray

COVERED_VISIBILITY = 0.3
"""Mean visibility of the landmarks below which the face is covered. Clean clips, with profiles, beards, glasses, dark
and blurred frames, have 0.6 or more in every frame; partly hidden faces are mostly above 0.4."""
LOST_WITHIN = 0.5
"""The same for frames that lie in one partly hidden run with frames in which the face is covered or lost."""
RAMP_VISIBILITY = 0.12
"""Frames beside a gap are unobserved while their mean visibility is lower than the clip's median by more than this."""
RAMP_CONFIDENCE = 0.7
"""Confidence below which they are, too."""
RAMP_JUMP = 0.02
"""Distance from the motion of the frames beyond, in face sizes, above which they are, too."""
RAMP_SECONDS = 0.25
"""Longest time for which something comes before the face or leaves it."""
MAX_GAP_SECONDS = 2.0
"""Longest gap that a cut may lie in without being one."""
MAX_GAP_MOTION, MAX_GAP_GROWTH = 0.8, 1.35
"""Motion of the face over such a gap in face sizes, and ratio of its sizes, from which on the cut stays."""
_RECORD = np.dtype([("landmarks", "<f4", (478, 2)), ("depth", "<f4", (478,)), ("visibility", "<f4", (478,))])


def set_aside_covered(track: FaceTrack) -> FaceTrack:
    """The track without the frames in which the whole face is covered, which become frames without the person.

    Cuts that only such a cover caused are taken out of its segments. A track without covered or lost frames, or
    without visibility, is returned as it is.
    """
    if track.visibility is None:
        return track
    visible = track.mean_visibility()
    seen = track.seen
    core = ~seen | (visible < COVERED_VISIBILITY)
    if not core.any() or core.all():
        return track
    kept = _partly_hidden(track, visible, core)
    covered = _covered_runs(visible, seen, core) & (core | ~kept)
    unobserved = covered | ~seen
    dropped = (covered | (_ramps(track, visible, unobserved) & ~kept)) & seen
    if (dropped | ~seen).all():
        return track
    segments = _bridged_segments(track, seen & ~dropped)
    dropped &= ~_beside_cuts(dropped, unobserved, segments)
    if not dropped.any():
        return replace(track, segments=segments)
    return replace(_without(track, dropped), segments=segments, covered=covered)


def _covered_runs(visible: F32, seen: Bool, core: Bool) -> Bool:
    """Frames (T,) of which nothing is visible, and those beside them of which little is; `core` (T,) are those in which
    the face is lost or covered."""
    result = np.zeros(len(core), bool)
    for start, end in runs(core | (visible < LOST_WITHIN)):
        if core[start:end].any():
            result[start:end] = seen[start:end]
    return result


def _partly_hidden(track: FaceTrack, visible: F32, core: Bool) -> Bool:
    """Frames (T,) of runs in which the face is partly hidden for longer than a ramp before or after a gap, given by
    the frames `core` (T,) in which it is lost or covered."""
    result = np.zeros(len(core), bool)
    longest = _longest_ramp(track)
    hidden = core | (visible < float(np.median(visible[~core])) - RAMP_VISIBILITY)
    for start, end in runs(hidden):
        lost = start + np.flatnonzero(core[start:end])
        if len(lost) and max(lost[0] - start, end - 1 - lost[-1]) > longest:
            result[start:end] = True
    return result


def _longest_ramp(track: FaceTrack) -> int:
    """`RAMP_SECONDS` in frames."""
    step = float(np.median(np.diff(track.times))) if len(track) > 1 else 1 / 25
    return max(round(RAMP_SECONDS / max(step, 1e-3)), 1)


def _ramps(track: FaceTrack, visible: F32, unobserved: Bool) -> Bool:
    """Frames (T,) beside unobserved ones whose landmarks are dragged along by what covers the face."""
    result = np.zeros(len(track), bool)
    if unobserved.all():
        return result
    usual = float(np.median(visible[~unobserved]))
    hidden = (visible < usual - RAMP_VISIBILITY) | (track.confidence < RAMP_CONFIDENCE)
    longest = _longest_ramp(track)
    for start, end in runs(unobserved):
        for first, direction in ((start - 1, -1), (end, 1)):
            frames = first + direction * np.arange(longest + 2)
            frames = frames[(frames >= 0) & (frames < len(track))]
            if unobserved[frames].any():
                frames = frames[: np.argmax(unobserved[frames])]
            if len(frames):
                result[frames[: _ramp_length(track, frames, hidden, longest)]] = True
    return result


def _ramp_length(track: FaceTrack, frames: Int, hidden: Bool, longest: int) -> int:
    """How many of the frames beside a gap, from the gap outwards, are unobserved.

    The outermost frame that is hidden, or jumps from the frames beyond it by more than these do among themselves.
    """
    rows = np.sort(frames)
    points = np.asarray(track.landmarks[int(rows[0]) : int(rows[-1]) + 1], np.float64)
    points = points if frames[0] == rows[0] else points[::-1]
    size = np.sqrt(np.ptp(points, axis=1).prod(1))
    for place in range(min(longest, len(frames)) - 1, -1, -1):
        if hidden[frames[place]]:
            return place + 1
        if place + 2 < len(frames):
            here, next_, beyond = points[place : place + 3]
            change = np.linalg.norm(here - 2 * next_ + beyond, axis=1).mean() / size[place]
            usual = np.linalg.norm(next_ - beyond, axis=1).mean() / size[place + 1]
            if change > RAMP_JUMP + usual:
                return place + 1
    return 0


def _bridged_segments(track: FaceTrack, observed: Bool) -> tuple[Segment, ...]:
    """The track's segments without cuts within gaps that the face is in the same place before and after."""
    cuts = [segment.start for segment in track.segments[1:]]
    frames = np.flatnonzero(observed)
    false = set()
    for cut in cuts:
        place = int(np.searchsorted(frames, cut))
        if not 0 < place < len(frames):
            continue
        before, after = int(frames[place - 1]), int(frames[place])
        if after - before > 1 and _continues(track, before, after):
            false.add(cut)
    if not false:
        return track.segments
    merged: list[Segment] = []
    for segment in track.segments:
        if merged and segment.start in false:
            last = merged[-1]
            alike = np.array([last.similarity, segment.similarity])
            similarity = float(np.nanmax(alike)) if np.isfinite(alike).any() else float("nan")
            merged[-1] = Segment(last.start, segment.end, last.same_person or segment.same_person, similarity)
        else:
            merged.append(segment)
    return tuple(merged)


def _beside_cuts(dropped: Bool, unobserved: Bool, segments: tuple[Segment, ...]) -> Bool:
    """Dropped frames (T,) beside gaps that begin or end with a cut: the face isn't covered there, it isn't shown."""
    result = np.zeros(len(dropped), bool)
    starts = {segment.start for segment in segments}
    for start, end in runs(dropped & ~unobserved):
        result[start:end] = (start in starts and start > 0) or end in starts
    return result


def _continues(track: FaceTrack, before: int, after: int) -> bool:
    """Whether the face of a frame after a gap may be that of one before it, in one shot."""
    if track.times[after] - track.times[before] > MAX_GAP_SECONDS:
        return False
    boxes: F64 = np.asarray(track.box[[before, after]], np.float64)
    sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1))
    centres = 0.5 * (boxes[:, 2:] + boxes[:, :2])
    moved = np.linalg.norm(centres[1] - centres[0]) / sides.mean()
    return bool(moved < MAX_GAP_MOTION and sides.max() / sides.min() < MAX_GAP_GROWTH)


def _without(track: FaceTrack, dropped: Bool) -> FaceTrack:
    """The track with some frames as if the person weren't detected in them, in a new temporary file."""
    assert track.visibility is not None
    result = RecordFile(_RECORD)
    for start in range(0, len(track), BLOCK):
        rows = slice(start, min(start + BLOCK, len(track)))
        block = np.zeros(rows.stop - rows.start, _RECORD)
        here = dropped[rows]
        block["landmarks"], block["depth"] = track.landmarks[rows], track.depth[rows]
        block["visibility"] = track.visibility[rows]
        block["landmarks"][here] = block["depth"][here] = np.nan
        block["visibility"][here] = 1
        result.append(block)
    crops = track.aligned_crops
    if crops is not None:
        kept = ~dropped[crops.frames]
        crops = (
            replace(
                crops,
                frames=crops.frames[kept],
                pictures=crops.pictures[kept],
                landmarks=crops.landmarks[kept],
            )
            if kept.any()
            else None
        )
    return replace(
        track,
        landmarks=StoredArray(result, "landmarks"),
        depth=StoredArray(result, "depth"),
        confidence=np.where(dropped, 0, track.confidence).astype(np.float32),
        box=np.where(dropped[:, None], np.nan, track.box).astype(np.float32),
        visibility=StoredArray(result, "visibility"),
        aligned_crops=crops,
    )
