"""Quantized nets are saved, gone on with, copied and cut; what does not fit is refused in a sentence."""

import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors
from own import weigh8
from whole_cases import CLASSES, I8, I32, STEP, C, H, N, W, net, registered, samples

import refimpl as ri
from refimpl import models
from refimpl.graph import INPUT, Graph, Parameter
from refimpl.kernels.passes import declare
from refimpl.kernels.quantized import Quantized
from refimpl.storage import checkpoint
from refimpl.surgery import cut, prune
from refimpl.training.state import initial
from validation.instruments import measured

BACKENDS = ("reference", "fast")


@pytest.fixture(scope="module", autouse=True)
def own():
    with registered():
        yield


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
    list(second.steps(x, y, 4))
    assert all((second.parameters[n] == a).all() for n, a in whole.parameters.items())
    wrong = first.resume_arrays() | {"own.w": first.parameters["own.w"].astype(float)}
    with pytest.raises(ValueError, match=r"the saved run has no array own.w of int8 \(5,\): it is of another plan"):
        second.resume(wrong, 0, [])


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
    assert [str(c.passed) for c in p.step.calls["backward"] if c.passed.operator != p.plan.loss] == [
        "linear.grad_w", "linear.grad_b", "finiteness.check", "finiteness.check",
    ]  # fmt: skip
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
