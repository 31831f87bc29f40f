"""Fast convolution against the reference passes, fused parts against NumPy, the same bits for any thread count."""

import math

import numba
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refimpl.backends.activation import NONE, RELU, RELU6
from refimpl.backends.cpu import conv2d, tiles
from refimpl.kernels.geometry import out_size
from refimpl.ops import conv2d as reference

LIMIT = {"float32": 1e-5, "float64": 1e-12}
relaxed = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@st.composite
def cases(draw, largest=9):
    """Letter sizes and attributes of a convolution."""
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    z = {
        "G": groups,
        "C": groups * draw(st.sampled_from([1, 2, 3, 8, 17])),
        "K": groups * draw(st.sampled_from([1, 3, 8])),
    }
    z["N"] = draw(st.integers(1, 3))
    attrs = {"stride": [], "dilation": [], "pad": []}
    for size, window, out in (("H", "R", "P"), ("W", "S", "Q")):
        z[window] = draw(st.integers(1, 4))
        stride, dilation = draw(st.integers(1, 5)), draw(st.integers(1, 3))
        pad = (draw(st.integers(0, 3)), draw(st.integers(0, 3)))
        least = max(1, dilation * (z[window] - 1) + 1 - sum(pad))
        z[size] = draw(st.integers(least, least + largest))
        z[out] = out_size(z[size], z[window], stride, dilation, pad)
        for name, value in (("stride", stride), ("dilation", dilation), ("pad", pad)):
            attrs[name].append(value)
    if draw(st.booleans()):
        attrs["stride"] = [1, 1]
        for size, window, out, i in (("H", "R", "P", 0), ("W", "S", "Q", 1)):
            z[out] = out_size(z[size], z[window], 1, attrs["dilation"][i], attrs["pad"][i])
    if draw(st.booleans()) and draw(st.booleans()):  # 1×1, read in place
        attrs = {"stride": [1, 1], "dilation": [1, 1], "pad": [(0, 0), (0, 0)]}
        z |= {"R": 1, "S": 1, "P": z["H"], "Q": z["W"]}
    return z, {name: tuple(value) for name, value in attrs.items()}


def normal(rng, dtype, *shape):
    return rng.standard_normal(shape).astype(dtype)


def arrays(z, dtype, seed):
    """x, w, dy, a per-channel scale and a shift."""
    rng = np.random.default_rng(seed)
    return (
        normal(rng, dtype, z["N"], z["H"], z["W"], z["C"]),
        normal(rng, dtype, z["R"], z["S"], z["C"] // z["G"], z["K"]),
        normal(rng, dtype, z["N"], z["P"], z["Q"], z["K"]),
        normal(rng, dtype, z["K"]),
        normal(rng, dtype, z["K"]),
    )


def close(ours, theirs, terms, dtype):
    """‖ours − theirs‖ over the norm, or that of the sums of absolute values where the terms cancel."""
    scale = max(np.linalg.norm(theirs), np.linalg.norm(terms), 1e-30)
    return np.linalg.norm(ours.astype("float64") - theirs) / scale <= LIMIT[dtype]


def absent(dtype, rank=1):
    return np.empty((0,) * rank, dtype)


def double(*given):
    return [a.astype("float64") for a in given]


def pack(bits):
    """Bits (N, P, Q, K) as mask bytes (N, B)."""
    return np.packbits(bits.reshape(len(bits), -1), axis=1, bitorder="little")


def small_tiles(z, draw):
    """A tiling with small tiles, so that small shapes have several of every kind."""
    samples = draw(st.integers(1, z["N"]))
    pixels = z["P"] * z["Q"]
    part = pixels if samples > 1 or pixels <= 8 else draw(st.sampled_from([8, 16, pixels]))
    r, s = draw(st.integers(1, z["R"])), draw(st.integers(1, z["S"]))
    return samples, part, *((r, s) if r == 1 else (r, z["S"]))


GUARD, GUARDS = 4096, []


def scratch(shape, dtype):
    """Scratch of NaN, whose values must not matter, between zones that a kernel must not touch."""
    memory = np.full(2 * GUARD + math.prod(shape), np.nan, dtype)
    memory[:GUARD] = memory[-GUARD:] = 12345
    GUARDS.append(memory)
    return memory[GUARD : len(memory) - GUARD].reshape(shape)


@pytest.fixture(autouse=True)
def untouched():
    """No kernel of the test wrote outside its scratch."""
    GUARDS.clear()
    yield
    assert all((m[:GUARD] == 12345).all() and (m[-GUARD:] == 12345).all() for m in GUARDS)


def run_forward(z, attrs, dtype, x, w, tiling=None, scale=None, shift=None, residual=None, act=0, mask=False):
    tiling = tiling or tiles.forward_tiles(z, attrs)
    y = np.full((z["N"], z["P"], z["Q"], z["K"]), np.nan, dtype)
    bits = np.full((z["N"], -(-y[0].size // 8)), 255, np.uint8) if mask else np.empty((0, 0), np.uint8)
    own = scratch(tiles.forward_scratch(z, attrs, tiling, numba.get_num_threads()), dtype)
    scale, shift = (absent(dtype) if a is None else a for a in (scale, shift))
    residual = absent(dtype, 4) if residual is None else residual
    conv2d.forward(y, bits, x, w, scale, shift, residual, own, tiles.geometry(attrs), tiling, act)
    return y, bits


def run_grad_x(z, attrs, dtype, dy, w, tiling=None, mask=None, scale=None, dx=None):
    tiling = tiling or tiles.grad_x_tiles(z, attrs)
    add = dx is not None
    dx = dx.copy() if add else np.full((z["N"], z["H"], z["W"], z["C"]), np.nan, dtype)
    staged = mask is not None or scale is not None
    own = scratch(tiles.grad_x_scratch(z, attrs, tiling, numba.get_num_threads(), staged), dtype)
    mask = np.empty((0, 0), np.uint8) if mask is None else mask
    scale = absent(dtype) if scale is None else scale
    turned = scratch(tiles.grad_x_turned(z, attrs), dtype)
    conv2d.grad_x(dx, dy, mask, scale, w, turned, own, tiles.geometry(attrs), tiling, add)
    return dx


def run_grad_w(z, attrs, dtype, dy, x, tiling=None, mask=None, scale=None):
    tiling = tiling or tiles.grad_w_tiles(z, attrs)
    dw = np.full((z["R"], z["S"], z["C"] // z["G"], z["K"]), np.nan, dtype)
    staged = mask is not None or scale is not None
    own = scratch(tiles.grad_w_scratch(z, attrs, tiling, numba.get_num_threads(), staged), dtype)
    partials = scratch(tiles.grad_w_partials(z, attrs, tiling), dtype)
    mask = np.empty((0, 0), np.uint8) if mask is None else mask
    scale = absent(dtype) if scale is None else scale
    conv2d.grad_w(dw, dy, mask, scale, x, own, partials, tiles.geometry(attrs), tiling)
    return dw


dtypes = st.sampled_from(["float32", "float64"])
seeds = st.integers(0, 2**32 - 1)


@relaxed
@given(cases(), dtypes, seeds, st.data())
def test_forward(case, dtype, seed, data):
    z, attrs = case
    x, w, residual, scale, shift = arrays(z, dtype, seed)
    tiling = None
    if data.draw(st.booleans()):
        samples, part, r, s = small_tiles(z, data.draw)
        tiling = samples, part, z["K"], r, s
    y, _ = run_forward(z, attrs, dtype, x, w, tiling)
    expected = reference.forward(*double(x, w), G=z["G"], **attrs)
    assert close(y, expected, reference.forward(*double(abs(x), abs(w)), G=z["G"], **attrs), dtype)

    act = data.draw(st.sampled_from([NONE, RELU, RELU6]))
    chosen = [a if data.draw(st.booleans()) else None for a in (scale, shift, residual)]
    y, bits = run_forward(z, attrs, dtype, x, w, tiling, *chosen, act, act != NONE)
    for name, a in zip(("scale", "shift", "residual"), chosen, strict=True):
        if a is not None:
            expected = expected * a if name == "scale" else expected + a
    expected = np.clip(expected, -np.inf if act == 0 else 0, 6 if act == 2 else np.inf)
    assert close(y, expected, reference.forward(*double(abs(x), abs(w)), G=z["G"], **attrs), dtype)
    if act != NONE:
        assert (bits == pack((y > 0) & (y < (6 if act == 2 else np.inf)))).all()


@relaxed
@given(cases(), dtypes, seeds, st.data())
def test_grad_x(case, dtype, seed, data):
    z, attrs = case
    x, w, dy, scale, _ = arrays(z, dtype, seed)
    bits = np.random.default_rng(seed).integers(0, 2, dy.shape).astype(bool)
    tiling = None
    possible = attrs["stride"] == (1, 1) and not tiles.in_place(z, attrs)
    turned = possible and data.draw(st.booleans())
    with pytest.MonkeyPatch.context() as monkeypatch:  # small shapes never reach the threshold: both ways are forced
        monkeypatch.setattr(tiles, "turns", lambda z, attrs: turned)
        if data.draw(st.booleans()):
            samples, part, r, s = small_tiles(z, data.draw)
            if tiles.turns(z, attrs) or tiles.in_place(z, attrs):
                length = z["H"] * z["W"]
                part = length if samples > 1 else data.draw(st.integers(1, length))
                tiling = samples, part, z["C"], tiles.pixels_read(z, attrs, samples, part), r, s
            else:
                rows = z["H"] if samples > 1 else data.draw(st.integers(1, z["H"]))
                tiling = samples, rows, z["C"], data.draw(st.integers(1, 9)), r, s
        known = {"G": z["G"], "H": z["H"], "W": z["W"], **attrs}
        masked, scaled, added = (data.draw(st.booleans()) for _ in range(3))
        dx = run_grad_x(
            z,
            attrs,
            dtype,
            dy,
            w,
            tiling,
            pack(bits) if masked else None,
            scale if scaled else None,
            x if added else None,
        )
    effective = np.where(bits | (not masked), dy * (scale if scaled else 1), 0)
    expected = reference.grad_x(*double(effective, w), **known) + (x if added else 0)
    assert close(dx, expected, reference.grad_x(*double(abs(effective), abs(w)), **known), dtype)


@relaxed
@given(cases(), dtypes, seeds, st.data())
def test_grad_w(case, dtype, seed, data):
    z, attrs = case
    x, _, dy, scale, _ = arrays(z, dtype, seed)
    bits = np.random.default_rng(seed).integers(0, 2, dy.shape).astype(bool)
    tiling = None
    if data.draw(st.booleans()):
        _, _, r, s = small_tiles(z, data.draw)
        part = data.draw(st.integers(1, 9))
        tiling = part * data.draw(st.integers(1, 9)), part, r, s, z["C"] // z["G"]
    known = {"G": z["G"], "R": z["R"], "S": z["S"], **attrs}
    masked, scaled = (data.draw(st.booleans()) for _ in range(2))
    dw = run_grad_w(z, attrs, dtype, dy, x, tiling, pack(bits) if masked else None, scale if scaled else None)
    effective = np.where(bits | (not masked), dy * (scale if scaled else 1), 0)
    expected = reference.grad_w(*double(effective, x), **known)
    assert close(dw, expected, reference.grad_w(*double(abs(effective), abs(x)), **known), dtype)


@relaxed
@given(cases(), dtypes, seeds, st.booleans(), st.booleans())
def test_grad_b(case, dtype, seed, masked, scaled):
    z, _ = case
    _, _, dy, scale, _ = arrays(z, dtype, seed)
    bits = np.random.default_rng(seed).integers(0, 2, dy.shape).astype(bool)
    db = np.full(z["K"], np.nan, dtype)
    mask = pack(bits) if masked else np.empty((0, 0), np.uint8)
    partials = scratch(tiles.grad_b_partials(z), dtype)
    conv2d.grad_b(db, dy, mask, scale if scaled else absent(dtype), partials)
    effective = np.where(bits | (not masked), dy * (scale if scaled else 1), 0).astype("float64")
    assert close(db, reference.grad_b(effective), reference.grad_b(abs(effective)), dtype)


def wide(**z):
    """A whole case, 3×3 with padding 1 unless told."""
    z = {"N": 2, "H": 9, "W": 9, "C": 64, "K": 64, "R": 3, "S": 3, "G": 1, "stride": 1, "pad": 1} | z
    stride, pad = (z.pop("stride"),) * 2, (z.pop("pad"),) * 2
    attrs = {"stride": stride, "dilation": (1, 1), "pad": (pad, pad)}
    z["P"] = out_size(z["H"], z["R"], stride[0], 1, pad)
    z["Q"] = out_size(z["W"], z["S"], stride[0], 1, pad)
    return z, attrs


WIDE = [  # large enough for the tilings that small shapes never reach
    wide(),
    wide(N=9, H=4, W=4, C=128, K=256),
    wide(N=3, H=6, W=6, C=256, K=128, stride=2),
    wide(N=2, H=30, W=31, C=3, K=20, stride=2),
    wide(N=2, H=28, W=28, C=1, K=6, R=5, S=5, pad=2),
    wide(N=2, H=28, W=28, C=1, K=32, R=5, S=5, pad=2),
    wide(N=2, H=14, W=14, C=64, K=256, R=1, S=1, pad=0),
    wide(N=1, H=7, W=7, C=320, K=512, R=1, S=1, pad=0),
    wide(N=64, H=1, W=1, C=100, K=120, R=1, S=1, pad=0),
    wide(N=2, H=14, W=14, C=64, K=128, R=1, S=1, pad=0, stride=2),
    wide(N=3, H=12, W=12, C=24, K=48, G=4),
    wide(N=3, H=13, W=13, C=64, K=96, G=2),
    wide(N=32, H=1, W=96, C=6, K=32, R=1, S=7, pad=0),
]


@pytest.mark.parametrize("case", WIDE, ids=lambda c: "-".join(f"{k}{v}" for k, v in c[0].items()))
def test_wide(case):
    z, attrs = case
    x, w, dy, scale, shift = arrays(z, "float32", 7)
    bits = np.random.default_rng(7).integers(0, 2, dy.shape).astype(bool)

    def everything():
        y, mask = run_forward(z, attrs, "float32", x, w, None, scale, shift, dy, RELU6, True)
        return (
            y, mask,
            run_grad_x(z, attrs, "float32", dy, w, None, pack(bits), scale),
            run_grad_w(z, attrs, "float32", dy, x, None, pack(bits), scale),
        )  # fmt: skip

    results = everything()
    known = {"G": z["G"], **attrs}
    effective = np.where(bits, dy * scale, 0)
    full = np.float64(reference.forward(x, w, **known)) * scale + shift + dy
    assert close(results[0], np.clip(full, 0, 6), full, "float32")
    assert (results[1] == pack((results[0] > 0) & (results[0] < 6))).all()
    dx = reference.grad_x(*double(effective, w), H=z["H"], W=z["W"], **known)
    assert close(results[2], dx, dx, "float32")
    dw = reference.grad_w(*double(effective, x), R=z["R"], S=z["S"], **known)
    assert close(results[3], dw, dw, "float32")

    threads = numba.get_num_threads()
    for count in {1, threads}:
        numba.set_num_threads(count)
        try:
            again = everything()
        finally:
            numba.set_num_threads(threads)
        assert all((a == b).all() for a, b in zip(results, again, strict=True)), f"other bits with {count} threads"


def test_fewer_samples_than_planned():
    """A call may have fewer samples than the tiling and the scratch were made for."""
    z, attrs = wide(N=9, H=6, W=6, C=8, K=16)
    x, w, dy, _, _ = arrays(z, "float32", 3)
    few = z | {"N": 4}
    forward, grad_x, grad_w = (f(z, attrs) for f in (tiles.forward_tiles, tiles.grad_x_tiles, tiles.grad_w_tiles))
    y, _ = run_forward(few, attrs, "float32", x[:4], w, forward)
    assert (y == run_forward(z, attrs, "float32", x, w, forward)[0][:4]).all()
    dx = run_grad_x(few, attrs, "float32", dy[:4], w, grad_x)
    assert (dx == run_grad_x(z, attrs, "float32", dy, w, grad_x)[:4]).all()
    dw = run_grad_w(few, attrs, "float32", dy[:4], x[:4], grad_w)
    expected = reference.grad_w(dy[:4], x[:4], R=3, S=3, **attrs)
    assert close(dw, expected, expected, "float32")


@pytest.mark.parametrize("act", [NONE, RELU, RELU6])
def test_nan_passes(act):
    """A NaN in x reaches y: an activation must not hide it."""
    z, attrs = wide(N=1, H=3, W=3, C=2, K=3, R=1, S=1, pad=0)
    x, w, _, _, _ = arrays(z, "float32", 3)
    x[0, 1, 1] = np.nan
    y, _ = run_forward(z, attrs, "float32", x, w, act=act)
    assert np.isnan(y[0, 1, 1]).all() and not np.isnan(y[0, 0]).any()
