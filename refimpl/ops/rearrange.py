"""The elements of a sample in another order, as a transpose of parts of its axes has them.

The number f of an element of y, (N, P, Q, R), is written in digits, the first slowest, of the lengths `lengths`; digit
i counts steps of `steps[i]` elements of x. With d_i(f) the digits of f:

    y[n, f] = x[n, Σ_i d_i(f)·steps_i],    dx[n, Σ_i d_i(f)·steps_i] = dy[n, f]

Each element of x is read once; ShapeError where it would not be. Digits that are not needed have the length 1.
Attribute `size`: P and Q. Dimensions: N samples, D elements a sample. Any float dtype.
"""

import math

from ..kernels.geometry import MOST_DIGITS, parted
from ..kernels.passes import Bound, ShapeError, declare

SHAPES = {"x": "N D*", "y": "N P Q R", "dy": "N P Q R", "dx": "N D*"}
ONES, NO_STEPS = (1,) * MOST_DIGITS, (0,) * MOST_DIGITS


def derive(sizes, attrs):
    """P, Q and R; ShapeError where the digits do not give each element of a sample once."""
    lengths, steps = (tuple(int(n) for n in attrs[name]) for name in ("lengths", "steps"))
    if "D" not in sizes:
        sizes = {**sizes, "D": sizes["P"] * sizes["Q"] * sizes["R"]}
    below = 1
    for step, length in sorted((s, n) for n, s in zip(lengths, steps, strict=True) if n != 1):
        if length < 1 or step != below:
            below = 0
            break
        below *= length
    if below != sizes["D"]:
        raise ShapeError(f"lengths {lengths} and steps {steps} do not give each of D={sizes['D']} elements once")
    return {"D": sizes["D"], **parted(sizes["D"], attrs["size"])}


def drawn(pick, large):
    """A transpose of up to four digits."""
    lengths = [pick(1, 12 if large else 3) for _ in range(4)]
    order = sorted(range(4), key=lambda i: (pick(0, 99), i))
    steps = [math.prod(lengths[i + 1 :]) for i in range(4)]
    attrs = {
        "lengths": (*(lengths[i] for i in order), 1, 1), "steps": (*(steps[i] for i in order), 0, 0),
        "size": (lengths[order[0]], lengths[order[1]]),
    }  # fmt: skip
    return {"N": pick(1, 16 if large else 3), "D": math.prod(lengths)}, attrs


@declare(SHAPES, items="N P Q R", writes="y", derive=derive)
def forward(t, y, x, lengths=ONES, steps=NO_STEPS, size=(1, 1)):
    """Output y, (N, P, Q, R), from x, (N, D)."""
    place, of, rest = 0, 0, t
    for i in range(len(lengths) - 1, -1, -1):  # the last digit counts fastest
        rest, of = divmod(rest, lengths[i])
        place += of * steps[i]
    rest, r = divmod(t, y.shape[3])
    rest, q = divmod(rest, y.shape[2])
    n, p = divmod(rest, y.shape[1])
    y[n, p, q, r] = x[n, place]


@declare(SHAPES, items="N P Q R", writes="dx", derive=derive)
def grad_x(t, dx, dy, lengths=ONES, steps=NO_STEPS, size=(1, 1)):
    """Gradient of x, (N, D), from dy, (N, P, Q, R): each element of dy goes where that of y came from."""
    # forward: y[n, f] = x[n, Σ_i d_i(f)·steps_i]
    place, of, rest = 0, 0, t
    for i in range(len(lengths) - 1, -1, -1):
        rest, of = divmod(rest, lengths[i])
        place += of * steps[i]
    rest, r = divmod(t, dy.shape[3])
    rest, q = divmod(rest, dy.shape[2])
    n, p = divmod(rest, dy.shape[1])
    dx[n, place] = dy[n, p, q, r]


TANGENT = (Bound(forward, {"y": "ty", "x": "tx"}),)  # the same elements


def drawn_in(g, pick, name, x):
    """A node of it on the tensor x of a drawn net: pixels column by column in a map of the same rows."""
    _, h, w, c = g.shape(x)
    return g.rearrange(name, x, (h, w), (w, h, c), (c, w * c, 1))
