"""The instrument that judges estimated gradients: what it measures against what follows from z alone."""

from dataclasses import replace

import numpy as np
import pytest
from forward_gradient_oracle import data, net, normal

import refimpl as ri
from refimpl.graph import Graph
from validation.instruments import estimators

FG = ri.ForwardGradient
EXACT = FG(m=1, estimator="exact")


def linear() -> Graph:
    """Four weights and nothing else."""
    g = Graph("linear", (1, 1), 2)
    g.linear("fc", g.flatten("flat", "input"), 2, bias=False)
    return g


def measured(graph, method, steps, **plan):
    plan = ri.Plan(step=method, **plan)
    x, y = data(6) if graph.name == "small" else (np.random.default_rng(0).normal(size=(6, 1, 1, 2)), np.arange(6) % 2)
    return estimators.measure(graph, plan, x, y, steps, 3, "reference", np.float64)


def test_the_kurtosis_of_z():
    z = normal(1, 0, 0, (400_000,))
    assert estimators.BELL_KURTOSIS == pytest.approx(2.85, abs=1e-4)
    assert np.mean(z**4) == pytest.approx(estimators.BELL_KURTOSIS, abs=0.03)


@pytest.mark.parametrize("estimator", ["exact", "spsa"])
@pytest.mark.parametrize("distribution", ["normal", "signs"])
@pytest.mark.parametrize("m", [1, 3])
def test_the_variance_is_that_of_theory_to_the_kurtosis(distribution, m, estimator):
    """Of four weights it is 4.85/m of a nearly normal z and 3/m of ±1."""
    method = FG(m=m, estimator=estimator, distribution=distribution, epsilon=1e-5)
    found = measured(linear(), method, 3000)
    variance, _ = estimators.expected(method, found.dimensions)
    assert variance == pytest.approx((4.85 if distribution == "normal" else 3) / m, abs=1e-3)
    assert found.variance == pytest.approx(variance, rel=0.1)
    assert found.scale == pytest.approx(1, abs=0.06)
    assert found.bias < 2 * found.bias_resolved < 0.4 and found.dimensions == 4


@pytest.mark.parametrize("m", [1, 3, 10])
def test_cosine_and_variance_fall_and_rise_with_the_draws(m):
    method = replace(EXACT, m=m)
    found = measured(net(), method, 400)
    variance, cosine = estimators.expected(method, found.dimensions)
    assert found.dimensions == 46
    assert found.cosine == pytest.approx(cosine, rel=0.08)
    assert found.variance == pytest.approx(variance, rel=0.15)


def test_what_is_biased_is_told():
    """The largest tenth of the weights knows nothing of the gradient of the others: it is a projection."""
    found = measured(net(), replace(EXACT, sparse="magnitude", share=0.3), 1500)
    other = measured(net(), EXACT, 1500)
    assert found.bias > 4 * found.bias_resolved and other.bias < 2 * other.bias_resolved
    assert 0 < found.scale < 0.8 and found.variance < 46 / found.scale
    ahead = measured(net(), FG(m=1), 1500)  # the sign alone: of another length, in the direction of the gradient
    assert ahead.scale > 1.5 and ahead.cosine == pytest.approx(other.cosine, rel=1e-3)


def test_back_propagation_is_the_gradient():
    found = measured(net(), ri.Backprop(), 3)
    assert (found.scale, found.cosine) == pytest.approx((1, 1), rel=1e-12)
    assert found.variance == pytest.approx(0, abs=1e-12) and found.bias < 1e-6


@pytest.mark.parametrize(
    "settings", [{"sharpness": 0.01}, {"beta": 0.5}, {"normalize": "tensor"}, {"estimator": "sign"}]
)
def test_what_does_not_follow_from_z_alone_has_no_theory(settings):
    assert estimators.expected(replace(EXACT, **settings), 10) is None
    assert estimators.expected(replace(EXACT, clip_norm=1.0, epsilon=0.1), 10) is not None


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(ValueError, match="^steps must be at least 2, got 1$"):
        measured(net(), EXACT, 1)
    with pytest.raises(
        ValueError, match=r"^estimates are those of a whole batch and net: plan without instances, Hard"
    ):
        measured(net(), EXACT, 5, instances=ri.HardExamples(0.5))
