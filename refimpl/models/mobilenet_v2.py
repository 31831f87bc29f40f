"""MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381), as torchvision or as Keras builds it.

The two differ in three things: torchvision pads both sides of a map with half of the kernel and adds 1e-5 to variances;
Keras pads as TensorFlow does ("same": the odd row below or to the right), adds 1e-3, and takes pixels from -1 to 1.
"""

from collections.abc import Sequence

from ..graph import INPUT, Graph
from ..kernels.traced import larger, opaque

# arXiv 1801.04381 Table 2: expansion t, channels c, blocks n, stride s of the first block
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


WIDTHS = (1.0, *(n / 100 for n in range(10, 201, 5)))  # that files are looked at for, the usual one first
VARIANTS = ("torchvision", "keras")


@opaque
def round_channels(wanted: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `wanted` (halves up), at least one, and not more than 10 % below it."""
    rounded = max(divisor, int(wanted + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * wanted else rounded


def width_of(stem: int, projects: Sequence[int]) -> float:
    """The width multiplier, of two decimals, of a net with these channels of its first convolution and of each block.

    Where no width makes them, the one that makes the nearest ones.
    """

    def distance(width: float) -> int:
        made = [round_channels(c * width) for _, c, blocks, _ in STAGES for _ in range(blocks)]
        return abs(round_channels(32 * width) - stem) + sum(abs(a - b) for a, b in zip(made, projects, strict=False))

    return min(WIDTHS, key=distance)


def _conv_bn(g: Graph, name: str, x: str, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> str:
    """Convolution, batch norm."""
    keras = g.options["variant"] == "keras"
    x = g.conv2d(name, x, channels, kernel, stride, "same" if keras else kernel // 2, groups=groups)
    return g.batch_norm(f"{name}.bn", x, eps=1e-3 if keras else 1e-5)


def _conv(g: Graph, name: str, *args, **kwargs) -> str:
    """Convolution, batch norm, ReLU6."""
    return g.relu6(f"{name}.relu6", _conv_bn(g, name, *args, **kwargs))


def _inverted_residual(g: Graph, name: str, x: str, channels: int, stride: int, expansion: int) -> str:
    """1×1 expansion, 3×3 depthwise convolution, linear 1×1 projection; added to its input where shapes allow it."""
    shortcut, width = x, g.shape(x)[3]
    if expansion != 1:
        x = _conv(g, f"{name}.expand", x, width * expansion, 1)
    x = _conv(g, f"{name}.depthwise", x, width * expansion, 3, stride, groups=width * expansion)
    x = _conv_bn(g, f"{name}.project", x, channels, 1)
    return g.add(f"{name}.add", x, shortcut) if stride == 1 and width == channels else x


def mobilenet_v2(
    classes: int = 1000,
    size: tuple[int, int] = (224, 224),
    width: float = 1.0,
    channels: int = 3,
    variant: str = "torchvision",
) -> Graph:
    """Seventeen inverted residual blocks between a 3×3 and a 1×1 convolution; dropout 0.2 before the linear layer.

    width: multiplier of all channel counts (the last, 1280, is never reduced), rounded to multiples of 8.
    variant: "torchvision" or "keras", whose weights the net can take.
    Input (N, *size, channels), output (N, classes). With width 1.0: 52 convolutions with 2,189,760 weights, and with
    1000 classes 3,504,872 trainable parameters.
    """
    g = Graph("mobilenet_v2", size, channels)
    g.options = {"width": width, "variant": variant}
    if variant == "keras":
        g.pixels = (-1.0, 1.0)
    x = _conv(g, "stem", INPUT, round_channels(32 * width), 3, 2)
    block = 0
    for expansion, c, blocks, stride in STAGES:
        for i in range(blocks):
            block += 1
            x = _inverted_residual(g, f"block{block}", x, round_channels(c * width), stride if i == 0 else 1, expansion)
    x = _conv(g, "head", x, round_channels(1280 * larger(1, width)), 1)
    x = g.global_avg_pool("mean", x)
    x = g.dropout("dropout", x, 0.2)
    g.linear("fc", x, classes)
    return g
