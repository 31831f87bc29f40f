import numpy as np
import pytest

import oracles
from checks import Case, Subject, apart, map_shape, rng_of
from refimpl.kernels.passes import ShapeError
from refimpl.ops import relu6


def case(pick):
    shape = map_shape(pick) if pick(0, 1) else (pick(1, 3), pick(1, 20))  # maps and features alike
    return Case({"x": apart(rng_of(pick), shape, span=9.0)})


subject = Subject("relu6", case, oracles.relu6, lambda F, t, a: F.relu6(t["x"]))
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def test_at_the_kinks_and_for_nan_as_torch():
    x = np.array([[0.0, -0.0, 6.0, np.nan, -1.0, np.inf, -np.inf, 3.0, 6.001]])
    dy = np.arange(1.0, 10.0)[None]
    y = relu6.forward(x)
    dx = relu6.grad_x(dy, relu6.pack_mask(y))
    torch = pytest.importorskip("torch")
    t = torch.tensor(x, requires_grad=True)
    torch_y = torch.nn.functional.relu6(t)
    torch_y.backward(torch.tensor(dy))
    assert np.array_equal(y, torch_y.detach().numpy(), equal_nan=True)
    assert np.array_equal(dx, t.grad.numpy())


def test_one_bit_an_element():
    y = relu6.forward(np.ones((3, 5, 5, 2)))
    mask = relu6.pack_mask(y)
    assert mask.dtype == np.uint8 and mask.shape == (3, 7)  # ⌈50 / 8⌉


def test_backward_reads_neither_x_nor_y():
    assert relu6.grad_x.reads == ["dy", "mask"]


def test_refused():
    with pytest.raises(ShapeError, match="mask has B=2, but the operator gives B=1"):
        relu6.grad_x(np.ones((2, 8)), np.ones((2, 2), np.uint8))
