"""Some channels of the last axis: y[n, k] = x[n, start + k], k < count. dx is dy in its place and 0 elsewhere.

Dimensions: N rows (all axes before the last), C channels of the input, K = count of the output. Any float dtype.
"""

from ..kernels.passes import Bound, ShapeError, declare

SHAPES = {"x": "N* C", "y": "N* K", "dy": "N* K", "dx": "N* C"}


def derive(sizes, attrs):
    """K; ShapeError where the channels are not those of x."""
    start, count = attrs["start"], attrs["count"]
    if start < 0 or count < 1 or "C" in sizes and start + count > sizes["C"]:
        raise ShapeError(f"channels {start} to {start + count - 1} are not among {sizes.get('C', 'those of x')}")
    return {"K": count}


def drawn(pick, large):
    """Channels at any place among C."""
    most = 256 if large else 6
    before, count, behind = pick(0, most), pick(1, most), pick(0, most)
    return {"N": pick(1, most), "C": before + count + behind}, {"start": before, "count": count}


@declare(SHAPES, items="N K", writes="y", derive=derive)
def forward(t, y, x, start=0, count=1):
    """Output y, (N, K): the channels start … start + count − 1 of x, (N, C)."""
    n, k = divmod(t, y.shape[1])
    y[n, k] = x[n, start + k]


def _place(sizes, attrs):
    """Which channels of x are those of y."""
    return [attrs["start"] <= c < attrs["start"] + attrs["count"] for c in range(sizes["C"])]


@declare(SHAPES, items="N C", writes="dx", derive=derive, alike={"C": _place})
def grad_x(t, dx, dy, start=0, count=1):
    """Gradient of x, (N, C), from dy, (N, K); C must be given."""
    # forward: y[n, k] = x[n, start + k]
    n, c = divmod(t, dx.shape[1])
    dx[n, c] = dy[n, c - start] if 0 <= c - start < count else dx.dtype.type(0)


TANGENT = (Bound(forward, {"y": "ty", "x": "tx"}),)  # the same channels of tx


def drawn_in(g, pick, name, x):
    """A node of it on the tensor x of a drawn net."""
    channels = g.shape(x)[-1]
    start = pick(0, channels - 1)
    return g.channel_slice(name, x, start, pick(1, channels - start))
