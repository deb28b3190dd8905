"""Streaming input and output of video and sound, in memory independent of a video's length.

    clip = Clip.open("talk.mp4")
    for frame in clip.frames():
        frame.time, frame.image            # seconds, (H, W, 3) uint8 RGB, upright
    clip.audio()                           # (N,) float32 at 16 kHz; sample 0 belongs to time 0.0

All share one clock: time 0.0 is the first frame of the video. Earlier sound is cut off and a late start is padded
with silence, so that a frame at time `t` always belongs to sample `t * rate`.
"""

from avface.media.clip import Clip, Frame, VideoInfo, resampled
from avface.media.container import VIDEO_SUFFIXES
from avface.media.damage import Damage
from avface.media.sound_tracks import AudioTrack
from avface.media.writer import EncodingConfig, VideoWriter

__all__ = [
    "VIDEO_SUFFIXES",
    "AudioTrack",
    "Clip",
    "Damage",
    "EncodingConfig",
    "Frame",
    "VideoInfo",
    "VideoWriter",
    "resampled",
]
