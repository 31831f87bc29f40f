"""`python -m validation.campaign [PART …]`: run the campaign and write its record and its page of figures."""

import argparse
import importlib
import json
import shlex
import sys
import tempfile
import time
from pathlib import Path

from refimpl.storage import checkpoint
from validation.instruments.provenance import provenance

from . import PARTS

ROOT = Path(__file__).parent.parent.parent
RECORD = ROOT / "validation/results/campaign.json"
PAGE = ROOT / "docs/campaign.md"


def main() -> int:
    """Run the parts that are named, default all; 0 where nothing went wrong, else 1."""
    parser = argparse.ArgumentParser(prog="python -m validation.campaign", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default all")
    parser.add_argument("--short", action="store_true", help="the few cases that the tests run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="file of the record; default that of the results, --short: none")
    asked = parser.parse_args()
    for name in asked.parts:
        if name not in PARTS:
            parser.error(f"there is no part {name!r}; known: {', '.join(PARTS)}")
    path = asked.output or (None if asked.short else RECORD)
    record = {"parts": {}}
    for name in asked.parts or PARTS:
        found = one(name, asked.short, asked.seed)  # first: another campaign may write its parts meanwhile
        record = {"parts": earlier(path) | record["parts"] | {name: found}}
        record["ok"] = not any(p["wrong"] for p in record["parts"].values())
        if path:  # after each part: the next may be the one that ends this process
            checkpoint.write_json(path, record)
    if path == RECORD:
        checkpoint.write_atomic(PAGE, [page(record).encode()])
    return 1 if any(record["parts"][name]["wrong"] for name in asked.parts or PARTS) else 0


def one(name: str, short: bool, seed: int) -> dict:
    """Run a part and tell what it found; its entry in the record."""
    part = importlib.import_module(f"{__package__}.{name}")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = part.run(short, seed, Path(folder), told(name))
    seconds = round(time.perf_counter() - started, 1)
    print(f"\r{name}: {found.tried:,} tried, {len(found.wrong)} wrong, {seconds:.0f} s", flush=True)
    for sentence in found.wrong:
        print(f"  {sentence}")
    return {
        "says": part.__doc__.split("\n")[0], "tried": found.tried, "wrong": found.wrong, "figures": found.figures,
        "seconds": seconds, "seed": seed, "short": short, **provenance(),
        "command": shlex.join(["python", "-m", "validation.campaign", *sys.argv[1:]]),
    }  # fmt: skip


def earlier(path: Path | None) -> dict:
    """The parts of a record that is there already, in their order; those that are run now take their places."""
    if path is None or not path.exists():
        return {}
    return json.loads(path.read_text(encoding="utf-8"))["parts"]


def told(name: str):
    """A function `watch(done, of)` that shows how far a part is, with the time that is left, on a terminal."""
    started = time.perf_counter()

    def watch(done: int, of: int) -> None:
        if sys.stderr.isatty():
            left = (time.perf_counter() - started) / max(1, done) * (of - done)
            print(f"\r{name}: {done:,} of {of:,}, ETA {left:.0f} s ", end="", file=sys.stderr, flush=True)

    return watch


def page(record: dict) -> str:
    """The figures of a campaign as Markdown."""
    lines = [
        "# What breaking it on purpose showed",
        "",
        "`make campaign` runs every part and `python -m validation.campaign PART` one; "
        "`validation/results/campaign.json` is the record, with versions.",
        "",
        "| part | what is done and what must hold | tried | wrong | seconds | seed | processor |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    parts = {name: record["parts"][name] for name in PARTS if name in record["parts"]}
    for name, p in parts.items():
        where = f"{p['machine']['processor']}, {p['machine']['cores']} core(s)"
        cells = (name, p["says"], f"{p['tried']:,}", len(p["wrong"]), f"{p['seconds']:,.0f}", p["seed"], where)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    for name, p in parts.items():
        lines += ["", f"## {name}", "", f"Printed by `{p['command']}`.", ""]
        lines += [f"- {figure}: {value:,}" if isinstance(value, int) else f"- {figure}: {value}"
                  for figure, value in p["figures"].items()]  # fmt: skip
        lines += [f"- wrong: {sentence}" for sentence in p["wrong"]]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
