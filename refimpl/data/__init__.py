"""Data sets: the embedded ones and the user's own. `load` is the one way in; shuffling and batching are the trainer's.

Every source ends as a `Dataset`: samples that train, that judge and, where the source has them, that tell when to stop
(`validation_split` takes them from those that train); its `SampleOrigin` says how labels were numbered, how samples
were split, what was left out and why, and holds the `Preprocessing`, plain data that make the same maps of new samples.

Bad data ends in a `DataError`, one sentence that says what is wrong, where, and what would be right.
"""

from .arrays import from_arrays
from .augment import augmented
from .clips import clips, clips_of_others
from .dataset import DataError, Dataset, SampleOrigin
from .describe import describe
from .loading import NAMES, fashion_mnist, load, stretches
from .new_samples import NewSamples, read_samples
from .preprocessing import Preprocessing
from .reading import ReadOptions
from .resized import Resized
from .splits import validation_split
from .watch_windows import watch, watch_others

__all__ = [
    "NAMES", "DataError", "Dataset", "NewSamples", "Preprocessing", "ReadOptions", "Resized", "SampleOrigin",
    "augmented", "clips", "clips_of_others", "describe", "fashion_mnist", "from_arrays", "load", "read_samples",
    "stretches", "validation_split", "watch", "watch_others",
]  # fmt: skip
