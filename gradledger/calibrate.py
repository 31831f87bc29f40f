"""`gradledger calibrate`: measure this device, and keep what its kernels cost in a profile."""

import platform
from collections.abc import Callable
from pathlib import Path

from costmodel.device import calibration
from costmodel.device import device as devices
from costmodel.device.rates import Rates
from refimpl.storage import checkpoint
from validation.instruments import resident
from validation.instruments.provenance import machine, provenance

from . import doctor, options

DIGITS = 4  # of a rate: more would be noise


def run(
    threads: list[int] | None, output: Path | None, watch: Callable[[int, int, str], None], seconds: float = 240.0
) -> dict:
    """Measure with each number of threads (default 1 and all cores) and write the profile; returns the record.

    seconds: for all of them together. Malformed for bad numbers of threads; the folder of the profile is made.
    """
    about, threads = machine(), checked(threads)
    before = state()
    flops, core_flops, bandwidth = devices.measure()
    measured = {}
    for count in threads:
        caches = devices.caches_of(count)
        tell = lambda i, n, what, count=count: watch(i, n, f"{count} threads, {what}")  # noqa: E731
        rates, _, steadiness = calibration.measure(count, caches, tell, seconds / len(threads))
        measured[str(count)] = {
            "caches": {"fast": caches.fast, "last": caches.last},
            "factor": rounded(rates.factor),
            "rates": table(rates),
            "steadiness": steadiness,
        }
    watch(0, 1, "memory of a training process")
    record = {
        "ok": True,
        "name": devices.HERE,
        "device": devices.HERE,
        "title": about["processor"],
        "measured_here": True,
        "cores": about["cores"],
        "memory_bytes": about["memory_bytes"],
        "clock_hz": clock(),
        "peak_flops": rounded(flops),
        "core_flops": rounded(max(flops / about["cores"], core_flops)),
        "bandwidth": rounded(bandwidth),
        "runtime_bytes": runtime(),
        "state": {"before": before, "after": state()},
        "threads": measured,
        **provenance(),
    }
    return written(record, output or devices.profile_path())


def quick(
    threads: list[int] | None, output: Path | None, watch: Callable[[int, int, str], None], seconds: float = 3.0
) -> dict:
    """Scale the reference machine's rates to this one by timing a few layers, and write that; returns the record.

    Marked as not measured, and beside the profile of `run`, which is used where both are there.
    seconds: with each number of threads, beside those in which kernels are loaded.
    """
    about, counts = machine(), checked(threads)
    known, probed = devices.find(devices.REFERENCE), {}
    for count in counts:
        caches = devices.caches_of(count)
        tell = lambda i, n, what, count=count: watch(i, n, f"{count} threads, {what}")  # noqa: E731
        rates, steadiness = calibration.probe(count, caches, known.at(count)[0], tell, seconds)
        probed[str(count)] = {
            "caches": {"fast": caches.fast, "last": caches.last},
            "factor": rounded(rates.factor),
            "rates": table(rates),
            "steadiness": steadiness,
        }
    flops, core_flops, bandwidth = devices.measure()
    record = {
        "ok": True,
        "name": devices.HERE,
        "device": devices.HERE,
        "title": f"{about['processor']}, probed",
        "measured_here": False,
        "cores": about["cores"],
        "memory_bytes": about["memory_bytes"],
        "clock_hz": clock(),
        "peak_flops": rounded(flops),
        "core_flops": rounded(max(flops / about["cores"], core_flops)),
        "bandwidth": rounded(bandwidth),
        "runtime_bytes": vars(known.base),
        "threads": probed,
        **provenance(),
    }
    return written(record, output or devices.quick_path())


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
