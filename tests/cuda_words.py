"""Run by test_cuda in a process of its own, without a GPU: layers in whole numbers, whose kernels are dots of bytes.

`words`, in the simulator, or with `emulated` behind it on a stand-in for the driver. Prints one line for each part; the
last line is `done`.
"""

import sys
from unittest import mock

import numpy as np
from cuda_steps import BATCH, CLASSES, DRIVERS, both, drawn_convolution, inverted, residual, run_mode, whole
from test_quantize import with_weights

import refimpl as ri
from refimpl.backends.cuda import conv_rules, tile
from refimpl.backends.cuda import quantized as on_tiles
from refimpl.backends.cuda import quantized_gradients as gradients
from refimpl.backends.cuda.convolution import geometry_of, slices_of
from refimpl.compiler.executed import STATED
from refimpl.kernels import cuda
from refimpl.methods import quantized
from refimpl.ops import niti_conv2d, quantized_conv2d
from refimpl.surgery.for_step import outlined_for
from refimpl.surgery.quantize import quantize


def words():
    """All of it."""
    for part in (in_words, forward_in_words, gradients_in_words, whole_numbers, trained_in_words):
        part()


def in_words():
    """Dots of four bytes give the bits of the reference kernel: weights of 8 and 16 bits, groups, words not full."""
    rng = np.random.default_rng(3)
    for case in range(8):
        groups, each = 1 + case // 4, 2 * (1 + case % 3)
        attrs = {
            "stride": (1 + case % 2, 1), "dilation": (1, 1 + case % 2), "pad": ((1, 0), (2, 1)),
            "x_zero": (0, -128, 5)[case % 3], "y_zero": 3, "low": -128, "high": 120, "twice": bool(case % 2),
        }  # fmt: skip
        dtype, outputs = (np.int8, np.int16)[case % 2], 3 * groups
        ends = np.iinfo(dtype)
        arrays = {
            "x": rng.integers(-128, 128, (2, 5, 4, each * groups)).astype(np.int8),
            "w": rng.integers(ends.min, ends.max, (2, 3, each, outputs), endpoint=True).astype(dtype),
            "multiplier": rng.integers(1 << 30, (1 << 31) - 1, outputs).astype(np.int32),
            "shift": np.full(outputs, -8 * dtype().itemsize, np.int32),
            "b": rng.integers(-1000, 1000, outputs * (case % 3 > 0)).astype(np.int32),
        }
        forward = quantized_conv2d.forward
        sizes = forward.sizes({a: v for a, v in arrays.items() if v.size}, forward.attrs(attrs))
        y = np.zeros(forward.shape("y", sizes), np.int8)
        forward.kernel(y.size, y, *arrays.values(), *forward.attrs(attrs).values())
        assert len(np.unique(y)) > 20
        numbers = tuple(int(attrs[a]) for a in ("x_zero", "y_zero", "low", "high", "twice"))
        found = cuda.to_device(np.zeros((y.size // outputs, outputs), np.int8))
        there = {a: cuda.to_device(v) for a, v in arrays.items()}
        x, w, multiplier, shift, b = there.values()
        kernel = (on_tiles.FORWARD, on_tiles.WIDE_FORWARD)[case % 2]
        x = x.reshape(-1, each * groups)
        kernel(found, x, w, b, multiplier, shift, geometry_of({**sizes, "G": groups}, attrs), numbers)
        np.testing.assert_array_equal(found.copy_to_host().reshape(y.shape), y)
    print("in words, to the bit")


def forward_in_words():
    """The same in training: sums that share an exponent, and outputs in floats; as many dots as are stated."""
    rng = np.random.default_rng(7)
    for case in range(6):
        attrs, sizes, x, w, of_y = in_bytes(rng, case)
        b, geometry, ends = rng.integers(-9999, 9999, of_y[-1] * (case % 3 > 0)), geometry_of(sizes, attrs), (0,) * 5
        scales, exponent = rng.uniform(0.5, 2, (2, 1)), np.array([(-3, 0, 4)[case % 3]], np.int32)
        whole, one = b.astype(np.int16), np.empty(0)
        given = {"b": whole} if b.size else {}
        sums = niti_conv2d.accumulate(x, w, exponent, **given, **attrs)
        scaled = quantized.forward(x, w, *scales, **{a: b.astype(float) for a in given}, **attrs)
        for kernel, more, wanted, adds in (
            (on_tiles.EXPONENT_FORWARD, (whole, exponent, one), sums, 7),
            (on_tiles.SCALED_FORWARD, (b.astype(float), *scales), scaled, 0),
        ):
            empty = np.zeros((wanted.size // of_y[-1], of_y[-1]), wanted.dtype)
            found, stated, dots = launched(kernel, empty, x.reshape(-1, x.shape[-1]), w, *more, geometry, ends)
            np.testing.assert_allclose(
                found.reshape(of_y), wanted, rtol=0 if kernel is on_tiles.EXPONENT_FORWARD else 1e-12
            )
            assert dots is None or stated.imul == 4 * dots + found.size
            assert dots is None or stated.iadd == 4 * dots + found.size * (1 + adds * bool(b.size))
        assert len(np.unique(sums)) > min(10, sums.size // 2)
    print("forward in words, sums to the bit")


def in_bytes(rng, case):
    """A drawn convolution's attributes and sizes, x and w in bytes, and the shape of y."""
    attrs, sizes, of_x, of_w, of_y = drawn_convolution(rng, case)
    return attrs, sizes, bytes_of(rng, of_x), bytes_of(rng, of_w), of_y


def gradients_in_words():
    """Gradients by dots of four bytes are those of the reference kernels: sums to the bit, scaled but for rounding.

    Each is a drawn convolution: strides, pads and dilations, groups, channels, outputs and pixels that fill no word.
    And as many dots are made as is stated.
    """
    rng, near = np.random.default_rng(5), {"i": 0, "f": 1e-12}
    for case in range(6):
        attrs, sizes, x, w, of_y = in_bytes(rng, case)
        dy, wide = bytes_of(rng, of_y), rng.integers(-32767, 32768, of_y).astype(np.int16)
        dy_scale, x_scale, w_scale = (rng.uniform(0.5, 2, n) for n in (sizes["N"], 1, 1))
        own, none = {letter: sizes[letter] for letter in "HWG"}, np.empty(0)
        geometry = geometry_of(sizes, attrs)
        rows = {name: a.reshape(-1, a.shape[-1]) for name, a in (("x", x), ("dy", dy), ("wide", wide))}
        for kernel, scales, wanted in (
            (gradients.SUMS_GRAD_X, (none, none), niti_conv2d.grad_x(dy, w, **attrs, **own)),
            (gradients.GRAD_X, (dy_scale, none), quantized_conv2d.grad_x(dy, w, dy_scale, **attrs, **own)),
            (gradients.GRAD_X, (dy_scale, w_scale), quantized.grad_x(dy, w, dy_scale, w_scale, **attrs, **own)),
        ):
            empty = np.zeros_like(wanted).reshape(rows["x"].shape)
            found = in_dots(kernel, empty, rows["dy"], w, *scales, geometry)
            np.testing.assert_allclose(found.reshape(wanted.shape), wanted, rtol=near[wanted.dtype.kind])
        own = {letter: sizes[letter] for letter in "RSG"}
        pixels, each, zero = len(rows["dy"]), sizes["P"] * sizes["Q"], (-128, 0, 77)[case % 3]
        levels = {"levels": 32767}
        for kernel, a, scales, x_zero, wanted in (
            (gradients.SUMS_GRAD_W, "dy", (none, none), 0, niti_conv2d.grad_w(dy, x, **attrs, **own)),
            (gradients.GRAD_W, "dy", (dy_scale, none), zero,
             quantized_conv2d.grad_w(dy, x, dy_scale, x_zero=zero, **attrs, **own)),
            (gradients.GRAD_W, "dy", (dy_scale, x_scale), 0,
             quantized.grad_w(dy, x, dy_scale, x_scale, **attrs, **own)),
            (gradients.WIDE_GRAD_W, "wide", (dy_scale, x_scale), 0,
             quantized.grad_w(wide, x, dy_scale, x_scale, **attrs, **own, **levels)),
        ):  # fmt: skip
            sums = kernel is gradients.SUMS_GRAD_W
            for number, length in ((1, pixels), slices_of(sizes, 0 if sums else each, gradients.LONGEST)):
                numbers = geometry, length, length if sums else each, x_zero
                empty = np.zeros((number, *wanted.shape), wanted.dtype)
                made = in_dots(kernel, empty, rows[a], rows["x"], *scales, *numbers).sum(0, wanted.dtype)
                close = near[wanted.dtype.kind]
                np.testing.assert_allclose(made, wanted, rtol=close, atol=close * abs(wanted).max())
        assert len(np.unique(wanted)) > min(10, wanted.size // 2)
    print("gradients in words, sums to the bit")


def bytes_of(rng, shape):
    """Whole numbers up to the ends of eight bits, of which the lowest is none of an error's."""
    return rng.integers(-127, 128, shape).astype(np.int8)


def in_dots(kernel, *args):
    """The first argument, written by a kernel of gradients; as many dots are made as it states."""
    found, stated, dots = launched(kernel, *args)
    (dy, scale), flushed = args[1:4:2], 0
    if args[0].ndim == 5 and scale.size:  # behind each run the upper sums and the zero point join those of the dots
        flushed = (dy.itemsize - 1 + bool(args[-1])) * (stated.mul - args[0].size * bool(args[4].size))
    assert dots is None or stated.imul == stated.iadd == 4 * dots + flushed, kernel.__name__
    return found


def launched(kernel, *args):
    """The first argument, written by a kernel on tiles, what it states, and the dots that it makes, where told."""
    there = [cuda.to_device(a) if isinstance(a, np.ndarray) else a for a in args]
    dots = None  # a GPU does not tell
    if cuda.simulated():
        dots = dots_of(kernel, there)
    else:
        kernel(*there)
    if DRIVERS:
        cuda.toolkit().synchronize()
        counts = DRIVERS[0].launched[-1].counts
        dots = counts["dp4a.s32.s32"] + counts["dp4a.s32.u32"]
    return there[0].copy_to_host(), STATED[kernel](*args), dots


def dots_of(kernel, args):
    """Run a kernel of dots in the simulator; how many it makes."""
    made = []

    def counted(dot):
        return lambda: lambda a, b, total: (made.append(1), dot(a, b, total))[1]

    names, module = ("dot4", "dot4_unsigned"), sys.modules[kernel.__module__]
    counting = {name: cuda.Late(counted(getattr(module, name).found())) for name in names}
    with mock.patch.multiple(module, **counting):
        tile.Tiled(kernel.plain, kernel.result)(*args)
    return len(made)


def whole_numbers():
    """Nets of whole numbers train by two losses a step as by the reference kernels, their layers on dots of bytes."""
    conv_rules.FEW = 1
    graph, rng = with_weights(inverted()), np.random.default_rng(4)
    x, y = rng.normal(size=(BATCH + 1, *graph.size, 2)).astype(np.float32), rng.integers(0, CLASSES, BATCH + 1)
    for bits, more in ((16, {"bits": "16w8a"}), (8, {"bits": "8w8a", "epsilon": 0.02})):
        net = quantize(graph, graph.weights, x, bits, headroom=1.5, zero_points=bits == 8)
        step = ri.ForwardGradient(m=1, optimizer=ri.SGD(0.02), **more)
        program = ri.compile(net, ri.Plan(step=step, train_bias=True), BATCH, backend="reference", threads=1)
        tuned = ri.compile(net, program.plan, BATCH, backend="cuda", threads=1)
        kernels = {launch.function for launch in tuned.order}
        assert (on_tiles.FORWARD if bits == 8 else on_tiles.WIDE_FORWARD) in kernels
        both(f"whole numbers of {bits} bits", program, x, y)
    conv_rules.FEW = tile.FEW


def trained_in_words():
    """Nets train in whole numbers, their gradients on dots of four bytes, as by the reference kernels.

    Where no float takes part, to the bit.
    """
    (conv_rules.FEW, rng), used = (1, np.random.default_rng(6)), set()
    for build, rules, more in (
        (whole, (), {"step": ri.Niti("stochastic", ri.SGD(0.2))}),
        (inverted, (ri.QuantizedTraining("psq"),), {}),
        (residual, (ri.QuantizedTraining("banner"),), {"batch_norm": "train"}),
        (residual, (ri.QuantizedTraining("ptq"), ri.GradientFilter(2)), {}),
        (inverted, (), {"train_bias": True}),  # of a net of whole numbers
    ):
        graph, plan, dtype = with_weights(build()), ri.Plan("all", rules, **more), np.float64
        x, y = rng.normal(size=(BATCH + 1, *graph.size, 2)).astype(np.float32), rng.integers(0, CLASSES, BATCH + 1)
        niti = isinstance(plan.step, ri.Niti)
        if niti:
            graph, dtype = outlined_for(plan.step, graph), np.float32
        elif not rules:
            graph = quantize(graph, graph.weights, x, 8, headroom=1.5, zero_points=True)
        program = ri.compile(graph, plan, BATCH, backend="reference", threads=1, dtype=dtype)
        tuned = both(f"{build.__name__} in words {' + '.join(map(str, rules))}", program, x, y, exact=niti)
        used |= {launch.function for launch in tuned.order}
    kernels = [gradients.SUMS_GRAD_X, gradients.SUMS_GRAD_W, gradients.GRAD_X, gradients.GRAD_W, gradients.WIDE_GRAD_W]
    kernels += [on_tiles.EXPONENT_FORWARD, on_tiles.SCALED_FORWARD]
    assert used.issuperset(kernels)
    conv_rules.FEW = tile.FEW


if __name__ == "__main__":
    run_mode({"words": words})
