"""Gradients of drawn ONNX graphs against PyTorch: 60 of them, each from its own seed.

python tools/onnx_drawn.py draw FOLDER      by a Python that has torch and onnx: NAME.onnx, and NAME.npz beside it
python tools/onnx_drawn.py check FOLDER     by one that has gradledger[onnx]: validation/results/onnx-drawn.json

A graph takes 2 samples of 3×H×W. Blocks are drawn, one behind the other or beside each other: convolutions of every
kind, norms, activations, pools, sizes, sums, products, concatenations, parts, attention, layers that are applied twice.
PyTorch runs the file node by node (`onnx_by_torch.py`), forward and back from a random gradient of the outputs, in
float64 and in float32. A weight's error is ‖ours − PyTorch's‖ / ‖PyTorch's‖. Where PyTorch's in float64 is below a
millionth of the graph's largest it is 0 but for rounding, as that of a bias before a norm, and the error is a share of
the largest.
"""

import sys
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

GRAPHS, SAMPLES, CLASSES = 60, 2, 5
OPSET = 20
GOALS = {"float64": 1e-12, "float32": 1e-3}  # the worst weight of all graphs
NAME = "onnx-drawn"


class Drawing:
    """A graph while it is drawn: nodes, constants, and of each tensor its shape (C, H, W)."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng([seed, 60])
        self.nodes: list = []
        self.constants: dict[str, np.ndarray] = {}
        self.shapes: dict[str, tuple[int, ...]] = {"x": (3, self.pick(8, 14), self.pick(8, 14))}

    def pick(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return int(self.rng.integers(low, high + 1))

    def one_of(self, *found):
        """One of these."""
        return found[self.pick(0, len(found) - 1)]

    def constant(self, array) -> str:
        """The name of a new constant."""
        name = f"k{len(self.constants)}"
        self.constants[name] = np.asarray(array)
        return name

    def weights(self, *shape: int, scale: float | None = None, offset: float = 0.0) -> str:
        """The name of random weights."""
        scale = scale or float(np.sqrt(2 / max(1, np.prod(shape[1:]))))
        return self.constant((offset + scale * self.rng.normal(size=shape)).astype(np.float32))

    def node(self, op: str, inputs: list[str], shape: tuple[int, ...] = (), **attrs) -> str:
        """The output of a new node; shape: without samples."""
        from onnx import helper

        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"n{len(self.nodes)}", **attrs))
        self.shapes[name] = shape
        return name

    def same(self, op: str, x: str, *more: str, **attrs) -> str:
        """A node whose output has the shape of x."""
        return self.node(op, [x, *more], self.shapes[x], **attrs)


def conv(d: Drawing, x: str, channels: int = 0, size: int = 0) -> str:
    """A convolution; channels: 0 draws them; size: of its kernel, 0 draws all that it has."""
    c, h, w = d.shapes[x]
    kernel = size or d.one_of(1, 3, 3, 5)
    groups = 1 if size else d.one_of(1, 1, c, *(g for g in (2, 3) if c % g == 0))
    channels = channels or groups * d.pick(1, max(1, 8 // groups))
    stride, dilation = (1, 1) if size else (d.one_of(1, 1, 2), d.one_of(1, 1, 2))
    reach = dilation * (kernel - 1)
    pads = [reach // 2] * 4 if size else [d.pick(0, reach) for _ in range(4)]
    rows, columns = ((n + pads[i] + pads[i + 2] - reach - 1) // stride + 1 for i, n in enumerate((h, w)))
    if min(rows, columns) < 2 and not size:
        return conv(d, x, channels, 1)
    inputs = [x, d.weights(channels, c // groups, kernel, kernel)]
    inputs += [d.weights(channels, scale=0.3)] if d.pick(0, 1) else []
    return d.node("Conv", inputs, (channels, rows, columns), group=groups, pads=pads, strides=[stride] * 2,
                  dilations=[dilation] * 2)  # fmt: skip


def norm(d: Drawing, x: str) -> str:
    """A norm of the batch by running statistics, of instances, or of the channels of each place."""
    c, h, w = d.shapes[x]
    scale, shift = d.weights(c, scale=0.3, offset=1.0), d.weights(c, scale=0.3)
    kind = d.pick(0, 2)
    if kind == 0:
        mean, variance = d.weights(c, scale=0.3), d.constant(d.rng.uniform(0.5, 2, c).astype(np.float32))
        return d.same("BatchNormalization", x, scale, shift, mean, variance)
    if kind == 1 and h * w > 8:
        return d.same("InstanceNormalization", x, scale, shift)
    last = d.node("Transpose", [x], (h, w, c), perm=[0, 2, 3, 1])
    last = d.same("LayerNormalization", last, scale, shift, axis=-1)
    return d.node("Transpose", [last], (c, h, w), perm=[0, 3, 1, 2])


def activation(d: Drawing, x: str) -> str:
    """An activation, of one node or several."""
    kind = d.one_of("Relu", "Sigmoid", "Tanh", "HardSwish", "LeakyRelu", "Elu", "Softplus", "Gelu", "silu", "choice")
    if kind == "silu":
        return d.same("Mul", x, d.same("Sigmoid", x))
    if kind == "choice":
        above = d.same("Greater", x, d.constant(np.float32(d.pick(-5, 5) / 10)))
        return d.node("Where", [above, x, d.same("Mul", x, d.constant(np.float32(0.3)))], d.shapes[x])
    return d.same(kind, x)


def pool(d: Drawing, x: str) -> str:
    """A maximum or mean of windows."""
    c, h, w = d.shapes[x]
    if min(h, w) < 4:
        return activation(d, x)
    kernel, stride, pad = d.one_of(2, 3), d.one_of(1, 2), d.pick(0, 1)
    rows, columns = ((n + 2 * pad - kernel) // stride + 1 for n in (h, w))
    more = {"count_include_pad": d.pick(0, 1)} if (op := d.one_of("MaxPool", "AveragePool")) == "AveragePool" else {}
    return d.node(op, [x], (c, rows, columns), kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4, **more)


def resize(d: Drawing, x: str) -> str:
    """Twice as many rows and columns."""
    c, h, w = d.shapes[x]
    if h * w > 64:
        return pool(d, x)
    scales = d.constant(np.array([1, 1, 2, 2], np.float32))
    more = d.one_of(
        {"mode": "linear"},
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    )
    return d.node("Resize", [x, "", scales], (c, 2 * h, 2 * w), **more)


def border(d: Drawing, x: str) -> str:
    """A border of zeros, or of the map itself, before a convolution."""
    c, h, w = d.shapes[x]
    sides = [d.pick(0, 2) for _ in range(4)]
    pads = d.constant(np.array([0, 0, *sides[:2], 0, 0, *sides[2:]]))
    wide = (c, h + sides[0] + sides[2], w + sides[1] + sides[3])
    return conv(d, d.node("Pad", [x, pads], wide, mode=d.one_of("constant", "reflect", "edge")), size=3)


def beside(d: Drawing, x: str) -> str:
    """Two branches, which a sum, a difference, a product, the larger or a concatenation makes one."""
    c, h, w = d.shapes[x]
    a, b = (BLOCKS[d.pick(0, 1)](d, conv(d, x, d.one_of(c, c), size=d.one_of(1, 3))) for _ in range(2))
    op = d.one_of("Add", "Sub", "Mul", "Max", "Concat", "around")
    if op == "around":
        return d.same("Add", x, a)
    if op == "Concat":
        both = d.node("Concat", [a, b, x], (3 * c, h, w), axis=1)
        return conv(d, both, d.pick(2, 8), size=1)
    return d.same(op, a, b)


def gate(d: Drawing, x: str) -> str:
    """A factor for each channel, of the map's means, or for each place, of its channels."""
    c, h, w = d.shapes[x]
    if d.pick(0, 1):
        small = conv(d, d.node("GlobalAveragePool", [x], (c, 1, 1)), d.pick(1, 4), size=1)
        factor = d.same("Sigmoid", conv(d, d.same("Relu", small), c, size=1))
    else:
        factor = d.same("Sigmoid", conv(d, x, 1, size=3))
    return d.node("Mul", [x, factor], (c, h, w))


def parts(d: Drawing, x: str) -> str:
    """Channels in two parts, one of which goes through a block; or channels dealt out in turn."""
    c, h, w = d.shapes[x]
    if c % 2:
        return gate(d, x)
    half = c // 2
    ends = [d.constant(np.array([n])) for n in (0, half, c)]
    axis = d.constant(np.array([1]))
    a = d.node("Slice", [x, ends[0], ends[1], axis], (half, h, w))
    b = d.node("Slice", [x, ends[1], ends[2], axis], (half, h, w))
    both = d.node("Concat", [conv(d, a, half, size=3), b], (c, h, w), axis=1)
    shape = d.constant(np.array([0, 2, half, h, w]))
    turned = d.node("Transpose", [d.node("Reshape", [both, shape])], perm=[0, 2, 1, 3, 4])
    return d.node("Reshape", [turned, d.constant(np.array([0, c, h, w]))], (c, h, w))


def attention(d: Drawing, x: str) -> str:
    """Places as tokens that attend to each other, with a way around."""
    c, h, w = d.shapes[x]
    if h * w > 80:
        return pool(d, x)
    tokens = d.node("Reshape", [x, d.constant(np.array([0, c, h * w]))])
    tokens = d.node("Transpose", [tokens], perm=[0, 2, 1])
    normed = d.node(
        "LayerNormalization", [tokens, d.weights(c, scale=0.3, offset=1.0), d.weights(c, scale=0.3)], axis=-1
    )
    width = d.pick(2, 6)
    q, k, v = (d.node("MatMul", [normed, d.weights(c, n, scale=0.4)]) for n in (width, width, c))
    q = d.node("Add", [q, d.weights(width, scale=0.3)])
    product = d.node("MatMul", [q, d.node("Transpose", [k], perm=[0, 2, 1])])
    scores = d.node("Softmax", [d.node("Mul", [product, d.constant(np.float32(width**-0.5))])], axis=-1)
    out = d.node("MatMul", [d.node("MatMul", [scores, v]), d.weights(c, c, scale=0.4)])
    out = d.node("Transpose", [d.node("Add", [tokens, out])], perm=[0, 2, 1])
    return d.node("Reshape", [out, d.constant(np.array([0, c, h, w]))], (c, h, w))


def twice(d: Drawing, x: str) -> str:
    """One convolution with one bias, applied twice."""
    c = d.shapes[x][0]
    w, b = d.weights(c, c, 3, 3), d.weights(c, scale=0.3)
    y = d.same("Tanh", d.same("Conv", x, w, b, pads=[1] * 4))
    return d.same("Add", x, d.same("Conv", y, w, b, pads=[1] * 4))


def own(d: Drawing, x: str) -> str:
    """Weights that stand for themselves: of channels, rows, or all elements."""
    c, h, w = d.shapes[x]
    shape = d.one_of((c, 1, 1), (1, h, 1), (c, h, w))
    op = d.one_of("Mul", "Add")
    return d.same(op, x, d.weights(*shape, scale=0.3, offset=1.0 if op == "Mul" else 0.0))


def stopped(d: Drawing, x: str) -> str:
    """A map times the signs of a convolution of it, at which gradients stop."""
    return d.same("Mul", x, d.same("Sign", conv(d, x, d.shapes[x][0], size=3)))


Block = Callable[[Drawing, str], str]
BLOCKS: tuple[Block, ...] = (
    activation, norm, conv, conv, pool, resize, border, beside, beside, gate, parts, attention, twice, own, stopped,
)  # fmt: skip


def drawn(seed: int):
    """The model of a seed, as an `onnx.ModelProto`."""
    from onnx import TensorProto, helper, numpy_helper

    d = Drawing(seed)
    x = conv(d, "x", d.pick(4, 8), size=3)
    for _ in range(d.pick(5, 9)):
        x = d.one_of(*BLOCKS)(d, x)
    c, h, w = d.shapes[x]
    if d.pick(0, 1):
        flat, depth = d.node("Flatten", [d.node("GlobalAveragePool", [x])]), c
    else:
        flat, depth = d.node("Flatten", [x]), c * h * w
    d.node("Gemm", [flat, d.weights(CLASSES, depth), d.weights(CLASSES, scale=0.3)], transB=1)
    takes = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *d.shapes["x"]])]
    gives = [helper.make_tensor_value_info(d.nodes[-1].output[0], TensorProto.FLOAT, ["n", CLASSES])]
    kept = [numpy_helper.from_array(a, name) for name, a in d.constants.items()]
    graph = helper.make_graph(d.nodes, f"drawn-{seed}", takes, gives, kept)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def draw(folder: Path) -> None:
    """Write the graphs, and what PyTorch makes of each."""
    import onnx
    from onnx_by_torch import run

    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(GRAPHS):
        path = folder / f"drawn-{seed:02}.onnx"
        model = drawn(seed)
        onnx.checker.check_model(model)
        onnx.save(model, path)
        rng = np.random.default_rng([seed, 61])
        shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:]]
        arrays = {"x": rng.normal(size=(SAMPLES, *shape)), "dy": rng.normal(size=(SAMPLES, CLASSES))}
        for dtype in GOALS:
            y, found = run(path, arrays["x"].astype(dtype), arrays["dy"].astype(dtype))
            arrays |= {f"{dtype}:y": y} | {f"{dtype}:gradient:{name}": a for name, a in found.items()}
        np.savez(path.with_suffix(".npz"), **arrays)
        print(f"{path.stem} {len(model.graph.node)} nodes, {len(found)} gradients", flush=True)


def compared(path: Path) -> dict:
    """What becomes of one graph: the worst error of a weight in float64 and in float32, and which."""
    import onnx

    import refimpl as ri
    from refimpl.formats.onnx import imported, load_onnx
    from validation.experiments.onnx_gauntlet import FLOOR, gradient_errors, plan

    ops = Counter(node.op_type for node in onnx.load(path).graph.node)
    graph, found = load_onnx(path), imported(path)
    frozen = {name for node in graph.frozen() for name in graph.node(node).params.values()}
    result: dict = {
        "nodes": sum(ops.values()),
        "operators": len(ops),
        "shared": sum(bool(at.also) for at in found.stored.values()),
        "frozen": len(frozen),
    }
    with np.load(path.with_suffix(".npz")) as beside:
        norms = {
            name: float(np.linalg.norm(gradient_of(at, beside, "float64")) / at.factor)
            for name, at in found.stored.items()
            if all(f"float64:gradient:{node}:{place}" in beside for node, place in ((at.node, at.place), *at.also))
        }
        result["of_frozen"] = max((norms.get(name, 0.0) for name in frozen), default=0.0)
        for dtype in GOALS:
            trainer = ri.Trainer(ri.compile(graph, plan(), SAMPLES, dtype=np.dtype(dtype).type), 0)
            theirs = {n.partition(":")[2]: a for n, a in beside.items() if n.startswith(f"{dtype}:gradient")}
            x, dy = (beside[name].astype(dtype) for name in ("x", "dy"))
            y, _, errors = gradient_errors(trainer, found, np.ascontiguousarray(x.transpose(0, 2, 3, 1)), dy, theirs)
            least = FLOOR * max(norms[name] for name in errors)
            errors = {name: e * (FLOOR if norms[name] < least else 1.0) for name, e in errors.items()}
            worst = max(errors, key=errors.__getitem__)
            wanted = beside[f"{dtype}:y"]
            result[dtype] = {
                "forward": float(np.abs(y - wanted).max() / np.abs(wanted).max()),
                "gradient": errors[worst],
                "worst": worst,
            }
            result |= {"gradients": len(errors), "vanishing": sum(norms[name] < least for name in errors)}
    return result


def gradient_of(at, beside, dtype: str) -> np.ndarray:
    """PyTorch's gradient of a constant, summed over all places that read it."""
    return sum(beside[f"{dtype}:gradient:{node}:{place}"] for node, place in ((at.node, at.place), *at.also))


def check(folder: Path) -> None:
    """Compare every graph, and write the record."""
    from tools.docs.official import write
    from validation.instruments import provenance

    measured = {}
    for path in sorted(folder.glob("drawn-*.onnx")):
        measured[path.stem] = compared(path)
        print(path.stem, {d: f"{measured[path.stem][d]['gradient']:.1e}" for d in GOALS}, flush=True)
    worst = {d: max(r[d]["gradient"] for r in measured.values()) for d in GOALS}
    write(NAME, {
        "name": NAME, "measured": measured, "worst": worst, "goals_of_worst": GOALS, "seeds": [f"0 to {GRAPHS - 1}"],
        **provenance.provenance(), "command": "python tools/onnx_drawn.py check FOLDER",
        "ok": len(measured) == GRAPHS
        and all(worst[d] <= GOALS[d] for d in GOALS)
        and not any(r["of_frozen"] for r in measured.values()),
    })  # fmt: skip


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    sys.path.insert(0, str(Path(__file__).parents[1]))
    {"draw": draw, "check": check}[sys.argv[1]](Path(sys.argv[2]))
