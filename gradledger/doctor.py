"""`gradledger doctor`: is this device fit to train?"""

import ctypes.util
import os
import re
import struct
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from validation.instruments.provenance import provenance

OK, WARN, BAD = "ok", "warning", "bad"
ROOM = 16 << 20  # bytes that the kernels of a net or two may take


@dataclass(frozen=True)
class Finding:
    """One finding: what was looked at, what was found, and what to do where it is not well."""

    name: str
    state: str
    found: str
    advice: str = ""


def run(cuda: bool) -> dict:
    """Look at everything; `ok` is false where something would stop a training run. cuda: try a GPU too."""
    kept = cache()  # before a kernel is loaded, which mends its entry
    checks = [
        bits(), python(), memory(), threading_layer(), waiting(), libgomp(), kept, blas(), governor(), temperature(),
    ]  # fmt: skip
    checks += [gpu(), cuda_package(), cuda_toolkit(), *cuda_work()] if cuda else []
    return {"ok": all(c.state != BAD for c in checks), "checks": [asdict(c) for c in checks], **provenance()}


def bits() -> Finding:
    """Numba has no 32-bit build."""
    n = 8 * struct.calcsize("P")
    return Finding("64-bit system", OK if n == 64 else BAD, f"{n}-bit Python", "install a 64-bit operating system")


def python() -> Finding:
    """The version of Python."""
    good = sys.version_info >= (3, 10)
    return Finding("Python", OK if good else BAD, sys.version.split()[0], "Python 3.10 or newer is needed")


def memory() -> Finding:
    """Physical memory."""
    mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    advice = "the runtime alone takes about 200 MiB: close other programs"
    return Finding("memory", OK if mib >= 480 else WARN, f"{mib:,} MiB", advice)


def threading_layer() -> Finding:
    """Run a parallel kernel and see which layer Numba chose."""
    import numba
    import numpy as np

    from refimpl.ops import relu

    try:
        relu.forward(np.ones((4, 4), np.float32))
        layer, count = numba.threading_layer(), numba.get_num_threads()
    except Exception as e:  # whatever keeps kernels from running is the finding
        return Finding("parallel kernels", BAD, str(e).splitlines()[0], "reinstall numba")
    state = OK if layer in ("omp", "tbb") else WARN
    advice = (
        "the layer workqueue takes 1.5 to 17 times as long: install libgomp1, and leave NUMBA_THREADING_LAYER unset"
    )
    return Finding("parallel kernels", state, f"{layer}, {count} threads", advice)


def waiting() -> Finding:
    """How long a thread that waits for the others keeps its core busy. To be asked once a kernel has run."""
    import numba

    from refimpl.kernels import spin

    try:
        layer = numba.threading_layer()
    except ValueError:  # no kernel ran, which another check tells
        return Finding("waiting threads", OK, "not known")
    if layer != "omp":
        return Finding("waiting threads", OK, f"sleep soon: {layer} has nothing to set")
    advice = (
        f"they spin, and beside other programs a step takes many times as long: unset {spin.chosen().split('=')[0]}"
    )
    return Finding("waiting threads", WARN if spin.long() else OK, spin.chosen(), advice)


def libgomp() -> Finding:
    """GNU OpenMP, which Numba's best layer on ARM needs."""
    found = ctypes.util.find_library("gomp")
    return Finding("libgomp", OK if found else WARN, found or "not found", "sudo apt install libgomp1")


def cache() -> Finding:
    """Where compiled kernels are kept, and whether they can be read and written. To be looked at before any is used."""
    from refimpl.kernels import kernel_cache

    folder = kernel_cache.CACHE_DIR
    if folder is None:
        advice = "each process compiles anew: set GRADLEDGER_CACHE to a folder of your own that can be written"
        return Finding("kernel cache", WARN, "not used", advice)
    sound, damaged = kernel_cache.entries()
    if damaged:
        found = f"{len(damaged)} of {len(sound) + len(damaged)} kernels in {folder} are damaged"
        return Finding(
            "kernel cache", WARN, found, "they are compiled anew and replaced by the next run that needs them"
        )
    found, advice = f"{len(sound)} kernels in {folder}", "new kernels compile anew in each process"
    if not os.access(folder, os.W_OK):
        return Finding("kernel cache", WARN, f"{found}, which cannot be written", advice)
    disk = os.statvfs(folder)
    if disk.f_bavail * disk.f_frsize < ROOM:
        return Finding("kernel cache", WARN, f"{found}, the disk is full", f"{advice}: make room")
    return Finding("kernel cache", OK, found)


def blas() -> Finding:
    """The matrix library that NumPy and SciPy brought."""
    import threadpoolctl

    import refimpl.backends.cpu.gemm  # noqa: F401  loads it

    found = sorted(
        {f"{p['internal_api']} {p['version']}" for p in threadpoolctl.threadpool_info() if p["user_api"] == "blas"}
    )
    return Finding("BLAS", OK if found else WARN, ", ".join(found) or "not recognised", "reinstall scipy from a wheel")


def governor() -> Finding:
    """The frequency governor, where Linux tells it."""
    try:
        found = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text().strip()
    except OSError:
        return Finding("frequency governor", OK, "not told by this system")
    advice = "times vary: echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
    return Finding("frequency governor", OK if found == "performance" else WARN, found, advice)


def temperature() -> Finding:
    """The hottest thermal zone; boards slow down from about 80 °C."""
    zones = []
    for path in Path("/sys/class/thermal").glob("thermal_zone*/temp"):
        try:
            zones.append(int(path.read_text()) / 1000)
        except (OSError, ValueError):
            continue
    if not zones:
        return Finding("temperature", OK, "not told by this system")
    return Finding(
        "temperature", OK if max(zones) < 75 else WARN, f"{max(zones):.0f} °C", "cool it: it slows down at 80 °C"
    )


def gpu() -> Finding:
    """A CUDA device and its driver."""
    from refimpl.kernels import cuda

    try:
        told = cuda.described()
    except (cuda.CudaError, MemoryError) as e:
        return Finding("CUDA", WARN, str(e), jetson())
    of = "" if cuda.simulated() else ", driver of CUDA {}.{}".format(*cuda.driver_version())
    return Finding("CUDA", OK, f"{told.name}, compute capability {told.capability}{of}")


def cuda_package() -> Finding:
    """The package that compiles for it."""
    from refimpl.kernels import cuda, cuda_parts

    try:
        name = cuda.package()
    except cuda.CudaError as e:
        return Finding("CUDA package", WARN, "none", str(e))
    if cuda.simulated():
        return Finding("CUDA package", OK, "Numba's simulator")
    found = f"{name.replace('_', '-')} {version(name.replace('_', '-'))}, for CUDA {cuda_parts.bindings_major()}"
    return Finding("CUDA package", OK, found)


def cuda_toolkit() -> Finding:
    """The parts of NVIDIA's toolkit that it loads."""
    from refimpl.kernels import cuda, cuda_parts

    try:
        name = cuda.package()
    except cuda.CudaError:
        return Finding("CUDA toolkit", WARN, "not looked at", "it comes with the package")
    if cuda.simulated():
        return Finding("CUDA toolkit", OK, "none needed")
    lacks = cuda_parts.missing()
    found = f"{', '.join(lacks)} not found" if lacks else ", ".join(cuda_parts.PARTS)
    return Finding("CUDA toolkit", WARN if lacks else OK, found, cuda_parts.remedy(name))


def cuda_work() -> list[Finding]:
    """A kernel that is compiled, linked, run, timed and captured; nothing where there is no GPU, or a simulated one."""
    from refimpl.backends.cuda import trial
    from refimpl.kernels import cuda

    if cuda.simulated() or cuda.problem():
        return []
    try:
        made = trial.run_trial()
    except (cuda.CudaError, MemoryError) as e:
        return [Finding("CUDA kernels", WARN, str(e), jetson())]
    took = f"compiled and run in {made.seconds:.1f} s, then in {1e6 * made.launch_seconds:,.0f} µs, right"
    graphs, advice = made.no_graphs, "each launch takes Python's time: a newer driver may capture them"
    return [
        Finding("CUDA kernels", OK, took),
        Finding("CUDA graphs", WARN if graphs else OK, f"no: {graphs}" if graphs else "yes", advice),
    ]


def jetson(release: Path = Path("/etc/nv_tegra_release")) -> str:
    """What to do on a Jetson whose JetPack is too old; elsewhere where to read on. release: where it says so."""
    try:
        found = re.search(r"R(\d+)", release.read_text(errors="replace"))
    except OSError:
        found = None
    number = int(found[1]) if found else None
    if number is not None and number <= 32:
        return "JetPack 4 (CUDA 10.2): no package compiles for it any more, the CPU trains: --backend fast"
    if number is not None and number <= 35:
        return (
            "JetPack 5 (CUDA 11.4, Python 3.8): install cuda-compat-12-2 and a Python from 3.10 on beside the "
            "system's, and export LD_LIBRARY_PATH=/usr/local/cuda-12.2/compat, or train on the CPU: --backend fast"
        )
    return "docs/gpu.md says what each machine needs; the CPU trains meanwhile"
