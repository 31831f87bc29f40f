import numpy as np
import pytest
from node_cases import any_shape, check_net

import oracles
import refimpl as ri
from checks import Case, Subject, rng_of
from refimpl.graph import Graph
from refimpl.ops import layer_norm


def case(pick):
    *rows, c = any_shape(pick)
    rng = rng_of(pick)
    x = rng.normal(size=(*rows, c + 1)) * 2 + 1
    return Case(
        {"x": x, "gamma": rng.normal(size=c + 1), "beta": rng.normal(size=c + 1)}, {"eps": (1e-5, 1e-3)[pick(0, 1)]}
    )


def by_torch(F, t, attrs):
    return F.layer_norm(t["x"], t["gamma"].shape, t["gamma"], t["beta"], attrs["eps"])


subject = Subject("layer_norm", case, oracles.layer_norm, by_torch, oracles.layer_norm_scale)
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def test_rows_have_mean_0_and_variance_1():
    x = np.random.default_rng(0).normal(3, 5, (2, 4, 50))
    y = layer_norm.forward(x, np.ones(50), np.zeros(50), *layer_norm.statistics(x))
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-12)
    np.testing.assert_allclose(y.var(-1), 1, atol=1e-5)


def normed() -> Graph:
    g = Graph("net", (6, 5), 3)
    x = g.layer_norm("first", g.conv2d("c", "input", 4, 3, pad=1))
    x = g.layer_norm("second", g.conv2d("d", x, 4, 1))
    g.linear("fc", g.layer_norm("last", g.global_avg_pool("mean", x)), 3)
    return g


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    check_net(normed(), backend, "c.w", "first.gamma", "first.beta", "d.w", "last.gamma")


@pytest.mark.parametrize(
    ("plan", "norms"),
    [
        (ri.Plan("all"), ["first", "second", "last"]),
        (ri.Plan(1), ["second", "last"]),
        (ri.Plan(0), []),
        (ri.Plan(1, bias_only=True), ["second", "last"]),
    ],
)
def test_it_trains_behind_the_first_layer_that_does(plan, norms):
    trained = plan.trained(normed())
    assert [name for name in ("first", "second", "last") if name in trained] == norms
    wanted = ["beta"] if plan.bias_only else ["gamma", "beta"]
    assert all(trained[name] == wanted for name in norms)
