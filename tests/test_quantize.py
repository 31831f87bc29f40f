"""Float nets as nets of whole numbers: exact node by node, near the float net, counted, and what is refused."""

import copy
import re

import numpy as np
import pytest
import quantized_oracles as oracle

import refimpl as ri
from costmodel import predict
from refimpl import data, models
from refimpl.graph import INPUT
from refimpl.kernels import requantize
from refimpl.surgery import calibrate
from refimpl.surgery.quantize import folded, largest_sum, weight_scale
from refimpl.training.runner import Runner
from refimpl.training.state import initial
from validation.instruments import counting

BACKENDS = ("reference", "fast")


def with_weights(g, seed=0):
    """A net with weights as after training: statistics and biases that are not those of the start."""
    rng = np.random.default_rng(seed)
    g.weights = initial(ri.compile(g, None, 2), seed)
    for node in g.nodes:
        for local, name in node.params.items():
            shape = g.weights[name].shape
            if local in ("gamma", "running_var"):
                g.weights[name] = rng.uniform(0.5, 2, shape).astype(np.float32)
            elif local != "w":
                g.weights[name] = rng.normal(0, 0.3, shape).astype(np.float32)
    return g


def every():
    """A net with every operator that has a form in whole numbers."""
    g = ri.Graph("every", (6, 5), 2)
    a = g.relu6("a.relu6", g.batch_norm("a.bn", g.conv2d("a", INPUT, 4, 3, pad=((1, 2), (0, 1)))))
    b = g.conv2d("b", INPUT, 4, (3, 2), pad=((1, 2), (0, 0)), bias=True)
    total = g.relu("sum.relu", g.add("sum", a, b))
    deep = g.relu("deep.relu", g.conv2d("deep", total, 4, 3, 2, "same", 1, groups=4))
    pooled = g.concat("cat", g.max_pool("largest", deep, 2, 1, 1), g.avg_pool("mean", deep, 2, 1, 1), deep_pad(g, deep))
    flat = g.flatten("flat", g.avg_pool("valid", g.dropout("drop", pooled), (1, 2)))
    hidden = g.relu("hidden.relu", g.linear("hidden", flat, 5))
    g.linear("fc", hidden, 3)
    g.outputs = ("fc", g.linear("fc2", g.global_avg_pool("global", total), 2, bias=False), "sum.relu")
    return with_weights(g)


def deep_pad(g, deep):
    """A convolution that makes the map one row and column larger, to stand beside the pools."""
    return g.conv2d("wider", deep, 2, 2, pad=1)


def samples(g, n=12, seed=3):
    return np.random.default_rng(seed).normal(size=(n, *g.size, g.channels)).astype(np.float32)


SETTINGS = {
    "8w8a": {}, "16w8a": {"bits": 16}, "zero points": {"zero_points": True, "per_channel": True},
    "twice": {"bits": 16, "zero_points": True, "twice": True}, "per channel": {"per_channel": True, "bits": 7},
}  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_every_tensor_is_exact(settings, backend):
    g = every()
    x = samples(g)
    q = ri.surgery.quantize(g, g.weights, x, **settings)
    expected = oracle.run(q, x[:3])
    q.outputs = [t for t in q.tensors if t != INPUT and q.tensors[t].dtype != np.int8 or t in MAPS]
    p = ri.compile(q, None, 4, backend=backend)
    runner = Runner(p, initial(p, 0))
    runner.write(INPUT, 3, x[:3])
    runner.run("forward", 3)
    names = dict(zip(q.outputs, ["output", *(f"output.{t}" for t in q.outputs[1:])], strict=True))
    assert {"fc.sums", "hidden.sums", "fc.real", "fc2.real", "sum.relu.real", *MAPS} == names.keys() - {"fc2.sums"}
    for tensor, host in names.items():
        np.testing.assert_array_equal(runner.read(host, 3), expected[tensor].astype(runner.read(host, 3).dtype), tensor)
    assert all(len(np.unique(expected[t])) > 5 for t in MAPS)  # not all at the ends


MAPS = ("quantize", "a", "b", "sum", "deep", "largest", "mean", "wider", "cat", "valid", "flat", "hidden", "global")


def tensors(g, names, x):
    """Some tensors of a net for samples x."""
    observed = copy.copy(g)
    observed.outputs = tuple(names)
    return ri.Trainer(ri.compile(observed, None, 16)).predict(x)


ENDS = {
    "a": "a.relu6", "b": "b", "sum": "sum.relu", "deep": "deep.relu", "largest": "largest", "mean": "mean",
    "wider": "wider", "cat": "cat", "valid": "valid", "hidden": "hidden.relu", "global": "global",
}  # fmt: skip


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_every_tensor_is_near_the_float_one(settings):
    g = every()
    x = samples(g)
    q = ri.surgery.quantize(g, g.weights, x, **settings)
    whole, floats = tensors(q, ENDS, x), tensors(g, ENDS.values(), x)
    for tensor, end in ENDS.items():
        held = q.tensors[tensor].quantized
        zero = 0 if held.zero_point is None else int(q.weights[held.zero_point][0])
        real = q.weights[held.scale][0] * (whole[tensor].astype(int) - zero)
        assert abs(real - floats[end]).max() < 0.05 * abs(floats[end]).max(), tensor


def test_a_rectifier_saturates_on_a_scale_that_reaches_further():
    g = ri.Graph("net", (4, 4), 2)
    x = g.relu6("act", g.max_pool("pool", g.conv2d("conv", INPUT, 3, 1), 2))
    g.linear("fc", g.flatten("flat", x), 2)
    with_weights(g).weights["conv.w"] *= 20
    x = samples(g)
    for settings in SETTINGS.values():
        q = ri.surgery.quantize(g, g.weights, x, **settings)
        whole, floats = tensors(q, ["pool", "conv"], x), tensors(g, ["act", "conv"], x)
        assert floats["conv"].max() > 20 and floats["act"].max() == 6
        scale = q.weights["conv.scale"][0]
        zero = int(q.weights["conv.zero"][0]) if "conv.zero" in q.weights else 0
        assert abs(scale * (whole["pool"].astype(int) - zero) - floats["act"]).max() <= 1.6 * scale
        assert whole["pool"].max() == zero + round(6 / scale) < 127 and whole["pool"].min() == zero


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_it_is_counted_and_every_byte_is_where_it_was_placed(settings):
    g = every()
    x = samples(g)
    q = ri.surgery.quantize(g, g.weights, x, **settings)
    p = ri.compile(q, None, 4)
    for call in p.step:
        assert dict(predict.call_counts(call, 3)) == counting.count_call(call, 3), call.name
    assert p.state_bytes == 0 and p.constant_bytes == sum(a.nbytes for a in q.weights.values())
    assert {n: a.dtype for n, a in q.weights.items() if n.endswith((".w", ".b"))} == {
        n: np.int32 if n.endswith(".b") else np.int16 if settings.get("bits") == 16 else np.int8
        for n in q.parameters if n.endswith((".w", ".b"))
    }  # fmt: skip
    y = ri.Trainer(p).predict(x)
    assert {name: (a.dtype, a.shape) for name, a in y.items()} == {
        name: (np.float32, (12, *shape))
        for name, shape in (("fc.real", (3,)), ("fc2.real", (2,)), ("sum.relu.real", (7, 4, 4)))
    }


def test_a_trained_step_of_floats_on_whole_numbers_is_refused():
    g = every()
    q = ri.surgery.quantize(g, g.weights, samples(g))
    adam = ri.Backprop(ri.Adam(0.1))
    with pytest.raises(
        ValueError, match=r"adam trains float32 and cannot train .*, which holds int8: leave it as it is"
    ):
        ri.compile(q, ri.Plan(loss="mse", step=adam), 2)


NETS = {
    "lenet5": {"size": (20, 20)}, "lenet": {"size": (20, 20)}, "slim_lenet": {"size": (12, 12)},
    "resnet8": {"size": (8, 8)}, "resnet20": {"size": (8, 8)}, "watch": {},
    "resnet10": {"size": (64, 64)}, "mobilenet_v2": {"size": (32, 32), "width": 0.35},
    "mobilenet_folded": {"size": (32, 32), "stem": 8, "blocks": [(8, 3, 1, 8), (24, 5, 2, 16), (48, 3, 1, 16)]},
}  # fmt: skip
DEEP = {"mobilenet_v2": 0.6, "resnet10": 0.3}  # random weights, so errors add up over all layers


@pytest.mark.parametrize("name", NETS)
def test_bundled_nets_go_through_and_stay_near(name):
    g = with_weights(models.build(name, classes=5, **NETS[name]))
    x = samples(g, 8)
    y = ri.Trainer(ri.compile(g, None, 8)).predict(x)
    found = {}
    for what, settings in {"plain": {}, "best": {"zero_points": True, "per_channel": True}}.items():
        z = ri.Trainer(ri.compile(ri.surgery.quantize(g, g.weights, x, **settings), None, 8)).predict(x)
        found[what] = np.linalg.norm(z - y) / np.linalg.norm(y)
    print(name, found)
    assert found["best"] < DEEP.get(name, 0.1) and found["best"] < found["plain"] * 1.25


def accuracies(g, d):
    """Accuracy of the float net, and of its forms in whole numbers."""

    def right(net):
        return 100 * (ri.Trainer(ri.compile(net, None, 64)).predict(d.x_test).argmax(1) == d.y_test).mean()

    forms = {name: SETTINGS[name] for name in ("8w8a", "16w8a")}
    found = {name: right(ri.surgery.quantize(g, g.weights, d.x_train[:256], **s)) for name, s in forms.items()}
    print(g.name, right(g), found)
    return right(g), found


def test_the_watch_net_stays_as_right_as_it_was():
    g = models.watch_net()
    g.weights = models.watch_weights(1)
    before, found = accuracies(g, data.watch(1))
    assert before > 85
    assert all(abs(right - before) <= 1 for right in found.values())
    assert abs(found["16w8a"] - before) <= 0.3


def test_a_lenet_stays_as_right_as_it_was():
    d = data.fashion_mnist()
    g = models.lenet5()
    trainer = ri.Trainer(ri.compile(g, ri.Plan("all", step=ri.Backprop(ri.SGD(0.05, momentum=0.9))), 32), seed=1)
    trainer.fit(d.x_train, d.y_train, epochs=2)
    g.weights = {name: a.copy() for name, a in trainer.parameters.items()}
    before, found = accuracies(g, d)
    assert before > 70
    assert all(abs(right - before) <= 1 for right in found.values())
    assert abs(found["16w8a"] - before) <= 0.3


def test_eq_5_one_scale_takes_the_largest_weight_to_the_largest_whole_number():
    """arXiv 2411.04036 eq. (5)."""
    g = every()
    for bits in (8, 16, 5):
        q = ri.surgery.quantize(g, g.weights, samples(g), bits)
        for layer in ("b", "wider", "hidden", "fc"):
            w, most = g.weights[f"{layer}.w"].astype(np.float64), 2 ** (bits - 1) - 1
            scale = q.weights[f"{layer}.w_scale"]
            assert scale.tolist() == [np.float32(abs(w).max() / most)] == weight_scale(w, bits).tolist()
            whole = q.weights[f"{layer}.w"]
            assert abs(whole).max() == most and (whole == np.rint(w / np.float64(scale[0]))).all()
            x = q.node(layer).inputs[0]
            x_scale = q.weights[q.tensors[x].quantized.scale]
            b = np.rint(g.weights[f"{layer}.b"] / (x_scale.astype(float) * scale)) if layer != "wider" else None
            assert b is None or abs(q.weights[f"{layer}.b"] - b).max() <= 1
    wide = weight_scale(w, 16, headroom=1.5)
    assert wide.tolist() == [np.float32(1.5 * abs(w).max() / 32767)]
    each = weight_scale(np.array([[0.5, 0], [-1, 0]]), 8, per_channel=True)
    assert each.tolist() == [np.float32(1 / 127), 1]


def test_a_norm_is_folded_exactly():
    g = every()
    w, b = folded(g.weights["a.w"].astype(float), None, g.node("a.bn"), g.weights)
    exact = ri.Graph("exact", g.size, g.channels)
    exact.conv2d("a", INPUT, 4, 3, pad=((1, 2), (0, 1)), bias=True)
    exact.weights = {"a.w": w, "a.b": b}
    g.outputs = ("a.bn",)
    x = samples(g)
    given, found = (ri.Trainer(ri.compile(n, None, 4, dtype=np.float64)).predict(x) for n in (g, exact))
    np.testing.assert_allclose(found, given, rtol=1e-12, atol=1e-12)


def test_scales_are_those_of_the_samples():
    g = every()
    x = samples(g)
    found = calibrate.ranges(g, g.weights, x, [INPUT, "a.relu6", "b"], batch=5)
    plain = with_weights(every())
    plain.outputs = ("b",)
    b = ri.Trainer(ri.compile(plain, None, 4)).predict(x)
    assert found[INPUT] == (x.min(), x.max()) and found["b"] == (b.min(), b.max())
    q = ri.surgery.quantize(g, g.weights, x)
    assert q.weights["b.scale"].tolist() == [np.float32(abs(b).max() / 127)] and "b.zero" not in q.weights
    q = ri.surgery.quantize(g, g.weights, x, zero_points=True)
    scale, zero = q.weights["b.scale"][0], q.weights["b.zero"][0]
    assert scale == np.float32((np.float64(b.max()) - b.min()) / 255) and zero == round(-128 - b.min() / float(scale))
    assert q.weights["a.zero"].tolist() == [-128] and q.node("a").attrs["low"] == -128
    six = q.node("a").attrs["high"] + 128
    assert six == min(255, round(6 / float(q.weights["a.scale"][0])))
    assert q.tensors["b"].quantized == q.tensors["b"].quantized.__class__("b.scale", "b.zero")
    narrow = calibrate.ranges(g, g.weights, x, ["b"], percentile=90, batch=12)["b"]
    np.testing.assert_allclose(narrow, np.percentile(b, [10, 90]), rtol=1e-6)


def test_the_factor_of_a_layer_is_that_of_its_scales():
    g = every()
    q = ri.surgery.quantize(g, g.weights, samples(g), per_channel=True)
    x_scale, y_scale = (q.weights[q.tensors[t].quantized.scale].astype(float) for t in ("sum", "deep"))
    for k in range(4):
        pair = q.weights["deep.multiplier"][k], q.weights["deep.shift"][k]
        expected = x_scale[0] * float(q.weights["deep.w_scale"][k]) / y_scale[0]
        assert abs(requantize.factor(*pair) / expected - 1) < 2**-30


def test_the_largest_sum_is_reached():
    rng = np.random.default_rng(0)
    w, b = rng.integers(-9, 10, (2, 3, 2), np.int16), np.array([40, -70], np.int32)
    for ends in ((-128, 127), (0, 255), (0, 127)):
        found = largest_sum(w, b, ends)
        flat = w.reshape(-1, 2).astype(int)
        for k in range(2):
            sums = [sum(v * (ends[1] if (v > 0) == up else ends[0]) for v in flat[:, k]) + b[k] for up in (True, False)]
            assert found[k] == max(map(abs, sums))


def large(depth=5000):
    """A net whose sums might not fit into int32 with weights of 16 bits."""
    g = ri.Graph("large", (1, 1), depth)
    g.linear("fc", g.flatten("flat", INPUT), 2)
    g.weights = {"fc.w": np.full((depth, 2), 0.5, np.float32), "fc.b": np.zeros(2, np.float32)}
    g.weights["fc.w"][::2, 1] = -0.5
    return g, np.ones((2, 1, 1, depth), np.float32)


def test_sums_that_might_not_fit_are_refused_with_the_bits_that_would():
    g, x = large()
    message = (
        r"^node fc \(linear\) of large: a sum of channel 0 may reach 20,970,880,000, but int32 ends at 2,147,483,647: "
        "weights of 12 bits would fit$"
    )
    with pytest.raises(ValueError, match=message):
        ri.surgery.quantize(g, g.weights, x, bits=16)
    q = ri.surgery.quantize(g, g.weights, x, bits=12)
    assert q.weights["fc.w"].dtype == np.int16 and abs(q.weights["fc.w"]).max() == 2047
    g.weights["fc.b"] = np.full(2, 1e30, np.float32)
    with pytest.raises(ValueError, match="not even weights of 2 bits would fit$"):
        ri.surgery.quantize(g, g.weights, x)


def test_what_has_no_form_is_refused_by_node_and_operator():
    def refused(g, message, **settings):
        with_weights(g)
        with pytest.raises(ValueError, match=message):
            ri.surgery.quantize(g, g.weights, samples(g, 2), **settings)

    g = ri.Graph("net", (4, 4), 2)
    g.linear("fc", g.gelu("act", g.flatten("flat", INPUT)), 2)
    refused(g, r"^node act \(gelu\) of net has no form in whole numbers; those that have are conv2d, linear, add, ")
    g = ri.Graph("net", (4, 4), 2)
    g.linear("fc", g.flatten("flat", g.batch_norm("bn", INPUT)), 2)
    refused(g, r"^node bn \(batch_norm\) of net has no form in whole numbers here: a norm is folded into a convolution")
    g = ri.Graph("net", (4, 4), 2)
    x = g.conv2d("conv", INPUT, 2, 1)
    g.linear("fc", g.flatten("flat", g.add("sum", x, g.relu("act", x))), 2)
    refused(g, r"^node act \(relu\) of net has no form in whole numbers here: a rectifier becomes one with the node")
    g = ri.Graph("net", (4, 4), 2)
    g.conv2d("two", g.conv2d("one", INPUT, 2, 1), 2, 1, shared="one")
    refused(g, "^one.w of net is used by several nodes: give each a copy of its own$")
    g = ri.Graph("net")
    g.linear("fc", g.concat("both", g.add_input("u", (3,)), g.add_input("v", (3,))), 2)
    with pytest.raises(ValueError, match="^net must have one input called input, but has u, v$"):
        ri.surgery.quantize(g, {}, np.ones((1, 3)))


def test_ranges_without_a_scale_are_refused():
    g = every()
    x = samples(g)
    dead = {**g.weights, "deep.w": np.zeros_like(g.weights["deep.w"])}
    message = r"^deep.relu of every is 0 on all 12 samples, so that it has no scale: calibrate on samples of which one"
    with pytest.raises(ValueError, match=message):
        ri.surgery.quantize(g, dead, x)
    x[7, 1, 2, 0] = np.inf
    with pytest.raises(
        ValueError, match="^input of every goes from .* to inf on samples 5 to 9: a scale needs a finite"
    ):
        ri.surgery.quantize(g, g.weights, x, batch=5)
    with pytest.raises(ValueError, match="^there are no samples to calibrate on: at least 1 is needed$"):
        ri.surgery.quantize(g, g.weights, x[:0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 17}, "^bits must be from 2 to 16, got 17$"),
        ({"bits": 1}, "^bits must be a whole number from 2 up, got 1$"),
        ({"headroom": 0.9}, "^headroom must be at least 1, got 0.9$"),
        ({"percentile": 50}, "^percentile must be above 50 and at most 100, got 50$"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    g = every()
    with pytest.raises(ValueError, match=message):
        ri.surgery.quantize(g, g.weights, samples(g), **settings)


def test_weights_that_do_not_fit_are_refused():
    g = every()
    x = samples(g)
    without = {name: a for name, a in g.weights.items() if name != "b.w"}
    with pytest.raises(ValueError, match=re.escape("weights must hold b.w of every, of shape (3, 2, 2, 4)")):
        ri.surgery.quantize(g, without, x)
    with pytest.raises(ValueError, match="^b.w of every is not finite: it has no scale$"):
        ri.surgery.quantize(g, {**g.weights, "b.w": np.full_like(g.weights["b.w"], np.nan)}, x)


def test_another_size_is_refused_where_a_mean_was_made_for_one():
    g = ri.Graph("net", (6, 7), 2)
    g.linear("fc", g.global_avg_pool("mean", g.relu("act", g.conv2d("conv", INPUT, 3, 1))), 2)
    q = ri.surgery.quantize(with_weights(g), g.weights, samples(g))
    message = r"^node mean \(quantized_global_avg_pool\): x has 8x7 pixels, but the factor was made for 42: quantize"
    with pytest.raises(ri.ShapeError, match=message):
        ri.compile(q, None, 2, size=(8, 7))


def test_maps_and_weights_take_a_fourth():
    g = models.watch_net()
    g.weights = models.watch_weights(1)
    quantized = ri.surgery.quantize(g, g.weights, samples(g, 4))
    # what tuned kernels lay out anew depends on the processor's own dot products
    whole, floats = (ri.compile(net, None, 8, backend="reference") for net in (quantized, g))
    maps = {b.name: b.nbytes for b in whole.lifetimes}
    assert maps["conv1"] == 8 * 100 * 32 and maps["pool2"] == 8 * 25 * 64 and maps["fc.sums"] == 4 * 8 * 7
    assert maps["input"] == 4 * 8 * 600 and whole.peak_bytes < floats.peak_bytes / 2
    assert whole.constant_bytes < floats.constant_bytes / 3


def test_headroom_leaves_room_above_the_largest_weight():
    g = every()
    q = ri.surgery.quantize(g, g.weights, samples(g), 16, headroom=1.5)
    assert {abs(q.weights[n]).max() for n in q.weights if n.endswith(".w")} == {round(32767 / 1.5)}
