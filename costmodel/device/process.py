"""The resident memory of a training process at its peak: what a program holds, and what the runtime under it takes.

The process imports `refimpl`, compiles a program, makes a `Trainer`, fits and evaluates. What it is compared with is
Linux's VmHWM: the most pages that it ever had in memory at once. `terms` are bytes and add up exactly.

Reckoned with are full batches and a warm kernel cache; where it is cold, LLVM compiles in the first process, which took
140 MiB more for LeNet-5. Data are arrays that are there: loading them, and `Resized` images, which hold some float32
batches more while they make one, are not in it. More than half of `Base.fixed` is pages of files (LLVM above all),
which the system takes back where memory is short: a process can do with less than its peak, more slowly.

Threads have no term: each took less than 0.1 MiB, up to eight of them. Nor has the kernels' code: it goes with the
launches, as `refimpl.kernels.kernel.KernelCache` leaves little of it.
"""

from dataclasses import dataclass, replace

import numpy as np

from refimpl.compiler.arena import end_to_end
from refimpl.compiler.compile import compile
from refimpl.compiler.ir import Buffer, Segments
from refimpl.compiler.lower import BACKENDS
from refimpl.compiler.program import Program
from refimpl.plan.plan import Plan
from refimpl.training.learnt_constants import learnt_constants
from refimpl.training.trainer import GUARD

SHUFFLED = 48  # bytes for each training sample while the order of an epoch is drawn: six arrays of int64


@dataclass(frozen=True)
class Base:
    """What the runtime takes on one machine, in bytes; `validation.instruments.resident.measure_base` measures it.

    On a GPU (`device.gpu_calibration.context_bytes`): fixed, what a context takes.

    fixed: interpreter, NumPy, Numba, LLVM, BLAS, the threads and the kernels that every step needs.
    launch: Python objects, and a share of kernel code, for each kernel launch of the compiled steps.
    """

    fixed: int
    launch: int


def peak_bytes(program: Program, base: Base, data_bytes: int, samples: int) -> int:
    """Predicted peak of resident memory in bytes: the sum of `terms`."""
    return sum(terms(program, base, data_bytes, samples).values())


def with_a_batch(program: Program, base: Base | None, inference: Program | None = None) -> dict[str, int] | None:
    """`terms` where a mini-batch is all the data, of a GPU `gpu_terms`; None where the runtime is not known.

    And where stochastic depth compiles.
    """
    if base is None or program.plan.depth:
        return None
    if beside_the_host(program):
        return gpu_terms(program, base.fixed, inference)
    return terms(program, base, _inputs(program), program.batch, inference)


def terms(
    program: Program, base: Base, data_bytes: int, samples: int, inference: Program | None = None
) -> dict[str, int]:
    """Every term of the peak in bytes.

    data_bytes: of all arrays of data that the process holds, labels and test set included. samples: in the training
    set. inference: the same net, sizes and threads without a plan, where it is compiled already. ValueError for
    stochastic depth: how many steps it compiles, and keeps, depends on chance and on their number.

    runtime, launches: see `Base`; launches are those of the step and of inference. arena: the larger one of step and
    inference, which share it, and its guard zones. weights: of all nets, trained or not. optimizer: its arrays.
    plan: what a rule adds, such as an order of channels. kept: trained weights once more, to go back to from a step
    that diverges. pretrained: the graph's own weights, which the first ones are copies of. data. batch: a mini-batch on
    its way into the arena. shuffle: scratch for an epoch's order. dense_step: where a sparse update orders its
    channels by gradients, what the dense step takes that tells them, beyond what is in use later.
    """
    if program.plan.depth:
        raise ValueError(
            f"the resident memory of {program.plan.depth.method} is not predicted: what it compiles depends on chance"
        )
    step, inference = program.step, inference or _compiled(program, None)
    found = {
        "runtime": base.fixed,
        "launches": base.launch * (len(program.order) + len(inference.order)),
        "arena": max(program.peak_bytes, inference.peak_bytes) + 2 * GUARD,
        "weights": _weights(program),
        "optimizer": sum(b.nbytes for b in step.state.values()),
        "plan": sum(c.buffer.nbytes for c in step.constants.values()),
        "kept": _trained(program),
        "pretrained": sum(a.nbytes for graph in program.graphs.values() for a in graph.weights.values()),
        "data": data_bytes,
        "batch": _inputs(program),
        "shuffle": SHUFFLED * samples,
    }
    return found | {"dense_step": _dense_step(program, found, base)}


def beside_the_host(program: Program) -> bool:
    """Has the device of a program's backend memory and a queue of its own?"""
    return BACKENDS[program.backend].ahead > 1


def gpu_terms(program: Program, context: int = 0, inference: Program | None = None) -> dict[str, int]:
    """Every term of what training takes of a GPU's memory: the bytes that it asks the driver for, piece by piece.

    inference: as of `terms`. runtime: what the driver's context takes, `context`. arena, weights, optimizer: those of
    `terms`. plan: what the rules of step and inference add. tables: what launches are told of where many arrays lie
    (`refimpl.backends.cuda.alike`), once; a last batch that is not full has tables of its own, as many bytes. between:
    what the state's one piece takes beyond its arrays, which begin at multiples of `ALIGN`, and inference for a state
    that it has not. kept: a copy of what training changes, from which steps are made again
    (`refimpl.training.under_way`). dense_step: what the dense step that orders channels takes beyond that copy, which
    is made when the dense step has gone.
    """
    inference, dense = inference or _compiled(program, None), 0
    found = _on_gpu(program, inference)
    kept = 0 if program.plan.strategy.waits else _state_piece(program)
    if learnt_constants(program):
        step = _dense(program)
        dense = sum(_on_gpu(step, _compiled(step, None)).values())
    return {"runtime": context} | found | {"kept": kept, "dense_step": max(0, dense - kept)}


def _on_gpu(program: Program, inference: Program) -> dict[str, int]:
    """What a trainer of the program holds on a GPU."""
    step = program.step
    arrays = [b.nbytes for b in _held(program)]
    states = max(1, _state_piece(program)) + max(1, _state_piece(inference))
    return {
        "arena": max(program.peak_bytes, inference.peak_bytes) + 2 * GUARD,
        "weights": _weights(program),
        "optimizer": sum(b.nbytes for b in step.state.values()),
        "plan": sum(c.buffer.nbytes for p in (program, inference) for c in p.step.constants.values()),
        "tables": sum(_table_bytes(p) for p in (program, inference)),
        "between": states - sum(arrays),
    }


def _held(program: Program) -> list[Buffer]:
    """The arrays that a GPU holds in one piece: what training changes, and the optimizer's."""
    return [b for b in (*program.step.parameters.values(), *program.step.state.values()) if b.region == "state"]


def _state_piece(program: Program) -> int:
    """Bytes of that piece."""
    return end_to_end(b.nbytes for b in _held(program))[1]


def _table_bytes(program: Program) -> int:
    """Bytes of the tables of a program's launches."""
    tables = [value for launch in program.order for value in launch.args if isinstance(value, Segments)]
    return sum(np.dtype(np.int64).itemsize * (2 + 2 * len(row.arrays)) for table in tables for row in table.rows)


def _compiled(program: Program, plan: Plan | None) -> Program:
    """The same net, sizes and threads with another plan."""
    return compile(
        program.graph, plan, program.batch, program.size, None, program.backend, program.threads, program.dtype
    )


def _dense(program: Program) -> Program:
    """The step of whose gradients `learn_constants` learns."""
    return _compiled(program, replace(program.plan, rules=(), instances=None))


def _dense_step(program: Program, found: dict[str, int], base: Base) -> int:
    """What `learn_constants` takes beyond arena and optimizer, which nothing has touched before the first step."""
    if not learnt_constants(program):
        return 0
    dense = _dense(program)
    own = dense.peak_bytes + 2 * GUARD + _weights(dense) + _trained(dense) + base.launch * len(dense.order)
    return max(0, own - found["arena"] - found["optimizer"])


def _inputs(program: Program) -> int:
    """Bytes of a mini-batch of the graph's inputs."""
    return sum(program.step.host_writes[name].nbytes for name in program.graph.inputs)


def _weights(program: Program) -> int:
    """Bytes of the trainer's parameters."""
    return sum(b.nbytes for b in program.step.parameters.values())


def _trained(program: Program) -> int:
    """Bytes of the parameters that training changes."""
    return sum(b.nbytes for b in program.step.parameters.values() if b.region == "state")
