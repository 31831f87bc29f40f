"""Inverted residual nets for microcontrollers, their batch norm folded into the convolutions (arXiv 2206.15472).

MobileNetV2's blocks (arXiv 1801.04381) with other widths and kernels, as MCUNet searches them; every convolution has a
bias, and no 1×1 convolution stands before the mean. That is the form in which such nets are quantized.
"""

from collections.abc import Sequence

from ..graph import INPUT, Graph
from .mobilenet_v2 import STAGES, round_channels

# width 0.35: (expanded channels, depthwise kernel, stride, channels) of each block; the stem has 16 channels
_CHANNELS = [(t, round_channels(0.35 * c), s if i == 0 else 1) for t, c, n, s in STAGES for i in range(n)]
MOBILENET_V2_035 = tuple(
    (t * before, 3, stride, c)
    for before, (t, c, stride) in zip((16, *(c for _, c, _ in _CHANNELS)), _CHANNELS, strict=False)
)


def mobilenet_folded(
    classes: int = 1000,
    size: tuple[int, int] = (128, 128),
    channels: int = 3,
    stem: int = 16,
    blocks: Sequence[Sequence[int]] = MOBILENET_V2_035,
) -> Graph:
    """A 3×3 convolution with stride 2, inverted residual blocks, mean, linear layer; biases, ReLU6, no batch norm.

    stem: channels of the first convolution. blocks: (expanded channels, depthwise kernel, stride, channels) of each; no
    expansion where the expanded channels are those of the block's input; the input is added where shapes allow it.
    The default is MobileNetV2 at width 0.35 without its last convolution: 51 convolutions with 238,688 weights.
    Input (N, *size, channels), -1 to 1 for pixels; output (N, classes).
    """
    g = Graph("mobilenet_folded", size, channels)
    g.options = {"stem": stem, "blocks": [list(block) for block in blocks]}
    g.pixels = (-1.0, 1.0)
    x = _conv(g, "stem", INPUT, stem, 3, 2)
    for i, (expanded, kernel, stride, out) in enumerate(blocks, start=1):
        shortcut, before = x, g.shape(x)[3]
        if expanded != before:
            x = _conv(g, f"block{i}.expand", x, expanded, 1)
        x = _conv(g, f"block{i}.depthwise", x, expanded, kernel, stride, groups=expanded)
        x = g.conv2d(f"block{i}.project", x, out, 1, bias=True)
        if stride == 1 and out == before:
            x = g.add(f"block{i}.add", x, shortcut)
    g.linear("fc", g.global_avg_pool("mean", x), classes)
    return g


def _conv(g: Graph, name: str, x: str, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> str:
    """Convolution with bias, ReLU6."""
    x = g.conv2d(name, x, channels, kernel, stride, (kernel - 1) // 2, groups=groups, bias=True)
    return g.relu6(f"{name}.relu6", x)
