"""Speech features of video frames.

features = speech_features(clip.audio(), times)     # sound at 16 kHz, or None; seconds of the frames
features.values                                     # (T, 16, 29)
features.speech_activity, features.mouth_openness   # (T,) each, in [0, 1]
"""

from avface.speech.features import KINDS, WINDOW, SpeechFeatures, SpeechKind, speech_features
from avface.speech.phones import SYMBOLS

__all__ = ["KINDS", "SYMBOLS", "WINDOW", "SpeechFeatures", "SpeechKind", "speech_features"]
