"""Channels of G groups, dealt out in turn: y[n, j·G + i] = x[n, i·(C/G) + j], i < G, j < C/G (arXiv 1707.01083).

The channels of a map are written as a matrix of G rows and read by its columns; dx reads dy by rows again.
Dimensions: N rows (all axes before the last), C channels. Attribute `groups`: G. Any float dtype.
"""

from ..kernels.passes import Bound, ShapeError, declare

SHAPES = {"x": "N* C", "y": "N* C", "dy": "N* C", "dx": "N* C"}


def derive(sizes, attrs):
    """Nothing follows; ShapeError where the channels are no whole number of groups."""
    if attrs["groups"] < 1 or sizes.get("C", attrs["groups"]) % attrs["groups"]:
        raise ShapeError(f"C={sizes.get('C')} channels are no multiple of {attrs['groups']} groups")
    return {}


def drawn(pick, large):
    """Channels of some groups."""
    groups = pick(1, 8)
    return {"N": pick(1, 256 if large else 6), "C": groups * pick(1, 32 if large else 4)}, {"groups": groups}


@declare(SHAPES, items="N C", writes="y", derive=derive)
def forward(t, y, x, groups=1):
    """Output y, (N, C), from x, (N, C)."""
    n, c = divmod(t, y.shape[1])
    j, i = divmod(c, groups)
    y[n, c] = x[n, i * (y.shape[1] // groups) + j]


@declare(SHAPES, items="N C", writes="dx", derive=derive)
def grad_x(t, dx, dy, groups=1):
    """Gradient of x, (N, C), from dy, (N, C)."""
    # forward: y[n, j·G + i] = x[n, i·(C/G) + j]
    n, c = divmod(t, dx.shape[1])
    i, j = divmod(c, dx.shape[1] // groups)
    dx[n, c] = dy[n, j * groups + i]


TANGENT = (Bound(forward, {"y": "ty", "x": "tx"}),)  # tx, dealt out in the same way


def drawn_in(g, pick, name, x):
    """A node of it on the tensor x of a drawn net."""
    channels = g.shape(x)[-1]
    divisors = [n for n in range(1, channels + 1) if channels % n == 0]
    return g.channel_shuffle(name, x, divisors[pick(0, len(divisors) - 1)])
