import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks import check_counts, check_threads, distance, torch_or_none
from refimpl.kernels.passes import ShapeError
from refimpl.ops import sgd

shapes = st.sampled_from([(1,), (7,), (3, 3, 2, 4)])
momenta = st.sampled_from([(0.0, False), (0.9, False), (0.9, True)])
decays = st.sampled_from([0.0, 0.01])
clips = st.sampled_from([None, 0.5])


@given(shapes, momenta, decays, clips, st.sampled_from(["float64", "float32"]))
def test_four_steps_as_torch_and_by_hand(shape, momentum, decay, clip, dtype):
    torch = torch_or_none()
    rng = np.random.default_rng(0)
    w = rng.normal(size=shape).astype(dtype)
    start, velocity = w, np.zeros_like(w)
    hand, hand_velocity = w.astype(float), np.zeros(shape)
    attrs = {"momentum": momentum[0], "nesterov": momentum[1], "weight_decay": decay}
    if torch:
        parameter = torch.nn.Parameter(torch.tensor(w))
        optimizer = torch.optim.SGD([parameter], lr=0.1, **attrs)
    for lr in (0.1, 0.1, 0.03, 0.01):
        dw = rng.normal(size=shape).astype(dtype)
        arrays = {"w": w, "dw": dw, "lr": np.array([lr], dtype)}
        if clip:
            arrays["clip"] = np.array([clip], dtype)
        if momentum[0]:
            arrays["velocity"] = velocity
            passed, given_attrs = sgd.momentum_step, attrs
            w, velocity = passed(**arrays, **attrs)
        else:
            passed, given_attrs = sgd.step, {"weight_decay": decay}
            w = passed(**arrays, **given_attrs)
        assert w.shape == shape
        g = (clip or 1) * dw + decay * hand
        hand_velocity = momentum[0] * hand_velocity + g
        hand = hand - lr * (g + momentum[0] * hand_velocity if momentum[1] else hand_velocity)
        if torch:
            optimizer.param_groups[0]["lr"] = lr
            parameter.grad = torch.tensor(dw * dw.dtype.type(clip or 1))
            optimizer.step()
    bound = 1e-12 if dtype == "float64" else 1e-5
    assert distance(w, hand, start) <= bound
    if torch:
        assert distance(w, parameter.detach().numpy(), start) <= bound
    check_counts(passed, arrays, given_attrs, {})
    check_threads(passed, arrays, given_attrs, {})


def test_refused():
    with pytest.raises(ShapeError, match=r"dw has shape \(3,\), but w has \(4,\)"):
        sgd.step(np.ones(4), np.ones(3), np.ones(1))
    with pytest.raises(ShapeError, match="lr has 2 where 1 is needed"):
        sgd.step(np.ones(4), np.ones(4), np.ones(2))
