"""Residual networks with basic blocks (He et al. 2015, arXiv 1512.03385)."""

from ..graph import INPUT, Graph


def _block(g: Graph, name: str, x: str, channels: int, stride: int) -> str:
    """Two 3×3 convolutions beside a shortcut, which is a 1×1 projection where the shape changes.

    The projection's nodes come first: arXiv 2301.00330 counts "the last k convolutions" in this order.
    """
    shortcut = x
    if stride != 1 or g.shape(x)[3] != channels:
        shortcut = g.conv2d(f"{name}.downsample.conv", x, channels, 1, stride)
        shortcut = g.batch_norm(f"{name}.downsample.bn", shortcut)
    x = g.conv2d(f"{name}.conv1", x, channels, 3, stride, pad=1)
    x = g.batch_norm(f"{name}.bn1", x)
    x = g.relu(f"{name}.relu1", x)
    x = g.conv2d(f"{name}.conv2", x, channels, 3, pad=1)
    x = g.batch_norm(f"{name}.bn2", x)
    x = g.add(f"{name}.add", x, shortcut)
    return g.relu(f"{name}.relu2", x)


def _stages(g: Graph, x: str, widths: tuple[int, ...], blocks: tuple[int, ...], classes: int) -> Graph:
    """Stages of so many blocks, each stage but the first halving the map; then mean and linear layer."""
    for stage, (width, count) in enumerate(zip(widths, blocks, strict=True), start=1):
        for block in range(count):
            x = _block(g, f"layer{stage}.{block}", x, width, 2 if stage > 1 and block == 0 else 1)
    x = g.global_avg_pool("mean", x)
    g.linear("fc", x, classes)
    return g


def _cifar(name: str, blocks: int, classes: int, size: tuple[int, int], channels: int) -> Graph:
    """The CIFAR form: a 3×3 convolution, three stages of `blocks` basic blocks with 16, 32 and 64 channels.

    Input (N, *size, channels), output (N, classes).
    Our reading: shortcuts that change the shape are 1×1 projections with batch norm (option B of section 3.3), where
    He et al. pad with zeros on CIFAR (option A).
    """
    g = Graph(name, size, channels)
    x = g.conv2d("conv1", INPUT, 16, 3, pad=1)
    x = g.batch_norm("bn1", x)
    x = g.relu("relu1", x)
    return _stages(g, x, (16, 32, 64), (blocks,) * 3, classes)


def resnet8(classes: int = 10, size: tuple[int, int] = (32, 32), channels: int = 3) -> Graph:
    """The CIFAR form with one block a stage; see `_cifar`. Input (N, *size, channels), output (N, classes)."""
    return _cifar("resnet8", 1, classes, size, channels)


def resnet20(classes: int = 10, size: tuple[int, int] = (32, 32), channels: int = 3) -> Graph:
    """The CIFAR form with three blocks a stage; see `_cifar`. Input (N, *size, channels), output (N, classes)."""
    return _cifar("resnet20", 3, classes, size, channels)


def resnet74(classes: int = 10, size: tuple[int, int] = (32, 32), channels: int = 3) -> Graph:
    """The CIFAR form with twelve blocks a stage; see `_cifar`. Input (N, *size, channels), output (N, classes)."""
    return _cifar("resnet74", 12, classes, size, channels)


def resnet110(classes: int = 10, size: tuple[int, int] = (32, 32), channels: int = 3) -> Graph:
    """The CIFAR form with eighteen blocks a stage; see `_cifar`. Input (N, *size, channels), output (N, classes)."""
    return _cifar("resnet110", 18, classes, size, channels)


def _imagenet(
    name: str, blocks: tuple[int, ...], classes: int, size: tuple[int, int], channels: int, reduce: int = 1
) -> Graph:
    """Table 1 of He et al.: a 7×7 convolution, max pooling and four stages; `reduce`: side of a mean before them."""
    g = Graph(name, size, channels)
    x = g.avg_pool("reduce", INPUT, reduce) if reduce > 1 else INPUT
    x = g.conv2d("conv1", x, 64, 7, 2, pad=3)
    x = g.batch_norm("bn1", x)
    x = g.relu("relu1", x)
    x = g.max_pool("maxpool", x, 3, 2, pad=1)
    return _stages(g, x, (64, 128, 256, 512), blocks, classes)


def resnet18(classes: int = 1000, size: tuple[int, int] = (224, 224), channels: int = 3) -> Graph:
    """Table 1 of He et al., as torchvision builds it: 11,689,512 trainable parameters with 1000 classes.

    Input (N, *size, channels), output (N, classes).
    """
    return _imagenet("resnet18", (2, 2, 2, 2), classes, size, channels)


def resnet34(classes: int = 1000, size: tuple[int, int] = (224, 224), channels: int = 3) -> Graph:
    """Table 1 of He et al., as torchvision builds it: 21,797,672 trainable parameters with 1000 classes.

    Input (N, *size, channels), output (N, classes).
    """
    return _imagenet("resnet34", (3, 4, 6, 3), classes, size, channels)


def resnet10(classes: int = 2, size: tuple[int, int] = (224, 224), channels: int = 3) -> Graph:
    """The instance filter for ImageNet (arXiv 2007.03213): one basic block a stage, on maps made 4 times smaller first.

    Input (N, *size, channels), output (N, classes). Our reading: the "extra stride-4 downsampling" is a 4×4 mean.
    """
    return _imagenet("resnet10", (1, 1, 1, 1), classes, size, channels, reduce=4)
