"""Quantized ONNX models in their own whole numbers beside onnxruntime: each operator, whole nets, and what trains.

Two int8 nets of arXiv 2206.15472, written as ONNX models with QuantizeLinear and DequantizeLinear around each layer
(`instruments.qdq_files`), on photographs of CIFAR-10 as JPEG, stretched to 128×128:

- operators: each on the very numbers that onnxruntime gives it: numbers that are one away, and further.
- nets: of images, how many ours and onnxruntime tell the same class of, and the most steps of the last map that a score
  is apart; the same of onnxruntime's two ways of running one file, with all maps as outputs or without.
- training: MobileNetV2 0.35 adapted by the command line to 28 photographs of each of eight classes, its `adapted.onnx`
  run by onnxruntime on 200 others.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

import numpy as np

import refimpl as ri
from refimpl.data.resized import Resized
from refimpl.formats.npz import read_npz
from refimpl.formats.onnx import load_whole
from refimpl.kernels.running import threads
from refimpl.saved.model import load

from . import datasets
from .command_line import Samples, laid_out, printed
from .outcome_pairs import decoded, drawn, of_classes, photos
from .runs import Runs, certain, percents, verdicts

NAME = "whole-onnx"
NETS = {"MobileNetV2 0.35": "mobilenet_v2_w0.35_int8.npz", "MCUNet": "mcunet_5fps_int8.npz"}
TRAINED = "MobileNetV2 0.35"
SIZE, OPERATOR_IMAGES, NET_IMAGES = (128, 128), 4, 32
CLASSES, TRAIN, TEST = (0, 1, 2, 3, 4, 6, 7, 8), 28, 25  # of CIFAR-10, as README's first screen; photographs of each
SEEDS = (0,)
WAYS = {
    "sparse update of half": "--whole --method sparse-update:ratio=0.5 --train-last 3 --epochs 10",
    "back-propagation": "--whole --method backprop --train-last 3 --epochs 10",
    "biases alone": "--whole --method bias-only --train-last 3 --epochs 10",
    "the classifier alone": "--whole --method backprop --train-last 0 --epochs 10",
    "the classifier by forward gradients": "--method forward-gradient:m=1,bits=16w8a --train-last 0 --epochs 150",
    "back-propagation in floats": "--method backprop --train-last 3 --epochs 10",
}
PIXELS = (-128 / 127.5, 127 / 127.5)  # for bytes of 0 and 255: the input's scale is 1/127.5
FLOATS = "back-propagation in floats"
SAME, EQUAL = 95.0, 99.99  # percent: of photographs, of numbers


def as_onnx(name: str, folder: Path) -> Path:
    """A net of NETS as an ONNX model in a folder."""
    from ..instruments.qdq_files import of_int8

    return of_int8(read_npz(datasets.weights(NETS[name])), folder / f"{name.replace(' ', '-')}.onnx")


def by_runtime(path: Path, x: np.ndarray, names: tuple[str, ...] = (), prefix: str = "") -> list[np.ndarray]:
    """What onnxruntime makes of x (N, H, W, C): tensors by name, beside the output of the model, which is the last."""
    import onnx
    import onnxruntime

    model = onnx.load(path)
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(f"{n}{prefix}") for n in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = [*(f"{n}{prefix}" for n in names), model.graph.output[0].name]
    return session.run(wanted, {session.get_inputs()[0].name: np.ascontiguousarray(x.transpose(0, 3, 1, 2))})


def whole_maps(path: Path, x: np.ndarray, names: tuple[str, ...]) -> list[np.ndarray]:
    """The whole numbers that onnxruntime makes of the tensors behind some names, as ours: of int8, channels last."""
    found = by_runtime(path, x, names, "_q")[:-1]
    whole = (a.astype(np.int16) - (128 if a.dtype == np.uint8 else 0) for a in found)
    return [a.transpose(0, 2, 3, 1) if a.ndim == 4 else a for a in whole]


def apart(graph: ri.Graph, theirs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """How far each operator's numbers are from onnxruntime's, on the very numbers that this gives it; by node.

    theirs: its maps by the names of our tensors; a node with others is left out, and a concatenation.
    """
    found = {}
    for node in graph.nodes:
        if node.name in theirs and all(t in theirs for t in node.inputs) and node.op != "quantized_concat":
            arrays = {k: graph.weights[v] for k, v in node.params.items()}
            read = dict(zip(node.operator.locals(len(node.inputs)), node.inputs, strict=True))
            made = import_module(f"refimpl.ops.{node.op}").forward(
                **{local: theirs[t].astype(np.int8) for local, t in read.items()}, **arrays, **node.attrs
            )
            found[node.name] = np.abs(made.astype(int) - theirs[node.name].reshape(made.shape))
    return found


def sources(graph: ri.Graph) -> dict[str, str]:
    """Of the maps of a net of NETS, our node → the node of its ONNX model behind which it becomes whole numbers."""
    ends = ("quantize", "quantized_linear", "dequantize")
    found = {
        n.name: n.name.replace(".depthwise", ".depthwise_relu6").replace(".expand", ".expand_relu6")
        for n in graph.nodes
        if n.op not in ends
    }
    return found | {"stem": "stem_relu6"}


def pixels(count: int) -> np.ndarray:
    """Photographs (N, H, W, 3) uint8 as the nets take them, before they become numbers of theirs."""
    s = drawn(photos(), 0, 1, count)
    return Resized(decoded(s).x_test, SIZE).with_pixels(0, 255, np.uint8)[:]


def of_operators(path: Path) -> dict:
    """Operators, numbers, and how many of them are one away and further."""
    graph, x = load_whole(path), ((pixels(OPERATOR_IMAGES) - 128.0) / 127.5).astype(np.float32)
    source = sources(graph)
    maps = whole_maps(path, x, ("x", *source.values()))
    found = apart(graph, dict(zip(("quantize", *source), maps, strict=True)))
    away = np.concatenate([a.reshape(-1) for a in found.values()])
    return {
        "operators": len(found), "numbers": len(away), "one_away": int(np.sum(away == 1)),
        "further": int(np.sum(away > 1)),
    }  # fmt: skip


def compared(a: np.ndarray, b: np.ndarray, step: float) -> dict:
    """Of how many scores both tell the same class, and the most steps that one is apart."""
    same = float(np.mean(a.argmax(1) == b.argmax(1)))
    return {"same": same, "steps": int(np.rint(np.abs(a - b).max() / step))}


def of_net(path: Path) -> dict:
    """Ours beside onnxruntime, and that beside itself, which gives all maps; scores in steps of their scale."""
    graph, x = load_whole(path), ((pixels(NET_IMAGES) - 128.0) / 127.5).astype(np.float32)
    step = score_step(path)
    ours = np.concatenate([np.asarray(trainer_of(graph, 8).predict(part)) for part in np.split(x, len(x) // 8)])
    plain, watched = by_runtime(path, x)[-1], by_runtime(path, x, tuple(sources(graph).values()), "_q")[-1]
    rounded = np.rint(ours / step) * step
    return {"ours": compared(rounded, plain, step), "itself": compared(watched, plain, step)}


def trainer_of(graph: ri.Graph, batch: int) -> ri.Trainer:
    """What runs a net of whole numbers, on one thread."""
    return ri.Trainer(ri.compile(graph, None, batch, threads=1), 0)


def score_step(path: Path) -> float:
    """The scale of the scores of a model: that of its last node, a DequantizeLinear."""
    import onnx

    graph = onnx.load(path).graph
    name = graph.node[-1].input[1]
    return float(onnx.numpy_helper.to_array(next(t for t in graph.initializer if t.name == name)))


def samples(seed: int) -> Samples:
    """Photographs of a seed: TRAIN and TEST of each of eight classes."""
    s, parts = of_classes(photos(), CLASSES), []
    for x, y, count in ((s.x_train, s.y_train, TRAIN), (s.x_test, s.y_test, TEST)):
        rng = np.random.default_rng(seed)
        index = np.concatenate([rng.choice(np.flatnonzero(y == k), count, replace=False) for k in range(len(CLASSES))])
        parts += [x[index], y[index]]
    return Samples(*parts, s.classes)


def trained(way: str, seed: int, path: Path, folder: Path) -> dict:
    """A run of `adapt` by a way, and its model by onnxruntime on the photographs that evaluate; shares."""
    size = "x".join(map(str, SIZE))
    options = ["--model", str(path), "--size", size, f"--pixels={PIXELS[0]},{PIXELS[1]}", "--threads", "1"]
    with laid_out(samples(seed), folder) as (source, place):
        out = place / "run"
        given = ["adapt", "--data", str(source), "--output", str(out), "--seed", str(seed), *options]
        r = printed([*given, *WAYS[way].split()])
        if not (out / "adapted.onnx").exists():
            return {"error": r.get("error") or r.get("reason") or f"exit status {r['status']}"}
        found = {
            "before": r["accuracy_before"], "after": r["accuracy_after"], "train_seconds": r["seconds"],
            "steps": r["steps"], "arena_bytes": r["measured"]["peak_bytes"],
        }  # fmt: skip
        if way == FLOATS:
            return found
        ours, theirs, labels = both(out, source / "test")
        shares = {"ours": ours == labels, "runtime": theirs == labels, "same": ours == theirs}
        return found | {name: float(np.mean(right)) for name, right in shares.items()}


def both(run: Path, source: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Classes that the net of a run and its ONNX model by onnxruntime tell of photographs, and their labels."""
    net, ours, theirs = load(run / "adapted.safetensors", threads=1), [], []
    names, folders = [], sorted(p.name for p in source.iterdir())
    for batch, maps in net.inputs(str(source)):
        names += batch
        maps = np.asarray(maps)
        ours.append(np.asarray(net.trainer.predict(maps)).argmax(1))
        theirs.append(by_runtime(run / "adapted.onnx", maps)[-1].argmax(1))
    labels = [net.graph.classes.index(next(f for f in folders if f in Path(n).parts)) for n in names]
    return np.concatenate(ours), np.concatenate(theirs), np.array(labels)


def run(output: Path, watch: Callable[[int, int, str], None]) -> dict:
    """The record; parts that are done are kept in `output` and not run again."""
    runs, folder = Runs(output, NAME, {"ways": WAYS, "pixels": PIXELS}), output / NAME
    folder.mkdir(parents=True, exist_ok=True)
    models = {name: as_onnx(name, folder) for name in NETS}
    work: list[tuple[dict, Callable[[], dict]]] = []
    for name, path in models.items():
        work.append(({"net": name, "part": "operators"}, lambda path=path: of_operators(path)))
        work.append(({"net": name, "part": "nets"}, lambda path=path: of_net(path)))
    work += [
        ({"way": way, "seed": seed}, lambda way=way, seed=seed: trained(way, seed, models[TRAINED], folder))
        for seed in SEEDS
        for way in WAYS
    ]
    for i, (key, make) in enumerate(work):
        watch(i, len(work), ", ".join(map(str, key.values())))
        if not runs.get(**key):
            with threads(1):
                runs.add(**key, **make())
    return {"name": NAME, **judge({"runs": runs.found})}


def judge(record: dict) -> dict:
    """What the runs show, and whether the goals hold."""
    found, ways = record["runs"], {}
    for way in WAYS:
        of = [r for r in found if r.get("way") == way and "after" in r]
        if of:
            ways[way] = {"arena_bytes": of[0]["arena_bytes"], "seconds": round(sum(r["train_seconds"] for r in of), 1)}
            keys = [k for k in ("before", "after", "runtime", "same") if k in of[0]]
            ways[way] |= {k: percents([r[k] for r in of]) for k in keys}
    parts = {part: {r["net"]: r for r in found if r.get("part") == part} for part in ("operators", "nets")}
    goals = [
        certain(f"numbers of {name} that are onnxruntime's, %", 100 - 100 * r["one_away"] / r["numbers"], EQUAL)
        for name, r in parts["operators"].items()
    ]
    none_further = all(not r["further"] for r in parts["operators"].values())
    goals.append(certain("no number is more than one away (1: yes)", float(none_further), 1.0))
    goals += [
        certain(f"photographs of which both tell the same class, %: {way}", of["same"]["mean"], SAME)
        for way, of in ways.items()
        if "same" in of
    ]
    return {
        "protocol": {"train": TRAIN, "test": TEST, "classes": len(CLASSES), "ways": WAYS},
        "published": {},
        "seeds": list(SEEDS),
        "measured": ways,
        **parts,
        **verdicts(goals),
        "settings_chosen_on": {
            "none": "nothing is chosen on these photographs: layers, ratio and epochs are those of runs on others"
        },
        "runs": found,
    }
