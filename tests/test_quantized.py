"""Parameters and tensors of integers: they compute, count and weigh what they hold, and come back with their scales."""

from types import SimpleNamespace

import numpy as np
import pytest
from whole_cases import CLASSES, I8, I16, I32, OWN, STEP, C, H, N, W, by_hand, net, registered, samples

import refimpl as ri
from costmodel import closed_form, estimate, predict
from costmodel.advice import advice, budget, energy, screening
from costmodel.device import device as devices
from costmodel.device import process
from gradledger import cost as command
from refimpl import models
from refimpl.compiler.compose import Composer
from refimpl.compiler.ir import Buffer, Call
from refimpl.graph import Graph, Parameter
from refimpl.kernels import quantized
from refimpl.kernels.passes import declare
from refimpl.kernels.quantized import Quantized
from refimpl.training.state import initial
from validation.instruments import counting, drawn, drawn_passes, measured

BACKENDS = ("reference", "fast")


@pytest.fixture(scope="module", autouse=True)
def own():
    with registered():
        yield


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("backend", BACKENDS)
def test_it_computes_in_integers_and_the_classifier_trains(backend, bits):
    g, (x, y) = net(bits=bits), samples(9)
    p = ri.compile(g, ri.Plan(step=STEP), N, backend=backend)
    t = ri.Trainer(p, seed=4)
    before = {name: a.copy() for name, a in t.parameters.items()}
    features = by_hand(g, x)
    assert len(np.unique(features)) > 20  # not all at the ends
    np.testing.assert_allclose(t.predict(x), features @ before["fc.w"] + before["fc.b"], rtol=1e-5, atol=1e-5)
    exact = ri.Trainer(ri.compile(g, None, N, backend=backend, dtype=np.float64), seed=4)
    np.testing.assert_allclose(exact.predict(x), features @ exact.parameters["fc.w"], rtol=1e-12, atol=1e-12)
    losses = t.fit(x, y, 30)
    assert losses[-1] < 0.5 * losses[0]
    assert {n for n, a in t.parameters.items() if (a != before[n]).any()} == {"fc.w", "fc.b"}
    assert {n: a.dtype for n, a in t.parameters.items() if n.startswith("own")} == {
        n: a.dtype if a.dtype.kind != "f" else np.float32 for n, a in g.weights.items() if n.startswith("own")
    }
    assert not [c.name for c in p.step.calls["backward"] if c.node in ("own", "wide", "flat")]


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_byte_is_where_it_was_placed(backend, bits):
    p = ri.compile(net(bits=bits), ri.Plan(step=STEP), N, backend=backend)
    maps, features = N * H * W * C, H * W * C
    assert p.constant_bytes == bits // 8 * C + 4 * (3 * C + 2 + 1 + 1)  # w; scales, b, multiplier; zeros; two scales
    assert p.state_bytes == 2 * 4 * (features * CLASSES + CLASSES)
    sizes = {b.name: b.nbytes for b in p.lifetimes}
    assert {n: sizes[n] for n in ("input", "own.sums", "own", "wide")} == {
        "input": maps, "own.sums": 4 * maps, "own": maps, "wide": 4 * maps
    }  # fmt: skip
    x, y = samples()
    t = ri.Trainer(p, seed=1)
    assert measured.touched_bytes(p, x, y, t.parameters) == p.peak_bytes
    found = budget.terms(p)
    assert sum(found["constants"].values()) == found["constants"]["others"] == p.constant_bytes
    assert sum(found["state"].values()) == p.state_bytes and sum(found["arena"].values()) == p.peak_bytes
    assert found["arena_most"]["input"] == maps + 8 * N and found["arena_most"]["indices"] == 0
    assert found["arena_most"]["activations"] >= 5 * maps
    terms = process.terms(p, process.Base(0, 0), x.nbytes, N)
    assert terms["weights"] == p.constant_bytes + p.state_bytes // 2 == sum(a.nbytes for a in t.parameters.values())
    assert terms["batch"] == maps and terms["pretrained"] == sum(a.nbytes for a in p.graph.weights.values())
    assert sum(q.nbytes(np.float32) for q in p.graph.parameters.values()) == terms["weights"]


@pytest.mark.parametrize("bits", [8, 16])
def test_it_is_counted_and_priced(bits):
    p = ri.compile(net(bits=bits), ri.Plan(step=STEP), N)
    for n in (N, 1):
        for call in p.step:
            assert dict(predict.call_counts(call, n)) == counting.count_call(call, n), call.name
    e = estimate(p, device="raspberry-pi-4")
    elements = N * H * W * C
    assert e.units["imul"] == 2 * elements and e.units["iadd"] == 5 * elements
    assert 0 < e.seconds["low"] < e.seconds["high"] < 1
    moved = {launch.name: sum(b.nbytes for b in launch.buffers) for launch in p.order}
    assert moved["own scale8.multiply"] == 5 * elements + bits // 8 * C + 4 * C + 4
    assert all(
        drawn.compare_pass(n, s).ok for n in drawn_passes.passes() if n.split(".")[0] in own_names() for s in range(5)
    )


def test_the_closed_form_of_its_memory_is_that_of_its_arrays():
    form, p = closed_form.of(net(), ri.Plan(step=STEP), N, fixed=("H", "W")), ri.compile(net(), ri.Plan(step=STEP), N)
    found = {name: int(formula.subs({s: N for s in formula.free_symbols})) for name, formula in form.memory.items()}
    assert found["weights"] == p.constant_bytes + p.state_bytes // 2 and found["optimizer"] == p.state_bytes // 2
    p = ri.compile(net(), ri.Plan(step=STEP), N, backend="reference")
    assert found["saved"] == p.saved_bytes


def test_a_call_is_counted_on_the_dtypes_that_it_has():
    @declare({"w": "int8|int16: E", "y": "int8: E"}, items="E", writes="y")
    def cut_off(t, y, w):
        """Y (E,), the low bytes of w (E,): of int8 nothing is to be converted."""
        y[t] = np.int8(w[t])

    for dtype, converted in ((I8, {}), (I16, {"convert": 6})):
        arrays = {"w": Buffer("w", (6,), dtype, "constant"), "y": Buffer("y", (6,), I8, "arena")}
        found = counting.count_call(Call("forward", "one", cut_off, arrays, {}, {"E": 6}), 1)
        assert found == {"load": 6, "store": 6} | converted


def test_the_advice_weighs_what_it_is():
    g, p = net(), ri.compile(net(), ri.Plan(step=STEP), N, backend="reference")
    weights = p.constant_bytes + p.state_bytes // 2
    device = SimpleNamespace(ram_bytes=1, flash_bytes=None, base=process.Base(0, 0))
    shared = advice.Search._share(SimpleNamespace(graph=g, device=device), 0.0, N, "float32")
    assert shared == weights + 2 * N * H * W * C
    memory, _ = screening.Screen(g, ri.Plan(step=STEP), None).at([(N, None)], devices.find(devices.REFERENCE), 1)
    assert memory[0, 0] == p.state_bytes + p.lower_bound[0]


def own_names():
    return {module.__name__.rpartition(".")[2] for module in OWN}


def test_a_product_of_8_bits_costs_less_energy():
    p = ri.compile(net(), ri.Plan(step=STEP), N)
    calls = {call.name: call for call in p.step}
    assert energy.widest(calls["wide widen8.forward"]) == 32  # its zero point
    x, w, y = (replace_dtype(p, dtype) for dtype in (I8, I16, I32))
    assert x < w == y


def replace_dtype(program, dtype):
    """Joules of the operations where every array that the integer products read is of a dtype."""
    e = estimate(program, device="raspberry-pi-4")
    call = next(c for c in program.step if c.name == "own scale8.multiply")
    held = [(b, b.dtype) for b in call.reads]
    for b, _ in held:
        b.dtype = dtype
    try:
        return energy.joules(e, lambda c: c is call)["counted"]["operations"]
    finally:
        for b, before in held:
            b.dtype = before


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_ledger_prints_it(backend):
    lines = str(ri.compile(net(), ri.Plan(step=STEP), N, backend=backend)).splitlines()
    w = next(line for line in lines if "reads  own.w " in line)
    assert w.split()[2:] == ["5", "int8", "5", "B", "constant,", "scale", "own.w_scale"]
    y = next(line for line in lines if line.split()[:2] == ["writes", "own"])
    assert y.split()[2:6] == [f"{N * H * W}x{C}", "int8", f"{N * H * W * C}", "B"]
    assert y.endswith(", scale own.y_scale, zero point own.y_zero")


def test_views_keep_what_they_stand_for():
    g = net()
    p = ri.compile(g, ri.Plan(step=STEP), N)
    runner = ri.training.runner.Runner(p, initial(p, 0))
    w = p.step.parameters["own.w"]
    real = g.weights["own.w"] * g.weights["own.w_scale"].astype(np.float32).astype(float)
    np.testing.assert_array_equal(runner.real(w), real)
    np.testing.assert_array_equal(runner.real(w.part(2, (1, 3)).reshape((3, 1))), real[2:].reshape(3, 1))
    x = p.step.host_writes["input"]
    assert x.quantized.scale is p.step.parameters["x_scale"] and x.quantized.zero_point.dtype == I32
    values, _ = samples()
    runner.write("input", N, values)
    np.testing.assert_allclose(runner.real(x, 2), 0.05 * (values[:2].astype(float) + 9), rtol=1e-7)


def test_a_scale_along_the_first_axis_of_a_parameter_and_one_that_nobody_reads():
    g = Graph("free")
    g.add_parameter("rows", Parameter((2,), "ones"))
    g.add_parameter("table", Parameter((2, 3), "ones", dtype=I16, quantized=Quantized("rows", axis=0)))
    g.add_node("narrow", "narrow8", (g.add_input("x", (3,), I32),), {}, {}, {"y": Quantized("e")})
    g.weights = {"rows": np.array([0.5, 2], np.float32)}
    p = ri.compile(g, None, 2)
    runner = ri.training.runner.Runner(p, initial(p, 0))
    table = p.step.parameters["table"]
    assert runner.real(table.reshape((3, 2))).tolist() == [[0.5, 0.5], [0.5, 2], [2, 2]]
    runner.write("x", 1, np.array([[1000, -8, 4]], np.int32))
    runner.run("forward", 1)
    assert runner.real(p.step.host_reads["output"], 1).tolist() == [
        [125 * 8, -1 * 8, 1 * 8]
    ]  # by e, which no node reads


def test_a_scale_along_any_axis_is_that_of_its_elements():
    rng = np.random.default_rng(0)
    q, zero = rng.integers(-128, 128, (2, 3, 4), np.int8), np.array([3], np.int16)
    for axis in range(3):
        scale, each = rng.uniform(1, 2, q.shape[axis]), quantized.each(q.shape, axis)
        along = scale.reshape([-1 if i == axis else 1 for i in range(3)])
        expected = along * (q.astype(float) - 3)
        np.testing.assert_array_equal(quantized.real(q, scale, zero, each), expected)
        np.testing.assert_array_equal(
            quantized.real(q.reshape(6, 4)[1:], scale, zero, each, 4), expected.reshape(6, 4)[1:]
        )
        assert (quantized.whole(expected, I8, scale, zero, each) == q).all()
        chosen = quantized.symmetric(expected, I8, scale, each)
        others = tuple(i for i in range(3) if i != axis)
        np.testing.assert_allclose(chosen, abs(expected).max(others) / 127)
    exponents = quantized.symmetric(np.array([[1.0, -127.5], [0, 0]]), I8, np.zeros(2, np.int8), 2)
    assert exponents.tolist() == [1, 0] and quantized.real(q, np.array([-1], np.int8)).tolist() == (q / 2).tolist()


def test_eq_5_scale_of_weights_takes_the_largest_to_the_largest_whole_number():
    w = np.array([0.25, -3.0, 1.5, 0.0])
    for dtype in (np.int8, np.int16):
        scale = quantized.symmetric(w, np.dtype(dtype), np.zeros(1), 4)
        bits = np.iinfo(dtype).bits
        assert scale.tolist() == [3.0 / (2 ** (bits - 1) - 1)]
        q = quantized.whole(w, np.dtype(dtype), scale, None, 4)
        assert q.tolist() == [round(v / scale[0]) for v in w] and q.min() == -np.iinfo(dtype).max


def test_the_cost_command_weighs_it(monkeypatch):
    monkeypatch.setitem(models.MODELS, "whole", net)
    record = command.run(command.CostSettings(model="whole", batch=N))
    p = ri.compile(net(), ri.Plan("all"), N)
    layers = {layer["name"]: layer for layer in record["layers"]}
    assert layers["own"]["weight_bytes"] == C + 4 * (3 * C + 2)
    assert record["weight_bytes"] == sum(b.nbytes for b in p.step.parameters.values())
    assert record["peak_bytes"] == p.peak_bytes
    assert record["other_units"]["forward"]["imul"] == 2 * N * H * W * C


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_scale_that_a_step_finds_or_changes_is_an_array_too(backend):
    g = Graph("shared exponents")
    x = g.add_input("x", (3,), I32)
    q = g.add_node("narrow", "narrow8", (x,), {}, {}, {"y": Quantized("e")})
    params = {
        "w": Parameter((1,), "he", 1, dtype=I8, quantized=Quantized("w_exponent")),
        "w_exponent": Parameter((1,), "zeros"),
    }
    g.add_node("weigh", "weigh8", (q, "narrow.e"), {}, params)
    assert g.tensors[q].quantized == Quantized("narrow.e") and g.parameters["weigh.w_exponent"].dtype == I32
    g.weights = {"weigh.w": np.array([120], np.int8), "weigh.w_exponent": np.array([0], np.int32)}
    p = ri.compile(g, ri.Plan(loss="mse", step=ri.Backprop(ri.SGD(lr=2.0**-17))), 4, backend=backend)
    assert p.step.parameters["weigh.w_exponent"].region == "state" and p.state_bytes == 1 + 4
    narrow = next(c for c in p.step if c.name == "narrow narrow8.forward")
    scale = narrow.arrays["y"].quantized.scale
    assert scale is narrow.arrays["e"] and scale.region == "arena" and p.step.parameters["weigh.w"].quantized.each == 1
    for call in p.step:
        assert dict(predict.call_counts(call, 3)) == counting.count_call(call, 3), call.name
    t = ri.Trainer(p)
    values = np.array([[1000, -2000, 300], [7, 0, -1]], np.int32)
    y = t.predict(values)
    kept = (values + 8) >> 4
    np.testing.assert_array_equal(y, kept * 120 * 16)
    t.train_step(values, y + np.array([1000, -2000, 300], np.float32), 1)
    assert t.parameters["weigh.w"].tolist() == [127] and t.parameters["weigh.w_exponent"].tolist() == [0]
    t.train_step(values, y, 1)
    assert t.parameters["weigh.w_exponent"].tolist() == [1]
    assert {"weigh.w_exponent", "weigh.w"} <= t.resume_arrays().keys()
    assert estimate(p).seconds["mid"] > 0 and process.with_a_batch(p, process.Base(0, 0))["batch"] == 4 * 4 * 3
    assert measured.touched_bytes(p, values, y, t.parameters) == p.peak_bytes


def test_an_integer_mini_batch_can_be_chosen_from():
    g = net()
    shared = Composer(g, ri.Plan(step=STEP), N, g.size, np.float32).choosing()
    assert shared.stream.dtype == I8
    p = ri.compile(g, ri.Plan(step=STEP, instances=ri.HardExamples(0.5)), N)
    t = ri.Trainer(p, seed=1)
    x, y = samples()
    t.train_step(x, y, 1)
    assert measured.touched_bytes(p, x, y, t.parameters) == p.peak_bytes
    assert next(b for b in p.lifetimes if b.name == "selected").nbytes == x.nbytes
