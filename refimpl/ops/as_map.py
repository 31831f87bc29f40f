"""A map of one pixel: y[n, 0, 0, c] = x[n, c]. The same memory, so no kernel runs.

Dimensions: N samples, C channels. Any float dtype.
"""

SHAPES = {"x": "N C", "y": "N 1 1 C", "dy": "N 1 1 C", "dx": "N C"}
ALIASES = {"y": "x", "dx": "dy"}
TANGENT = ("tx",)  # ty = tx
CHANNELS = "kept"
