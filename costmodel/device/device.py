"""Devices: what each kernel's work costs them in seconds, what they hold, and where each figure is from.

Kinds of profile, all JSON files:

- measured: `gradledger calibrate` timed single layers on the device itself; rates for one or more thread counts.
- from data sheets (`devices/NAME.json`): nobody timed kernels there. Their rates are those of the reference
  machine (`reference.json`, measured), each multiplied by how the two compare in what it depends on: arithmetic, first
  and second cache, memory, or the cost of a call. Every figure names its source; seconds are marked as not measured.
  Our assumption: Python and its libraries take as many bytes there as on the reference machine.
- GPUs (`device.gpu`): from data sheets too, and `this-gpu`, calibrated or by what its driver tells.
- `this-machine`: the measured profile that `gradledger calibrate` left here; without one, the one that `gradledger
  calibrate --quick` left, the reference rates scaled by timing a few layers, which does not count as measured; without
  either, those rates scaled by a matrix product and a copy.
"""

import difflib
import json
import math
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from refimpl.storage.files import InputError, quoted, read_json, reading

from . import gpu
from .kernels import GROUP, Caches
from .process import Base
from .rates import ANY, Rates
from .room import resident, room

UNMEASURED = 2.5  # our assumption: factor within which a step lies on a device whose kernels nobody timed
QUICK = 1.6  # our assumption: the same for a machine of which a product and a copy were timed
IN_ORDER = 2.0  # our assumption: interpreted code and calls take so many times the reference's cycles on a small core
VECTOR_BITS = 512  # of the reference machine
MOST_CORES, MOST_BYTES, MOST_FACTOR = 1024, 2**50, 1000  # that a profile may tell
ALIKE, CLOSE, SAME_NUMBERS = 0.6, 0.15, 0.1  # how like a name must be to be named: at least, to the best, and more for
AN = re.compile("[AEIOUaeiou]|n?[FHLMNRSX][A-Z0-9]")  # names before which people say "an"
_MISSING = object()
HERE, REFERENCE = "this-machine", "reference"


class ProfileError(InputError):
    """A device profile that cannot be read; the message names the file, what is wrong and what would be right."""


@dataclass(frozen=True)
class Device:
    """Rates of a device by thread count, its caches and its memory in bytes; None where it has no such memory.

    measured: were its kernels timed on it? watts: (idle, load), None where not known. nanometres: of its process. base:
    what Python and its libraries take of the memory; None where no Python runs, or nobody measured it. names: that
    people use, the usual one first. note: what can and cannot run there, a sentence. whole: the seconds of a
    multiply-add of whole numbers as a share of those of floats, where they are not measured apart. backend: whose
    kernels the rates are of.
    """

    name: str
    title: str
    rates: Mapping[int, Rates]
    caches: Mapping[int, Caches]
    cores: int
    measured: bool
    ram_bytes: int | None = None
    flash_bytes: int | None = None
    watts: tuple[float, float] | None = None
    nanometres: float | None = None
    base: Base | None = None
    names: tuple[str, ...] = ()
    note: str = ""
    whole: float = 1.0
    backend: str = "fast"

    @property
    def called(self) -> str:
        """How people call it, with an article, as in `on a Raspberry Pi 4`."""
        if not self.names:
            return {HERE: "this machine", REFERENCE: "the reference machine"}.get(self.name, self.name)
        return f"{'an' if AN.match(self.names[0]) else 'a'} {self.names[0]}"

    def at(self, threads: int) -> tuple[Rates, Caches]:
        """Rates and caches for a number of threads: those of the next lower number that it has, shared by more."""
        known = max((t for t in self.rates if t <= threads), default=min(self.rates))
        more = min(threads, self.cores) / known
        if more <= 1:
            return self.rates[known], self.caches[known]
        shared = {"compute": 1 / more, "cache": 1 / more, "memory": 1.0, "call": 1.0}
        factor = self.rates[known].factor * (QUICK if self.measured else 1)
        return self.rates[known].scaled(shared, factor), self.caches[known]


def names() -> list[str]:
    """Every device by the name of its profile."""
    shipped = (f.name for f in files("costmodel.device.devices").iterdir() if f.name.endswith(".json"))
    return [HERE, gpu.THERE, REFERENCE, *sorted({Path(n).stem for n in shipped} - {REFERENCE})]


def key(name: str) -> str:
    """A name as it is looked up: without case, blanks and punctuation, but for a plus."""
    return "".join(c for c in name.casefold() if c.isalnum() or c == "+")


@cache
def known_as() -> dict[str, str]:
    """Key of every name that people use → name of the profile, which states them (`names`)."""
    found = {key(name): name for name in names()}
    for name in names()[3:]:
        found |= {key(other): name for other in _profile(name)["names"]}
    return found


def nearest(name: str, most: int = 3) -> list[str]:
    """Names of the profiles one of whose names is most like `name`: by letters in their order, a few at most.

    Numbers tell boards apart: a name with other numbers is less like it than one with other letters.
    """
    asked, best = key(name[:100]), dict[str, float]()
    for known, profile in known_as().items():
        like = difflib.SequenceMatcher(None, asked, known).ratio()
        same = set(re.findall("[0-9]+", asked)) == set(re.findall("[0-9]+", known))
        best[profile] = max(best.get(profile, 0.0), like + (SAME_NUMBERS if same else 0))
    order = sorted(best, key=lambda profile: -best[profile])
    return [profile for profile in order if best[profile] >= max(ALIKE, best[order[0]] - CLOSE)][:most]


def find(name: str) -> Device:
    """The device of a name, of which case and punctuation do not matter, or of a profile's path.

    KeyError where there is none, ProfileError for a file that is no profile.
    """
    if name.endswith(".json") or os.sep in name:
        return load(Path(name))
    found = known_as().get(key(name))
    if found is not None:
        if found == gpu.THERE:
            return this_gpu()
        return this_machine() if found == HERE else _shipped(found)
    raise KeyError(f"there is no device {name!r}; known: {', '.join(names())}")


@cache
def _shipped(name: str) -> Device:
    profile = _profile(name)
    if profile["measured_here"]:
        return _measured(profile, f"{name}.json")
    return gpu.from_data_sheet(profile) if "gpu" in profile else _from_data_sheet(profile)


def load(path: Path) -> Device:
    """The device of a measured profile; ProfileError where the file is none."""
    what = f"the device profile {path}"
    profile = read_json(path, what, ProfileError, "write it with gradledger calibrate")
    with reading(what, ProfileError):
        return _measured(profile, str(path))


@dataclass(frozen=True)
class _Field:
    """A value of a profile and its place there, such as `threads.1.factor`: read as what it must be, or refused."""

    source: str
    place: str
    value: Any

    def __getitem__(self, key: str) -> "_Field":
        place = f"{self.place}.{key}" if self.place else key
        return _Field(self.source, place, self.entries("an object").get(key, _MISSING))

    def wrong(self, wanted: str) -> ProfileError:
        """The error that names file, place, what must be there and what was found."""
        problem = "lacks rates" if self.place in ("", "threads") or ".rates" in self.place else "is wrong"
        found = "nothing" if self.value is _MISSING else quoted(json.dumps(self.value))
        return ProfileError(
            f"the device profile {self.source} {problem}: {quoted(self.place) or 'the whole'} must be {wanted}, "
            f"got {found}; write it again with gradledger calibrate"
        )

    def given(self) -> bool:
        """Is there a value other than null?"""
        return self.value is not _MISSING and self.value is not None

    def entries(self, wanted: str) -> dict:
        """An object's entries by name."""
        if not isinstance(self.value, dict):
            raise self.wrong(wanted)
        return self.value

    def text(self) -> str:
        """A text that is not empty."""
        if not isinstance(self.value, str) or not self.value:
            raise self.wrong("a text")
        return quoted(self.value)

    def number(self, least: float, most: float, unit: str, kind: type = float):
        """A number from `least` to `most`, whole where `kind` is int."""
        kinds = (int,) if kind is int else (int, float)
        if type(self.value) not in kinds or not least <= self.value <= most:
            what = "a whole number" if kind is int else "a number"
            raise self.wrong(f"{what} of {unit} from {least:,} to {most:,}")
        return self.value


def _measured(profile: dict, source: str) -> Device:
    """The device of a measured profile; ProfileError names the first field that is not as calibrate writes it."""
    top = _Field(source, "", profile)
    threads = _by_thread_count(top["threads"])
    rates = {
        t: Rates(_rates(one["rates"]), one["factor"].number(1, MOST_FACTOR, "times")) for t, one in threads.items()
    }
    caches = {t: _caches(one["caches"]) for t, one in threads.items()}
    memory, runtime = top["memory_bytes"], top["runtime_bytes"]
    return Device(
        top["name"].text(), top["title"].text(), rates, caches, top["cores"].number(1, MOST_CORES, "cores", int),
        profile.get("measured_here") is not False,
        memory.number(1, MOST_BYTES, "bytes", int) if memory.given() else None,
        base=Base(*(runtime[part].number(0, MOST_BYTES, "bytes", int) for part in ("fixed", "launch")))
        if runtime.given() else None, backend=profile.get("backend", "fast"),
    )  # fmt: skip


def _by_thread_count(threads: _Field) -> dict[int, _Field]:
    """What was measured with each number of threads."""
    wanted = "an object with what was measured for each number of threads"
    if not threads.entries(wanted):
        raise threads.wrong(wanted)
    for count in threads.value:
        if not (re.fullmatch("[1-9][0-9]{0,3}", count) and int(count) <= MOST_CORES):
            raise _Field(threads.source, "each name in threads", count).wrong(f"a number from 1 to {MOST_CORES:,}")
    return {int(count): threads[count] for count in threads.value}


def _rates(rates: _Field) -> dict[str, dict[str, float]]:
    """Kernel → term → seconds; a kernel may have terms that cost nothing, but not only such."""
    kernels = rates.entries("an object with the rates of each kernel")
    for kernel in (ANY, *kernels):
        own = rates[kernel]
        for term in own.entries("an object with seconds for each unit of work"):
            if term not in GROUP:
                raise own.wrong(f"seconds for units of work among {', '.join(GROUP)}")
            own[term].number(0, 1, "seconds")
        if not any(own.value.values()):
            raise own.wrong("an object with a rate above 0")
    return kernels


def _caches(caches: _Field) -> Caches:
    """The sizes of the caches; those that are not given are the usual ones."""
    known = [f.name for f in fields(Caches)]
    if not caches.entries("an object with the bytes of caches").keys() <= set(known):
        raise caches.wrong(f"an object with the bytes of {' and '.join(known)}")
    return Caches(**{name: caches[name].number(0, MOST_BYTES, "bytes") for name in caches.value})


def _from_data_sheet(profile: dict) -> Device:
    """The reference machine's rates, scaled by the figures of a board."""

    def figure(section: str, name: str) -> Any:
        found = profile[section].get(name)
        return None if found is None else found["value"]

    reference = _reference()
    cores, clock = int(figure("compute", "cores")), figure("compute", "clock_hz")
    per_cycle, integers = (figure("compute", name) for name in ("flops_per_cycle", "int8_macs_per_cycle"))
    lanes = 1 if figure("memory", "flash_bytes") else 4  # of a microcontroller, or NEON
    slower = reference["clock_hz"] / clock
    factors = {
        "compute": reference["core_flops"] / (clock * per_cycle),
        "cache": slower * VECTOR_BITS / (32 * lanes),
        "memory": reference["bandwidth"] / figure("bandwidth", "memory_bytes_per_second"),
        "call": slower * IN_ORDER,
    }
    known = _measured(reference, "reference.json")
    # another machine lent rates of whole numbers, for which a board has instructions of its own (`whole`)
    lent = reference.get("lent", {}).get("kernels", ())
    own = {kernel: of for kernel, of in known.rates[1].by_kernel.items() if kernel not in lent}
    one = Rates(own, known.rates[1].factor).scaled(factors, UNMEASURED)
    l2, l3 = (figure("bandwidth", f"{level}_bytes") or 0 for level in ("l2", "l3"))
    caches = Caches(fast=l2 or figure("bandwidth", "l1_bytes") or 0, last=l3)
    idle, load = (figure("power", name) for name in ("idle_watts", "load_watts"))
    ram, flash = (figure("memory", f"{kind}_bytes") for kind in ("ram", "flash"))
    node = profile["process_nanometres"]
    return Device(
        profile["name"], profile["title"], {1: one}, {1: caches}, cores, False, ram, flash,
        (idle, load) if idle and load else None, node["value"] if node else None, None if flash else known.base,
        tuple(profile["names"]), profile.get("note", ""), per_cycle / 2 / integers if integers else 1.0,
    )  # fmt: skip


def _reference() -> dict:
    return _profile(REFERENCE)


@cache
def _profile(name: str) -> dict:
    """What the file of a profile that comes with the package holds."""
    return json.loads(files("costmodel.device.devices").joinpath(f"{name}.json").read_text(encoding="utf-8"))


def profile_path() -> Path:
    """Where `gradledger calibrate` leaves this machine's profile: `XDG_CONFIG_HOME`, else `~/.config`."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "gradledger" / f"{HERE}.json"


def quick_path() -> Path:
    """Where `gradledger calibrate --quick` leaves what it found: beside the profile, which goes before it."""
    return profile_path().with_name(f"{HERE}-quick.json")


def gpu_path() -> Path:
    """Where `gradledger calibrate --backend cuda` leaves the profile of this machine's GPU."""
    return profile_path().with_name(f"{gpu.THERE}.json")


def this_gpu() -> Device:
    """The calibrated profile of this machine's GPU, else what its driver tells. CudaError where there is none."""
    return load(gpu_path()) if gpu_path().is_file() else gpu.found_here()


def this_machine(most: float = math.inf) -> Device:
    """The calibrated profile of this machine, else the probed one, else reference rates scaled by a quick measurement.

    most: bytes that this process may hold meanwhile, what it holds already included.
    """
    kept = next((path for path in (profile_path(), quick_path()) if path.is_file()), None)
    return load(kept) if kept else _quick(most)


@cache
def _quick(most: float = math.inf) -> Device:
    reference, (_, core_flops, bandwidth) = _reference(), measure(most)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    slower = reference["core_flops"] / core_flops
    factors = {"compute": slower, "cache": slower, "memory": reference["bandwidth"] / bandwidth, "call": slower}
    known = _measured(reference, "reference.json")
    rates = {t: one.scaled(factors, QUICK) for t, one in known.rates.items() if t <= cores}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    about = "this machine, not calibrated"
    return Device(HERE, about, rates, {t: caches_of(t) for t in rates}, cores, False, memory, base=known.base)


def caches_of(threads: int) -> Caches:
    """The caches that `threads` cores have, where Linux tells them; else those of `Caches`."""
    found = {}
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            kind, level = (index / "type").read_text().strip(), int((index / "level").read_text())
            held, cpus = (index / "size").read_text().strip(), (index / "shared_cpu_list").read_text().strip()
        except (OSError, ValueError):
            continue
        if kind != "Instruction" and held.endswith("K"):
            found[level] = (1024 * int(held[:-1]), "," in cpus or "-" in cpus)
    if 2 not in found:
        return Caches()
    size, shared = found[2]
    last = found[max(found)][0] if max(found) > 2 else 0
    return Caches(fast=size * (1 if shared else threads), last=last)


def measure(most: float = math.inf) -> tuple[float, float, float]:
    """(operations a second of a matrix product, the same on one core, bytes a second of a copy in memory).

    About 0.3 s. The copy takes memory that no cache holds, where that leaves the process below `most` bytes and takes
    no more than a quarter of what it may still have.
    """
    a = np.ones((512, 512), np.float32)
    product = _best(lambda: a @ a)
    with threadpool_limits(limits=1, user_api="blas"):
        alone = _best(lambda: a @ a)
    wanted, allowed = max(1 << 25, 2 * caches_of(1).last), min((most - resident()) / 2, room() / 8)
    source = np.ones(int(max(1 << 20, min(wanted, allowed))), np.uint8)
    target = np.empty_like(source)
    copy = _best(lambda: np.copyto(target, source))
    return 2 * 512**3 / product, 2 * 512**3 / alone, 2 * source.nbytes / copy


def _best(work, times: int = 7) -> float:
    work()
    found = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)
