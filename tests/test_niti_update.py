"""The integer update of weights that share an exponent."""

import niti_oracle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl.kernels.shared_exponent import ROUNDINGS
from refimpl.ops import niti_update as op
from refimpl.ops.shared_exponent import most

SEED, STEP = np.array([3], np.int64), np.array([7], np.int64)


def changed(w, dw, bits, how="nearest", **attrs):
    """The new w."""
    shift = op.shift_of(most(dw), np.array([bits], np.int32))
    return op.change(w, dw, shift, STEP, SEED, **ROUNDINGS[how], **attrs)


@given(st.integers(0, 2**32 - 1), st.integers(-24, 7), st.sampled_from(list(ROUNDINGS)))
def test_integer_update_is_that_of_plain_integers(seed, bits, how):
    rng = np.random.default_rng(seed)
    for dtype, end in ((np.int8, 127), (np.int16, 32767)):
        size = (rng.integers(1, 5), rng.integers(1, 5))
        w = rng.integers(-end, end + 1, size).astype(dtype)
        reach = int(2.0 ** rng.integers(0, 31))
        dw = rng.integers(-reach, reach + 1, size).astype(np.int32)
        found = changed(w, dw, bits, how, end=end, stream=5 + (1 << 22))
        wanted = niti_oracle.updated(w, dw.astype(object).reshape(-1), how, bits, (3, 5, 7))
        assert found.dtype == dtype and found.tolist() == wanted.tolist()


@pytest.mark.parametrize("bits", [0, 1, 4, 7])
def test_the_largest_change_has_as_many_bits_as_asked(bits):
    """Whatever the scale of the gradient: from half of 2^bits to 2^bits."""
    for scale in (300, 5000, 10**8):
        dw = np.array([[scale, -scale // 2, 0]], np.int32)
        moved = -changed(np.zeros((1, 3), np.int8), dw, bits).astype(int)[0]
        assert 2 ** (bits - 1) <= moved[0] <= min(2**bits, 127) and moved[2] == 0
        assert abs(moved[0] + 2 * moved[1]) <= 1


def test_a_weight_stays_within_its_ends_and_a_gradient_of_zeros_moves_nothing():
    ends = np.array([[127, -127, 126]], np.int8)
    assert changed(ends, np.array([[-9, 9, -9]], np.int32), 7).tolist() == [[127, -127, 127]]
    assert np.array_equal(changed(ends, np.zeros((1, 3), np.int32), 7), ends)


def test_below_no_bits_the_largest_gradient_moves_its_weight_now_and_then():
    dw = np.full((40, 100), 1023, np.int32)
    for bits, share in ((-1, 0.5), (-3, 0.125)):
        moved = -changed(np.zeros((40, 100), np.int8), dw, bits, "stochastic", stream=1)
        assert set(np.unique(moved)) == {0, 1} and moved.mean() == pytest.approx(share, abs=0.02)
        assert not changed(np.zeros((40, 100), np.int8), dw, bits - 1, "nearest").any()
