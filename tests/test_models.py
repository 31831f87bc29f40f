import importlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from refimpl import models
from refimpl.formats import torch_names
from refimpl.kernels.passes import ShapeError
from refimpl.models import ModelError
from refimpl.models.mobilenet_v2 import round_channels
from refimpl.storage.checkpoint import CheckpointError
from validation.instruments import torch_nets


def trainable(graph):
    """Number of trainable values."""
    arrays = [n.params[p] for n in graph.nodes for p in n.operator.params if p in n.params]
    return sum(math.prod(graph.parameters[name].shape) for name in arrays)


def convolutions(graph):
    return [n for n in graph.nodes if n.op == "conv2d"]


def infer(graph, arrays, x):
    """Output in inference mode, node by node, with the operators' eager reference passes."""
    tensors = {"input": x}
    for node in graph.nodes:
        inputs = [tensors[i] for i in node.inputs]
        params = {local: arrays[name] for local, name in node.params.items()}
        if node.op == "batch_norm":
            op = importlib.import_module("refimpl.ops.frozen_batch_norm")
            scale = op.scale(params["gamma"], params["running_var"], eps=node.attrs["eps"])
            shift = op.shift(params["beta"], params["running_mean"], scale)
            y = op.forward(*inputs, scale, shift)
        elif node.op == "dropout":
            y = inputs[0]
        elif node.op == "flatten":
            y = inputs[0].reshape(len(x), -1)
        else:
            forward = importlib.import_module(f"refimpl.ops.{node.op}").forward
            attrs = {a: v for a, v in node.attrs.items() if a in forward.attributes}
            y = forward(*inputs, **params, **attrs)
        tensors[node.name] = y
    return tensors[graph.output]


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("lenet5", {}, 61_706),
        ("lenet5", {"size": (32, 32)}, 61_706),
        ("resnet18", {}, 11_689_512),
        ("resnet20", {}, 272_474),
        ("resnet34", {}, 21_797_672),
        ("resnet110", {}, 1_730_714),
        ("vgg11", {}, 9_228_362),  # published nets have biases in front of the norms: 2,752 and 4,224 more
        ("vgg16", {}, 14_724_042),
        ("mobilenet_v2", {}, 3_504_872),
        ("efficientnet_lite0", {}, 4_652_008),
    ],
)
def test_parameter_counts_are_the_published_ones(name, options, count):
    assert trainable(models.build(name, **options)) == count


@pytest.mark.parametrize("width", torch_nets.MobileNetV2.CHANNELS)
def test_width_multiplies_the_channels_as_torchvision_rounds_them(width):
    graph = models.mobilenet_v2(width=width)
    net = torch_nets.build(graph, width)
    assert trainable(graph) == sum(p.numel() for p in net.parameters())


def test_mobilenet_v2_has_the_convolutions_that_dynamic_sparse_update_counts():
    found = convolutions(models.mobilenet_v2())
    weights = [math.prod(models.mobilenet_v2().parameters[n.params["w"]].shape) for n in found]
    assert (len(found), sum(weights)) == (52, 2_189_760)


def test_mobilenet_v2_fits_the_published_table():
    path = Path(__file__).parents[2] / "shared" / "methods" / "tables.json"
    if not path.is_file():
        pytest.skip("the folder shared/ with the papers' tables is not beside the project")
    published = json.loads(path.read_text())["sparse_update"]["mobilenet_v2"]
    graph = models.mobilenet_v2()
    assert published["convolutions"] == len(convolutions(graph))
    weights = [graph.parameters[n.params["w"]].shape for n in convolutions(graph)]
    assert published["conv_weights"] == sum(map(math.prod, weights))


@pytest.mark.parametrize("name", models.MODELS)
@pytest.mark.parametrize("classes", [1, 3])
def test_output_has_one_value_for_each_class(name, classes):
    graph = models.build(name, classes=classes)
    assert graph.shapes(5)[graph.output] == (5, classes)


@pytest.mark.parametrize(
    ("name", "size", "last"),
    [
        ("watch", (1, 5), (1, 1)),
        ("watch", (3, 101), (3, 25)),
        ("resnet8", (31, 17), (8, 5)),
        ("resnet8", (1, 1), (1, 1)),
        ("resnet18", (225, 97), (8, 4)),
        ("resnet18", (1, 1), (1, 1)),
        ("mobilenet_v2", (129, 33), (5, 2)),
        ("mobilenet_v2", (1, 1), (1, 1)),
        ("efficientnet_lite0", (129, 33), (5, 2)),
    ],
)
def test_odd_sizes(name, size, last):
    graph = models.build(name, size=size)
    mean = next(n for n in graph.nodes if n.op == "global_avg_pool")
    assert graph.shape(mean.inputs[0])[1:3] == last


def test_projection_comes_before_the_convolutions_of_its_block():
    names = [n.name for n in convolutions(models.resnet18())]
    assert names[-5:] == [
        "layer4.0.downsample.conv", "layer4.0.conv1", "layer4.0.conv2", "layer4.1.conv1", "layer4.1.conv2",
    ]  # fmt: skip
    assert len(names) == 20


@pytest.mark.parametrize(("wanted", "rounded"), [(3, 8), (11.2, 16), (12, 16), (28, 32), (33.6, 32), (24.0, 24)])
def test_channels_are_rounded_to_multiples_of_eight(wanted, rounded):
    assert round_channels(wanted) == rounded


CASES = [
    ("watch", {}, 1.0),
    ("watch", {"classes": 3, "size": (2, 37), "channels": 2}, 1.0),
    ("lenet5", {}, 1.0),
    ("lenet5", {"size": (33, 40), "channels": 3}, 1.0),
    ("resnet8", {"size": (19, 32)}, 1.0),
    ("resnet18", {"classes": 10, "size": (65, 48)}, 1.0),
    ("resnet20", {"size": (16, 19)}, 1.0),
    ("mobilenet_v2", {"classes": 10, "size": (65, 48)}, 1.0),
    ("mobilenet_v2", {"classes": 5, "size": (32, 32), "width": 0.35}, 0.35),
]


@pytest.mark.parametrize(("name", "options", "width"), CASES)
def test_inference_equals_pytorch(name, options, width):
    graph = models.build(name, **options)
    arrays = torch_nets.random_weights(graph, seed=1)
    x = np.random.default_rng(2).standard_normal((2, *graph.size, graph.channels))
    net = torch_nets.with_weights(graph, arrays, width)
    with torch.no_grad():
        expected = net(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    found = infer(graph, arrays, x)
    assert np.linalg.norm(found - expected) <= 1e-11 * np.linalg.norm(expected)


@pytest.mark.parametrize(("name", "options", "width"), CASES)
def test_a_pytorch_state_goes_to_our_names_and_back(name, options, width):
    graph = models.build(name, **options)
    state = {k: v.numpy() for k, v in torch_nets.build(graph, width).state_dict().items()}
    arrays = torch_names.from_torch(graph, state)
    assert {k: v.shape for k, v in arrays.items()} == {k: p.shape for k, p in graph.parameters.items()}
    back = torch_names.to_torch(graph, arrays)
    assert set(back) == {k for k in state if not k.endswith("num_batches_tracked")}
    assert all(np.array_equal(back[k], state[k]) and back[k].flags.c_contiguous for k in back)


def test_torchvision_names():
    names = torch_names.torch_names(models.mobilenet_v2())
    assert names["stem.w"] == "features.0.0.weight"
    assert names["block1.depthwise.bn.running_var"] == "features.1.conv.0.1.running_var"
    assert names["block1.project.w"] == "features.1.conv.1.weight"
    assert names["block17.expand.bn.gamma"] == "features.17.conv.0.1.weight"
    assert names["block17.project.bn.beta"] == "features.17.conv.3.bias"
    assert names["head.bn.running_mean"] == "features.18.1.running_mean"
    assert names["fc.b"] == "classifier.1.bias"
    names = torch_names.torch_names(models.resnet18())
    assert names["layer2.0.downsample.conv.w"] == "layer2.0.downsample.0.weight"
    assert names["layer2.0.downsample.bn.beta"] == "layer2.0.downsample.1.bias"
    assert names["fc.w"] == "fc.weight"


def test_a_state_that_does_not_fit_is_refused_by_its_first_array():
    graph = models.resnet8()
    state = {k: v.numpy() for k, v in torch_nets.build(graph).state_dict().items()}
    without = {k: v for k, v in state.items() if k != "layer2.0.downsample.0.weight"}
    with pytest.raises(CheckpointError, match=r"the PyTorch state of resnet8 lacks layer2.0.downsample.0.weight"):
        torch_names.from_torch(graph, without)
    with pytest.raises(CheckpointError, match=r"has extra \(3,\), which the model does not know"):
        torch_names.from_torch(graph, state | {"extra": np.zeros(3)})
    other = models.resnet8(classes=4)
    with pytest.raises(CheckpointError, match=r"fc.weight of .* has shape \(10, 64\), but the model needs \(4, 64\)"):
        torch_names.from_torch(other, state)
    arrays = torch_names.from_torch(other, state, head=False)
    assert set(other.parameters) - set(arrays) == {"fc.w", "fc.b"}
    with pytest.raises(CheckpointError, match="the weights of resnet8 lacks fc.w"):
        torch_names.to_torch(other, arrays)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet19", {}, "there is no model 'resnet19'; did you mean 'resnet18'?"),
        (
            "transformer",
            {},
            "there is no model 'transformer'; there are watch, lenet, .*, mobilenet_folded, efficientnet_lite0$",
        ),
        ("lenet5", {"clases": 3}, "the model lenet5 has no option 'clases'; did you mean 'classes'?"),
        ("resnet18", {"width": 0.5}, "the model resnet18 has no option 'width'"),
        ("lenet5", {"classes": 0}, "classes of lenet5 must be a positive whole number, not 0"),
        ("lenet5", {"classes": True}, "classes of lenet5 must be a positive whole number, not True"),
        ("lenet5", {"size": 28}, "size of lenet5 must be rows and columns, two positive whole numbers, not 28"),
        ("lenet5", {"size": (28, -1)}, r"size of lenet5 must be rows and columns, .*, not \(28, -1\)"),
        ("mobilenet_v2", {"width": -1.0}, "width of mobilenet_v2 must be a positive number, not -1.0"),
        ("mobilenet_v2", {"width": math.inf}, "width of mobilenet_v2 must be a positive number, not inf"),
        ("lenet5", {"size": (3, 40)}, "lenet5 cannot take maps of 3x40: node conv2.*does not fit into x with H=1"),
    ],
)
def test_what_cannot_be_built_is_refused(name, options, message):
    with pytest.raises(ModelError, match=message):
        models.build(name, **options)


def test_options_without_a_value_take_their_default():
    assert models.build("resnet8", classes=None, size=None, width=None).size == (32, 32)


def test_a_map_that_does_not_fit_names_the_node():
    with pytest.raises(ShapeError, match="node conv2"):
        models.lenet5(size=(3, 3))


def test_pytorch_gradients_come_under_our_names_and_layouts():
    """What `torch_nets.grads` returns is the slope of our own forward pass, along a random direction of the weights."""
    graph = models.lenet5()
    arrays = torch_nets.random_weights(graph, seed=3)
    rng = np.random.default_rng(4)
    x, dy = rng.standard_normal((2, 28, 28, 1)), rng.standard_normal((2, 10))
    net = torch_nets.with_weights(graph, arrays)
    net(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).backward(torch.from_numpy(dy))
    grads = torch_nets.grads(graph, net)
    assert set(grads) == set(arrays)
    way = {name: rng.standard_normal(a.shape) for name, a in arrays.items()}
    ahead, back = (infer(graph, {n: a + h * way[n] for n, a in arrays.items()}, x) for h in (1e-6, -1e-6))
    slope = ((ahead - back) * dy).sum() / 2e-6
    assert slope == pytest.approx(sum((grads[n] * way[n]).sum() for n in grads), rel=1e-6)


def test_running_statistics_have_no_gradient():
    graph = models.watch_net()
    net = torch_nets.with_weights(graph, torch_nets.random_weights(graph, seed=3))
    net(torch.ones(1, 6, 1, 100, dtype=torch.float64)).sum().backward()
    assert set(graph.parameters) - set(torch_nets.grads(graph, net)) == {
        f"bn{i}.running_{s}" for i in (1, 2, 3) for s in ("mean", "var")
    }
