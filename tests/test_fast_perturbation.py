"""The tuned sums of draws: the bits of the reference, whatever is given; what they execute; where they are launched."""

import numpy as np
import pytest
from forward_gradient_oracle import net

import refimpl as ri
from refimpl.backends.cpu import perturbation as fast
from refimpl.kernels.running import threads
from refimpl.ops import perturbation
from validation.instruments import drawn

NONE, NO_STEP = np.empty(0, np.float32), np.empty(0, np.int64)
GIVEN = {"all": {}, "largest": {"least": np.array([0.4], np.float32)}, "any": {"step": np.array([2**33 + 5])}}


@pytest.mark.parametrize("passed", [perturbation.perturb, perturbation.estimate])
@pytest.mark.parametrize("signs", [False, True])
@pytest.mark.parametrize("given", GIVEN)
def test_the_bits_are_those_of_the_reference(passed, signs, given):
    rng = np.random.default_rng(0)
    for elements in (1, fast.RUN, 2 * fast.RUN + 7):
        for draws, scaled in ((1, 0), (3, 0), (4, 3), (30, 30)):
            w, c = (rng.normal(size=size).astype(np.float32) for size in (elements, draws))
            seed, numbers = rng.integers(0, 2**60, 1), rng.integers(0, 2**40, draws)
            scales = rng.random(scaled).astype(np.float32)
            masks = {"least": NONE, "step": NO_STEP} | GIVEN[given]
            wanted, found = np.zeros_like(w), np.full_like(w, np.nan)
            passed.kernel.cpu(
                elements, wanted, w, seed, numbers, c, scales, NONE, NONE, masks["least"], masks["step"], 5, signs,
                1.0, 1.0, 0.3,
            )  # fmt: skip
            for count in (1, 2):
                with threads(count):
                    fast.summed(
                        found, w, seed, numbers, c, scales, masks["least"], masks["step"], 5, signs, 0.3,
                        passed is perturbation.perturb,
                    )  # fmt: skip
                assert found.tobytes() == wanted.tobytes(), (elements, draws)


METHODS = {
    "plain": ri.ForwardGradient(),
    "signs": ri.ForwardGradient(m=2, distribution="signs", sparse="magnitude"),
    "scaled": ri.ForwardGradient(m=1, normalize="tensor", sparse="random", sharpness=0.01),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_step_draws_with_it_and_it_executes_what_it_states(name):
    plan = ri.Plan(step=METHODS[name])
    p = ri.compile(net(), plan, 3, dtype=np.float32)
    launched = [launch for launch in p.order if launch.function is fast.summed]
    of = (perturbation.perturb, perturbation.estimate)
    assert len(launched) == sum(call.passed in of for call in p.step) >= 8
    assert [str(k) for k in drawn.compare_kernels(p, 3) if not k.ok] == []
    for other in (ri.compile(net(), plan, 3, dtype=np.float64), ri.compile(net(), plan, 3, backend="reference")):
        assert not any(launch.function is fast.summed for launch in other.order)


def test_what_follows_a_guide_is_drawn_by_the_reference():
    p = ri.compile(net(), ri.Plan(step=ri.ForwardGradient(beta=0.5)), 3)
    assert not any(launch.function is fast.summed for launch in p.order)
