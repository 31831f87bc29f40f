"""Other people's nets: 52 of torchvision and timm as two exporters of PyTorch write them, read, run and trained.

python tools/onnx_gauntlet.py export OUTPUT/onnx-gauntlet classic       by a Python that has torchvision and timm
python tools/onnx_gauntlet.py export OUTPUT/onnx-gauntlet dynamo
python tools/onnx_gauntlet.py gradients OUTPUT/onnx-gauntlet
python tools/onnx_gauntlet.py float64 OUTPUT/onnx-gauntlet NAME …       files whose gradients are not within 1e-3
gradledger reproduce onnx-gauntlet --output OUTPUT                      by one that has gradledger[onnx], onnxruntime

Random weights, one sample of 3×224×224. Of each file that is read:

- forward: the largest difference of its outputs from onnxruntime's, as a share of the largest of these.
- gradients: of each weight that trains, ‖ours − PyTorch's‖ / ‖PyTorch's‖ for a random gradient of the outputs, the
  worst one; a norm below FLOOR of the net's largest counts as that, since some are 0 but for rounding. PyTorch runs the
  file itself, node by node (`tools/onnx_by_torch.py`), batch norms by their running statistics.
  Where that is not within 1e-3, the same with both sides in float64, and PyTorch's own float32 against that.
- memory: the bytes of the arena that a step changes, against those predicted.
- operations: calls of a step whose loops count other operations than their formulas say.
- methods: one step with each of them; those that do not apply, with their sentence.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

import refimpl as ri
from costmodel import predict
from refimpl.formats.onnx import imported
from refimpl.formats.onnx.value import Imported
from refimpl.kernels.passes import ShapeError
from refimpl.methods import registry
from refimpl.storage.checkpoint import CheckpointError

from ..instruments import approximation, counting, measured, snapshot
from .runs import Runs, certain, verdicts

NAME = "onnx-gauntlet"
FORWARD, GRADIENT = 1e-4, 1e-3  # of the largest output; of the norm of a gradient
FLOOR = 1e-6
WIDE = 9.0  # digits in float64
FILES, READ = 104, 95  # files, and how many are to be read
HOLDS = {  # what is said of a file that is read → does it hold?
    "forward": lambda r: r["forward"] <= FORWARD,
    "gradients": lambda r: r["gradient"] <= GRADIENT,
    "memory": lambda r: r["arena_bytes"] == r["touched_bytes"],
    "operations": lambda r: r["miscounted"] == 0,
    "methods": lambda r: not r["failed"],
}


def plan() -> ri.Plan:
    """Every weight trains, by running statistics, on a loss whose gradient can be chosen."""
    return ri.Plan("all", step=ri.Backprop(ri.SGD(lr=1e-9)), batch_norm="frozen", train_bias=True, loss="mse")


def gradient_errors(
    trainer: ri.Trainer, found: Imported, x: np.ndarray, dy: np.ndarray, theirs: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:  # fmt: skip
    """Outputs and target for samples x, in the trainer's dtype, and by weight how far gradients are from theirs."""
    program, end = trainer.program, found.end
    assert end is not None
    y = trainer.predict(x)
    dy = end.ours(dy).astype(x.dtype)
    factor = max(1.0, 2 * float(np.abs(y).max()) / dy.size)  # as large as y, beside which it would be rounded off
    target = y - dy * x.dtype.type(factor * dy.size / 2)  # 2·(y − target) / elements is factor·dy
    approximation.fill(trainer, x, target, 0, 1)
    with trainer.backend.work(program.threads):
        for section in ("forward", "backward"):
            trainer.runner.run(section, len(x))
    exact = {}
    for name in program.step.gradients:
        at = found.stored[name]
        summed = sum(theirs[f"gradient:{node}:{place}"] for node, place in ((at.node, at.place), *at.also))
        exact[name] = at.ours(summed) / at.factor**2
    norms = {name: float(np.linalg.norm(a)) for name, a in exact.items()}
    least, errors = FLOOR * max(norms.values()), {}
    for name, wanted_dw in exact.items():
        own_dw = approximation.full_gradient(program, trainer.runner, name).reshape(wanted_dw.shape) / factor
        errors[name] = float(np.linalg.norm(own_dw - wanted_dw)) / max(norms[name], least)
    return y, target, errors


def in_float64(path: Path) -> float | None:
    """The worst gradient where both sides are in float64; None where PyTorch's are not there."""
    wide = path.with_name(f"{path.stem}.float64.npz")
    if not wide.exists():
        return None
    found = imported(path)
    assert found.graph is not None
    trainer = ri.Trainer(ri.compile(found.graph, plan(), 1, dtype=np.float64), 0)
    with np.load(path.with_suffix(".npz")) as beside, np.load(wide) as theirs:
        x = np.ascontiguousarray(beside["x"].transpose(0, 2, 3, 1)).astype(np.float64)
        return max(gradient_errors(trainer, found, x, beside["dy"].astype(np.float64), theirs)[2].values())


def own_rounding(path: Path) -> float:
    """The worst gradient of PyTorch's float32 against its float64, as ours is held against it."""
    with np.load(path.with_suffix(".npz")) as single, np.load(path.with_name(f"{path.stem}.float64.npz")) as double:
        names = [name for name in double.files if name.startswith("gradient:")]
        norms = {name: float(np.linalg.norm(double[name])) for name in names}
        least = FLOOR * max(norms.values())
        return max(float(np.linalg.norm(single[n] - double[n])) / max(norms[n], least) for n in names)


def compared(found: Imported, beside: np.lib.npyio.NpzFile, path: Path) -> dict:
    """Forward, gradients, memory and operations of a file that was read."""
    import onnxruntime

    graph, end = found.graph, found.end
    assert graph is not None and end is not None
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = beside["x"]
    wanted = session.run(None, {session.get_inputs()[0].name: x})[0]
    program = ri.compile(graph, plan(), len(x))
    trainer = ri.Trainer(program, 0)
    own = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    y, target, errors = gradient_errors(trainer, found, own, beside["dy"], beside)
    worst = max(errors, key=errors.__getitem__)
    return {
        "forward": float(np.abs(end.theirs(y) - wanted).max() / np.abs(wanted).max()),
        "gradients": len(errors),
        "gradient": errors[worst],
        "worst": worst,
        "arena_bytes": program.peak_bytes,
        "touched_bytes": measured.touched_bytes(program, own, target, trainer.parameters),
        "miscounted": sum(
            dict(predict.call_counts(call, len(x))) != counting.count_call(call, len(x)) for call in program.step
        ),
        "calls": len(list(program.step)),
    }


def trained(found: Imported) -> dict:
    """One step with each method: `steps`, those that did; `refused` and `failed`, method → sentence."""
    graph = found.graph
    assert graph is not None
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *(graph.size or ()), graph.channels)).astype(np.float32)
    shape = graph.shape(graph.output)
    y = rng.integers(0, shape[-1], (2, *shape[1:-1]))
    steps, refused, failed = [], {}, {}
    for method in registry.known():
        try:
            program = ri.compile(graph, snapshot.plan_of((method,)), 2)
            loss = ri.Trainer(program, 0).train_step(x, y, 1)
            if np.isfinite(loss):
                steps.append(method)
            else:
                failed[method] = f"the loss is {loss}"
        except (ShapeError, ValueError) as e:
            refused[method] = str(e)
        except Exception as e:  # what must not happen
            failed[method] = f"{type(e).__name__}: {e}"
    return {"steps": steps, "refused": refused, "failed": failed}


def of_file(path: Path) -> dict:
    """What becomes of one file."""
    try:
        found = imported(path)
    except CheckpointError as e:
        return {"error": str(e)}
    if found.graph is None:
        return {"missing": {t.op: t.why for t in found.missing}}
    with np.load(path.with_suffix(".npz")) as beside:
        r = compared(found, beside, path)
    return {"nodes": len(found.graph.nodes), **r, **trained(found)}


def run(output: Path, watch: Callable[[int, int, str], None]) -> dict:
    """Every file of `output`/onnx-gauntlet; the record. Files that are done are kept in `output` and not run again.

    CheckpointError where there are none, or one has no gradients beside it.
    """
    folder = output / NAME
    paths = sorted(folder.glob("*.onnx"))
    lacking = [p.name for p in paths if not p.with_suffix(".npz").exists()]
    if lacking or not paths:
        what = f"{len(lacking)} files have no gradients" if paths else "there are no ONNX files"
        raise CheckpointError(f"{what} in {folder}: run tools/onnx_gauntlet.py export and gradients first")
    runs = Runs(output, NAME, {})
    for i, path in enumerate(paths):
        watch(i, len(paths), path.stem)
        if not runs.get(file=path.stem):
            runs.add(file=path.stem, **of_file(path))
        r = runs.get(file=path.stem)
        if (
            r.get("gradient", 0.0) > GRADIENT
            and not runs.get(wide=path.stem)
            and (error := in_float64(path)) is not None
        ):
            runs.add(wide=path.stem, gradient=error, theirs=own_rounding(path))
    found = [r for r in runs.found if (folder / f"{r.get('file', r.get('wide'))}.onnx").exists()]
    return {"name": NAME, **judge({"runs": found})}


def judge(record: dict) -> dict:
    """What the files show, and whether the goals hold."""
    read = [r for r in record["runs"] if "forward" in r]
    wide = {r["wide"]: r["gradient"] for r in record["runs"] if "wide" in r}
    goals = [certain("files that are read", float(len(read)), float(READ))]
    goals += [
        certain(f"share of them where {what} holds", sum(map(holds, read)) / max(1, len(read)), 1.0)
        for what, holds in HOLDS.items()
    ]
    if wide:
        worst = max(wide.values())
        goals.append(certain("−log10 of the worst gradient of the others in float64", -float(np.log10(worst)), WIDE))
    shown = ("nodes", "forward", "gradient", "arena_bytes", "miscounted")
    return {
        "protocol": {"files": FILES, "least_read": READ, "forward": FORWARD, "gradient": GRADIENT},
        "published": {},
        "seeds": [0],
        "measured": {r["file"]: {key: r[key] for key in shown} | {"steps": len(r["steps"])} for r in read},
        **verdicts(goals),
        "settings_chosen_on": {"none": "nothing is chosen, all weights are random"},
        "runs": record["runs"],
    }
