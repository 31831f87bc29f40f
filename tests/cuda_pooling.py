"""Run by test_cuda in a process of its own, without a GPU: poolings against their reference kernels.

`windows`: maxima and means of drawn windows and of whole maps, then steps of a net of many. Prints what was compared;
the last line is `done`. `emulated` behind it: as in cuda_steps.py.
"""

import numpy as np
from cuda_steps import DRIVERS, both, run_mode
from test_quantize import with_weights

import refimpl as ri
from refimpl.backends.common import counted_margin
from refimpl.backends.cuda import pooling
from refimpl.backends.cuda.pool_rules import geometry_of, whole_map
from refimpl.backends.cuda.tile import up
from refimpl.compiler.executed import STATED
from refimpl.graph import INPUT, Graph
from refimpl.kernels import cuda
from refimpl.kernels.geometry import drawn_pool
from refimpl.ops import avg_pool, global_avg_pool, max_pool, niti_max_pool, quantized_max_pool
from refimpl.surgery.quantize import quantize
from validation.instruments.drawn_passes import picker

CASES = 16
NO_MASK = np.empty((0, 0), np.uint8)
ODD = np.array([0, 1, -np.inf, np.nan])  # ties, and what no comparison holds of


def run_once(kernel, items, made, *args):
    """The arrays of a kernel after a launch, that which it makes first; on the stand-in it adds what it states."""
    there = [cuda.to_device(seen(a)) if isinstance(a, np.ndarray) else a for a in (made, *args)]
    kernel(items, *there)
    if DRIVERS:
        cuda.toolkit().synchronize()
        counts = DRIVERS[0].launched[-1].counts
        flat = [seen(a) if isinstance(a, np.ndarray) else a for a in args]
        wanted = STATED[kernel](items, made.reshape(-1), *flat).add
        found, some_fold = (
            sum(counts[f"add.{kind}"] for kind in ("f32", "f64")),
            cuda.package() == "numba_cuda_mlir",
        )  # additions to nothing
        assert found == wanted or (some_fold and found < wanted), f"{kernel.__name__} states {wanted} sums, not {found}"
    pairs = zip(there, (made, *args), strict=True)
    return [t.copy_to_host().reshape(a.shape) for t, a in pairs if isinstance(a, np.ndarray)]


def seen(a):
    """An array as kernels take it: the elements of a map, a mask as it is."""
    return a if a.ndim == 2 and a.dtype == np.uint8 else a.reshape(-1)


def runs(map_, stride=1):
    """The items of kernels that make EACH pixels of a row a thread, or the next multiple of a stride."""
    samples, rows, columns, channels = map_.shape
    return samples * rows * up(columns, pooling.of_dx(stride)) * channels


def windows():
    for case in range(CASES):
        pick = picker("pooling", case)
        letters, attrs = drawn_pool(pick, False)
        rng, dtype = np.random.default_rng(case), (np.float64, np.float32)[case % 2]
        shape, of_y = (tuple(letters[d] for d in dims) for dims in ("NHWC", "NPQC"))
        maxima = {name: attrs[name] for name in ("window", "stride", "pad")}
        x = rng.choice(ODD, shape).astype(dtype) if case % 3 == 0 else rng.standard_normal(shape).astype(dtype)
        of_maxima(rng, x, of_y, maxima, geometry_of(letters, attrs))
        of_whole_maxima(rng, shape, of_y, maxima, geometry_of(letters, attrs))
        for counts in (True, False):
            of_means(rng, shape, of_y, dtype, attrs | {"count_include_pad": counts}, geometry_of(letters, attrs))
        of_maps(rng, shape, dtype)
    of_maps(rng, (3, 12, 12, 40), np.float64)  # all the threads that can share a sum, and several blocks of a sample
    print(f"{CASES} drawn windows and maps")
    in_a_net()


def of_maxima(rng, x, of_y, attrs, geometry):
    """Maxima, their places, gradients and tangents are the reference kernels', to the bit."""
    y, none = np.full(of_y, 7, x.dtype), np.empty(0, np.uint8)
    places = np.full(of_y, 255, np.uint8)
    value, places, _ = run_once(pooling.MAX_FORWARD, runs(y), y, places, x, geometry, 0, 0)
    np.testing.assert_array_equal(value, max_pool.forward(x, **attrs))
    np.testing.assert_array_equal(places, max_pool.argmax(x, **attrs))
    np.testing.assert_array_equal(run_once(pooling.MAX_FORWARD, runs(y), y, none, x, geometry, 0, 0)[0], value)
    dy, tx = rng.standard_normal(of_y).astype(x.dtype), rng.standard_normal(x.shape).astype(x.dtype)
    dx = np.full(x.shape, np.nan, x.dtype)
    found = run_once(pooling.MAX_GRAD_X, runs(dx, attrs["stride"][1]), dx, dy, places, NO_MASK, geometry)[0]
    np.testing.assert_array_equal(found, max_pool.grad_x(dy, places, H=x.shape[1], W=x.shape[2], **attrs))
    found = run_once(pooling.MAX_TANGENT, runs(y), y, tx, places, geometry)[0]
    np.testing.assert_array_equal(found, max_pool.tangent(tx, places, **attrs))


def of_whole_maxima(rng, shape, of_y, attrs, geometry):
    """The same of whole numbers, saturated, whose gradient comes through a mask."""
    x, low, high = rng.integers(-9, 9, shape, np.int8), -5, 6
    y, places, limits = np.zeros(of_y, np.int8), np.full(of_y, 255, np.uint8), {"low": low, "high": high}
    y, places, _ = run_once(pooling.MAX_FORWARD, runs(y), y, places, x, geometry, low, high)
    np.testing.assert_array_equal(y, quantized_max_pool.forward(x, **attrs, **limits))
    np.testing.assert_array_equal(places, quantized_max_pool.argmax(x, **attrs))
    mask, known = quantized_max_pool.pack_mask(y, **limits), attrs | {"H": shape[1], "W": shape[2]}
    dy, dx = rng.standard_normal(of_y), np.full(shape, np.nan)
    items = runs(dx, attrs["stride"][1])
    found = run_once(pooling.MAX_GRAD_X, items, dx, dy, places, mask, geometry)[0]
    np.testing.assert_array_equal(found, quantized_max_pool.grad_x(dy, places, mask, **known))
    if all(side <= step for side, step in zip(attrs["window"], attrs["stride"], strict=True)):
        dy, dx = rng.integers(-127, 127, of_y, np.int8), np.zeros(shape, np.int8)
        found = run_once(pooling.MAX_GRAD_X, items, dx, dy, places, NO_MASK, geometry)[0]
        np.testing.assert_array_equal(found, niti_max_pool.grad_x(dy, places, **known))


def of_means(rng, shape, of_y, dtype, attrs, geometry):
    """Means of windows and their gradients are the reference kernels', to the bit."""
    margin, x, dy = counted_margin(attrs), rng.standard_normal(shape).astype(dtype), rng.standard_normal(of_y)
    y, dy, dx = np.full(of_y, np.nan, dtype), dy.astype(dtype), np.full(shape, np.nan, dtype)
    found = run_once(pooling.MEAN_FORWARD, runs(y), y, x, geometry, margin)[0]
    np.testing.assert_array_equal(found, avg_pool.forward(x, **attrs))
    found = run_once(pooling.MEAN_GRAD_X, runs(dx, attrs["stride"][1]), dx, dy, geometry, margin)[0]
    np.testing.assert_array_equal(found, avg_pool.grad_x(dy, H=shape[1], W=shape[2], **attrs))


def of_maps(rng, shape, dtype):
    """Means of whole maps are the reference kernel's but for the order of the sum, their gradients to the bit."""
    samples, rows, columns, channels = shape
    geometry = whole_map({"H": rows, "W": columns, "C": channels})
    x, dy = rng.standard_normal(shape).astype(dtype), rng.standard_normal((samples, channels)).astype(dtype)
    y, dx = np.full((samples, channels), np.nan, dtype), np.full(shape, np.nan, dtype)
    found = run_once(pooling.MAP_FORWARD, pooling.map_items(samples, rows * columns, channels), y, x, geometry)[0]
    near = {"rtol": 0, "atol": 8 * np.finfo(dtype).eps * max(1.0, float(abs(x).max()))}
    np.testing.assert_allclose(found, global_avg_pool.forward(x), **near)
    items = samples * up(rows * columns, pooling.EACH) * channels
    found = run_once(pooling.MAP_GRAD_X, items, dx, dy, geometry)[0]
    np.testing.assert_array_equal(found, global_avg_pool.grad_x(dy, H=rows, W=columns))


def pools():
    """A net with every kind of pooling."""
    g = Graph("pools", (9, 8), 2)
    x = g.max_pool("max", g.relu("relu1", g.conv2d("conv1", INPUT, 3, 3, pad=1)), 3, 2, pad=1)
    x = g.avg_pool("mean", g.conv2d("conv2", x, 4, 1), (2, 3), 1, pad=1, count_include_pad=False)
    x = g.max_pool("last", g.avg_pool("next", x, 2, 1, pad=1), 2, 1)
    g.linear("fc", g.global_avg_pool("map", x), 3)
    return g


def in_a_net():
    """Steps of it, by the rules: backwards, along a direction, and of a net of whole numbers."""
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((4, 9, 8, 2), dtype=np.float32), rng.integers(0, 3, 4)
    whole = with_weights(pools())
    whole = quantize(whole, whole.weights, x, 8, headroom=1.5)
    for name, graph, step in (
        ("backwards", pools(), ri.Backprop(ri.SGD(0.1))),
        ("along a direction", pools(), ri.ForwardGradient(estimator="exact")),
        ("in whole numbers", whole, ri.Backprop(ri.SGD(0.1))),
    ):
        plan = ri.Plan("all", step=step, train_bias=graph is whole)
        program = ri.compile(graph, plan, 3, backend="reference", threads=1, dtype=np.float64)
        made = both(f"pools {name}", program, x, y)
        names = {launch.function.__name__ for launch in made.order if launch.function.__module__ == pooling.__name__}
        print(*sorted(names), sep=", ")


if __name__ == "__main__":
    run_mode({"windows": windows})
