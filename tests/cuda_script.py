"""Run by test_cuda in a process of its own: run every pass, or compile every kernel to `ptx`.

`passes` runs under Numba's CUDA simulator, `passes emulated` what the compiler makes, on a stand-in
for the driver.

Prints one line per pass; the last line is `done`.
"""

import importlib
import importlib.util
import itertools
import json
import sys

import numpy as np

from checks import SUBJECTS, call, distance
from refimpl.compiler.two_stage import sliced
from refimpl.kernels import cuda
from refimpl.kernels.passes import ShapeError, dtype_of
from refimpl.ops import passes_of
from validation.instruments import cuda_code
from validation.instruments.cuda_code import modules
from validation.instruments.drawn_passes import pass_case
from validation.instruments.emulator.driver import stand_in


def any_call(passed):
    """A call of a pass that has no subject: arrays of small sizes with values between 0.5 and 1.5."""
    try:
        return made_call(passed, dict.fromkeys(passed.letters(), 3) | {"E": 11}, {})
    except ShapeError:  # where sizes follow from each other they are drawn
        case = pass_case(str(passed), 0)
        return made_call(passed, dict(case.sizes), dict(case.attrs))


def made_call(passed, sizes, attrs):
    """The same of given sizes; ShapeError where they do not fit together."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name in passed.reads:
        shape, dtype = passed.shape(name, sizes), dtype_of(passed.shapes[name], np.float64)
        arrays[name] = rng.random(shape) + 0.5 if dtype.kind == "f" else np.ones(shape, dtype)
    found = passed.sizes(arrays, passed.attrs(attrs))
    letters = {letter: sizes[letter] for letter in passed.letters() if letter not in found}
    passed.sizes(arrays, passed.attrs(attrs), letters)
    return passed, arrays, attrs, letters


def filtered_calls():
    """Every pass of gradient filtering: groups, a stride, patches that do not divide the map, both alignments."""
    from filter_cases import Case

    rng = np.random.default_rng(0)
    for align, dilation in (("centre", (1, 1)), ("corner", (3, 2))):
        pad = tuple((d, d) for d in dilation)
        case = Case(2, (9, 7), 2, 2, 3, (3, 3), (2, 1), dilation, pad, (2, 3), align, 0)
        for passed in passes_of(importlib.import_module("refimpl.methods.gradient_filter")).values():
            arrays = {a: rng.random(passed.shape(a, case.sizes)) for a in passed.reads}
            attrs = {a: v for a, v in case.attrs.items() if a in passed.attributes}
            yield passed, arrays, attrs, {d: n for d, n in case.sizes.items() if d in passed.letters()}


def channel_calls():
    """Every pass of error map pruning and sparse update: one group, depthwise, several groups."""
    from rule_cases import Together, sample

    from refimpl.methods.error_map_pruning import ErrorMapPruning
    from refimpl.methods.sparse_update import SparseUpdate, update

    for seed in range(6):
        c = sample(seed)
        for rule in (ErrorMapPruning(0.5), SparseUpdate(0.5)):
            together = Together([rule], c)
            for name in ("dx", "dw", "db"):
                together[name]
            yield from together.calls
        arrays = {"w": c.arrays["w"], "dw": together["dw"], "chosen": together["chosen"], "lr": np.ones(1)}
        yield update, arrays, {}, {"G": together.node.sizes["G"]}


def whole_calls():
    """Every pass of whole numbers that share exponents: sizes that fit, numbers from 1 to 3, labels 0."""
    rng = np.random.default_rng(0)
    for module in modules("ops"):
        for passed in passes_of(module).values() if module.__name__.rsplit(".", 1)[-1].startswith("niti_") else ():
            cases = (pass_case(str(passed), seed) for seed in itertools.count())
            case = next(c for c in cases if np.prod([*c.sizes.values()], dtype=float) < 1e5)
            arrays = {}
            for a in passed.reads:
                shape, dtype = passed.shape(a, case.sizes), case.dtypes.get(a) or dtype_of(passed.shapes[a], np.float64)
                arrays[a] = np.zeros(shape, dtype) if a in passed.indices else rng.integers(1, 4, shape).astype(dtype)
            found = passed.sizes(arrays, case.attrs)
            yield passed, arrays, case.attrs, {d: n for d, n in case.sizes.items() if d not in found}


def run_passes():
    calls = [*filtered_calls(), *channel_calls(), *whole_calls()]
    for module in modules("ops"):
        name = module.__name__.rsplit(".", 1)[-1]
        passes = passes_of(module)
        if passes and importlib.util.find_spec(f"test_{name}"):
            importlib.import_module(f"test_{name}")
        if name in SUBJECTS:
            for seed in (0, 1):
                calls += SUBJECTS[name].calls(SUBJECTS[name].sample(seed))
        covered = {made[0] for made in calls}
        calls += [any_call(p) for p in passes.values() if p not in covered]
    for passed, arrays, attrs, letters in calls:
        host = call(passed, arrays, attrs, letters)
        there = {a: cuda.to_device(np.ascontiguousarray(v)) for a, v in arrays.items()}
        if there:
            device = call(passed, there, attrs, letters)
        else:  # it reads nothing that would tell on which side it is to run
            device = {a: cuda.to_device(np.full_like(v, 99)) for a, v in host.items()}
            passed.kernel(passed.count_items(letters), *device.values(), *passed.attrs(attrs).values())
        for a in host:
            error = distance(device[a].copy_to_host(), host[a])
            assert error < 1e-12, f"{passed}: {a} is off by {error:.1e} without a GPU"
        print("ran", passed)
    for passed, *made in {made[0]: made for made in calls}.values():
        for letter in passed.adds[:1]:
            in_slices(passed, *made, letter)


def in_slices(passed, arrays, attrs, letters, letter):
    """The first stage of a call along a letter: slices of 2, on the host and on the simulated GPU."""
    attrs = passed.attrs(attrs)
    sizes = passed.sizes(arrays, attrs, letters)
    items, slices = passed.count_items(sizes), -(-sizes[letter] // 2)
    found = {}
    for side, put in (("host", np.copy), ("GPU", lambda v: cuda.to_device(np.ascontiguousarray(v)))):
        partial = {a: put(np.zeros((slices, *passed.shape(a, sizes)))) for a in passed.writes}
        seen = {a: put(passed.seen(a, v)) for a, v in arrays.items()}
        args = passed.arguments(seen, attrs, np.float64, next(iter(seen.values())))
        args = [partial.get(a, arg) for a, arg in zip(passed.arrays, args, strict=False)] + args[len(passed.arrays) :]
        sliced(passed, letter)(slices * items, *args, items, 2)
        found[side] = [v if side == "host" else v.copy_to_host() for v in partial.values()]
    for host, device in zip(*found.values(), strict=True):
        error = distance(device[np.isfinite(host)], host[np.isfinite(host)])
        assert error < 1e-12, f"{passed} along {letter} is off by {error:.1e} without a GPU"
    print("ran", passed, "along", letter)


def ptx(share="1"):
    """Every kernel for each compute capability: it has an entry, and computes in the width of its arrays.

    None on tiles spills, and where it is recorded what the package's kernels take of the GPU, they take no more than
    that. share: of the passes' own kernels only each so many-th; all others are compiled.
    """
    record, ptxas = json.loads(cuda_code.RESULT.read_text()), cuda_code.assembler()
    assert ptxas, "there is no ptxas, which comes with the package's [cu12]"
    recorded = record["kernels"] if record["package"] == cuda.package() else {}
    passes = itertools.count()
    for code in cuda_code.every():
        if "." in code.name and next(passes) % int(share):
            continue
        for capability, text in zip(
            cuda_code.CAPABILITIES, cuda_code.ptx(code, cuda_code.CAPABILITIES), strict=True
        ):  # fmt: skip
            target = f"sm_{capability.replace('.', '')}"
            assert f".target {target}" in text and ".entry" in text, f"{code.name}: no kernel for {capability}"
            wide = code.wide or ".f64" not in text
            assert wide, f"{code.name} computes in float64 for float32 arrays, which is slow on a GPU"
            assert "dp4a" in text or "words_forward" not in code.name, f"{code.name} has no dots of four bytes"
            if capability in cuda_code.RECORDED and " on " in code.name:
                now = cuda_code.used(text, capability, ptxas)
                assert not now.spilled and not now.stack, f"{code.name} spills {now}"
                if recorded:
                    before = recorded[capability][code.name]
                    more = now.registers - before["registers"]
                    assert more <= 16, f"{code.name} takes {now.registers} registers, it was {before}"
                    assert now.shared == before["shared"], f"{code.name} takes {now.shared} bytes, it was {before}"
        print("compiled", code.name)


if __name__ == "__main__":
    mode, *arguments = sys.argv[1:]
    driver = stand_in() if arguments == ["emulated"] else None
    {"passes": run_passes, "ptx": ptx}[mode](*arguments if mode == "ptx" else ())
    assert driver is None or driver.problem is None
    print("done")
