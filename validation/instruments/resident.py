"""Resident memory of training, measured beside its prediction: `python -m validation.instruments.resident [FILE]`.

Each case trains in a process of its own, on a warm kernel cache; what is read there is VmHWM of /proc/self/status, as
`ru_maxrss` would begin with the peak of the process that started it. The command measures what the runtime takes on
this machine (`costmodel.device.process.Base`), runs CASES, prints a table and writes a record to FILE.
"""

import json
import pickle
import platform
import subprocess
import sys
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import numpy as np

import refimpl as ri
from refimpl.kernels import kernel
from refimpl.storage import checkpoint

# costmodel is imported where it is used: the processes that are measured import this module too, and no SymPy
STATUS = Path("/proc/self/status")
GOAL = 0.02  # largest relative error


@dataclass(frozen=True)
class Case:
    """Two epochs and an evaluation on random samples; `pretrained`: the graph comes with weights.

    options: of the model. samples: default two batches. threads: no more than Numba has.
    """

    model: str
    batch: int
    plan: ri.Plan
    options: dict = field(default_factory=dict)
    samples: int | None = None
    threads: int = 2
    pretrained: bool = False

    def __post_init__(self):
        object.__setattr__(self, "samples", self.samples or 2 * self.batch)

    def program(self) -> ri.Program:
        """The compiled step."""
        graph = ri.models.build(self.model, **self.options)
        if self.pretrained:
            graph.weights = {
                n: np.full(p.shape, 0.01).astype(p.dtype or np.float32) for n, p in graph.parameters.items()
            }
        return ri.compile(graph, self.plan, self.batch, threads=self.threads)

    def data(self, program: ri.Program) -> tuple[np.ndarray, np.ndarray]:
        """x (samples, H, W, C) float32 and labels of two classes."""
        rng = np.random.default_rng(0)
        shape = (self.samples, *program.size, program.graph.channels)
        return rng.standard_normal(shape, dtype=np.float32), rng.integers(0, 2, self.samples)

    def run(self) -> None:
        """Train in this process; print its peak in bytes and how many kernels it had to compile."""
        program = self.program()
        trainer = ri.Trainer(program)
        x, y = self.data(program)
        trainer.fit(x, y, 2)
        trainer.evaluate(x, y)
        print(json.dumps({"peak_bytes": peak(), "compiled": kernel.cache_misses()}))

    def predicted(self, base) -> dict[str, int]:
        """`costmodel.device.process.terms` of the case."""
        from costmodel.device import process

        program = self.program()
        x, y = self.data(program)
        return process.terms(program, base, x.nbytes + y.nbytes, self.samples)


def peak() -> int:
    """The most resident bytes that this process ever had; RuntimeError where the system does not tell."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        raise RuntimeError(
            f"resident memory is read from {STATUS}, which this system does not have: use Linux"
        ) from None
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def measured(case: Case) -> int:
    """Peak of resident memory in bytes of a process that trains the case and finds every kernel in the cache.

    Processes before it fill the cache where they have to. RuntimeError with its last line where one fails, and where
    the cache never holds all of them.
    """
    peak()  # say here what would fail there
    script = "import pickle, sys; pickle.load(sys.stdin.buffer).run()"
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", script], input=pickle.dumps(case), capture_output=True)
        if done.returncode:
            raise RuntimeError(f"{case} failed: {done.stderr.decode().strip().splitlines()[-1]}")
        record = json.loads(done.stdout)
        if not record["compiled"]:
            return record["peak_bytes"]
    raise RuntimeError(f"the kernel cache {kernel.CACHE_DIR} does not keep kernels: each process compiles them anew")


def plan(train_last="all", *rules, momentum=0.9, **keywords) -> ri.Plan:
    """A plan of rules, with steps so small that no net diverges on random samples."""
    return ri.Plan(train_last, rules, ri.Backprop(ri.SGD(lr=1e-6, momentum=momentum)), **keywords)


# small arrays, and few, some and many launches
BASE_CASES = (
    Case("watch", 1, plan()),
    Case("resnet20", 1, plan(), {"size": (16, 16)}),
    Case("mobilenet_v2", 1, plan(), {"size": (32, 32), "width": 0.1}),
)


def measure_base(cases=BASE_CASES):
    """`device.process.Base` of this machine: the line through the cases' bytes that no other term explains."""
    from costmodel.device.process import Base

    launches = [case.predicted(Base(0, 1))["launches"] for case in cases]
    rest = [measured(case) - sum(case.predicted(Base(0, 0)).values()) for case in cases]
    launch, fixed = np.polyfit(launches, rest, 1)
    return Base(round(fixed), round(launch))


PATCH, EMP = ri.GradientFilter(2), ri.ErrorMapPruning(0.5)
SPARSE = ri.SparseUpdate(0.02)
S64, S96, S128 = ({"size": (n, n)} for n in (64, 96, 128))
CASES = {
    "watch, batch 256, gradient filter": Case("watch", 256, plan("all", PATCH), samples=512),
    "watch, batch 32, batch statistics": Case("watch", 32, plan(batch_norm="train"), samples=20_000),
    "LeNet, batch 64, instance filter": Case("lenet", 64, plan(instances=ri.InstanceFilter()), samples=6_000),
    "LeNet-5, batch 8": Case("lenet5", 8, plan()),
    "LeNet-5, batch 256, one thread": Case("lenet5", 256, plan(), samples=2_000, threads=1),
    "LeNet-5, batch 32, error map pruning": Case("lenet5", 32, plan("all", EMP)),
    "LeNet-5, batch 32, classifier": Case("lenet5", 32, plan(0)),
    "ResNet-8, batch 32, batch statistics": Case("resnet8", 32, plan(batch_norm="train")),
    "ResNet-20, batch 64": Case("resnet20", 64, plan(), samples=640),
    "ResNet-20, batch 8, sparse update": Case("resnet20", 8, plan("all", SPARSE, momentum=0)),
    "ResNet-18 64x64, batch 4": Case("resnet18", 4, plan(), S64),
    "ResNet-18 64x64, batch 4, last 2, pre-trained": Case("resnet18", 4, plan(2), S64, pretrained=True),
    "ResNet-18 128x128, batch 8, batch statistics": Case("resnet18", 8, plan(batch_norm="train"), S128),
    "ResNet-18 128x128, batch 8, last 3, error map pruning": Case("resnet18", 8, plan(3, EMP), S128),
    "MobileNetV2 96x96, batch 4": Case("mobilenet_v2", 4, plan(), S96),
    "MobileNetV2 96x96, batch 4, last 4, gradient filter": Case("mobilenet_v2", 4, plan(4, PATCH), S96),
    "MobileNetV2 128x128, batch 16, batch statistics": Case("mobilenet_v2", 16, plan(batch_norm="train"), S128),
    "MobileNetV2 128x128, batch 1, sparse update of the last 42": Case(
        "mobilenet_v2", 1, plan(42, SPARSE, momentum=0), S128
    ),
    "MobileNetV2 96x96, batch 8, sparse update by gradients": Case(
        "mobilenet_v2", 8, plan(42, ri.SparseUpdate(0.02, order="gradient"), momentum=0), S96
    ),
    "MobileNetV2 0.35 96x96, batch 1, pre-trained, Adam": Case(
        "mobilenet_v2", 1, ri.Plan("all", step=ri.Backprop(ri.Adam(lr=1e-6))), S96 | {"width": 0.35}, pretrained=True
    ),
}  # fmt: skip


def compare(base, cases: dict[str, Case], watch=lambda row: None) -> list[dict]:
    """For each case: name, terms, predicted and measured bytes, error = predicted / measured − 1."""
    rows = []
    for name, case in cases.items():
        terms, peak_bytes = case.predicted(base), measured(case)
        predicted = sum(terms.values())
        rows.append({"name": name, "predicted_bytes": predicted, "measured_bytes": peak_bytes,
                     "error": predicted / peak_bytes - 1, "terms": terms})  # fmt: skip
        watch(rows[-1])
    return rows


def line(row: dict) -> str:
    """A row of the table: MiB predicted and measured, the error in percent."""
    predicted, measured = row["predicted_bytes"] / 2**20, row["measured_bytes"] / 2**20
    return f"{row['name']:60s} {predicted:8.1f} {measured:8.1f} {100 * row['error']:+6.2f} %"


def main(path: str | None = None) -> bool:
    """Measure the base and run every case; True where all errors are within the goal."""
    base = measure_base()
    print(f"fixed {base.fixed / 2**20:.1f} MiB, {base.launch / 2**10:.1f} KiB a launch")
    print(f"{'':60s} {'predicted':>8s} measured, MiB")
    rows = compare(base, CASES, lambda row: print(line(row), flush=True))
    worst = max(abs(row["error"]) for row in rows)
    print(f"largest error {100 * worst:.2f} % of {len(rows)} cases")
    if path:
        versions = {name: metadata.version(name) for name in ("numpy", "numba", "llvmlite", "scipy")}
        machine = {"system": platform.platform(), "python": platform.python_version(), **versions}
        record = {"ok": worst <= GOAL, "goal": GOAL, "machine": machine, "base": vars(base), "cases": rows}
        checkpoint.write_json(path, record)
    return worst <= GOAL


if __name__ == "__main__":
    from validation.instruments import resident  # the cases of the module: the processes that get them know no other

    sys.exit(not resident.main(*sys.argv[1:2]))
