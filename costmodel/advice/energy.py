"""What a step's operations and memory accesses would cost in joules: an estimate, never a measurement.

Two estimates that share nothing:

- `counted`: additions and multiplications of the step, and the bytes that its launches move, times published energies
  of one operation and one access (M. Horowitz, ISSCC 2014, 45 nm), carried over to the device's process where that is
  known (`energy.json` names the sources). Instruction overhead, registers and first-level cache are left out, so this
  is what no processor of that process gets below. Left out too, and named in `left_out`, are operations whose energy is
  not in the table. Sums of integers are priced as of 32 bits, the width that they are kept in, and products as of the
  widest integers that their call reads, 8 bits or 32: one of 8 bits takes a fifteenth. So in a call on 8 bits its few
  products of a requantization are too cheap.
- `board`: the board's power under load times the predicted seconds: what its supply would see.

A claim about energy needs a meter. Ratios between methods on one device say more than joules.
"""

import itertools
import json
from collections import Counter
from collections.abc import Callable
from functools import cache
from importlib.resources import files

from numpy.typing import DTypeLike

from refimpl.compiler.ir import Call

from ..device import kernels
from ..predict import Estimate

PICO = 1e-12
WORD = 8  # bytes of an access in the published table
ACCESSES = ("load", "store")  # units whose energy is that of the bytes that launches move


@cache
def table() -> dict:
    """The published energies and their scaling between processes, as in `energy.json`."""
    return json.loads(files("costmodel.advice").joinpath("energy.json").read_text(encoding="utf-8"))


def of_operation(unit: str, dtype: DTypeLike, bits: int = 32) -> float | None:
    """Published picojoules of one operation of a unit, in a program of that float dtype; None where there are none.

    bits: of the factors of a product of integers.
    """
    width = 8 if unit == "imul" and bits <= 8 else 32
    name = f"int{width}_{unit[1:]}" if unit in ("iadd", "imul") else f"{dtype}_{unit}"
    found = table()["operations"].get(f"{name}_picojoules")
    return found and float(found["value"])


def widest(call: Call) -> int:
    """Bits of the widest integers that a call reads; 32 where it reads none."""
    return max((8 * b.dtype.itemsize for b in call.reads if b.dtype.kind in "iu"), default=32)


def scale(nanometres: float | None) -> float:
    """Energy of logic and caches in a process against 45 nm; 1 where the process is not known."""
    if nanometres is None:
        return 1.0
    return float(table()["energy_factor_from_45_nanometres"][f"{nanometres:g}"]["value"])


def joules(estimate: Estimate, counts: Callable[[Call], bool] = lambda call: True) -> dict:
    """Joules of one step: `counted` by part with its sum, and `board` (None where its power is not known).

    memory is given as `low` and `high`, as the published energy of a DRAM access is. counts: which calls of the step
    count, default all; a launch counts with the first call that it covers.
    """
    device, program = estimate.device, estimate.program
    energies, factor = table(), scale(device.nanometres)
    by_width: dict[int, Counter] = {}
    for call, found in estimate.calls.items():
        if counts(call):
            by_width.setdefault(widest(call), Counter()).update(found)
    units = sum(by_width.values(), Counter())
    priced = {unit: of_operation(unit, program.dtype) for unit in units if unit not in ACCESSES}
    each = (
        (n, of_operation(unit, program.dtype, bits)) for bits, found in by_width.items() for unit, n in found.items()
    )
    operations = factor * PICO * sum(n * picojoules for n, picojoules in each if picojoules is not None)
    mine = [True]
    for launch in program.order:  # one that covers no call belongs to the one before it
        mine.append(counts(launch.covers[0]) if launch.covers else mine[-1])
    mine = mine[1:]
    moved = dict.fromkeys(kernels.LEVELS, 0.0)
    for terms in itertools.compress(estimate.work, mine):
        for level in moved:
            moved[level] += terms.get(level, 0.0) * estimate.n / program.batch
    share = 1 if all(mine) else sum(itertools.compress(estimate.launches, mine)) / estimate.seconds["mid"]
    near = sum(moved.values()) if device.flash_bytes else moved["near"] + moved["middle"]  # a chip's own memory is near
    far = sum(moved.values()) - near
    energy = {name: PICO * found["value"] / WORD for name, found in energies["memory"].items()}
    cached = factor * energy["sram_1_mib_read_64_bits_picojoules"] * near
    memory = {bound: cached + energy[f"dram_read_64_bits_{bound}_picojoules"] * far for bound in ("low", "high")}
    return {
        "counted": {
            "operations": operations,
            "left_out": {unit: n for unit, n in sorted(units.items()) if n and priced.get(unit, 0) is None},
            "memory": memory,
            "total": {bound: operations + found for bound, found in memory.items()},
            "process_nanometres": device.nanometres,
        },
        "board": device.watts and {k: device.watts[1] * s * share for k, s in estimate.seconds.items()},
        "measured": False,
    }
