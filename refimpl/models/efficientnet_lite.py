"""EfficientNet-Lite0, the net of EfficientNet (Tan and Le 2019, arXiv 1905.11946) for integer hardware.

EfficientNet-B0's inverted residual blocks without squeeze-and-excitation, with ReLU6 for swish. Maps are padded as
TensorFlow does ("same": the odd row below or to the right), variances get 1e-3; a pixel enters as (pixel − 127)/128.
"""

from ..graph import INPUT, Graph

# arXiv 1905.11946 Table 1, stages 2 to 8: expansion, kernel, channels, blocks, stride of the first block
STAGES = (
    (1, 3, 16, 1, 1), (6, 3, 24, 2, 2), (6, 5, 40, 2, 2), (6, 3, 80, 3, 2), (6, 5, 112, 3, 1), (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
)  # fmt: skip
PIXELS = (-127 / 128, 1.0)  # of pixels of 0 and of 255
EPS = 1e-3


def efficientnet_lite0(classes: int = 1000, size: tuple[int, int] = (224, 224), channels: int = 3) -> Graph:
    """A 3×3 convolution with stride 2, sixteen inverted residual blocks, 1×1 convolution, mean, dropout, linear layer.

    Input (N, *size, channels), −127/128 to 1 for pixels; output (N, classes). 49 convolutions with 3,328,992 weights,
    and with 1000 classes 4,652,008 trainable parameters.
    """
    g = Graph("efficientnet_lite0", size, channels)
    g.pixels = PIXELS
    x = _conv(g, "stem", INPUT, 32, 3, 2)
    block = 0
    for expansion, kernel, c, blocks, stride in STAGES:
        for i in range(blocks):
            block += 1
            x = _block(g, f"block{block}", x, c, kernel, stride if i == 0 else 1, expansion)
    x = _conv(g, "head", x, 1280, 1)
    x = g.dropout("dropout", g.global_avg_pool("mean", x), 0.2)
    g.linear("fc", x, classes)
    return g


def _conv_bn(g: Graph, name: str, x: str, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> str:
    """Convolution, batch norm."""
    return g.batch_norm(f"{name}.bn", g.conv2d(name, x, channels, kernel, stride, "same", groups=groups), eps=EPS)


def _conv(g: Graph, name: str, *args, **kwargs) -> str:
    """Convolution, batch norm, ReLU6."""
    return g.relu6(f"{name}.relu6", _conv_bn(g, name, *args, **kwargs))


def _block(g: Graph, name: str, x: str, channels: int, kernel: int, stride: int, expansion: int) -> str:
    """1×1 expansion, depthwise convolution, linear 1×1 projection; added to its input where shapes allow it."""
    shortcut, before = x, g.shape(x)[3]
    width = before * expansion
    if expansion != 1:
        x = _conv(g, f"{name}.expand", x, width, 1)
    x = _conv(g, f"{name}.depthwise", x, width, kernel, stride, groups=width)
    x = _conv_bn(g, f"{name}.project", x, channels, 1)
    return g.add(f"{name}.add", x, shortcut) if stride == 1 and channels == before else x
