"""Datasets on disk: corpora prepared as WebDataset shards, and windows of frames read back for training.

report = prepare("voxceleb2/", "shards/")                    # resumable; unusable items are logged
for window in Windows("shards/", "validation"):
    window["images"], window["landmarks"], window["speech"]  # (16, 3, 224, 224), (16, 478, 2), (16, 16, 29)
"""

from avface.data.config import PrepareConfig
from avface.data.items import Item, find_items, split_of
from avface.data.prepare import Report, Skipped, prepare
from avface.data.windows import Windows

__all__ = ["Item", "PrepareConfig", "Report", "Skipped", "Windows", "find_items", "prepare", "split_of"]
