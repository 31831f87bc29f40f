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
