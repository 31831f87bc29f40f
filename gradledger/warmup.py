"""`gradledger warmup`: compile the kernels of a training step ahead of its first run."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import numba

from refimpl.kernels import cuda, kernel
from refimpl.training.inputs import Inputs, samples, taken
from refimpl.training.trainer import NonFiniteError, Trainer

from .errors import Refused
from .job import Job


def run(job: Job, watch: Callable[[int, int, str], None]) -> dict:
    """Compile every kernel of the job's training and evaluation for its argument types.

    Those of the CPU are not run; those of a GPU are compiled by steps and predictions, after which the job is used up.
    watch: called with (done, all, name) before each kernel, or part of that work. `cache` of the record: where later
    runs find them, None where they do not. CudaError or MemoryError where the GPU fails, Refused where it is
    simulated.
    """
    started = time.perf_counter()
    kernels, compiled, folder = on_gpu(job, watch) if job.program.backend == "cuda" else on_cpu(job, watch)
    return {
        "ok": True,
        "kernels": kernels,
        "compiled": compiled,
        "seconds": time.perf_counter() - started,
        "cache": str(folder) if folder and not kernel.KernelCache.failed else None,
    }


def on_cpu(job: Job, watch: Callable[[int, int, str], None]) -> tuple[int, int, Path | None]:
    """How many kernels there are, how many were compiled, and the folder of the others."""
    work = {}
    trainers: list[Trainer] = [job.trainer] + ([job.head.maps, job.head.trainer] if job.head else [])
    for runner in (r for trainer in trainers for r in (trainer.runner, trainer.evaluator.runner)):
        batch = runner.program.batch
        for section, launches in runner.program.launches.items():
            for n in {batch, *(len(x) % batch or batch for x in job.dataset.maps.values())}:
                prepared = runner.prepared(section, n)
                for launch, (function, args) in zip(launches, prepared, strict=True):
                    signature = tuple(numba.typeof(a) for a in args)
                    work[function, signature] = launch.name
    before = kernel.cache_misses()
    job.dataset.x_train[:1]  # images that are stretched a batch at a time have a kernel of their own
    for done, ((function, signature), name) in enumerate(work.items()):
        watch(done, len(work), name)
        function.compile(signature)
    return len(work), kernel.cache_misses() - before, kernel.CACHE_DIR


def on_gpu(job: Job, watch: Callable[[int, int, str], None]) -> tuple[int, int, Path | None]:
    """The same. Steps and predictions run: what a GPU's launch compiles for is known where it is launched."""
    if cuda.simulated():
        raise Refused("kernels run as Python in the simulator of CUDA: there is nothing to compile")
    x, y = job.dataset.x_train, job.dataset.y_train
    parts = 2 if job.head else 1
    if job.head:
        watch(0, parts, "the classifier alone")
        maps = job.head.maps.predict(taken(x, slice(job.head.tail.batch)))
        stepped(job.head.trainer, maps, y)
    watch(parts - 1, parts, "all that trains")
    stepped(job.trainer, x, y)
    return *cuda.counted(), cuda.CACHE_DIR


def stepped(trainer: Trainer, x: Inputs, y) -> None:
    """Run every section of a step, and predict, on the first batch of x (M, …) and y (M,)."""
    count = min(trainer.program.batch, samples(x))
    part, labels = taken(x, slice(count)), y[:count]
    with contextlib.suppress(NonFiniteError):  # of a rate that is too high: the kernels ran
        trainer.rehearse(part, labels)
    trainer.predict(part)
