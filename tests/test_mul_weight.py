import numpy as np
import pytest
from node_cases import check_net, whole_or_one

import oracles
import refimpl as ri
from checks import Case, Subject, rng_of
from refimpl.graph import Graph
from refimpl.kernels.passes import ShapeError
from refimpl.ops import mul_weight


def case(pick):
    shape, own = whole_or_one(pick)
    rng = rng_of(pick)
    return Case({"x": rng.normal(size=shape), "w": rng.normal(size=own[1:])})


def by_torch(F, t, attrs):
    return t["x"] * t["w"]


subject = Subject("mul_weight", case, oracles.mul_weight, by_torch, oracles.absolute(oracles.mul_weight))
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def net() -> Graph:
    """Weights for each channel, for each place, and for one column."""
    g = Graph("net", (6, 5), 3)
    x = g.mul_weight("channels", g.conv2d("c", "input", 4, 3), (1, 1, 4))
    x = g.mul_weight("rows", g.mul_weight("places", x, (4, 3, 4)), (4, 1, 1))
    g.linear("fc", g.flatten("flat", x), 3)
    return g


WEIGHTS = {"channels.w", "places.w", "rows.w"}


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    check_net(net(), backend, "c.w", *WEIGHTS, batch_norm="train")


@pytest.mark.parametrize(
    "plan, trained",
    [({"train_last": 0}, set()), ({"train_last": 1}, WEIGHTS), ({"bias_only": True, "train_last": "all"}, set())],
)
def test_it_trains_behind_the_first_layer_that_does(plan, trained):
    trainer = ri.Trainer(ri.compile(net(), ri.Plan(**plan), 4, backend="reference"), 0)
    before = {name: w.copy() for name, w in trainer.parameters.items()}
    x = np.random.default_rng(1).normal(size=(4, 6, 5, 3)).astype(np.float32)
    trainer.train_step(x, np.arange(4) % 3, 1)
    changed = {name for name, w in trainer.parameters.items() if not np.array_equal(w, before[name])}
    assert changed & WEIGHTS == trained


@pytest.mark.parametrize("sample, own", [((5, 4), (5, 1)), ((2, 3, 5, 4), (2, 3, 1, 4)), ((2, 3, 5, 4), (1, 1, 5, 1))])
def test_tensors_of_other_ranks(sample, own):
    g = Graph("net")
    g.linear("fc", g.flatten("flat", g.mul_weight("y", g.add_input("x", sample), own)), 3)
    assert g.shape("y") == (1, *sample)
    rng = np.random.default_rng(2)
    trainer = ri.Trainer(
        ri.compile(g, ri.Plan(batch_norm="train", step=ri.Backprop(ri.SGD(1.0))), 4, backend="reference"), 0
    )
    x, before = rng.normal(size=(4, *sample)).astype(np.float32), trainer.parameters["y.w"].copy()
    trainer.train_step(x, np.arange(4) % 3, 1)
    changed = trainer.parameters["y.w"] - before
    assert changed.shape == own and np.all(changed != 0)


def test_refused():
    with pytest.raises(ShapeError, match="D must be 1 or C=3, got D=2"):
        mul_weight.forward(np.ones((1, 2, 2, 3)), np.ones((1, 1, 2)))
    with pytest.raises(ShapeError, match=r"node y \(mul_weight\): V must be 1 or W=2, got V=3"):
        Graph("net", (2, 2), 3).mul_weight("y", "input", (1, 3, 1))
