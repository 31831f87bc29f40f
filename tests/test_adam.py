import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from checks import check_counts, check_threads, distance, torch_or_none
from refimpl.ops import adam


def by_hand(w, m, v, g, lr, t, decay, decoupled):
    """Algorithm 1 of arXiv 1412.6980 and its decoupled form, as written."""
    if decoupled:
        w = w - lr * decay * w
    else:
        g = g + decay * w
    m = 0.9 * m + 0.1 * g
    v = 0.999 * v + 0.001 * g**2
    w = w - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w, m, v


@given(
    st.sampled_from([(1,), (7,), (3, 3, 2, 4)]),
    st.booleans(),
    st.sampled_from([0.0, 0.01]),
    st.sampled_from([None, 0.5]),
    st.sampled_from([1, 1000]),
    st.sampled_from(["float64", "float32"]),
)
def test_steps_as_torch_and_by_hand(shape, decoupled, decay, clip, first, dtype):
    rng = np.random.default_rng(0)
    w = rng.normal(size=shape).astype(dtype)
    m, v = np.zeros_like(w), np.zeros_like(w)
    hand = w.astype(float), np.zeros(shape), np.zeros(shape)
    attrs = {"weight_decay": decay, "decoupled": decoupled}
    start, gradients = w, rng.normal(size=(4, *shape)).astype(dtype)
    for t, dw in enumerate(gradients, first):
        lr, step = np.array([0.1 / t], dtype), np.array([t])
        factors = adam.bias_correction(lr, step)
        arrays = {"w": w, "m": m, "v": v, "dw": dw, "lr": lr, "factors": factors}
        if clip:
            arrays["clip"] = np.array([clip], dtype)
        w, m, v = adam.update(**arrays, **attrs)
        hand = by_hand(*hand, (clip or 1) * dw.astype(float), float(lr[0]), t, decay, decoupled)
    bound = 1e-12 if dtype == "float64" else 1e-5
    for ours, theirs in zip((w, m, v), hand, strict=True):
        assert distance(ours, theirs) <= bound
    check_counts(adam.bias_correction, {"lr": lr, "step": step}, {}, {})
    check_counts(adam.update, arrays, attrs, {})
    check_threads(adam.update, arrays, attrs, {})
    torch = torch_or_none()
    if first > 1 or torch is None:
        return  # PyTorch counts from 1
    parameter = torch.nn.Parameter(torch.tensor(start))
    optimizer = (torch.optim.AdamW if decoupled else torch.optim.Adam)([parameter], weight_decay=decay)
    for t, dw in enumerate(gradients, 1):
        optimizer.param_groups[0]["lr"] = float(np.array(0.1 / t, dtype))
        parameter.grad = torch.tensor(dw * dw.dtype.type(clip or 1))
        optimizer.step()
    assert distance(w, parameter.detach().numpy()) <= bound


def test_first_step_in_float32_is_accurate():
    """1 − 0.999 in float32 is off by 1.3·10⁻⁵; the gains are not."""
    factors = adam.bias_correction(np.ones(1, np.float32), np.array([1]))
    assert distance(factors, [1 / 0.1, 1 / np.sqrt(0.001)]) < 2e-7
