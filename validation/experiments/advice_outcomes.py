"""Do trials on a person's data tell which plans end best? Beside them the expected gradient error, which does not.

gradledger reproduce advice-outcomes

For each pair of `outcome_pairs` and each seed `gradledger cost --advise --data` names plans, and tries some of them
within SECONDS; each command that it prints for a plan that was tried then runs as it stands. Spearman's rank
correlation, over the plans of a pair and seed, is that of the trial's accuracy, ties by its loss, and of the expected
gradient error, small being good, with the accuracy after the run on samples that neither saw.

Plans whose outcomes differ by less than a sample or two are in no true order: `spread` is the difference between the
best and the worst outcome, and `chosen` how many points the plan that the trials put first lies below the best.
"""

import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from .command_line import LONGEST, laid_out, printed
from .outcome_pairs import PAIRS
from .runs import FRESH, OPEN, Runs, certain, spread, verdicts

NAME = "advice-outcomes"
SECONDS = 60.0
CORRELATION = 0.7  # that is asked for, as a mean over the pairs
DEVICE = "raspberry-pi-4"  # whose prices are the same on every machine


@dataclass(frozen=True)
class Protocol:
    """What is run. seconds: of the trials of a pair and seed; epochs: of a run, None is what the command takes."""

    pairs: tuple[str, ...] = ("watch", "digits", "garments", "written", "classes", "mobilenet")
    seeds: tuple[int, ...] = FRESH[:1]
    seconds: float = SECONDS
    epochs: int | None = None


def run(output: Path, watch: Callable[[int, int, str], None], protocol: Protocol | None = None) -> dict:
    """Advise and run what was advised, for every pair; the record. Finished ones are kept and not run again."""
    protocol = protocol or Protocol()
    runs = Runs(output, NAME, {"seconds": protocol.seconds, "epochs": protocol.epochs})
    work = [(name, seed) for name in protocol.pairs for seed in protocol.seeds]
    for i, (name, seed) in enumerate(work):
        watch(i, len(work), f"{name}, seed {seed}")
        if not runs.get(pair=name, seed=seed):
            runs.add(pair=name, seed=seed, **followed(name, seed, output / NAME, protocol))
    return {"name": NAME, **judge({"protocol": asdict(protocol), "runs": runs.found})}


def followed(name: str, seed: int, folder: Path, protocol: Protocol) -> dict:
    """The advice on a pair, and what became of each plan that was tried."""
    pair, plans = PAIRS[name], []
    net = str(pair.net(folder, seed))
    with laid_out(pair.samples(seed), folder) as (source, place):
        asked = ["cost", "--advise", "--model", net, "--data", str(source), "--device", DEVICE, *pair.options]
        asked += ["--trial-seconds", f"{protocol.seconds:g}", "--output", str(place / "advice")]
        advice = printed(asked, LONGEST)
        if not advice["ok"]:
            return {"error": advice.get("error") or advice.get("reason"), "plans": []}
        for number, plan in enumerate(p for p in advice["front"] if p["trial"]):
            command = shlex.split(plan["command"])[1:] + ["--output", str(place / f"run-{number}")]
            command += [] if protocol.epochs is None else ["--epochs", str(protocol.epochs)]
            r = printed(command, LONGEST)
            plans.append({
                "plan": f"{plan['as_given']}, last {plan['train_last']}, batch {plan['batch']}",
                **{key: plan["trial"][key] for key in ("accuracy", "loss", "rank", "before", "steps", "seconds")},
                "gradient_error": plan["gradient_error"],
                "after": r.get("accuracy_after"),
                "run_seconds": r.get("seconds"),
                "error": None if "accuracy_after" in r else r.get("error") or r.get("reason"),
            })  # fmt: skip
    return {"plans": plans}


def correlation(first: list[float], second: list[float]) -> float | None:
    """Spearman's; None where one of them is all the same."""
    from scipy import stats

    if len(set(first)) < 2 or len(set(second)) < 2:
        return None
    return round(float(stats.spearmanr(first, second).statistic), 3)


def judge(record: dict) -> dict:
    """What the runs of a record show: correlations of each pair and seed, and whether their mean is what is asked."""
    measured: dict[str, dict] = {}
    for r in record["runs"]:
        done = [p for p in r["plans"] if p["after"] is not None]
        if len(done) < 2:
            continue
        after = [100 * p["after"] for p in done]
        first = min(done, key=lambda p: p["rank"])
        measured[f"{r['pair']}, seed {r['seed']}"] = {
            "plans": len(done),
            "trials": correlation([-p["rank"] for p in done], after),
            "gradient_error": correlation([-p["gradient_error"] for p in done], after),
            "spread": round(max(after) - min(after), 2),
            "chosen": round(max(after) - 100 * first["after"], 2),
        }
    columns = {
        key: [row[key] for row in measured.values() if row[key] is not None]
        for key in ("trials", "gradient_error", "chosen")
    }
    goal = "mean rank correlation of trials and outcomes"
    if columns["trials"]:
        judgement = certain(goal, round(float(np.mean(columns["trials"])), 3), CORRELATION)
    else:
        judgement = {"goal": f"{goal}, of which no pair has one", "least": CORRELATION, "value": 0.0, "verdict": OPEN}
    return {
        "protocol": record["protocol"],
        "published": {},
        "seeds": list(record["protocol"]["seeds"]),
        "measured": measured,
        "mean": {key: spread(values) if values else None for key, values in columns.items()},
        **verdicts([judgement]),
        "settings_chosen_on": {"plans": "samples held out of the training samples of each pair and seed"},
        "runs": record["runs"],
    }  # fmt: skip
