"""Tuned kernels of 8-bit training: the reference's whole numbers to the bit, its sums; what they say they execute."""

import numpy as np
import pytest

import refimpl as ri
from refimpl.backends.cpu import quantized_depthwise, quantized_gradient, quantized_rounding
from refimpl.compiler.executed import executed
from refimpl.compiler.ir import AtBatch, Buffer
from refimpl.compiler.lower import reference
from refimpl.graph import INPUT, Graph
from refimpl.kernels.running import threads
from refimpl.methods import quantized
from validation.instruments import executing

SCHEMES = quantized.SCHEMES
ROOMS = (quantized_depthwise, quantized_gradient, quantized_rounding)
OPERATORS = ("quantized", "linear_quantized", "gradient_filter_quantized")
SCALES = ("tensor_scale", "sample_scales", "batch_scales")  # a few numbers each: their own kernels do
KINDS = ("dense", "in groups", "depthwise", "pointwise", "linear", "rows", "filtered", "dilated")


def net(rng, kind, wide=1):
    """A net whose second layer is of a kind, drawn, and the rules of a plan beside `quantized`."""
    pick = lambda low, high: int(rng.integers(low, high + 1))  # noqa: E731
    groups = pick(2, 3) if kind == "in groups" else 1
    c, k = groups * pick(1, 9 * wide), groups * pick(1, 20 * wide)
    if kind == "depthwise":
        groups = c = k = pick(2, 40)
    if kind == "pointwise" and pick(0, 2):
        c, k = 4 * c, 4 * k  # whole words, which are read as they lie
    g = Graph("one layer", (pick(7, 10), pick(7, 10)), 2)
    x = g.conv2d("first", INPUT, c, 1)
    if kind == "linear":
        g.linear("layer", g.global_avg_pool("pool", x), k)
        return g, ()
    if kind == "rows":
        g = Graph("rows")
        g.add_input("input", (pick(2, 9), 5))
        g.linear("classes", g.flatten("flat", g.linear("layer", g.linear("first", "input", c), k)), 3)
        return g, ()
    if kind == "pointwise":
        attrs = {"kernel": 1}
    elif kind == "filtered":
        attrs = {"kernel": 3, "pad": 1}
    elif kind == "dilated":
        attrs = {"kernel": 3, "pad": 4, "dilation": 4}
    else:
        attrs = {"kernel": (pick(1, 4), pick(1, 4)), "stride": pick(1, 3), "dilation": pick(1, 2), "pad": pick(0, 2)}
    y = g.conv2d("layer", x, k, **attrs, groups=groups)
    g.linear("classes", g.flatten("flat", y), 3)
    return g, (ri.GradientFilter(2),) if kind in ("filtered", "dilated") else ()


def program(g, rules, scheme, n, dtype=np.float32, backend="fast", bits=8):
    plan = ri.Plan("all", (*rules, ri.QuantizedTraining(scheme, bits)), ri.Backprop(ri.SGD(0.1)), train_bias=True)
    return ri.compile(g, plan, n, dtype=dtype, threads=2, backend=backend)


def values(rng, name, b, n, per_sample):
    """An array for a buffer of a call on n samples: whole numbers of all sizes, floats, scales of one size or not."""
    shape = (n * b.batched, *b.shape[1:]) if b.batched else b.shape
    if b.dtype.kind == "f":
        found = rng.normal(size=shape).astype(b.dtype)
        if "scale" in name:
            found = abs(found) + b.dtype.type(0.1)
            return found if per_sample else np.full_like(found, found.reshape(-1)[0])
        return found
    if b.dtype.itemsize == 8:
        return rng.integers(0, 2**40, shape)
    most = np.iinfo(b.dtype).max
    found = rng.integers(-most, most, shape, b.dtype, endpoint=True)
    if rng.random() < 0.3:
        found[...] = rng.choice([-most, most, 0], shape)
    return found


def run(launch, arrays, call, n, count):
    """What a launch writes with these arrays of its call; everything else begins as it may be found."""
    own = {}

    def argument(value):
        if isinstance(value, AtBatch):
            return value.value(n)
        if not isinstance(value, Buffer):
            return value
        shape = (n * value.batched, *value.shape[1:]) if value.batched else value.shape
        name = next((a for a, b in call.arrays.items() if b.root is value.root), None)
        if name is None:
            return own.setdefault(value, np.full(shape, 77, value.dtype))
        return arrays[name].reshape(shape)

    args = [argument(a) for a in launch.args]
    with threads(count):
        launch.function(*args)
    return {a: arrays[a].copy() for a in call.passed.writes}


def assert_the_same(p, rng, n, per_sample):
    """Every pass of 8-bit training in a program runs a tuned kernel that does as the reference, on any threads."""
    seen = 0
    for launch in p.order:
        call = launch.covers[0]
        if call.passed.operator not in OPERATORS or call.passed.name in SCALES:
            continue
        assert launch.covers == (call,) and launch.function.__module__ in {room.__name__ for room in ROOMS}, launch.name
        arrays = {a: values(rng, a, b, n, per_sample) for a, b in call.arrays.items()}
        wanted = run(reference(call), arrays, call, n, 1)
        found = []
        for count in (1, 2):
            for a in call.passed.writes:
                arrays[a][...] = 99
            found.append(run(launch, arrays, call, n, count))
        for a, of in wanted.items():
            assert found[0][a].tobytes() == found[1][a].tobytes(), (launch.name, a)
            if of.dtype.kind == "f":
                size = max(np.abs(of).max(), np.finfo(of.dtype).tiny)
                tolerance = size * (2e-6 if of.dtype == np.float32 else 1e-13) * n
                np.testing.assert_allclose(found[0][a], of, rtol=0, atol=tolerance, err_msg=launch.name)
            else:
                np.testing.assert_array_equal(found[0][a], of, err_msg=launch.name)
        assert executing.launched(launch, n) == executed(launch, n, None), launch.name
        seen += 1
    assert seen >= 6


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(2))
def test_every_pass_does_as_the_reference(kind, scheme, seed):
    rng = np.random.default_rng([seed, KINDS.index(kind), SCHEMES.index(scheme)])
    n = int(rng.integers(2, 6))
    g, rules = net(rng, kind)
    p = program(g, rules, scheme, n, (np.float32, np.float64)[seed % 2], bits=(8, 5)[seed % 2])
    for samples in (n, n - 1):
        assert_the_same(p, rng, samples, scheme == "psq")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kind", ["dense", "pointwise", "in groups"])
def test_many_channels_are_cut_into_panels(kind, scheme):
    rng = np.random.default_rng(KINDS.index(kind))
    g, rules = net(rng, kind, wide=6)
    assert_the_same(program(g, rules, scheme, 3), rng, 3, scheme == "psq")


def test_large_weights_leave_no_partial_sums_and_share_kernel_rows():
    sizes = {"N": 4, "C": 256, "K": 256, "R": 3, "S": 3, "G": 1, "H": 8, "W": 8, "P": 8, "Q": 8}
    attrs = {"stride": (1, 1), "dilation": (1, 1), "pad": ((1, 1), (1, 1))}
    per_slice, pixels, together, _ = quantized_gradient.grad_w_cut(sizes, attrs, np.int8, False)
    assert per_slice == 4 and together == 1 and pixels <= 64
    g = Graph("large", (6, 6), 2)
    g.linear("classes", g.flatten("flat", g.conv2d("layer", g.conv2d("first", INPUT, 180, 1), 190, 3, pad=1)), 3)
    assert_the_same(program(g, (), "psq", 2), np.random.default_rng(0), 2, True)


def test_runs_of_rounding_end_with_their_sample():
    rng, elements = np.random.default_rng(1), quantized_rounding.RUN + 5
    dy, scales = rng.normal(size=(3, elements)).astype(np.float32), np.array([0.02, 0.03, 0.05], np.float32)
    step, seed = np.array([2**33 + 4]), np.array([2**40 + 9])
    for passed, dtype, levels, second in (
        (quantized.stochastic, np.int8, 127, False), (quantized.stochastic_wide, np.int16, 32767, True),
    ):  # fmt: skip
        wanted, found = np.zeros(dy.shape, dtype), np.full(dy.shape, 55, dtype)
        attrs = (levels, 6) if not second else (6,)
        passed.kernel.cpu(dy.size, wanted, dy, scales, step, seed, *attrs)
        for count in (1, 2):
            with threads(count):
                quantized_rounding.stochastic(found, dy, scales, step, seed, levels, 6, second)
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_largest_magnitude_is_no_number_where_there_is_none(dtype):
    v = np.array([[1, -3, 2], [np.inf, -1, 0], [5, np.nan, np.inf], [0, -0.0, 0], [-np.nan, 1, 2]], dtype)
    most = np.full(5, 7, dtype)
    quantized_rounding.largest(most, v)
    np.testing.assert_array_equal(most, np.array([3, np.inf, np.nan, 0, np.nan], dtype))
    assert not np.signbit(most[3])


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["dense", "depthwise"])
def test_a_scale_that_is_not_finite_makes_everything_so(kind, value):
    rng, seen = np.random.default_rng(0), 0
    p = program(net(rng, kind)[0], (), "banner", 2)
    for launch in p.order:
        (call, *_), scale = launch.covers, next((a for a in launch.covers[0].arrays if a in ("x_scale", "w_scale")), "")
        if call.passed.operator == "quantized" and scale:
            arrays = {a: values(rng, a, b, 2, False) for a, b in call.arrays.items()}
            arrays[scale][...] = value
            (found,) = run(launch, arrays, call, 2, 1).values()
            assert not np.isfinite(found).any(), launch.name
            seen += 1
    assert seen >= 5


@pytest.mark.parametrize("scheme", SCHEMES)
def test_training_follows_that_of_the_reference(scheme):
    g, _ = net(np.random.default_rng(4), "dense")
    rng, losses = np.random.default_rng(2), []
    x, y = rng.normal(size=(16, *g.size, 2)), rng.integers(0, 3, 16)
    for backend in ("reference", "fast"):
        losses.append(ri.Trainer(program(g, (), scheme, 8, np.float64, backend), seed=0).fit(x, y, 3))
    np.testing.assert_allclose(*losses, rtol=1e-9)
