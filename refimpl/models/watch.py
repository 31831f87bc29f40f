"""The watch net: three convolutions along time, for windows of 2 s of accelerometer and gyroscope."""

import numpy as np
import safetensors

from .. import assets
from ..graph import INPUT, Graph


def watch_net(classes: int = 7, size: tuple[int, int] = (1, 100), channels: int = 6) -> Graph:
    """1×7, 1×5 and 1×5 convolutions of 32, 64 and 64 channels, batch norm, ReLU, two 1×2 max pools, mean, linear.

    size: (1, samples of a window). Input (N, 1, 100, 6), output (N, classes).
    """
    g = Graph("watch", size, channels)
    x = INPUT
    for i, (width, kernel) in enumerate(((32, 7), (64, 5), (64, 5)), start=1):
        x = g.conv2d(f"conv{i}", x, width, (1, kernel), pad=((0, 0), (kernel // 2, kernel // 2)))
        x = g.batch_norm(f"bn{i}", x)
        x = g.relu(f"relu{i}", x)
        if i < 3:
            x = g.max_pool(f"pool{i}", x, (1, 2))
    x = g.global_avg_pool("mean", x)
    g.linear("fc", x, classes)
    return g


def watch_weights(subject: int) -> dict[str, np.ndarray]:
    """Bundled weights of the net that was trained on everybody but `subject` (1 to 10), as float32.

    `gradledger reproduce watch-nets` trains them anew; they are kept as float16.
    """
    prefix = f"{subject}/"
    with safetensors.safe_open(assets.path("watch_nets.safetensors"), framework="numpy") as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 (it is no mapping)
        return {name.removeprefix(prefix): file.get_tensor(name).astype(np.float32) for name in names}
