"""Flatten: y[n, d] = x[n, h, w, c] with d = (h·W + w)·C + c. The same memory under another shape, so no kernel runs."""

SHAPES = {"x": "N H W C", "y": "N D", "dy": "N D", "dx": "N H W C"}
ALIASES = {"y": "x", "dx": "dy"}


def derive(sizes, attrs):
    """D of a map of H × W × C."""
    return {"D": sizes["H"] * sizes["W"] * sizes["C"]}
