"""The kernel cache damaged, filled by several processes, killed, full, open to others: the next run has the same bits.

Every run is a process of its own on a cache folder of its own: it trains a small net and tells its losses and how many
kernels it had to compile. Right is: the losses of the first run, each bad or missing entry compiled anew and replaced,
and nothing but sound entries left.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from refimpl.kernels import kernel_cache

from . import Outcome

SCRIPT = """
import json, resource, sys
from types import SimpleNamespace
import numpy as np
backend, mode, limit = sys.argv[1:]
if int(limit) >= 0:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
import refimpl as ri
from refimpl.kernels import kernel
g = ri.Graph("small", (6, 6), 2)
x = "input"
if backend == "fast":
    x = g.relu("relu", g.batch_norm("bn", g.conv2d("conv", x, 8, 3, pad=1)))
g.linear("fc", g.global_avg_pool("mean", x), 3)
plan = ri.Plan("all", batch_norm="train", train_bias=True, step=ri.Backprop(ri.SGD(lr=0.1, momentum=0.9)))
trainer = ri.Trainer(ri.compile(g, plan, 4, backend=backend))
rng = np.random.default_rng(0)
x, y = rng.standard_normal((8, 6, 6, 2), dtype=np.float32), rng.integers(0, 3, 8)
if mode == "warmup":
    from gradledger import warmup
    print(warmup.run(SimpleNamespace(trainer=trainer, dataset=SimpleNamespace(x_train=x)), lambda *_: None)["compiled"])
else:
    print(json.dumps([[loss.hex() for loss in trainer.fit(x, y, 2)], kernel.cache_misses()]))
"""
ROOT = Path(__file__).parent.parent.parent
KILLS = 40
ROOM = (0.02, 0.4, 0.6, 0.9)  # of the largest file, or of all files, where the disk is "full"


def flip(path: Path) -> None:
    """Four bytes of the code are other ones."""
    raw = bytearray(path.read_bytes())
    for i in range(4):
        raw[len(raw) * (i + 3) // 8] ^= 0xFF
    path.write_bytes(raw)


def folder_in_its_place(path: Path) -> None:
    """A folder with something in it."""
    path.unlink()
    path.mkdir()
    (path / "more").touch()


def unreadable(path: Path) -> None:
    """Nobody may read it; root may read everything but a link to itself."""
    if os.geteuid():
        path.chmod(0)
    else:
        path.unlink()
        path.symlink_to(path)


DAMAGES: tuple[Callable[[Path], None], ...] = (
    lambda p: p.write_bytes(b""),
    lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
    flip,
    lambda p: p.write_bytes(random.Random(0).randbytes(p.stat().st_size)),
    lambda p: p.write_bytes(p.read_bytes().replace(b"kernel 2 ", b"kernel 0 ", 1)),
    folder_in_its_place,
    unreadable,
)


@dataclass
class Cache:
    """A cache folder and the runs that use it."""

    root: Path
    backend: str
    found: Outcome
    wanted: list[str] | None = None  # losses of the first run
    kernels: int = 0  # that a run needs: entries of a cache that one has filled

    @property
    def files(self) -> list[Path]:
        """Everything in the folder."""
        return sorted(p for folder in self.root.glob("numba-*") for p in folder.iterdir())

    def start(self, mode: str = "train", limit: int = -1) -> subprocess.Popen:
        """A run; limit: bytes that a file may have."""
        return subprocess.Popen(
            [sys.executable, "-c", SCRIPT, self.backend, mode, str(limit)], cwd=ROOT, text=True,
            env=os.environ | {"GRADLEDGER_CACHE": str(self.root)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def ended(self, case: str, run: subprocess.Popen, misses: int | None = None, says: str = "") -> int:
        """Judge a run: kernels that it compiled. misses: how many are right. says: what its only sentence holds."""
        out, err = run.communicate()
        if run.returncode:
            self.wrong(case, f"status {run.returncode}: {(err.strip().splitlines() or ['no word'])[-1]}")
            return 0
        losses, compiled = json.loads(out)
        if self.wanted is None:
            self.wanted = losses
        if losses != self.wanted:
            self.wrong(case, "other losses")
        if misses is not None and compiled != misses:
            self.wrong(case, f"{compiled} kernels compiled, not {misses}")
        if (says not in err or err.count("\n") != 1) if says else err:
            self.wrong(case, f"said {err.strip()!r}")
        return compiled

    def healed(self, case: str) -> None:
        """A run that must find all that it needs, and a folder that must hold sound entries only."""
        self.ended(case + ", the run after it", self.start(), 0)
        for path in self.files:
            if path.suffix != kernel_cache.SUFFIX or kernel_cache.read(path) is None:
                self.wrong(case, f"{path.name} is left")

    def wrong(self, case: str, what: str) -> None:
        """Note a finding."""
        self.found.wrong.append(f"{self.backend}, {case}: {what}")

    def count(self, figure: str, n: int = 1) -> None:
        """Note n cases."""
        self.found.tried += n
        self.found.figures[figure] = self.found.figures.get(figure, 0) + n


def at_once(cache: Cache, processes: int) -> None:
    """Processes fill an empty cache at the same time."""
    shutil.rmtree(cache.root, ignore_errors=True)
    case = f"{processes} processes on an empty cache"
    for run in [cache.start() for _ in range(processes)]:
        cache.ended(case, run)
    cache.kernels = len(cache.files)  # each process may have found some that another one compiled
    cache.healed(case)
    cache.count("processes that filled an empty cache together", processes)


def damaged(cache: Cache, turn: int) -> None:
    """Every entry of a warm cache is damaged; over the turns each in each way."""
    files = cache.files
    for i, path in enumerate(files):
        DAMAGES[(i + turn) % len(DAMAGES)](path)
    case = f"all entries damaged, turn {turn}"
    cache.ended(case, cache.start(), cache.kernels)
    cache.healed(case)
    cache.count("entries damaged", len(files))


def killed(cache: Cache, draw: random.Random, seconds: float) -> None:
    """A warm-up of an empty cache is killed at a random instant; what it finished must serve the next run."""
    shutil.rmtree(cache.root)
    run, instant = cache.start("warmup"), draw.uniform(0, seconds)
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.wait(instant)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    sound = [path for path in cache.files if path.suffix == kernel_cache.SUFFIX]
    case = f"killed after {instant:.2f} s"
    for path in sound:
        if kernel_cache.read(path) is None:
            cache.wrong(case, f"{path.name} is damaged")
    compiled = cache.ended(case, cache.start())
    if compiled > cache.kernels - len(sound):
        cache.wrong(case, f"{compiled} kernels compiled, though {len(sound)} of {cache.kernels} were kept")
    for path in cache.files:
        if path.suffix != kernel_cache.SUFFIX:
            path.unlink()  # half-written by the killed process: the cache deletes it after an hour
            cache.count("files left half-written by a kill")
    cache.healed(case)
    cache.count("kills while compiling")


def full(cache: Cache, share: float) -> None:
    """No file may become larger than a share of the largest one of a warm cache, as on a disk that fills up."""
    limit = int(share * max(path.stat().st_size for path in cache.files))
    shutil.rmtree(cache.root)
    case = f"files of {limit:,} bytes at most"
    cache.ended(
        case, cache.start(limit=limit), cache.kernels, "gradledger: compiled kernels are not kept: cannot write"
    )
    kept = len(cache.files)
    cache.ended(case + ", room again", cache.start(), cache.kernels - kept)
    cache.healed(case)
    cache.count("full disks")


@contextlib.contextmanager
def small_disk(folder: Path, nbytes: int) -> Iterator[bool]:
    """A file system of `nbytes` at `folder`; False where this user cannot have one."""
    folder.mkdir(mode=0o700, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={nbytes},mode=700", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def full_disk(cache: Cache, folder: Path, share: float) -> None:
    """A real file system that has room for a share of a warm cache."""
    nbytes = int(share * sum(path.stat().st_size for path in cache.files))
    with small_disk(folder, nbytes) as mounted:
        if mounted:
            small = Cache(folder, cache.backend, cache.found, cache.wanted, cache.kernels)
            case = f"a disk of {nbytes:,} bytes"
            told = "gradledger: compiled kernels are not kept: cannot write"
            small.ended(case, small.start(), cache.kernels, told)
            kept = len(small.files)
            small.ended(case + ", again", small.start(), cache.kernels - kept, told)
            cache.count("full disks")


def open_to_others(cache: Cache) -> None:
    """A cache that others can write is not read."""
    cache.root.chmod(0o777)
    cache.ended("open to others", cache.start(), cache.kernels, f"others can write {cache.root}")
    cache.root.chmod(0o700)
    cache.healed("open to others")
    cache.count("folders that others could write")


def run(short: bool, seed: int, folder: Path, watch: Callable[[int, int], None]) -> Outcome:
    """The short form damages each entry in one way; the long one in each, and kills and fills disks too."""
    found, draw = Outcome(), random.Random(seed)
    first = Cache(folder / "reference", "reference", found)
    work: list[Callable[[], None]] = [lambda: at_once(first, 2), lambda: damaged(first, seed)]
    if not short:
        fast = Cache(folder / "fast", "fast", found)
        for cache in (first, fast):
            work += [lambda c=cache: at_once(c, 3)]
            work += [lambda c=cache, turn=turn: damaged(c, turn) for turn in range(len(DAMAGES))]
            work += [lambda c=cache: open_to_others(c)]
        work += [lambda share=share: full(first, share) for share in ROOM]
        work += [lambda share=share: full_disk(first, folder / f"disk{share}", share) for share in ROOM[1:]]
        span = []
        work += [lambda: span.append(seconds_of_warmup(first))]
        work += [lambda: killed(first, draw, span[0])] * KILLS
    for i, part in enumerate(work):
        watch(i, len(work))
        part()
    return found


def seconds_of_warmup(cache: Cache) -> float:
    """How long a process takes to warm an empty cache up."""
    import time

    shutil.rmtree(cache.root)
    started = time.perf_counter()
    cache.start("warmup").communicate()
    return time.perf_counter() - started
