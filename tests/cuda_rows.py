"""Run by test_cuda in a process of its own, without a GPU: kernels on rows.

`rows`: softmax, layer norm and softmax cross-entropy on drawn rows against the reference kernels, and nets of them
trained on both. `stated`: what their kernels execute. As for `cuda_steps`, `emulated` behind it asks for the stand-in.
"""

import math
import warnings

import numpy as np
from cuda_steps import BATCH, CLASSES, DRIVERS, both, run_mode
from test_quantize import with_weights

import refimpl as ri
from refimpl.backends.cuda import layer_norm as norm_kernels
from refimpl.backends.cuda import softmax as softmax_kernels
from refimpl.backends.cuda import softmax_cross_entropy as loss_kernels
from refimpl.backends.cuda.rows import BLOCKS, SMALL, block_of
from refimpl.compiler.executed import STATED
from refimpl.graph import INPUT, Graph
from refimpl.kernels import cuda
from refimpl.kernels.kernel import Kernel
from refimpl.ops import layer_norm, softmax
from refimpl.ops import softmax_cross_entropy as loss

NEAR = {"rtol": 1e-10, "atol": 1e-10}
UNWRITTEN = 77.0


def lengths():
    """Elements of rows beside the lanes of each block and the elements that these are worth."""
    blocks = (SMALL,) if cuda.simulated() else BLOCKS
    beside = {n * b.lanes + more for b in blocks for n in (1, 8) for more in (-1, 0, 1)}
    return sorted({1, 2, 3, 5 * blocks[-1].lanes + 3} | {n for n in beside if n > 0})


def run(kernel, *args, wrote=1):
    """What a kernel on rows writes, the first of its arguments, and among the others None where something is written.

    An array that is written has one more row, which must stay.
    """
    there = [cuda.to_device(a) if isinstance(a, np.ndarray) else a for a in args]
    kernel(*there)
    return [a.copy_to_host() for a in there[:wrote]]


def fresh(*shapes):
    """Arrays to write."""
    return [np.full(shape, UNWRITTEN) for shape in shapes]


def special(rng, rows, length, spread):
    """Drawn logits; of several rows one is −inf, one has a NaN first, one last, and one is infinite at a place."""
    x = rng.normal(0, spread, (rows, length))
    if rows > 4:
        x[1], x[2, 0], x[3, -1], x[4, length // 2] = -np.inf, np.nan, np.nan, np.inf
    return x


def of_softmax(rng, rows, length):
    x, dy = special(rng, rows, length, 30), rng.normal(size=(rows, length))
    wanted = softmax.forward(x, *softmax.scales(x))
    (y,) = run(softmax_kernels.FORWARD, *fresh(x.shape), x)
    np.testing.assert_allclose(y, wanted, **NEAR)
    (dx,) = run(softmax_kernels.GRAD_X, *fresh(x.shape), dy, wanted)
    np.testing.assert_allclose(dx, softmax.grad_x(dy, wanted, softmax.projection(dy, wanted)), **NEAR)


def of_layer_norm(rng, rows, length):
    x, dy = rng.normal(5, 2, (2, rows, length))
    gamma, beta = rng.normal(size=(2, length))
    x[0, 0] = np.nan if rows > 4 else x[0, 0]
    mean, inv_std = layer_norm.statistics(x, eps=1e-3)
    found = run(norm_kernels.FORWARD, *fresh(x.shape, rows, rows), x, gamma, beta, 1e-3, wrote=3)
    for mine, wanted in zip(found, (layer_norm.forward(x, gamma, beta, mean, inv_std), mean, inv_std), strict=True):
        np.testing.assert_allclose(mine, wanted, **NEAR)
    (dx,) = run(norm_kernels.GRAD_X, *fresh(x.shape), dy, x, gamma, mean, inv_std)
    sums = layer_norm.projections(dy, x, gamma, mean, inv_std)
    np.testing.assert_allclose(dx, layer_norm.grad_x(dy, x, gamma, mean, inv_std, *sums), **NEAR)


def of_losses(rng, rows, length, weighted, smoothing, ignored):
    x, tx, labels = special(rng, rows, length, 30), rng.normal(size=(rows, length)), rng.integers(0, length, rows)
    if ignored == -100:  # all of a few rows, else every other one
        labels[slice(None) if rows < 4 else slice(0, None, 2)] = ignored
    weights = rng.random(length) + 0.5 if weighted else np.empty(0)
    given = {"class_weights": weights if weighted else None, "ignored": ignored}
    smooth = {**given, "label_smoothing": smoothing}
    lse = loss.log_sum_exp(x)
    made = loss.sample_losses(x, labels, lse, **smooth)
    mine, my_lse = fresh(rows, rows)
    there = [cuda.to_device(a) for a in (mine, x, labels, my_lse, weights)]
    loss_kernels.SAMPLE_LOSSES(*there, smoothing, ignored)
    np.testing.assert_allclose(there[3].copy_to_host(), lse, **NEAR)
    np.testing.assert_allclose(there[0].copy_to_host(), made, **NEAR)
    tlse = loss.tangent_lse(tx, x, lse)
    there = [cuda.to_device(a) for a in (mine, tx, labels, my_lse, weights)]
    loss_kernels.TANGENT_LOSSES(*there, smoothing, ignored, cuda.to_device(x), cuda.to_device(lse))
    np.testing.assert_allclose(there[3].copy_to_host(), tlse, **NEAR)
    np.testing.assert_allclose(there[0].copy_to_host(), loss.sample_losses(tx, labels, tlse, **smooth), **NEAR)
    mean, total = loss.mean_loss(made, labels, **given)
    found = run(loss_kernels.MEAN_LOSS, *fresh(1, 1), made, labels, weights, ignored, wrote=2)
    np.testing.assert_allclose(found, [mean, total], **NEAR)
    (dx,) = run(loss_kernels.GRAD_X, *fresh(x.shape), x, labels, lse, total, weights, smoothing, ignored)
    np.testing.assert_allclose(dx, loss.grad_x(x, labels, lse, total, **smooth), **NEAR)


def net():
    """All three, on maps and on rows."""
    g = Graph("net", (3, 2), 2)
    x = g.softmax("share", g.layer_norm("ln1", g.conv2d("conv", INPUT, 5, 1)))
    g.linear("fc", g.layer_norm("ln2", g.flatten("flat", x)), CLASSES)
    return g


def rows():
    warnings.simplefilter("ignore", RuntimeWarning)  # of what is special, in the reference kernels and the simulator
    rng = np.random.default_rng(3)
    for length in lengths():
        per_block = block_of(length).rows
        for many in sorted({1, per_block, per_block + 1, 2 * per_block + 5}):
            of_softmax(rng, many, length)
            of_layer_norm(rng, many, length)
            case = int(rng.integers(8))
            of_losses(rng, many, length, case & 1, 0.1 * (case >> 1 & 1), -100 if case & 4 else loss.NONE)
    for case in range(8):  # each of these at least once, all rows ignored among them
        for many in (2, 7):
            of_losses(rng, many, 5, case & 1, 0.1 * (case >> 1 & 1), -100 if case & 4 else loss.NONE)
    print("rows as by the reference kernels")
    x, y = rng.normal(size=(BATCH + 1, 3, 2, 2)).astype(np.float32), rng.integers(0, CLASSES, BATCH + 1)
    y[0] = -100
    exact = ri.ForwardGradient(m=1, estimator="exact", optimizer=ri.SGD(0.1))
    settings = {"label_smoothing": 0.1, "class_weights": (1.0, 2.0, 0.5), "ignored_label": -100}
    for name, plan, kernels in (
        ("backprop", ri.Plan("all", step=ri.Backprop(ri.SGD(0.1)), train_bias=True, **settings), EVERY - {TANGENTS}),
        ("forward", ri.Plan("all", step=exact, **settings), EVERY - {norm_kernels.GRAD_X, loss_kernels.GRAD_X}),
    ):
        program = ri.compile(with_weights(net()), plan, BATCH, backend="reference", threads=1, dtype=np.float64)
        used = {launch.function for launch in both(f"rows {name}", program, x, y).order}
        assert used & EVERY == kernels, (kernels ^ used) & EVERY


def exponential(t, y, x):
    """e to the x, (N,)."""
    y[t] = math.exp(x[t])


def logarithm(t, y, x):
    """The natural logarithm of x, (N,)."""
    y[t] = math.log(x[t])


def additions(kernel, *args):
    """Sums of floats that a launch executes in what the compiler made, alone or with a product."""
    counts = counts_of(kernel, *args)
    return sum(n for op, n in counts.items() if op.split(".")[0] in ("fma", "add", "sub") and op.endswith(".f32"))


def counts_of(kernel, *args):
    """Instructions of a launch, by name."""
    kernel(*(cuda.to_device(a) if isinstance(a, np.ndarray) else a for a in args))
    cuda.toolkit().synchronize()
    return DRIVERS[0].launched[-1].counts


def stated():
    """Kernels on rows execute the additions that they state, beside those within exponential functions and logarithms.

    How many these are is counted where nothing else is computed.
    """
    rng, checked = np.random.default_rng(0), 0
    some = rng.random(8).astype(np.float32) + np.float32(0.5)
    of_exp, of_log = (additions(Kernel(body).gpu, 8, some, some) // 8 for body in (exponential, logarithm))
    assert of_exp > 1 and of_log > 1
    for length in lengths():
        for many in (block_of(length).rows + 1, 2 * block_of(length).rows):
            x, y, dy = rng.normal(size=(3, many, length)).astype(np.float32)
            gamma, beta = rng.random((2, length), np.float32) + np.float32(0.5)
            mean, inv_std, lse = rng.random((3, many), np.float32) + np.float32(0.5)
            one, labels = some[:1], rng.integers(0, length, many)
            exps, eps = of_exp * x.size, np.float32(1e-3)
            for inner, kernel, *args in (
                (exps, softmax_kernels.FORWARD, y, x),
                (0, softmax_kernels.GRAD_X, x, dy, y),
                (0, norm_kernels.FORWARD, y, mean, inv_std, x, gamma, beta, eps),
                (0, norm_kernels.GRAD_X, y, dy, x, gamma, mean, inv_std),
                *of_the_loss(exps, of_log, (x, dy, labels, lse, mean, one), gamma),
                *of_the_loss(exps, of_log, (x, dy, labels, lse, mean, one), np.empty(0, np.float32)),
            ):
                wanted, found = STATED[kernel](*args).add + inner, additions(kernel, *args)
                assert wanted == found, f"{kernel.__name__} {x.shape} states {wanted} sums and executes {found}"
                checked += 1
    print(f"{checked} launches of kernels on rows as stated")
    in_sequence()


def in_sequence():
    """A thread executes few instructions of a loss and its gradient where a row of its own takes it many."""
    rng, each, zero = np.random.default_rng(0), {"a row": 0.0, "a lane": 0.0}, np.float32(0)
    x, labels, none = rng.normal(size=(32, 1000)).astype(np.float32), rng.integers(0, 1000, 32), np.empty(0, np.float32)
    dx, lse, losses, total, mean = (np.zeros(n, np.float32) for n in (x.shape, 32, 32, 1, 1))
    of_losses, of_mean = (losses, x, labels, lse, none, zero, -1), (mean, total, losses, labels, none, -1)
    of_x = dx, x, labels, lse, total, none, zero, -1
    lanes = block_of(1000).lanes
    for kind, threads, kernel, *args in (
        ("a row", 32, loss.log_sum_exp.kernel.gpu, 32, lse, x),
        ("a row", 32, loss.sample_losses.kernel.gpu, 32, *of_losses),
        ("a row", 1, loss.mean_loss.kernel.gpu, 1, *of_mean),
        ("a row", 32, loss.grad_x.kernel.gpu, 32, *of_x),
        ("a lane", 32 * lanes, loss_kernels.SAMPLE_LOSSES, *of_losses),
        ("a lane", block_of(32).threads, loss_kernels.MEAN_LOSS, *of_mean),
        ("a lane", 32 * lanes, loss_kernels.GRAD_X, *of_x),
    ):
        each[kind] += sum(counts_of(kernel, *args).values()) / threads
    print("32 rows of 1,000 classes:", ", ".join(f"{n:,.0f} instructions of {kind}" for kind, n in each.items()))
    assert each["a lane"] < 1000 < 80_000 < each["a row"]


def of_the_loss(exps, of_log, arrays, weights):
    """What is within, the kernel and its arguments, without smoothing and with it; each row computes 1 − ε then."""
    x, dy, labels, lse, losses, one = arrays
    lanes = x.shape[0] * block_of(x.shape[1]).lanes
    for smoothing in (np.float32(0), np.float32(0.1)):
        last = weights, smoothing, -1
        yield exps + of_log * lanes, loss_kernels.SAMPLE_LOSSES, losses, x, labels, lse, *last
        yield exps, TANGENTS, losses, x, labels, lse, *last, dy, lse
        yield exps, loss_kernels.GRAD_X, dy, x, labels, lse, one, *last
    yield 0, loss_kernels.MEAN_LOSS, one, one, losses, labels, weights, -1


TANGENTS = loss_kernels.TANGENT_LOSSES
EVERY = {
    softmax_kernels.FORWARD, softmax_kernels.GRAD_X, norm_kernels.FORWARD, norm_kernels.GRAD_X, TANGENTS,
    loss_kernels.SAMPLE_LOSSES, loss_kernels.MEAN_LOSS, loss_kernels.GRAD_X,
}  # fmt: skip

if __name__ == "__main__":
    run_mode({"rows": rows, "stated": stated})
