"""One filtered convolution: the seven latency cases of arXiv 2301.00330, Table 10, at batch 8.

The whole backward pass: dx and dw, given the pooled input. The peer is the same method written with PyTorch operators.
"""

from dataclasses import dataclass

import numpy as np

TABLE_10 = (  # (C = K, H, W); 3×3, stride 1, padding 1
    (128, 120, 160), (256, 60, 80), (512, 30, 40), (512, 14, 14), (256, 14, 14), (128, 28, 28), (64, 56, 56),
)  # fmt: skip


@dataclass(frozen=True)
class Filtered:
    """One filtered convolution, 3×3, stride 1, padding 1."""

    channels: int
    rows: int
    columns: int
    patch: int
    batch: int = 8
    tolerance = 1e-5

    @property
    def grid(self) -> tuple[int, int]:
        """Patches along rows and columns."""
        return -(-self.rows // self.patch), -(-self.columns // self.patch)

    @property
    def before(self) -> tuple[int, int]:
        """Padding above and left of the map that centres it in its patches."""
        edges = zip(self.grid, (self.rows, self.columns), strict=True)
        return tuple(-(-(u * self.patch - p) // 2) for u, p in edges)

    def arrays(self) -> dict[str, np.ndarray]:
        """dy, pooled x and w, random, the same for every side."""
        rng = np.random.default_rng(0)
        c = self.channels
        shapes = {"dy": (self.batch, self.rows, self.columns, c), "x_sum": (self.batch, *self.grid, c)}
        shapes["w"] = (3, 3, c, c)
        return {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}

    def bytes(self) -> int:
        """What must move: dy, pooled x and w are read, dx and dw written, each once."""
        c = self.channels
        patches, elements = self.grid[0] * self.grid[1], self.rows * self.columns
        return 4 * (self.batch * c * (2 * elements + patches) + 2 * 9 * c * c)

    def ours(self) -> "Ours":
        """The fast kernels."""
        return Ours(self)

    def torch(self, channels_last: bool) -> "Torch":
        """PyTorch operators."""
        return Torch(self, channels_last)

    def error(self) -> float:
        """Error of ours against the method in float64."""
        work = self.ours()
        work()
        return self.distance(*work.result())

    def distance(self, dx: np.ndarray, dw: np.ndarray) -> float:
        """Largest error of dx (N, H, W, C) and dw (3, 3, C, K) against the method in float64."""
        a = {name: v.astype("float64") for name, v in self.arrays().items()}
        starts, sides = [], []
        for size, grid, before in zip((self.rows, self.columns), self.grid, self.before, strict=True):
            edges = np.clip(np.arange(grid + 1) * self.patch - before, 0, size)
            starts.append(edges[:-1])
            sides.append(np.diff(edges))
        total = np.add.reduceat(np.add.reduceat(a["dy"], starts[0], 1), starts[1], 2)
        mean = total / (sides[0][:, None, None] * sides[1][:, None])
        patch = mean @ a["w"].sum((0, 1)).T
        want = {"dx": patch.repeat(sides[0], 1).repeat(sides[1], 2)}
        flat = mean.reshape(-1, self.channels)
        want["dw"] = np.broadcast_to(a["x_sum"].reshape(-1, self.channels).T @ flat, a["w"].shape)
        got = {"dx": dx, "dw": dw}
        return max(float(np.linalg.norm(got[n] - v) / np.linalg.norm(v)) for n, v in want.items())


class Ours:
    """The backward pass as calls of the fast kernels on arrays made beforehand."""

    def __init__(self, case: Filtered):
        import numba

        from refimpl.backends.cpu import gradient_filter as fast

        a, c = case.arrays(), case.channels
        new = lambda *shape: np.empty(shape, np.float32)  # noqa: E731
        sizes = {"N": case.batch, "U": case.grid[0], "V": case.grid[1], "C": c, "K": c, "G": 1}
        work = {name: new(*shape) for name, shape in fast.scratch(sizes, numba.get_num_threads()).items()}
        self.dx, self.dw = np.empty_like(a["dy"]), np.empty_like(a["w"])
        mean, w_sum = new(*a["x_sum"].shape), new(c, c)
        patch, centre = (case.patch, case.patch), fast.CENTRE
        self.calls = [
            (fast.pool_dy, (mean, a["dy"], np.empty((0, 0), np.uint8), new(0), patch, centre)),
            (fast.sum_w, (w_sum, a["w"])),
            (
                fast.grad_x,
                (
                    self.dx,
                    work["tiles"],
                    work["turned"],
                    work["panels"],
                    mean,
                    w_sum,
                    patch,
                    (1, 1),
                    centre,
                ),
            ),
            (fast.grad_w, (self.dw, work["dw_partial"], work["panels"], mean, a["x_sum"])),
        ]

    def __call__(self) -> None:
        """Run the pass."""
        for kernel, arguments in self.calls:
            kernel(*arguments)

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Dx and dw of the last run."""
        return self.dx, self.dw


class Torch:
    """The same pass with PyTorch operators: pool, product, nearest neighbours, product."""

    def __init__(self, case: Filtered, channels_last: bool):
        import torch

        self.torch, self.case = torch, case
        self.form = torch.channels_last if channels_last else torch.contiguous_format
        a = {name: torch.from_numpy(v) for name, v in case.arrays().items()}
        self.dy, self.x_sum = (a[n].permute(0, 3, 1, 2).contiguous(memory_format=self.form) for n in ("dy", "x_sum"))
        self.w = a["w"].permute(3, 2, 0, 1).contiguous(memory_format=self.form)
        (top, left), (u, v), r = case.before, case.grid, case.patch
        self.pads = (left, v * r - case.columns - left, top, u * r - case.rows - top)
        self.whole = not any(self.pads)
        pool, pad = torch.nn.functional.avg_pool2d, torch.nn.functional.pad
        self.real = pool(pad(torch.ones(1, 1, case.rows, case.columns), self.pads), r, divisor_override=1)

    def __call__(self) -> None:
        """Run the pass."""
        torch, case, r = self.torch, self.case, self.case.patch
        F = torch.nn.functional
        with torch.no_grad():
            if self.whole:
                mean = F.avg_pool2d(self.dy, r)
            else:
                mean = F.avg_pool2d(F.pad(self.dy, self.pads), r, divisor_override=1) / self.real
            patch = torch.einsum("nkuv,kc->ncuv", mean, self.w.sum((2, 3)))
            dx = F.interpolate(patch, scale_factor=r, mode="nearest")
            if not self.whole:
                top, left = case.before
                dx = dx[:, :, top : top + case.rows, left : left + case.columns]
                dx = dx.contiguous(memory_format=self.form)
            dw = torch.einsum("nkuv,ncuv->kc", mean, self.x_sum)[:, :, None, None]
            self.dx, self.dw = dx, dw.expand(-1, -1, 3, 3).contiguous(memory_format=self.form)

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Dx and dw of the last run, in our layout."""
        return self.dx.permute(0, 2, 3, 1).numpy(), self.dw.permute(2, 3, 1, 0).numpy()


CASES = {f"filtered-{i}-patch{r}": Filtered(*size, r) for r in (2, 4) for i, size in enumerate(TABLE_10)}
