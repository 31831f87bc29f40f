"""Tables of the measurement pages, from the records in `validation/results/`, and who made each record with what."""

import json
import re
from functools import cache, partial
from pathlib import Path

from costmodel.advice import expected_error
from refimpl.methods.registry import known

from .sources import ROOT, table

RESULTS = ROOT / "validation" / "results"
# a record that the package reads itself
ELSEWHERE = {"gradient-errors": Path(expected_error.__file__).with_name("gradient-errors.json")}
# words for the names that records give their methods
STREAM = {
    "SGD": "SGD, 20 epochs", "EIF+EMP": "instance filter and error map pruning", "EIF": "instance filter",
    "EMP": "error map pruning, keep 0.5", "SMB, same computation": "fewer iterations of SGD (SMB)",
    "SMD": "skipped mini-batches (SMD)", "OHEM": "hardest quarter of each mini-batch (OHEM)",
    "OHEM, same computation": "OHEM at the same computation",
}  # fmt: skip
NETS = {"watch": "watch net", "resnet20": "ResNet-20, Fashion-MNIST", "mobilenet_v2": "MobileNetV2, CIFAR-10 as JPEG"}
BENCHED = {
    "resnet20": "ResNet-20, 32×32", "resnet18": "ResNet-18, 64×64", "resnet18_128": "ResNet-18, 128×128",
    "mobilenet_v2": "MobileNetV2, 96×96",
}  # fmt: skip
NOISY = 0.3  # spread of one side's times above which a row is marked


def share(method: str) -> str:
    """Words for a value of the setting by which a method is measured, such as `patch {}`; of another, of its layers."""
    setting = known()[method].states.grid.setting
    return f"{setting} {{}}" if setting else "the classifier and the last {}"


def place(name: str) -> Path:
    """The file of a record."""
    return ELSEWHERE.get(name, RESULTS / f"{name}.json")


@cache
def record(name: str) -> dict:
    """A record as it was written; OSError where there is none."""
    return json.loads(place(name).read_text(encoding="utf-8"))


def made(name: str) -> str:
    """Who made a record: command, machine, versions, seeds, what its settings were chosen on, and the verdict."""
    found = record(name)
    machine, versions = found["machine"], found.get("versions", found["machine"])
    where = machine.get("processor", machine["system"]) + (f", {machine['cores']} cores" if "cores" in machine else "")
    said = [
        f"Record: `{place(name).relative_to(ROOT).as_posix()}`",
        *([f"made by `{found['command']}`"] if "command" in found else []),
        where,
        ", ".join(f"{k} {versions[k]}" for k in ("python", "numpy", "numba", "scipy") if k in versions),
        *([f"seeds {', '.join(map(str, found['seeds']))}"] if "seeds" in found else []),
    ]
    lines = ["; ".join(said) + "."]
    if chosen := found.get("settings_chosen_on"):
        lines += ["", "Settings were chosen on: " + "; ".join(f"{k}: {v}" for k, v in chosen.items()) + "."]
    if "goals" in found:
        lines += ["", goals(found["goals"])]
    return "\n".join(lines)


def goals(found: list[dict]) -> str:
    """The goals of an experiment with their intervals and verdicts."""
    rows = []
    for goal in found:
        value = goal.get("value", goal.get("mean"))
        interval = f"{goal['low']:.2f} to {goal['high']:.2f}" if goal.get("low") is not None else ""
        above = f"{goal['above']} of {goal['n']}, p = {goal['sign_p']:.3g}" if "n" in goal else ""
        rows.append([goal["goal"], goal["least"], f"{value:.2f}", interval, above, goal["verdict"]])
    return table(["goal", "at least", "measured", "95 % interval", "seeds above", "verdict"], rows)


def spread(found: dict, sign: str = "") -> str:
    """Mean ± standard deviation; sign "+": also of positive means."""
    return f"{found['mean']:{sign}.2f} ± {found['std']:.2f}".replace("-", "−")


def watch_adapt() -> str:
    """Accuracy before and after adapting to one person, over ten people."""
    names = {"before": "before adapting", "backprop": "back-propagation"}
    rows = [
        [names.get(name, name.translate(str.maketrans({"-": " ", ":": ", ", "=": " "}))), v["mean"], v["worst"]]
        for name, v in record("watch-adapt")["measured"].items()
    ]
    return table(["", "mean", "worst"], rows, right=1)


def lenet_mnist() -> str:
    """What each method saves on a stream, and its accuracy."""
    rows = []
    for name, v in record("lenet-mnist")["measured"].items():
        plain = name == "SGD"
        rows.append([STREAM[name], "0" if plain else spread(v["saved"]), spread(v["accuracy"]),
                     "" if plain else spread(v["gain"], "+")])  # fmt: skip
    return table(["", "computation saved, %", "accuracy, %", "points to SGD of the same seed"], rows, right=1)


def equal_accuracy() -> str:
    """What `gradledger compare` prints of the record."""
    from gradledger import compare

    (found,) = compare.run(compare.CompareSettings(place("lenet-mnist")))["groups"].values()
    rows = [
        [STREAM[row["method"]].split(",")[0], f"{row['steps']:,.0f}", f"{row['macs_per_step'] / 1e6:,.1f}",
         f"{row['macs'] / 1e12:,.3f}", f"{row['macs_min'] / 1e12:,.3f} to {row['macs_max'] / 1e12:,.3f}",
         f"{row['ratio']:.2f}"]
        for row in found["methods"]
    ]  # fmt: skip
    head = ["", "steps", "MMAC a step", "TMAC in all", "least to most", "to SGD"]
    return f"Until {100 * found['accuracy']:.2f} % is reached:\n\n{table(head, rows, right=1)}"


def sparse_update_mobilenet() -> str:
    """Accuracy, updated share and memory of both nets."""
    found, memory = record("sparse-update-mobilenet"), record("sparse-update-mobilenet")["memory"]
    widths = list(memory)
    kinds = {"dynamic": "other channels in each step (dynamic)", "fixed": "the same channels in every step (fixed)",
             "last layer": "last layer alone"}  # fmt: skip
    of_all = {"features": "feature maps not stored, of those of dense training of the whole net, %",
              "with_masks": "the same with the masks of rectifiers, a bit for each value, %"}  # fmt: skip
    rows = [[f"accuracy, %: {said}", *(spread(found["measured"][f"{w}, {kind}"]) for w in widths)]
            for kind, said in kinds.items()]  # fmt: skip
    rows.append(["convolution weights updated in a step, %", *(memory[w]["updated_share"] for w in widths)])
    rows += [[said, *(memory[w]["saved_against_whole_net"][key] for w in widths)] for key, said in of_all.items()]
    rows.append(["smallest `--memory-limit` at batch 1, bytes", *(f"{memory[w]['smallest_limit']:,}" for w in widths)])
    return table(["", *(f"{w}, {memory[w]['size']}×{memory[w]['size']}" for w in widths)], rows, right=1)


def quantized_scaling() -> str:
    """Accuracy of both int8 nets by method, and how many weights moved."""
    found = record("quantized-scaling")
    said = {
        "whole": "whole numbers, with scaling", "unscaled": "whole numbers, without", "float": "the float net",
        "classifier": "classifier alone, for as many epochs",
    }  # fmt: skip
    nets = list(found["classifier before"])
    rows = [
        ["before: the classifier alone", *(cell for n in nets for cell in (spread(found["classifier before"][n]), ""))]
    ]
    rows += [
        [words, *(cell for n in nets for cell in (
            spread(found["measured"][f"{n}, {method}"]), f"{found['moved'][f'{n}, {method}']['mean']:.1f}"
        ))] for method, words in said.items()
    ]  # fmt: skip
    head = ["", *(cell for n in nets for cell in (f"{n}, accuracy, %", "weights moved, %"))]
    return table(head, rows, right=1)


def memory_terms() -> str:
    """Every byte of the smallest limit, and the largest that each kind of array reaches at some other moment."""
    memory = record("sparse-update-mobilenet")["memory"]
    keys = [("state", k) for k in memory["width 1.0"]["terms"]["state"]]
    keys += [("arena", k) for k in memory["width 1.0"]["terms"]["arena"]]
    rows = [[part, key.replace("_", " "), *(f"{m['terms'][part][key]:,}" for m in memory.values())]
            for part, key in keys]  # fmt: skip
    rows.append(["in all", "", *(f"{m['smallest_limit']:,}" for m in memory.values())])
    return table(["", "bytes", *memory], rows, right=2)


def gradient_filter_noniid() -> str:
    """Accuracy by trained layers and patch, and how many times fewer operations."""
    found = record("gradient-filter-noniid")
    measured = found["measured"]
    layers = found["protocol"]["train_last"]
    patches = [p for p in found["protocol"]["patches"] if p is not None]

    def of(last: int, patch: int | None) -> dict:
        end = "backprop" if patch is None else f"={patch}"
        return next(v for name, v in measured.items() if name.startswith(f"last {last}, ") and name.endswith(end))

    rows = [["back-propagation", *(spread(of(k, None)) for k in layers)]]
    rows += [[f"patch {p}", *(spread(of(k, p)["gap"]) for k in layers)] for p in patches]
    fewer = [" / ".join(f"{of(k, None)['backward_flops'] / of(k, p)['backward_flops']:.0f}" for p in patches)
             for k in layers]  # fmt: skip
    rows.append(["times fewer operations in the backward pass, patch " + " / ".join(map(str, patches)), *fewer])
    return table(["", *(f"last {k}" for k in layers)], rows, right=1)


def quantized_noniid() -> str:
    """Accuracy under filtered gradients, alone and in 8 bits."""
    found = record("quantized-noniid")["measured"]
    rows = [[name, spread(v), spread(v["gap"], "+") if "gap" in v else ""] for name, v in found.items()]
    return table(["", "accuracy, %", "points to gradient filtering alone"], rows, right=1)


def quantized_lenet() -> str:
    """What 8 bits save on a stream, and the accuracy."""
    rows = [
        [name, spread(v["steps"]), spread(v["saved"]), spread(v["accuracy"]), spread(v["gain"], "+")]
        for name, v in record("quantized-lenet")["measured"].items()
    ]
    head = ["", "steps", "computation saved, %", "accuracy, %", "points to SGD of the same seed"]
    return table(head, rows, right=1)


def quantized_resnet() -> str:
    """What each method saves over the same epochs, and its accuracy, beside the paper's figures."""
    found, rows = record("quantized-resnet"), []
    for name, v in found["measured"].items():
        nets = (found["published"][name], found["published"]["ResNet-110"][name])
        printed = [" / ".join(f"{net[key]:.2f}" for net in nets) for key in ("saved", "accuracy")]
        rows.append([name, spread(v["saved"]), printed[0], spread(v["accuracy"]), printed[1], spread(v["gain"], "+")])
    head = ["", "computation saved, %", "the paper's", "accuracy, %", "the paper's", "points to SGD of the same seed"]
    return table(head, rows, right=1)


def gradient_errors() -> str:
    """The errors of every method that was measured."""
    methods = dict.fromkeys(re.split("[:,] ?", name)[1] for name in record("gradient-errors")["measured"])
    return "\n\n".join(f"{method}:\n\n{method_errors(method)}" for method in methods)


def method_errors(method: str) -> str:
    """The error of a method's gradient, all convolutions trained; of back-propagation that of its last layers."""
    measured = record("gradient-errors")["measured"]
    rows = {}
    for name, value in measured.items():
        net, _, rest = name.partition(", ")
        if rest.startswith(method):
            setting = re.split("[=,] ?", rest)[-1]
            text = share(method).format(setting)
            rows.setdefault(text, {})[net] = f"{value['error']:.3f}"
    if not rows:
        raise KeyError(f"no error was measured of {method}; there is {', '.join(expected_error.exact_settings())}")
    nets = list(expected_error.shipped().nets)
    return table(["error", *(NETS[n] for n in nets)], [[text, *(v[n] for n in nets)] for text, v in rows.items()], 1)


def bench_steps() -> str:
    """Training steps beside PyTorch."""
    rows = [
        [c["name"], *(f"{c[k]:,.1f}" for k in ("ours_ms", "peer_nchw_ms", "peer_nhwc_ms")), f"{c['ratio']:.2f}",
         f"{c['spread']:.2f}"]
        for c in record("bench-steps")["cases"]
    ]  # fmt: skip
    head = ["case", "ours, ms", "PyTorch NCHW, ms", "PyTorch NHWC, ms", "ratio to the better", "spread"]
    return table(head, rows, right=1)


def bench_imported() -> str:
    """Steps of nets that were read beside those that were built, and the way from a process's start to a first step."""
    rows = [
        [c["name"].removeprefix("imported-"), f"{c['ours_ms']:,.1f}",
         *((f"{c['peer_ms']:,.1f}", f"{c['ratio']:.2f}") if c["ratio"] else ("", "")), f"{c['spread']:.2f}"]
        for c in record("bench-imported")["cases"]
    ]  # fmt: skip
    return table(["case", "read from ONNX, ms", "built, ms", "ratio", "spread"], rows, right=1)


def whole_onnx() -> str:
    """What each way of training made of a quantized model, by our net and by onnxruntime of what it wrote."""
    found = record("whole-onnx")
    rows = [
        [way, f"`{found['protocol']['ways'][way]}`", *(f"{r[k]['mean']:.1f}" if k in r else "" for k in
         ("before", "after", "runtime", "same")), f"{r['arena_bytes'] / 1e6:.1f}"]
        for way, r in found["measured"].items()
    ]  # fmt: skip
    head = [
        "trained", "options", "before, %", "after, %", "onnxruntime, %", "same class, %", "arena, MB",
    ]  # fmt: skip
    return table(head, rows, right=2)


def whole_onnx_nets() -> str:
    """Each operator, and whole nets, beside onnxruntime; that beside itself."""
    found, rows = record("whole-onnx"), []
    for net, r in found["operators"].items():
        nets = [found["nets"][net][of] for of in ("ours", "itself")]
        rows.append([net, r["operators"], *(f"{r[k]:,}" for k in ("numbers", "one_away", "further")),
                     *(f"{100 * n['same']:.0f}" for n in nets), *(n["steps"] for n in nets)])  # fmt: skip
    head = [
        "net", "operators", "numbers", "one away", "further", "same class as onnxruntime, %", "it and itself, %",
        "steps of a score apart, at most", "it and itself",
    ]  # fmt: skip
    return table(head, rows, right=1)


def bench_resident() -> str:
    """Resident memory beside PyTorch."""
    rows = [
        [c["name"], f"{c['ours_resident_mb']:.0f}", f"{c['peer_resident_mb']:.0f}", f"{c['resident_ratio']:.2f}"]
        for c in record("bench-steps")["cases"] if "ours_resident_mb" in c
    ]  # fmt: skip
    return table(["case", "ours, MiB", "PyTorch, MiB", "ratio"], rows, right=1)


def bench_filtered() -> str:
    """One filtered convolution beside PyTorch and the floor."""
    rows = []
    for c in record("bench-filtered")["cases"]:
        _, case, patch = c["name"].split("-")
        times = (f"{c[k]:.2f}" for k in ("ours_ms", "peer_nchw_ms", "peer_nhwc_ms", "floor_ms", "ratio_nchw", "ratio"))
        rows.append([f"{case}, patch {patch.removeprefix('patch')}", *times])
    return table(["case", "ours", "NCHW", "NHWC", "floor", "ratio to NCHW", "to the better"], rows, right=1)


def bench_methods() -> str:
    """Every method of `method_bench`."""
    return method_bench("")


def method_bench(method: str) -> str:
    """A step's measured share of the dense step's time, (predicted), and of its counted multiply-adds."""
    rows: dict[str, dict] = {}
    for c in record("bench-methods")["cases"]:
        _, net, rest = c["name"].split("-", 2)
        name, setting = rest.rsplit("-", 1)
        if rest.startswith(method):
            noisy = " *" if c["spread"] > NOISY else ""
            rows.setdefault(f"{name}, {share(name).format(setting)}", {})[net] = (
                f"{c['ratio']:.2f} ({c['predicted_seconds_ratio']:.2f}; {c['predicted_macs_ratio']:.2f}){noisy}"
            )
    if not rows:
        raise KeyError(f"no step of {method} was timed")
    return table(["time (predicted; multiply-adds)", *BENCHED.values()],
                 [[name, *(found[net] for net in BENCHED)] for name, found in rows.items()], right=1)  # fmt: skip


def resident() -> str:
    """Predicted and measured memory of processes."""
    rows = [
        [c["name"], f"{c['predicted_bytes']:,}", f"{c['measured_bytes']:,}", f"{100 * c['error']:+.2f}"]
        for c in record("resident")["cases"]
    ]
    return table(["case", "predicted, bytes", "measured, bytes", "error, %"], rows, right=1)


def seconds() -> str:
    """How well seconds of whole nets are predicted, on each machine."""
    rows = []
    for name in ("seconds", "seconds-epyc"):
        processor = re.sub(r"\(R\)| Processor.*", "", record(name)["machine"]["processor"])
        for what, v in record(name)["measured"].items():
            inside = v.get("inside_interval, %", "")
            rows.append([f"{processor}, {what}", v["cases"], v["median_error, %"], v["within_15, %"], inside])
    return table(["", "cases", "median error, %", "within 15 %, %", "inside the interval, %"], rows, right=1)


def instance_filter_shares() -> str:
    """How well the multiply-adds of a filtered run are predicted."""
    rows = [
        [name, v["points"], f"{v['error']['mean']:+.1f}", f"{v['error']['min']:+.1f} to {v['error']['max']:+.1f}",
         v["inside"]]
        for name, v in record("instance-filter-shares")["measured"].items()
    ]  # fmt: skip
    return table(["case", "points", "mean error, %", "least to most, %", "inside its bounds"], rows, right=1)


def mutants() -> str:
    """Which changes of a function its tests notice."""
    found = record("mutants")
    # the functions without their files, which may have moved since
    names = [re.sub(r", \S+:(\S+)$", r": `\1`", name) for name in found["measured"]]
    rows = [
        [name, v["killed"], v["error"], v["survived"]]
        for name, v in zip(names, found["measured"].values(), strict=True)
    ]
    said = f"Goal, {'reached' if found['ok'] else 'not reached'}: {found['goal']}."
    return f"{said}\n\n{table(['statement and function', 'killed', 'error', 'survived'], rows, right=1)}"


def coverage() -> str:
    """Lines that the tests run, by folder; then the functions of which they run none."""
    found = record("coverage")
    folders: dict[str, list[int]] = {}
    for path, file in found["files"].items():
        parts = path.split("/")[:-1]
        row = folders.setdefault("/".join(parts[: 2 if parts[0] in ("refimpl", "costmodel") else 1]), [0, 0, 0])
        for i, key in enumerate(("lines", "compiler_off", "compiler_on")):
            row[i] += file[key]
    rows = [
        [f"`{n}/`", f"{a:,}", f"{100 * b / a:.1f}", f"{100 * (b + c) / a:.1f}"] for n, (a, b, c) in folders.items() if a
    ]
    never = [[f"`{path}`", ", ".join(f"`{n}`" for n in f["never"])] for path, f in found["files"].items() if f["never"]]
    passed = found["passed"]
    said = (
        f"{passed['compiler_off']:,} tests passed with the compiler off, {passed['compiler_on']:,} more with it on; "
        f"{len(found['failed'])} failed in both."
    )
    lines = table(["folder", "lines", "run with the compiler off, %", "in all, %"], rows, right=1)
    return f"{said}\n\n{lines}\n\n{table(['file', 'functions of which no line ran'], never)}"


def forward_gradient_runs(name: str) -> str:
    """Accuracy, distance to back-propagation and cost of each way of training, by mode; then the curves."""
    found, parts = record(name), []
    for mode, ways in found["measured"].items():
        rows = [
            [
                way, f"{r['before']:.1f}", f"{r['accuracy']['mean']:.2f} ± {r['accuracy']['std']:.2f}",
                "" if way == "backprop" else f"{r['gap']['mean']:+.2f}", f"{r['worst_person']:.1f}", f"{r['lr']:g}",
                f"{r['passes_a_step']}",
                *(f"{r[key]:,}" for key in ("macs_a_step", "float_macs_a_step", "arena_bytes", "state_bytes")),
            ]
            for way, r in ways.items()
        ]  # fmt: skip
        head = [
            mode, "before, %", "after, %", "points to backprop", "worst person, %", "rate", "passes a step",
            "multiply-adds a step", "of floats", "arena, bytes", "weights that change, bytes",
        ]  # fmt: skip
        parts += [table(head, rows, right=1), curves(ways)]
    return "\n\n".join(parts)


def outcomes(of: str = "outcomes") -> str:
    """What each method makes of each pair beside head alone and the search by hand; then minutes and memory."""
    found, parts = record(of), []
    for name, about in found["pairs"].items():
        ways = {way: found["measured"][f"{name}, {way}"]
                for way in ("head alone", "by hand", *found["protocol"]["methods"])}  # fmt: skip
        rows = []
        for way, r in ways.items():
            if "refused" in r:
                continue
            after = r["after"]
            rows.append([
                way, f"{r['before']['mean']:.1f}", f"{after['mean']:.1f} ± {after['std']:.1f}",
                *(f"{after['mean'] - ways[other]['after']['mean']:+.1f}" for other in ("head alone", "by hand")),
                r["ended_worse"] or "", f"{r['minutes']:.2f}", f"{r['macs'] / 1e9:,.1f}",
                f"{r['arena_bytes'] / 2**20:,.1f}", f"{r['resident_bytes'] / 2**20:,.0f}",
            ])  # fmt: skip
        head = [
            name, "before, %", "after, %", "points to head alone", "to by hand", "ended worse", "minutes", "GMAC",
            "arena, MiB", "process, MiB",
        ]  # fmt: skip
        refused = [f"- {way}: {r['refused']}" for way, r in ways.items() if "refused" in r]
        parts += [f"### {about}", table(head, rows, right=1)]
        parts += ["Refused:\n\n" + "\n".join(refused)] if refused else []
    return "\n\n".join(parts)


def cuda_code() -> str:
    """Registers and shared memory of the kernels on tiles for each compute capability; how many kernels there are."""
    found = record("cuda-code")
    names = [name for name in next(iter(found["kernels"].values())) if " on " in name]
    rows = [
        [
            name,
            *(f"{own[name][key]:,}" for own in found["kernels"].values() for key in ("registers", "shared", "spilled")),
        ]
        for name in names
    ]
    head = [
        "kernel",
        *(f"{key}, {of}" for of in found["kernels"] for key in ("registers", "shared bytes", "spilled bytes")),
    ]
    every = {of: len(own) for of, own in found["kernels"].items()}
    said = f"{', '.join(f'{n} kernels for {of}' for of, n in every.items())}, by ptxas {found['compiler']}; some:"
    return f"{said}\n\n{table(head, rows, right=1)}"


def advice_outcomes() -> str:
    """How trials, and the expected gradient error, order plans by what came of them."""
    found = record("advice-outcomes")
    shown = ("plans", "trials", "gradient_error", "spread", "chosen")
    rows = [
        [name, *("" if row[key] is None else f"{row[key]:g}" for key in shown)]
        for name, row in found["measured"].items()
    ]
    means = {key: f"{found['mean'][key]['mean']:g}" for key in ("trials", "gradient_error", "chosen")}
    rows.append(["mean", "", means["trials"], means["gradient_error"], "", means["chosen"]])
    head = [
        "pair", "plans", "rank correlation of trials with outcomes", "of the expected gradient error",
        "points from best to worst plan", "points that the first of the trials lies below the best",
    ]  # fmt: skip
    return table(head, rows, right=1)


def onnx_gauntlet() -> str:
    """A row a net: what both exporters wrote of it, the worse figure of the two."""
    nets: dict[str, list[dict]] = {}
    for r in (r for r in record("onnx-gauntlet")["runs"] if "file" in r):
        nets.setdefault(r["file"].rpartition("-")[0], []).append(r)
    rows = []
    for name, both in nets.items():
        library, _, net = name.partition("-")
        unread = [r for r in both if "forward" not in r]
        if unread:
            rows.append([net, library, *[""] * 6, "; ".join(unread[0].get("missing", {"": "refused"}))])
            continue
        rows.append([
            net, library, " / ".join(f"{r['nodes']}" for r in both),
            *(f"{max(r[key] for r in both):.1e}" for key in ("forward", "gradient")),
            " / ".join(f"{r['arena_bytes'] / 2**20:.1f}" for r in both),
            "yes" if all(r["arena_bytes"] == r["touched_bytes"] for r in both) else "no",
            f"{sum(r['calls'] - r['miscounted'] for r in both):,} of {sum(r['calls'] for r in both):,}",
            ", ".join(sorted({method for r in both for method in r["refused"]})),
        ])  # fmt: skip
    head = [
        "net", "from", "nodes", "forward", "worst gradient", "arena of a step, MiB", "as predicted",
        "calls whose operations are counted right", "methods that do not apply",
    ]  # fmt: skip
    wide = [
        [r["wide"], f"{of['gradient']:.1e}", f"{r['theirs']:.1e}", f"{r['gradient']:.1e}"]
        for r in record("onnx-gauntlet")["runs"] if "wide" in r
        for of in [next(o for o in record("onnx-gauntlet")["runs"] if o.get("file") == r["wide"])]
    ]  # fmt: skip
    wider = ["file", "ours in float32", "PyTorch's float32 against its float64", "ours against it, both in float64"]
    said = "The worst gradient of the files where it is not within 1e-3:"
    return "\n\n".join([table(head, rows, right=2), said, table(wider, wide, right=1)])


def onnx_official() -> str:
    """A row an operator with the cases that pass, then one for each reason why others do not."""
    found = record("onnx-official")
    rows, reasons = [], dict[str, list[str]]()
    for op, cases in found["measured"].items():
        passed = [name for name, said in cases.items() if said == "passed"]
        first = [name for name, said in cases.items() if said.startswith("passed but")]
        for name, said in cases.items():
            if said != "passed":
                reasons.setdefault(f"`{op}`: {said}", []).append(name)
        count = f"{len(passed)} of {len(cases)}" + (f", {len(first)} in their first output" if first else "")
        rows.append([f"`{op}`", count, ", ".join(passed)])
    said = (
        f"{found['passed']:,} of {found['cases']:,} cases of {len(found['measured'])} operators pass, and "
        f"{found['first']} more in their first output."
    )
    return "\n\n".join([
        said, table(["operator", "pass", "which"], rows),
        "The others, and why:", table(["operator and reason", "", "cases"],
                                      [[why, len(names), ", ".join(names)] for why, names in reasons.items()]),
    ])  # fmt: skip


def onnx_drawn() -> str:
    """A row a graph: its size, and the worst error of a weight's gradient in float64 and in float32."""
    found, rows = record("onnx-drawn"), []
    worst, goal = found["worst"], found["goals_of_worst"]
    for name, r in found["measured"].items():
        counts = (r[key] or "" for key in ("vanishing", "shared", "frozen"))
        errors = (f"{r[dtype][key]:.1e}" for key in ("forward", "gradient") for dtype in worst)
        rows.append([int(name[-2:]), r["nodes"], r["operators"], r["gradients"], *counts, *errors])
    head = [
        "seed", "nodes", "operators", "gradients", "of them 0", "shared arrays", "frozen arrays",
        *(f"{what}, {dtype}" for what in ("forward", "worst gradient") for dtype in worst),
    ]  # fmt: skip
    count = sum(r["gradients"] for r in found["measured"].values())
    said = " and ".join(f"{e:.1e} in {dtype} (goal {goal[dtype]:g})" for dtype, e in worst.items())
    verdict = "reached" if found["ok"] else "not reached"
    return f"Worst of {count:,} gradients: {said}; {verdict}.\n\n{table(head, rows, right=1)}"


def curves(ways: dict) -> str:
    """Accuracy against forward passes, in percent, of the ways without a backward pass."""
    shown = {way: r for way, r in ways.items() if way != "backprop"}
    places = sorted({at * r["passes_a_step"] for r in shown.values() for at, _ in r["curve"]})
    rows = []
    for way, r in shown.items():
        at = {step * r["passes_a_step"]: accuracy for step, accuracy in r["curve"]}
        rows.append([way, *(f"{at[place]:.1f}" if place in at else "" for place in places)])
    return table(["after so many forward passes", *(f"{place:,}" for place in places)], rows, right=1)


def equation_table() -> str:
    """The tables of equations as `gradledger reproduce equations` wrote them, without their title and their links."""
    text = (RESULTS / "equations.md").read_text(encoding="utf-8")
    return re.sub(r"^# .*\n+", "", re.sub(r"\[([^\]]+)\]\([^)]+\)", r"`\1`", text))


TABLES = {
    "watch-adapt": watch_adapt, "lenet-mnist": lenet_mnist, "sparse-update-mobilenet": sparse_update_mobilenet,
    "gradient-filter-noniid": gradient_filter_noniid, "gradient-errors": gradient_errors, "bench-steps": bench_steps,
    "bench-imported": bench_imported, "whole-onnx": whole_onnx, "whole-onnx-nets": whole_onnx_nets,
    "bench-resident": bench_resident, "bench-filtered": bench_filtered, "bench-methods": bench_methods,
    "resident": resident, "seconds": seconds, "instance-filter-shares": instance_filter_shares, "mutants": mutants,
    "equations": equation_table, "equal-accuracy": equal_accuracy, "memory-terms": memory_terms, "coverage": coverage,
    "quantized-noniid": quantized_noniid, "quantized-lenet": quantized_lenet, "quantized-scaling": quantized_scaling,
    "quantized-resnet": quantized_resnet, "outcomes": outcomes,
    "outcomes-photographs": partial(outcomes, "outcomes-photographs"),
    "outcomes-imagenet": partial(outcomes, "outcomes-imagenet"),
    "cuda-code": cuda_code, "advice-outcomes": advice_outcomes, "onnx-gauntlet": onnx_gauntlet,
    "onnx-official": onnx_official, "onnx-drawn": onnx_drawn,
}  # fmt: skip


def measured(name: str) -> str:
    """The table of that name; KeyError for another."""
    return TABLES[name]()


DIRECTIVES = {
    "measured": measured,
    "made": made,
    "method_errors": method_errors,
    "method_bench": method_bench,
    "forward_gradient_runs": forward_gradient_runs,
}
