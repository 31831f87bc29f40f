"""LeNet-5 (LeCun et al. 1998), with ReLU and max pooling, as it is used today."""

from ..graph import INPUT, Graph


def lenet5(classes: int = 10, size: tuple[int, int] = (28, 28), channels: int = 1) -> Graph:
    """Two 5×5 convolutions of 6 and 16 channels, each with a 2×2 max pool, then linear layers of 120, 84, classes.

    Maps smaller than 32×32 get two rows and columns of padding, as 28×28 digits stand in LeCun's 32×32 input.
    Input (N, *size, channels), output (N, classes); 61,706 parameters as called without arguments.
    """
    g = Graph("lenet5", size, channels)
    x = g.conv2d("conv1", INPUT, 6, 5, pad=2 if min(size) < 32 else 0, bias=True)
    x = g.relu("relu1", x)
    x = g.max_pool("pool1", x, 2)
    x = g.conv2d("conv2", x, 16, 5, bias=True)
    x = g.relu("relu2", x)
    x = g.max_pool("pool2", x, 2)
    x = g.flatten("flatten", x)
    x = g.linear("fc1", x, 120)
    x = g.relu("relu3", x)
    x = g.linear("fc2", x, 84)
    x = g.relu("relu4", x)
    g.linear("fc3", x, classes)
    return g


def lenet(classes: int = 10, size: tuple[int, int] = (28, 28), channels: int = 1) -> Graph:
    """The LeNet of Caffe's examples: two 5×5 convolutions of 20 and 50 channels, 2×2 max pools, then 500 and classes.

    Input (N, *size, channels), output (N, classes); 431,080 parameters as called without arguments.
    """
    g = Graph("lenet", size, channels)
    x = g.max_pool("pool1", g.conv2d("conv1", INPUT, 20, 5, bias=True), 2)
    x = g.max_pool("pool2", g.conv2d("conv2", x, 50, 5, bias=True), 2)
    x = g.relu("relu", g.linear("fc1", g.flatten("flatten", x), 500))
    g.linear("fc2", x, classes)
    return g


def slim_lenet(classes: int = 2, size: tuple[int, int] = (28, 28), channels: int = 1) -> Graph:
    """The instance filter for digits (arXiv 2007.03213): a slim LeNet, 3×3 kernels of 6 and 16 channels.

    Input (N, *size, channels), output (N, classes); two classes: is the main net's loss Low or High?
    Our reading: padded convolutions, 2×2 max pools and, as in `lenet`, a hidden linear layer, of 32 outputs: its
    inference then costs 9.6 % of `lenet`'s and a training step 9.5 % (9.5 % and 7.8 % in the paper, which prints
    neither net in full).
    """
    g = Graph("slim_lenet", size, channels)
    x = INPUT
    rows = min(size[0], 3)  # series in time are maps of one row
    for i, width in enumerate((6, 16), start=1):
        x = g.relu(f"relu{i}", g.conv2d(f"conv{i}", x, width, (rows, 3), pad="same", bias=True))
        x = g.max_pool(f"pool{i}", x, (min(rows, 2), 2))
    x = g.relu("relu3", g.linear("fc1", g.flatten("flatten", x), 32))
    g.linear("fc2", x, classes)
    return g
