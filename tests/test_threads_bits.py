"""Reference kernels give the same bits for any number of threads, wherever these divide the items."""

import numpy as np
import pytest

from refimpl.graph import operator
from refimpl.kernels.running import threads

COUNT = 40_001  # each thread ends within a vector
POSITIVE = ("var", "v", "running_var", "inv_std")
CASES = {
    ("batch_norm", "inv_std"): {},
    ("batch_norm", "forward"): {"N": 1, "H": 1, "W": 1},
    ("frozen_batch_norm", "scale"): {},
    ("adam", "update"): {},
    ("sgd", "step"): {},
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=".".join)
def test_bits_do_not_depend_on_where_threads_divide_the_items(case, dtype):
    passed = operator(case[0]).passes[case[1]]
    found = [run(passed, CASES[case], dtype, count) for count in (1, 2)]
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


def test_the_inverse_deviation_is_rounded_as_it_stands():
    passed = operator("batch_norm").passes["inv_std"]
    var = np.random.default_rng(0).uniform(0.01, 3, COUNT).astype(np.float32)
    found = np.empty_like(var)
    passed.kernel(COUNT, found, var, np.float32(1e-5))
    np.testing.assert_array_equal(found, np.float32(1) / np.sqrt(var + np.float32(1e-5)))


def run(passed, sizes, dtype, count):
    """What a pass writes, by so many threads."""
    rng, arrays = np.random.default_rng(3), {}
    for name in passed.arrays:
        shape = [sizes.get(letter, int(letter) if letter.isdigit() else COUNT)
                 for letter in passed.shapes[name].rpartition(":")[2].replace("*", "").split()]  # fmt: skip
        values = rng.normal(size=shape)
        arrays[name] = (np.abs(values) + 0.1 if name in POSITIVE else values).astype(dtype)
    with threads(count):
        passed.kernel(COUNT, *passed.arguments(arrays, passed.attrs({}), np.dtype(dtype)))
    return [arrays[name] for name in passed.writes]
