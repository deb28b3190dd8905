"""What the voice tells a network about the mouth, frame by frame.

heard = speech_features(clip.audio(), times)    # sound at 16 kHz, or None; seconds of the frames
heard.values                                    # (T, 16, 29)
heard.speech_activity, heard.mouth_openness     # (T,) each, in [0, 1]
"""

from avface.speech.features import KINDS, WINDOW, SpeechFeatures, SpeechKind, speech_features
from avface.speech.phones import SYMBOLS

__all__ = ["KINDS", "SYMBOLS", "WINDOW", "SpeechFeatures", "SpeechKind", "speech_features"]
