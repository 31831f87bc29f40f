"""Run by test_cuda in a process of its own, without a GPU: whole steps of small nets, every method.

`nets`: three small nets under every method; `drawn FIRST LAST`: drawn nets and plans of these seeds. Each trains two
steps on the simulated GPU and by the reference kernels of the CPU. `stated`: what tuned kernels execute.
Prints one line for each; the last line is `done`. With `emulated` behind a mode's arguments what the compiler makes is
run on a stand-in for the driver, else the kernels as Python in Numba's simulator.
"""

import sys
import time
from contextlib import ExitStack
from unittest import mock

import numpy as np
from test_quantize import with_weights

import refimpl as ri
from refimpl.backends.activation import RELU
from refimpl.backends.cuda import alike, conv_rules, few_channels, tile
from refimpl.backends.cuda import depthwise as depthwise_kernels
from refimpl.backends.cuda.convolution import geometry_of
from refimpl.backends.cuda.gpu import AHEAD, Gpu
from refimpl.backends.cuda.replay import CAPTURES
from refimpl.backends.cuda.rules import RULES
from refimpl.backends.cuda.tile import up
from refimpl.backends.cuda.unrolled import Unrolled
from refimpl.compiler.executed import STATED
from refimpl.graph import INPUT, Graph
from refimpl.kernels import cuda
from refimpl.kernels.geometry import conv_derive
from refimpl.kernels.random import SHUFFLE, permutation
from refimpl.methods import sparse_update
from refimpl.methods.registry import known
from refimpl.ops import conv2d
from refimpl.surgery.for_step import outlined_for
from validation.instruments.drawn_nets import net_case, plan_of
from validation.instruments.drawn_passes import picker
from validation.instruments.emulator.driver import stand_in

CLASSES, BATCH = 3, 3
DRIVERS: list = []  # the stand-in, where there is one
DEPTHWISE = {  # window and stride → kernel → instructions for each multiply-add, of which there must be fewer
    (3, 1): {"depthwise_forward": 11, "depthwise_grad_x": 16, "depthwise_grad_w": 12},
    (3, 2): {"depthwise_forward": 14, "depthwise_grad_x": 27, "depthwise_grad_w": 16},
    (5, 1): {"depthwise_forward": 7, "depthwise_grad_x": 11, "depthwise_grad_w": 8},
}
TILED = (
    "backprop",
    "error-map-pruning",
    "gradient-filter",
    "sparse-update",
)  # methods whose narrow nets run on tiles too


def plain():
    """Without norm: a strided convolution with uneven padding, one that reads it, maxima of windows, a linear layer."""
    g = Graph("plain", (5, 5), 2)
    x = g.relu("relu1", g.conv2d("conv1", INPUT, 3, 3, 2, pad=((0, 1), (1, 0))))
    x = g.relu("relu2", g.conv2d("conv2", x, 4, (1, 2), pad=((0, 0), (1, 0))))
    x = g.max_pool("pool", x, 2, 1)
    g.linear("fc", g.flatten("flat", x), CLASSES)
    return g


def residual():
    """Batch norm, a residual block, means of windows."""
    g = Graph("residual", (3, 3), 2)
    x = g.relu("relu1", g.batch_norm("bn1", g.conv2d("conv1", INPUT, 3, 3, pad=1)))
    y = g.batch_norm("block.bn", g.conv2d("block.conv", x, 3, 3, pad=1))
    x = g.relu("block.relu", g.add("block.sum", y, x))
    g.linear("fc", g.global_avg_pool("mean", x), CLASSES)
    return g


def inverted():
    """A depthwise convolution between pointwise ones, with ReLU6."""
    g = Graph("inverted", (5, 4), 2)
    x = g.relu6("relu1", g.batch_norm("bn1", g.conv2d("expand", INPUT, 4, 1, bias=False)))
    x = g.relu6("relu2", g.batch_norm("bn2", g.conv2d("dw", x, 4, 3, 2, "same", groups=4, bias=False)))
    x = g.batch_norm("bn3", g.conv2d("project", x, 3, 1, bias=False))
    x = g.relu6("relu4", g.batch_norm("bn4", g.conv2d("last", x, 4, 1, bias=False)))
    g.linear("fc", g.global_avg_pool("mean", x), CLASSES)
    return g


def whole():
    """Of what has a form in whole numbers of every kind."""
    g = Graph("whole", (4, 4), 2)
    x = g.relu("relu1", g.conv2d("conv1", INPUT, 3, 3, pad=1))
    x = g.add("sum", g.relu("relu2", g.conv2d("dw", x, 3, 3, pad=1, groups=3)), x)
    g.linear("fc", g.flatten("flat", g.max_pool("pool", x, 2)), CLASSES)
    return g


def nets():
    for name, method in known().items():
        conv_rules.FEW, conv_rules.NARROW = (1, 1) if name in TILED else (tile.FEW, 1)
        quantizes = method.states.kind == "step" and method().quantizes is not None
        for build in (whole,) if quantizes else (plain, residual, inverted):
            graph = build()
            if method.states.kind == "depth" and build is not residual:
                continue  # it needs residual blocks
            plan = plan_of(picker(name, 0), graph, (name,))
            graph = outlined_for(plan.step, graph)
            rng = np.random.default_rng(1)
            x = rng.normal(size=(BATCH + 1, *graph.size, graph.channels)).astype(np.float32)
            y = rng.integers(0, CLASSES, len(x))
            if plan.loss == "mse":
                y = rng.normal(size=(len(x), CLASSES)).astype(np.float32)
            for dtype in (np.float32,) if quantizes else (np.float64, np.float32)[: 1 + (name == "backprop")]:
                program = ri.compile(graph, plan, BATCH, backend="reference", threads=1, dtype=dtype)
                both(f"{build.__name__} {name} {np.dtype(dtype)}", program, x, y)
    without_tiles()
    of_few_channels()
    in_one_launch()
    under_way()


def depthwise(stride, dilation, pad, bias):
    """Two depthwise convolutions, the one with a bias, the other with a norm."""
    g = Graph("depthwise", (7, 6), 3)
    x = g.conv2d("dw1", INPUT, 3, 3, stride, pad=pad, dilation=dilation, groups=3, bias=bias)
    x = g.relu6("relu1", x if bias else g.batch_norm("bn1", x))
    x = g.conv2d("dw2", x, 3, (2, 3), 1, pad=((0, 1), (1, 1)), groups=3, bias=not bias)
    x = g.relu("relu2", g.batch_norm("bn2", x) if bias else x)
    g.linear("fc", g.global_avg_pool("mean", x), CLASSES)
    return g


def without_tiles():
    """Kernels that go over a map once train as the reference kernels: uneven padding, strides, dilation, kept channels.

    Here in float64, for `nets` says little of rounding.
    """
    rng = np.random.default_rng(1)
    for rules, of, norm in (
        ((), (1, (2, 1), 1, True), "frozen"),
        ((), (2, 1, ((0, 1), (2, 1)), False), "train"),
        ((ri.ErrorMapPruning(0.7),), ((1, 2), 1, 2, True), "frozen"),
        ((ri.SparseUpdate(0.7, fixed_first=0, fixed_last=0),), (1, (2, 1), 1, False), "frozen"),
        ((ri.SparseUpdate(0.4, fixed_first=0, fixed_last=0),), ((2, 1), 1, ((0, 1), (2, 1)), True), "train"),
        ((ri.SparseUpdate(0.6), ri.GradientFilter(2)), (1, 1, 1, False), "frozen"),
    ):
        graph = with_weights(depthwise(*of))  # scales that differ
        x, y = rng.normal(size=(4, *graph.size, 3)).astype(np.float32), rng.integers(0, CLASSES, 4)
        plan = ri.Plan("all", rules=rules, batch_norm=norm, train_bias=not rules)
        program = ri.compile(graph, plan, BATCH, backend="reference", threads=1, dtype=np.float64)
        tuned = both(f"depthwise {of} {norm}", program, x, y)
        chosen = [launch for launch in tuned.order for c in launch.covers if c.passed is sparse_update.grad_w]
        assert all(launch.function is depthwise_kernels.GRAD_W for launch in chosen)
        sparse = any(isinstance(rule, ri.SparseUpdate) for rule in rules)
        assert len(chosen) == (2 if sparse else 0), chosen


def drawn_convolution(rng, case):
    """Attributes, sizes and the shapes of x, w and y: groups, channels and pixels that fill no word and no tile."""
    groups, samples = 1 + case % 2, int(rng.integers(1, 3))
    channels, outputs = groups * int(rng.integers(1, 7)), groups * int(rng.integers(1, 7))
    window, stride, dilation = (tuple(map(int, rng.integers(1, most, 2))) for most in (4, 3, 3))
    pad = tuple(tuple(map(int, rng.integers(0, 3, 2))) for _ in range(2))
    attrs = {"stride": stride, "dilation": dilation, "pad": pad}
    maps = tuple(int(n) for n in rng.integers(3, 6, 2))
    letters = dict(zip("NHWCKRSG", (samples, *maps, channels, outputs, *window, groups), strict=True))
    sizes = letters | conv_derive(letters, attrs)
    of_y = (samples, sizes["P"], sizes["Q"], outputs)
    return attrs, sizes, (samples, *maps, channels), (*window, channels // groups, outputs), of_y


def of_few_channels():
    """Sums over the channels of all taps at once are those of the reference kernels: drawn strides, pads, groups, …"""
    rng, near = np.random.default_rng(8), {"rtol": 1e-10, "atol": 1e-10}
    for case in range(8):
        attrs, sizes, *shapes = drawn_convolution(rng, case)
        x, w, y = (rng.normal(size=shape) for shape in shapes)
        rows, of_k, geometry = y.shape[0] * y.shape[1] * y.shape[2], y.shape[3], geometry_of(sizes, attrs)
        scale, shift, residual = rng.normal(size=of_k), rng.normal(size=of_k), rng.normal(size=(rows, of_k))
        x_rows, dy_rows = x.reshape(-1, x.shape[3]), y.reshape(rows, of_k)
        made = conv2d.forward(x, w, **attrs).reshape(rows, of_k)
        given = (x_rows, w.reshape(-1, of_k), scale, shift, residual, geometry, RELU)
        wanted = np.maximum(scale * made + shift + residual, 0)
        np.testing.assert_allclose(run_once(few_channels.FORWARD, np.zeros_like(made), *given), wanted, **near)
        bits = rng.integers(0, 2, (y.shape[0], rows // y.shape[0] * of_k)).astype(np.uint8)
        through = bits.reshape(y.shape) * scale * y
        wanted = conv2d.grad_w(through, x, **attrs, **{letter: sizes[letter] for letter in "RSG"})
        mask = np.packbits(bits, axis=1, bitorder="little")
        for length in (rows, up(rows, 2)):
            partial = np.zeros((up(rows, length), *wanted.shape))
            given = (dy_rows, mask, scale, np.empty(0, np.int32), x_rows, geometry, length)
            np.testing.assert_allclose(run_once(few_channels.GRAD_W, partial, *given).sum(0), wanted, **near)
    print("sums over few channels")


def run_once(kernel, *args):
    """The first argument, written by a kernel on tiles."""
    there = [cuda.to_device(a) if isinstance(a, np.ndarray) else a for a in args]
    kernel(*there)
    return there[0].copy_to_host()


def in_one_launch():
    """Calls that run together in one launch leave the bits that a launch for each leaves."""
    for build, optimizer, more in (
        (plain, ri.Adam(0.01), {}),
        (inverted, ri.SGD(0.1, momentum=0.9), {"batch_norm": "train", "train_bias": True}),
        (residual, ri.SGD(0.1), {"depth": ri.StochasticDepth(0.4), "train_bias": True}),
    ):
        graph, ends, counts = build(), [], []
        x = np.random.default_rng(1).normal(size=(BATCH + 1, *graph.size, 2)).astype(np.float32)
        plan = ri.Plan("all", step=ri.Backprop(optimizer, clip_norm=0.5), **more)
        for passes in (alike.RULES[alike.together], ()):
            with mock.patch.dict(RULES, {p: [r for r in RULES.get(p) if r is not alike.together or passes]
                                         for p in alike.RULES[alike.together]}):  # fmt: skip
                program = ri.compile(graph, plan, BATCH, backend="cuda", threads=1)
            t = ri.Trainer(program, seed=2)
            t.fit(x, np.arange(BATCH + 1) % CLASSES, 2)
            counts.append(len(program.order))
            ends.append((t.losses, {n: a.tobytes() for n, a in t.resume_arrays().items()}))
        assert ends[0] == ends[1] and counts[0] < counts[1], counts
        print(f"{build.__name__} in {counts[0]} launches, where a launch for each is {counts[1]}", flush=True)


def under_way():
    """Steps that are under way together leave the bits of steps that are each looked at, a bad one among them too."""
    graph = plain()
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(18, *graph.size, 2)).astype(np.float32), rng.integers(0, CLASSES, 18)
    spoilt = x.copy()
    spoilt[permutation(2, SHUFFLE, 0, 18)[12]] = 3e38  # of the fifth step
    for samples in (x, spoilt):
        found = []
        for ahead in (AHEAD, 1):
            Gpu.ahead, waits = ahead, []
            t = ri.Trainer(ri.compile(graph, ri.Plan(step=ri.Backprop(ri.Adam(0.01))), BATCH, backend="cuda"), seed=2)
            waits, wait = [], t.backend.synchronise
            t.backend.synchronise = lambda wait=wait, waits=waits: (waits.append(1), wait())
            said = ""
            try:
                t.fit(samples, y, 1)
            except ri.NonFiniteError as e:
                said = str(e)
            made = len(waits)
            del t.backend.synchronise
            found.append((said, t.step, t.losses, {n: a.tobytes() for n, a in t.resume_arrays().items()}))
            assert samples is spoilt or made <= (8 if ahead > 1 else 24), made
        assert found[0] == found[1]
        assert ("the loss is nan at step 5 " in found[0][0]) == (samples is spoilt)
        print(f"under way, {found[0][1]} of 6 steps are good")
    Gpu.ahead = AHEAD


def drawn(first, last):
    conv_rules.FEW = 1
    for seed in range(int(first), int(last)):
        case = net_case(seed)
        drawn, plan = case.program, case.program.plan
        dtype = np.float64 if plan.step.quantizes is None else np.float32
        program = ri.compile(drawn.graph, plan, drawn.batch, backend="reference", threads=1, dtype=dtype)
        both(f"drawn {seed} {' + '.join(case.methods)}", program, case.x, case.y)


def both(name, program, x, y, exact=False):
    """Train on both: the same losses, parameters and predictions, but for the order in which sums are rounded.

    exact: parameters and predictions to the bit. Returns the program of the GPU.
    """
    started = time.perf_counter()
    made = {backend: trained(program, backend, x, y) for backend in ("reference", "cuda")}
    (theirs, predicted), (mine, found) = made["reference"], made["cuda"]
    # in float32 a gradient that would be zero without rounding, and a difference of two losses, are of rounding alone
    near = {"rtol": 1e-7, "atol": 1e-8} if program.dtype == np.float64 else {"rtol": 1e-2, "atol": 1e-4}
    near = {"rtol": 0, "atol": 0} if exact else near
    np.testing.assert_allclose(mine.losses, theirs.losses, rtol=1e-4, atol=1e-6, err_msg=name)
    ours, reference = mine.resume_arrays() | found, theirs.resume_arrays() | predicted
    assert ours.keys() == reference.keys()
    for a, value in reference.items():
        np.testing.assert_allclose(ours[a], value, **near, err_msg=f"{name}: {a}")
    print(f"{name}: {len(mine.program.order)} launches, {time.perf_counter() - started:.1f} s", flush=True)
    return mine.program


def stated():
    """Tuned kernels execute, in what the compiler made of them, the products that they state, on tiles of a GPU.

    And depthwise ones few instructions for each.
    """
    g = Graph("tuned", (12, 13), 3)
    x = g.relu("relu0", g.conv2d("first", INPUT, 8, (2, 3), pad=((0, 0), (1, 0)), dilation=(1, 2)))
    x = g.relu("relu1", g.conv2d("wide", x, 24, 1, bias=False))
    x = g.relu("relu2", g.conv2d("conv", x, 24, 3, pad=1, bias=False))
    x = g.conv2d("dw", x, 24, 3, (2, 1), pad=((0, 1), (2, 1)), dilation=(1, 2), groups=24, bias=False)
    x = g.relu("relu4", g.conv2d("last", g.relu("relu3", x), 40, 3, 2, pad=1))
    g.linear("fc", g.global_avg_pool("mean", x), 10)
    found = []
    for rules in ((), (ri.GradientFilter(2),), (ri.ErrorMapPruning(0.5),), (ri.SparseUpdate(0.5),)):
        found += executed_by(g, rules, tile.Tiled, Unrolled)
    print(f"{len(found)} launches of {len({name for name, _ in found})} kernels as stated")
    for (window, stride), most in DEPTHWISE.items():
        g = Graph("depthwise", (16, 16), 8)
        x = g.relu6("relu1", g.conv2d("wide", INPUT, 64, 1, bias=False))
        x = g.relu6("relu2", g.conv2d("dw", x, 64, window, stride, pad=window // 2, groups=64, bias=False))
        g.linear("fc", g.global_avg_pool("mean", x), 10)
        found = {name: each for name, each in executed_by(g, (), Unrolled) if each}
        assert found.keys() == most.keys()
        for name, each in found.items():
            print(f"{name} on {window}x{window}, stride {stride}: {each:.1f} instructions a multiply-add")
            assert each < most[name]


def executed_by(graph, rules, *kinds):
    """Each launch of these kinds in a step: its kernel, and the instructions that it executes for each product."""
    found = []

    def counting(kind):
        launch = kind.__call__

        def call(self, *args, **more):
            launch(self, *args, **more)
            cuda.toolkit().synchronize()
            counts, wanted = DRIVERS[0].launched[-1].counts, STATED[self](*args).add
            products = sum(n for op, n in counts.items() if op.startswith("fma.") and op.endswith(".f32"))
            sums, name = counts["add.f32"], self.__name__
            assert wanted == products + sums, f"{name} states {wanted} sums and executes {products} + {sums}"
            found.append((name, sum(counts.values()) / products if products else 0.0))

        return mock.patch.object(kind, "__call__", call)

    x, y = np.random.default_rng(0).normal(size=(4, *graph.size, graph.channels)).astype(np.float32), np.arange(4)
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict("os.environ", {CAPTURES: "0"}))
        for kind in kinds:
            stack.enter_context(counting(kind))
        program = ri.compile(graph, ri.Plan("all", rules=rules), 4, backend="cuda")
        ri.Trainer(program, seed=1).train_step(x, y, 1)
    return found


def trained(program, backend, x, y):
    """A trainer after an epoch, and what it predicts before and after."""
    made = ri.compile(program.graph, program.plan, program.batch, backend=backend, threads=1, dtype=program.dtype)
    t = ri.Trainer(made, seed=2)
    before = t.predict(x)
    t.fit(x, y, 1)
    found = {"before": before, "after": t.predict(x)}
    return t, {f"{when} {a}": v for when, given in found.items() for a, v in dict_of(given).items()}


def dict_of(outputs):
    return outputs if isinstance(outputs, dict) else {"output": outputs}


def run_mode(modes):
    """What the command line names, with its arguments; the last of them, `emulated`, asks for the stand-in."""
    mode, *arguments = sys.argv[1:]
    if arguments[-1:] == ["emulated"]:
        DRIVERS.append(stand_in(version=11_040 if mode == "too_old" else 12_090, keeps=mode == "kept"))
        arguments.pop()
    modes[mode](*arguments)
    assert all(driver.problem is None for driver in DRIVERS)
    print("done")


if __name__ == "__main__":
    run_mode({"nets": nets, "drawn": drawn, "stated": stated})
