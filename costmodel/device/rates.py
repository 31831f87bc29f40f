"""Seconds per unit of work of each kernel: fitted to timed launches, scaled to devices that nobody timed.

A launch takes `Σ amount · rate[kernel][term]` seconds (`device.kernels`). Rates are not negative, so a model never
subtracts; they are fitted to relative errors, and nearer to their median than to their mean, because a shared machine
is sometimes slow and never too fast.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from refimpl.compiler.program import Program

from . import kernels
from .kernels import GROUP, LEVELS, Caches

ROUNDS = 8  # of reweighting
ENOUGH = 8  # samples that mostly read memory itself, for a rate of it
ALIKE = 0.05  # relative errors below this weigh alike
PROBED = 1.4  # our assumption: factor of the interval of rates that a probe scaled, at least
FURTHEST = 8.0  # that one group of terms may be from all of them, where a probe scales them
ANY = "any"  # stands for a kernel that was not timed


@dataclass(frozen=True)
class TimedLaunch:
    """A timed launch: its kernel, its terms, seconds, and the number of the case that it belongs to."""

    kernel: str
    terms: Mapping[str, float]
    seconds: float
    case: int


@dataclass(frozen=True)
class Rates:
    """Seconds per unit: kernel → term → seconds; `any` holds for kernels that were not timed.

    factor: a step takes between its prediction / factor and prediction · factor in 19 of 20 cases.
    """

    by_kernel: Mapping[str, Mapping[str, float]]
    factor: float

    def seconds(self, kernel: str, terms: Mapping[str, float]) -> float:
        """Seconds of one launch."""
        rates = self.by_kernel.get(kernel) or self.by_kernel[ANY]
        return sum(amount * rates.get(term, 0.0) for term, amount in terms.items())

    def scaled(self, factors: Mapping[str, float], factor: float) -> "Rates":
        """The rates of another device: each multiplied by the factor of its group (see `kernels.GROUPS`)."""
        found = {k: {t: s * factors[GROUP[t]] for t, s in rates.items()} for k, rates in self.by_kernel.items()}
        return Rates(found, factor)


def steps(program: Program, rates: Rates, caches: Caches) -> list[float]:
    """Predicted seconds of each launch of a step on a full batch, in order."""
    terms = kernels.work(program, caches)
    return [rates.seconds(kernels.kernel(launch), t) for launch, t in zip(program.order, terms, strict=True)]


def fit(samples: Iterable[TimedLaunch], memory: float = 0.0) -> dict[str, dict[str, float]]:
    """The rates of every kernel that occurs in the samples, and of `any`, fitted to all of them.

    memory: seconds per byte of memory itself. A far byte costs a kernel at least that and what `middle` does.
    """
    by_kernel: dict[str, list[TimedLaunch]] = {}
    for s in samples:
        by_kernel.setdefault(s.kernel, []).append(s)
    found = {name: _fitted(own) for name, own in by_kernel.items()}
    common = [TimedLaunch(ANY, _common(s.terms), s.seconds, s.case) for own in by_kernel.values() for s in own]
    found[ANY] = _fitted(common)
    for own in found.values():
        least = max(own.get("middle", 0.0), memory)
        own |= {term: max(own.get(term, 0.0), least) for term in ("far", "far_weights")}
    return found


def _common(terms: Mapping[str, float]) -> dict[str, float]:
    """The terms that every kernel has: what a kernel that was never timed is predicted by."""
    kept = {t: terms[t] for t in ("call", "cold", *LEVELS) if t in terms}
    return kept | {"mac": terms.get("mac", 0.0)}


def _mostly_far(terms: Mapping[str, float]) -> bool:
    return terms.get("far", 0.0) > terms.get("near", 0.0) + terms.get("middle", 0.0)


def _merged(terms: Mapping[str, float]) -> dict[str, float]:
    """The terms with `far` in `middle`: of a few bytes among many nothing can be learnt about memory."""
    beyond = terms.get("middle", 0.0) + terms.get("far", 0.0)
    return {t: v for t, v in terms.items() if t != "far"} | ({"middle": beyond} if beyond else {})


def _fitted(samples: Sequence[TimedLaunch]) -> dict[str, float]:
    from scipy.optimize import nnls

    given = [s.terms for s in samples]
    if sum(_mostly_far(terms) for terms in given) < ENOUGH:
        given = [_merged(terms) for terms in given]
    names = sorted({t for terms in given for t in terms})
    amounts = np.array([[terms.get(t, 0.0) for t in names] for terms in given])
    seconds = np.array([s.seconds for s in samples])
    size = np.maximum(amounts.max(axis=0), 1e-300)
    scaled, weight = amounts / size, 1 / seconds
    for _ in range(ROUNDS):
        x, _ = nnls(scaled * weight[:, None], seconds * weight)
        error = np.abs(scaled @ x / seconds - 1)
        weight = 1 / (seconds * np.sqrt(np.maximum(error, ALIKE)))
    return {name: float(r) for name, r in zip(names, x / size, strict=True) if r > 0}


def scaled_by(samples: Sequence[TimedLaunch], known: Rates, folds: int = 5) -> Rates:
    """The rates of another machine, scaled group by group to launches that were timed on this one.

    The factor of the interval is that of cases left out of the fit (`spread`), at least PROBED.
    """
    cases, ratios = sorted({s.case for s in samples}), []
    for fold in range(folds):
        left_out = set(cases[fold::folds])
        found = known.scaled(scales([s for s in samples if s.case not in left_out], known), 1.0)
        for case in left_out:
            own = [s for s in samples if s.case == case]
            ratios.append(sum(found.seconds(s.kernel, s.terms) for s in own) / sum(s.seconds for s in own))
    factor = float(np.exp(np.quantile(np.abs(np.log(ratios)), 0.95)))
    return known.scaled(scales(samples, known), max(PROBED, factor))


def scales(samples: Sequence[TimedLaunch], known: Rates) -> dict[str, float]:
    """Group of terms → how many times the seconds of known rates, none further than FURTHEST from them all."""
    from scipy.optimize import lsq_linear

    groups = sorted(set(GROUP.values()))
    by_group = [
        [known.seconds(s.kernel, {t: a for t, a in s.terms.items() if GROUP[t] == group}) for group in groups]
        for s in samples
    ]
    seconds, predicted = np.array([s.seconds for s in samples]), np.array(by_group)
    middle = float(np.median(seconds / predicted.sum(axis=1)))
    bounds, weight = (middle / FURTHEST, middle * FURTHEST), 1 / seconds
    for _ in range(ROUNDS):
        x = lsq_linear(predicted * weight[:, None], seconds * weight, bounds).x
        error = np.abs(predicted @ x / seconds - 1)
        weight = 1 / (seconds * np.sqrt(np.maximum(error, ALIKE)))
    return dict(zip(groups, x.tolist(), strict=True))


def spread(samples: Sequence[TimedLaunch], folds: int = 5, share: float = 0.95) -> float:
    """The factor within which `share` of the cases lie when predicted by rates fitted without them."""
    cases = sorted({s.case for s in samples})
    ratios = []
    for fold in range(folds):
        left_out = set(cases[fold::folds])
        found = Rates(fit(s for s in samples if s.case not in left_out), 1.0)
        for case in left_out:
            own = [s for s in samples if s.case == case]
            ratios.append(sum(found.seconds(s.kernel, s.terms) for s in own) / sum(s.seconds for s in own))
    return float(np.exp(np.quantile(np.abs(np.log(ratios)), share)))
