"""The backend of GPUs where there is none: what it says, what it shares, how a section is captured and replayed."""

import gc
import math

import numpy as np
import pytest

import refimpl as ri
from costmodel import predict
from costmodel.device import gpu_calibration
from gradledger.exits import Exit, refuse
from refimpl import backends
from refimpl.backends.cuda import batch_norm, depthwise, replay
from refimpl.backends.cuda.alike import SHARE, OfEach
from refimpl.backends.cuda.convolution import geometry_of, slices_of
from refimpl.backends.cuda.gpu import Gpu
from refimpl.backends.cuda.replay import Replayed
from refimpl.backends.cuda.tile import SMALL, TILES, Tiled, tile_of
from refimpl.compiler.executed import executed
from refimpl.kernels import cuda, cuda_parts
from refimpl.kernels.cuda import CudaError
from refimpl.ops import sgd
from validation.instruments import cuda_code


@pytest.fixture
def fresh():
    """Nothing is known of packages and drivers yet."""
    known = (cuda.package, cuda.toolkit, cuda.problem)
    for function in known:
        function.cache_clear()
    yield
    for function in known:
        function.cache_clear()


def lenet(backend="cuda"):
    return ri.compile(ri.models.build("lenet"), ri.Plan(), 4, backend=backend, threads=1)


class Driver:
    """What stands for a stream and its graphs: it notes what is queued, and what is launched."""

    def __init__(self, fails=False):
        self.did, self.fails, self.capturing = [], fails, False

    def kernel(self, name, stream):
        assert stream is self
        self.did.append(f"capture {name}" if self.capturing else name)

    def captured(self, stream, queue):
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.capturing = True
        queue()
        self.capturing = False
        return self

    def launch(self, stream):
        self.did.append("graph")


def section(driver):
    return Replayed([(driver.kernel, ["a"], {"stream": driver}), (driver.kernel, ["b"], {"stream": driver})], driver)


def test_a_section_runs_then_is_captured_then_replayed(monkeypatch):
    monkeypatch.setattr(replay, "captures", lambda: True)
    driver = Driver()
    monkeypatch.setattr(cuda, "captured", driver.captured)
    made = section(driver)
    made()
    assert driver.did == ["a", "b"]
    made()
    assert driver.did[2:] == ["capture a", "capture b", "graph"]  # what is captured does not run
    made()
    assert driver.did[5:] == ["graph"] and made.state == "captured"


def test_where_nothing_is_captured_launches_are_made_one_by_one(monkeypatch):
    monkeypatch.setattr(replay, "captures", lambda: True)
    driver = Driver(fails=True)
    monkeypatch.setattr(cuda, "captured", driver.captured)
    made = section(driver)
    for _ in range(3):
        made()
    assert driver.did == ["a", "b"] * 3
    assert made.state == "plain" and made.why == "RuntimeError: operation not permitted when stream is capturing"


def test_captures_can_be_left_out(monkeypatch):
    monkeypatch.setattr(cuda, "simulated", lambda: False)
    assert replay.captures()
    monkeypatch.setenv(replay.CAPTURES, "0")
    assert not replay.captures()


def test_without_a_package_it_says_what_to_install(monkeypatch, fresh):
    monkeypatch.setattr(cuda, "find_spec", lambda name: None)
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    program = lenet()  # compiles, for its costs
    assert program.peak_bytes > 0
    with pytest.raises(CudaError, match=r"no package compiles for CUDA here: pip install 'gradledger\[cuda12\]'"):
        ri.Trainer(program)
    assert backends.best() == "fast"


def test_where_both_packages_are_the_environment_chooses(monkeypatch, fresh):
    """An unknown name, and one that is not installed, are told in a sentence each."""
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    monkeypatch.setattr(cuda, "find_spec", lambda name: True)
    for asked, found in (("", "numba_cuda"), ("numba-cuda-mlir", "numba_cuda_mlir"), ("numba_cuda", "numba_cuda")):
        monkeypatch.setenv(cuda.CHOICE, asked)
        assert cuda.package() == found
        cuda.package.cache_clear()
    monkeypatch.setenv(cuda.CHOICE, "cupy")
    with pytest.raises(CudaError, match="GRADLEDGER_CUDA_PACKAGE must be numba-cuda or numba-cuda-mlir, got cupy"):
        cuda.package()
    monkeypatch.setattr(cuda, "find_spec", lambda name: name == "numba_cuda")
    monkeypatch.setenv(cuda.CHOICE, "numba-cuda-mlir")
    with pytest.raises(CudaError, match="asks for numba-cuda-mlir, which is not installed: pip install 'numba-cuda-"):
        cuda.package()
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    assert cuda.package() == "numba_cuda"


def test_a_grid_has_threads_that_32_bits_count():
    blocks, threads = cuda.grid(2**40)
    assert 2**30 < blocks * threads < 2**31 and cuda.grid(1000) == (8, 128)


def test_without_a_driver_it_says_so(monkeypatch, fresh):
    monkeypatch.setattr(cuda, "find_spec", lambda name: name == "numba_cuda")
    monkeypatch.setattr(cuda, "DRIVER", "libnodriver.so.1")
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    with pytest.raises(CudaError, match=r"there is no driver of an NVIDIA GPU here \(libnodriver.so.1 is missing\)"):
        ri.Trainer(lenet())
    assert backends.best() == "fast"


class Old:
    """A package that finds a driver that is too old."""

    def is_available(self):
        return False

    def current_context(self):
        raise RuntimeError("[35] Call to cuInit results in CUDA_ERROR_INSUFFICIENT_DRIVER:\n  too old")


def test_too_old_a_driver_is_told_in_its_words(monkeypatch, fresh):
    monkeypatch.setattr(cuda, "package", lambda: "numba_cuda")
    monkeypatch.setattr(cuda, "toolkit", Old)
    monkeypatch.setattr(cuda, "DRIVER", None)  # this process itself
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    with pytest.raises(CudaError, match="no GPU can be used .*INSUFFICIENT_DRIVER: too old.*: look at it with nvidia-"):
        ri.Trainer(lenet())


def of_a_package(name, base, module):
    """A class of errors as a package or a library of NVIDIA's has it."""
    return type(name, (base,), {"__module__": module})


ApiError = of_a_package("CudaAPIError", Exception, "numba.cuda.cudadrv.driver")
FULL = "[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY"
STOPPED = [
    ApiError("[<CUresult.CUDA_ERROR_LAUNCH_FAILED: 719>]\n Call to cuStreamSynchronize"),
    of_a_package("CUDAError", Exception, "cuda.core._utils.cuda_utils")("CUDA_ERROR_ILLEGAL_ADDRESS: stream"),
    RuntimeError("Failed to get the kernel: device lost"),  # as numba-cuda-mlir has it
]
NOT_COMPILED = [
    of_a_package("NvvmSupportError", ImportError, "numba.cuda.cudadrv.error")("libNVVM cannot be found"),
    of_a_package("nvJitLinkError", Exception, "cuda.bindings.nvjitlink")("ERROR_INTERNAL (6)"),
    of_a_package("NVRTCError", Exception, "cuda.core._utils.cuda_utils")("NVRTC_ERROR_COMPILATION"),
    of_a_package("LinkerError", RuntimeError, "numba_cuda_mlir.numba_cuda.cudadrv.driver")("no cubin"),
    ApiError("[222] Call to cuLibraryLoadData results in CUDA_ERROR_UNSUPPORTED_PTX_VERSION"),
]


@pytest.mark.parametrize("error", STOPPED)
def test_a_gpu_that_vanishes_is_told(monkeypatch, error):
    monkeypatch.setattr(cuda, "simulated", lambda: False)
    said = " ".join(str(error).split())
    with pytest.raises(CudaError) as told, cuda.told():
        raise error
    assert str(told.value).startswith(f"the GPU stopped working ({said}): what was saved before is good, start")


@pytest.mark.parametrize("error", NOT_COMPILED)
def test_a_kernel_that_cannot_be_compiled_is_told(monkeypatch, error):
    """By what is missing of the toolkit, else in the compiler's words."""
    monkeypatch.setattr(cuda, "simulated", lambda: False)
    monkeypatch.setattr(cuda, "package", lambda: "numba_cuda")
    for lacks, wanted in (
        (["NVVM", "NVRTC"], "NVVM and NVRTC of NVIDIA's toolkit, .* are not found: pip install 'gradledger.cuda1"),
        ([], r"a kernel could not be compiled for this GPU \(.+\): take another backend"),
    ):
        monkeypatch.setattr(cuda_parts, "missing", lambda lacks=lacks: lacks)
        with pytest.raises(CudaError, match=f"^{wanted}"), cuda.told():
            raise error


def test_what_a_package_raises_of_no_class_of_its_own_is_told(monkeypatch):
    """As numba-cuda does where libdevice is missing; faults of ours stay as they are."""
    monkeypatch.setattr(cuda, "simulated", lambda: False)
    monkeypatch.setattr(cuda, "lacking", lambda package: None)
    scope = {"__name__": "numba.cuda.cudadrv.nvvm"}
    exec("def fail(kind): raise kind('Missing libdevice file.')", scope)
    with pytest.raises(CudaError, match=r"could not be compiled for this GPU \(Missing libdevice file.\)"), cuda.told():
        scope["fail"](RuntimeError)
    for fault in (ValueError, ZeroDivisionError):
        with pytest.raises(fault, match="Missing"), cuda.told():
            scope["fail"](fault)
    with pytest.raises(RuntimeError, match="^no$"), cuda.told():
        raise RuntimeError("no")


class Full:
    """A package whose GPU and host have no room."""

    def device_array(self, nbytes, dtype):
        raise ApiError(FULL)

    pinned_array = device_array

    def to_device(self, array):
        raise ApiError(FULL)

    def current_context(self):
        return self

    def get_memory_info(self):
        return 1 << 20, 1 << 30


def test_a_command_whose_gpu_fails_ends_in_a_sentence(capsys):
    assert refuse(CudaError("the GPU stopped working"), as_json=False) == Exit.MALFORMED
    assert capsys.readouterr().err == "gradledger: the GPU stopped working\n"


def test_out_of_memory_says_what_is_free(monkeypatch):
    monkeypatch.setattr(cuda, "simulated", lambda: False)
    monkeypatch.setattr(cuda, "toolkit", Full)
    free = "the GPU has 1,048,576 of its 1,073,741,824 bytes free, and"
    for needed, ask in (
        ("5,000,000 are needed in one piece", lambda: cuda.zeros(5_000_000)),
        ("24 are needed in one piece", lambda: cuda.empty((2, 3), np.float32)),
        ("24 are needed in one piece", lambda: Gpu().adopt(np.zeros(3))),
    ):
        monkeypatch.setattr(cuda, "check", lambda: None)
        with pytest.raises(MemoryError, match=f"^{free} {needed}$"):
            ask()
    with pytest.raises(MemoryError, match="^the host has no 6 bytes that a GPU can copy from and to$"):
        Gpu().waiting((6,), np.int8)
    with pytest.raises(MemoryError, match=f"^{free} more are needed$"), cuda.told():  # a first launch loads its code
        raise RuntimeError("Failed to load CUDA library from binary data: out of memory")
    monkeypatch.setattr(Full, "get_memory_info", Full.device_array)
    with pytest.raises(MemoryError, match="^the GPU's memory is full, and 1 are needed in one piece$"):
        cuda.zeros(1)


def test_arrays_of_the_host_are_copied_once_and_forgotten_with_them(monkeypatch):
    monkeypatch.setattr(cuda, "check", lambda: None)
    monkeypatch.setattr(cuda, "to_device", lambda array: array.copy())
    backend, weights = Gpu(), np.ones(3)
    there = backend.adopt(weights)
    assert backend.adopt(weights) is there and backend.adopt(np.ones(3)) is not there
    gc.collect()
    assert len(backend._adopted) == 1
    del weights
    gc.collect()
    assert not backend._adopted


class There:
    """An array of a GPU that copies late: when its stream is waited for."""

    def __init__(self, stream, values):
        self.stream, self.values, self.shape, self.dtype = stream, values, values.shape, values.dtype

    def copy_to_device(self, other, stream):
        self.stream.queue.append(lambda: self.values.__setitem__(..., getattr(other, "values", other)))

    def copy_to_host(self, to, stream):
        self.stream.queue.append(lambda: to.__setitem__(..., self.values))


class Stream:
    """What it runs on."""

    def __init__(self):
        self.queue, self.waits = [], 0

    def sync(self):
        self.waits += 1
        for queued in self.queue:
            queued()
        self.queue.clear()


def test_what_the_host_gives_stays_until_it_was_copied(monkeypatch):
    made = []
    monkeypatch.setattr(cuda, "pinned", lambda shape, dtype: made.append(shape) or np.empty(shape, dtype))
    monkeypatch.setattr(cuda, "simulated", lambda: False)
    monkeypatch.setattr("refimpl.backends.cuda.gpu.STAGED", 1 << 10)
    monkeypatch.setattr("refimpl.backends.cuda.gpu.MOST_STAGED", 1 << 12)
    backend = Gpu()
    backend.stream = stream = Stream()
    arrays = [There(stream, np.zeros((length,), np.float32)) for length in (3, 200, 64, 1, 500, 700, 100, 5)]
    for round_ in range(20):
        host = np.empty(0)
        for i, array in enumerate(arrays):
            host = np.full(array.shape, 10.0 * round_ + i)
            backend.write(array, host)
            host[...] = -1  # the caller goes on
        found = backend.waiting((5,), np.float32)
        backend.copy(found, arrays[-1])
        backend.synchronise()
        assert [float(a.values[0]) for a in arrays] == [10.0 * round_ + i for i in range(8)]
        assert all((a.values == a.values[0]).all() for a in arrays) and found[0] == 10 * round_ + 7
    blocks = [shape[0] for shape in made if shape != (5,)]
    assert blocks == sorted(set(blocks)) and blocks[-1] == 1 << 12  # larger ones, and then no more
    assert stream.waits < 3 * 20


def test_every_call_is_covered_once_and_products_run_on_tiles():
    graph = ri.models.build("mobilenet_v2", classes=10, size=(64, 64))
    program = ri.compile(graph, ri.Plan(4, rules=[ri.GradientFilter(2)]), 8, backend="cuda", threads=1)
    covered = [call for launch in program.order for call in launch.covers]
    assert sorted(map(id, covered)) == sorted(map(id, program.step))
    names = [type(launch.function).__name__ for launch in program.order]
    assert names.count("Tiled") > 30
    reference = ri.compile(graph, program.plan, 8, backend="reference", threads=1)
    assert len(program.order) < len(reference.order)


def of_each(program):
    return {str(launch.covers[0].passed): launch for launch in program.order if isinstance(launch.function, OfEach)}


def test_the_optimizer_runs_over_all_parameters_in_one_launch():
    graph = ri.models.build("mobilenet_v2", classes=10, size=(64, 64))
    step = ri.Backprop(ri.SGD(lr=0.1, momentum=0.9), clip_norm=1.0)
    plan = ri.Plan("all", batch_norm="train", train_bias=True, step=step)
    program = ri.compile(graph, plan, 8, backend="cuda", threads=1)
    reference = ri.compile(graph, plan, 8, backend="reference", threads=1)
    count, norms = len(program.step.gradients), 52
    assert {name: len(launch.covers) for name, launch in of_each(program).items()} == {
        "sgd.momentum_step": count, "clip_norm.partial_squares": count, "finiteness.check": count,
        "batch_norm.update_mean": norms, "batch_norm.update_var": norms,
    }  # fmt: skip
    launch = of_each(program)["sgd.momentum_step"]
    alone = [other for other in reference.order if other.covers[0] in reference.step.calls["update"]]
    same = [other for other in alone if other.covers[0].passed is sgd.momentum_step]
    shared = 2 * program.dtype.itemsize * (count - 1)  # the rate and the factor of clipping are read once
    assert launch.moved_bytes == sum(other.moved_bytes for other in same) - shared
    counted = [predict.call_counts(call, 8) for call in launch.covers]
    ops = executed(launch, 8, predict.call_counts)
    assert ops.mul == sum(units["mul"] for units in counted) > 0 < ops.add == sum(units["add"] for units in counted)
    table = launch.args[1].rows
    assert launch.args[0] * SHARE == table[-1].end and sum(row.items for row in table) == sum(
        math.prod(program.step.parameters[name].shape) for name in program.step.gradients
    )
    assert all(row.end % 128 == 0 for row in table)  # no warp works for two of them


def test_calls_that_need_what_is_between_them_stay_apart():
    graph = ri.models.build("lenet")
    program = ri.compile(graph, ri.Plan(step=ri.ForwardGradient(m=2)), 4, backend="cuda", threads=1)
    updates = [launch for launch in program.launches["update"] if sgd.step in {c.passed for c in launch.covers}]
    for launch in updates:  # each gradient is made where it is read, in memory that the next one takes
        assert not isinstance(launch.function, OfEach) or len({b.root for b in launch.reads if "dw" in b.name}) > 1
    made = {b.root for launch in program.launches["update"] for b in launch.writes}
    done = set()
    for launch in program.launches["update"]:
        for b in launch.reads:
            assert b.root not in made or b.root in done or b.root.region != "arena", launch.name
        done |= {b.root for b in launch.writes}


def test_depthwise_convolutions_take_what_is_beside_them_along():
    graph = ri.models.build("mobilenet_v2", classes=10, size=(64, 64))
    program = ri.compile(graph, ri.Plan("all"), 8, backend="cuda", threads=1)
    kernels = (depthwise.FORWARD, depthwise.GRAD_X, depthwise.GRAD_W)
    own = {s: [x for x in program.launches[s] if x.function in kernels] for s in ("forward", "backward")}
    passes = {s: [[str(c.passed) for c in x.covers] for x in launches] for s, launches in own.items()}
    assert passes["forward"] == 17 * [["conv2d.forward", "frozen_batch_norm.forward", "relu6.forward"]]
    through = ["relu6.grad_x", "frozen_batch_norm.grad_x", "conv2d.grad_w"]
    assert passes["backward"] == 17 * [through, ["conv2d.grad_x"]]
    launches = (*own["forward"], *own["backward"])
    counted = sum(predict.call_counts(call, 8)["mul"] for launch in launches for call in launch.covers)
    ratio = sum(executed(launch, 8, predict.call_counts).mul for launch in launches) / counted
    assert 1 < ratio < 2  # padding counts, and four results where a row has fewer


def test_a_norm_takes_six_launches_and_masks_are_read_on_the_way():
    graph = ri.models.build("mobilenet_v2", classes=10, size=(64, 64))
    plan = ri.Plan("all", batch_norm="train", train_bias=True)
    program = ri.compile(graph, plan, 8, backend="cuda", threads=1)
    made = [x for x in program.order if x.function.__module__ == batch_norm.__name__]
    own = [x for x in made if x.name.startswith("block3.depthwise.") or "block3.depthwise.bn " in x.name]
    assert [[c.name.partition(" ")[2] for c in x.covers] for x in own] == [
        ["batch_norm.mean", "batch_norm.var", "batch_norm.inv_std"], [], ["batch_norm.forward", "relu6.forward"],
        ["relu6.grad_x", "batch_norm.grad_gamma", "batch_norm.grad_beta"], [], ["batch_norm.grad_x"],
    ]  # fmt: skip
    assert len(made) == 6 * 52 and len(program.order) < 400 + len(made)


def test_means_of_slices_keep_what_a_sum_of_squares_would_lose():
    x = (1e4 + np.random.default_rng(0).normal(size=(1000, 3))).astype(np.float32)
    partial, found = np.empty((8, 2, 3), np.float32), [np.empty(3, np.float32) for _ in range(4)]
    for t in range(24):
        batch_norm.norm_slices(t, partial, x, 128)
    for t in range(3):
        batch_norm.norm_statistics(t, *found, partial, 1000, 128, np.float32(1e-5))
    exact = x.astype(float)
    for mine, theirs in zip(found, (exact.mean(0), exact.var(0), exact.var(0, ddof=1)), strict=False):
        np.testing.assert_allclose(mine, theirs, rtol=2e-3)
    np.testing.assert_allclose(found[3], 1 / np.sqrt(exact.var(0) + 1e-5), rtol=1e-3)


def test_pruned_error_maps_are_read_where_they_lie():
    graph = ri.models.build("resnet18", classes=10, size=(64, 64))
    plan = ri.Plan(3, rules=[ri.ErrorMapPruning(0.5)])
    program = ri.compile(graph, plan, 8, backend="cuda", threads=1)
    launches = program.launches["backward"]
    of_layer = [x for x in launches if any(c.node == "layer4.1.conv1" for c in x.covers)]
    assert [[c.name.partition(" ")[2].partition(".")[2] for c in x.covers] for x in of_layer] == [
        ["grad_x", "grad_x", "score"], ["rank"], ["keep"], ["keep_dy", "grad_w"], ["spread_w"], ["keep_w", "grad_x"],
    ]  # fmt: skip
    names = {b.root.name for x in launches for b in x.buffers}
    assert not [name for name in names if name.endswith(("dy_kept", "w_kept")) and "dw" not in name]
    dense = ri.compile(graph, ri.Plan(3), 8, backend="cuda", threads=1)

    def products(of):
        names = ("grad_w", "grad_x")
        tiled = (x for x in of.launches["backward"] if isinstance(x.function, Tiled) and x.function.__name__ in names)
        return sum(executed(x, 8, predict.call_counts).mul for x in tiled if "conv" in x.name)

    assert products(program) == pytest.approx(
        products(dense) / 2, rel=0.05
    )  # that frozen norms scale what is read is in both


def test_bias_gradients_of_kept_channels_take_a_copy_of_them():
    plan = ri.Plan(2, rules=[ri.ErrorMapPruning(0.5)], train_bias=True)
    program = ri.compile(ri.models.build("lenet"), plan, 4, backend="cuda", threads=1)
    names = [launch.function.__name__ for launch in program.launches["backward"]]
    assert names.count("keep_dy_grid") == names.count("score_slices_grid") == 2 and "add_kept_slices_grid" not in names


def test_blocks_that_are_left_out_have_launches_of_their_own():
    plan = ri.Plan("all", depth=ri.StochasticDepth(0.5), train_bias=True)
    program = ri.compile(ri.models.build("resnet8", size=(16, 16)), plan, 4, backend="cuda", threads=1)
    for launch in program.order:
        assert {call.when for call in launch.covers} <= {launch.when}
    updates = [launch for launch in program.launches["update"] if isinstance(launch.function, OfEach)]
    assert len({launch.when for launch in updates}) == len(updates) > 1


@pytest.mark.parametrize(
    "result, wanted",
    [
        ((100_000, 1000, 64), (64, 64, 16)),
        ((100_000, 64, 64), (64, 64, 16)),
        ((100_000, 32, 24), (128, 32, 8)),  # sums of 24 terms in three pieces
        ((100_000, 16, 64), (128, 16, 16)),
        ((32, 1000, 64), (32, 64, 16)),
        ((32, 32, 99), (32, 32, 16)),
        ((10, 640, 64), (16, 64, 16)),
    ],
)
def test_the_tile_that_executes_least_is_taken(result, wanted, monkeypatch):
    monkeypatch.setattr(cuda, "simulated", lambda: False)
    assert tile_of(*result)[:3] == wanted


def test_tiles_divide_their_work_evenly():
    for tile in (*TILES, *SMALL, *(t._replace(depth=8) for t in TILES if min(t.rows, t.columns) >= 32)):
        assert tile.threads >= tile.rows
        for loaded in (tile.rows * tile.depth, tile.columns * tile.depth):
            assert loaded % tile.threads == 0
        assert tile.threads % tile.depth == tile.threads % tile.columns == tile.threads % tile.rows == 0
    assert all(tile.threads % 32 == 0 for tile in TILES)


def test_long_sums_of_few_tiles_are_cut_into_slices(monkeypatch):
    monkeypatch.setattr("refimpl.backends.cuda.convolution.simulated", lambda: False)
    sizes = {"N": 32, "P": 56, "Q": 56, "C": 16, "K": 32, "G": 1, "R": 1, "S": 1}
    number, length = slices_of(sizes)
    assert 100 < number <= 512 and (number - 1) * length < 32 * 56 * 56 <= number * length
    assert slices_of(sizes | {"N": 1, "P": 7, "Q": 7}) == (1, 56)


def test_a_geometry_is_plain_numbers():
    attrs = {"stride": (2, 1), "dilation": (1, 3), "pad": ((4, 5), (6, 7))}
    found = geometry_of(dict.fromkeys("HWPQGRS", 1), attrs)
    assert found == (1, 1, 1, 1, 1, 1, 1, 2, 1, 1, 3, 4, 6) and len(found) == cuda_code.GEOMETRY


def test_a_context_is_measured_on_another_process_that_opens_one(monkeypatch):
    """Of three, for others may take memory or free it meanwhile, the least is told; here they simulate a GPU."""
    free = iter([900, 700, 800, 650, 500, 600])
    monkeypatch.setattr(cuda, "check", lambda: None)
    monkeypatch.setattr(cuda, "simulated", lambda: False)
    monkeypatch.setattr(cuda, "free_bytes", lambda: next(free))
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    assert gpu_calibration.context_bytes() == 0  # 900 − 700, 800 − 650, and others have freed more than it took
    assert next(free, None) is None
    free = iter([900, 700, 800, 650, 700, 600])
    assert gpu_calibration.context_bytes() == 100
    free = iter([900] * 6)
    monkeypatch.setattr(gpu_calibration.sys, "executable", "false")  # it ends without a word
    assert gpu_calibration.context_bytes() is None


def test_a_simulated_context_takes_nothing(monkeypatch):
    monkeypatch.setattr(cuda, "check", lambda: None)
    monkeypatch.setattr(cuda, "simulated", lambda: True)
    assert gpu_calibration.context_bytes() == 0
