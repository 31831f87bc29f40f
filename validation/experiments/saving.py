"""What runs save of the computation of SGD, and what that does to accuracy, by pairs of runs of the same seed.

A point of a run is [steps, multiply-adds, share of the test images named right].
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import refimpl as ri
from costmodel import predict

from ..instruments import measured
from .runs import judged, percents, spread

Points = Sequence[Sequence[float]]  # one of each seed


def weighed_macs(trainer: ri.Trainer) -> float:
    """Multiply-adds of every launch that a trainer made, counted; a product of whole numbers as its bits' share."""
    return measured.run_flops(trainer.program, trainer.made[frozenset()], measured.weighed_flops) / 2


def dense_macs(program: ri.Program, samples: int, epochs: int) -> float:
    """Multiply-adds of all steps of a dense run, predicted: what such a run is counted to have made is equal to it."""
    whole, rest = divmod(samples, program.batch)
    return predict.run_macs(program, ([program.batch] * whole + [rest] * bool(rest)) * epochs)


def entered(trainer: ri.Trainer) -> Counter:
    """Section → instances that entered it, over all steps."""
    found = Counter()
    for (section, n), times in trainer.made[frozenset()].items():
        found[section] += n * times
    return found


def shares(trainer: ri.Trainer) -> dict[str, float]:
    """Shares of the mini-batches' instances that trained the main net, and that ran forward as uncertain."""
    found = entered(trainer)
    seen = trainer.step * trainer.program.batch
    return {section: round(found[section] / seen, 4) for section in ("forward", "uncertain") if found[section]}


def saved(points: Points, sgd: Points) -> list[float]:
    """Share of the computation of SGD that each run left out."""
    return [1 - mine[1] / its[1] for mine, its in zip(points, sgd, strict=True)]


def gained(points: Points, sgd: Points) -> list[float]:
    """Accuracy of each run less that of SGD."""
    return [mine[2] - its[2] for mine, its in zip(points, sgd, strict=True)]


def row(points: Points, sgd: Points) -> dict:
    """A row of a record: computation saved, accuracy and gain in percent, and steps."""
    return {
        "saved": percents(saved(points, sgd)),
        "accuracy": percents([p[2] for p in points]),
        "gain": percents(gained(points, sgd)),
        "steps": spread([p[0] for p in points]),
    }


def goals(name: str, points: Points, sgd: Points, least: Mapping[str, float]) -> list[dict]:
    """The verdicts on what a method saves and gains: at least `least["saved"]` percent and `least["gain"]` points."""
    return [
        judged(f"{name}: saves computation, %", [100 * x for x in saved(points, sgd)], least["saved"]),
        judged(
            f"{name}: accuracy to SGD of the same seed, points", [100 * x for x in gained(points, sgd)], least["gain"]
        ),
    ]
