"""The exact derivative along a direction: against backward passes, slopes and PyTorch's forward mode."""

from dataclasses import replace

import numpy as np
import pytest
from nets import NETS
from test_typed_tensors import drawn as sequences
from test_typed_tensors import two_inputs

import refimpl as ri
from costmodel import predict
from refimpl.graph import Graph
from refimpl.methods.directional import Directional
from refimpl.training.directional import directional_derivative
from refimpl.training.runner import Runner
from refimpl.training.state import initial
from validation.instruments import counting, drawn_nets, drawn_passes

BACKENDS = ("reference", "fast")


def moved(graph, seed):
    """Parameters that are at no special value."""
    rng, found = np.random.default_rng(seed), {}
    for name, values in initial(ri.compile(graph, ri.Plan(), 2, backend="reference", dtype=np.float64), seed).items():
        noise = rng.normal(size=values.shape)
        found[name] = values + 0.2 * (np.abs(noise) if name.endswith("running_var") else noise)
    return found


def random_direction(graph, names, seed):
    """Normal numbers for each of some parameters."""
    rng = np.random.default_rng(seed + 1000)
    return {name: rng.normal(size=graph.parameters[name].shape) for name in names}


def gradients(graph, plan, x, y, parameters, seed):
    """What the backward section of a step finds."""
    n = len(y)
    graph.weights = parameters
    t = ri.Trainer(ri.compile(graph, plan, n, backend="reference", dtype=np.float64), seed)
    t.check(x, y)
    t.fill(t.runner, x)
    t.put(y)
    t.begin("", n, 1)
    for section in ("forward", "backward"):
        t.runner.run(section, n)
    loss = float(t.runner.read("loss", n)[0])
    graph.weights = {}
    return loss, {name: np.array(t.runner.array(b)) for name, b in t.program.step.gradients.items()}


def compare(graph, plan, x, y, seed, backend, bound=1e-12):
    """Along a random direction of all that trains, the loss changes by what its gradient tells."""
    weights = moved(graph, seed)
    loss, found = gradients(graph, plan, x, y, weights, seed)
    along = random_direction(graph, found, seed)
    terms = np.concatenate([(found[name] * along[name]).ravel() for name in found])
    ours = directional_derivative(graph, x, y, along, plan, weights, seed, backend)
    assert abs(ours.loss - loss) <= 1e-12 * abs(loss)
    assert abs(ours.derivative - terms.sum()) <= bound * np.abs(terms).sum() and terms.any()


def labelled(graph, plan, n, seed):
    """Samples, and labels or targets."""
    rng, outputs = np.random.default_rng(seed), graph.shape(graph.output)[1]
    x = rng.normal(size=(n, *graph.size, graph.channels))
    return x, rng.normal(size=(n, outputs)) if plan.loss == "mse" else rng.integers(0, outputs, n)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", [seed for seed in range(25) if seed != 16])  # no gradient gets through net 16
def test_eq_1_the_factor_of_a_forward_gradient_is_what_a_backward_pass_tells(seed, backend):
    pick = drawn_passes.picker("net", seed)
    graph = drawn_nets.net(pick, residual=not seed % 3)
    plan = drawn_nets.plan_of(pick, graph, ("backprop",))
    x, y = labelled(graph, plan, pick(2, 6), seed)
    compare(graph, plan, x, y, seed, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ignored", [None, -100, 2])
def test_sequences_that_share_layers_and_leave_rows_out(backend, ignored):
    x, y = sequences(3, 4, ignored)
    plan = ri.Plan(ignored_label=ignored, class_weights=(1, 2, 3, 1, 2, 3), label_smoothing=0.2)
    compare(two_inputs(), plan, x, y, 3, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_biases_alone(backend):
    graph = NETS["depthwise"]()
    plan = ri.Plan(bias_only=True)
    compare(graph, plan, *labelled(graph, plan, 4, 5), 5, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("norm", ["frozen", "train"])
@pytest.mark.parametrize("name", [*NETS])
def test_every_parameter_alone_against_slopes(name, norm, backend):
    """Also those that no plan trains: gamma and beta under frozen statistics."""
    graph = NETS[name]()
    plan = ri.Plan(batch_norm=norm, label_smoothing=0.1)
    x, y = labelled(graph, plan, 3, 1)
    weights, h = moved(graph, 1), 1e-5
    trainable = [p for node in graph.nodes for local, p in node.params.items() if local in node.operator.params]
    for parameter, v in random_direction(graph, trainable, 2).items():
        along = {parameter: v / np.linalg.norm(v)}
        found = directional_derivative(graph, x, y, along, plan, weights, 7, backend).derivative
        ends = [
            directional_derivative(
                graph, x, y, along, plan, weights | {parameter: weights[parameter] + d * along[parameter]}, 7
            ).loss
            for d in (h, -h)
        ]
        assert abs(found - (ends[0] - ends[1]) / (2 * h)) <= 1e-7, parameter


def test_float32_is_near():
    graph = NETS["residual"]()
    plan = ri.Plan(batch_norm="train")
    x, y = labelled(graph, plan, 4, 2)
    weights = moved(graph, 2)
    along = random_direction(graph, [p for p in weights if "running" not in p], 2)
    exact = directional_derivative(graph, x, y, along, plan, weights)
    for backend in BACKENDS:
        ours = directional_derivative(graph, x, y, along, plan, weights, backend=backend, dtype=np.float32)
        assert abs(ours.derivative - exact.derivative) <= 1e-4 * abs(exact.derivative)


BUNDLED = [
    ("watch", {}, 1.0, "frozen"),
    ("lenet5", {}, 1.0, "frozen"),
    ("resnet8", {"size": (13, 11)}, 1.0, "frozen"),
    ("resnet8", {"size": (13, 11)}, 1.0, "train"),
    ("mobilenet_v2", {"classes": 5, "size": (32, 32), "width": 0.35}, 0.35, "frozen"),
]


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # torch.func's own
@pytest.mark.parametrize(("name", "options", "width", "norm"), BUNDLED)
def test_bundled_nets_against_pytorchs_forward_mode(name, options, width, norm):
    torch = pytest.importorskip("torch")
    from refimpl.formats import torch_names
    from validation.instruments import torch_nets

    graph = ri.models.build(name, **options)
    for node in (n for n in graph.nodes if "rate" in n.attrs):
        node.attrs["rate"] = 0.0  # PyTorch drops others than we do
    weights = torch_nets.random_weights(graph, seed=1)
    plan = ri.Plan(batch_norm=norm, label_smoothing=0.1)
    x, y = labelled(graph, plan, 2, 2)
    fixed = [p for p in weights if "running" in p]
    along = random_direction(graph, [p for p in weights if p not in fixed], 3)
    module = torch_nets.with_weights(graph, weights, width, dropout=0.0).train(norm == "train")
    for layer in (m for m in module.modules() if norm == "train" and isinstance(m, torch.nn.BatchNorm2d)):
        layer.track_running_stats, layer.running_mean, layer.running_var = False, None, None
    tensors = {n: torch.from_numpy(a) for n, a in torch_names.to_torch(graph, weights).items()}
    still = {p: np.zeros_like(weights[p]) for p in fixed}
    tangents = {n: torch.from_numpy(a) for n, a in torch_names.to_torch(graph, along | still).items()}
    names = [n for n, _ in module.named_parameters()]
    images, labels = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), torch.from_numpy(y)

    def loss(*parameters):
        given = dict(zip(names, parameters, strict=True))
        out = torch.func.functional_call(module, given, (images,))
        return torch.nn.functional.cross_entropy(out, labels, label_smoothing=0.1)

    wanted, derivative = torch.func.jvp(loss, *(tuple(d[n] for n in names) for d in (tensors, tangents)))
    for backend in BACKENDS:
        ours = directional_derivative(graph, x, y, along, plan, weights, backend=backend)
        assert abs(ours.loss - wanted.item()) <= 1e-11 * abs(wanted.item())
        assert abs(ours.derivative - derivative.item()) <= 1e-10 * abs(derivative.item())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("norm", ["frozen", "train"])
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "mse"])
def test_its_step_is_priced_counted_and_placed(backend, norm, loss):
    graph = NETS["depthwise"]()
    names = tuple(p for n in graph.nodes for local, p in n.params.items() if local in n.operator.params)
    plan = ri.Plan(batch_norm=norm, loss=loss, step=Directional(names))
    p = ri.compile(graph, plan, 4, backend=backend)
    assert p.sections == ("forward",) and "tloss" in p.step.host_reads
    for n in (4, 3):
        for call in p.step:
            assert dict(predict.call_counts(call, n)) == counting.count_call(call, n), call.name
    assert predict.estimate(p).flops == sum(
        count for call in p.step for unit, count in counting.count_call(call, 4).items() if unit in ("mul", "add")
    )
    assert str(p).startswith("depthwise: batch 4")


def test_its_price_is_that_of_the_reference_on_both_backends():
    graph = NETS["residual"]()
    names = tuple(p for n in graph.nodes for local, p in n.params.items() if local in n.operator.params)
    plan = ri.Plan(batch_norm="train", step=Directional(names))
    prices = {backend: predict.estimate(ri.compile(graph, plan, 4, backend=backend)) for backend in BACKENDS}
    assert prices["fast"].flops == prices["reference"].flops
    forward = predict.estimate(ri.compile(graph, replace(plan, step=ri.Backprop()), 4)).sections["forward"]
    assert 2 * forward["mul"] < prices["fast"].units["mul"] < 4 * forward["mul"]


def run(program, x, y, fill):
    """Loss and derivative of a program on some samples, in an arena that is full of a number."""
    r, n = Runner(program, moved(program.graph, 1)), len(y)
    r.block.view(np.float64)[:] = fill
    r.write("input", n, x)
    r.write("labels", n, y)
    for name, scalar in program.step.scalars.items():
        r.write(name, n, scalar(0, 1, 3))
    for name in program.plan.step.parameters:
        r.write(f"tangent.{name}", n, np.ones(program.graph.parameters[name].shape))
    r.run("forward", n)
    return r.read("loss", n).item(), r.read("tloss", n).item()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("names", [("stem.w", "dw.bn.gamma", "fc.w"), ("grouped.b", "fc.b"), ("hidden.b",)], ids=len)
def test_fewer_samples_than_a_batch_holds_and_nothing_left_over(names, backend):
    """A run of 3 of 4 samples, in an arena full of NaN, finds what a program for 3 does in one full of zeros."""
    graph = NETS["depthwise"]()
    plan = ri.Plan(step=Directional(names))
    x, y = labelled(graph, plan, 3, 0)
    programs = [ri.compile(graph, plan, batch, backend=backend, dtype=np.float64) for batch in (4, 3)]
    found = [run(p, x, y, fill) for p, fill in zip(programs, (np.nan, 0.0), strict=True)]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12)
    assert found[0][1] != 0


def test_it_trains_nothing():
    graph = NETS["residual"]()
    plan = ri.Plan(step=Directional(("fc.w",)))
    t = ri.Trainer(ri.compile(graph, plan, 2))
    with pytest.raises(ValueError, match="a step that only tells a directional derivative trains nothing"):
        t.train_step(*labelled(graph, plan, 2, 0), 1)


def refused():
    """Direction, further arguments, and the sentence that refuses them."""
    w = np.zeros((6, 3))
    fc = {"fc.w": w}
    return [
        ({"fc": w}, {}, "direction has 'fc', which is no parameter of residual: those are conv0.w, bn0.gamma, "),
        ({"bn0.running_mean": np.zeros(4)}, {}, "'bn0.running_mean', which is no parameter that trains of residual: "),
        ({"fc.w": w.T}, {}, r"direction\['fc.w'\] must be of real numbers and shape \(6, 3\), but it is of float64 "),
        ({"fc.w": w + 1j}, {}, r"must be of real numbers and shape \(6, 3\), but it is of complex128"),
        ({}, {}, "direction is empty: give it an array for at least one of conv0.w"),
        (fc, {"plan": ri.Plan(depth=ri.StochasticDepth(0.5))}, "plan without depth, StochasticDepth"),
        (fc, {"plan": ri.Plan(instances=ri.RandomSkip(0.5))}, "plan without instances, RandomSkip"),
        (fc, {"seed": -1}, "seed must be a whole number from 0 up, got -1"),
        (fc, {"dtype": np.float16}, "dtype must be float32 or float64"),
        (fc, {"parameters": {"fc.v": w}}, "residual has no parameter 'fc.v'"),
        (fc, {"parameters": {"fc.w": w.T}}, r"the weights 'fc.w' of residual must be of shape \(6, 3\), got \(3, 6\)"),
        (fc, {"y": np.array([0, 3])}, "labels must be from 0 to 2, but y has 0 to 3"),
        (fc, {"x": np.zeros((2, 7, 6, 4))}, r"x must be \(M, H, W, C\) with H, W, C = \(7, 6, 3\)"),
    ]  # fmt: skip


@pytest.mark.parametrize(("direction", "more", "sentence"), refused())
def test_what_is_refused(direction, more, sentence):
    given = {"x": np.zeros((2, 7, 6, 3)), "y": np.array([0, 1])} | more
    with pytest.raises(ValueError, match=sentence):
        ri.directional_derivative(NETS["residual"](), direction=direction, **given)


def test_a_direction_that_the_loss_does_not_depend_on_is_refused():
    g = Graph("two", (2, 2), 1)
    x = g.flatten("flat", "input")
    g.linear("main", x, 2)
    g.linear("aside", x, 2)
    g.outputs = ("main", "aside")
    with pytest.raises(ValueError, match="the loss of two depends on no parameter that has a tangent"):
        ri.directional_derivative(g, np.ones((1, 2, 2, 1)), np.array([0]), {"aside.w": np.ones((4, 2))})
