"""Tables of `check` and `export`."""

from rich.markup import escape

from .show import console, multiply_adds, percent, seconds, size
from .show_use import line, table

SHOWN = 5  # nodes that are named of an operator


def operators(record: dict) -> None:
    """What becomes of each operator of a model."""
    made = table(("operator", "left"), ("nodes", "right"), ("trains", "left"))
    for row in record["operators"]:
        made.add_row(escape(row["op"]), f"{row['count']}", escape(verdict(row)))
    console.print(made, highlight=False)


def verdict(row: dict) -> str:
    """Yes; or how many nodes do not, which, and why."""
    if row["missing"]:
        names = ", ".join(m["node"] for m in row["missing"][:SHOWN])
        more = f" and {len(row['missing']) - SHOWN} more" if len(row["missing"]) > SHOWN else ""
        whys = "; ".join(sorted({m["why"] for m in row["missing"]}))
        return f"no: {whys} ({names}{more})"
    if row["forward"]:
        names = ", ".join(m["node"] for m in row["forward"][:SHOWN])
        more = f" and {len(row['forward']) - SHOWN} more" if len(row["forward"]) > SHOWN else ""
        whys = "; ".join(sorted({m["why"] for m in row["forward"]}))
        return f"forward only: {whys} ({names}{more})"
    return f"{row['behind']} of them come after one that is missing" if row["behind"] else "yes"


def checked(record: dict) -> None:
    """The tables of a model that can be trained."""
    operators(record)
    shape = "x".join(map(str, (*record["size"], record["channels"])))
    counted = sum(layer["trains"] == "counted" for layer in record["layers"])
    line(
        f"\ntakes {shape}, tells {record['outputs']} classes; {record['parameters']:,} parameters, {counted} "
        f"{record['counted']} that --train-last counts, and the classifier"
    )
    for note in record.get("notes", ()):
        line(note)
    line("")
    stepped(record["methods"])
    line(f"a step of {record['batch']} on this machine, with each method's own layers; --train-last chooses others")
    if whole := record.get("whole"):
        if whole["ok"]:
            line("\nquantized; with --whole it trains in its own whole numbers, whose multiply-adds are IMAC:\n")
            stepped(whole["methods"])
        else:
            line(f"\nquantized, and trains in floats alone: {whole['reason']}")


def stepped(rows: list[dict]) -> None:
    """What a step of each method takes."""
    made = table(
        ("method", "left"), ("layers", "left"), ("a step", "right"), ("time", "right"), ("state and arena", "right"),
        ("process", "right"),
    )  # fmt: skip
    refused = []
    for row in rows:
        if "refused" in row:
            refused.append(row)
            continue
        resident = "" if row["resident_bytes"] is None else size(row["resident_bytes"])
        step = "\n".join(multiply_adds(row["macs"], row["imacs"])), seconds(row["seconds"]["mid"])
        made.add_row(row["method"], str(row["train_last"]), *step, size(row["bytes"]), resident)
    console.print(made, highlight=False)
    for row in refused:
        line(f"not by {row['method']}: {row['refused']}")


def exported(record: dict) -> None:
    """Where the model is."""
    line(f"{record['file']}, {size(record['bytes'])}: the graph of {record['like']} with the weights of {record['of']}")
    if made := record.get("int8"):
        line(f"{made['file']}, {size(made['bytes'])}: the same in int8, with ranges from {made['samples']} samples of "
             f"{made['data']}, of which {percent(made['same_class'])} keep their class")  # fmt: skip
