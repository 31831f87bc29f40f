"""`gradledger calibrate`: measure this device, and keep what its kernels cost in a profile."""

import platform
from collections.abc import Callable
from pathlib import Path

from costmodel import predict
from costmodel.device import calibration, gpu, gpu_calibration
from costmodel.device import device as devices
from costmodel.device.kernels import Caches
from costmodel.device.rates import Rates
from refimpl.kernels import cuda
from refimpl.storage import checkpoint
from validation.instruments import resident
from validation.instruments.provenance import machine, provenance

from . import doctor, options
from .errors import Malformed

Watch = Callable[[int, int, str], None]
DIGITS = 4  # of a rate: more would be noise


def run(threads: list[int] | None, output: Path | None, watch: Watch, seconds: float = 240.0) -> dict:
    """Measure with each number of threads (default 1 and all cores) and write the profile; returns the record.

    seconds: for all of them together. Malformed for bad numbers of threads; the folder of the profile is made.
    """
    counts, before, speed = checked(threads), state(), devices.measure()

    def measure(count: int, caches: Caches, tell: Watch) -> tuple[Rates, dict]:
        rates, _, steadiness = calibration.measure(count, caches, tell, seconds / len(counts))
        return rates, steadiness

    measured = timed(counts, measure, watch)
    watch(0, 1, "memory of a training process")
    about = {"measured_here": True, "runtime_bytes": runtime(), "state": {"before": before, "after": state()}}
    return written(profile(speed, measured, about), output or devices.profile_path())


def on_gpu(output: Path | None, watch: Watch, seconds: float = 240.0, layers: int | None = None) -> dict:
    """Measure this machine's GPU and write its profile; returns the record. Malformed where there is no GPU.

    layers: how many of them at most.
    """
    try:
        about = cuda.described()
    except cuda.CudaError as e:
        raise Malformed(str(e)) from None
    chosen = gpu_calibration.LAYERS[:layers]
    rates, steadiness = gpu_calibration.measure(predict.call_counts, watch, seconds, chosen)
    context = gpu_calibration.context_bytes()
    one = {"caches": {"fast": 0, "last": 0}, "factor": rounded(rates.factor), "rates": table(rates)}
    record = {
        "ok": True,
        "name": gpu.THERE,
        "device": gpu.THERE,
        "backend": gpu.BACKEND,
        "title": f"{about.name}, compute capability {about.capability}",
        "cores": 1,
        "memory_bytes": about.memory,
        "peak_flops": rounded(2 * about.lanes * about.clock_hz),
        "bandwidth": rounded(about.bandwidth),
        "threads": {"1": one | {"steadiness": steadiness}},
        "measured_here": not cuda.simulated(),
        "runtime_bytes": None if context is None else {"fixed": context, "launch": 0},
        **provenance(),
    }
    return written(record, output or devices.gpu_path())


def quick(threads: list[int] | None, output: Path | None, watch: Watch, seconds: float = 3.0) -> dict:
    """Scale the reference machine's rates to this one by timing a few layers, and write that; returns the record.

    Marked as not measured, and beside the profile of `run`, which is used where both are there.
    seconds: with each number of threads, beside those in which kernels are loaded.
    """
    counts, known = checked(threads), devices.find(devices.REFERENCE)

    def probe(count: int, caches: Caches, tell: Watch) -> tuple[Rates, dict]:
        return calibration.probe(count, caches, known.at(count)[0], tell, seconds)

    probed = timed(counts, probe, watch)
    about = {"measured_here": False, "runtime_bytes": vars(known.base)}
    return written(profile(devices.measure(), probed, about, ", probed"), output or devices.quick_path())


def timed(
    counts: list[int], find: Callable[[int, Caches, Watch], tuple[Rates, dict]], watch: Watch
) -> dict[str, dict]:  # fmt: skip
    """What is found with each number of threads, as a profile holds it."""
    found = {}
    for count in counts:
        caches = devices.caches_of(count)

        def tell(done: int, total: int, what: str, count: int = count) -> None:
            watch(done, total, f"{count} threads, {what}")

        rates, steadiness = find(count, caches, tell)
        found[str(count)] = {
            "caches": {"fast": caches.fast, "last": caches.last},
            "factor": rounded(rates.factor),
            "rates": table(rates),
            "steadiness": steadiness,
        }
    return found


def profile(speed: tuple[float, float, float], threads: dict[str, dict], more: dict, called: str = "") -> dict:
    """The profile of this machine. speed: of `devices.measure`; threads: of `timed`; called: behind its title."""
    about, (flops, core_flops, bandwidth) = machine(), speed
    return {
        "ok": True,
        "name": devices.HERE,
        "device": devices.HERE,
        "title": f"{about['processor']}{called}",
        "cores": about["cores"],
        "memory_bytes": about["memory_bytes"],
        "clock_hz": clock(),
        "peak_flops": rounded(flops),
        "core_flops": rounded(max(flops / about["cores"], core_flops)),
        "bandwidth": rounded(bandwidth),
        "threads": threads,
        **more,
        **provenance(),
    }


def checked(threads: list[int] | None) -> list[int]:
    """The numbers of threads to measure with, default 1 and all cores; Malformed for bad ones."""
    counts = sorted(set(threads or (1, machine()["cores"])))
    for count in counts:
        options.at_least_1("threads", count)
        options.threads(count)
    return counts


def written(record: dict, path: Path) -> dict:
    """Write a profile, whose folder is made; the record with its file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write_json(path, record)
    devices.find(str(path))  # it must be readable
    return record | {"file": str(path)}


def runtime() -> dict[str, int] | None:
    """What Python and its libraries take of a training process's memory; None where the system does not tell."""
    try:
        return vars(resident.measure_base())
    except RuntimeError:
        return None


def state() -> dict[str, str]:
    """What changes a processor's speed, as far as the system tells it."""
    return {check.name: check.found for check in (doctor.governor(), doctor.temperature())}


def clock() -> float | None:
    """The highest clock of the first core in Hz, where Linux tells it."""
    try:
        khz = Path("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq").read_text()
        return 1000.0 * int(khz)
    except (OSError, ValueError):
        pass
    if platform.system() != "Linux":
        return None
    for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
        if line.startswith("cpu MHz"):
            return 1e6 * float(line.split(":")[1])
    return None


def table(rates: Rates) -> dict[str, dict[str, float]]:
    """Rates with DIGITS digits, kernels by name."""
    return {k: {t: rounded(v) for t, v in own.items()} for k, own in sorted(rates.by_kernel.items())}


def rounded(value: float) -> float:
    """A figure with DIGITS digits."""
    return float(f"{value:.{DIGITS}g}")
