"""What decides an adaptation's result."""

import os
import typing
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace

from refimpl import data
from refimpl.data import ReadOptions
from refimpl.data.reading import OPTIONS

from . import options, recipe
from .errors import Malformed
from .models import is_file


@dataclass(kw_only=True)
class ReadSettings:
    """How a command reads data, and what its net takes for their pixels; None leaves it to the data and to the net."""

    skip_bad: bool = False
    axes: str | None = None
    window: str | None = None
    stride: str | None = None
    rate: float | None = None
    label: str | None = None
    group: str | None = None
    values: str | None = None
    pixels: str | None = None

    @property
    def reading(self) -> ReadOptions:
        """How the data are to be read."""
        return ReadOptions(**{name: getattr(self, name) for name in OPTIONS})


READ = tuple(f.name for f in fields(ReadSettings))


@dataclass
class AdaptSettings(ReadSettings):
    """What decides an adaptation's result; kept with a saved run, so that --resume needs no other option.

    What follows from the methods and the net where it is not given is None here, and filled in by `adapt.prepare`.
    """

    model: str = "watch"
    data: str = "watch"
    subject: int | None = None
    method: list[str] = field(default_factory=lambda: [recipe.METHOD])
    train_last: str | None = None
    epochs: int = recipe.EPOCHS
    batch: int = recipe.SAMPLES
    lr: float | None = None
    momentum: float | None = None
    seed: int = 0
    classes: int | None = None
    size: str | None = None
    memory_limit: str | None = None
    backend: str = recipe.BACKEND
    threads: int | None = None
    whole: bool = False
    from_scratch: bool = False
    augment: str | None = None
    optimizer: str = recipe.SGD
    clip: float | None = None
    warmup: int = 0
    batch_norm: str | None = None
    label_smoothing: float = 0.0
    class_weights: str | None = None
    recipe: str = recipe.AUTO  # last of those that read the module of this name
    probe: bool | None = None

    def resolved(self) -> "AdaptSettings":
        """The same with absolute paths, so that the folder in which a run is resumed does not matter."""
        model = os.path.abspath(self.model) if is_file(self.model) else self.model
        own = self.data not in data.NAMES and os.path.exists(self.data)
        return replace(self, model=model, data=os.path.abspath(self.data) if own else self.data)

    def meaning(self) -> dict:
        """Every setting such that what means the same is equal, however it was written."""
        known = self.resolved()
        return asdict(known) | {
            "method": options.methods(known.method).text,
            "size": options.size(known.size),
            "memory_limit": options.byte_count(known.memory_limit),
            "pixels": options.pixels(known.pixels),
        }


def from_json(found: dict) -> AdaptSettings:
    """The settings of a saved run; TypeError where one is unknown or of another type than it has."""
    settings = AdaptSettings(**found)
    for name, kind in typing.get_type_hints(AdaptSettings).items():
        value = getattr(settings, name)
        if not fits(value, kind):
            raise TypeError(f"{name} cannot be {value!r}")
    return settings


def fits(value, kind) -> bool:
    """Is a value that JSON gave of a setting's type?"""
    if kind == list[str]:
        return isinstance(value, list) and all(isinstance(v, str) for v in value)
    kinds = typing.get_args(kind) or (kind,)
    return type(value) in kinds or type(value) is int and float in kinds


def beside_resume(saved: AdaptSettings, asked: AdaptSettings, given: Iterable[str]) -> AdaptSettings:
    """The settings of a resumed run, beside which the options `given` were given.

    The number of threads, which changes no bit, is obeyed; Malformed for another option unless it says what was saved.
    """
    there = replace(saved, **{name: getattr(asked, name) for name in given})
    before, now = saved.meaning(), there.meaning()
    for name in given:
        if name != "threads" and before[name] != now[name]:
            flag = f"--{name.replace('_', '-')}"
            raise Malformed(
                f"{flag} {shown(getattr(asked, name))} is not that of the saved run, {shown(getattr(saved, name))}: "
                f"leave {flag} out to go on with it, or leave --resume out to start another run"
            )
    return replace(saved, threads=there.threads)


def shown(value) -> str:
    """A setting as a person writes it."""
    return " ".join(value) if isinstance(value, list) else "(none)" if value is None else str(value)
