"""Perturbation and update in whole numbers, against the same in Python's own integers."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantized_oracles import clip, half_up
from test_quantized_conv2d import draw

import refimpl as ri
from costmodel.formulas import cost
from refimpl import data, models
from refimpl.compiler.ir import Buffer, Call
from refimpl.kernels import random
from refimpl.kernels.passes import declare
from refimpl.ops import dequantize, quantized_linear
from refimpl.ops import quantized_perturbation as perturbation
from refimpl.surgery.quantize import weight_scale
from validation.instruments import counting, drawn

I8, I16, I32, I64 = np.int8, np.int16, np.int32, np.int64
SEED, STREAM, ONE, UNIT = np.array([2**40 + 17], I64), 9, np.ones(1, I32), np.ones(1, I64)


def normals(draw_number, n, z_max=perturbation.Z_MAX, signs=False):
    """z of n elements: the eight bytes of a draw added up one by one, in steps of z_max/127."""
    first, second = random.words_array(int(SEED[0]), STREAM, int(draw_number), n)
    if signs:
        return [(1 if int(v) % 2 else -1) * half_up(Fraction(127 / z_max)) for v in first]
    made = perturbation.variable_settings(z_max)
    unit = Fraction(made["z_multiplier"]) / 2 ** (31 - made["z_shift"])
    sums = [
        sum((int(v) >> 8 * i) % 256 for v in pair for i in range(4)) - 1020 for pair in zip(first, second, strict=True)
    ]
    return [clip(half_up(total * unit), -127, 127) for total in sums]


cases = st.fixed_dictionaries({
    "dtype": st.sampled_from([I8, I16, I32]), "n": st.integers(1, 12), "draws": st.integers(1, 4),
    "z_max": st.sampled_from([3.5, 127 / 36, 2.0]), "signs": st.booleans(), "coarse": st.integers(0, 12),
    "scales": st.integers(1, 4), "each": st.integers(1, 3),
})  # fmt: skip


def made_of(case):
    attrs = perturbation.variable_settings(case["z_max"]) | {
        "stream": STREAM, "binomial": case["signs"], "each": case["each"],
    }  # fmt: skip
    own = perturbation.dtype_settings(case["dtype"])
    return attrs, own


@settings(max_examples=80)
@given(case=cases, data=st.data())
def test_eq_6_the_perturbed_weights_are_exact(case, data):
    """Δw·Δz·(w_q·1_q ± ε_q·z_q), requantized by Δw: in fractions, rounded once, cut off where the dtype ends."""
    attrs, own = made_of(case)
    w, ends = draw(data, case["dtype"], (case["n"],)), np.iinfo(case["dtype"])
    m, most = case["draws"], min(2 ** (2 * case["coarse"]), perturbation.far(w.dtype))
    epsilon = np.array(data.draw(st.lists(st.integers(0, most), min_size=case["scales"], max_size=case["scales"])), I64)
    c = np.array(data.draw(st.lists(st.integers(-1, 1), min_size=m, max_size=m)), I32)
    draws = np.array(data.draw(st.lists(st.integers(0, 2**31), min_size=m, max_size=m)), I64)
    found = perturbation.perturb(w, SEED, draws, c, epsilon, **attrs, **own)
    assert found.dtype == w.dtype
    unit = Fraction(attrs["unit_multiplier"]) / 2 ** (31 - attrs["unit_shift"])
    assert abs(unit - Fraction(case["z_max"]) / 127) < unit * 2**-30
    z = [normals(number, len(w), case["z_max"], case["signs"]) for number in draws]
    for i, value in enumerate(w):
        moved = sum(int(s) * zj[i] for s, zj in zip(c, z, strict=True))
        total = int(value) * attrs["one"] + int(epsilon[i // case["each"] % case["scales"]]) * moved
        assert found[i] == clip(half_up(total * unit), ends.min, ends.max)


@settings(max_examples=80)
@given(case=cases, data=st.data(), mean8=st.booleans(), factor=st.floats(2.0**-20, 2.0**20))
def test_eq_7_and_8_the_update_is_exact(case, data, mean8, factor):
    """w_q ← w_q − round((η·Δz/Δw)·g_q), g_q the mean of sign·z_q, itself of 8 bits with mean8."""
    attrs, own = made_of(case)
    attrs = {name: v for name, v in attrs.items() if not name.startswith("unit")}
    own.pop("wide")
    w, ends, m = draw(data, case["dtype"], (case["n"],)), np.iinfo(case["dtype"]), case["draws"]
    signs = np.array(data.draw(st.lists(st.integers(-1, 1), min_size=m, max_size=m)), I32)
    draws = np.array(data.draw(st.lists(st.integers(0, 2**31), min_size=m, max_size=m)), I64)
    scale = np.array(data.draw(st.lists(st.floats(2.0**-22, 3.0), min_size=case["scales"], max_size=case["scales"])))
    length = perturbation.rate_length(factor, m, case["z_max"], mean8)
    rate = perturbation.in_steps(scale, np.array([length]))
    before = w.copy()
    found = perturbation.step(w, SEED, draws, signs, rate, **attrs, **own, mean8=mean8)
    assert (w == before).all() and found.dtype == w.dtype
    exact = [factor * case["z_max"] / 127 / v / (1 if mean8 else m) for v in scale]
    for r, wanted in zip(rate, exact, strict=True):
        assert abs(int(r) / 2**31 - wanted) <= 2.0**-31 + wanted * 2**-45 or r == perturbation.FAST
    z = [normals(number, len(w), case["z_max"], case["signs"]) for number in draws]
    for i, value in enumerate(w):
        total = sum(int(s) * zj[i] for s, zj in zip(signs, z, strict=True))
        if mean8:
            total = clip(half_up(Fraction(total) / m), -127, 127)
        unit = Fraction(int(rate[i // case["each"] % case["scales"]]), 2**31)
        assert found[i] == clip(int(value) - half_up(total * unit), ends.min, ends.max)


@settings(max_examples=60)
@given(lengths=st.floats(0, 1e6), scale=st.lists(st.floats(1e-12, 1e3), min_size=1, max_size=5))
def test_a_length_in_steps_of_each_scale_is_rounded_once(lengths, scale):
    """ε_q = round(ε/Δw), a half upwards, at most what it may be: of fractions, but where float64 rounds to a half."""
    scale = np.array(scale)
    found = perturbation.in_steps(scale, np.array([lengths]), most=2**22)
    assert (found == perturbation.steps_of(lengths, scale, 2**22)).all()
    for n, one in zip(found, scale, strict=True):
        exact = Fraction(lengths) / Fraction(one)
        assert abs(int(n) - exact) <= Fraction(1, 2) + exact / 2**52 or (n == 2**22 and exact > 2**22)


def test_the_ends_of_every_dtype_hold():
    for dtype in (I8, I16, I32):
        ends = np.iinfo(dtype)
        w, own = np.array([ends.min, ends.max, 0], dtype), perturbation.dtype_settings(dtype)
        up = perturbation.perturb(w, SEED, np.array([3]), ONE, np.array([2**22]), binomial=True, **own)
        down = perturbation.perturb(w, SEED, np.array([3]), -ONE, np.array([2**22]), binomial=True, **own)
        assert set(up.tolist() + down.tolist()) <= {ends.min, ends.max} or dtype is I32
        own.pop("wide")
        for s in (-1, 1):
            far = np.array([perturbation.FAST])
            moved = perturbation.step(w, SEED, np.array([3]), np.array([s], I32), far, binomial=True, **own)
            cut = set(moved.tolist()) & {ends.min, ends.max}
            assert cut == set(moved.tolist()) or dtype is I32 and cut


def test_weights_shrink_by_the_rounding_of_1_q_and_not_with_127_36ths():
    w = np.arange(-32767, 32768, dtype=I16)
    none, own = (np.zeros(1, I64), np.zeros(1, I32), UNIT), perturbation.dtype_settings(I16)
    moved = perturbation.perturb(w, SEED, *none, **own)
    shrunk = 36 * 3.5 / 127
    assert 0.992 < shrunk < 0.9922 and abs(moved - w * shrunk).max() <= 0.5
    exact = perturbation.variable_settings(127 / 36)
    assert exact["one"] == 36 == perturbation.variable_settings()["one"]
    assert (perturbation.perturb(w, SEED, *none, **exact, **own) == w).all()
    b = np.array([-(2**31), 2**31 - 1, 12345678, -1, 0], I32)
    assert (perturbation.perturb(b, SEED, *none, **exact, **perturbation.dtype_settings(I32)) == b).all()


def test_z_is_normal_in_steps_of_a_127th():
    w, one_draw = np.zeros(100_000, I32), (np.array([5]), ONE, np.array([2**20]))
    own = perturbation.dtype_settings(I32)
    z = perturbation.perturb(w, SEED, *one_draw, **own) / 2**20
    assert abs(z.mean()) < 0.01 and abs(z.std() - 1) < 0.01 and abs(z).max() <= 3.5 + 1e-4
    assert abs((abs(z) < 1).mean() - math.erf(math.sqrt(0.5))) < 0.01
    steps = z * 127 / 3.5
    assert abs(steps - np.rint(steps)).max() < 1e-3 and len(np.unique(np.rint(steps))) > 200
    other = perturbation.perturb(w, SEED, np.array([6]), *one_draw[1:], **own)
    assert abs(np.corrcoef(z, other)[0, 1]) < 0.02


def test_binomial_perturbation_is_of_plus_and_minus_one():
    w, one_draw = np.zeros(1000, I32), (np.array([5]), ONE, UNIT)
    z = perturbation.perturb(w, SEED, *one_draw, binomial=True, **perturbation.dtype_settings(I32))
    assert set(z.tolist()) == {-1, 1} and abs(z.mean()) < 0.1


def test_what_does_not_differ_moves_nothing():
    w = np.arange(-9, 9, dtype=I16)
    rate, draws = rate_of(1e-2, 1e-5, 3), np.array([1, 2, 3])
    assert (perturbation.step(w, SEED, draws, np.zeros(3, I32), rate) == w).all()
    assert (perturbation.step(w, SEED, draws, np.ones(3, I32), rate) != w).any()
    assert rate_of(0.0, 1e-5, 3) == rate_of(1e-30, 1e-5, 3) == 0


def rate_of(rate, scale, draws):
    """r_q, (1,), of a learning rate."""
    return perturbation.in_steps(np.array([scale]), np.array([perturbation.rate_length(rate, draws)]))


def test_8_bit_weights_cannot_be_perturbed_and_16_bit_ones_can():
    """As published: ε_q vanishes."""
    w = models.watch_weights(1)
    for name in (n for n in w if n.endswith(".w")):
        coarse, fine = (float(weight_scale(w[name], bits)[0]) for bits in (8, 16))
        assert in_steps(1e-3, coarse) == 0
        assert in_steps(1e-3, fine) == round(1e-3 / fine) > 10
        assert in_steps(coarse / 2, coarse) == 1


def in_steps(length, scale):
    """How many steps of one scale a length is."""
    return int(perturbation.in_steps(np.array([scale]), np.array([length]))[0])


def test_the_least_rate_is_where_half_of_the_updates_are_zero():
    w, scale = np.zeros(20_000, I16), 2e-5
    for m, binomial in ((1, False), (3, False), (1, True)):
        draws, signs = np.arange(m), np.ones(m, I32)
        shares = []
        for rate in (perturbation.least_rate(scale, m, binomial) * f for f in (0.9, 1.1)):
            moved = perturbation.step(w, SEED, draws, signs, rate_of(rate, scale, m), binomial=binomial)
            shares.append((moved != 0).mean())
        assert shares[0] < 0.5 < shares[1] and (binomial or shares[1] - shares[0] < 0.2)


@pytest.mark.parametrize("z_max", [0, -1, 0.9, 300, math.nan])
def test_a_z_max_of_which_1_is_no_number_is_refused(z_max):
    with pytest.raises(
        ValueError, match="^z_max must be from 1 to 127, so that 1 stands for a number of 1 to 127, got"
    ):
        perturbation.variable_settings(z_max)


@pytest.mark.parametrize("name", ["in_steps", "perturb", "step"])
def test_each_is_counted(name):
    for seed in range(100, 125):
        found = drawn.compare_pass(f"quantized_perturbation.{name}", seed)
        assert found.ok, str(found)


@pytest.mark.parametrize("dtype", [I8, I16, I32])
def test_calls_on_every_dtype_are_counted_alike(dtype):
    made = {"w": dtype, "moved": dtype, "seed": I64, "draws": I64, "signs": I32, "epsilon": I64}
    shapes = {"w": (5,), "moved": (5,), "seed": (1,), "draws": (2,), "signs": (2,), "epsilon": (3,)}
    buffers = {a: Buffer(a, shapes[a], np.dtype(d), "arena") for a, d in made.items()}
    passed = perturbation.perturb
    attrs = passed.attrs(perturbation.dtype_settings(dtype))
    found = counting.count_call(Call("look", "w", passed, buffers, attrs, {"E": 5, "J": 2, "M": 3}), 1)
    assert found == dict(
        sorted(cost.counts("quantized_perturbation", "perturb", {"E": 5, "J": 2, "M": 3}, attrs).items())
    )
    assert found["convert"] == 5


def test_an_array_is_like_another_of_the_same_dtypes():
    shapes = {"x": "int8|int16: E", "y": "int8|int16: E", "z": "int8|int32: E"}
    for writes, like in (("y", {"y": "z"}), ("y", {"y": "y"})):
        with pytest.raises(TypeError, match="is like .*: it must write the one, read the other, of equal dtypes$"):

            @declare(shapes, items="E", writes=writes, like=like)
            def copied(t, y, x, z):
                """The same."""


def linear_probing(bits, trained, steps=150):
    """Losses of a classifier of whole numbers on fixed int8 features before and after steps of QZO-FF, m = 1.

    trained: which of w and b.
    """
    g = models.watch_net()
    g.weights = models.watch_weights(3)
    d = data.watch(3)
    q = ri.surgery.quantize(g, g.weights, d.x_train[:128], bits, headroom=1.5)
    q.outputs = ("mean",)
    features, labels = ri.Trainer(ri.compile(q, None, 128)).predict(d.x_train), d.y_train
    zero = int(q.weights["mean.zero"][0]) if "mean.zero" in q.weights else 0
    w = {local: q.weights[f"fc.{local}"] for local in trained}
    others = {"w": q.weights["fc.w"], "b": q.weights["fc.b"]}
    scales = {local: float(q.weights[f"fc.{local}_scale"][0]) for local in trained}
    rng = np.random.default_rng(0)

    def loss(params, chosen=slice(None)):
        params = {**others, **params}
        sums = quantized_linear.accumulate(features[chosen], params["w"], params["b"], x_zero=zero)
        y = dequantize.forward(sums, q.weights["fc.b_scale"]).astype(float)
        y -= y.max(1, keepdims=True)
        return (np.log(np.exp(y).sum(1)) - y[np.arange(len(y)), labels[chosen]]).mean()

    before, start = loss(w), {local: a.copy() for local, a in w.items()}
    for number in range(steps):
        chosen, draws = rng.choice(len(labels), 64, replace=False), np.array([number])
        sides = []
        for side in (1, -1):
            moved = {}
            for i, (local, a) in enumerate(w.items()):
                own = perturbation.dtype_settings(a.dtype)
                size = np.array([in_steps(1e-3, scales[local])])
                moved[local] = perturbation.perturb(a, SEED, draws, side * ONE, size, stream=i, **own)
            sides.append(loss(moved, chosen))
        sign = np.array([np.sign(sides[0] - sides[1])], I32)
        for i, (local, a) in enumerate(w.items()):
            own = perturbation.dtype_settings(a.dtype)
            own.pop("wide")
            w[local] = perturbation.step(a, SEED, draws, sign, rate_of(3e-3, scales[local], 1), stream=i, **own)
    return before, loss(w), (w["w"] != start["w"]).any()


def test_16w8a_learns_and_8w8a_stands_still():
    """Where ε_q is 0 both losses are one, and sign(0) = 0 moves nothing, whatever the rate."""
    before, after, moved = linear_probing(16, ("w", "b"))
    print(f"16w8a: loss {before:.4f} before, {after:.4f} after")
    assert moved and after < 0.6 * before
    before, after, moved = linear_probing(8, ("w",))
    print(f"8w8a: loss {before:.4f} before, {after:.4f} after")
    assert not moved and after == before
