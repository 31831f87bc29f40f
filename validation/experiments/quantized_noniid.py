"""Gradient filtering with 8-bit gradients on data that are not identically distributed: arXiv 2301.00330, supplement H.

gradledger reproduce quantized-noniid

The split, the net and the recipe are those of `noniid`: half A of Fashion-MNIST trains ResNet-20, its last four
convolutions and the classifier then learn half B under gradient filtering with patch 2, alone and with both of the
quantizers of arXiv 2010.14298: `ptq`, one scale for the error map of the mini-batch, and `psq`, one for each sample.
[ours] Fewer epochs than `noniid`, one for half A and five for half B: what the time allowed. No setting was chosen by a
result; half B's test images are looked at once a run, at its end. Differences are taken within a seed.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import refimpl as ri
from refimpl import data

from . import datasets, noniid
from .noniid import Watch
from .runs import FRESH, Runs, judged, percents, verdicts

NAME = "quantized-noniid"
GOAL = 1.0  # points that 8 bits may lose to gradient filtering alone
SCHEMES = (None, "ptq", "psq")
PUBLISHED = {"note": "arXiv 2301.00330 supplement H filters 8-bit training; its figures were not at hand"}


@dataclass(frozen=True)
class Protocol:
    """What is run, for every seed: gradient filtering with each of SCHEMES. base: the split, the net and the recipe."""

    seeds: tuple[int, ...] = FRESH[:3]
    train_last: int = 4
    patch: int = 2
    pretrain_epochs: int = 1
    adapt_epochs: int = 5

    @property
    def base(self) -> noniid.Protocol:
        """The recipe of `noniid` with these layers and epochs."""
        return noniid.Protocol(
            seeds=self.seeds,
            train_last=(self.train_last,),
            patches=(self.patch,),
            pretrain_epochs=self.pretrain_epochs,
            adapt_epochs=self.adapt_epochs,
        )

    def plan(self, scheme: str | None) -> ri.Plan:
        """How half B is learned."""
        plan = self.base.plan(self.train_last, self.patch)
        return plan if scheme is None else replace(plan, rules=(*plan.rules, ri.QuantizedTraining(scheme)))


def method(patch: int, scheme: str | None) -> str:
    """The method's name on the command line."""
    return noniid.method(patch) + ("" if scheme is None else f"+quantized:scheme={scheme}")


def run(output: Path, watch: Watch, d: data.Dataset | None = None, protocol: Protocol | None = None) -> dict:
    """Do the runs that `output` does not hold yet, and return the result record. d: default the full Fashion-MNIST."""
    d, protocol = d or data.idx(datasets.folder("fashion-mnist")), protocol or Protocol()
    base, current, found = protocol.base, None, []
    runs = Runs(output, NAME, [base.settings(d), protocol.train_last])
    work = [(seed, scheme) for seed in protocol.seeds for scheme in SCHEMES]
    for i, (seed, scheme) in enumerate(work):
        key = {"seed": seed, "method": method(protocol.patch, scheme)}
        if not runs.get(**key):
            if current != seed:
                watch(i, len(work), f"pre-training and maps of the frozen layers, seed {seed}")
                a, b = noniid.halves(d, seed)
                graph, current = noniid.net(d), seed
                graph.weights = noniid.pretrained(a, seed, base, runs.digest, output / f"{NAME}-{seed}.safetensors")
                tail, *maps = noniid.tails(graph, a, b, base)[protocol.train_last]
            watch(i, len(work), f"{key['method']}, seed {seed}")
            runs.add(**key, **noniid.adapt(*maps, tail, protocol.plan(scheme), base, seed))
        found.append(runs.get(**key))
    return record(found, protocol)


def judge(given: dict) -> dict:
    """The record of the runs of a record, made anew."""
    return record(given["runs"], Protocol(**given["protocol"] | {"seeds": tuple(given["seeds"])}))


def record(runs: list[dict], protocol: Protocol) -> dict:
    """The result record of finished runs: a row for each scheme, and whether 8 bits lose more than GOAL."""
    after = {(r["seed"], r["method"]): r for r in runs}
    alone = method(protocol.patch, None)
    measured = {"before": percents([after[s, alone]["before"] for s in protocol.seeds])}
    goals = []
    for scheme in SCHEMES:
        name = method(protocol.patch, scheme)
        mine = [after[s, name]["after"] for s in protocol.seeds]
        measured[name] = percents(mine)
        if scheme is not None:
            gaps = [m - after[s, alone]["after"] for m, s in zip(mine, protocol.seeds, strict=True)]
            measured[name]["gap"] = percents(gaps)
            goals.append(judged(f"{scheme} to gradient filtering alone, points", [100 * g for g in gaps], -GOAL))
    return {
        "name": NAME,
        "published": PUBLISHED,
        "measured": measured,
        "units": "accuracy in percent of half B's test images, gaps in points to gradient filtering of the same seed",
        **verdicts(goals),
        "settings_chosen_on": {
            "all": "as gradient-filter-noniid's record says, partly accuracy on half B's test images; epochs by the "
            "time there was"
        },
        "protocol": asdict(protocol),
        "seeds": list(protocol.seeds),
        "runs": runs,
    }
