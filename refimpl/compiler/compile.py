"""Compile a graph and a plan: `compile(graph, plan, batch)` is the Program of a step."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import numba
import numpy as np
from numpy.typing import DTypeLike

from .. import arguments
from ..graph import Graph
from ..plan.plan import Plan
from .compose import derive
from .lower import BACKENDS, lower
from .program import Program

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))  # that a step may be compiled for


SHOWN = 3  # layers that a sentence names


@contextmanager
def uncollected() -> Iterator[None]:
    """No search for cycles of garbage meanwhile.

    What a compiler makes is kept: to go over all of it again and again takes longer the larger the net is.
    """
    were = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if were:
            gc.enable()


def compile(
    graph: Graph,
    plan: Plan | None,
    batch: int,
    size: tuple[int, int] | None = None,
    memory_limit: int | None = None,
    backend: str | None = None,
    threads: int | None = None,
    dtype: DTypeLike = np.float32,
) -> Program:
    """Compile a training step (or, with `plan=None`, inference) for batches of up to `batch` samples.

    size: rows and columns of the input map, default the graph's. memory_limit: bytes that state and arena may take.
    backend: "fast" (default) or "reference". threads: default all. dtype: float32, or float64 for gradient checks.
    Raises ShapeError where the model does not fit the size, MemoryLimitError, ValueError for bad values.
    """
    backend = backend or "fast"
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    arguments.offers("graph", graph, "nodes", "a Graph, such as models.build makes")
    if not graph.nodes:
        raise ValueError(f"the graph {graph.name} has no nodes: add layers to it by its methods, such as conv2d")
    if plan is not None:
        arguments.offers("plan", plan, "train_last", "a Plan, or None for inference")
    arguments.whole("batch", batch)
    if size is not None:
        if not isinstance(size, (tuple, list)) or len(size) != 2:
            raise ValueError(f"size must be rows and columns (H, W), got {size!r}")
        for side in size:
            arguments.whole("each of size", side)
    if size is not None and graph.size is None:
        raise ValueError(f"{graph.name} has no input map, so it takes no size, got {size!r}")
    size = graph.size if size is None else (size[0], size[1])
    if dtype is None or dtype not in DTYPES:
        raise ValueError(f"dtype must be float32 or float64, got {dtype!r}")
    dtype = np.dtype(dtype).type
    if memory_limit is not None:
        arguments.whole("memory_limit, in bytes,", memory_limit)
    if threads is None:
        threads = numba.config.NUMBA_NUM_THREADS
    arguments.whole("threads", threads)
    if plan is not None:
        plan = plan.for_net(graph, size)
        if (frozen := graph.frozen()) and not plan.trained(graph):
            ends = ", ".join(f"{node.name} ({node.op})" for node in graph.nodes if node.operator.stops)
            raise ValueError(
                f"{graph.name} cannot train: gradients stop at {ends}, and no layer that the plan trains lies behind; "
                f"{', '.join(frozen[:SHOWN])} and what else lies before are frozen"
            )
    with uncollected():
        step = derive(graph, plan, batch, size, dtype)
        launches = lower(step, backend, threads)
    program = Program(graph, plan or Plan(), batch, size, dtype, backend, threads, step, launches)
    if memory_limit is not None:
        program.check_memory(memory_limit)
    return program
