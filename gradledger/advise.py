"""`gradledger cost --advise`: how to train within limits of memory and time, with commands that are ready to run."""

import math
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import refimpl as ri
from costmodel.advice import advice
from costmodel.advice.advice import BindingConstraints, Limits, Priced, Search
from costmodel.device.device import HERE
from refimpl.storage import checkpoint
from validation.instruments.provenance import provenance

from . import job, options, recipe, trials
from .errors import Malformed, Refused
from .finish import plot
from .models import RANDOM, described, origin, taking
from .output import make_folder
from .settings import READ, AdaptSettings, ReadSettings

NAME = "advise"
SHARED = ("model", "data", "classes", "size", "backend", "threads", *READ)  # with `adapt`


@dataclass
class AdviseSettings(ReadSettings):
    """What decides the advice; None is an option that was not given."""

    model: str = "watch"
    classes: int | None = None
    size: str | None = None
    device: str = HERE
    memory_limit: str | None = None
    seconds_per_epoch: float | None = None
    samples: int | None = None
    data: str | None = None
    backend: str = recipe.BACKEND
    threads: int | None = None
    trial_seconds: float | None = None

    @property
    def adapted(self) -> AdaptSettings:
        """The settings of an adaptation of the same net on the same data."""
        return AdaptSettings(**{name: getattr(self, name) for name in SHARED})


def run(settings: AdviseSettings, output: Path, watch: Callable[[int, int, str], None]) -> dict:
    """Search for plans, write record and plot into `output`; returns the record.

    Without data it runs no kernel and compiles none; with data some plans of the front are tried on them (`trials`).
    Malformed for a bad value, Refused where no plan keeps to the limits; the refusal
    says which limit binds, what is the best that can be had, and which limit would do.
    """
    for name in ("classes", "threads", "samples"):
        options.at_least_1(name, getattr(settings, name))
    limit, most = options.byte_count(settings.memory_limit), settings.seconds_per_epoch
    if most is not None and not 0 < most < math.inf:
        raise Malformed(f"--seconds-per-epoch must be a number of seconds above 0, got {most:g}")
    if settings.samples is None and settings.data is None:
        raise Malformed(
            "an epoch has a number of samples: give it, as --samples 10000, or the data, as --data FILE.npz"
        )
    if settings.samples is not None and settings.data is not None:
        raise Malformed("--samples and --data both tell how many samples an epoch has: give one of them")
    seconds = trials.SECONDS if settings.trial_seconds is None else settings.trial_seconds
    if not 0 <= seconds < math.inf:
        raise Malformed(f"--trial-seconds must be a number of seconds, 0 for no trial, got {seconds:g}")
    if settings.data is None and settings.trial_seconds is not None:
        raise Malformed("--trial-seconds tries plans on data: give --data in place of --samples")
    on, backend = options.priced_on(settings.device, settings.backend)
    settings = replace(settings, backend=backend)
    at_hand = job.DataAtHand()
    graph, samples = net(settings, at_hand)
    scratch = origin(graph) == RANDOM
    make_folder(output)
    threads = options.threads_of(settings.device, on, settings.threads)
    limits = Limits(math.inf if limit is None else limit, math.inf if most is None else most)
    watch(0, 1, "closed forms")
    try:
        search = Search(graph, on, samples, settings.backend, threads)
        found = search.advise(limits, watch=watch)
    except ri.ShapeError:
        raise
    except ValueError as e:
        raise Malformed(str(e)) from None
    front = [entry(p, settings, limit, scratch) for p in found.front]
    if settings.data is not None and seconds:
        try_out(front, settings, seconds, watch, scratch, at_hand)
    on_data = search.table.nets[search.table.nearest(graph.name, search.convolutions)]
    record = {
        "ok": bool(found.front),
        "name": NAME,
        "model": settings.model,
        "classes": graph.shape(graph.output)[1],
        "size": list(graph.size),
        "data": settings.data,
        "samples": samples,
        "device": on.name,
        "device_measured": on.measured,
        "device_memory": {"ram": on.ram_bytes, "flash": on.flash_bytes},
        "memory_limit": limit,
        "seconds_per_epoch": most,
        "searched": {
            "candidates": found.searched,
            "compiled": len(found.front) + len(found.others),
            "complete": found.complete,
            "methods": {m.name: {m.setting: list(m.values)} if m.setting else {} for m in search.methods},
            "train_last": [0, search.convolutions],
            "batches": sorted({c.batch for c in search.candidates}),
            "precisions": list(advice.PRECISIONS),
        },
        "error_measured_on": {
            "net": search.table.nearest(graph.name, search.convolutions),
            **{key: on_data[key] for key in ("data", "weights")},
        },
        "front": front,
        "others": [entry(p, settings, limit, scratch) for p in found.others],
        **provenance(),
    }
    reason = None
    if found.binding:
        reason, told = refusal(found.binding, limits, settings, found.searched)
        record |= told
    checkpoint.write_json(output / f"{NAME}.json", record)
    record["files"] = {"record": str(output / f"{NAME}.json"), "plot": plot(output, NAME)}
    if reason:
        raise Refused(reason, record)
    return record


def net(settings: AdviseSettings, at_hand: job.DataAtHand) -> tuple[ri.Graph, int]:
    """The graph, and the samples of an epoch: as given, or those of the training part of the data, which are `at_hand`
    then.
    """
    if settings.data is None:
        graph = described(settings.model, settings.classes, options.size(settings.size))
        return taking(graph, settings.model, settings.pixels), settings.samples
    _, d, graph, _ = job.read(settings.adapted, at_hand)
    return graph, len(d.x_train)


def try_out(
    front: list[dict], settings: AdviseSettings, seconds: float, watch: Callable[[int, int, str], None], scratch: bool,
    at_hand: job.DataAtHand,
) -> None:  # fmt: skip
    """Put what a trial on the data reached to some plans of the front, as `trial`."""
    places = trials.spread(len(front))
    plans = [
        replace(
            settings.adapted, method=[front[i]["as_given"]], train_last=str(front[i]["train_last"]),
            batch=front[i]["batch"], from_scratch=scratch,
        )
        for i in places
    ]  # fmt: skip
    for i, found in zip(places, trials.tried(plans, seconds, watch, at_hand), strict=True):
        front[i]["trial"] = found


def entry(p: Priced, settings: AdviseSettings, limit: int | None, scratch: bool) -> dict:
    """A compiled candidate as the record holds it. scratch: would the net begin with random weights?"""
    c = p.candidate
    return {
        "method": options.methods([c.text]).text,
        "as_given": c.text,
        "train_last": c.train_last,
        "batch": c.batch,
        "precision": c.precision,
        "momentum": c.plan.step.optimizer.momentum,
        "memory_bytes": p.memory_bytes,
        "state_bytes": p.state_bytes,
        "peak_bytes": p.peak_bytes,
        "constant_bytes": p.constant_bytes,
        "seconds_per_epoch": p.seconds,
        "steps": p.steps,
        "step_seconds": p.step_seconds,
        "gradient_error": p.error.error,
        "cosine": p.error.cosine,
        "relative_error": p.error.relative_error,
        "fits": p.fits,
        "trial": None,
        "command": command(p, settings, limit, scratch),
    }


def command(p: Priced, settings: AdviseSettings, limit: int | None, scratch: bool) -> str:
    """What to run: `adapt` where the data are known, else `cost`, which prices the step again.

    A limit that the candidate does not keep is left out.
    """
    c, parts = p.candidate, ["gradledger", "cost" if settings.data is None else "adapt", "--model", settings.model]
    given = {"--size": settings.size, "--classes": settings.classes, "--data": settings.data}
    given |= {"--method": c.text, "--train-last": c.train_last, "--batch": c.batch}
    if settings.data is None:
        given["--device"] = settings.device
    if limit is not None and p.memory_bytes <= limit:
        given["--memory-limit"] = settings.memory_limit
    given |= {
        "--threads": settings.threads,
        "--backend": None if settings.backend == recipe.BACKEND else settings.backend,
    }
    given |= {f"--{name.replace('_', '-')}": getattr(settings, name) for name in READ}
    for option, value in given.items():
        parts += [] if value is None or value is False else [option] if value is True else [option, str(value)]
    if scratch and settings.data is not None:
        parts.append("--from-scratch")
    return shlex.join(parts)


def refusal(binding: BindingConstraints, limits: Limits, settings: AdviseSettings, searched: int) -> tuple[str, dict]:
    """The sentence of a refusal, and what the record holds of it."""
    if binding.constraints == ("device",):
        return too_small(binding.least_share, settings, searched)
    least, fastest = binding.least_memory, binding.least_seconds
    memory, seconds = binding.memory_within, binding.seconds_within
    limit_memory, limit_seconds = f"{limits.memory:,} bytes", f"{limits.seconds:g} s"
    parts = []
    if binding.together:
        parts.append(
            f"memory and time bind together: within {limit_memory} the fastest epoch takes "
            f"{interval(seconds.seconds)} ({named(seconds)}), within {limit_seconds} the least memory is "
            f"{memory.memory_bytes:,} bytes ({named(memory)})"
        )
    else:
        if "memory" in binding.constraints:
            parts.append(
                f"memory binds: the least that any of {searched:,} plans needs is {least.memory_bytes:,} bytes "
                f"({named(least)}), the limit is {limit_memory}"
            )
        if "time" in binding.constraints:
            parts.append(
                f"time binds: the fastest epoch of {searched:,} plans takes "
                f"{interval(fastest.seconds)} ({named(fastest)}), the limit is {limit_seconds}"
            )
    works = []
    if memory:
        works.append(f"--memory-limit {memory.memory_bytes}")
    if seconds:
        works.append(f"--seconds-per-epoch {rounded_up(seconds.seconds['mid'])}")
    if not works:
        works.append(
            f"--memory-limit {fastest.memory_bytes} with --seconds-per-epoch {rounded_up(fastest.seconds['mid'])}"
        )
    both = limits.memory < math.inf and limits.seconds < math.inf
    unchanged = " and the other limit as it is" if both and (memory or seconds) else ""
    sentence = f"nothing fits, {'; '.join(parts)}; the smallest limit that works is {' or '.join(works)}{unchanged}"
    told = {
        "binding": list(binding.constraints),
        "best": {"memory_bytes": least.memory_bytes, "seconds_per_epoch": fastest.seconds["mid"]},
        "smallest_limit": {
            "memory_bytes": memory and memory.memory_bytes,
            "seconds_per_epoch": seconds and seconds.seconds["mid"],
        },
    }
    return sentence, told


def too_small(p: Priced, settings: AdviseSettings, searched: int) -> tuple[str, dict]:
    """The refusal where no plan fits the device."""
    needs, has = p.fits["needs"], {kind: nbytes for kind, nbytes in p.fits["has"].items() if nbytes}
    kind = max(has, key=lambda kind: needs[kind] / has[kind])
    name = "RAM" if kind == "ram" else kind
    sentence = (
        f"nothing fits, the device binds: {settings.device} has {has[kind]:,} bytes of {name}, and the plan of "
        f"{searched:,} that takes least of it ({named(p)}) needs {needs[kind]:,}; a smaller net, input or number of "
        "classes would do"
    )
    return sentence, {"binding": ["device"], "best": {"needs": needs}, "smallest_limit": {}}


def interval(seconds: dict[str, float]) -> str:
    """Predicted seconds with their interval."""
    return f"{seconds['mid']:.3g} s ({seconds['low']:.3g} to {seconds['high']:.3g})"


def named(p: Priced) -> str:
    """A candidate in a few words."""
    c = p.candidate
    return f"{c.text}, last {c.train_last}, batch {c.batch}"


def rounded_up(seconds: float) -> str:
    """Seconds with three significant digits, never less than they are."""
    unit = 10.0 ** (math.floor(math.log10(seconds)) - 2)
    return f"{math.ceil(seconds / unit - 1e-9) * unit:.10g}"
