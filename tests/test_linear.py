import numpy as np
import pytest

import oracles
from checks import Case, Subject, rng_of
from refimpl.kernels.passes import ShapeError
from refimpl.ops import linear


def case(pick):
    n, d, k, bias = pick(1, 4), pick(1, 9), pick(1, 6), pick(0, 1)
    rng = rng_of(pick)
    arrays = {"x": rng.normal(size=(n, d)), "w": rng.normal(size=(d, k))}
    return Case(arrays | ({"b": rng.normal(size=k)} if bias else {}))


subject = Subject(
    "linear",
    case,
    oracles.linear,
    lambda F, t, a: F.linear(t["x"], t["w"].T, t.get("b")),
    oracles.absolute(oracles.linear),
)
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def test_refused_like_torch():
    x, w = np.ones((2, 3)), np.ones((4, 5))
    with pytest.raises(ShapeError, match="w has D=4, but x has D=3"):
        linear.forward(x, w)
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        torch.nn.functional.linear(torch.tensor(x), torch.tensor(w).T)
