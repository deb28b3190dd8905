"""Face tracking: 478 landmarks a frame of one person, their visibility, re-identification, shot cuts, optical flow."""

from avface.tracking.face_track import FaceTrack, Segment
from avface.tracking.optical_flow import refine_by_flow
from avface.tracking.tracker import track, track_everyone
from avface.tracking.tracklet import frame_confidence
from avface.tracking.tracks import Tracks

__all__ = ["FaceTrack", "Segment", "Tracks", "frame_confidence", "refine_by_flow", "track", "track_everyone"]
