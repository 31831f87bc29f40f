"""Whole nets against PyTorch: loss, output, every gradient and the running statistics of one training step."""

import copy

import numpy as np
import pytest
import torch
from rule_cases import chosen_part
from torch.overrides import TorchFunctionMode

import refimpl as ri
from checks import distance
from refimpl.kernels.running import threads
from refimpl.methods import sparse_update as su
from refimpl.training.trainer import Runner
from validation.instruments import torch_nets

BATCH = 3
# Small inputs whose odd sides reach every border case; the last maps still hold several values a channel.
SIZES = {"watch": (1, 23), "lenet5": (28, 28), "resnet8": (11, 9), "resnet18": (41, 35), "mobilenet_v2": (41, 35)}
OPTIONS = {"mobilenet_v2": {"width": 0.35}}
BOUND = {"float64": 1e-10, "float32": 1e-3}


def net(model: str, dtype: str):
    """Our graph with random weights, and PyTorch's module with the same; nothing is dropped out."""
    graph = ri.models.build(model, size=SIZES[model], classes=5, **OPTIONS.get(model, {}))
    for node in graph.nodes:
        if node.op == "dropout":
            node.attrs["rate"] = 0.0
    graph.weights = torch_nets.random_weights(graph, seed=len(model), dtype=dtype)
    return graph, torch_nets.with_weights(graph, graph.weights, dropout=0.0, **OPTIONS.get(model, {}))


class Kinks(TorchFunctionMode):
    """Notes how near any input of a rectifier comes to a kink, as a share of the root mean square of its map."""

    nearest = np.inf

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kinks = {"relu": (0.0,), "hardtanh": (0.0, 6.0)}.get(getattr(function, "__name__", ""))  # ReLU6 is a hardtanh
        if kinks:
            x, size = args[0], args[0].square().mean().sqrt().item()
            self.nearest = min(self.nearest, *((x - k).abs().min().item() / size for k in kinks))
        return function(*args, **(kwargs or {}))


def samples(module, shape, dtype: str, training: bool) -> np.ndarray:
    """Random input for which no rectifier stands within float32 rounding of a kink, where gradients jump."""
    module = copy.deepcopy(module).double().train(training)
    for seed in range(200):
        x = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
        with Kinks() as kinks, torch.no_grad():
            module(torch.from_numpy(x).double().permute(0, 3, 1, 2))
        if kinks.nearest > 1e-5:
            return x
    raise AssertionError("no seed keeps the rectifiers away from their kinks")


def ours(graph, plan, x, labels, backend: str) -> tuple[dict, dict]:
    """Loss, output and gradients of one step, and the parameters after it."""
    dtype = x.dtype
    program = ri.compile(graph, plan, BATCH + 1, backend=backend, dtype=dtype)  # a partial batch runs
    parameters = copy.deepcopy(graph.weights)
    runner = Runner(program, parameters)
    runner.block.fill(0xFF)  # NaN wherever nobody writes
    n = len(x)
    runner.host("input", n)[...] = x
    runner.host("labels", n)[...] = labels
    for name, value in program.step.scalars.items():
        runner.host(name, n)[0] = value(0, 1, 0)
    with threads(program.threads):
        for section in ("forward", "backward"):
            runner.run(section, n)
            if section == "forward":
                found = {"loss": runner.host("loss", n).copy()[0], "output": runner.host("output", n).copy()}
        found |= {name: runner.array(b).copy() for name, b in program.step.gradients.items()}
        runner.run("update", n)
    return found, parameters


def theirs(graph, module, x, labels, training: bool) -> tuple[dict, dict, dict]:
    """The same with PyTorch, all state after the step, and the scale of each gradient (`magnitudes`)."""
    module.train(training)
    seen = watch(module)
    output = module(torch.from_numpy(x).permute(0, 3, 1, 2).contiguous())
    loss = torch.nn.functional.cross_entropy(output, torch.from_numpy(labels))
    loss.backward()
    found = {"loss": loss.item(), "output": output.detach().numpy()} | torch_nets.grads(graph, module)
    state = {name: a.detach().numpy() for name, a in module.state_dict().items()}
    scales = magnitudes(graph, module, seen)
    return found, torch_nets.torch_names.from_torch(graph, state), scales


def watch(module) -> dict:
    """Record input, output and the output's gradient of each layer with parameters, during the next step."""
    seen = {}
    for name, layer in module.named_modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear | torch.nn.BatchNorm2d):

            def keep(layer, inputs, y, name=name):
                seen[name] = [inputs[0].detach(), y.detach()]
                y.register_hook(lambda dy: seen[name].append(dy.detach()))

            layer.register_forward_hook(keep)
    return seen


def magnitudes(graph, module, seen) -> dict:
    """Each parameter's gradient with absolute values of its terms, under our names.

    A norm takes away what a shift before it adds: the true gradient of such a shift is zero, and only rounding is left.
    """
    layers = copy.deepcopy(module)
    layers.zero_grad()
    for name, layer in layers.named_modules():
        if name not in seen:
            continue
        x, y, dy = seen[name]
        if isinstance(layer, torch.nn.BatchNorm2d):
            by_channel = (1, -1, 1, 1)
            gamma, beta = layer.weight.detach().reshape(by_channel), layer.bias.detach().reshape(by_channel)
            layer.weight.grad = (dy * (y - beta) / gamma).abs().sum((0, 2, 3))
            layer.bias.grad = dy.abs().sum((0, 2, 3))
        else:
            layer._forward_hooks.clear()
            layer(x.abs()).backward(dy.abs())
    return torch_nets.grads(graph, layers)


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
@pytest.mark.parametrize("backend", ["reference", "fast"])
@pytest.mark.parametrize("model", SIZES)
def test_a_step_is_that_of_pytorch(model, backend, batch_norm, dtype):
    if model == "lenet5" and batch_norm == "train":
        pytest.skip("LeNet-5 has no batch norm")
    graph, module = net(model, dtype)
    rng = np.random.default_rng(7)
    x = samples(module, (BATCH, *SIZES[model], graph.channels), dtype, batch_norm == "train")
    labels = rng.integers(0, 5, BATCH)
    plan = ri.Plan("all", batch_norm=batch_norm, train_bias=True, step=ri.Backprop(ri.SGD(lr=0.1)))
    mine, after = ours(graph, plan, x, labels, backend)
    expected, state, scales = theirs(graph, module, x, labels, batch_norm == "train")
    assert len(mine) > 2
    for name, a in mine.items():
        error = distance(a, expected[name], scales.get(name, 0.0))
        assert error <= BOUND[dtype], f"{name} is off by {error:.1e}"
    for name, a in after.items():
        if "running" in name:
            error = distance(a, state[name])
            assert error <= BOUND[dtype], f"{name} is off by {error:.1e}"


@pytest.mark.parametrize("align", ["centre", "corner"])
@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
@pytest.mark.parametrize("model", SIZES)
def test_filtered_gradients_are_the_same_in_both_tiers(model, batch_norm, align):
    graph, _ = net(model, "float64")
    rng = np.random.default_rng(8)
    x = rng.standard_normal((BATCH, *SIZES[model], graph.channels))
    labels = rng.integers(0, 5, BATCH)
    plan = ri.Plan("all", (ri.GradientFilter(2, align),), batch_norm=batch_norm, train_bias=True)
    reference, fast = (ours(graph, plan, x, labels, backend)[0] for backend in ("reference", "fast"))
    scale = max(np.linalg.norm(a) for a in reference.values()) * 1e-3  # what vanishes but for rounding is small beside
    for name, a in reference.items():
        error = distance(fast[name], a, scale)
        assert error <= 1e-10, f"{name} is off by {error:.1e}"


def pruned_in_torch(module, rule):
    """Prune the error map of every convolution of a module during the next backward pass."""

    def prune(layer, inputs, y):
        def only_kept(dy):
            score = len(dy) * rule.gamma_w * layer.weight.detach().abs().sum((1, 2, 3))
            score = score + rule.gamma_dy * dy.abs().sum((0, 2, 3))
            kept = torch.argsort(score, descending=True, stable=True)[: rule.kept(len(score))]
            only = torch.zeros_like(dy)
            only[:, kept] = dy[:, kept]
            return only

        y.register_hook(only_kept)

    for layer in module.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(prune)


@pytest.mark.parametrize("keep", [0.5, 0.2])
@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
@pytest.mark.parametrize("backend", ["reference", "fast"])
@pytest.mark.parametrize("model", ["watch", "lenet5", "resnet8", "mobilenet_v2"])
def test_gradients_of_a_whole_net_are_those_of_pytorch_with_pruned_error_maps(model, backend, batch_norm, keep):
    graph, module = net(model, "float64")
    rng = np.random.default_rng(8)
    x, labels = rng.standard_normal((3, *SIZES[model], graph.channels)), rng.integers(0, 5, 3)
    rule = ri.ErrorMapPruning(keep, 0.5, 2.0)
    mine, _ = ours(graph, ri.Plan(rules=[rule], batch_norm=batch_norm, train_bias=True), x, labels, backend)
    pruned_in_torch(module.train(batch_norm == "train"), rule)
    output = module(torch.from_numpy(x).permute(0, 3, 1, 2).contiguous())
    torch.nn.functional.cross_entropy(output, torch.from_numpy(labels)).backward()
    theirs = torch_nets.grads(graph, module)
    for name in mine.keys() - {"loss", "output"}:
        scale = 1e-3 * max(np.linalg.norm(a) for a in theirs.values())  # what vanishes but for rounding is small beside
        error = distance(mine[name], theirs[name], scale)
        assert error <= 1e-10, f"{name} is off by {error:.1e}"


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
@pytest.mark.parametrize("backend", ["reference", "fast"])
@pytest.mark.parametrize("model", ["watch", "lenet5", "resnet8", "mobilenet_v2"])
def test_gradients_of_a_whole_net_are_those_of_pytorch_at_the_chosen_channels(model, backend, batch_norm):
    graph, module = net(model, "float64")
    rng = np.random.default_rng(8)
    x, labels = rng.standard_normal((3, *SIZES[model], graph.channels)), rng.integers(0, 5, 3)
    rule = ri.SparseUpdate(0.3)
    mine, _ = ours(graph, ri.Plan(rules=[rule], batch_norm=batch_norm, train_bias=True), x, labels, backend)
    output = module.train(batch_norm == "train")(torch.from_numpy(x).permute(0, 3, 1, 2).contiguous())
    torch.nn.functional.cross_entropy(output, torch.from_numpy(labels)).backward()
    theirs = torch_nets.grads(graph, module)
    largest = max(np.linalg.norm(a) for a in theirs.values())
    convolutions = {n.params["w"]: graph.shape(n.inputs[0])[3] for n in graph.nodes if n.op == "conv2d"}
    for name in mine.keys() - {"loss", "output"}:
        expected = theirs[name]
        if name in convolutions:
            w, channels = graph.weights[name], convolutions[name]
            groups = channels // w.shape[2]
            chosen = su.order(w, groups, "norm", 0, 0)[: rule.count(channels)]
            expected = chosen_part(expected, chosen, groups)
        error = distance(mine[name], expected, 1e-3 * largest)
        assert error <= 1e-10, f"{name} is off by {error:.1e}"
