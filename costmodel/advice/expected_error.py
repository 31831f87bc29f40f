"""The gradient error that a plan is expected to have: looked up in a table that was measured on other data.

`gradient-errors.json` is what `gradledger reproduce gradient-errors` wrote (`experiments.gradient_errors` says how it
is measured). Of a net's gradient g (weights of all convolutions and the classifier) and a plan's gradient a:

    cosine          ⟨a, g⟩ / (‖a‖·‖g‖)
    error           √(1 − cosine²): the relative error that is left when a has the length that brings it nearest to g
    relative_error  ‖a − g‖ / ‖g‖, of a as it is

Readings [ours]:
  What a plan freezes has the gradient 0, so the exact gradient of some layers has the error √(share of ‖g‖² frozen).
  A factor common to all of a is no error, for the learning rate takes it up: gradient filtering at stride s is s² too
  long. Where its layers have different factors, that remains.
  Between measured settings `dot` and `square` are interpolated on a logarithmic scale, beyond them the nearest holds.
  A net that was not measured is expected to do as the measured one with the nearest number of convolutions does, at
  the same share of its convolutions.
  Batch and precision change nothing: rounding to float32 is far below every error here.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from refimpl.methods.registry import known


def exact_settings() -> dict[str, float | None]:
    """Method → the value of its setting with which its gradients are exact, of those that the advice searches."""
    return {name: found.states.grid.exact for name, found in known().items() if found.states.grid}


@dataclass(frozen=True)
class ExpectedError:
    """What is expected of a plan's gradient, see the module; measured_on: the net of the table."""

    cosine: float
    error: float
    relative_error: float
    measured_on: str


class ErrorTable:
    """The measured shares of every net: name → its entry of the record."""

    def __init__(self, nets: Mapping[str, Mapping]):
        self.nets = nets
        self._sums: dict = {}

    def measured(self, method: str) -> bool:
        """Was a method measured on every net? Exact gradients were."""
        grid = known()[method].states.grid
        return grid is not None and (
            grid.setting is None or all(method in net["methods"] for net in self.nets.values())
        )

    def nearest(self, name: str, convolutions: int) -> str:
        """The net of that name, else the one with the nearest number of convolutions."""
        if name in self.nets:
            return name
        return min(self.nets, key=lambda n: abs(np.log(len(self.nets[n]["exact"]) / max(convolutions, 1))))

    def error(
        self, name: str, method: str, setting: float | None, train_last: int | str, convolutions: int
    ) -> ExpectedError:
        """What is expected of a method with a setting, training the last layers of a net with so many convolutions.

        setting: patch, keep or ratio; None for backprop. KeyError for a method that was not measured.
        """
        exact_at = exact_settings()
        if method not in exact_at:
            raise KeyError(f"no error was measured of {method}; there is {', '.join(exact_at)}")
        on = self.nearest(name, convolutions)
        share = 1.0 if isinstance(train_last, str) or not convolutions else train_last / convolutions
        rest = self.nets[on]["classifier"]
        dot, square = (rest + part for part in self._trained(on, method, setting, share))
        cosine = min(1.0, dot / np.sqrt(square)) if square > 0 else 0.0
        total = rest + float(np.sum(self.nets[on]["exact"]))
        lost, turned = max(0.0, total - 2 * dot + square), np.sqrt(max(0.0, 1 - cosine**2))
        return ExpectedError(float(cosine), float(turned), float(np.sqrt(lost)), on)

    def _trained(self, net: str, method: str, setting: float | None, share: float) -> np.ndarray:
        """Dot and square of the last convolutions, of which `share` of them train."""
        points = self._points(net, method)
        if setting is None or len(points) == 1:
            return _at(points[0][1], share)
        places = [np.log(s) for s, _ in points]
        values = np.array([_at(sums, share) for _, sums in points])
        return np.array([np.interp(np.log(setting), places, values[:, i]) for i in range(2)])

    def _points(self, net: str, method: str) -> list[tuple[float, np.ndarray]]:
        """(setting, sums) of a method by rising setting, the exact gradient as its own limit."""
        if (net, method) not in self._sums:
            found = self.nets[net]
            exact = (exact_settings()[method] or 1, _from_the_end(found["exact"], found["exact"]))
            measured = [
                (
                    next(v for k, v in one.items() if k not in ("dot", "square")),
                    _from_the_end(one["dot"], one["square"]),
                )
                for one in found["methods"].get(method, ())
            ]
            self._sums[net, method] = sorted([exact, *measured], key=lambda point: point[0])
        return self._sums[net, method]


def _from_the_end(dot, square) -> np.ndarray:
    """Sums (convolutions + 1, 2) over the last 0, 1, … convolutions."""
    both = np.array([dot, square], float).T[::-1]
    return np.concatenate([np.zeros((1, 2)), both.cumsum(0)])


def _at(sums: np.ndarray, share: float) -> np.ndarray:
    """The sums at a share of the convolutions, between two of them where it is not whole."""
    place = share * (len(sums) - 1)
    low = min(int(place), len(sums) - 2)
    return sums[low] + (place - low) * (sums[low + 1] - sums[low])


@cache
def shipped() -> ErrorTable:
    """The table that comes with the package."""
    text = files("costmodel.advice").joinpath("gradient-errors.json").read_text(encoding="utf-8")
    return ErrorTable(json.loads(text)["nets"])
