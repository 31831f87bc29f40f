"""Vectors of whole numbers against NumPy, with the processor's instructions and with those that it may lack."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import njit

from refimpl.backends.cpu import integers
from refimpl.backends.cpu.integers import (
    OFFSET,
    dot,
    every,
    narrow,
    packed,
    requantized_once,
    requantized_right,
    rightwards,
    spread,
    under,
    widen,
)
from refimpl.backends.cpu.simd import LANES, address


@njit
def dots4(y, start, x, w, steps):
    total = widen(address(start), 0, LANES)
    for i in range(steps):
        total = dot(total, spread(address(x), 4 * i), packed(address(w), 4 * LANES * i), address(x))
    narrow(address(y), 0, total, LANES)


@njit
def dots2(y, start, x, w, steps):
    total = widen(address(start), 0, LANES)
    for i in range(steps):
        total = dot(total, spread(address(x), 2 * i), packed(address(w), 2 * LANES * i), address(x))
    narrow(address(y), 0, total, LANES)


@njit
def arithmetic(y, x, w, n, factor):
    v = widen(address(x), 1, n)
    narrow(address(y), 2, v * every(factor) + widen(address(w), 0, n) - every(3), n)


def ends(dtype, shape, rng):
    """Whole numbers of a dtype, its ends among them."""
    info = np.iinfo(dtype)
    drawn = rng.integers(info.min, info.max + 1, shape)
    drawn = np.where(rng.random(shape) < 0.3, rng.choice([info.min, info.max], shape), drawn)
    return drawn.astype(dtype)


@pytest.mark.parametrize(("dtype", "each", "kernel"), [(np.int8, 4, dots4), (np.int16, 2, dots2)])
@pytest.mark.parametrize("seed", range(20))
def test_dots_are_exact_modulo_two_to_the_32(dtype, each, kernel, seed):
    rng = np.random.default_rng(seed)
    steps = int(rng.integers(0, 9))
    x, w = ends(dtype, steps * each, rng), ends(dtype, (steps, LANES, each), rng)
    start = ends(np.int32, LANES, rng)
    offset = OFFSET if each == 4 else 0
    y = np.empty(LANES, np.int32)
    kernel(y, start, x, w.ravel(), steps)
    whole = start.astype(object) + np.einsum(
        "sj,slj->l", x.reshape(steps, each).astype(object) + offset, w.astype(object)
    )
    assert [int(v) for v in y] == [(int(v) + 2**31) % 2**32 - 2**31 for v in whole]


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32])
@pytest.mark.parametrize("n", [0, 1, 7, LANES, LANES + 5])
def test_lanes_beyond_the_last_are_left_alone(dtype, n):
    rng = np.random.default_rng(n)
    x, w = ends(dtype, LANES + 2, rng), ends(dtype, LANES + 2, rng)
    y = np.full(LANES + 4, 7, dtype)
    arithmetic(y, x, w, n, 5)
    count = min(n, LANES)
    want = np.full(LANES + 4, 7, dtype)
    want[2 : 2 + count] = (x[1 : 1 + count].astype(np.int64) * 5 + w[:count] - 3).astype(dtype)
    assert np.array_equal(y, want)


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("n", [1, 9, LANES])
def test_four_runs_are_woven_in_the_first_lanes(n, paired, monkeypatch):
    monkeypatch.setattr(integers, "PAIRED", paired)

    @njit
    def woven(y, x, n):
        narrow(address(y), 0, under(address(x), 3, 40, 21, 60, n), LANES)

    x = ends(np.int8, 60 + LANES, np.random.default_rng(n))
    y = np.empty(LANES, np.int32)
    woven(y, x, n)
    found = y.view(np.uint8).reshape(LANES, 4)[:n].astype(int) - OFFSET
    want = np.stack([x[at : at + n] for at in (3, 40, 21, 60)], axis=1).astype(int)
    assert np.array_equal((found - want) % 256, np.zeros((n, 4)))


@pytest.mark.parametrize("paired", [False, True])
def test_lanes_are_requantized_as_plain_python_says(paired, monkeypatch):
    """Shifts to the right, to the left and mixed; `rightwards` tells which."""
    monkeypatch.setattr(integers, "PAIRED", paired)

    @njit
    def requantize(y, z, x, m, s, zero, low, high):
        v, by, to = widen(address(x), 0, LANES), widen(address(m), 0, LANES), widen(address(s), 0, LANES)
        narrow(address(y), 0, requantized_once(v, by, to, zero, low, high), LANES)
        narrow(address(z), 0, requantized_right(v, by, to, zero, low, high), LANES)
        return rightwards(to)

    rng = np.random.default_rng(1)
    for i in range(400):
        x, m = ends(np.int32, LANES, rng), rng.integers(2**30, 2**31, LANES).astype(np.int32)
        if i % 2:  # of sizes that are not saturated
            x >>= rng.integers(0, 31, LANES).astype(np.int32)
        s = rng.integers(-30, (0, 31)[i % 3 == 0], LANES).astype(np.int32)
        zero, low, high = int(rng.integers(-128, 128)), int(rng.integers(-128, 0)), int(rng.integers(0, 128))
        y, z = np.empty(LANES, np.int32), np.empty(LANES, np.int32)
        is_right = requantize(y, z, x, m, s, zero, low, high)
        values = [(int(v) * int(f) + (1 << (30 - int(k)))) >> (31 - int(k)) for v, f, k in zip(x, m, s, strict=True)]
        want = [min(max(v + zero, low), high) for v in values]
        assert y.tolist() == want
        assert is_right == (s < 0).all()
        assert not is_right or z.tolist() == want


@pytest.mark.skipif(not integers.VNNI, reason="the processor has no instruction to be left out")
@pytest.mark.parametrize("without", ["avx512vnni", "avx512vnni avxvnni", "avx512vnni avxvnni avx512bw", "all"])
def test_the_same_without_the_instructions(without, tmp_path):
    """In a process whose compiler may not use them."""
    gone = {f"+{name}" for name in without.split()}
    kept = [f for f in integers.FEATURES if f not in gone and not (without == "all" and "avx" in f)]
    environment = os.environ | {
        "NUMBA_CPU_NAME": "x86-64-v3" if without != "all" else "x86-64",
        "NUMBA_CPU_FEATURES": ",".join(kept) if without != "all" else "",
        "GRADLEDGER_CACHE": str(tmp_path),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", "dots or lanes"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stdout[-3000:]
