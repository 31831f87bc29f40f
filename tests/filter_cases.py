"""Drawn filtered convolutions, and the method restated twice: with PyTorch operators, and per element in NumPy."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import strategies as st

from refimpl.kernels.geometry import out_size
from refimpl.methods.gradient_filter import GradientFilter


@dataclass(frozen=True)
class Case:
    """A convolution, its filter, and the seed of its arrays."""

    n: int
    size: tuple
    groups: int
    depth: int
    width: int
    window: tuple
    stride: tuple
    dilation: tuple
    pad: tuple
    patch: tuple
    align: str
    seed: int

    @property
    def out(self):
        axes = zip(self.size, self.window, self.stride, self.dilation, self.pad, strict=True)
        return tuple(out_size(*axis) for axis in axes)

    @property
    def grid(self):
        return tuple(-(-p // r) for p, r in zip(self.out, self.patch, strict=True))

    @property
    def sides(self):
        """Rows and columns of x in a patch."""
        return tuple(r * s for r, s in zip(self.patch, self.stride, strict=True))

    @property
    def rule(self):
        return GradientFilter(self.patch, self.align)

    @property
    def attrs(self):
        return {"stride": self.stride, "dilation": self.dilation, "pad": self.pad, **self.rule.attrs()}

    @property
    def sizes(self):
        c, k = self.groups * self.depth, self.groups * self.width
        letters = zip("HWPQUVRS", (*self.size, *self.out, *self.grid, *self.window), strict=True)
        return {"N": self.n, "C": c, "K": k, "G": self.groups, **dict(letters)}

    def steps(self):
        """Dilation on the patch grid per axis; 0 where all taps fall on one patch."""
        return tuple(0 if d == 1 or d < r else d // r for d, r in zip(self.dilation, self.patch, strict=True))

    def before(self, sizes, sides):
        """Rows and columns of padding before a map of `sizes` covered by patches of `sides`."""
        if self.align == "corner":
            return 0, 0
        return tuple(int(np.ceil((u * r - p) / 2)) for u, r, p in zip(self.grid, sides, sizes, strict=True))

    def arrays(self, dtype="float64"):
        """x (N, H, W, C), dy (N, P, Q, K), w (R, S, C/G, K), random."""
        rng = np.random.default_rng(self.seed)
        c, k = self.groups * self.depth, self.groups * self.width
        shapes = (self.n, *self.size, c), (self.n, *self.out, k), (*self.window, self.depth, k)
        return tuple(rng.standard_normal(shape).astype(dtype) for shape in shapes)


@st.composite
def cases(draw, channels=3):
    """A case with groups (depthwise among them), both dilation branches, odd sizes, patches larger than the map."""
    pair = lambda low, high: draw(st.tuples(st.integers(low, high), st.integers(low, high)))  # noqa: E731
    window, stride = pair(1, 4), pair(1, 3)
    dilation = draw(st.sampled_from([(1, 1), (1, 1), pair(1, 5)]))
    pad = draw(st.sampled_from([((0, 0), (0, 0)), ((1, 1), (1, 1)), (pair(0, 3), pair(0, 3))]))
    least = [max(1, d * (r - 1) + 1 - sum(p)) for r, d, p in zip(window, dilation, pad, strict=True)]
    size = tuple(low + draw(st.integers(0, 8)) for low in least)
    depth, width = draw(st.sampled_from([(1, 1), (1, 2), pair(1, channels), pair(1, channels)]))
    return Case(
        draw(st.integers(1, 3)), size, draw(st.integers(1, channels)), depth, width, window, stride, dilation, pad,
        draw(st.sampled_from([(1, 1), (2, 2), (4, 4), pair(1, 15)])), draw(st.sampled_from(["centre", "corner"])),
        draw(st.integers(0, 2**32 - 1)),
    )  # fmt: skip


def magnitudes(arrays):
    """The same arrays without signs: the norm of what they give is the scale of the error."""
    return tuple(np.abs(a) for a in arrays)


def error(ours, theirs, scale):
    """‖ours − theirs‖ / max(‖theirs‖, scale), with the norm of the array `scale`."""
    assert ours.shape == theirs.shape
    ours, theirs = np.asarray(ours, "float64"), np.asarray(theirs, "float64")
    return np.linalg.norm(ours - theirs) / max(np.linalg.norm(theirs), np.linalg.norm(scale), 1e-300)


def with_torch(case: Case, x, dy, w) -> dict[str, np.ndarray]:
    """x_sum, dy_mean, dx and dw by PyTorch operators on NCHW tensors, in the dtype of the arrays."""
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    x, dy = (torch.from_numpy(a).permute(0, 3, 1, 2).contiguous() for a in (x, dy))
    w = torch.from_numpy(w).permute(3, 2, 0, 1).contiguous()

    def frame(sizes, sides):
        (top, left), (u, v) = case.before(sizes, sides), case.grid
        return left, v * sides[1] - sizes[1] - left, top, u * sides[0] - sizes[0] - top

    def patch_sum(a, sides):
        return F.avg_pool2d(F.pad(a, frame(a.shape[2:], sides)), sides, divisor_override=1)

    x_sum = patch_sum(x, case.sides)
    dy_mean = patch_sum(dy, case.patch) / patch_sum(torch.ones_like(dy), case.patch)
    kernel, steps = w, case.steps()
    for axis, step in enumerate(steps):
        kernel = kernel if step else kernel.sum(2 + axis, keepdim=True)
    full = F.conv_transpose2d(dy_mean, kernel, groups=case.groups, dilation=tuple(max(s, 1) for s in steps))
    first = [s * (r - 1) // 2 for s, r in zip(steps, case.window, strict=True)]
    dx_patch = full[:, :, first[0] : first[0] + case.grid[0], first[1] : first[1] + case.grid[1]]
    spread = dx_patch.repeat_interleave(case.sides[0], 2).repeat_interleave(case.sides[1], 3)
    dx = F.pad(spread, [-edge for edge in frame(case.size, case.sides)])
    split = lambda a: a.unflatten(1, (case.groups, -1))  # noqa: E731
    dw_patch = torch.einsum("ngcuv,ngkuv->cgk", split(x_sum), split(dy_mean)).flatten(1)
    dw = dw_patch.expand(*case.window, *dw_patch.shape)
    to_numpy = lambda a: a.permute(0, 2, 3, 1).numpy()  # noqa: E731
    return {"x_sum": to_numpy(x_sum), "dy_mean": to_numpy(dy_mean), "dx": to_numpy(dx), "dw": dw.numpy()}


def with_numpy(case: Case, x, dy, w) -> dict[str, np.ndarray]:
    """The same four, one map element after the other, in float64."""
    (top, left), (above, beside) = case.before(case.out, case.patch), case.before(case.size, case.sides)
    groups, depth, width = case.groups, case.depth, case.width
    x_sum = np.zeros((case.n, *case.grid, groups * depth))
    total, real = np.zeros((case.n, *case.grid, groups * width)), np.zeros((*case.grid, 1))
    for p, q in np.ndindex(*case.out):
        u, v = (p + top) // case.patch[0], (q + left) // case.patch[1]
        total[:, u, v] += dy[:, p, q]
        real[u, v] += 1
    dy_mean = total / real
    dx, dw = np.zeros(x.shape), np.zeros(w.shape)
    for h, i in np.ndindex(*case.size):
        u, v = (h + above) // case.sides[0], (i + beside) // case.sides[1]
        if not (0 <= u < case.grid[0] and 0 <= v < case.grid[1]):
            continue
        x_sum[:, u, v] += x[:, h, i]
        for r, s in np.ndindex(*case.window):
            (a, b), (row, column) = case.steps(), (r, s)
            a, b = u + a * (case.window[0] - 1) // 2 - row * a, v + b * (case.window[1] - 1) // 2 - column * b
            if 0 <= a < case.grid[0] and 0 <= b < case.grid[1]:
                for g in range(groups):
                    ks = slice(g * width, (g + 1) * width)
                    dx[:, h, i, g * depth : (g + 1) * depth] += dy_mean[:, a, b, ks] @ w[r, s, :, ks].T
    for g in range(groups):
        cs, ks = slice(g * depth, (g + 1) * depth), slice(g * width, (g + 1) * width)
        dw[..., ks] = np.einsum("nuvc,nuvk->ck", x_sum[..., cs], dy_mean[..., ks])
    return {"x_sum": x_sum, "dy_mean": dy_mean, "dx": dx, "dw": dw}
