"""How the user wants a source to be read, where its files do not say."""

import re
from dataclasses import dataclass, fields, replace
from typing import Any

from ..storage.files import quoted
from .dataset import DataError
from .preprocessing import Preprocessing, axes_fit
from .scale import VALUES

FLAGS = {"skip_bad": "--skip-bad"}  # where it is not the name of the field


@dataclass(frozen=True)
class ReadOptions:
    """What was asked for; None leaves it to the source.

    skip_bad: leave out what cannot be used, and say so; axes: letters of an array's axes, such as `NCT`; window,
    stride: of a long recording, in samples (`100`) or seconds (`2s`); rate: samples a second; label, group: columns of
    a table by name or number from 1; group is also the name of an array, and of files a regular expression with one
    part in parentheses, which is found in their names (`groups`); values: VALUES, what is done to them.
    made: of a net that the data are to judge: they are read as its training data were, and its means and deviations are
    theirs; what a source does not take of those options is no mistake then.
    """

    skip_bad: bool = False
    axes: str | None = None
    window: str | None = None
    stride: str | None = None
    rate: float | None = None
    label: str | None = None
    group: str | None = None
    values: str | None = None
    made: Preprocessing | None = None

    def allow(self, what: str, *names: str) -> "ReadOptions":
        """These options; DataError where one was given that `what`, a source in words, does not take.

        names: those that it takes. Of a net's own options (`made`) the others are left out.
        """
        wrong = [name for name in OPTIONS if name not in names and getattr(self, name) not in (None, False)]
        if wrong and self.made is None:
            raise DataError(f"{FLAGS.get(wrong[0], f'--{wrong[0]}')} means nothing for {what}: leave it out")
        return replace(self, **{name: DEFAULTS[name] for name in wrong})

    def as_trained(self) -> "ReadOptions":
        """These options; where no window was given, with that of the net that the data are to judge."""
        made = self.made
        if made is None or made.window is None or self.window is not None:
            return self
        return replace(self, window=str(made.window), stride=str(made.stride or made.window), rate=made.rate)

    def checked_axes(self) -> str | None:
        """The letters of the axes in capitals; DataError where they are none."""
        axes = self.axes and self.axes.upper()
        if axes and not axes_fit(axes):
            raise DataError(
                f"--axes must name each axis by a letter, N (samples) first, such as NTC, NCT, NHWC or NCHW, got "
                f"{quoted(self.axes)!r}"
            )
        return axes

    def checked_values(self) -> str | None:
        """What is to be done to values; DataError where it is none of VALUES."""
        if self.values is not None and self.values not in VALUES:
            raise DataError(f"--values must be {', '.join(VALUES[:-1])} or {VALUES[-1]}, got {quoted(self.values)!r}")
        return self.values

    def windowed(self) -> int | None:
        """The samples of a window, None where none was asked for; DataError for what goes with one alone."""
        for name in ("stride", "rate"):
            if self.window is None and getattr(self, name) is not None:
                raise DataError(f"--{name} goes with --window, which cuts long recordings: give it, or leave it out")
        return self.samples("window")

    def samples(self, name: str) -> int | None:
        """The samples of `window` or `stride`; DataError where they are none, or are seconds of an unknown rate."""
        text = getattr(self, name)
        if text is None:
            return None
        found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)(s?)", text.strip(), re.ASCII)
        if not found or (not found[2] and "." in found[1]):
            raise DataError(f"--{name} must be samples, such as 100, or seconds, such as 2s, got {quoted(text)!r}")
        rate = self.checked_rate()
        if not found[2]:
            count = int(found[1])
        elif rate is None:
            raise DataError(f"--{name} {text} is in seconds: --rate must say the samples a second, such as --rate 50")
        else:
            count = round(float(found[1]) * rate)
        if count < 1:
            raise DataError(f"--{name} {text} is no sample long; at least 1 is needed")
        return count

    def checked_rate(self) -> float | None:
        """Samples a second; DataError where that is no positive number."""
        if self.rate is not None and not 0 < self.rate < 1e9:
            raise DataError(f"--rate must be the samples a second, more than 0, got {self.rate}")
        return self.rate


PLAIN = ReadOptions()
DEFAULTS: dict[str, Any] = {f.name: f.default for f in fields(ReadOptions)}
OPTIONS = tuple(name for name in DEFAULTS if name != "made")  # that a user gives
