"""VGG nets (Simonyan & Zisserman 2015, arXiv 1409.1556) with batch norm, in the form that is used on CIFAR."""

from ..graph import INPUT, Graph

# arXiv 1409.1556 Table 1: 3×3 convolutions of each stage, a 2×2 max pool behind each
CHANNELS = (64, 128, 256, 512, 512)
DEPTHS = {"vgg11": (1, 1, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3)}  # configurations A and D


def _vgg(name: str, classes: int, size: tuple[int, int], channels: int) -> Graph:
    """Five stages; one linear layer behind the last pool in place of the paper's three, as usual for 32×32 maps."""
    g, x = Graph(name, size, channels), INPUT
    for stage, (width, depth) in enumerate(zip(CHANNELS, DEPTHS[name], strict=True), start=1):
        for i in range(1, depth + 1):
            x = g.conv2d(f"conv{stage}_{i}", x, width, 3, pad=1)
            x = g.relu(f"relu{stage}_{i}", g.batch_norm(f"bn{stage}_{i}", x))
        x = g.max_pool(f"pool{stage}", x, 2)
    g.linear("fc", g.flatten("flatten", x), classes)
    return g


def vgg11(classes: int = 10, size: tuple[int, int] = (32, 32), channels: int = 3) -> Graph:
    """Configuration A, 8 convolutions. Input (N, *size, channels) of at least 32×32, output (N, classes)."""
    return _vgg("vgg11", classes, size, channels)


def vgg16(classes: int = 10, size: tuple[int, int] = (32, 32), channels: int = 3) -> Graph:
    """Configuration D, 13 convolutions. Input (N, *size, channels) of at least 32×32, output (N, classes)."""
    return _vgg("vgg16", classes, size, channels)
