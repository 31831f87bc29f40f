"""Identity: y = x, dx = dy. The same memory, so no kernel runs: what dropout is in inference."""

SHAPES = {"x": "N E*", "y": "N E*", "dy": "N E*", "dx": "N E*"}
ALIASES = {"y": "x", "dx": "dy"}
TANGENT = ("tx",)  # ty = tx
CHANNELS = "kept"
