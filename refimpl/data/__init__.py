"""Data sets: the embedded ones and the user's own. `load` is the one way in; shuffling and batching are the trainer's.

Bad data ends in a `DataError`, one sentence that says what is wrong, where, and what would be right.
"""

from .dataset import DataError, Dataset
from .watch_windows import watch, watch_others

__all__ = ["DataError", "Dataset", "watch", "watch_others"]
