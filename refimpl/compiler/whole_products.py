"""Products of training in whole numbers as those of a convolution, whichever operator or method states them.

A linear layer is a 1×1 convolution of its rows, a product of patches one of the grid of patches. The arrays have the
names that `ops.conv2d` gives them: x, w, b, y, dy, dx, dw, and x_scale, w_scale, dy_scale where they have scales.
"""

from ..methods import gradient_filter_quantized as patches
from ..methods import linear_quantized, quantized
from ..ops import niti_conv2d, niti_linear, quantized_conv2d, quantized_linear
from .grouping import AsConvolution
from .ir import Call

FORWARD = (quantized.forward, linear_quantized.forward, niti_conv2d.accumulate, niti_linear.accumulate)
GRAD_X = (
    quantized.grad_x, linear_quantized.grad_x, patches.patch_grad, patches.patch_grad_dilated,
    quantized_conv2d.grad_x, quantized_linear.grad_x, niti_conv2d.grad_x, niti_linear.grad_x,
)  # fmt: skip
GRAD_W = (
    quantized.grad_w, linear_quantized.grad_w, patches.patch_grad_w, quantized_conv2d.grad_w, quantized_linear.grad_w,
    niti_conv2d.grad_w, niti_linear.grad_w,
)  # fmt: skip
NAMES = {
    "x_q": "x", "w_q": "w", "dy_q": "dy", "sums": "y", "dx_sums": "dx", "error": "dy", "error_scale": "dy_scale",
    "w_error": "dy", "w_error_scale": "dy_scale", "dx_patch": "dx", "dw_patch": "dw", "dy_mean_q": "dy",
    "dy_mean_scale": "dy_scale", "x_sum_q": "x", "x_sum_scale": "x_scale", "w_sum_q": "w", "w_sum_scale": "w_scale",
}  # fmt: skip
ONCE = {"stride": (1, 1), "dilation": (1, 1), "pad": ((0, 0), (0, 0))}  # attributes of a 1×1 convolution


def convolution(call: Call) -> AsConvolution:
    """A forward pass or a gradient of x or w, with all sizes of a convolution."""
    sizes, attrs, a = dict(call.sizes), dict(call.attrs), {NAMES.get(name, name): b for name, b in call.arrays.items()}
    if "U" in sizes:  # patches
        sizes |= {"H": sizes["U"], "W": sizes["V"], "P": sizes["U"], "Q": sizes["V"]}
        attrs |= ONCE if call.passed is not patches.patch_grad_dilated else _of_patches(call)
        if call.passed is not patches.patch_grad_dilated:
            sizes |= {"R": 1, "S": 1}  # the convolution's own are summed already
    if "D" in sizes:  # a linear layer, whose samples have several rows where they share a scale
        rows = sizes.get("M", 1)
        sizes |= {"C": sizes["D"], "W": rows, "Q": rows, **dict.fromkeys("HRSPG", 1)}
        attrs |= ONCE
        for name in {"x", "y", "dx", "dy"} & a.keys():
            a[name] = a[name].reshape((sizes["N"], 1, rows, a[name].shape[-1]))
    for name in {"w", "dw"} & a.keys():
        if len(a[name].shape) == 2:
            a[name] = a[name].reshape((1, 1, *a[name].shape))
    return AsConvolution(sizes, attrs, a)


def _of_patches(call: Call) -> dict:
    """The attributes of a convolution whose taps fall whole patches apart."""
    steps = [d // p if d > 1 else 0 for d, p in zip(call.attrs["dilation"], call.attrs["patch"], strict=True)]
    before = [step * (call.sizes[taps] - 1) // 2 for step, taps in zip(steps, "RS", strict=True)]
    return {"stride": (1, 1), "dilation": tuple(steps), "pad": tuple((n, n) for n in before)}
