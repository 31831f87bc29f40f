"""Flatten: y[n, d] = x[n, …], d the number of an element of a sample. The same memory, so no kernel runs."""

SHAPES = {"x": "N D*", "y": "N D", "dy": "N D", "dx": "N D*"}
ALIASES = {"y": "x", "dx": "dy"}
TANGENT = ("tx",)  # ty = tx
CHANNELS = "flattened"
