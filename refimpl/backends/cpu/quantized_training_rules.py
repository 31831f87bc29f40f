"""8-bit training on the tuned kernels: rounding, and products of whole numbers that are scaled back to floats."""

import numpy as np

from ...compiler import whole_products
from ...compiler.ir import Buffer, Call, Launch
from ...compiler.lower import Lowering
from ...methods import gradient_filter_quantized as patches
from ...methods import linear_quantized as linear
from ...methods import quantized as method
from ..common import absent, flat, present
from . import quantized_depthwise as fast_depthwise
from . import quantized_gradient as fast
from . import quantized_rounding as fast_rounding
from . import tiles


def largest(lowering: Lowering, call: Call) -> list[Launch]:
    """The largest magnitude of each sample."""
    most, v = (call.arrays[a] for a in call.passed.arrays)
    return [Launch(call.name, fast_rounding.largest, (most, flat(v)), (v,), (most,), (call,))]


def nearest(lowering: Lowering, call: Call) -> list[Launch]:
    """Whole numbers nearest to floats."""
    q, v, scale = (call.arrays[a] for a in ("q", "v", "scale"))
    args = (flat(q), flat(v), scale, call.attrs["levels"])
    return [Launch(call.name, fast_rounding.nearest, args, (v, scale), (q,), (call,))]


def at_random(lowering: Lowering, call: Call) -> list[Launch]:
    """Whole numbers around floats."""
    wide = call.passed is method.stochastic_wide
    q, dy, scales, step, seed = (call.arrays[a] for a in call.passed.arrays)
    levels = method.WIDE_LEVELS if wide else call.attrs["levels"]
    args = (flat(q), flat(dy), scales, step, seed, levels, call.attrs["stream"], wide)
    return [Launch(call.name, fast_rounding.stochastic, args, (dy, scales, step, seed), (q,), (call,))]


def product(lowering: Lowering, call: Call) -> list[Launch]:
    """A forward pass, or a gradient of x, on maps, on patches or of a linear layer."""
    sizes, attrs, a = whole_products.convolution(call)
    turned = call.passed not in (method.forward, linear.forward)
    y, x, w = a["dx" if turned else "y"], a["dy" if turned else "x"], a["w"]
    scales = a["dy_scale" if turned else "x_scale"], a["w_scale"]
    b, geometry = a.get("b", absent(1, y.dtype)), tiles.geometry(attrs)
    reads = present(x, w, b, *scales)
    if _depthwise(sizes):
        args = (y, x, w, b, *scales, geometry, turned)
        return [Launch(call.name, fast_depthwise.depthwise, args, reads, (y,), (call,))]
    own = _working(lowering, call, fast.product_scratch(sizes, attrs, turned, lowering.threads))
    source = own["tile"]
    if as_it_lies := fast.in_place(sizes, attrs, turned):
        source = x.reshape((int(np.prod(x.shape[:3])), x.shape[3]))
    args = (
        y, x, w, b, *scales, own["turned"], own["panels"], own["starts"], source, own["totals"], geometry,
        fast.product_cut(sizes, attrs, turned), as_it_lies, turned,
    )  # fmt: skip
    return [Launch(call.name, fast.product, args, reads, (y,), (call,), present(*own.values()))]


def gradient_of_weights(lowering: Lowering, call: Call) -> list[Launch]:
    """A gradient of w, of maps, of patches or of a linear layer."""
    sizes, attrs, a = whole_products.convolution(call)
    dw, dy, x, scales = a["dw"], a["dy"], a["x"], (a["dy_scale"], a["x_scale"])
    reads, geometry = (dy, x, *scales), tiles.geometry(attrs)
    if _depthwise(sizes):
        args = (dw, dy, x, *scales, geometry)
        return [Launch(call.name, fast_depthwise.grad_w, args, reads, (dw,), (call,))]
    one_scale = lowering.writer(a["dy_scale"]).passed is method.batch_scales
    cut = fast.grad_w_cut(sizes, attrs, dy.dtype, one_scale)
    own = _working(lowering, call, fast.grad_w_scratch(sizes, attrs, dy.dtype, dw.dtype, one_scale, lowering.threads))
    args = (dw, dy, x, *scales, *own.values(), geometry, cut, tiles.in_place(sizes, attrs), one_scale)
    return [Launch(call.name, fast.grad_w, args, reads, (dw,), (call,), present(*own.values()))]


def _working(lowering: Lowering, call: Call, needed: dict) -> dict[str, Buffer | np.ndarray]:
    """Working arrays by name, empty where nothing is needed."""
    return {
        name: lowering.scratch(call, name, shape, dtype) if np.prod(shape) else np.empty((0,) * len(shape), dtype)
        for name, (shape, dtype) in needed.items()
    }


def _depthwise(sizes: dict) -> bool:
    return 1 < sizes["G"] == sizes["C"] == sizes["K"]


RULES = {  # rule → the passes of the calls that it begins at
    largest: (method.most, method.most_dy),
    nearest: (method.nearest,),
    at_random: (method.stochastic, method.stochastic_wide),
    product: (
        method.forward,
        linear.forward,
        method.grad_x,
        linear.grad_x,
        patches.patch_grad,
        patches.patch_grad_dilated,
    ),
    gradient_of_weights: (method.grad_w, linear.grad_w, patches.patch_grad_w),
}
