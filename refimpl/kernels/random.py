"""The one random number generator: Philox 2×32-10, a pure function of (seed, stream, step, index).

Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. Nothing is stored between draws, so
items may draw in any order and a resumed run needs the step number only. int64 arithmetic and 32-bit masks make the
integers equal in Python, on CPU threads, on CUDA and in NumPy; a product that overflows keeps its low 64 bits.

The counter is (index, step), each below 2³². The key is one 32-bit word, Philox of (low word of seed, stream) under
the high word of seed. A stream is one use of random numbers (a layer's dropout, shuffling, one weight array).
"""

import numpy as np

from .kernel import helper

# Streams. A layer's dropout, its order of channels and its rounding add its place in the graph, the update of a
# whole parameter its number, a perturbed parameter three times its number.
SHUFFLE, WEIGHTS, SPLIT, AUGMENT, SKIP, DEPTH, DROPOUT = 0, 1, 2, 3, 4, 5, 16
ORDER, ROUNDING, UPDATE, PERTURBATION = 1 << 20, 1 << 21, 1 << 22, 1 << 24
MASK = 0xFFFFFFFF
MULTIPLIER = 0xD256D193
WEYL = 0x9E3779B9
BELL_VARIANCE = 43690.0  # of `bell`: 8·(256² − 1)/12
BELL_END = 1020  # the largest of `bell`: 8·255/2


@helper
def philox(c0, c1, key):
    """Two 32-bit words, as int64, of counter (c0, c1) and key."""
    for _ in range(10):
        product = c0 * MULTIPLIER
        c0 = ((product >> 32) & MASK) ^ key ^ c1
        c1 = product & MASK
        key = (key + WEYL) & MASK
    return c0, c1


@helper
def key_of(seed, stream):
    """The key of a stream: one 32-bit word, as int64."""
    # int() turns NumPy scalars, which warn of overflow, into Python integers; compiled code does not notice
    key, _ = philox(int(seed) & MASK, int(stream) & MASK, (int(seed) >> 32) & MASK)
    return key


@helper
def words(seed, stream, step, index):
    """Two 32-bit words, as int64, for a body: the draw `index` of `stream` in `step`."""
    return philox(int(index) & MASK, int(step) & MASK, key_of(seed, stream))


@helper
def bell(first, second):
    """Sum of the eight bytes of two 32-bit words less its mean, −1020 to 1020: a normal variable in whole numbers.

    Mean 0, variance 43,690; divided by its root, its distribution function differs from the normal one by 0.0036 at
    most and its kurtosis is 2.85 in place of 3. No logarithm and no cosine: the same on every device, to the bit.
    """
    pairs = (first & 0xFF00FF) + (first >> 8 & 0xFF00FF) + (second & 0xFF00FF) + (second >> 8 & 0xFF00FF)
    return (pairs & 0xFFFF) + (pairs >> 16) - 1020


def words_array(seed: int, stream: int, step: int, n: int, start: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The n draws of `words` from number `start` on: two int64 arrays (n,)."""
    key = key_of(seed, stream)
    return philox(np.arange(start, start + n, dtype=np.int64) & MASK, int(step) & MASK, key)


def uniform(seed: int, stream: int, step: int, n: int) -> np.ndarray:
    """(n,) float64 in [0, 1), with 53 random bits each."""
    return _fraction(*words_array(seed, stream, step, n))


def uniform_of_steps(seed: int, stream: int, steps: np.ndarray) -> np.ndarray:
    """What `uniform(seed, stream, step, 1)` gives for each of steps (n,) int64: (n,) float64."""
    key = key_of(seed, stream)
    return _fraction(*philox(np.zeros_like(steps), steps & MASK, key))


def _fraction(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    return ((high >> 5) * 2**26 + (low >> 6)) / 2.0**53


def normal(seed: int, stream: int, step: int, n: int, start: int = 0) -> np.ndarray:
    """(n,) float64, standard normal: one Box–Muller draw of the two words of each index from `start` on."""
    first, second = words_array(seed, stream, step, n, start)
    return np.sqrt(-2 * np.log((first + 1) / 2.0**32)) * np.cos(2 * np.pi * second / 2.0**32)


def permutation(seed: int, stream: int, step: int, n: int) -> np.ndarray:
    """A random order of 0 … n−1, int64: the order of 63 random bits each, ties to the lower index."""
    high, low = words_array(seed, stream, step, n)
    return np.argsort((high >> 1) << 32 | low, kind="stable")
