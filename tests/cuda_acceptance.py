"""Run by test_cuda in a process of its own: what a GPU must show before it is trusted, and the stand-in can show now.

`twice FOLDER`: one adapt, in two processes, ends in the same bytes. `killed FOLDER`: an adapt that is killed amid its
steps and resumed ends in those of one that was not. `twenty`: steps of three nets, beside the CPU's. `memory`: what is
predicted is what is held. `kept`: where kernels come from. `command ARGUMENTS`: the command line, which the first two
run in processes of their own.
Prints one line for each part; the last line is `done`. With `emulated` behind a mode's arguments it runs on a stand-in
for the driver, of which each process has its own.
"""

import ctypes
import gc
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from cuda_runs import no_process, tiny
from cuda_steps import CLASSES, DRIVERS, plain, run_mode

import refimpl as ri
from costmodel.device import process
from gradledger import adapt, cli, finish
from refimpl.kernels.cuda import toolkit
from refimpl.kernels.cuda_cache import CudaKernelCache
from validation.instruments.emulator.driver import MOST_PIECES

STEPS, MOST_ERROR = 20, 1e-4
SAVED = "saved after step"


def command(*arguments):
    """The command line, which says when it has saved."""
    if DRIVERS:
        finish.subprocess = SimpleNamespace(run=no_process)  # another process would find no stand-in
    save = adapt.Adaptation.save
    adapt.SAVE_AFTER = 0.0

    def told(self):
        save(self)
        print(SAVED, self.saved, flush=True)

    adapt.Adaptation.save = told
    try:
        cli.main(list(arguments))
    except SystemExit as e:
        assert not e.code, e.code


def started(folder, name, *more):
    """An adapt of the small net, in a process of its own."""
    settings = {
        "model": folder / "tiny.safetensors", "data": folder / "data.npz", "method": "backprop", "train-last": "all",
        "epochs": 6 if DRIVERS else 400, "batch": 8, "recipe": "plain", "lr": 0.1, "seed": 5, "threads": 1,
        "backend": "cuda", "output": folder / name,
    }  # fmt: skip
    given = [f"--{key}={value}" for key, value in settings.items()]
    arguments = ["command", "adapt", *given, *more, *(["emulated"] if DRIVERS else [])]
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, __file__, *arguments], stdout=pipe, stderr=pipe, text=True)


def ended(child, folder, name):
    """Its weights as they lie in the file, and what it told."""
    _, told = child.communicate()
    assert child.returncode == 0, told[-3000:]
    return (folder / name / "adapted.safetensors").read_bytes(), told


def twice(folder):
    """The same bytes by two processes that run at the same time."""
    folder = Path(folder)
    tiny(folder)
    children = {name: started(folder, name) for name in ("one", "other")}
    one, other = (ended(child, folder, name)[0] for name, child in children.items())
    assert one == other, "the same seed ended in other weights"
    print("twice the same", flush=True)


def killed(folder):
    """SIGKILL amid steps, of which some were saved; the run goes on and ends as one that nothing disturbed."""
    folder = Path(folder)
    tiny(folder)
    undisturbed, _ = ended(started(folder, "undisturbed"), folder, "undisturbed")
    child = started(folder, "killed")
    saved = next(int(line.split()[-1]) for line in child.stdout if re.fullmatch(f"{SAVED} [1-9][0-9]*\n", line))
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    assert child.returncode == -signal.SIGKILL and not (folder / "killed" / "adapted.safetensors").exists()
    again, told = ended(started(folder, "killed", "--resume"), folder, "killed")
    goes_on = re.search(r"goes on after step ([0-9]+)", told)
    assert goes_on and int(goes_on[1]) >= saved, told
    assert again == undisturbed, "a run that was killed and resumed ended in other weights"
    print("killed and resumed", flush=True)


def twenty():
    """Twenty steps beside those of the CPU: losses near its own, and then the same accuracy."""
    batch = 4 if DRIVERS else 32
    sizes = {"lenet5": (12, 12), "resnet8": (4, 4), "watch": (1, 8)} if DRIVERS else dict.fromkeys(
        ("lenet5", "resnet8", "resnet20", "watch")
    )  # fmt: skip
    for name, size in sizes.items():
        graph = ri.models.build(name, **({"size": size, "classes": 3} if size else {}))
        rng, many = np.random.default_rng(3), 2 * batch
        y = np.arange(many) % 3
        x = rng.normal(size=(many, *graph.size, graph.channels)).astype(np.float32) + y[:, None, None, None] - 1
        plan = ri.Plan("all", batch_norm="train", step=ri.Backprop(ri.SGD(0.002, momentum=0.9)))
        found = {}
        for backend in ("cuda", "fast"):
            t = ri.Trainer(ri.compile(graph, plan, batch, backend=backend, threads=1), seed=4)
            t.fit(x, y, STEPS * batch // many)
            found[backend] = np.array(t.losses), float(np.mean(t.predict(x).argmax(1) == y))
        (ours, right), (theirs, wanted) = found["cuda"], found["fast"]
        assert len(ours) == STEPS
        error = np.max(np.abs(ours - theirs) / theirs)
        told = f"{name}: losses {theirs[0]:.3f} to {theirs[-1]:.3f}, off by {error:.1e} at most, accuracy {right:.3f}"
        print(told, flush=True)
        assert error < MOST_ERROR and right == wanted, (ours, theirs, right, wanted)


def memory():
    """What a trainer holds of the GPU's memory is predicted to the byte. No kernel runs: all numbers stay zero."""
    DRIVERS[0].machine.run = lambda *launch: Counter()
    adam, momentum = (ri.Backprop(how, clip_norm=1.0) for how in (ri.Adam(0.1), ri.SGD(0.1, momentum=0.9)))
    plans = (
        ri.Plan("all", train_bias=True, batch_norm="train", step=momentum),
        ri.Plan(2, rules=[ri.ErrorMapPruning(0.5)], step=adam),
        ri.Plan(rules=[ri.SparseUpdate(0.5)]),
    )
    for name, size in (("mobilenet_v2", (32, 32)), ("lenet", (28, 28)), ("watch", (1, 100))):
        graph = ri.models.build(name, size=size, classes=5)
        x = np.zeros((6, *size, graph.channels), np.float32)
        for plan in plans:
            gc.collect()
            before = held()
            t = ri.Trainer(ri.compile(graph, plan, 2, backend="cuda", threads=1), seed=1)
            t.fit(x, np.zeros(6, np.int64), 1)
            t.predict(x)
            terms = process.gpu_terms(t.program)
            found, predicted = held() - before, sum(terms.values())
            print(f"{name}: {found:,} bytes held, {predicted:,} predicted", flush=True)
            assert found == predicted, terms
            t = None


def kept():
    """Train a little; prints where each kernel came from, and what the weights are in the end."""
    found = {"compiled": 0, "from the disk": 0}
    load, save = CudaKernelCache.load_overload, CudaKernelCache.save_overload

    def loaded(self, *signature):
        kernel = load(self, *signature)
        found["from the disk"] += kernel is not None
        return kernel

    def saved(self, *given):
        found["compiled"] += 1
        save(self, *given)

    CudaKernelCache.load_overload, CudaKernelCache.save_overload = loaded, saved
    graph = plain()
    x = np.random.default_rng(1).normal(size=(4, *graph.size, graph.channels)).astype(np.float32)
    t = ri.Trainer(ri.compile(graph, ri.Plan(), 2, backend="cuda", threads=1), seed=2)
    t.fit(x, np.arange(4) % CLASSES, 2)
    ends = b"".join(a.tobytes() for a in t.resume_arrays().values())
    print(json.dumps(found | {"weights": hashlib.sha256(ends).hexdigest()}))


def held():
    """Bytes that this process has asked the driver for and not given back, after the package gave back what it kept."""
    toolkit().current_context().deallocations.clear()
    pieces = np.empty((MOST_PIECES, 2), np.int64)
    n = DRIVERS[0].library.stand_in_ranges(pieces.ctypes.data_as(ctypes.c_void_p), MOST_PIECES)
    return int((pieces[:n, 1] - pieces[:n, 0]).sum())


if __name__ == "__main__":
    run_mode({"command": command, "twice": twice, "killed": killed, "twenty": twenty, "memory": memory, "kept": kept})
