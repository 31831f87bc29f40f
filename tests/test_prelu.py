import numpy as np
import pytest
from node_cases import check_net, whole_or_one

import oracles
from checks import Case, Subject, apart, rng_of
from refimpl.graph import Graph
from refimpl.kernels.passes import ShapeError
from refimpl.ops import prelu


def case(pick):
    shape, own = whole_or_one(pick)
    rng = rng_of(pick)
    return Case({"x": apart(rng, shape), "w": rng.normal(size=own[1:])})


def by_torch(F, t, attrs):
    x = t["x"]
    return x.where(x > 0, t["w"] * x)


subject = Subject("prelu", case, oracles.prelu, by_torch, oracles.absolute(oracles.prelu))
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def test_one_slope_a_channel_as_torch():
    torch = pytest.importorskip("torch")
    x, w = np.random.default_rng(0).normal(size=(2, 4, 5, 3)), np.array([0.25, -0.5, 2.0])
    theirs = torch.nn.functional.prelu(torch.tensor(x).permute(0, 3, 1, 2), torch.tensor(w))
    np.testing.assert_allclose(prelu.forward(x, w[None, None]), theirs.permute(0, 2, 3, 1).numpy(), 1e-14)


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    g = Graph("net", (6, 5), 3)
    x = g.prelu("channels", g.conv2d("c", "input", 4, 3), (1, 1, 4))
    x = g.affine("apart", g.conv2d("d", x, 2, 1), offset=0.25)
    g.linear("fc", g.flatten("flat", g.prelu("one", x, (1, 1, 1))), 3)
    check_net(g, backend, "c.w", "channels.w", "d.w", "one.w", batch_norm="train")


def test_refused():
    with pytest.raises(ShapeError, match="D must be 1 or C=3, got D=2"):
        prelu.forward(np.ones((1, 2, 2, 3)), np.ones((1, 1, 2)))
