"""What a step's operations and memory accesses would cost in joules: an estimate, never a measurement.

Two estimates that share nothing:

- `counted`: additions and multiplications of the step, and the bytes that its launches move, times published energies
  of one operation and one access (M. Horowitz, ISSCC 2014, 45 nm), carried over to the device's process where that is
  known (`energy.json` names the sources). Instruction overhead, registers and first-level cache are left out, so this
  is what no processor of that process gets below.
- `board`: the board's power under load times the predicted seconds: what its supply would see.

A claim about energy needs a meter. Ratios between methods on one device say more than joules.
"""

import json
from functools import cache
from importlib.resources import files

from . import kernels
from .predict import Estimate

PICO = 1e-12
WORD = 8  # bytes of an access in the published table


@cache
def table() -> dict:
    """The published energies and their scaling between processes, as in `energy.json`."""
    return json.loads(files("costmodel").joinpath("energy.json").read_text(encoding="utf-8"))


def scale(nanometres: float | None) -> float:
    """Energy of logic and caches in a process against 45 nm; 1 where the process is not known."""
    if nanometres is None:
        return 1.0
    return float(table()["energy_factor_from_45_nanometres"][f"{nanometres:g}"]["value"])


def joules(estimate: Estimate) -> dict:
    """Joules of one step: `counted` by part with its sum, and `board` (None where its power is not known).

    memory is given as `low` and `high`, as the published energy of a DRAM access is.
    """
    device, program = estimate.device, estimate.program
    energies, factor = table(), scale(device.nanometres)
    units = estimate.units
    operations = (
        factor
        * PICO
        * sum(units[unit] * energies["operations"][f"float32_{unit}_picojoules"]["value"] for unit in ("add", "mul"))
    )
    moved = dict.fromkeys(kernels.LEVELS, 0.0)
    for terms in estimate.work:
        for level in moved:
            moved[level] += terms.get(level, 0.0) * estimate.n / program.batch
    near = sum(moved.values()) if device.flash_bytes else moved["near"] + moved["middle"]  # a chip's own memory is near
    far = sum(moved.values()) - near
    energy = {name: PICO * found["value"] / WORD for name, found in energies["memory"].items()}
    cached = factor * energy["sram_1_mib_read_64_bits_picojoules"] * near
    memory = {bound: cached + energy[f"dram_read_64_bits_{bound}_picojoules"] * far for bound in ("low", "high")}
    return {
        "counted": {
            "operations": operations,
            "memory": memory,
            "total": {bound: operations + found for bound, found in memory.items()},
            "process_nanometres": device.nanometres,
        },
        "board": None if device.watts is None else {k: device.watts[1] * s for k, s in estimate.seconds.items()},
        "measured": False,
    }
