"""The machine that runs PTX: it computes as the host does, and finds each fault that it says it finds."""

import math
from importlib.util import find_spec

import numpy as np
import pytest

from refimpl.kernels import cuda
from refimpl.kernels.cuda import late as gpu
from validation.instruments import cuda_code
from validation.instruments.emulator.assembly import PtxError, read
from validation.instruments.emulator.driver import fitting
from validation.instruments.emulator.machine import NUMBERS, Machine

pytestmark = pytest.mark.skipif(not find_spec("numba_cuda"), reason="numba-cuda is not installed: gradledger[cuda12]")
EDGES = (0, 1, -1, 2, -2, 3, 7, -7, 31, 100, -128, 127)


def launched(kernel, blocks, threads, *arrays, shifted=0, capability="8.7"):
    """What a kernel leaves in the first of some arrays, and the instructions that it executed.

    shifted: bytes by which the first lies beside where an array may begin.
    """
    from numba.core.typing.typeof import typeof

    code = cuda_code.Code(kernel.__name__, cuda.with_toolkit(kernel), tuple(typeof(a) for a in arrays), True)
    (text,) = cuda_code.ptx(code, (capability,))
    machine, arguments, ranges, end = Machine(1 << 16), [], [], 256 + shifted
    for array in arrays:
        at, place = machine.base + end, slice(end, end + array.nbytes)
        machine.memory[place] = array.view(np.uint8).ravel()
        arguments += [0, 0, array.size, array.itemsize, at, *array.shape, *array.strides]
        ranges.append((at, at + array.nbytes))
        end += array.nbytes + 256
    executed = machine.run(read(text, NUMBERS), (blocks, 1, 1), (threads, 1, 1), arguments, ranges)
    first = machine.memory[256 : 256 + arrays[0].nbytes].view(arrays[0].dtype)
    return first.reshape(arrays[0].shape), executed


def elementwise(function, *arrays):
    """What a function of numbers gives of each of two arrays, on the machine and on the host."""
    with np.errstate(all="ignore"):
        wanted = np.array([function(*values) for values in zip(*arrays, strict=True)])
    lines = (
        "def kernel(y, a, b):",
        "    t = cuda.grid(1)",
        "    if t < y.shape[0]:",
        "        y[t] = item(a[t], b[t])",
    )
    scope = {"cuda": gpu.found(), "item": gpu.found().jit(device=True)(function), "__name__": __name__}
    exec("\n".join(lines), scope)
    found, executed = launched(scope["kernel"], 2, 128, np.zeros(wanted.shape, wanted.dtype), *arrays)
    assert executed["exit"] == 2 * 128
    return found, wanted


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint8, np.uint32])
def test_whole_numbers_are_those_of_the_host(dtype):
    a, b = (v.ravel() for v in np.meshgrid(np.array(EDGES), np.array(EDGES)))
    a, b = a.astype(dtype), b.astype(dtype)
    for function in (
        lambda a, b: np.int64(a) + np.int64(b), lambda a, b: np.int64(a) * np.int64(b), lambda a, b: a & b,
        lambda a, b: max(np.int64(a), np.int64(b)), lambda a, b: np.int64(a) >> (np.int64(b) & 7),
        lambda a, b: np.int64(a) // (np.int64(b) | 1), lambda a, b: np.int64(a) % (np.int64(b) | 1),
        lambda a, b: (np.int64(a) ^ np.int64(b)) << 3, lambda a, b: np.int64(a < b), lambda a, b: np.float64(a),
    ):  # fmt: skip
        found, wanted = elementwise(function, a, b)
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_a_quotient_by_a_constant_is_the_upper_half_of_a_product(dtype):
    ends = np.iinfo(dtype)
    a = np.array([0, 1, 20, 21, 22, 1 << 32, 1 << 62, ends.max - 1, ends.max, ends.min, ends.min // 2], dtype)
    seven = dtype(7)
    found, wanted = elementwise(lambda a, b: a // seven, a, a)
    np.testing.assert_array_equal(found, wanted)


def test_what_does_not_fit_into_32_bits_is_lost():
    a = np.array([2**31 - 1, -(2**31), 2**30], np.int32)
    found, _ = elementwise(lambda a, b: np.int32(a * b), a, np.full(3, 4, np.int32))
    np.testing.assert_array_equal(found, np.array([-4, 0, 0]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_are_rounded_as_those_of_the_host(dtype):
    rng = np.random.default_rng(0)
    a = np.concatenate([rng.normal(size=60) * 3, [0.0, -0.0, 0.5, -0.5, 1.5, 2.5, 80.0, -80.0]]).astype(dtype)
    b = rng.normal(size=a.size).astype(dtype)
    exact = (
        lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a / (abs(b) + dtype(1)), lambda a, b: min(a, b),
        lambda a, b: max(a, b), lambda a, b: math.floor(a), lambda a, b: math.ceil(a), lambda a, b: np.int64(a < b),
        lambda a, b: dtype(math.sqrt(abs(a))), lambda a, b: dtype(round(a)), lambda a, b: np.int64(a), lambda a, b: -a,
    )  # fmt: skip
    near = (
        lambda a, b: math.exp(a), lambda a, b: math.log(abs(a) + dtype(0.1)), lambda a, b: math.tanh(a),
        lambda a, b: abs(b) ** a, lambda a, b: math.erf(b), lambda a, b: a * b + a, lambda a, b: math.log1p(abs(a)),
    )  # fmt: skip
    for function in exact:
        found, wanted = elementwise(function, a, b)
        np.testing.assert_array_equal(found, wanted)
    for function in near:
        found, wanted = elementwise(function, a, b)
        np.testing.assert_allclose(found, wanted, rtol=16 * np.finfo(dtype).eps)


def test_the_lesser_and_the_greater_of_a_number_and_none_is_the_number():
    a, b = np.array([np.nan, 1.0, np.nan], np.float32), np.array([2.0, np.nan, np.nan], np.float32)

    def both(y, a, b):
        t = gpu.grid(1)
        if t < 3:
            y[0, t] = gpu.libdevice.fminf(a[t], b[t])
            y[1, t] = gpu.libdevice.fmaxf(a[t], b[t])

    found, _ = launched(both, 1, 32, np.zeros((2, 3), np.float32), a, b)
    np.testing.assert_array_equal(found, np.array([[2, 1, np.nan]] * 2, np.float32))


def reversed_in_a_block(y, x):
    """Each thread gives its number to another one, by way of shared memory."""
    held = gpu.shared.array(64, np.float32)
    t = gpu.threadIdx.x
    held[t] = x[gpu.grid(1)]
    gpu.syncthreads()
    y[gpu.grid(1)] = held[63 - t]


def without_a_barrier(y, x):
    held = gpu.shared.array(64, np.float32)
    t = gpu.threadIdx.x
    held[t] = x[gpu.grid(1)]
    y[gpu.grid(1)] = held[63 - t]


def written_too_early(y, x):
    """The second barrier is missing: a fast thread overwrites what a slow one still reads."""
    held = gpu.shared.array(64, np.float32)
    t = gpu.threadIdx.x
    for i in range(2):
        held[t] = x[gpu.grid(1)] + i
        gpu.syncthreads()
        y[gpu.grid(1)] = held[63 - t]


def overwritten(y, x):
    """A thread writes where one before it has read."""
    held = gpu.shared.array(64, np.float32)
    t = gpu.threadIdx.x
    held[t] = x[gpu.grid(1)]
    gpu.syncthreads()
    taken = held[63 - t] if t < 32 else x[t]
    held[t] = taken
    y[gpu.grid(1)] = taken


def never_written(y, x):
    held = gpu.shared.array(64, np.float32)
    if gpu.threadIdx.x > 0:
        held[gpu.threadIdx.x] = x[gpu.threadIdx.x]
    gpu.syncthreads()
    y[gpu.grid(1)] = held[63 - gpu.threadIdx.x]


def beyond_the_end(y, x):
    y[gpu.grid(1)] = x[gpu.grid(1) + 1]


def all_to_one(y, x):
    y[0] = x[gpu.grid(1)]


def from_another_block(y, x):
    y[gpu.grid(1)] = x[gpu.grid(1)]
    y[gpu.grid(1)] = y[127 - gpu.grid(1)]


def some_wait(y, x):
    if gpu.threadIdx.x < 32:
        gpu.syncthreads()
        y[gpu.grid(1)] = 1
    else:
        y[gpu.grid(1)] = 2
        gpu.syncthreads()
        y[gpu.grid(1)] = 3


@pytest.mark.parametrize("capability", cuda_code.CAPABILITIES)
def test_threads_of_a_block_exchange_numbers(capability):
    x = np.arange(128, dtype=np.float32)
    found, executed = launched(reversed_in_a_block, 2, 64, np.zeros_like(x), x, capability=capability)
    np.testing.assert_array_equal(found, x.reshape(2, 64)[:, ::-1].ravel())
    assert executed["ld.global.f32"] == executed["st.shared.f32"] == executed["bar.sync"] == 128


@pytest.mark.parametrize(
    ("kernel", "fault"),
    [
        (without_a_barrier, "shared memory that nobody has written"),
        (written_too_early, "another thread writes here without a barrier between"),
        (overwritten, "another thread reads here without a barrier between"),
        (never_written, "shared memory that nobody has written"),
        (beyond_the_end, "outside of every array"),
        (all_to_one, "another thread writes here without a barrier between"),
        (from_another_block, "without a barrier between"),
        (some_wait, "threads wait at different barriers"),
    ],
)
def test_each_fault_is_found(kernel, fault):
    x = np.arange(128, dtype=np.float32)
    with pytest.raises(PtxError, match=f"{fault}.*thread"):
        launched(kernel, 2, 64, np.zeros_like(x), x)


def test_an_address_between_two_numbers_is_found():
    x = np.arange(128, dtype=np.float32)
    with pytest.raises(PtxError, match="not at a multiple of its size"):
        launched(reversed_in_a_block, 2, 64, np.zeros_like(x), x, shifted=2)


def test_what_the_reader_does_not_know_is_told():
    text = ".visible .entry f(\n.param .u64 f_param_0\n)\n{\n\tfoo.s32 \t%r1, %r2;\n\tret;\n}\n"
    with pytest.raises(PtxError, match="unknown: foo.s32 %r1, %r2"):
        read(text, NUMBERS)
    with pytest.raises(PtxError, match="no kernel"):
        read(".version 8.8", NUMBERS)


def test_dots_of_bytes_and_of_pairs_are_sums_of_products():
    """Blackwell's compiler makes dots of a pair of halves and a pair of bytes of what is written as products."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(-128, 128, (2, 64)).astype(np.int8)
    wide = rng.integers(-32768, 32768, 64).astype(np.int16)
    for x in (a, wide):

        def dot(y, x, b):
            t = gpu.grid(1)
            if t < y.shape[0]:
                total = np.int32(0)
                for i in range(4):
                    total += np.int32(x[4 * t + i]) * np.int32(b[4 * t + i])
                y[t] = total

        for capability in ("8.7", "10.0"):
            found, _ = launched(dot, 1, 32, np.zeros(16, np.int32), x, b, capability=capability)
            np.testing.assert_array_equal(found, (x.astype(np.int32) * b).reshape(16, 4).sum(1))


def test_a_kernel_that_no_gpu_takes_is_refused():
    text = ".visible .entry f(\n.param .u64 f_param_0\n)\n{\n.shared .align 4 .b8 held[49153];\n\tret;\n}\n"
    with pytest.raises(PtxError, match="f has 49,1[0-9]+ bytes of shared memory, and a GPU gives 49,152"):
        fitting(read(text, NUMBERS))
    sound = read(text.replace("49153", "49152"), NUMBERS)
    assert fitting(sound) is sound
    with pytest.raises(PtxError, match="f has 4,104 bytes of arguments, and a GPU gives 4,096"):
        fitting(sound._replace(parameters=[(0, 8)] * 513))
