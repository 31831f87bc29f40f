"""What every plan computes on every bundled net, as a table to hold the next version against.

`python -m validation.instruments.snapshot` compares this tree with `results/snapshot.json` and tells each figure that
differs; `--write` records it anew, `--only TEXT` takes the cases whose names have that text. A case is a model, a
combination of methods or a variant of back-propagation, and a backend: five steps on 14 samples in batches of 3, so
that the last one is partial. It keeps the losses to the bit, bytes of every region, operations counted by running the
reference bodies, executed and predicted, and the names of the launches.

Bits of a loss depend on the processor, on OPENBLAS_CORETYPE and on the versions of NumPy, SciPy and Numba: on another
machine losses are compared to 0.1 %, everything else exactly.
"""

import argparse
import hashlib
import itertools
import json
import multiprocessing
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np

import refimpl as ri
from costmodel import predict
from refimpl.kernels import random
from refimpl.methods.registry import KINDS, known
from refimpl.plan.combinations import check_combination
from refimpl.storage import checkpoint
from refimpl.surgery.for_step import made_for

from . import measured
from .provenance import provenance

RECORD = Path(__file__).parents[1] / "results" / "snapshot.json"
BATCH, SAMPLES, THREADS = 3, 14, 2
BACKENDS = ("fast", "reference")
SMALL = {  # models of larger maps, at a size that their layers still fit
    "resnet10": (32, 32), "resnet18": (32, 32), "resnet34": (32, 32), "resnet74": (16, 16), "resnet110": (16, 16),
    "mobilenet_v2": (32, 32), "mobilenet_folded": (32, 32), "efficientnet_lite0": (32, 32),
}  # fmt: skip
DEEP = ("resnet34", "resnet74", "resnet110", "vgg16", "efficientnet_lite0")  # the same layers: no combinations
FEW = ("lenet5", "resnet8")  # where methods that say so are combined with others, and tried with other settings
CLASSES = 5
TOLERANCE = 1e-3

MOMENTUM = ri.SGD(lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4)
VARIANTS = {  # back-propagation with other settings
    "classifier": ri.Plan(0),
    "last-2": ri.Plan(2, train_bias=True),
    "momentum": ri.Plan(step=ri.Backprop(MOMENTUM, clip_norm=1.0)),
    "adam": ri.Plan(step=ri.Backprop(ri.Adam(lr=1e-3, weight_decay=0.01, decoupled=True))),
    "batch-norm": ri.Plan(batch_norm="train", train_bias=True, label_smoothing=0.1),
    "mse": ri.Plan(step=ri.Backprop(ri.SGD(lr=1e-5)), loss="mse"),
    "weighted": ri.Plan(class_weights=(1.0, 2.0, 0.5, 1.0, 1.0)),
}


def combinations() -> Iterator[tuple[str, ...]]:
    """Every set of methods that combine."""
    for count in range(1, len(known()) + 1):
        for methods in itertools.combinations(known(), count):
            try:
                check_combination(methods)
            except ValueError:
                continue
            yield methods


def plan_of(methods: tuple[str, ...]) -> ri.Plan:
    """The plan of some methods with their defaults, or what they state for a few samples."""
    return plan_with({name: known()[name].states.tried.small for name in methods})


def plan_with(methods: Mapping[str, Mapping], **settings) -> ri.Plan:
    """The plan of some methods, name → settings, with plain SGD and other settings of the plan."""
    made: dict[str, list] = {kind: [] for kind in KINDS}
    for name, own in methods.items():
        made[known()[name].states.kind].append(known()[name](**own))
    sgd = ri.SGD(lr=0.01)
    return ri.Plan(
        **{"train_bias": bool(made["bias"])} | settings,
        rules=made["rule"],
        step=next((replace(step, optimizer=sgd) for step in made["step"]), ri.Backprop(sgd)),
        instances=next(iter(made["instances"]), None),
        depth=next(iter(made["depth"]), None),
        bias_only=bool(made["bias"]),
    )


def plans(model: str) -> dict[str, ri.Plan]:
    """Name → plan of a model."""
    everywhere = lambda methods: not any(known()[name].states.tried.few for name in methods)  # noqa: E731
    sets = [m for m in combinations() if len(m) == 1 or model not in DEEP and (model in FEW or everywhere(m))]
    stated = {
        f"{name}{tail}": plan_with({name: own}, **of_plan)
        for name, method in known().items() if model in FEW or everywhere([name])
        for tail, (own, of_plan) in method.states.tried.variants.items()
    }  # fmt: skip
    return {"+".join(m): plan_of(m) for m in sets} | VARIANTS | stated


def graph_of(model: str) -> ri.Graph:
    """The net of a model at the size of the table."""
    size = {"size": SMALL[model]} if model in SMALL else {}
    graph = ri.models.build(model, classes=CLASSES, **size)
    if model.startswith("resnet"):  # a new net of a hundred blocks would double its maps at each
        graph.weights = {n: np.full(p.shape, 0.25) for n, p in graph.parameters.items() if n.endswith(".gamma")}
    return graph


def samples(graph: ri.Graph) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (14, H, W, C), float32, and class numbers (14,), int64, the same on every machine."""
    shape = (SAMPLES, *graph.size, graph.channels)
    x = random.uniform(0, random.WEIGHTS, 1, int(np.prod(shape))).reshape(shape).astype(np.float32)
    return x, np.arange(SAMPLES) % CLASSES


def names() -> list[str]:
    """Every case, `model plan backend`; plans that a model refuses are found when it is built."""
    return [f"{m} {p} {b}" for m in ri.models.MODELS for p in plans(m) for b in BACKENDS]


def figures(name: str) -> dict:
    """The figures of a case; its only entry is `refused`, the reason, where the plan does not fit the model."""
    model, label, backend = name.split()
    graph, plan = graph_of(model), plans(model)[label]
    x, y = samples(graph)
    targets = y
    if plan.loss == "mse":
        targets = np.eye(CLASSES, dtype=np.float32)[y]
    try:
        graph = made_for(plan.step, graph, x, 3)
        program = ri.compile(graph, plan, BATCH, backend=backend, threads=THREADS)
    except ValueError as e:
        return {"refused": str(e)}
    trainer = ri.Trainer(program, seed=3)
    stopped = {}
    try:
        trainer.fit(x, targets, 1)
    except ri.NonFiniteError as e:
        stopped = {"stopped": str(e)}
    price = predict.estimate(program)
    launches = [launch.name for launch in program.order]
    return {
        "losses": np.array(trainer.losses, ">f4").tobytes().hex(),
        "peak_bytes": program.peak_bytes,
        "state_bytes": program.state_bytes,
        "constant_bytes": program.constant_bytes,
        "saved_bytes": program.saved_bytes,
        "counted": measured.all_flops(program, trainer.made),
        "executed": measured.all_flops(program, trainer.made, measured.executed_flops),
        "predicted": predict.flops_of(price),
        "predicted_executed": predict.executed_of(price),
        "launches": len(launches),
        "launch_names": hashlib.sha256("\n".join(launches).encode()).hexdigest()[:16],
    } | stopped


def differences(
    name: str, before: Mapping, now: Mapping, same_bits: bool, same_vectors: bool = True
) -> Iterator[str]:  # fmt: skip
    """A sentence for each figure of a case that is not what it was.

    What kernels execute, and the arena, which has their panels, are compared on vectors as wide only.
    """
    for key in dict.fromkeys([*before, *now]):
        old, new = before.get(key), now.get(key)
        if not same_vectors and ("executed" in key or key == "peak_bytes"):
            continue
        if key == "losses" and old and new and not same_bits:
            a, b = (np.frombuffer(bytes.fromhex(losses), ">f4") for losses in (old, new))
            if len(a) == len(b) and np.allclose(a, b, rtol=TOLERANCE, atol=0):
                continue
        if old != new:
            yield f"{name}: {key} was {old}, is {new}"


def avx512() -> bool:
    """Has this processor the vectors by which products are cut into other blocks (`backends.cpu.product`)?"""
    return bool(llvm.get_host_cpu_features().get("avx512f"))


def bits() -> dict:
    """What the bits of a loss depend on beside the sources."""
    here = provenance()
    versions = {name: here["versions"][name] for name in ("numpy", "numba", "llvmlite", "scipy")}
    features = llvm.get_host_cpu_features().flatten()
    return {
        "processor": here["machine"]["processor"],
        "kind": llvm.get_host_cpu_name(),
        "features": hashlib.sha256(features.encode()).hexdigest()[:16],
        "coretype": os.environ.get("OPENBLAS_CORETYPE", ""),
    } | versions


def load(path: Path = RECORD) -> dict:
    """The recorded table."""
    return json.loads(path.read_text())


def text(table: Mapping) -> str:
    """The table as JSON with a line for each case, so that a change shows what it changes."""
    cases = ",\n".join(f"{json.dumps(name)}: {json.dumps(case)}" for name, case in table["cases"].items())
    head = json.dumps({key: value for key, value in table.items() if key != "cases"})
    return f'{head[:-1]}, "cases": {{\n{cases}\n}}}}\n'


def compared(table: Mapping, now: Mapping[str, dict]) -> list[str]:
    """Every difference of some cases from the recorded table."""
    same = table["bits"] == bits(), table["avx512"] == avx512()
    before = table["cases"]
    return [line for name, case in now.items() for line in differences(name, before.get(name, {}), case, *same)]


def _together(cases: list[str]) -> dict[str, dict]:
    return {name: figures(name) for name in cases}


def run(cases: Iterable[str], workers: int) -> Iterator[dict[str, dict]]:
    """The figures of some cases, a model and backend at a time, in processes of their own."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name in cases:
        model, _, backend = name.split()
        groups.setdefault((model, backend), []).append(name)
    os.environ["NUMBA_NUM_THREADS"] = str(THREADS)  # of those processes, on whatever cores
    with multiprocessing.get_context("spawn").Pool(workers, maxtasksperchild=1) as pool:
        yield from pool.imap(_together, groups.values())


def main() -> int:
    """Compare with the record, or write it anew; 1 where something differs."""
    parser = argparse.ArgumentParser(
        prog="python -m validation.instruments.snapshot", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--write", action="store_true", help="record these figures in the place of the old ones")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose names have this text")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes (default 2)")
    asked = parser.parse_args()
    known_cases = list(names())
    cases = [name for name in known_cases if asked.only in name]
    table = load() if RECORD.exists() else {"cases": {}}
    told, done = 0, 0
    for now in run(cases, asked.workers):
        done += len(now)
        if asked.write:
            found = table["cases"] | now
            made = {"bits": bits(), "avx512": avx512(), "cases": {n: found[n] for n in known_cases if n in found}}
            table = provenance() | made
            checkpoint.write_atomic(RECORD, [text(table).encode()])
        else:
            lines = compared(table, now)
            told += len(lines)
            print(*lines, sep="\n", end="\n" if lines else "")
        print(f"{done:,} of {len(cases):,} cases", file=sys.stderr, flush=True)
    if not asked.write:
        print(f"{len(cases):,} cases, {told:,} figures differ")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
