import pytest
from node_cases import check_net

import oracles
from checks import Case, Subject, rng_of
from refimpl.graph import Graph
from refimpl.kernels.passes import ShapeError


def case(pick):
    n, g, p, d, k = (pick(1, 4) for _ in range(5))
    transposed, rng = bool(pick(0, 1)), rng_of(pick)
    b = (n, g, k, d) if transposed else (n, g, d, k)
    return Case({"a": rng.normal(size=(n, g, p, d)), "b": rng.normal(size=b)}, {"transposed": transposed})


def by_torch(F, t, attrs):
    return t["a"] @ (t["b"].transpose(-1, -2) if attrs["transposed"] else t["b"])


subject = Subject("matmul", case, oracles.matmul, by_torch, oracles.absolute(oracles.matmul))
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def attention() -> Graph:
    """Tokens of a map that attend to each other: two heads of three channels."""
    g = Graph("net", (3, 4), 3)
    x = g.reshape("tokens", g.conv2d("c", "input", 6, 1), (1, 12))
    q, k, v = (g.rearrange(n, g.conv2d(f"{n}.w", x, 6, 1), (2, 12), (2, 12, 3), (3, 6, 1)) for n in "qkv")
    y = g.matmul("values", g.softmax("share", g.matmul("scores", q, k, True)), v)
    x = g.rearrange("joined", y, (1, 12), (12, 2, 3), (3, 36, 1))
    g.linear("fc", g.global_avg_pool("mean", g.add("sum", x, "tokens")), 3)
    return g


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    check_net(attention(), backend, "c.w", "q.w.w", "k.w.w", "v.w.w")


def test_refused():
    g = Graph("net", (2, 3), 4)
    with pytest.raises(ShapeError, match=r"node y \(matmul\): b has U=3, where D=4 is needed"):
        g.matmul("y", "input", "input")
    assert g.shape(g.matmul("z", "input", "input", True)) == (1, 2, 3, 3)
