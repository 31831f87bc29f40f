"""The tuned perturbation and update of whole weights: the bits of the reference; what they execute; where launched."""

from dataclasses import replace

import numpy as np
import pytest
from test_forward_gradient_whole import FG, STEPS, compiled, quantized

from refimpl.backends.cpu import quantized_perturbation as fast
from refimpl.compiler.executed import executed
from refimpl.graph import Parameter
from refimpl.kernels.quantized import Quantized
from refimpl.kernels.running import threads
from refimpl.ops import quantized_perturbation as perturbation
from validation.instruments import counting, executing

SIZES = (1, 7, fast.RUN, 2 * fast.RUN + 7)
ENDS = {np.int8: (-128, 127), np.int16: (-20000, 20000), np.int32: (-(2**28), 2**28)}


def given(rng, dtype, elements, draws, scales, most):
    low, high = ENDS[dtype]
    return (
        rng.integers(low, high, elements, endpoint=True).astype(dtype), rng.integers(0, 2**60, 1),
        rng.integers(0, 2**40, draws), rng.integers(-1, 2, draws).astype(np.int32), rng.integers(0, most, scales),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ENDS)
@pytest.mark.parametrize("binomial", [False, True])
def test_the_bits_are_those_of_the_reference(dtype, binomial):
    rng, (low, high) = np.random.default_rng(0), ENDS[dtype]
    made = perturbation.variable_settings()
    own = [made[name] for name in ("one", "z_multiplier", "z_shift")]
    unit = [made[name] for name in ("unit_multiplier", "unit_shift")]
    wide = np.iinfo(dtype).bits > 16
    for elements in SIZES:
        for draws, scales in ((1, 1), (3, 5), (4, elements)):
            for most in (300, perturbation.far(np.dtype(dtype))):
                w, *told = given(rng, dtype, elements, draws, scales, most)
                wanted, found = np.zeros_like(w), np.zeros_like(w)
                perturbation.perturb.kernel.cpu(
                    elements, wanted, w, *told, 5, binomial, *own, *unit, low, high, wide, 1
                )
                for count in (1, 2):
                    with threads(count):
                        fast.perturbed(found, w, *told, 5, binomial, *own, *unit, low, high, wide)
                    assert found.tobytes() == wanted.tobytes(), (elements, draws, scales, most)
            for mean8 in (False, True):
                w, *told = given(rng, dtype, elements, draws, scales, 2**36)
                wanted, found = w.copy(), w.copy()
                perturbation.step.kernel.cpu(elements, wanted, *told, 5, binomial, *own, low, high, mean8, 1)
                fast.stepped(found, *told, 5, binomial, *own, low, high, mean8)
                assert found.tobytes() == wanted.tobytes()
                assert (found != w).any() == told[2].any() or elements == 1


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("per_channel", [False, True])
def test_a_step_draws_with_them_and_they_execute_what_they_state(name, per_channel):
    p = compiled(STEPS[name], quantized(per_channel=per_channel), "fast", 3)
    for kernel, passed in ((fast.perturbed, perturbation.perturb), (fast.stepped, perturbation.step)):
        launched = [launch for launch in p.order if launch.function is kernel]
        assert len(launched) == sum(call.passed is passed for call in p.step) == 7
        for launch in launched:
            assert executed(launch, 3, counting.count_call) == executing.launched(launch, 3)


def test_other_scales_are_drawn_by_the_reference():
    """A scale for each of several elements in a row, which no net of ours has."""
    g = quantized()
    g.parameters["a.w_scale"] = Parameter((3,), "ones")
    g.parameters["a.w"] = replace(g.parameters["a.w"], quantized=Quantized("a.w_scale", axis=0))
    g.weights["a.w_scale"] = np.repeat(g.weights["a.w_scale"], 3)
    p = compiled(FG(m=1), g, "fast", 3)
    for kernel, passed in ((fast.perturbed, perturbation.perturb), (fast.stepped, perturbation.step)):
        first = next(launch for launch in p.order if any(call.passed is passed for call in launch.covers))
        assert first.covers[0].attrs["each"] == 3 * 2 * 4 and first.function is not kernel
        assert sum(launch.function is kernel for launch in p.order) == 6
