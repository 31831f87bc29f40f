"""What a person gets: nets that know something, small real data, and `gradledger adapt` as it comes.

gradledger reproduce outcomes                 small nets, most of them ours: under an hour on two cores
gradledger reproduce outcomes-photographs     int8 nets by others on photographs: an hour
gradledger reproduce outcomes-imagenet        larger nets by others on photographs: hours

For each pair of `outcome_pairs`, each method and each seed `gradledger adapt` runs with no option but the method (and
the size of photographs), in a process of its own, from files. Beside these runs stand, for each pair:

- head alone: the same with `--train-last 0`.
- by hand: back-propagation without a recipe, with the layers and the learning rate of SEARCH that were best on a
  quarter of the training samples of a seed of its own, TRIAL_SEED. Every method is judged by it.

The samples that evaluate are others than those that a recipe or the search chooses by; `adapt` looks at them before the
first step and after the last one. A run that ended below where it began counts as it ended, though its file holds the
weights that it began with. A method that refuses a pair is listed with its sentence.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from refimpl.methods import registry

from .command_line import LONGEST, Samples, commanded
from .outcome_pairs import PAIRS, Pair
from .runs import FRESH, TRIAL_SEED, Runs, best_of, certain, held_out, percents, verdicts

NAME, PHOTOGRAPHS, IMAGENET = "outcomes", "outcomes-photographs", "outcomes-imagenet"
HEAD, HAND = "head alone", "by hand"
SEARCH = tuple(
    {"train_last": last, "lr": lr}
    for last, rates in (("0", (0.1, 0.03, 0.01)), ("all", (0.03, 0.01, 0.003, 0.001)))
    for lr in rates
)
HELD_OUT = 0.25  # of the training samples of a trial
BELOW_HEAD, BELOW_HAND = -1.0, -2.0  # points of accuracy that a method may lack, in each cell and on average


@dataclass(frozen=True)
class Protocol:
    """What is run. epochs: None is what the command takes; longest: seconds after which a run is stopped."""

    pairs: tuple[str, ...]
    methods: tuple[str, ...] = tuple(registry.known())
    seeds: tuple[int, ...] = FRESH[:3]
    epochs: int | None = None
    longest: int = LONGEST


SMALL, LARGE = ("mcunet", "small mobilenet"), ("efficientnet", "mobilenet")
PROTOCOLS = {
    NAME: Protocol(tuple(name for name in PAIRS if name not in (*SMALL, *LARGE))),
    PHOTOGRAPHS: Protocol(SMALL),
    IMAGENET: Protocol(LARGE),
}


def options_of(way: str, settings: Mapping) -> list[str]:
    """What the command is given for a way: a method by its name, HEAD or HAND with settings of SEARCH."""
    if way == HEAD:
        return ["--train-last", "0"]
    if way == HAND:
        return ["--recipe", "plain", "--method", "backprop", "--train-last", settings["train_last"],
                "--lr", f"{settings['lr']:g}"]  # fmt: skip
    return ["--method", way]


def one(pair: Pair, way: str, settings: Mapping, seed: int, s: Samples, folder: Path, protocol: Protocol) -> dict:
    """A run of the command, and what a table says of it; accuracy in shares.

    `error` where it made no net; `ended_worse` where it ended below where it began.
    """
    options = ["--model", str(pair.net(folder, seed)), *pair.options, "--seed", str(seed), *options_of(way, settings)]
    if protocol.epochs is not None:
        options += ["--epochs", str(protocol.epochs)]
    with commanded(s, folder, options, protocol.longest) as (r, weights):
        if weights is None:
            return {"error": r.get("error") or r.get("reason") or f"exit status {r.get('status')}"}
        return {
            "before": r["accuracy_before"],
            "after": r["accuracy_after"],
            "ended_worse": not r["ok"],
            "steps": r["steps"],
            "train_seconds": r["seconds"],
            "macs": r["measured"]["macs"] + sum(part["measured"] for part in r.get("recipe_macs", {}).values()),
            "arena_bytes": r["measured"]["peak_bytes"],
            "resident_bytes": r["measured"]["resident_peak_bytes"],
        }


def run(name: str, output: Path, watch: Callable[[int, int, str], None], protocol: Protocol | None = None) -> dict:
    """Run every way on every pair; the record. Finished runs are kept in `output` and not run again."""
    protocol = protocol or PROTOCOLS[name]
    settings = {"epochs": protocol.epochs, "longest": protocol.longest, "search": SEARCH}
    runs, folder = Runs(output, name, settings), output / NAME
    ways = (HEAD, HAND, *protocol.methods)
    work = [(of, way, seed) for of in protocol.pairs for way in ways for seed in protocol.seeds]

    def trial(of: str, tried: dict) -> float:
        pair = PAIRS[of]
        whole = pair.samples(TRIAL_SEED)
        s = held_out(whole, max(1, int(HELD_OUT * len(whole.x_train))))
        return one(pair, HAND, tried, TRIAL_SEED, s, folder, protocol).get("after", 0.0)

    for i, (of, way, seed) in enumerate(work):
        watch(i, len(work), f"{of}, {way}, seed {seed}")
        best = best_of(runs, of, SEARCH, partial(trial, of)) if way == HAND else {}
        key = {"pair": of, "way": way, "seed": seed, "settings": best}
        if not runs.get(**key):
            pair = PAIRS[of]
            runs.add(**key, **one(pair, way, best, seed, pair.samples(seed), folder, protocol))
    found = [r for r in runs.found if r.get("pair") in protocol.pairs]
    return {"name": name, **judge({"protocol": asdict(protocol), "runs": found})}


def judge(record: dict) -> dict:
    """What the runs of a record show: by pair and way accuracies, seconds and bytes; and whether the goals hold."""
    protocol, measured = record["protocol"], dict[str, dict]()
    for name in protocol["pairs"]:
        for way in (HEAD, HAND, *protocol["methods"]):
            own = [r for r in record["runs"] if (r["pair"], r["way"]) == (name, way) and r["seed"] in protocol["seeds"]]
            refused = [r["error"] for r in own if "error" in r]
            measured[row_of(name, way)] = {"refused": refused[0]} if refused else {
                "before": percents([r["before"] for r in own]),
                "after": percents([r["after"] for r in own]),
                "ended_worse": sum(r["ended_worse"] for r in own),
                "minutes": round(sum(r["train_seconds"] for r in own) / len(own) / 60, 2),
                "macs": round(sum(r["macs"] for r in own) / len(own)),
                "arena_bytes": max(r["arena_bytes"] for r in own),
                "resident_bytes": max(r["resident_bytes"] for r in own),
                "settings": " ".join(f"{key}={value}" for key, value in own[0]["settings"].items()),
            }  # fmt: skip
    return {
        "protocol": protocol,
        "published": {},
        "seeds": list(protocol["seeds"]),
        "pairs": {name: PAIRS[name].about for name in protocol["pairs"]},
        "measured": measured,
        **verdicts(goals(measured, protocol)),
        "settings_chosen_on": {"by hand": f"{HELD_OUT:.0%} of the training samples of seed {TRIAL_SEED}"},
        "runs": record["runs"],
    }


def row_of(pair: str, way: str) -> str:
    """The name of a row of `measured`."""
    return f"{pair}, {way}"


def goals(measured: dict, protocol: Mapping) -> list[dict]:
    """Three goals: the worst cell against its beginning and against the head alone; the mean against the search."""
    over_before, over_head, over_hand = [], [], []
    for pair in protocol["pairs"]:
        beside = [measured[row_of(pair, way)] for way in (HEAD, HAND)]
        if any("refused" in row for row in beside):
            continue
        head, hand = (row["after"]["mean"] for row in beside)
        for row in (measured[row_of(pair, method)] for method in protocol["methods"]):
            if "refused" not in row:
                after = row["after"]["mean"]
                over_before.append(after - row["before"]["mean"])
                over_head.append(after - head)
                over_hand.append(after - hand)
    return [
        certain("worst cell, points above its beginning", min(over_before), 0.0),
        certain("worst cell, points above the head alone", min(over_head), BELOW_HEAD),
        certain("mean of the cells, points above the search by hand", sum(over_hand) / len(over_hand), BELOW_HAND),
    ]
