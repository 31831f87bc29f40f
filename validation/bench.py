"""Time our kernels against the same method written with PyTorch operators.

    python -m validation.bench filtered            a table: ours, PyTorch in both layouts, ratios, memory floor
    python -m validation.bench filtered --json     the same as one JSON object

Every side runs in processes of its own, in turns (ours, peers, ours, peers), on the same arrays and number of threads.
In its first turn each side's result is compared with NumPy in float64 before anything is timed. `filtered` are the
seven latency cases of arXiv 2301.00330, Table 10, at batch 8: the whole backward pass of one filtered convolution (dx
and dw, given the pooled input).
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np

TABLE_10 = (  # (C = K, H, W); 3×3, stride 1, padding 1
    (128, 120, 160), (256, 60, 80), (512, 30, 40), (512, 14, 14), (256, 14, 14), (128, 28, 28), (64, 56, 56),
)  # fmt: skip
TOLERANCE = 1e-5  # ‖ours − float64‖ / ‖float64‖ of a float32 result
PEERS = {"torch": ("torch-nchw", "torch-nhwc")}


@dataclass(frozen=True)
class Filtered:
    """One filtered convolution, 3×3, stride 1, padding 1."""

    channels: int
    rows: int
    columns: int
    patch: int
    batch: int = 8

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

    def error(self, dx: np.ndarray, dw: np.ndarray) -> float:
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


CASES = {f"filtered-{i}-patch{r}": Filtered(*size, r) for r in (2, 4) for i, size in enumerate(TABLE_10)}


class Ours:
    """The backward pass as calls of the fast kernels on arrays made beforehand."""

    def __init__(self, case: Filtered):
        import numba

        from refimpl.fast import gradient_filter as fast

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
            (fast.grad_x, (self.dx, work["tiles"], mean, w_sum, patch, (1, 1), centre)),
            (fast.grad_w, (self.dw, work["dw_partial"], mean, a["x_sum"])),
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


def milliseconds(call, repeats: int) -> list[float]:
    """Duration of each of `repeats` calls, after two that warm up."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return times[2:]


def copy_bandwidth(threads: int) -> float:
    """Bytes a second, read and written together, of a copy of 64 MiB by `threads` threads: the best of nine."""
    source = np.ones(1 << 24, np.float32)
    target = np.empty_like(source)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:
        best = min(milliseconds(lambda: list(pool.map(lambda part: np.copyto(*part), parts)), 9))
    return 2 * source.nbytes / best * 1e3


def run_side(side: str, names: list[str], threads: int, repeats: int, check: bool) -> dict:
    """Times of every case on one side, in this process: name → milliseconds of each repeat; ours with the bandwidth.

    With `check`, RuntimeError where a result is wrong.
    """
    found = {}
    if side == "ours":
        import numba

        from refimpl.gemm import single_threaded_blas

        numba.set_num_threads(threads)
        found["bandwidth"] = copy_bandwidth(threads)
    else:
        import torch

        torch.set_num_threads(threads)
    for name in names:
        case = CASES[name]
        work = Ours(case) if side == "ours" else Torch(case, side == "torch-nhwc")
        with single_threaded_blas() if side == "ours" else nullcontext():
            work()
            if check and not (error := case.error(*work.result())) <= TOLERANCE:
                raise RuntimeError(f"{side} is wrong by {error:.1e} on {name}, more than {TOLERANCE:.0e}")
            found[name] = milliseconds(work, repeats)
    return found


def launch(side: str, names: list[str], threads: int, repeats: int, check: bool) -> dict:
    """`run_side` in a process of its own; RuntimeError with its last line where it fails."""
    command = [sys.executable, "-m", "validation.bench", *names, "--side", side]
    command += ["--threads", str(threads), "--repeats", str(repeats), *(["--check"] if check else [])]
    limits = {"NUMBA_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **limits})
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise RuntimeError(last.removeprefix("RuntimeError: "))
    return json.loads(done.stdout.strip().splitlines()[-1])


def run_cases(
    names: list[str], peer: str = "torch", threads: int = 2, repeats: int = 7, turns: int = 2
) -> list[dict[str, float | str]]:
    """Time `names` (of CASES, or a family such as "filtered") on our side and on the peer's, in turns.

    Each record: name; ours_ms, peer_ms (PyTorch's default layout) and peer_nhwc_ms (channels last), medians over the
    repeats of all turns; ratio and ratio_nhwc = ours / theirs; floor_ms, the bytes that must move over the measured
    bandwidth of a copy; spread, the larger relative interquartile range of ours and the peer. ValueError for an
    unknown name or peer, RuntimeError where a side fails or its result is wrong.
    """
    if peer not in PEERS:
        raise ValueError(f"unknown peer {peer!r}: choose from {', '.join(PEERS)}")
    chosen = []
    for name in names:
        found = [case for case in CASES if f"{case}-".startswith(f"{name}-")]
        if not found:
            raise ValueError(f"unknown case {name!r}: choose from filtered, {', '.join(CASES)}")
        chosen += [case for case in found if case not in chosen]
    times = {side: {name: [] for name in chosen} for side in ("ours", *PEERS[peer])}
    bandwidth = 0.0
    for turn in range(turns):
        for side, cases in times.items():
            found = launch(side, chosen, threads, repeats, check=turn == 0)
            bandwidth = max(bandwidth, found.get("bandwidth", 0.0))
            for name in chosen:
                cases[name] += found[name]
    return [_record(name, {side: cases[name] for side, cases in times.items()}, bandwidth) for name in chosen]


def _record(name: str, times: dict[str, list[float]], bandwidth: float) -> dict[str, float | str]:
    ours, peer, nhwc = (float(np.median(t)) for t in times.values())
    quartiles = [np.percentile(times[side], (25, 50, 75)) for side in list(times)[:2]]
    return {
        "name": name,
        "ours_ms": ours,
        "peer_ms": peer,
        "ratio": ours / peer,
        "peer_nhwc_ms": nhwc,
        "ratio_nhwc": ours / nhwc,
        "floor_ms": CASES[name].bytes() / bandwidth * 1e3,
        "spread": float(max((high - low) / middle for low, middle, high in quartiles)),
    }


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, run and print; the exit status: 1 where a side fails, 2 for an unknown case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", help="filtered, filtered-3 or filtered-3-patch2")
    parser.add_argument("--peer", default="torch")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    o = parser.parse_args(arguments)
    if o.side:
        print(json.dumps(run_side(o.side, o.cases, o.threads, o.repeats, o.check)))
        return 0
    try:
        records = run_cases(o.cases, o.peer, o.threads, o.repeats, o.turns)
    except (ValueError, RuntimeError) as e:
        print(e, file=sys.stderr)
        return 2 if isinstance(e, ValueError) else 1
    if o.json:
        print(json.dumps({"cases": records}))
        return 0
    print(f"{'ms':20} {'ours':>8} {'NCHW':>8} {'NHWC':>8} {'floor':>8}   ratio to NCHW, NHWC   spread")
    for r in records:
        print(
            f"{r['name']:20} {r['ours_ms']:8.2f} {r['peer_ms']:8.2f} {r['peer_nhwc_ms']:8.2f} {r['floor_ms']:8.2f}   "
            f"{r['ratio']:13.2f} {r['ratio_nhwc']:5.2f} {r['spread']:8.0%}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
