"""`python -m validation.campaign [PART …]`: run the campaign and write its record and its page of figures."""

import argparse
import importlib
import shlex
import sys
import tempfile
import time
from pathlib import Path

from gradledger.record import provenance
from refimpl import checkpoint

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
    parser.add_argument("--output", type=Path, help="write the record here; default the results, for a whole campaign")
    asked = parser.parse_args()
    for name in asked.parts:
        if name not in PARTS:
            parser.error(f"there is no part {name!r}; known: {', '.join(PARTS)}")
    record = {"seed": asked.seed, "short": asked.short, "parts": {}}
    for name in asked.parts or PARTS:
        part = importlib.import_module(f"{__package__}.{name}")
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            found = part.run(asked.short, asked.seed, Path(folder), told(name))
        seconds = round(time.perf_counter() - started, 1)
        record["parts"][name] = {
            "says": part.__doc__.split("\n")[0], "tried": found.tried, "wrong": found.wrong,
            "figures": found.figures, "seconds": seconds,
        }  # fmt: skip
        print(f"\r{name}: {found.tried:,} tried, {len(found.wrong)} wrong, {seconds:.0f} s", flush=True)
        for sentence in found.wrong:
            print(f"  {sentence}")
    record["ok"] = not any(p["wrong"] for p in record["parts"].values())
    record |= provenance() | {"command": shlex.join(["python", "-m", "validation.campaign", *sys.argv[1:]])}
    whole = not asked.parts and not asked.short
    if asked.output or whole:
        checkpoint.write_json(asked.output or RECORD, record)
    if whole and not asked.output:
        checkpoint.write_atomic(PAGE, [page(record).encode()])
    return 0 if record["ok"] else 1


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
        f"Printed by `{record['command']}` (seed {record['seed']}) on {record['machine']['processor']}, "
        f"{record['machine']['cores']} cores; `validation/results/campaign.json` is the record.",
        "",
        "| part | what is done and what must hold | tried | wrong | seconds |",
        "|---|---|---:|---:|---:|",
    ]
    for name, p in record["parts"].items():
        lines.append(f"| {name} | {p['says']} | {p['tried']:,} | {len(p['wrong'])} | {p['seconds']:,.0f} |")
    for name, p in record["parts"].items():
        lines += ["", f"## {name}", ""]
        lines += [f"- {figure}: {value:,}" if isinstance(value, int) else f"- {figure}: {value}"
                  for figure, value in p["figures"].items()]  # fmt: skip
        lines += [f"- wrong: {sentence}" for sentence in p["wrong"]]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
