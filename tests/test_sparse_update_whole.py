"""The sparse update of nets in whole numbers, block by block, against plain int64 NumPy."""

import pytest
from test_quantized_gradients import BACKENDS, PLANS, check_steps

from gradledger import options
from refimpl import SparseUpdate
from refimpl.methods import sparse_update_whole


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["sparse", "sparse, unscaled"])
def test_sparse_update_in_whole_numbers_is_that_of_a_plain_statement_to_the_bit(name, backend):
    t = check_steps(PLANS[name], backend)
    calls = list(t.program.step)
    assert sum(call.passed is sparse_update_whole.update for call in calls) == 6  # of every convolution
    assert sum(call.passed is sparse_update_whole.grad_w for call in calls) == 2  # of the depthwise ones
    kept = [call.arrays["x_chosen"] for call in calls if call.passed is sparse_update_whole.take_x]
    assert all(b.dtype == "int8" for b in kept)
    assert sorted(b.shape[3] for b in kept) == sorted(max(1, round(0.3 * c)) for c in (3, 8, 8, 4, 12, 12))


def test_scaling_is_a_setting_of_the_command_line():
    assert options.methods(["sparse-update:scaling=none"]).rules == [SparseUpdate(scaling="none")]
    with pytest.raises(options.Malformed, match="scaling of sparse-update"):
        options.methods(["sparse-update:scaling=off"])
    with pytest.raises(ValueError, match="scaling must be aware or none, got 'off'"):
        SparseUpdate(scaling="off")
