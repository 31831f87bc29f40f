"""What a recipe adds to a run: the classifier that trains first, and the looks at samples held out.

The steps of probes are steps like the others, and counted with them.
"""

from collections import Counter
from collections.abc import Mapping

import refimpl as ri
from costmodel import predict
from costmodel.advice import integers
from refimpl.recipes.head import parts_of, parts_of_fit
from refimpl.training.evaluator import inference
from validation.instruments import measured

from .settings import AdaptSettings


def drawn_up(record: dict, settings: AdaptSettings, program: ri.Program) -> dict[str, dict]:
    """Multiply-adds of each part of a record's recipe, predicted and measured; empty where it is plain.

    Of looks that multiply whole numbers these products are there too, as `imacs`.

    Predicted: from the number of samples, passes and looks; measured: from what was launched, counted.
    """
    course = record["course"]
    if not course.get("looks"):
        return {}
    train, held = record["samples"]["train"], record["samples"]["validation"]
    looks = seen(course)
    infers = inference(program)
    sizes, ran = parts(held, program.batch) * looks, listed(course["seen"])
    found: dict[str, dict] = {"looks": both(infers, sizes, ran)}
    if imacs := integers.run_imacs(infers, sizes):
        products = {"predicted": imacs, "measured": measured.run_flops(infers, ran, measured.counted_imacs)}
        found["looks"]["imacs"] = products
    if first := course["first"]:
        made_of = parts_of(program.graph, program.plan, program.batch, settings.backend, settings.threads)
        for part, key, of, expected in parts_of_fit(*made_of, train, held, first["again"], first["steps"]):
            found[part] = both(of, expected, made(first["ran"][key]))
    return found


def seen(course: dict) -> int:
    """How often the held-out samples were looked at; a step that fails stands for a look that was not made."""
    looks = [*course["looks"], *course["direct"], *(look for probe in course["probed"] for look in probe)]
    last = course.get("again", {}).get("loss") is not None
    return sum(loss is not None for _, loss, _ in looks) + last


def parts(count: int, batch: int) -> list[int]:
    """The mini-batches of a pass over so many samples."""
    return [batch] * (count // batch) + ([count % batch] if count % batch else [])


def both(program: ri.Program, sizes: list[int], ran: Mapping[tuple[str, int], int]) -> dict[str, int | float]:
    """Multiply-adds of a program, predicted for mini-batches and measured by what ran."""
    return {
        "predicted": predict.run_macs(program, sizes),
        "measured": predict.as_macs(measured.run_flops(program, ran)),
    }


def listed(seen: list) -> Counter:
    """(section, samples) → times of what JSON holds as rows."""
    return Counter({(section, n): times for section, n, times in seen})


def made(rows: list) -> Counter:
    """The same of `ledger.listed`, blocks left out or not."""
    return sum((listed(ran) for _, ran in rows), Counter())
