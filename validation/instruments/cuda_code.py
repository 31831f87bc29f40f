"""The CUDA code of every kernel, as the compiler makes it, without a GPU: PTX, and what the assembler says of it.

python -m validation.instruments.cuda_code --capability 8.7      a line for each kernel: registers, shared bytes, spills
python -m validation.instruments.cuda_code --record              the same for RECORDED, into validation/results

Needs a package that compiles for CUDA with its toolkit, as the extras `cuda12` and `cuda13` bring it. The assembler,
`ptxas`, comes with the toolkit of CUDA 12; without it there is PTX alone.
"""

import argparse
import importlib
import pkgutil
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from unittest import mock

import numpy as np

from refimpl.backends.cuda import (
    alike,
    batch_norm,
    convolution,
    depthwise,
    error_map_pruning_rules,
    few_channels,
    gradient_filter_patches,
    groups,
    layer_norm,
    pooling,
    quantized,
    quantized_gradients,
    softmax,
    softmax_cross_entropy,
)
from refimpl.backends.cuda.rows import BLOCKS, RowWise
from refimpl.backends.cuda.tile import TILES, Tiled
from refimpl.backends.cuda.unrolled import Taps, Unrolled
from refimpl.compiler.two_stage import ADD_SLICES, AVERAGE_SLICES, sliced
from refimpl.kernels import cuda
from refimpl.kernels.passes import Pass, _typed, dims, dtype_of
from refimpl.ops import passes_of
from refimpl.storage import checkpoint

from .provenance import provenance

CAPABILITIES = ("7.2", "7.5", "8.7", "9.0", "10.0")  # Xavier, Turing, Orin, Hopper, Blackwell
RECORDED = ("8.7", "9.0")
RESULT = Path("validation/results/cuda-code.json")
SHARED = ("lr", "clip", "factors")  # arrays of updates that are those of all parameters
GEOMETRY = 13  # numbers of a convolution's
TUNED: dict[
    Tiled, tuple
] = {  # of their arguments the axes of an array, with its dtype, "mask", "kept", or so many whole numbers
    convolution.FORWARD: (2, 2, 4, 1, 1, 2, (GEOMETRY,), ()),
    convolution.GRAD_X: (2, 2, "mask", 1, "kept", 4, (GEOMETRY,)),
    convolution.GRAD_W: (5, 2, "mask", 1, "kept", 2, (GEOMETRY,), ()),
    few_channels.FORWARD: (2, 2, 2, 1, 1, 2, (GEOMETRY,), ()),
    few_channels.GRAD_W: (5, 2, "mask", 1, "kept", 2, (GEOMETRY,), ()),
    groups.PRODUCTS: (1, 1, 1, (3,), (4,)),
    gradient_filter_patches.GRAD_X: (2, 2, 2, (5,), (4,)),
    quantized.FORWARD: ("int8 2", "int8 2", "int8 4", *("int32 1",) * 3, (GEOMETRY,), (5,)),
    quantized.WIDE_FORWARD: ("int8 2", "int8 2", "int16 4", *("int32 1",) * 3, (GEOMETRY,), (5,)),
    quantized.EXPONENT_FORWARD: ("int32 2", "int8 2", "int8 4", "int16 1", "int32 1", 1, (GEOMETRY,), (5,)),
    quantized.SCALED_FORWARD: (2, "int8 2", "int8 4", 1, 1, 1, (GEOMETRY,), (5,)),
    quantized_gradients.GRAD_X: (2, "int8 2", "int8 4", 1, 1, (GEOMETRY,)),
    quantized_gradients.SUMS_GRAD_X: ("int32 2", "int8 2", "int8 4", 1, 1, (GEOMETRY,)),
    quantized_gradients.GRAD_W: (5, "int8 2", "int8 2", 1, 1, (GEOMETRY,), (), (), ()),
    quantized_gradients.WIDE_GRAD_W: (5, "int16 2", "int8 2", 1, 1, (GEOMETRY,), (), (), ()),
    quantized_gradients.SUMS_GRAD_W: ("int32 5", "int8 2", "int8 2", 1, 1, (GEOMETRY,), (), (), ()),
}

LOSSES = (1, 2, "int64 1", 1, 1, "float32 0", ())
ROW_WISE: dict[RowWise, tuple] = {  # the same of kernels on rows; a number of floats has no axes
    softmax.FORWARD: (2, 2),
    softmax.GRAD_X: (2, 2, 2),
    layer_norm.FORWARD: (2, 1, 1, 2, 1, 1, "float32 0"),
    layer_norm.GRAD_X: (2, 2, 2, 1, 1, 1),
    softmax_cross_entropy.SAMPLE_LOSSES: LOSSES,
    softmax_cross_entropy.TANGENT_LOSSES: (*LOSSES, 2, 1),
    softmax_cross_entropy.MEAN_LOSS: (1, 1, 1, "int64 1", 1, ()),
    softmax_cross_entropy.GRAD_X: (2, 2, "int64 1", 1, 1, 1, "float32 0", ()),
}
TAPS = (Taps(3, 3, 1, 1, 1, 1, 1, 1, True), Taps(3, 3, 2, 2, 1, 1, 1, 1, True), Taps(5, 5, 1, 1, 1, 1, 2, 2, True))
WINDOWS = (Taps(2, 2, 2, 2, 1, 1, 0, 0, True), Taps(3, 3, 2, 2, 1, 1, 1, 1, True))
MAP = (Taps(7, 7, 1, 1, 1, 1, 0, 0),)
PLACES = "uint8 1"
UNROLLED: dict[Unrolled, tuple] = {  # the same of kernels that have taps, the first entry the taps to compile for
    depthwise.FORWARD: (TAPS, (), 1, 1, 2, 1, 1, (GEOMETRY,), ()),
    depthwise.GRAD_X: (TAPS, (), 1, 1, "mask", 1, 2, (GEOMETRY,)),
    depthwise.GRAD_W: (TAPS, (), 5, 1, "mask", 1, "kept", 1, (GEOMETRY,), ()),
    pooling.MAX_FORWARD: (WINDOWS, (), 1, PLACES, 1, (GEOMETRY,), (), ()),
    pooling.MAX_GRAD_X: (WINDOWS, (), 1, 1, PLACES, "mask", (GEOMETRY,)),
    pooling.MAX_TANGENT: (WINDOWS, (), 1, 1, PLACES, (GEOMETRY,)),
    pooling.MEAN_FORWARD: (WINDOWS, (), 1, 1, (GEOMETRY,), (4,)),
    pooling.MEAN_GRAD_X: (WINDOWS, (), 1, 1, (GEOMETRY,), (4,)),
    pooling.MAP_FORWARD: (MAP, (), 1, 1, (GEOMETRY,)),
    pooling.MAP_GRAD_X: (MAP, (), 1, 1, (GEOMETRY,)),
}


class Code(NamedTuple):
    """A kernel to compile: its name, the plain function, the types of its arguments; wide: it may use float64."""

    name: str
    function: Callable
    signature: tuple
    wide: bool


class Used(NamedTuple):
    """What a kernel takes: registers of a thread, bytes of shared memory, of stack and of spilled registers."""

    registers: int
    shared: int
    stack: int
    spilled: int


def modules(room: str) -> list:
    """The modules of a package of refimpl."""
    package = importlib.import_module(f"refimpl.{room}")
    return [importlib.import_module(f"refimpl.{room}.{m.name}") for m in pkgutil.iter_modules(package.__path__)]


def every() -> Iterator[Code]:
    """Every kernel for float32: of each pass, of sums in slices, and those on tiles and on rows."""
    types = cuda.toolkit().types
    whole = (types.int64,)
    for module in modules("ops") + modules("methods"):
        for passed in passes_of(module).values():
            attributes = [kind_of_value(_typed(default, np.float32)) for default in passed.attributes.values()]
            arrays = [array(passed.shapes[a]) for a in passed.arrays]
            wide = computes_wide(passed)
            yield Code(str(passed), cuda.grid_function(passed.body), (*whole, *arrays, *attributes), wide)
            for letter in passed.adds[:1] if passed.operator == "conv2d" else ():
                arrays = [array(passed.shapes[a], a in passed.writes) for a in passed.arrays]
                body = sliced(passed, letter).body
                signature = (*whole, *arrays, *attributes, *whole, *whole)
                yield Code(f"{passed} along {letter}", cuda.grid_function(body), signature, wide)
    rows = [types.Array(types.float32, rank, "C") for rank in (1, 2)]
    yield Code("add_slices", cuda.grid_function(ADD_SLICES.body), (*whole, *rows), False)
    yield Code("average_slices", cuda.grid_function(AVERAGE_SLICES.body), (*whole, *rows, *whole * 3), False)
    pair, mask = types.UniTuple(types.int64, 2), types.Array(types.uint8, 2, "C")
    maps = [types.Array(types.float32, 4, "C")] * 2
    pooled = (*whole, *maps, mask, types.Array(types.float32, 1, "C"), pair, types.int64)
    yield Code("pool_dy_through", cuda.grid_function(gradient_filter_patches.POOL.body), pooled, False)
    yield Code(
        "add_slices_to_taps",
        cuda.grid_function(gradient_filter_patches.TO_TAPS.body),
        (*whole, rows[1], rows[1]),
        False,
    )
    row, table, kept = rows[0], rows[1], types.Array(types.int32, 1, "C")
    scored = (*whole, table, table, mask, row, table, types.float32, types.float32, *whole * 2)
    yield Code("score_slices", cuda.grid_function(error_map_pruning_rules.SCORE.body), scored, False)
    spread = (*whole, table, types.Array(types.float32, 3, "C"), kept)
    yield Code("add_kept_slices", cuda.grid_function(error_map_pruning_rules.SPREAD.body), spread, False)
    parts, many = types.Array(types.float32, 3, "C"), (table, table, mask)
    for kernel, arrays, numbers in (
        (batch_norm.SLICES, (parts, table), whole),
        (batch_norm.STATISTICS, (*(row,) * 4, parts), (*whole * 2, types.float32)),
        (batch_norm.NORMALISE, (table, table, *(row,) * 4, table), whole),
        (batch_norm.GRADIENT_SLICES, (parts, table, mask, table, row, row), whole * 2),
        (batch_norm.GRADIENTS, (row, row, parts), ()),
        (batch_norm.GRAD_X, (*many, table, *(row,) * 5), whole),
    ):
        yield Code(kernel.body.__name__, cuda.grid_function(kernel.body), (*whole, *arrays, *numbers), False)
    for passed in alike.RULES[alike.together]:
        own = tuple(a for a in passed.arrays if a not in SHARED)
        arrays = [array(passed.shapes[a]) for a in (*own, *(a for a in passed.arrays if a in SHARED))]
        attributes = [kind_of_value(_typed(default, np.float32)) for default in passed.attributes.values()]
        signature = (*whole, types.Array(types.int64, 2, "C"), *arrays, *attributes)
        yield Code(f"{passed} of each", alike.of_each(passed, own).function(), signature, computes_wide(passed))
    for tiled, kinds in TUNED.items():
        for tile in TILES:
            signature = tuple(kind_of(kind) for kind in kinds)
            function = with_plain_functions(tiled, tile)
            yield Code(f"{tiled.__name__} on {tile.rows}x{tile.columns}", function, signature, False)
    for unrolled, (windows, *kinds) in UNROLLED.items():
        for taps in windows:
            name = f"{unrolled.__name__} on {taps.rows}x{taps.columns}, stride {taps.down}"
            yield Code(name, with_plain_functions(unrolled, taps), tuple(map(kind_of, kinds)), False)
    for kernel, kinds in ROW_WISE.items():
        for block in BLOCKS:
            name, signature = f"{kernel.__name__} on {block.lanes} lanes", tuple(map(kind_of, kinds))
            yield Code(name, with_plain_functions(kernel, block), signature, False)


def scalar(dtype):
    """The package's type of a number."""
    name = np.dtype(dtype).name
    return getattr(cuda.toolkit().types, "boolean" if name == "bool" else name)


def kind_of_value(value):
    """The package's type of an attribute: a number, or a tuple of such."""
    if isinstance(value, tuple):
        return cuda.toolkit().types.BaseTuple.from_types([kind_of_value(v) for v in value])
    return scalar(np.asarray(value).dtype)


def array(entry: str, more: int = 0):
    """The package's type of an array by its entry in SHAPES, with so many axes more."""
    return cuda.toolkit().types.Array(scalar(dtype_of(entry, np.float32)), len(dims(entry)) + more, "C")


def kind_of(kind):
    """The package's type of an argument of TUNED."""
    types = cuda.toolkit().types
    if isinstance(kind, str):
        dtype, axes = {"mask": "uint8 2", "kept": "int32 1"}.get(kind, kind).split()
        return types.Array(getattr(types, dtype), int(axes), "C") if int(axes) else getattr(types, dtype)
    if isinstance(kind, tuple):
        return types.UniTuple(types.int64, kind[0]) if kind else types.int64
    return types.Array(types.float32, kind, "C")


def computes_wide(passed: Pass) -> bool:
    """May a pass compute in float64 on arrays of float32?

    Rates are Python floats in dropout, shares of neighbours quotients of whole numbers in interpolate; Numba rounds
    float32 to whole numbers by way of float64, and a factor of requantization is made of whole attributes there.
    """
    known = ("dropout", "interpolate", "quantize", "niti_input", "sparse_update_whole", "staircase", "cubic_resize")
    wide = passed.operator in known or passed.operator.startswith("quantized_")
    return wide or any("float64" in passed.shapes[a] for a in passed.arrays)


def with_plain_functions(made: Tiled | Unrolled | RowWise, constants) -> Callable:
    """The kernel on a tile, of taps or on a block of rows, as a plain function, not compiled."""
    module = sys.modules[made.__module__]
    with mock.patch.object(module, "jit", cuda.with_toolkit):
        return made.plain(constants, np.float32)


def ptx(code: Code, capabilities: Iterable[str]) -> list[str]:
    """The PTX of a kernel for each of some compute capabilities such as 8.7; what comes before it is made once."""
    numbers = [tuple(map(int, capability.split("."))) for capability in capabilities]
    return {"numba_cuda": by_numba_cuda, "numba_cuda_mlir": by_numba_cuda_mlir}[cuda.package()](code, numbers)


def by_numba_cuda(code: Code, numbers: list[tuple[int, int]]) -> list[str]:
    """The same by `numba-cuda`."""
    from numba.cuda import compiler, dispatcher

    # It asks the current GPU for its capability when it compiles a device function, although none is needed
    here = SimpleNamespace(compute_capability=numbers[0])
    with mock.patch.object(dispatcher, "get_current_device", lambda: here):
        library, _ = compiler._compile_pyfunc_with_fixup(
            code.function, code.signature, cc=numbers[0], device=False, abi="numba", abi_info=None
        )
    return ["\n".join(library.get_asm_strs(cc=number)) for number in numbers]


def by_numba_cuda_mlir(code: Code, numbers: list[tuple[int, int]]) -> list[str]:
    """The same by `numba-cuda-mlir`."""
    from numba_cuda_mlir import compiler, linker, mlir_optimization, tools

    def chip(number: tuple[int, int]) -> str:
        return tools.format_arch(number)

    def here(kind=str):
        return numbers[0] if kind is tuple else chip(numbers[0])

    # It asks the current GPU for its capability, and makes machine code, although neither is needed
    with (
        mock.patch.object(tools, "get_gpu_compute_capability", here),
        mock.patch.object(linker.Linker, "complete", lambda self: SimpleNamespace(code=b"")),
    ):
        made = compiler.compile_result(code.function, code.signature)
        options, first = made.metadata["targetoptions"], made.metadata.pop("ptx")
        others = (mlir_optimization.get_ptx(made, options | {"chip": chip(number)}) for number in numbers[1:])
        return [first, *others]


def assembler() -> str | None:
    """The path of `ptxas`: that of the toolkit among the packages, else one on the PATH; None where there is none."""
    found = find_spec("nvidia")
    for folder in found.submodule_search_locations or () if found else ():
        for path in sorted(Path(folder).glob("*/bin/ptxas")):
            return str(path)
    return shutil.which("ptxas")


def used(text: str, capability: str, ptxas: str) -> Used:
    """What the assembler says of PTX."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.ptx"
        file.write_text(text, encoding="utf-8")
        command = [ptxas, "-v", f"-arch=sm_{capability.replace('.', '')}", "-o", str(file.with_suffix(".cubin"))]
        made = subprocess.run([*command, str(file)], capture_output=True, text=True, check=False)
    if made.returncode:
        raise RuntimeError(made.stderr.strip())

    def number(pattern: str) -> int:
        found = re.findall(pattern, made.stderr)
        return max(map(int, found), default=0)

    return Used(
        number(r"Used (\d+) registers"), number(r"(\d+) bytes smem"), number(r"(\d+) bytes stack frame"),
        number(r"(\d+) bytes spill (?:stores|loads)"),
    )  # fmt: skip


def main(arguments: list[str]) -> None:
    """Print what each kernel takes, or record it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--capability", default=RECORDED[0], help="compute capability, such as 8.7")
    parser.add_argument("--record", action="store_true", help=f"write {RESULT} for {' and '.join(RECORDED)}")
    given = parser.parse_args(arguments)
    ptxas = assembler()
    if ptxas is None:
        raise SystemExit("there is no ptxas: pip install 'gradledger[cuda12]' brings it")
    capabilities = RECORDED if given.record else (given.capability,)
    found: dict[str, dict] = {capability: {} for capability in capabilities}
    for code in every():
        for capability, text in zip(capabilities, ptx(code, capabilities), strict=True):
            row = used(text, capability, ptxas)
            found[capability][code.name] = row._asdict()
            print(f"{capability:>5s} {code.name:48s} {row.registers:4d} registers, {row.shared:6d} B shared, "
                  f"{row.stack:5d} B stack, {row.spilled:5d} B spilled", flush=True)  # fmt: skip
    if given.record:
        version = subprocess.run([ptxas, "--version"], capture_output=True, text=True, check=True).stdout
        about = {"compiler": re.search(r"V[\d.]+", version)[0], "package": cuda.package()}
        checkpoint.write_json(RESULT, {"ok": True, "name": "cuda-code", **about, "kernels": found, **provenance()})


if __name__ == "__main__":
    main(sys.argv[1:])
