"""Video and sound in and out, as streams: nothing here grows with the length of a video.

    clip = Clip.open("talk.mp4")
    for frame in clip.frames():
        frame.time, frame.image            # seconds, (H, W, 3) uint8 RGB, upright
    clip.audio()                           # (N,) float32 at 16 kHz; sample 0 belongs to time 0.0

The clock is the same everywhere: time 0.0 is the first frame of the video. Sound that began earlier is cut
off, sound that begins later starts with silence, so a frame at time `t` always belongs to sample `t * rate`.
"""

from avface.media.clip import Clip, Frame, VideoInfo, resampled
from avface.media.container import VIDEO_SUFFIXES
from avface.media.damage import Damage
from avface.media.writer import EncodingConfig, VideoWriter

__all__ = [
    "VIDEO_SUFFIXES",
    "Clip",
    "Damage",
    "EncodingConfig",
    "Frame",
    "VideoInfo",
    "VideoWriter",
    "resampled",
]
