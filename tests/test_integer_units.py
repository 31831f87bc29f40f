"""Integer arithmetic is counted in units of its own: on passes of this file's, and in what prices are made of."""

import math
from collections import Counter
from math import sin, tanh

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import prange

import costmodel
import refimpl as ri
from costmodel import predict
from costmodel.advice import energy
from costmodel.formulas import cost
from costmodel.formulas.cost import D, E, K, N, cmp, convert, has, iadd, imac, imul, load, logic, mac, mul, shift, store
from costmodel.formulas.ops import dropout
from gradledger import cost as command
from gradledger import show_cost
from refimpl.compiler.executed import IADD, IMAC, IMUL, Ops
from refimpl.compiler.ir import Buffer, Call, Launch
from refimpl.graph import INPUT
from refimpl.kernels.kernel import fast
from refimpl.kernels.passes import declare
from refimpl.kernels.random import words
from validation.instruments import drawn, executing
from validation.instruments.counted_numbers import Float, Integer, counting_body
from validation.instruments.counting import count

SHAPES = {
    "x": "int8: N D", "w": "int8: D K", "b": "int32: K", "y": "int8: N K", "step": "int64: 1", "sums": "int32: E",
    "f": "E", "q": "int8: E", "back": "E", "wide": "int32: E", "cut": "int8: E", "order": "int32: E",
    "place": "int32: E",
}  # fmt: skip


@declare(SHAPES, items="N K", writes="y", sums="D")
def dot(t, y, x, w, b=None, multiplier=1583594044, right=9):
    """Y (N, K) = clamp((Σ_d x·w + b)·multiplier / 2^(31 + right)), with one rounding, a half upwards."""
    n, k = divmod(t, y.shape[1])
    total = np.int32(0)
    if b.shape[0]:
        total += b[k]
    for d in range(x.shape[1]):
        total += np.int32(x[n, d]) * np.int32(w[d, k])
    scaled = (np.int64(total) * multiplier + (1 << (30 + right))) >> (31 + right)
    scaled = 127 if scaled > 127 else scaled
    scaled = -128 if scaled < -128 else scaled
    y[n, k] = y.dtype.type(scaled)


@declare(SHAPES, items="E", writes="q back wide cut")
def convert_all(t, q, back, wide, cut, f, sums, per_unit=4.0, unit=0.25):
    """Q (E,) of f (E,), rounded and cut off at ±127, and back; wide (E,) of q; the low byte of sums (E,)."""
    v = f[t] * per_unit
    v = v if v < 127 else f.dtype.type(127)
    v = v if v > -127 else f.dtype.type(-127)
    whole = np.int8(np.rint(v))
    q[t] = whole
    back[t] = unit * back.dtype.type(whole)
    wide[t] = np.int32(whole)
    cut[t] = np.int8(sums[t] & 127)


@declare(SHAPES, items="E", writes="wide")
def round_at_random(t, wide, sums, step, bits=8):
    """Wide (E,) = sums / 2^bits, rounded up as often as the part below asks for: stochastic rounding."""
    draw, _ = words(step[0], 7, step[0], t)
    wide[t] = (sums[t] + (draw & ((1 << bits) - 1))) >> bits


@declare(SHAPES, items="E", writes="place", indices={"order": "E"})
def addressed(t, place, wide, order):
    """Place (E,): arithmetic on the index order (E,) finds an element of wide (E,), which is doubled."""
    place[t] = wide[(order[t] * 3 + 1) % wide.shape[0] // 1] << 1


COSTS = {
    "dot": N * K * (D * (2 * load + imac) + has("b") * (load + iadd) + imul + iadd + shift + 2 * cmp + convert + store),
    "convert_all": E * (2 * load + 2 * mul + 2 * cmp + 4 * convert + logic + 4 * store),
    # of dropout's draw the last shift and comparison are left out; its seed and step are one array of two loads here
    "round_at_random": E * (3 * load + dropout.draw - shift - cmp + logic + iadd + shift + convert + store),
    "addressed": E * (2 * load + shift + store),
}
PASSES = {p.name: p for p in (dot, convert_all, round_at_random, addressed)}
INT8, INT32 = np.iinfo(np.int8), np.iinfo(np.int32)


@pytest.fixture(autouse=True)
def costs():
    cost.register("test_integer_units", **COSTS)
    yield
    for key in [key for key in cost.COSTS if key[0] == "test_integer_units"]:
        del cost.COSTS[key]


def requantized(total, multiplier, right):
    """What `dot` makes of a sum, on Python's integers."""
    return max(-128, min(127, (total * multiplier + 2 ** (30 + right)) // 2 ** (31 + right)))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("n, d, k, right", [(1, 1, 1, 0), (3, 70, 5, 9), (2, 300, 4, 5)])
def test_an_int8_product_is_exact(n, d, k, right, bias):
    rng = np.random.default_rng(d)
    x, w = rng.integers(-128, 128, (n, d), np.int8), rng.integers(-128, 128, (d, k), np.int8)
    b = rng.integers(-(2**20), 2**20, k, np.int32)
    y = dot(x, w, b if bias else None, right=right)
    assert y.dtype == np.int8
    for i in range(n):
        for j in range(k):
            total = sum(int(x[i, e]) * int(w[e, j]) for e in range(d)) + bias * int(b[j])
            assert y[i, j] == requantized(total, 1583594044, right)


def test_one_rounding_as_published():
    """TensorFlow #25087: of 7984 a single rounding makes 11, a double one 12."""
    x, w = np.array([[127] * 62 + [110]], np.int8), np.array([[127 // 2]] * 63, np.int8)
    w[:] = 1
    assert dot(x, w).tolist() == [[11]]


def test_conversions_are_exact():
    f = np.array([0.125, 0.375, -0.3, 40.0, -40.0, 31.7], np.float32)
    sums = np.array([0, 127, 128, -1, 2**31 - 1, -(2**31)], np.int32)
    q, back, wide, cut = convert_all(f, sums)
    whole = [0, 2, -1, 127, -127, 127]
    assert q.tolist() == wide.tolist() == whole and back.tolist() == [v / 4 for v in whole]
    assert cut.tolist() == [int(v) & 127 for v in sums]


def test_stochastic_rounding_is_exact():
    sums, step = np.arange(-3000, 3000, 7, dtype=np.int32), np.array([5], np.int64)
    found = round_at_random(sums, step)
    draws = [words(5, 7, 5, t)[0] & 255 for t in range(len(sums))]
    assert found.tolist() == [(int(v) + r) >> 8 for v, r in zip(sums, draws, strict=True)]
    assert abs(np.mean(found - sums / 256)) < 0.05


@given(n=st.integers(1, 3), d=st.integers(1, 9), k=st.integers(1, 4), e=st.integers(1, 9), bias=st.booleans())
def test_counts_are_those_of_the_formulas(n, d, k, e, bias):
    for name, passed in PASSES.items():
        sizes = {letter: size for letter, size in zip("NDKE", (n, d, k, e), strict=True) if letter in passed.letters()}
        given_ = ["b"] if bias and name == "dot" else []
        for full in (False, True):
            compared = drawn.compare(name, passed, sizes, passed.attrs({}), given_, full)
            assert compared.ok and compared.full == full, str(compared)
            assert count(passed, sizes, passed.attrs({}), given_, every_item=full) == compared.counted


def test_a_product_accumulate_is_one_imac():
    found = count(dot, {"N": 2, "D": 11, "K": 3}, dot.attrs({}))
    assert found["imul"] == 6 * (11 + 1) and found["iadd"] == 6 * (11 + 1)
    assert "mul" not in found and "add" not in found
    cost.register("test_integer_units", product=N * K * D * (imac + mac))
    assert cost.show("test_integer_units", "product").splitlines()[1:] == ["  mac   D*K*N", "  imac  D*K*N"]


I8, I32, I64, U8 = (np.dtype(t) for t in (np.int8, np.int32, np.int64, np.uint8))


@pytest.mark.parametrize(
    "body, dtypes, counted, result",
    [
        (lambda a, b: a + b, (I8, I8), {"iadd": 1}, I8),
        (lambda a, b: 3 - a * b, (I8, I32), {"imul": 1, "iadd": 1}, I32),
        (lambda a, b: np.int32(7) - -a, (I8, I8), {"iadd": 2}, I32),
        (lambda a, b: a // 3 + 7 % b, (I32, I32), {"idiv": 2, "iadd": 1}, I32),
        (lambda a, b: divmod(a, 3)[1] + divmod(a, b)[0], (I32, I32), {"idiv": 2, "iadd": 1}, I32),
        (lambda a, b: ~((a >> 2) | (1 << b)) & 7 ^ a, (I32, I32), {"shift": 2, "logic": 4}, I32),
        (lambda a, b: np.int64(a) * np.int64(b), (I32, I8), {"imul": 1}, I64),
        (lambda a, b: np.int8(a), (I32, I8), {"convert": 1}, I8),
        (lambda a, b: np.int8(a), (U8, I8), {"convert": 1}, I8),
        (lambda a, b: int(np.int32(a)), (U8, I8), {}, I64),
        (lambda a, b: round(float(a)) + int(float(b)), (I32, I32), {"convert": 4, "iadd": 1}, I64),
        (lambda a, b: max(min(a, 127), -128), (I32, I32), {"cmp": 2}, I32),
        (lambda a, b: np.int8(max(a, 5)) + min(-7, b), (I32, I8), {"cmp": 2, "convert": 1, "iadd": 1}, I8),
        (lambda a, b: np.float32(max(float(a), 2.5)) - min(1.5, float(b)), (I32, I8),
         {"convert": 2, "cmp": 2, "add": 1}, float),
        (lambda a, b: abs(a) if np.int32(5) <= a or a != b else b, (I32, I32), {"cmp": 2}, I32),
        (lambda a, b: a * 0.5 + np.float32(2) / b, (I32, I32), {"convert": 2, "mul": 1, "div": 1, "add": 1}, float),
        (lambda a, b: a / b, (I32, I32), {"convert": 2, "div": 1}, float),
        (lambda a, b: np.sqrt(a) - np.floor(a), (I32, I32), {"convert": 2, "sqrt": 1, "add": 1}, float),
        (lambda a, b: range(9)[a] + [4, 5][b], (I32, I32), {}, None),
    ],
)  # fmt: skip
def test_what_counts_as_what(body, dtypes, counted, result):
    tally = Counter()
    found = counting_body(body)(*(Integer(0, dtype, tally) for dtype in dtypes))
    assert tally == counted
    if result is not None:
        assert isinstance(found, Float) if result is float else found.dtype == result
    else:
        assert type(found) is int


def test_values_wrap_as_their_types_do():
    cast = counting_body(lambda a: (np.int8(a), np.uint8(a), np.int32(a)))
    for value in (200, -1, 255, -128):
        found = [each.value for each in cast(Integer(value, I64, Counter()))]
        assert found == [int(np.array(value).astype(t)) for t in (np.int8, np.uint8, np.int32)]


def test_an_element_that_is_an_index_counts_nothing_as_such():
    @declare(SHAPES, items="E", writes="place")
    def inside(t, place, wide):
        """What the first element tells the place of."""
        place[t] = wide[wide[t]]

    @declare(SHAPES, items="E", writes="place")
    def outside(t, place, wide):
        """One element too far."""
        place[t] = wide[wide[t] + wide.shape[0]]

    assert count(inside, {"E": 4}, {}) == {"load": 8, "store": 4}
    with pytest.raises(IndexError, match=r"index \(4,\) is outside an array of shape \(4,\)"):
        count(outside, {"E": 4}, {})


def test_what_has_no_unit_is_an_error():
    tally = Counter()
    a, b, f = Integer(1, I64, tally), Integer(1, np.dtype(np.uint64), tally), Float(1.0, tally)
    with pytest.raises(TypeError, match="int64 and uint64 have no common integer type: convert one of them"):
        a + b
    with pytest.raises(TypeError, match="unsupported operand"):
        a**2
    known = "of what it reads a body may take exp, expm1, log, log1p, sqrt, tanh, erf"
    for body, name in ((lambda v: np.sin(v), "numpy.sin"), (lambda v: math.sin(v), "math.sin"), (_sine, "math.sin")):
        with pytest.raises(TypeError, match=f"^{name} has no unit of cost: {known}$"):
            counting_body(body)(f)
        assert counting_body(body)(0.5) == math.sin(0.5)


def _sine(number):
    return sin(number)


@pytest.mark.parametrize(
    "body, counted, value",
    [
        (lambda v: -v, {"add": 1}, -0.5),
        (lambda v: math.tanh(v) + np.tanh(v), {"tanh": 2, "add": 1}, 2 * math.tanh(0.5)),
        (
            lambda v: math.erf(v) * math.exp(-v),
            {"erf": 1, "mul": 1, "exp": 1, "add": 1},
            math.erf(0.5) * math.exp(-0.5),
        ),
        (lambda v: tanh(v), {"tanh": 1}, math.tanh(0.5)),
    ],
)
def test_what_a_float_counts(body, counted, value):
    tally = Counter()
    assert counting_body(body)(Float(0.5, tally)).value == value
    assert tally == counted


def test_integers_are_no_flops():
    units = Counter(count(dot, {"N": 2, "D": 11, "K": 3}, dot.attrs({})))
    assert predict.arithmetic(units) == 0 and predict.arithmetic(units + Counter(mul=2, add=1)) == 3


@fast
def fast_dot(y, x, w, b, multiplier, right):
    """`dot` with a bias, two samples at a time and an odd one with itself: more than is counted."""
    samples = x.shape[0]
    for t in prange((samples + 1) // 2):
        first = 2 * np.int64(t)
        second = min(first + 1, samples - 1)
        for k in range(y.shape[1]):
            one, two = np.int32(b[k]), np.int32(b[k])
            for d in range(x.shape[1]):
                v = np.int32(w[d, k])
                one += np.int32(x[first, d]) * v
                two += np.int32(x[second, d]) * v
            for n, total in ((first, one), (second, two)):
                scaled = (np.int64(total) * multiplier + (1 << (30 + right))) >> (31 + right)
                y[n, k] = y.dtype.type(min(max(scaled, -128), 127))


@pytest.mark.parametrize("n", [3, 4])
def test_what_a_fast_kernel_executes_is_counted(n):
    x, w, b = np.full((n, 11), 3, np.int8), np.full((11, 5), -2, np.int8), np.full(5, 7, np.int32)
    y = np.zeros((n, 5), np.int8)
    fast_dot(y, x, w, b, 1583594044, 0)
    assert np.array_equal(y, dot(x, w, b, right=0))
    counted = Ops.of(count(dot, {"N": n, "D": 11, "K": 5}, dot.attrs({}), ["b"]))
    each = 5 * 13  # of a sample: its products, the bias or the multiplier, its rounding
    assert counted == IMUL * (n * 5 * 12) + IADD * (n * each)
    executed = executing.run(fast_dot, (y, x, w, b, 1583594044, 0))
    assert executed == IMAC * ((n + n % 2) * 5 * 12)  # the bias is what the sum begins with
    assert executed.imul == counted.imul * (n + n % 2) / n and executed.mul == executed.add == 0


@fast
def fast_addressed(place, wide, order):
    """`addressed`, with a product where it shifts."""
    for t in prange(place.shape[0]):
        i = np.int64(t)
        place[i] = wide[(order[i] * 3 + 1) % wide.shape[0]] * 2


def test_a_kernels_indices_are_those_of_its_passes():
    buffers = {a: Buffer(a, (6,), np.dtype(np.int32), "arena") for a in addressed.arrays}
    call = Call("forward", "one", addressed, buffers, {}, {"E": 6})
    reads = (buffers["wide"], buffers["order"])
    launch = Launch("one", fast_addressed, tuple(buffers.values()), reads, (buffers["place"],), (call,))
    assert executing.launched(launch, 1) == IMUL * 6
    assert executing.run(fast_addressed, executing.arguments(launch, 1)) == IMUL * 12 + IADD * 6


def net(dtype=np.float32):
    g = ri.Graph("dropped", (4, 4), 2)
    g.linear("fc", g.dropout("drop", g.relu("act", g.linear("hidden", g.flatten("flat", INPUT), 6))), 3)
    return ri.compile(g, ri.Plan("all"), 2, dtype=dtype)


def test_integers_have_energy_and_what_has_none_is_named():
    e = costmodel.estimate(net(), device="raspberry-pi-4")
    units, found = e.units, energy.joules(e)["counted"]
    assert units["imul"] == 2 * 19 * 12  # forward and backward: a draw for each element
    priced = 0.9 * units["add"] + 3.7 * units["mul"] + 0.1 * units["iadd"] + 3.1 * units["imul"]
    assert found["operations"] == pytest.approx(0.5319e-12 * priced)
    arithmetic = {u: n for u, n in units.items() if u not in ("load", "store", "add", "mul", "iadd", "imul")}
    assert found["left_out"] == arithmetic and {"shift", "logic", "cmp", "exp"} <= set(arithmetic)


def test_floats_of_another_width_have_no_published_energy():
    e = costmodel.estimate(net(np.float64))
    found = energy.joules(e)["counted"]
    assert found["left_out"]["mul"] == e.units["mul"] and found["left_out"]["add"] == e.units["add"]
    assert energy.joules(costmodel.estimate(net()))["counted"]["left_out"].keys().isdisjoint({"mul", "add"})


def test_the_cost_command_lists_integer_units():
    record = command.run(command.CostSettings(model="lenet5", batch=2))
    backward = record["other_units"]["backward"]
    assert backward["shift"] == backward["logic"] > 0
    notes = show_cost.notes(record)
    named = next(line for line in notes if line.startswith("other operations of the step: "))
    assert " shift" in named and " logic" in named and "load" not in named
