"""Quantized ONNX models as nets of whole numbers: held against onnxruntime, trained, written back, refused."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_models import by_runtime

import refimpl as ri
from gradledger.cli import main
from refimpl.formats.int8_nets import STRUCTURE
from refimpl.formats.int8_whole import whole_from_int8
from refimpl.formats.npz import read_npz
from refimpl.formats.onnx import holds_quantized, load_onnx, load_whole, rewritten
from refimpl.formats.whole_net import WithoutForm
from refimpl.kernels.running import threads
from refimpl.storage.checkpoint import CheckpointError
from refimpl.surgery.for_step import made_for
from refimpl.training.runner import Runner
from refimpl.training.state import initial
from validation.experiments import whole_onnx
from validation.experiments.whole_onnx import apart, whole_maps
from validation.instruments.int8_files import int8_arrays
from validation.instruments.qdq_files import Qdq, of_int8

STORED = Path(__file__).parents[2] / "shared" / "weights"


def of_float32(structure):
    """A structure whose scales are of float32, as those of ONNX are."""
    if isinstance(structure, dict):
        return {k: float(np.float32(v)) if k.endswith("_scale") else of_float32(v) for k, v in structure.items()}
    return [of_float32(v) for v in structure] if isinstance(structure, list) else structure


def small_arrays():
    arrays, structure = int8_arrays()
    return arrays | {STRUCTURE: np.array(json.dumps(of_float32(structure)))}


def check_same(found, wanted):
    """The arrays and attributes of two nets of whole numbers; the first makes whole numbers of its input itself."""
    assert found.nodes[0].op == "quantize" and len(found.nodes) == len(wanted.nodes) + 1
    assert {n.name: dict(n.attrs) for n in found.nodes[1:]} == {n.name: dict(n.attrs) for n in wanted.nodes}
    assert found.weights.keys() == wanted.weights.keys()
    for name, array in wanted.weights.items():
        assert found.weights[name].dtype == array.dtype
        if name.endswith("b_scale"):  # products of two scales, rounded before or after
            np.testing.assert_allclose(found.weights[name], array, rtol=1e-6)
        else:
            np.testing.assert_array_equal(found.weights[name], array, name)


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_it_is_the_net_that_is_stored_otherwise(tmp_path, kind):
    arrays = small_arrays()
    path = of_int8(arrays, tmp_path / "a.onnx", kind=kind)
    assert holds_quantized(path)
    check_same(load_whole(path), whole_from_int8(arrays))
    check_same(load_whole(path, size=(24, 8)), whole_from_int8(arrays, size=(24, 8)))


@pytest.mark.parametrize("name", ["mobilenet_v2_w0.35_int8.npz", "mcunet_5fps_int8.npz"])
def test_real_nets_are_those_that_are_stored_otherwise(tmp_path, name):
    if not (STORED / name).is_file():
        pytest.skip("the folder shared/ with the nets is not beside the project")
    arrays = read_npz(STORED / name)
    arrays[STRUCTURE] = np.array(json.dumps(of_float32(json.loads(str(arrays[STRUCTURE])))))
    check_same(load_whole(of_int8(arrays, tmp_path / "a.onnx")), whole_from_int8(arrays))


def weights(k, *rest, kind="int8", rng=None):
    ends = (0, 256) if kind == "uint8" else (-127, 128)
    return (rng or np.random.default_rng(0)).integers(*ends, (k, *rest)).astype(kind)


def many_kinds(path, kind="int8", by_channel=True, w_kind="int8", symmetric=False, pad=False, torch=False):
    """Most operators that have a form, in one net for maps of 8x10, four classes."""
    net, low, rng = Qdq((2, 8, 10), kind, torch=torch), 0 if symmetric else -128, np.random.default_rng(0)
    zero = {"int8": None, "uint8": np.array(150, np.uint8)}[w_kind]

    def layer(op, x, name, k, depth, scale, axis=0, bias=True, **attrs):
        rest = (depth, 3, 3) if op == "Conv" and depth < 4 else (depth, 1, 1) if op == "Conv" else (depth,)
        rest = (1, 3, 3) if attrs.get("group", 1) > 1 else rest
        w_scale = rng.uniform(0.004, 0.01, k if by_channel else ()).astype(np.float32)
        zeros = None if zero is None else np.resize(zero, w_scale.shape)
        inputs = [x, net.dequantized(f"{name}_w", weights(k, *rest, kind=w_kind, rng=rng), w_scale, zeros, axis)]
        if bias:
            inputs.append(net.dequantized(f"{name}_b", rng.integers(-300, 300, k).astype(np.int32),
                                          np.float32(scale * w_scale)))  # fmt: skip
        return net.node(op, inputs, name, **attrs)

    x = net.quantized("x", 1 / 32, 3)
    if pad:
        x = net.node("Pad", [x, net.constant("pads", np.array([0, 0, 1, 1, 0, 0, 1, 1]))], "padded")
        x = net.quantized(x, 1 / 32, 3)
    sides = {} if pad else {"pads": [1, 1, 1, 1]}
    y = net.node("Relu", [layer("Conv", x, "first", 6, 2, 1 / 32, **sides)], "first_relu")
    a = net.quantized(y, 0.03, low)
    ends = [net.constant("least", np.float32(-0.5)), net.constant("most", np.float32(1.25))]
    deep = layer("Conv", a, "deep", 6, 6, 0.03, group=6, pads=[1, 1, 1, 1], bias=False)
    b = net.quantized(net.node("Clip", [deep, *ends], "clipped"), 0.02, 10)
    c = net.quantized(net.node("Add", [a, b], "both"), 0.05, -20)
    d = net.quantized(net.node("Relu", [c], "again"), 0.041, low)  # requantized: another scale than before
    e = net.quantized(net.node("MaxPool", [d], "largest", kernel_shape=[2, 2], strides=[2, 2]), 0.041, low)
    f = net.quantized(net.node("AveragePool", [d], "means", kernel_shape=[2, 2], strides=[2, 2]), 0.03, low)
    g = net.quantized(net.node("Concat", [e, f], "joined", axis=1), 0.05, -100)
    h = net.quantized(net.node("GlobalAveragePool", [g], "mean"), 0.02, -90)
    flat = net.node("Flatten", [h], "flat")
    y = layer("Gemm", flat, "fc", 4, 12, 0.02, transB=1)
    return net.save(path, net.node("Softmax", [net.quantized(y, 0.06, 5)], "shares"))


def maps_of(graph, x):
    """Every int8 map of a net of whole numbers, by name."""
    names = [n.name for n in graph.nodes if graph.tensors[n.name].dtype == np.int8 and n.op != "quantized_linear"]
    graph.outputs = names
    program = ri.compile(graph, None, len(x), threads=1)
    runner = Runner(program, initial(program, 0))
    with threads(1):
        runner.write("input", len(x), x)
        runner.run("forward", len(x))
        return {n: runner.read("output" if i == 0 else f"output.{n}", len(x)).copy() for i, n in enumerate(names)}


@pytest.mark.parametrize("name", ["mobilenet_v2_w0.35_int8.npz", "mcunet_5fps_int8.npz"])
def test_each_operator_of_a_real_net_is_that_of_onnxruntime_but_for_ties(tmp_path, name):
    if not (STORED / name).is_file():
        pytest.skip("the folder shared/ with the nets is not beside the project")
    path = of_int8(read_npz(STORED / name), tmp_path / "a.onnx")
    found = whole_onnx.of_operators(path)
    assert found["operators"] == len(whole_onnx.sources(load_whole(path))) > 40
    assert found["further"] == 0 and found["one_away"] < 2e-5 * found["numbers"]


CASES = [{}, {"kind": "uint8"}, {"by_channel": False}, {"symmetric": True}, {"w_kind": "uint8"}, {"pad": True},
         {"torch": True, "kind": "uint8"},
         {"kind": "uint8", "w_kind": "uint8", "by_channel": False}]  # fmt: skip
ENDS = {"first": "first_relu", "deep": "clipped", "both": "both", "again.steps": "again", "largest": "largest",
        "joined": "joined", "mean": "mean"}  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(map(str, c.values())) or "plain")
def test_maps_are_those_of_onnxruntime_but_for_ties(tmp_path, case):
    path = many_kinds(tmp_path / "a.onnx", **case)
    x = np.random.default_rng(1).uniform(-4, 4, (5, 8, 10, 2)).astype(np.float32)
    graph = load_whole(path)
    ops = [node.op for node in graph.nodes]
    assert ops.count("quantized_conv2d") == 2 and ops.count("quantized_concat") == 3 and graph.nodes[0].op == "quantize"
    assert graph.weights["first.w"].dtype == (np.int16 if case.get("w_kind") else np.int8)
    scores = np.asarray(ri.Trainer(ri.compile(graph, None, 5, threads=1), 0).predict(x))
    ours = maps_of(load_whole(path), x)
    theirs = dict(zip(ENDS, whole_maps(path, x, tuple(ENDS.values())), strict=True))
    for name, values in theirs.items():
        away = np.abs(ours[name].reshape(values.shape) - values)
        most = 0.35 if name in ("joined", "mean") else 0.02  # behind a mean of windows that is rounded twice
        assert away.max() <= 2 and np.mean(away > 0) < most, (name, away.max(), np.mean(away > 0))
        assert len(np.unique(values)) > 8
    away = np.concatenate([a.reshape(-1) for a in apart(graph, theirs).values()])
    assert away.max() <= 1 and np.mean(away) < 0.001
    shares = by_runtime(path, np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    steps = np.rint(scores / np.float32(0.06)).clip(-133, 122) * 0.06
    e = np.exp(steps - steps.max(1, keepdims=True))
    assert np.abs(e / e.sum(1, keepdims=True) - shares).max() < 0.05 and scores.std() > 0.1


def test_bounds_of_a_clip_and_of_a_rectifier_are_saturation(tmp_path):
    graph = load_whole(many_kinds(tmp_path / "a.onnx"))
    attrs = {n.name: n.attrs for n in graph.nodes}
    assert (attrs["deep"]["low"], attrs["deep"]["high"]) == (10 - 25, 10 + 62)
    assert (attrs["first"]["low"], attrs["first"]["high"]) == (-128, 127)
    assert (attrs["both"]["low"], attrs["again.steps"]["low"]) == (-128, -128)


def test_a_bias_of_floats_becomes_the_nearest_whole_number(tmp_path):
    net = Qdq((1, 4, 4))
    w = net.dequantized("w", weights(3, 1, 1, 1), np.full(3, 0.01))
    y = net.node(
        "Conv", [net.quantized("x", 0.5), w, net.constant("b", np.array([0.1, -0.2, 0.0024], np.float32))], "c"
    )
    y = net.node("Flatten", [net.node("GlobalAveragePool", [net.quantized(y, 0.1)], "m")], "f")
    graph = load_whole(net.save(tmp_path / "a.onnx", net.quantized(y, 0.1)))
    assert graph.weights["c.b"].tolist() == [20, -40, 0]
    np.testing.assert_allclose(graph.weights["c.b_scale"], 0.005)


def test_a_scale_may_stand_behind_what_only_moves_numbers(tmp_path):
    net = Qdq((2, 6, 6))
    w = net.dequantized("w", weights(4, 2, 3, 3), np.full(4, 0.01))
    y = net.node("Conv", [net.quantized("x", 1 / 32), w], "c", pads=[1, 1, 1, 1])
    y = net.quantized(net.node("MaxPool", [y], "largest", kernel_shape=[2, 2], strides=[2, 2]), 0.05)
    y = net.node("Flatten", [net.node("GlobalAveragePool", [y], "m")], "f")
    v = net.node("Transpose", [net.dequantized("v", weights(3, 4), [0.01, 0.02, 0.03])], "turned", perm=[1, 0])
    path = net.save(tmp_path / "a.onnx", net.node("Gemm", [net.quantized(y, 0.02), v], "fc"))
    graph = load_whole(path)
    assert float(graph.weights["c.scale"][0]) == np.float32(0.05)
    np.testing.assert_array_equal(graph.weights["fc.w"], weights(3, 4).T)
    np.testing.assert_allclose(graph.weights["fc.w_scale"], [0.01, 0.02, 0.03])
    x = np.random.default_rng(1).uniform(-4, 4, (5, 6, 6, 2)).astype(np.float32)
    ours = np.asarray(ri.Trainer(ri.compile(graph, None, 5, threads=1), 0).predict(x))
    theirs = by_runtime(path, np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    assert np.abs(ours - theirs).max() < 0.1 * theirs.std()
    graph.weights["fc.w"] = graph.weights["fc.w"] // 2
    back, kept = written_back(path, graph, tmp_path)
    np.testing.assert_array_equal(initializers(back)["v"], weights(3, 4) // 2)
    np.testing.assert_array_equal(load_whole(back).weights["fc.w"], kept["fc.w"])


def with_operator(path, op, **attrs):
    """A net whose only convolution is followed by an operator."""
    net = Qdq((1, 4, 4))
    w = net.dequantized("w", weights(3, 1, 1, 1), np.full(3, 0.01))
    y = net.quantized(net.node("Conv", [net.quantized("x", 0.5), w], "c"), 0.1)
    y = net.quantized(net.node(op, [y], "other", **attrs), 0.1)
    y = net.quantized(net.node(op, [y], "another", **attrs), 0.1)
    return net.save(path, net.node("Flatten", [net.node("GlobalAveragePool", [y], "m")], "f"))


def test_operators_without_a_form_are_named(tmp_path, capsys):
    path = with_operator(tmp_path / "a.onnx", "Sigmoid")
    with pytest.raises(WithoutForm, match=r"there is no form of them for Sigmoid \(2\)") as e:
        load_whole(path)
    assert e.value.lacking == {"Sigmoid": 2}
    with pytest.raises(SystemExit):
        main(["check", str(path), "--json"])
    record = json.loads(capsys.readouterr().out)
    assert record["trainable"] and record["whole"]["lacking"] == {"Sigmoid": 2} and not record["whole"]["ok"]
    for given in (["--whole"], ["--method", "forward-gradient:bits=16w8a"]):
        with pytest.raises(SystemExit) as left:
            main(["cost", "--model", str(path), *given])
        assert left.value.code == 2 and "for Sigmoid (2)" in capsys.readouterr().err
    with pytest.raises(SystemExit) as left:
        main(["cost", "--model", str(path)])
    assert left.value.code == 0


def plain(path, between=lambda net, y: y, **damage):
    """A net of one convolution and a classifier. damage: array → another value for it."""
    net = Qdq((1, 4, 4))
    given = {"x_scale": 0.5, "w": weights(3, 1, 1, 1), "w_scale": np.full(3, 0.01), "c_scale": 0.1,
             "zeros": np.zeros(3, np.int8)} | damage  # fmt: skip
    w = net.dequantized("w", given["w"], given["w_scale"], given["zeros"])
    y = between(net, net.node("Conv", [net.quantized("x", given["x_scale"]), w], "c"))
    y = net.quantized(y, given["c_scale"])
    y = net.node("Flatten", [net.quantized(net.node("GlobalAveragePool", [y], "m"), 0.1)], "f")
    fc = net.dequantized("v", weights(2, 3), np.full(2, 0.01))
    return net.save(path, net.node("Gemm", [y, fc], "fc", transB=1))


@pytest.mark.parametrize(
    "damage, why",
    [
        ({"x_scale": 0.0}, "its scale is 0, but a number above 0 is needed"),
        ({"c_scale": -0.1}, "its scale is -0.1, but a number above 0"),
        ({"c_scale": np.nan}, "its scale is nan"),
        ({"c_scale": np.inf}, "its scale is inf"),
        ({"c_scale": np.full(3, 0.1)}, "it has 3 scales and 1 zero points of int8: a map has one of each"),
        ({"w_scale": np.array([0.01, 0, 0.01])}, "the scale of 'w' is 0, but a number above 0 is needed"),
        ({"w_scale": np.array([0.01, -1, 0.01])}, "the scale of 'w' is -1"),
        ({"w_scale": np.array([0.01, np.nan, 0.01])}, "holds NaN"),
        ({"w_scale": np.full(2, 0.01), "zeros": np.zeros(2, np.int8)}, "cannot be read|2 scales or zero points"),
        ({"w_scale": np.zeros(0), "zeros": np.zeros(0, np.int8)}, "cannot be read|empty"),
    ],
)
def test_damaged_scales_are_told_in_a_sentence(tmp_path, damage, why):
    with pytest.raises(CheckpointError, match=why) as e:
        load_whole(plain(tmp_path / "a.onnx", **damage))
    assert "\n" not in str(e.value) and "a.onnx" in str(e.value)


def test_a_net_that_is_undamaged_is_read(tmp_path):
    graph = load_whole(plain(tmp_path / "a.onnx"))
    assert [n.op for n in graph.nodes if n.params] == ["quantize", "quantized_conv2d", "quantized_linear", "dequantize"]
    assert graph.weights["c.w"].dtype == np.int8 and "c.b" not in graph.weights


def test_what_is_read_by_another_scale_than_it_was_made_by_is_refused(tmp_path):
    def between(net, y):
        y = net.quantized(y, 0.25)
        next(n for n in net.nodes if n.name == "c_dq").input[1] = net.constant("c_other", np.float32(0.3))
        return y

    path = plain(tmp_path / "a.onnx", between)
    for load in (load_whole, load_onnx):
        with pytest.raises(CheckpointError, match="by scale 0.3 and zero point 0, but they were made by 0.25 and 0"):
            load(path)


@pytest.mark.parametrize(
    "change, why",
    [
        (lambda net: net.nodes.__delitem__(slice(0, 2)), r"c \(Conv\) of .* takes input in floats"),
        (lambda net: [t for t in net.constants if t.name == "c_zero"][0].CopyFrom(
            onnx.numpy_helper.from_array(np.int16(0), "c_zero")), "is of int16, but maps of int8 and uint8 have a"),
    ],
)  # fmt: skip
def test_what_is_not_of_8_bits_is_refused(tmp_path, change, why):
    net = Qdq((1, 4, 4))
    y = net.quantized("x", 0.5)
    w = net.dequantized("w", weights(3, 1, 1, 1), np.full(3, 0.01))
    y = net.quantized(net.node("Conv", [y, w], "c"), 0.1)
    change(net)
    if not any(n.name == "x_dq" for n in net.nodes):
        next(n for n in net.nodes if n.name == "c").input[0] = "x"
    path = net.save(tmp_path / "a.onnx", net.node("Flatten", [net.node("GlobalAveragePool", [y], "m")], "f"))
    with pytest.raises(CheckpointError, match=why):
        load_whole(path)
    assert load_onnx(path).nodes  # in floats it trains


def test_weights_of_floats_are_refused(tmp_path):
    net = Qdq((1, 4, 4))
    w = net.constant("w", np.ones((3, 1, 1, 1), np.float32))
    y = net.quantized(net.node("Conv", [net.quantized("x", 0.5), w], "c"), 0.1)
    path = net.save(tmp_path / "a.onnx", net.node("Flatten", [net.node("GlobalAveragePool", [y], "m")], "f"))
    with pytest.raises(CheckpointError, match=r"c \(Conv\) of .* has weights of floats"):
        load_whole(path)


def initializers(path):
    """The constants of a model, by the names of the nodes that read them where they are new."""
    graph = onnx.load(path).graph
    nodes = [n.attribute[0].t for n in graph.node if n.op_type == "Constant"]
    return {t.name.removesuffix(".2"): onnx.numpy_helper.to_array(t) for t in (*graph.initializer, *nodes)}


def written_back(path, graph, tmp_path):
    content, kept = rewritten(path, graph, {"classes": "[]"})
    (tmp_path / "back.onnx").write_bytes(content)
    return tmp_path / "back.onnx", kept


@pytest.mark.parametrize("torch", [False, True])
def test_a_net_that_did_not_train_leaves_as_it_came(tmp_path, torch):
    path = many_kinds(tmp_path / "a.onnx", "uint8", w_kind="uint8", torch=torch, pad=torch)
    back, _ = written_back(path, load_whole(path), tmp_path)
    before, after = initializers(path), initializers(back)
    assert {*before} - {*after} == {"fc_scale", "fc_zero"}  # scores are left in floats
    for name, array in after.items():
        np.testing.assert_array_equal(array, before[name], name)
    ops, were = ([n.op_type for n in onnx.load(p).graph.node if n.op_type != "Constant"] for p in (back, path))
    assert ops[-2:] == ["Gemm", "Softmax"] and len(ops) == len(were) - 2 - torch
    x = np.random.default_rng(1).uniform(-4, 4, (5, 2, 8, 10)).astype(np.float32)
    assert np.abs(by_runtime(back, x) - by_runtime(path, x)).max() < 0.03


def samples(count, classes, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(count) % classes
    x = rng.uniform(-4, 4, (count, 8, 10, 2)).astype(np.float32)
    x[..., 0] += y[:, None, None] - classes / 2
    return x, y


METHODS = {
    "sparse-update": ri.Plan(1, rules=[ri.SparseUpdate(0.5)], step=ri.Backprop(ri.SGD(lr=0.2))),
    "backprop": ri.Plan("all", step=ri.Backprop(ri.SGD(lr=0.05))),
    "bias-only": ri.Plan("all", bias_only=True, step=ri.Backprop(ri.SGD(lr=0.5))),
    "forward-gradient": ri.Plan("all", step=ri.ForwardGradient(m=1, bits="16w8a", optimizer=ri.SGD(lr=0.02))),
}


@pytest.mark.parametrize("classes", [None, 3])
@pytest.mark.parametrize("method", METHODS)
def test_it_trains_and_leaves_as_the_same_model(tmp_path, method, classes):
    path, plan = many_kinds(tmp_path / "a.onnx"), METHODS[method]
    graph = load_whole(path, classes)
    x, y = samples(24, classes or 4)
    graph = made_for(plan.step, graph, x, trained=[n for n in ("first", "deep", "fc") if method == "forward-gradient"])
    trainer = ri.Trainer(ri.compile(graph, plan, 8, threads=1), 0)
    before = {name: trainer.parameters[name].copy() for name in graph.parameters}
    trainer.fit(x, y, epochs=4)
    changed = {name for name, array in before.items() if (array != trainer.parameters[name]).any()}
    assert changed >= ({"deep.b", "fc.b"} & graph.parameters.keys() if method == "bias-only" else {"deep.w", "fc.w"})
    graph.weights = {name: trainer.parameters[name].copy() for name in graph.parameters}
    back, kept = written_back(path, graph, tmp_path)
    again = load_whole(back)
    for name, array in kept.items():
        np.testing.assert_array_equal(again.weights[name], array)
        if graph.parameters[name].dtype == np.int8:
            np.testing.assert_array_equal(array, graph.weights[name])
    of_maps = [f"{n}_{what}" for n in ("x", *ENDS.values(), "means") for what in ("scale", "zero")]
    assert all((initializers(back)[n] == initializers(path)[n]).all() for n in of_maps)
    ours = np.asarray(trainer.predict(x))
    e = np.exp(ours - ours.max(1, keepdims=True))
    theirs = by_runtime(back, np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    assert theirs.shape == ours.shape and ours.std() > 0.05
    assert np.abs(e / e.sum(1, keepdims=True) - theirs).max() < 0.04
    assert np.mean(ours.argmax(1) == theirs.argmax(1)) > 0.9


def test_another_model_is_refused_as_the_original(tmp_path):
    graph = load_whole(many_kinds(tmp_path / "a.onnx"))
    with pytest.raises(CheckpointError, match="it is another model"):
        rewritten(plain(tmp_path / "b.onnx"), graph, {})


def test_the_form_of_integer_operators_is_the_same_net(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime.quantization")
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.normal(0, 0.3, (6, 3, 3, 3)), "b": rng.normal(0, 0.3, 6), "d": rng.normal(0, 0.3, (6, 1, 3, 3)),
        "v": rng.normal(0, 0.3, (4, 6)), "u": rng.normal(0, 0.3, 4),
    }  # fmt: skip
    from onnx_models import saved

    path = saved(
        tmp_path / "a.onnx",
        [("Conv", ["x", "w", "b"], ["c"], {"pads": [1, 1, 1, 1]}), ("Relu", ["c"], ["r"], {}),
         ("Conv", ["r", "d"], ["e"], {"pads": [1, 1, 1, 1], "group": 6}), ("Add", ["e", "r"], ["s"], {}),
         ("GlobalAveragePool", ["s"], ["m"], {}), ("Flatten", ["m"], ["f"], {}),
         ("Gemm", ["f", "v", "u"], ["y"], {"transB": 1})],
        ["n", 3, 8, 8],
        constants={n: a.astype(np.float32) for n, a in constants.items()}, rank=2,
    )  # fmt: skip
    given = [{"x": rng.uniform(-1, 1, (1, 3, 8, 8)).astype(np.float32)} for _ in range(8)]

    class Reader(onnxruntime.CalibrationDataReader):
        def __init__(self):
            self.left = iter(given)

        def get_next(self):
            return next(self.left, None)

    found = []
    for form in ("QDQ", "QOperator"):
        made = tmp_path / f"{form}.onnx"
        onnxruntime.quantize_static(
            str(path), str(made), Reader(), quant_format=getattr(onnxruntime.QuantFormat, form), per_channel=True,
            activation_type=onnxruntime.QuantType.QInt8, weight_type=onnxruntime.QuantType.QInt8,
        )  # fmt: skip
        found.append(load_whole(made))
    assert {n.op_type for n in onnx.load(made).graph.node} >= {"QLinearConv", "QLinearAdd", "QGemm"}
    layers = [[n for n in graph.nodes if n.params] for graph in found]
    assert [n.op for n in layers[0]] == [n.op for n in layers[1]]
    for one, other in zip(*layers, strict=True):
        assert dict(one.attrs) == dict(other.attrs)
        for local, name in one.params.items():
            np.testing.assert_array_equal(found[0].weights[name], found[1].weights[other.params[local]])
    back, _ = written_back(made, found[1], tmp_path)
    x = np.concatenate([feed["x"] for feed in given])
    ours = np.asarray(ri.Trainer(ri.compile(found[1], None, 8, threads=1), 0).predict(x.transpose(0, 2, 3, 1)))
    assert np.abs(by_runtime(back, x) - ours).max() < 0.05 * ours.std()
