"""A net that tells the color of small images, and such images, for tests of what uses a trained net."""

import numpy as np

import refimpl as ri
from refimpl.data.preprocessing import Preprocessing

NAMES = ("ant", "bee", "cat")
SIDE = 8
PIXELS = Preprocessing("image", divisor=255.0, channels=3, size=(SIDE, SIDE), black=-1.0, white=1.0)


def images(per_class, classes=3, seed=0):
    """Images whose channel `class` is bright, and their class numbers."""
    rng = np.random.default_rng(seed)
    y = np.arange(per_class * classes) % classes
    x = rng.integers(0, 90, (len(y), SIDE, SIDE, 3), dtype=np.uint8)
    x[np.arange(len(y)), :, :, y % 3] += 120
    x[y >= 3] //= 4  # a fourth class is dark
    return x, y


def net(classes=NAMES):
    g = ri.Graph("small", (SIDE, SIDE), 3)
    x = g.relu("relu", g.conv2d("conv", "input", 8, 3, pad="same", bias=True))
    g.linear("fc", g.global_avg_pool("mean", x), len(classes))
    g.classes, g.pixels = tuple(classes), (-1.0, 1.0)
    return g
