"""An ONNX graph run by PyTorch, with the gradients of all its constants: what ours are held against.

Another way through the file than ours: node by node, in ONNX's own layout and order, each operator a line of PyTorch,
gradients by its autograd. What it gives is held against onnxruntime before its gradients are trusted.
"""

import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from onnx import helper, load, numpy_helper


def attributes(node) -> dict:
    """Attributes of a node, arrays as such."""
    found = {}
    for a in node.attribute:
        value = helper.get_attribute_value(a)
        if hasattr(value, "dims"):
            value = numpy_helper.to_array(value)
        found[a.name] = value.decode() if isinstance(value, bytes) else value
    return found


def pads_of(a, sizes, kernel, stride, dilation):
    """Padding before and after of each spatial axis."""
    auto = a.get("auto_pad", "NOTSET")
    if auto in ("NOTSET", "VALID"):
        pads = a.get("pads", [0] * 2 * len(sizes))
        return list(zip(pads[: len(sizes)], pads[len(sizes) :], strict=True))
    found = []
    for n, k, s, d in zip(sizes, kernel, stride, dilation, strict=True):
        total = max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
        small, large = total // 2, total - total // 2
        found.append((small, large) if auto == "SAME_UPPER" else (large, small))
    return found


def padded(x, pads, value=0.0):
    """x with this padding of its last axes."""
    flat = [n for pair in reversed(pads) for n in pair]
    return F.pad(x, flat, value=value) if any(flat) else x


def conv(a, x, w, b=None):
    """A convolution."""
    spatial = w.ndim - 2
    stride, dilation = a.get("strides", [1] * spatial), a.get("dilations", [1] * spatial)
    x = padded(x, pads_of(a, x.shape[2:], w.shape[2:], stride, dilation))
    run = {1: F.conv1d, 2: F.conv2d}[spatial]
    return run(x, w, b, stride, 0, dilation, a.get("group", 1))


def windows(a, x):
    """Kernel, stride and padding, with the overhang that ceil_mode adds, of a pool."""
    kernel = a["kernel_shape"]
    stride = a.get("strides", [1] * len(kernel))
    pads = pads_of(a, x.shape[2:], kernel, stride, [1] * len(kernel))
    over = [0] * len(kernel)
    if a.get("ceil_mode", 0):
        for i, (n, k, s, (before, after)) in enumerate(zip(x.shape[2:], kernel, stride, pads, strict=True)):
            count = -(-(n + before + after - k) // s) + 1
            count -= (count - 1) * s >= n + before  # a window may not begin in the padding behind
            over[i] = max(0, (count - 1) * s + k - n - before - after)
    return kernel, stride, pads, over


def max_pool(a, x):
    """Maxima of windows."""
    kernel, stride, pads, over = windows(a, x)
    pads = [(before, after + o) for (before, after), o in zip(pads, over, strict=True)]
    return {1: F.max_pool1d, 2: F.max_pool2d}[len(kernel)](padded(x, pads, -math.inf), kernel, stride)


def average_pool(a, x):
    """Means of windows, by a product of ones."""
    kernel, stride, pads, over = windows(a, x)
    inside = torch.ones_like(x[:1, :1])
    counted = padded(inside, pads, 1.0 if a.get("count_include_pad", 0) else 0.0)
    beyond = [(0, o) for o in over]
    run = {1: F.avg_pool1d, 2: F.avg_pool2d}[len(kernel)]
    return run(padded(padded(x, pads), beyond), kernel, stride) / run(padded(counted, beyond), kernel, stride)


def reduced(a, inputs):
    """Axes and keepdims of a reduction."""
    axes = inputs[1].tolist() if len(inputs) > 1 and inputs[1] is not None else a.get("axes")
    return (list(range(inputs[0].ndim)) if axes is None else list(axes)), bool(a.get("keepdims", 1))


def reshape(a, x, shape):
    """A reshape."""
    wanted = [x.shape[i] if n == 0 and not a.get("allowzero") else n for i, n in enumerate(shape.tolist())]
    return x.reshape(wanted)


def resize(a, x, *rest):
    """By sizes or scales, of the last two axes."""
    given = [r for r in rest if r is not None and r.numel()]
    last = given[-1]
    size = [int(n) for n in last.tolist()] if last.dtype == torch.int64 else [
        math.floor(n * s) for n, s in zip(x.shape, last.tolist(), strict=True)
    ]  # fmt: skip
    mode = {"nearest": "nearest", "linear": "bilinear", "cubic": "bicubic"}[a.get("mode", "nearest")]
    corners = a.get("coordinate_transformation_mode", "half_pixel") == "align_corners"
    return F.interpolate(x, size[2:], mode=mode, align_corners=corners if mode != "nearest" else None)


def slices(a, x, *rest):
    """A slice of several axes."""
    starts, ends = (r.tolist() for r in rest[:2])
    axes = rest[2].tolist() if len(rest) > 2 and rest[2] is not None else range(len(starts))
    steps = rest[3].tolist() if len(rest) > 3 and rest[3] is not None else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        taken = range(x.shape[axis])[slice(start, end, step)]
        if len(taken) < x.shape[axis] or step != 1:
            x = x.index_select(axis, torch.tensor(list(taken)))
    return x


def split(a, x, lengths=None):
    """Parts of an axis."""
    axis = a.get("axis", 0)
    if lengths is None:
        count = a["num_outputs"] if "num_outputs" in a else len(a["split"])
        lengths = a.get("split") or [-(-x.shape[axis] // count)] * count
    return torch.split(x, [int(n) for n in lengths], axis)


def gemm(a, x, w, b=None):
    """A product with weights."""
    x, w = (x.mT if a.get("transA") else x), (w.mT if a.get("transB") else w)
    y = a.get("alpha", 1.0) * (x @ w)
    return y if b is None else y + a.get("beta", 1.0) * b


def pad(a, x, pads, value=None, axes=None):
    """A constant around, or the map itself."""
    pads = pads.tolist()
    axes = range(x.ndim) if axes is None else axes.tolist()
    sides = [(0, 0)] * x.ndim
    for i, axis in enumerate(axes):
        sides[axis] = (pads[i], pads[i + len(pads) // 2])
    if (mode := a.get("mode", "constant")) != "constant":
        flat = [n for pair in reversed(sides[2:]) for n in pair]
        return F.pad(x, flat, mode={"edge": "replicate", "reflect": "reflect", "wrap": "circular"}[mode])
    return padded(x, sides, float(value) if value is not None else 0.0)


def unary(of):
    """A function of one tensor."""
    return lambda a, x: of(x)


def clip(a, x, low=None, high=None):
    """Between two bounds as ReLU6 is: at a bound itself, where a dead map lies, its slope is 0 and that of clamp 1."""
    low, high = a.get("min") if low is None else low, a.get("max") if high is None else high
    if low is None or high is None or not x.is_floating_point():
        return torch.clamp(x, low, high)
    return F.hardtanh(x, float(low), float(high))


def squeeze(a, x, axes=None):
    """Without axes of length 1."""
    axes = a.get("axes") if axes is None else axes.tolist()
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def unsqueeze(a, x, axes=None):
    """With axes of length 1."""
    for axis in sorted(a["axes"] if axes is None else axes.tolist()):
        x = x.unsqueeze(axis)
    return x


DTYPES = {1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool, 11: torch.float64, 10: torch.float16}
RUN = {
    "Conv": conv, "MaxPool": max_pool, "AveragePool": average_pool, "Gemm": gemm, "Reshape": reshape, "Resize": resize,
    "Slice": slices, "Split": split, "Pad": pad, "Squeeze": squeeze, "Unsqueeze": unsqueeze,
    "Add": lambda a, x, y: x + y, "Sub": lambda a, x, y: x - y, "Mul": lambda a, x, y: x * y,
    "Div": lambda a, x, y: x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc"),
    "Pow": lambda a, x, y: x**y, "MatMul": lambda a, x, y: x @ y, "Mod": lambda a, x, y: x % y,
    "Relu": unary(F.relu), "Sigmoid": unary(torch.sigmoid), "Tanh": unary(torch.tanh), "Erf": unary(torch.erf),
    "Sqrt": unary(torch.sqrt), "Identity": unary(lambda x: x), "HardSwish": unary(F.hardswish), "Exp": unary(torch.exp),
    "Elu": lambda a, x: F.elu(x, a.get("alpha", 1.0)), "Softplus": unary(F.softplus),
    "Max": lambda a, *xs: functools.reduce(torch.maximum, xs), "Greater": lambda a, x, y: x > y,
    "Abs": unary(torch.abs), "Neg": unary(torch.neg), "Ceil": unary(torch.ceil), "Floor": unary(torch.floor),
    "Sign": unary(torch.sign), "Round": unary(torch.round),
    "Sin": unary(torch.sin), "Cos": unary(torch.cos), "Reciprocal": unary(torch.reciprocal),
    "HardSigmoid": lambda a, x: F.hardtanh(a.get("alpha", 0.2) * x + a.get("beta", 0.5), 0.0, 1.0),
    "LeakyRelu": lambda a, x: F.leaky_relu(x, a.get("alpha", 0.01)),
    "Gelu": lambda a, x: F.gelu(x, approximate=a.get("approximate", "none")),
    "Clip": clip,
    "GlobalAveragePool": lambda a, x: x.mean(tuple(range(2, x.ndim)), keepdim=True),
    "GlobalMaxPool": lambda a, x: x.amax(tuple(range(2, x.ndim)), keepdim=True),
    "Flatten": lambda a, x: x.reshape(math.prod(x.shape[: a.get("axis", 1)]), -1),
    "Transpose": lambda a, x: x.permute(a["perm"]), "Concat": lambda a, *xs: torch.cat(xs, a["axis"]),
    "Softmax": lambda a, x: torch.softmax(x, a.get("axis", -1)),
    "LayerNormalization": lambda a, x, w, b=None: F.layer_norm(x, w.shape, w, b, a.get("epsilon", 1e-5)),
    "InstanceNormalization": lambda a, x, w, b: F.instance_norm(x, weight=w, bias=b, eps=a.get("epsilon", 1e-5)),
    "BatchNormalization": lambda a, x, w, b, mean, var: F.batch_norm(
        x, mean.detach(), var.detach(), w, b, eps=a.get("epsilon", 1e-5)
    ),
    "Gather": lambda a, x, i: x[(slice(None),) * (a.get("axis", 0) % x.ndim) + (i,)],
    "Shape": lambda a, x: torch.tensor(x.shape), "Cast": lambda a, x: x.to(DTYPES[a["to"]]),
    "ConstantOfShape": lambda a, s: torch.full(s.tolist(), a["value"].item() if "value" in a else 0.0),
    "Expand": lambda a, x, s: x.expand(torch.broadcast_shapes(x.shape, s.tolist())),
    "Equal": lambda a, x, y: x == y, "Where": lambda a, c, x, y: torch.where(c, x, y),
    "Range": lambda a, x, y, z: torch.arange(x.item(), y.item(), z.item()),
    "Constant": lambda a: torch.from_numpy(np.array(a["value"])),
    "CumSum": lambda a, x, axis: torch.cumsum(x, int(axis)),
    "GatherND": lambda a, x, i: x[tuple(i.unbind(-1))],
}  # fmt: skip
REDUCE = {
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keep), "ReduceSum": lambda x, axes, keep: x.sum(axes, keep),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keep),
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep),
}  # fmt: skip


def run(path, x: np.ndarray, dy: np.ndarray | None = None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The first output on samples x, and the gradients of Σ dy·output, one for each place that reads a constant.

    In float64 where x is. Places are named NODE:INPUT, a node by its first output: a constant that several nodes read
    has one for each.
    """
    model = load(str(path))

    def wide(t: torch.Tensor) -> torch.Tensor:
        return t.to(torch.from_numpy(x).dtype) if t.is_floating_point() else t

    made = {t.name: wide(torch.from_numpy(np.array(numpy_helper.to_array(t)))) for t in model.graph.initializer}
    constant, leaves = set(made), dict[str, torch.Tensor]()
    made[next(i.name for i in model.graph.input if i.name not in made)] = torch.from_numpy(x)
    for node in model.graph.node:
        a, given = attributes(node), [made[n] if n else None for n in node.input]
        if node.op_type == "Split" and "split" not in a:
            a["num_outputs"] = len(node.output)
        if all(n in constant for n in node.input if n):
            constant.update(node.output)
        else:
            for place, name in enumerate(node.input):
                if name in constant and made[name].is_floating_point():
                    given[place] = leaves[f"{node.output[0]}:{place}"] = made[name].clone().requires_grad_()
        if node.op_type in REDUCE:
            found = REDUCE[node.op_type](given[0], *reduced(a, given))
        else:
            found = RUN[node.op_type](a, *given)
        outputs = found if isinstance(found, tuple) else (found,)
        made.update(zip(node.output, map(wide, outputs), strict=False))
    y = made[model.graph.output[0].name]
    if dy is not None:
        y.backward(torch.from_numpy(dy))
    return y.detach().numpy(), {name: t.grad.numpy() for name, t in leaves.items() if t.grad is not None}
