"""`gradledger warmup`: compile the kernels of a training step ahead of its first run."""

import time
from collections.abc import Callable

import numba

from refimpl.kernels import kernel
from refimpl.training.trainer import Trainer

from .errors import Refused
from .job import Job


def run(job: Job, watch: Callable[[int, int, str], None]) -> dict:
    """Compile every kernel of the job's training and evaluation for its argument types, without running one.

    watch: called with (done, all, kernel name) before each kernel. `cache` of the record: where later runs find them,
    None where they do not. Refused for a GPU's, which no file keeps.
    """
    if job.program.backend == "cuda":
        raise Refused(
            "kernels of a GPU are compiled in each run, as it first makes them, and no file keeps them: there is "
            "nothing to warm up; --backend fast compiles those of the CPU"
        )
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
    started = time.perf_counter()
    before = kernel.cache_misses()
    job.dataset.x_train[:1]  # images that are stretched a batch at a time have a kernel of their own
    for done, ((function, signature), name) in enumerate(work.items()):
        watch(done, len(work), name)
        function.compile(signature)
    return {
        "ok": True,
        "kernels": len(work),
        "compiled": kernel.cache_misses() - before,
        "seconds": time.perf_counter() - started,
        "cache": str(kernel.CACHE_DIR) if kernel.CACHE_DIR and not kernel.KernelCache.failed else None,
    }
