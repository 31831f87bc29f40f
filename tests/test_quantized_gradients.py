"""Training of nets in whole numbers: gradients, rounding, scaling and whole steps against plain int64 NumPy."""

import json

import numpy as np
import pytest
from test_int8_whole import cifar
from test_weight_files import MCUNET, MOBILENET, shared
from whole_step_oracle import Whole

import oracles
import refimpl as ri
from costmodel import closed_form, predict
from refimpl.compiler import executed
from refimpl.formats.int8_nets import from_int8
from refimpl.formats.int8_whole import whole_from_int8
from refimpl.formats.npz import load_npz
from refimpl.kernels.passes import ShapeError
from refimpl.ops import (
    quantized_avg_pool,
    quantized_concat,
    quantized_conv2d,
    quantized_linear,
    quantized_max_pool,
)
from validation.instruments import counting, drawn, executing, measured
from validation.instruments.int8_files import int8_arrays

N, SIZE, SEED = 3, (16, 16), 5
BACKENDS = ("reference", "fast")
LR = 0.02


def arrays():
    found, structure = int8_arrays()
    return found | {"structure": np.array(json.dumps(structure))}


def net(classes=None):
    return whole_from_int8(arrays(), classes, SIZE)


def batch(graph, n=N, seed=1):
    rng = np.random.default_rng(seed)
    return rng.integers(-128, 128, (n, *SIZE, 3), np.int8), rng.integers(0, graph.shape(graph.output)[1], n)


def trainer(graph, plan, backend="fast", dtype=np.float64, n=N):
    return ri.Trainer(ri.compile(graph, plan, n, backend=backend, threads=2, dtype=dtype), SEED)


def plan(last="all", *rules, lr=LR, **settings):
    scaled = settings.pop("scaled", True)
    return ri.Plan(last, rules, ri.Backprop(ri.SGD(lr, scaled=scaled)), **settings)


PLANS = {
    "dense": plan(train_bias=True),
    "dense, unscaled": plan(train_bias=True, lr=1e4, scaled=False),
    "last two": plan(2),
    "biases": plan(bias_only=True),
    "sparse": plan("all", ri.SparseUpdate(0.3, fixed_first=0, fixed_last=0)),
    "sparse, unscaled": plan("all", ri.SparseUpdate(0.3, fixed_first=0, fixed_last=0, scaling="none"), lr=1e4),
}


def chosen_elements(w, block, kept, order):
    """The elements of w (R, S, C/G, K), by number, that a block of sparse update trains, in the order of its dw."""
    r, s, depth, k = w.shape
    groups = len(order) // depth
    width = k // groups
    numbers, found = np.arange(w.size).reshape(w.shape), []
    chosen = np.take(order, np.arange(block * kept, (block + 1) * kept), mode="wrap")
    for c in chosen:
        found.append(numbers[:, :, c % depth, c // depth * width : (c // depth + 1) * width])
    return np.stack(found, 2).reshape(-1)


def check_steps(p, backend):
    """Forward, loss, backward and update of four steps are those of a plain statement; the trainer."""
    graph = net()
    t = trainer(graph, p, backend)
    x, y = batch(graph)
    scaled = p.step.optimizer.scaled and not any(rule.scaling == "none" for rule in p.rules)
    weights = {n: v.copy() for n, v in graph.weights.items()}
    names = set(t.program.step.gradients)
    moved = 0
    for step in range(4):
        t.train_step(x, y, 8)
        plain = Whole(graph, weights, SEED, step + 1)
        plain.forward(x)
        gradients = plain.backward(y, names)
        assert gradients.keys() == names
        for parameter, gradient in gradients.items():
            of = None
            if p.rules and parameter.endswith(".w") and parameter != "fc.w":
                w, scale = weights[parameter], weights[parameter.replace(".w", ".w_scale")]
                node = next(node for node in graph.nodes if parameter in node.params.values())
                channels = graph.shape(node.inputs[0])[3]
                square = np.square(w * scale.astype(float))
                groups = channels // w.shape[2]
                norms = square.reshape(-1, w.shape[2], groups, w.shape[3] // groups).sum((0, 3)).T.reshape(-1)
                kept = max(1, round(0.3 * channels))
                of = chosen_elements(w, step, kept, np.argsort(-norms, kind="stable"))
                gradient = gradient.reshape(-1)[of]
            plain.update(parameter, gradient, LR if scaled else 1e4, scaled, of)
        for parameter in names:
            now = t.parameters[parameter]
            assert np.array_equal(now, plain.w[parameter]), (step, parameter)
            moved += np.count_nonzero(now != weights[parameter])
            weights[parameter] = now.copy()
        for parameter in set(weights) - names:
            assert np.array_equal(t.parameters[parameter], weights[parameter]), parameter
    assert moved > 50
    return t


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [name for name in PLANS if not name.startswith("sparse")])
def test_whole_steps_are_those_of_a_plain_statement_to_the_bit(name, backend):
    check_steps(PLANS[name], backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_and_errors_of_every_layer_are_those_of_a_plain_statement(backend):
    graph = net()
    t = trainer(graph, PLANS["dense"], backend)
    x, y = batch(graph)
    t.fill(t.runner, x)
    t.put(y)
    for name, value in (("step", 1), ("seed", SEED)):
        t.runner.write(name, N, [value])
    t.runner.run("forward", N)
    t.runner.run("backward", N)
    plain = Whole(graph, graph.weights, SEED, 1)
    plain.forward(x)
    gradients = plain.backward(y, set(t.program.step.gradients))
    for name, buffer in t.program.step.gradients.items():
        found = t.backend.read(t.runner.array(buffer))
        assert np.abs(found - gradients[name].reshape(found.shape)).max() <= 1e-12 * np.abs(gradients[name]).max(), name


def test_the_statement_finds_the_gradient_of_the_float_net():
    """Directions are those of the dequantized net, though this one's random maps saturate in whole numbers alone."""
    graph, x = net(), batch(net(), 8)[0]
    floats = from_int8(arrays(), size=SIZE)
    y = np.arange(8) % graph.shape(graph.output)[1]
    found = {}
    for one, inputs in ((graph, x), (floats, (x.astype(np.float64) + 128) / 127.5 - 1)):
        t = trainer(one, PLANS["dense"], n=8)
        t.fill(t.runner, inputs)
        t.put(y)
        for name, value in (("step", 1), ("seed", SEED)):
            if name in t.program.step.host_writes:
                t.runner.write(name, 8, [value])
        t.runner.run("forward", 8)
        t.runner.run("backward", 8)
        found[one.name] = {n: t.backend.read(t.runner.array(b)) for n, b in t.program.step.gradients.items()}
    whole, real = found.values()
    for name in real:
        a, b = whole[name].ravel(), real[name].ravel()
        assert a @ b > 0.75 * np.linalg.norm(a) * np.linalg.norm(b), name
        assert 0.3 < np.linalg.norm(a) / np.linalg.norm(b) < 1.2, name


@pytest.mark.parametrize("backend", (*BACKENDS, "rows"))
@pytest.mark.parametrize("name", ["dense", "sparse", "biases"])
def test_steps_are_counted_and_every_byte_is_where_it_was_placed(name, backend):
    graph = net(7)  # with a classifier of floats
    p = ri.compile(graph, PLANS[name], N, backend=backend, threads=2)
    for call in p.step:
        for n in (1, N):
            assert dict(predict.call_counts(call, n)) == counting.count_call(call, n), call.name
    assert [str(k) for k in drawn.compare_kernels(p, N) if not k.ok] == []
    x, y = batch(graph)
    t = ri.Trainer(p, SEED)
    assert measured.touched_bytes(p, x, y, t.parameters) <= p.peak_bytes
    t.fit(x, y, 2)
    integers = {w for w, b in p.step.parameters.items() if b.region == "state" and b.dtype.kind == "i"}
    assert integers and p.state_bytes == sum(b.nbytes for b in p.step.parameters.values() if b.region == "state")


def test_closed_forms_price_a_step_at_any_batch():
    graph, plan_ = net(), plan("all", ri.SparseUpdate(0.3))
    form = closed_form.of(graph, plan_)
    for n in (1, 4):
        units = predict.estimate(ri.compile(graph, plan_, n)).units
        found = form.at(N=n, ratio=0.3)
        assert {u: found[u] for u in ("imul", "iadd", "mul", "load")} == {
            u: units[u] for u in ("imul", "iadd", "mul", "load")
        }


# What is refused.


def test_a_run_that_would_leave_int32_is_refused_before_it_begins():
    graph = net()
    b = graph.weights["block2.expand.b"]
    b[3] = 2**31 - 5
    with pytest.raises(
        ValueError, match=r"^the weights of block2\.expand cannot train: the bias of channel 3 is 2,147,"
    ):
        trainer(graph, plan(3))
    trainer(graph, plan(2))  # frozen, it does not grow
    trainer(graph, plan(bias_only=True))  # weights do not grow, and biases are cut off


def test_what_whole_numbers_cannot_do_is_said():
    graph = net()
    refused = {
        "gradient-filter computes with floats, but block2.project of .* is of whole numbers": plan(
            1, ri.GradientFilter(2)
        ),
        "plain SGD trains alone: a momentum of floats would take four bytes": ri.Plan(
            1, step=ri.Backprop(ri.SGD(0.1, momentum=0.9))
        ),
        "adam trains float32 and cannot train": ri.Plan(1, step=ri.Backprop(ri.Adam(0.1))),
    }
    for message, given in refused.items():
        with pytest.raises(ValueError, match=message):
            ri.compile(graph, given, 2)
    sixteen = surgery(16)
    with pytest.raises(ValueError, match=r"^quantized_sgd\.update trains int8 and int32, but .*\.w holds int16$"):
        ri.compile(sixteen, ri.Plan(1, step=ri.Backprop(ri.SGD(0.1))), 2)


def surgery(bits=8, **settings):
    """A net of pools and a concatenation made one of whole numbers."""
    g = ri.Graph("pools", (8, 8), 2)
    a = g.relu("a.relu", g.conv2d("a", "input", 6, 3, pad=1))
    b = g.concat("both", g.max_pool("max", a, 2), g.avg_pool("mean", a, 2))
    g.linear("fc", g.flatten("flat", g.relu6("c.relu", g.conv2d("c", b, 5, 1))), 3)
    rng = np.random.default_rng(3)
    g.weights = {n: rng.normal(size=p.shape).astype(np.float32) for n, p in g.parameters.items()}
    x = rng.normal(size=(20, 8, 8, 2)).astype(np.float32)
    return ri.surgery.quantize(g, g.weights, x, bits, **settings)


@pytest.mark.parametrize("settings", [{}, {"per_channel": True, "zero_points": True, "twice": True}])
def test_gradients_go_through_pools_and_concatenations(settings):
    """Training the layers before them lowers the loss."""
    q = surgery(**settings)
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(12, 8, 8, 2)).astype(np.float32), rng.integers(0, 3, 12)
    t = ri.Trainer(ri.compile(q, ri.Plan("all", step=ri.Backprop(ri.SGD(3e-4))), 12), 1)
    before = {n: w.copy() for n, w in t.parameters.items()}
    losses = t.fit(x, y, 60)
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    assert (t.parameters["a.w"] != before["a.w"]).mean() > 0.2


def test_pools_and_concatenations_pass_gradients_as_plain_statements_do():
    rng = np.random.default_rng(2)
    x = rng.integers(-128, 128, (2, 5, 6, 3), np.int8)
    window = {"window": (2, 3), "stride": (2, 1), "pad": ((1, 0), (0, 1))}
    ends = {"low": -90, "high": 100}
    for op, oracle in ((quantized_max_pool, oracles.max_pool), (quantized_avg_pool, oracles.avg_pool)):
        y = op.forward(x, **window, **ends)
        dy = rng.normal(size=y.shape)
        inside = dy * ((y > -90) & (y < 100))
        mask = op.pack_mask(y, **ends)
        unequal = x + np.arange(x.size).reshape(x.shape) * -1e-9  # the first of equal ones is the largest
        given = {"x": unequal, "dy": inside}
        wanted = oracle(given, window)["dx"]
        sizes = {"H": 5, "W": 6}
        if op is quantized_max_pool:
            found = op.grad_x(dy, op.argmax(x, **window), mask, **window, **sizes)
        else:
            found = op.grad_x(dy, mask, **window, **sizes)
        np.testing.assert_allclose(found, wanted, atol=1e-12)
    x = rng.integers(-128, 128, (3, 7), np.int8)
    y = np.zeros((3, 12), np.int8)
    m, s, zero = (np.full(12, v, np.int32) for v in (3 << 28, -1, 4))
    y = quantized_concat.forward(y, x, zero, m, s, start=2, **ends)
    dy, k = rng.normal(size=y.shape), slice(2, 9)
    wanted = (dy * ((y > -90) & (y < 100)))[:, k] * (3 / 8) / 2
    np.testing.assert_allclose(
        quantized_concat.grad_x(dy, quantized_concat.pack_mask(y, **ends), m, s, start=2, A=7), wanted
    )


def test_a_linear_layer_with_a_map_of_8_bits_passes_its_slope():
    rng = np.random.default_rng(4)
    x, w = rng.integers(-128, 128, (3, 4), np.int8), rng.integers(-128, 128, (4, 9), np.int8)
    m, s = np.full(9, 5 << 28, np.int32), np.full(9, -6, np.int32)
    y = quantized_linear.forward(x, w, m, s, low=-50, high=60)
    mask, dy = quantized_linear.pack_mask(y, low=-50, high=60), rng.normal(size=y.shape)
    found = quantized_linear.grad_sums(dy, mask, m, s)
    np.testing.assert_allclose(found, dy * ((y > -50) & (y < 60)) * (5 * 2.0**28) * 2.0 ** (-6 - 31))


def test_sums_that_may_leave_32_bits_are_refused():
    one, s = np.ones(1), np.ones(1)
    wide = np.full((1, 1, 1, 132_105), 127, np.int8)
    with pytest.raises(ShapeError, match=r"R·S·K/G must be at most 132104$"):
        quantized_conv2d.grad_x(wide, wide, one, H=1, W=1)
    long = np.full((1, 1, 66_312, 1), 127, np.int8)
    with pytest.raises(ShapeError, match=r"the columns Q of dy must be at most 66311$"):
        quantized_conv2d.grad_w(long, long, one, R=1, S=1)
    with pytest.raises(ShapeError, match=r"K must be at most 132104$"):
        quantized_linear.grad_x(np.zeros((1, 132_105), np.int8), np.zeros((1, 132_105), np.int8), s)


# Row by row.


@pytest.mark.parametrize("seed", range(8))
def test_three_convolutions_row_by_row_give_the_same_bits(seed):
    rng = np.random.default_rng(seed)
    size, channels = (int(rng.integers(5, 12)), int(rng.integers(5, 12))), [int(n) for n in rng.integers(3, 8, 3)]
    window, stride = [int(rng.integers(1, 5)) for _ in range(2)], [int(rng.integers(1, 3)) for _ in range(2)]
    g = ri.Graph("block", size, channels[0])
    x = g.conv2d("first", "input", channels[1] + 1, window[0], stride=stride[0], pad=int(rng.integers(0, 2)))
    x = g.conv2d(
        "middle", g.relu6("r1", x), channels[1] + 1, min(window[1], 3), stride=stride[1], pad=1, groups=channels[1] + 1
    )
    g.conv2d("last", g.relu6("r2", x), channels[2], 1)
    g.weights = {n: rng.normal(size=p.shape).astype(np.float32) for n, p in g.parameters.items()}
    samples = rng.normal(size=(6, *size, channels[0])).astype(np.float32)
    q = ri.surgery.quantize(g, g.weights, samples, per_channel=True, zero_points=True, twice=bool(seed % 2))
    found = {}
    for backend in ("reference", "rows"):
        p = ri.compile(q, None, 3, backend=backend, threads=2)
        found[backend] = ri.Trainer(p).predict(samples)
    (launch,) = (launch for launch in p.order if len(launch.covers) == 3)
    assert executing.launched(launch, 3) == executed.executed(launch, 3, counting.count_call)
    assert np.array_equal(found["rows"], found["reference"])


# The nets of the paper.


@pytest.mark.parametrize("name, last", [(MOBILENET, 12), (MCUNET, 3)])
def test_a_step_fits_into_256_kib_and_runs_there(name, last):
    path = shared(name)
    limit = 256 * 1024
    graph = load_npz(path, 10, whole=True)
    rules = (ri.SparseUpdate(0.02),)
    with pytest.raises(ri.MemoryLimitError):
        ri.compile(graph, ri.Plan(last, rules), 1, memory_limit=limit, threads=1)
    p = ri.compile(
        graph, ri.Plan(last, rules, ri.Backprop(ri.SGD(1e-3))), 1, backend="rows", memory_limit=limit, threads=1
    )
    t = ri.Trainer(p, 1)
    x, y = np.random.default_rng(0).integers(-128, 128, (2, 128, 128, 3), np.int8), np.array([3, 8])
    assert np.isfinite(t.fit(x, y, 2)).all()
    assert measured.touched_bytes(p, x[:1], y[:1], t.parameters) + p.state_bytes <= limit
    assert not ri.compile(graph, ri.Plan(last + 1 if name == MCUNET else 24, rules), 1, backend="rows").state_bytes < 0


@pytest.mark.parametrize("name", [MOBILENET, MCUNET])
def test_gradients_of_the_papers_nets_are_those_of_their_float_nets(name):
    path = shared(name)
    images = cifar(16, (64, 64))
    y = np.arange(16) % 10
    found, w = [], np.random.default_rng(5).normal(size=(load_npz(path, 10).parameters["fc.w"].shape)) * 0.05
    for whole in (True, False):
        graph = load_npz(path, 10, (64, 64), whole=whole)
        graph.weights["fc.w"] = w.astype(np.float32)
        t = trainer(graph, plan(6), n=16, dtype=np.float32)
        t.fill(
            t.runner, (images.astype(int) - 128).astype(np.int8) if whole else (images / 127.5 - 1).astype(np.float32)
        )
        t.put(y)
        for key, value in (("step", 1), ("seed", SEED)):
            if key in t.program.step.host_writes:
                t.runner.write(key, 16, [value])
        t.runner.run("forward", 16)
        t.runner.run("backward", 16)
        found.append({n: t.backend.read(t.runner.array(b)).ravel() for n, b in t.program.step.gradients.items()})
    for parameter, real in found[1].items():
        ratio = np.linalg.norm(found[0][parameter]) / np.linalg.norm(real)
        cosine = found[0][parameter] @ real / np.linalg.norm(real) ** 2 / ratio
        print(f"{name} {parameter}: cosine {cosine:.3f}, norm {ratio:.2f} times that of floats")
        assert cosine > 0.8 and 0.8 < ratio < 1.25, (parameter, cosine, ratio)
