"""Parameters and tensors of integers: they compute, count and weigh what they hold, and come back with their scales."""

import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors
from own import narrow8, round8, scale8, weigh8, widen8

import refimpl as ri
from costmodel import closed_form, estimate, predict
from costmodel.advice import budget, energy
from costmodel.device import process
from gradledger import cost as command
from refimpl import models
from refimpl.compiler.compose import Composer
from refimpl.graph import INPUT, Graph, Parameter, forget_operator, register_operator
from refimpl.kernels import quantized
from refimpl.kernels.passes import declare
from refimpl.kernels.quantized import Quantized
from refimpl.storage import checkpoint
from refimpl.surgery import cut, prune
from refimpl.training.state import initial
from validation.instruments import counting, drawn, drawn_passes, measured

BACKENDS = ("reference", "fast")
OWN = (scale8, widen8, round8, narrow8, weigh8)
H, W, C, N, CLASSES = 3, 2, 5, 4, 3
I8, I16, I32 = (np.dtype(name) for name in ("int8", "int16", "int32"))
STEP = ri.Backprop(ri.SGD(lr=0.02, momentum=0.9))


@pytest.fixture(scope="module", autouse=True)
def own():
    for module in OWN:
        register_operator(module)
    yield
    for module in OWN:
        forget_operator(module.__name__.rpartition(".")[2])


def net(classes=CLASSES, size=(H, W), channels=C, bits=8, seed=3):
    """Whole maps and a layer that scales their channels in integers, and a float classifier, which alone trains."""
    g, dtype = Graph("whole"), np.dtype(f"int{bits}")
    g.add_parameter("x_scale", Parameter((1,), "ones"))
    g.add_parameter("x_zero", Parameter((1,), "zeros", dtype=I32))
    x = g.add_input(INPUT, (*size, channels), I8, Quantized("x_scale", "x_zero"))
    vector, single = Parameter((channels,), "zeros"), Parameter((1,), "zeros")
    params = {
        "w": Parameter((channels,), "he", channels, dtype=dtype, quantized=Quantized("w_scale", axis=0)),
        "w_scale": replace(vector, init="ones"), "b": vector, "multiplier": vector, "x_zero": "x_zero",
        "y_zero": single, "y_scale": replace(single, init="ones"),
    }  # fmt: skip
    scaled = g.add_node("own", "scale8", (x,), {"right": 3}, params, {"y": Quantized("y_scale", "y_zero")})
    flat = g.flatten("flat", scaled)
    q = g.tensors[flat].quantized
    wide = g.add_node("wide", "widen8", (flat,), {}, {"scale": q.scale, "zero": q.zero_point})
    g.linear("fc", wide, classes)
    rng = np.random.default_rng(seed)
    most = 127 if bits == 8 else 900
    g.weights = {
        "x_scale": np.array([0.05], np.float32), "x_zero": np.array([-9], np.int32),
        "own.w": rng.integers(-most, most, channels).astype(dtype),
        "own.w_scale": rng.uniform(0.5, 2, channels) / most,
        "own.b": rng.integers(-3000, 3000, channels, np.int32),
        "own.multiplier": rng.integers(2**29, 2**30, channels, np.int32) * 8 // most,
        "own.y_scale": np.array([0.04], np.float32), "own.y_zero": np.array([11], np.int32),
    }  # fmt: skip
    return g


def samples(n=N, seed=1):
    rng = np.random.default_rng(seed)
    return rng.integers(-128, 128, (n, H, W, C), np.int8), rng.integers(0, CLASSES, n)


def by_hand(g, x):
    """The features of the classifier, from plain integers."""
    w = g.weights
    found = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        k = index[-1]
        total = (int(x[index]) - int(w["x_zero"][0])) * int(w["own.w"][k]) + int(w["own.b"][k])
        y = (total * int(w["own.multiplier"][k]) + 2**33) // 2**34 + int(w["own.y_zero"][0])
        found[index] = float(w["own.y_scale"][0]) * (max(-128, min(127, y)) - int(w["own.y_zero"][0]))
    return found.reshape(len(x), -1)


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


def test_what_has_no_values_is_drawn_into_its_scale():
    g = net()
    for name in ("own.w", "own.w_scale"):
        del g.weights[name]
    found = initial(ri.compile(g, ri.Plan(step=STEP), N), 7)
    assert found["own.w"].dtype == I8 and set(abs(found["own.w"])) == {127}  # each is the largest of its channel
    g.weights["own.w_scale"] = np.full(C, 0.01, np.float32)
    again = initial(ri.compile(g, ri.Plan(step=STEP), N), 7)
    drawn_ = found["own.w_scale"] * found["own.w"]
    np.testing.assert_array_equal(again["own.w"], np.rint(drawn_ / np.float64(np.float32(0.01))).clip(-128, 127))
    g.parameters["own.w"] = replace(g.parameters["own.w"], quantized=None)
    with pytest.raises(
        ValueError, match="own.w of whole holds int8 and cannot be drawn: give the graph weights for it"
    ):
        initial(ri.compile(g, ri.Plan(step=STEP), N), 7)


def test_a_file_keeps_dtypes_scales_and_zero_points(tmp_path, monkeypatch):
    g, (x, y) = net(), samples()
    p = ri.compile(g, ri.Plan(step=STEP), N)
    t = ri.Trainer(p, seed=2)
    t.fit(x, y, 3)
    path = tmp_path / "whole.safetensors"
    t.save(path)
    arrays, notes = checkpoint.load(path, ours=True)
    assert {n: a.dtype for n, a in arrays.items()} == {n: b.dtype for n, b in p.step.parameters.items()}
    assert json.loads(notes["quantized"]) == {"own.w": {"scale": "own.w_scale", "zero_point": None, "axis": 0}}
    with safetensors.safe_open(path, "numpy") as file:
        assert file.get_tensor("own.w").dtype == I8 and file.get_tensor("own.w").nbytes == C
    assert sum(a.nbytes for a in arrays.values()) == sum(b.nbytes for b in p.step.parameters.values())
    again = net(seed=99)
    again.weights = arrays
    np.testing.assert_array_equal(ri.Trainer(ri.compile(again, ri.Plan(step=STEP), N)).predict(x), t.predict(x))
    monkeypatch.setitem(models.MODELS, "whole", net)
    from gradledger.models import pretrained
    from refimpl.data import Dataset

    data = object.__new__(Dataset)
    for field, value in (("name", "own"), ("classes", ["a", "b", "c"]), ("x_train", np.zeros((1, H, W, C)))):
        object.__setattr__(data, field, value)
    loaded = pretrained(str(path), data, None, None)
    assert all((loaded.weights[n] == a).all() and loaded.weights[n].dtype == a.dtype for n, a in arrays.items())
    checkpoint.save(path, arrays | {"own.w": arrays["own.w"].astype(np.int16)}, notes)
    with pytest.raises(checkpoint.CheckpointError, match="own.w of .* holds int16, but int8 is needed"):
        pretrained(str(path), data, None, None)


def test_a_run_goes_on_from_its_arrays():
    x, y = samples(9)
    p = ri.compile(net(), ri.Plan(step=STEP), N)
    whole, first, second = (ri.Trainer(p, seed=3) for _ in range(3))
    whole.fit(x, y, 4)
    first.fit(x, y, 2)
    second.resume(first.resume_arrays(), first.step, first.losses)
    second.fit(x, y, 4)
    assert all((second.parameters[n] == a).all() for n, a in whole.parameters.items())
    wrong = first.resume_arrays() | {"own.w": first.parameters["own.w"].astype(float)}
    with pytest.raises(ValueError, match=r"the saved run has no array own.w of int8 \(5,\): it is of another plan"):
        second.resume(wrong, 0, [])


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


def test_copies_of_a_net_keep_it():
    g = Graph("deeper")
    scales = [g.add_parameter(n, Parameter((1,), "ones")) for n in ("s0", "s1")]
    zeros = [g.add_parameter(n, Parameter((1,), "zeros", dtype=I32)) for n in ("z0", "z1")]
    x = g.add_input(INPUT, (H, W, C), I8, Quantized(scales[0], zeros[0]))
    for i, name in enumerate(("first", "second")):
        params = {
            "w": Parameter((C,), "zeros", dtype=I8, quantized=Quantized("w_scale", axis=0)),
            "w_scale": Parameter((C,), "ones"), "b": Parameter((C,), "zeros"), "multiplier": Parameter((C,), "zeros"),
            "x_zero": zeros[i], "y_zero": zeros[1], "y_scale": scales[1],
        }  # fmt: skip
        x = g.add_node(name, "scale8", (x,), {}, params, {"y": Quantized(scales[1], zeros[1])})
    wide = g.add_node("wide", "widen8", (x,), {}, {"scale": "s1", "zero": "z1"})
    g.linear("fc", g.global_avg_pool("mean", wide), 3)
    p = ri.compile(g, None, 2)
    g.weights = initial(p, 0) | {"z1": np.array([5], np.int32)}
    head, tail = cut.cut(g, "first")
    assert tail.tensors[INPUT].dtype == I8 and tail.tensors[INPUT].quantized == Quantized("s1", "z1")
    assert head.size == tail.size == (H, W) and tail.weights["z1"].tolist() == [5]
    copied = prune.remove(g, g.weights, {})
    assert copied.parameters == g.parameters and copied.tensors == g.tensors
    assert ri.compile(copied, None, 2).constant_bytes == p.constant_bytes


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


def test_what_does_not_fit_is_refused():
    g, (x, y) = net(), samples()
    one, ints = Parameter((1,), "ones"), Parameter((1,), "zeros", dtype=I32)
    w = Parameter((C,), "zeros", dtype=I8)
    for bad, message in (
        (lambda: Parameter((1,), "zeros", dtype="float16"), "a parameter can be of int8, int16, .*, got float16"),
        (lambda: g.linear("l", "flat", 2), r"node l \(linear\): x must be of the float dtype of the program, got int8"),
        (
            lambda: g.add_node("l", "widen8", ("wide",), {}, {"scale": one, "zero": ints}),
            r"node l \(widen8\): x must be of int8, got that of floats",
        ),
        (
            lambda: g.add_node("l", "linear", ("wide",), {}, {"w": Parameter((H * W * C, 2), "he", dtype=I8)}),
            r"node l \(linear\): w must be of the float dtype of the program, got int8",
        ),
        (lambda: scaled(w=replace(w, dtype=I32)), r"node l \(scale8\): w must be of int8 or int16, got int32"),
        (lambda: scaled(w=replace(w, dtype=None)), r"w must be of int8 or int16, got that of floats"),
        (lambda: scaled(w=replace(w, quantized=Quantized("gone"))), "the scale of l.w must be .*, got 'gone'"),
        (
            lambda: scaled(w=replace(w, quantized=Quantized("w_scale"))),
            r"l.w_scale of l.w must have the shape \(1,\), go",
        ),
        (
            lambda: scaled(w=replace(w, quantized=Quantized("w_scale", axis=1))),
            "l.w has axes 0 to 0, so its scale cannot",
        ),
        (
            lambda: scaled(w=replace(w, quantized=Quantized("w_scale", "y_scale", 0))),
            "the zero point l.y_scale of l.w must be of integers, got floats",
        ),
        (
            lambda: scaled(y_scale=replace(one, quantized=Quantized("w_scale"))),
            "l.y_scale is quantized, so its dtype mu",
        ),
        (lambda: g.add_input("more", (3,), I8, Quantized("gone")), "the scale of more must be a parameter or a tensor"),
        (lambda: g.add_parameter("x_scale", one), "the graph whole already has a parameter 'x_scale'"),
        (
            lambda: g.add_node("l", "flatten", ("own",), {}, {}, {"y": Quantized("x_scale")}),
            "l is own under a new shape, so its scale must be that of own",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            bad()
    t = ri.Trainer(ri.compile(g, ri.Plan(step=STEP), N))
    with pytest.raises(ValueError, match="x must hold int8 values, but it is of float32"):
        t.train_step(x.astype(np.float32), y, 1)
    with pytest.raises(ValueError, match="x must hold int8 values, but it holds -126 to 200"):
        t.predict(np.where(x == x.max(), 200, x.astype(int)))
    np.testing.assert_array_equal(t.predict(x.astype(int)), t.predict(x))
    g.weights["own.w"] = g.weights["own.w"].astype(float)
    with pytest.raises(ValueError, match="the weights 'own.w' of whole must be of int8, got float64"):
        ri.Trainer(t.program)
    g.outputs = ("own",)
    with pytest.raises(ValueError, match=r"node loss \(mse\): x must be of the float dtype of the program, got int8"):
        ri.compile(g, ri.Plan(loss="mse"), N)
    with pytest.raises(TypeError, match=r"makes y, whose entry must name one dtype, not several"):

        @declare({"y": "int8|int16: E"}, items="E", writes="y")
        def undecided(t, y):
            """Zero, of what type?"""
            y[t] = 0


def scaled(**params):
    """A net with a node `l` of `scale8` that has these parameters."""
    g, single, vector = Graph("refused"), Parameter((1,), "zeros"), Parameter((C,), "zeros")
    x = g.add_input("x", (C,), I8)
    common = {
        "x_zero": single,
        "y_zero": single,
        "y_scale": single,
        "w_scale": vector,
        "b": vector,
        "multiplier": vector,
    }
    return g.add_node("l", "scale8", (x,), {}, common | params)


def test_an_eager_call_on_integers_takes_floats_as_floats():
    @declare({"x": "int8: E", "y": "E", "w": "int8|int16: E"}, items="E", writes="y")
    def scaled_by(t, y, x, by=0.5):
        """Y = by·x."""
        y[t] = by * x[t]

    @declare({"w": "int8|int16: E"}, items="E", writes="w", inplace="w")
    def one_more(t, w):
        """W + 1."""
        w[t] += 1

    found = scaled_by(np.array([3, -1], np.int8), by=0.25)
    assert found.dtype == np.float64 and found.tolist() == [0.75, -0.25]
    assert one_more(np.array([300, 1], np.int16)).tolist() == [301, 2]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_gradient_stops_where_numbers_become_whole(backend):
    g = Graph("rounded", (H, W), C)
    x = g.conv2d("c", INPUT, 4, 1)
    params = {"scale": Parameter((1,), "ones"), "zero": Parameter((1,), "zeros")}
    q = g.add_node("round", "round8", (g.relu("act", x),), {}, params, {"y": Quantized("scale", "zero")})
    wide = g.add_node("wide", "widen8", (q,), {}, {"scale": "round.scale", "zero": "round.zero"})
    g.linear("fc", g.flatten("flat", wide), CLASSES)
    with pytest.raises(
        ValueError, match="the layers before wide cannot train: widen8 passes no gradient to its x; tra"
    ):
        ri.compile(g, ri.Plan(), N, backend=backend)
    g.weights = {"round.scale": np.array([0.02], np.float32), "round.zero": np.array([-128], np.int32)}
    p = ri.compile(g, ri.Plan(0, step=STEP), N, backend=backend)
    t, plain = ri.Trainer(p, seed=1), Graph("plain", (H, W), C)
    plain.relu("act", plain.conv2d("c", INPUT, 4, 1))
    plain.weights = {"c.w": t.parameters["c.w"].copy()}
    x, y = np.random.default_rng(0).normal(size=(N, H, W, C)).astype(np.float32), samples()[1]
    act = ri.Trainer(ri.compile(plain, None, N, backend=backend)).predict(x).reshape(N, -1)
    whole = np.rint(act / np.float32(0.02)).clip(0, 255)
    expected = np.float32(0.02) * whole @ t.parameters["fc.w"]
    np.testing.assert_allclose(t.predict(x), expected, rtol=1e-5, atol=1e-5)
    assert [g.node(c.node).op for c in p.step.calls["backward"] if c.node != "loss"] == ["linear", "linear"]
    first, *_, last = (t.train_step(x, y, 20) for _ in range(20))
    assert last < first and (t.parameters["c.w"] == plain.weights["c.w"]).all()
    assert measured.touched_bytes(p, x, y, t.parameters) == p.peak_bytes
    assert {b.name: b.nbytes for b in p.lifetimes}["round"] == N * H * W * 4


def test_what_cannot_train_is_said():
    g = Graph("stuck", (4, 4), 2)
    g.conv2d("c", INPUT, 3, 1)
    with pytest.raises(ValueError, match="x must be of int32, got that of floats"):
        g.add_node("n", "narrow8", ("c",), {}, {})
    g = Graph("whole weight")
    q = g.add_node("narrow", "narrow8", (g.add_input("x", (3,), I32),), {}, {})
    params = {"w": Parameter((1,), "zeros"), "w_exponent": Parameter((1,), "zeros")}
    g.add_node("weigh", "weigh8", (q, "narrow.e"), {}, params)
    step = weigh8.step.inplace
    try:
        weigh8.step.inplace = []
        with pytest.raises(ValueError, match="sgd trains float32 and cannot train weigh.w, which holds int8: leave it"):
            ri.compile(g, ri.Plan(loss="mse"), 2)
    finally:
        weigh8.step.inplace = step
