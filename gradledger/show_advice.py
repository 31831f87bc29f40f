"""What a person sees of `cost --advise`."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from refimpl.methods.optim import MOMENTUM

from .options import plain_sgd
from .show import console, percent, size


def advised(record: dict) -> None:
    """The Pareto front of `cost --advise`, a line for each plan, then the commands."""
    wide = Console(width=max(console.width, 160))
    rows, columns = record["size"]
    found, measured = record["searched"], "" if record["device_measured"] else " (its kernels were not measured)"
    memory = record["device_memory"]
    limits = [f"the {size(memory[kind])} of {kind.replace('ram', 'RAM')} there" for kind in memory if memory[kind]]
    limits += [] if record["memory_limit"] is None else [f"{size(record['memory_limit'])} of state and arena"]
    limits += [] if record["seconds_per_epoch"] is None else [f"{record['seconds_per_epoch']:g} s an epoch"]
    wide.print(
        f"\n{record['model']}, input {rows}x{columns}, {record['classes']} classes, {record['samples']:,} samples an "
        f"epoch on {escape(record['device'])}{measured}; within {' and '.join(limits) or 'no limits'}\n"
    )
    tried = [p for p in record["front"] if p["trial"]]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (
        ("", "right"), ("method", "left"), ("layers", "right"), ("batch", "right"), ("memory", "right"),
        ("in bytes", "right"), ("an epoch", "right"), ("from", "right"), ("to", "right"),
        ("RAM there", "right"), ("gradient error", "right"), ("cosine", "right"),
        *((("held out", "right"),) if tried else ()),
    ):  # fmt: skip
        table.add_column(name, justify=justify, no_wrap=True)
    for number, p in enumerate(record["front"], start=1):
        spread = p["seconds_per_epoch"]
        times = (f"{spread[k]:,.3g} s" if spread[k] < 1000 else f"{spread[k]:,.0f} s" for k in ("mid", "low", "high"))
        table.add_row(
            str(number), p["as_given"], str(p["train_last"]), str(p["batch"]), size(p["memory_bytes"]),
            f"{p['memory_bytes']:,}", *times, size(p["fits"]["needs"]["ram"]), f"{p['gradient_error']:.3f}",
            f"{p['cosine']:.3f}", *((reached(p["trial"]),) if tried else ()),
        )  # fmt: skip
    wide.print(table, highlight=False)
    on = record["error_measured_on"]
    flash, process = "compiled step keeps in RAM", "training process holds, with one batch of data"
    holds = flash if memory["flash"] else process
    gaps = "" if found["complete"] else "; the front may hold more"
    for line in (
        f"\nnone of these is better than another in memory, time and error; {found['compiled']} of "
        f"{found['candidates']:,} plans were compiled and priced{gaps}",
        "layers: last convolutions that train, the classifier always does; memory: state and arena; RAM there: what "
        f"the {holds}; an epoch: predicted, limited by this value, between from and to; SGD with momentum "
        f"{MOMENTUM:g}, {plain_sgd()} without",
        "gradient error: expected √(1 − cosine²) to the gradient of the whole net, what is frozen counted as 0; "
        f"measured on {on['net']} ({on['data']}; {on['weights']})\n",
        *verdict(record["front"]),
    ):
        console.print(escape(line), highlight=False, soft_wrap=True)
    shown = sorted(enumerate(record["front"], start=1), key=lambda found: (found[1]["trial"] or {}).get("rank", 0))
    for number, p in shown:
        if p["trial"] or not tried:
            console.print(f"{number:3d}  {escape(p['command'])}", highlight=False, soft_wrap=True)
    if tried:
        console.print("\nbest first; the commands of plans that were not tried are in the record", highlight=False)
    console.print()
    for kind, path in record["files"].items():
        if path:
            console.print(f"  {kind:8s} {path}", highlight=False, soft_wrap=True)


def reached(trial: dict | None) -> str:
    """The accuracy that a trial reached, and its rank among them."""
    return "" if trial is None else f"{percent(trial['accuracy'])} #{trial['rank']}"


def verdict(front: list[dict]) -> list[str]:
    """A sentence that says which plan was best on the person's own data; none where nothing was tried."""
    tried = [(number, p["trial"]) for number, p in enumerate(front, start=1) if p["trial"]]
    if not tried:
        return []
    number, best = min(tried, key=lambda found: found[1]["rank"])
    seconds = sum(trial["seconds"] for _, trial in tried)
    return [
        f"held out: accuracy on {best['held_out']:,} of your samples after a trial, {seconds:.0f} s for {len(tried)} "
        f"plans; best is plan {number}: {percent(best['before'])} before, {percent(best['accuracy'])} after "
        f"{best['steps']:,} steps{as_good(front, tried, number)}; trials tell the order of plans, a whole run goes "
        "further\n"
    ]


def as_good(front: list[dict], tried: list[tuple[int, dict]], best: int) -> str:
    """Which plans told as many samples right as the best one, and the cheapest of all these; empty where none did."""
    most = front[best - 1]["trial"]["accuracy"]
    same = [number for number, trial in tried if trial["accuracy"] == most and number != best]
    if not same:
        return ""
    of = {number: front[number - 1] for number in (best, *same)}
    small = min(of, key=lambda number: of[number]["memory_bytes"])
    fast = min(of, key=lambda number: of[number]["seconds_per_epoch"]["mid"])
    return (
        f"; as many right, but for the loss, told plan{'s' * (len(same) > 1)} {', '.join(map(str, same))}: least "
        f"memory takes plan {small}, least time plan {fast}"
    )
