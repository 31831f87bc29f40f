import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracles
from refimpl.kernels import random
from refimpl.kernels.kernel import Kernel

seeds = st.integers(0, 2**63 - 1)
word = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(
    ("counter", "key", "wanted"),
    [
        ((0x00000000, 0x00000000), 0x00000000, (0xFF1DAE59, 0x6CD10DF2)),
        ((0xFFFFFFFF, 0xFFFFFFFF), 0xFFFFFFFF, (0x2C3F628B, 0xAB4FD7AD)),
        ((0x243F6A88, 0x85A308D3), 0x13198A2E, (0xDD7CE038, 0xF62A4C12)),
    ],
)
def test_known_answers(counter, key, wanted):
    """The known-answer vectors that the authors of Philox publish with Random123, philox2x32, 10 rounds."""
    assert random.philox(*counter, key) == wanted
    assert oracles.philox(*counter, key) == wanted


def draw(t, high, low, where):
    a, b = random.words(where[0], where[1], where[2], t)
    high[t] = a
    low[t] = b


@given(seeds, word, word)
def test_the_same_integers_in_python_numba_and_numpy(seed, stream, step):
    n = 50
    plain = np.array([random.words(seed, stream, step, i) for i in range(n)]).T
    compiled = np.zeros((2, n), np.int64)
    KERNEL(n, compiled[0], compiled[1], np.array([seed, stream, step]))
    assert np.array_equal(compiled, plain)
    assert np.array_equal(random.words_array(seed, stream, step, n), plain)
    assert [oracles.words(seed, stream, step, i) for i in range(n)] == list(zip(*plain.tolist(), strict=True))


KERNEL = Kernel(draw)


def test_numpy_scalars_do_not_warn():
    assert random.words(np.int64(5), np.int64(1), np.int64(2), np.int64(3)) == random.words(5, 1, 2, 3)


def test_uniform_and_normal_moments():
    u, z = random.uniform(1, 2, 3, 100_000), random.normal(1, 2, 3, 100_000)
    assert 0 <= u.min() and u.max() < 1 and abs(u.mean() - 0.5) < 0.003 and abs(u.var() - 1 / 12) < 0.001
    assert abs(z.mean()) < 0.01 and abs(z.var() - 1) < 0.015 and abs((z**4).mean() - 3) < 0.1
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 0.01


@given(word, word)
def test_bell_is_the_sum_of_eight_bytes(first, second):
    total = sum(first.to_bytes(4, "little")) + sum(second.to_bytes(4, "little"))
    assert random.bell(first, second) == total - random.BELL_END
    assert random.bell(np.array([first]), np.array([second]))[0] == total - random.BELL_END


def test_bell_is_nearly_normal():
    """Exactly, from the distribution of a sum of eight bytes."""
    p = np.ones(1)
    for _ in range(8):
        p = np.convolve(p, np.full(256, 1 / 256))
    values = np.arange(len(p)) - random.BELL_END
    assert (p * values).sum() == pytest.approx(0, abs=1e-9)
    assert (p * values**2).sum() == pytest.approx(random.BELL_VARIANCE)
    assert (p * values**4).sum() / random.BELL_VARIANCE**2 == pytest.approx(2.85, abs=0.005)
    ends = (values + 0.5) / math.sqrt(random.BELL_VARIANCE)
    normal = np.array([0.5 * math.erfc(-z / math.sqrt(2)) for z in ends])
    assert 0.0035 < np.abs(np.cumsum(p) - normal).max() < 0.0036
    drawn = random.bell(*random.words_array(1, 2, 3, 100_000)) / math.sqrt(random.BELL_VARIANCE)
    assert abs(drawn.mean()) < 0.01 and abs(drawn.var() - 1) < 0.015 and abs((drawn**4).mean() - 2.85) < 0.1


def test_permutation_depends_on_every_argument():
    base = random.permutation(1, 2, 3, 100)
    assert sorted(base) == list(range(100))
    others = [(9, 2, 3), (1 + 2**40, 2, 3), (1, 9, 3), (1, 2, 9)]
    assert all((random.permutation(*other, 100) != base).sum() > 80 for other in others)
    assert np.array_equal(base, random.permutation(1, 2, 3, 100))
