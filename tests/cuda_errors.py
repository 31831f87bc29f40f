"""Run by test_cuda in a process of its own, on the stand-in for a driver: what goes wrong on a GPU, told in a sentence.

`memory FOLDER`: a GPU of too little memory, for each part of a run. `figures FOLDER`: a driver that tells no clock, or
of a GPU beside the processor. `captures FOLDER`: what ends a capture. `work FOLDER`: `doctor` and `warmup`.
`lacking FOLDER PART`: without a part of the toolkit. Prints one line for each; the last line is `done`.
"""

import gc
import re
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cuda_runs import no_process, of_tiny, tiny
from cuda_steps import DRIVERS, run_mode

from costmodel.device import device
from gradledger import adapt, doctor, finish, warmup
from gradledger.errors import Malformed
from gradledger.job import prepare
from refimpl.compiler.lower import BACKENDS
from refimpl.kernels import cuda
from refimpl.kernels.cuda import CudaError
from refimpl.kernels.cuda_parts import PARTS, missing

CLOCK, MEMORY_CLOCK, BUS_WIDTH, INTEGRATED = 13, 36, 37, 18  # attributes of a device


def memory(folder):
    """From no memory to enough: each run ends in one sentence, and what it had saved goes on to the same bits."""
    folder, driver = Path(folder), DRIVERS[0]
    tiny(folder)

    def made(name, resume=False):
        adapt.run(of_tiny(folder, "cuda"), folder / name, resume, lambda event: None)
        return (folder / name / "adapted.safetensors").read_bytes()

    found, ended = {}, {}
    for nbytes in range(4096, 1 << 15, 1024):
        gc.collect()
        driver.has(nbytes)
        try:
            ended[nbytes] = made(str(nbytes))
            if len(ended) == 2:
                break
        except Malformed as e:
            found[nbytes] = str(e)
    driver.has(1 << 20)
    undisturbed = made("undisturbed")
    assert len(ended) == 2 and set(ended.values()) == {undisturbed} and min(ended) > max(found)
    needed = set()
    for nbytes, told in found.items():
        free, total, asked = re.search(
            "the GPU has ([0-9,]+) of its ([0-9,]+) bytes free, and ([0-9,]+) are", told
        ).groups()
        assert total == f"{nbytes:,}" and "\n" not in told and int(free.replace(",", "")) <= nbytes
        needed.add(asked)
        if "is saved, go on with: gradledger adapt --resume" in told:
            assert made(str(nbytes), resume=True) == undisturbed
        else:
            assert not (folder / str(nbytes) / "adapted.safetensors").exists()
    saved = ["is saved" in told for told in found.values()]
    assert len(needed) > 3 and any(saved) and not all(saved)
    print("memory", flush=True)


def figures(folder):
    """A run ends, with its predicted time, where the driver tells no clocks or those of another part."""
    folder, driver = Path(folder), DRIVERS[0]
    tiny(folder)
    driver.tells(MEMORY_CLOCK, 0)
    record = adapt.run(of_tiny(folder, "cuda"), folder / "run", False, lambda event: None)
    assert record["ok"]
    there = cuda.toolkit().get_current_device()
    told = {"MEMORY_CLOCK_RATE": (MEMORY_CLOCK, 10**6), "INTEGRATED": (INTEGRATED, 0), "CLOCK_RATE": (CLOCK, 0)}
    copied, peak = cuda.described().bandwidth, 2e9 * 128 / 8
    assert copied == pytest.approx(2 * cuda.COPIED / 8 / 1e-3, rel=0.1)  # of 64 MiB, an eighth, in a millisecond

    def described(**values):
        for name, (number, usual) in told.items():
            vars(there).pop(name, None)  # the package keeps what a device told
            driver.tells(number, values.get(name, usual))
        return cuda.described()

    assert described().bandwidth == peak
    assert described(INTEGRATED=1).bandwidth == copied
    assert described().clock_hz == cuda.USUAL_CLOCK and described(CLOCK_RATE=5).clock_hz == 5e3
    assert device.this_gpu().rates
    print("figures", flush=True)


def captures(folder):
    """A launch in the NULL stream, a copy and a wait end the capture of a stream that waits for it; the next is whole.

    An event may be part of it.
    """
    stream = BACKENDS["cuda"].stream
    made, add = cuda.to_device(np.zeros(3, np.float32)), cuda.jit(add_one)
    add[1, 1, stream](made)
    for spoil in (lambda: add[1, 1](made), made.copy_to_host, stream.sync):
        wrong = []

        def queue(spoil=spoil, wrong=wrong):
            add[1, 1, stream](made)
            try:
                spoil()
            except Exception as e:  # another one follows, where the capture ends
                wrong.append(e)

        with pytest.raises(Exception, match="CUDA_ERROR"):
            cuda.captured(stream, queue)
        assert len(wrong) == 1
    cuda.captured(stream, lambda: (add[1, 1, stream](made), stream.record())).launch(stream)
    np.testing.assert_array_equal(BACKENDS["cuda"].read(made), 2)
    print("captures", flush=True)


def add_one(y):
    for t in range(y.shape[0]):
        y[t] += 1


def work(folder):
    """`doctor` tells that a kernel ran and was captured, and what fails; `warmup` runs what a step will need."""
    folder, driver = Path(folder), DRIVERS[0]
    tiny(folder)
    checks = {c["name"]: c for c in doctor.run(cuda=True)["checks"]}
    named = [name for name in checks if name.startswith("CUDA")]
    assert named == ["CUDA", "CUDA package", "CUDA toolkit", "CUDA kernels", "CUDA graphs"]
    assert all(checks[name]["state"] == "ok" for name in named)
    assert checks["CUDA"]["found"] == "stand-in, compute capability 8.7, driver of CUDA 12.9"
    assert re.fullmatch("numba-cuda(-mlir)? [0-9.]+, for CUDA 12", checks["CUDA package"]["found"])
    assert checks["CUDA toolkit"]["found"] == "NVVM, libdevice, nvJitLink, NVRTC"
    assert re.fullmatch(r"compiled and run in [0-9.]+ s, then in 1,000 µs, right", checks["CUDA kernels"]["found"])
    assert checks["CUDA graphs"]["found"] == "yes" and len(driver.launched) == 3
    driver.has(512)
    (full,) = doctor.cuda_work()
    assert full.state == "warning" and "the GPU has 512 of its 512 bytes free, and 1,024 are needed" in full.found
    driver.has(1 << 26)
    driver.left = len(driver.launched)
    (gone,) = doctor.cuda_work()
    assert gone.state == "warning" and "the GPU stopped working" in gone.found
    assert doctor.gpu().state == "warning" and "the GPU stopped working" in doctor.gpu().found
    driver.left = None
    driver.library.stand_in_fails(0)
    settings = replace(of_tiny(folder, "cuda"), batch_norm="train")  # predictions have kernels of their own
    warmed = warmup.run(prepare(settings), lambda *_: None)
    assert warmed["kernels"] == warmed["compiled"] > 5 and warmed["cache"] is None  # which the stand-in does not use
    adapt.run(settings, folder / "run", False, lambda event: None)
    assert cuda.counted() == (warmed["kernels"], warmed["compiled"])
    driver.left = len(driver.launched)
    with pytest.raises(CudaError, match="the GPU stopped working"):
        warmup.run(prepare(of_tiny(folder, "cuda")), lambda *_: None)
    driver.left = None
    driver.library.stand_in_fails(0)
    print("work", flush=True)


def lacking(folder, part):
    """Nothing compiles without one part of the toolkit: one sentence that names it and says what to install."""
    folder = Path(folder)
    tiny(folder)
    assert missing() == [part]
    with pytest.raises(
        Malformed, match=f"^{part} of NVIDIA's toolkit, which kernels are .*, is not found: pip install"
    ):
        adapt.run(of_tiny(folder, "cuda"), folder / "run", False, lambda event: None)
    assert not (folder / "run" / "adapted.safetensors").exists()
    found = doctor.cuda_toolkit()
    assert found.state == "warning" and found.found == f"{part} not found" and found.advice.startswith("pip install")
    told = doctor.gpu().found if cuda.problem() else doctor.cuda_work()[0].found
    assert told.startswith(f"{part} of NVIDIA's toolkit")
    print(f"lacking {part}", flush=True)


def hide(part):
    """Let nobody find a part, where no package has looked for it yet."""
    finder, name = import_module("cuda.pathfinder"), PARTS[part]

    def of(find):
        def found(asked, *more):
            if asked == name:
                raise finder.DynamicLibNotFoundError(f"no {name} is here")
            return find(asked, *more)

        return found

    for find in ("load_nvidia_dynamic_lib", "find_bitcode_lib", "locate_bitcode_lib"):
        setattr(finder, find, of(getattr(finder, find)))


if __name__ == "__main__":
    if sys.argv[1] == "lacking":
        hide(sys.argv[3])
    finish.subprocess = SimpleNamespace(run=no_process)  # another process would find no stand-in
    run_mode({"memory": memory, "figures": figures, "captures": captures, "work": work, "lacking": lacking})
