"""One inverted residual block of MobileNetV2, forward and backward with batch statistics.

`python -m validation.bench.blocks 3` prints the time of each of our kernels in block-3 beside the time of its bytes.
"""

import sys
from dataclasses import dataclass

import numpy as np

# batch, side of the map, channels, expanded channels, stride of the depthwise convolution
SHAPES = [
    (8, 56, 24, 144, 1), (8, 28, 32, 192, 1), (8, 14, 64, 384, 1), (8, 14, 96, 576, 1), (8, 7, 160, 960, 1),
    (8, 56, 24, 144, 2), (8, 32, 24, 144, 1), (8, 16, 32, 192, 1), (8, 8, 64, 384, 1), (8, 4, 160, 960, 1),
    (1, 28, 32, 192, 1), (1, 14, 64, 384, 1), (1, 7, 160, 960, 1),
]  # fmt: skip
EPS = 1e-5


def arrays(case, dtype=np.float32) -> dict:
    """Input, gradient at the output, weights and norm parameters of a case, the same for every side."""
    n, side, c, e, stride = case
    rng = np.random.default_rng(0)
    out = (side - 1) // stride + 1
    a = {"x": rng.standard_normal((n, side, side, c)), "dz": rng.standard_normal((n, out, out, c))}
    a["w0"] = rng.standard_normal((1, 1, c, e)) / np.sqrt(c)
    a["w1"] = rng.standard_normal((3, 3, 1, e)) / 3
    a["w2"] = rng.standard_normal((1, 1, e, c)) / np.sqrt(e)
    for i, k in enumerate((e, e, c)):
        a[f"gamma{i}"], a[f"beta{i}"] = rng.uniform(0.5, 1.5, k), rng.standard_normal(k)
    return {k: np.ascontiguousarray(v, dtype) for k, v in a.items()}


class Ours:
    """The block as calls of the fast kernels on arrays made beforehand."""

    def __init__(self, case):
        from numba import get_num_threads

        from refimpl.backends.cpu import batch_norm as bn
        from refimpl.backends.cpu import depthwise as dw
        from refimpl.backends.cpu import pointwise as pw

        n, side, c, e, stride = case
        a = arrays(case)
        f, out, threads = np.float32, (side - 1) // stride + 1, get_num_threads()
        x, dz, w = a["x"], a["dz"], [a["w0"], a["w1"], a["w2"]]
        gamma, beta = ([a[f"{k}{i}"] for i in range(3)] for k in ("gamma", "beta"))
        none4, none3, none2, none1 = np.empty((0,) * 4, f), np.empty((0, 0, 0)), np.empty((0, 0), f), np.empty(0, f)
        width = (e, e, c)
        y = [np.empty((n, side, side, e), f), np.empty((n, out, out, e), f), np.empty((n, out, out, c), f)]
        z, dx = np.empty_like(dz), np.empty_like(x)
        dy = [np.empty_like(y[0]), np.empty_like(y[1])]
        count = [v[..., 0].size for v in y]
        geometry = ((stride, stride), (1, 1), ((1, 1), (1, 1)))
        parts = (pw.slices(count[0]), dw.slices(n), pw.slices(count[2]))
        sums = [np.empty((parts[i], 2, width[i])) for i in range(3)]
        back = [np.empty((p, 2, k)) for p, k in ((parts[1], e), (parts[2], e), (bn.slices(count[2], c), c))]
        table, coef = [np.empty((2, k), f) for k in width], [np.empty((3, k), f) for k in width]
        moments, stats = [np.empty((2, k)) for k in width], [np.zeros((2, k), f) for k in width]
        dgamma, dbeta = ([np.empty(k, f) for k in width] for _ in range(2))
        share = [np.empty((p, *v.shape), f) for p, v in zip(parts, w, strict=True)]
        grad = [np.empty_like(v) for v in w]
        products = [need(v.shape, u.shape) for need in (pw.forward_scratch, pw.backward_scratch)
                    for v, u in ((x, w[0]), (y[1], w[2]))]  # fmt: skip
        shape = (y[0].shape, w[1].shape, y[1].shape, 4, *geometry)
        own = max(*(p[0] for p in products), dw.forward_scratch(*shape), dw.backward_scratch(*shape))
        scratch, shared = np.empty((threads, own), np.float32), np.empty(max(p[1] for p in products), np.float32)
        residual = stride == 1

        def norm(i):
            return bn.training_table, (
                table[i], moments[i], stats[i][0], stats[i][1], sums[i], gamma[i], beta[i], count[i], EPS, 0.1
            )  # fmt: skip

        def norm_gradient(i):
            return bn.gradient_table, (coef[i], dgamma[i], dbeta[i], back[i], moments[i], gamma[i], count[i], 1)

        big, small, narrow = y[0].nbytes, y[1].nbytes, y[2].nbytes
        self.calls = [  # name, kernel, arguments, bytes that it must move
            ("expand forward", pw.forward, (y[0], x, w[0], none2, sums[0], scratch, shared, 0), x.nbytes + big),
            ("norm 0", *norm(0), 0),
            ("depthwise forward", dw.forward, (
                y[1], y[0], w[1], table[0], sums[1], none1, none1, scratch, 2, 0, *geometry
            ), big + small),
            ("norm 1", *norm(1), 0),
            ("project forward", pw.forward, (y[2], y[1], w[2], table[1], sums[2], scratch, shared, 2), small + narrow),
            ("norm 2", *norm(2), 0),
            ("normalize", bn.normalize, (z, y[2], table[2], x if residual else none4, none2, 0), 3 * narrow),
            ("gradient sums", bn.gradient, (dz, dz, none4, y[2], table[2], back[2], none4, none3, 0), 2 * narrow),
            ("norm 2 gradient", *norm_gradient(2), 0),
            ("project backward", pw.backward, (
                dy[1], share[2], dz, y[2], coef[2], y[1], table[1], w[2], none4, y[1], table[1], back[1], scratch,
                shared, 2, 2,
            ), 2 * narrow + 2 * small),
            ("norm 1 gradient", *norm_gradient(1), 0),
            ("depthwise backward", dw.backward, (
                dy[0], share[1], dy[1], y[1], coef[1], y[0], table[0], w[1], back[0], scratch, 2, *geometry
            ), 2 * small + 2 * big),
            ("norm 0 gradient", *norm_gradient(0), 0),
            ("expand backward", pw.backward, (
                dx, share[0], dy[0], y[0], coef[0], x, none2, w[0], dz if residual else none4, none4, none2,
                none3, scratch, shared, 0, 0
            ), 2 * big + 3 * x.nbytes),
            *((f"add slices {i}", bn.add_slices, (grad[i], share[i]), share[i].nbytes) for i in range(3)),
        ]  # fmt: skip
        self.results = {"z": z, "dx": dx} | {f"dw{i}": v for i, v in enumerate(grad)}
        self.results |= {f"dgamma{i}": v for i, v in enumerate(dgamma)} | {f"dbeta{i}": v for i, v in enumerate(dbeta)}

    def __call__(self):
        for _, kernel, arguments, _ in self.calls:
            kernel(*arguments)


class Torch:
    """The same block in PyTorch."""

    def __init__(self, case, channels_last, dtype):
        import torch

        n, side, c, e, stride = case
        form = torch.channels_last if channels_last else torch.contiguous_format
        a = {k: torch.tensor(v).to(dtype) for k, v in arrays(case).items()}
        x, self.dz = (a[k].permute(0, 3, 1, 2).contiguous(memory_format=form) for k in ("x", "dz"))
        conv, norm, relu6 = torch.nn.Conv2d, torch.nn.BatchNorm2d, torch.nn.ReLU6
        self.net = torch.nn.Sequential(
            conv(c, e, 1, bias=False), norm(e), relu6(inplace=True),
            conv(e, e, 3, stride, 1, groups=e, bias=False), norm(e), relu6(inplace=True),
            conv(e, c, 1, bias=False), norm(c),
        ).to(dtype=dtype, memory_format=form)  # fmt: skip
        self.x, self.residual = x.requires_grad_(), stride == 1
        with torch.no_grad():
            for i in range(3):
                self.net[3 * i].weight.copy_(a[f"w{i}"].permute(3, 2, 0, 1))
                self.net[3 * i + 1].weight.copy_(a[f"gamma{i}"])
                self.net[3 * i + 1].bias.copy_(a[f"beta{i}"])

    def __call__(self):
        self.x.grad = None
        self.net.zero_grad(set_to_none=True)
        self.z = self.net(self.x)
        if self.residual:
            self.z = self.z + self.x
        self.z.backward(self.dz)

    def result(self, name):
        """One of the arrays of `Ours.results`, in its layout."""
        if name in ("z", "dx"):
            return (self.z.detach() if name == "z" else self.x.grad).permute(0, 2, 3, 1).numpy()
        i = int(name[-1])
        if name[:-1] == "dw":
            return self.net[3 * i].weight.grad.permute(2, 3, 1, 0).numpy()
        module = self.net[3 * i + 1]
        return (module.weight if name[:-1] == "dgamma" else module.bias).grad.numpy()


@dataclass(frozen=True)
class BlockCase:
    """A block of SHAPES."""

    shape: tuple[int, int, int, int, int]
    tolerance = 1e-4

    def ours(self) -> Ours:
        """The fast kernels."""
        return Ours(self.shape)

    def torch(self, channels_last: bool) -> Torch:
        """PyTorch modules."""
        import torch

        return Torch(self.shape, channels_last, torch.float32)

    def error(self) -> float:
        """Largest error of the output and of every gradient against PyTorch in float64."""
        import torch

        ours, theirs = self.ours(), Torch(self.shape, False, torch.float64)
        ours()
        theirs()
        wanted = {name: theirs.result(name) for name in ours.results}
        return max(float(np.linalg.norm(ours.results[n] - w) / np.linalg.norm(w)) for n, w in wanted.items())

    def bytes(self) -> int:
        """What our kernels must move between each other, none of it twice in one kernel."""
        return sum(nbytes for *_, nbytes in self.ours().calls)


CASES = {f"block-{i}": BlockCase(shape) for i, shape in enumerate(SHAPES)}


def main(number: int, threads: int = 2, repeats: int = 11) -> None:
    """Print the time of each kernel of a block."""
    from .clock import copy_bandwidth, milliseconds, our_threads

    bandwidth = copy_bandwidth(threads)
    print(f"block-{number}: batch, side, channels, expanded channels, stride {SHAPES[number]}")
    with our_threads(threads):
        ours = Ours(SHAPES[number])
        ours()
        for name, kernel, arguments, nbytes in ours.calls:
            time = np.median(milliseconds(lambda k=kernel, a=arguments: k(*a), repeats))
            print(f"  {name:20} {time:8.3f} ms   floor {nbytes / bandwidth * 1e3:6.3f} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]))
