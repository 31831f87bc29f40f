"""Proposition 1 of arXiv 2301.00330: signal-to-noise ratios of filtered gradients, measured and in closed form."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import NETS
from test_approximation import samples

import refimpl as ri
from refimpl.kernels import random
from refimpl.methods import gradient_filter as gf
from refimpl.ops import conv2d
from validation.instruments import approximation
from validation.instruments import gradient_filter_spectrum as spectrum
from validation.instruments.approximation import gradient_errors

# Proposition 1. The closed form follows from a model of g̃; what the method does is better than the model.


def energies(dy, patch, align=gf.CENTRE):
    e = spectrum.Energies()
    e.add(dy, patch if isinstance(patch, tuple) else (patch, patch), align)
    return e


def patches(dy, r):
    """(…, r, r) of maps (N, P, Q, K) that r divides."""
    n, p, q, k = dy.shape
    return dy.reshape(n, p // r, r, q // r, r, k).transpose(0, 1, 3, 5, 2, 4)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.floats(0, 4), st.integers(0, 2**32 - 1))
def test_proposition_1_closed_form_is_that_of_a_dc_component_divided_by_r_squared(r, level, seed):
    g = np.random.default_rng(seed).normal(size=(1, r, r, 1)) + level
    G = np.fft.fft2(g[0, :, :, 0])
    approximate = np.zeros_like(G)
    approximate[0, 0] = G[0, 0] / r**2
    of_model = np.sum(np.abs(G) ** 2) / max(np.sum(np.abs(G - approximate) ** 2), 1e-300)
    printed = 1 / max(1 - (2 * r**2 - 1) / r**4 * abs(G[0, 0]) ** 2 / np.sum(np.abs(G) ** 2), 1e-300)
    if r == 1:
        assert energies(g, r).closed_form is None
    else:
        assert energies(g, r).closed_form == pytest.approx(of_model, rel=1e-9)
        assert of_model == pytest.approx(printed, rel=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), st.floats(0, 20), st.integers(0, 2**32 - 1))
def test_proposition_1_closed_form_is_a_lower_bound_of_what_patch_means_keep(r, smooth, seed):
    rng = np.random.default_rng(seed)
    dy = rng.normal(size=(2, 3 * r, 2 * r, 2)) + smooth * rng.normal(size=(2, 1, 1, 2))
    G = np.abs(np.fft.fft2(patches(dy, r))) ** 2
    kept = G[..., 0, 0].sum() / G.sum()
    found = energies(dy, r)
    if r == 1:
        assert found.snr is None and found.closed_form is None
    else:
        assert found.snr == pytest.approx(1 / (1 - kept), rel=1e-9)
        assert found.closed_form == pytest.approx(1 / (1 - (2 * r**2 - 1) / r**4 * kept), rel=1e-9)
        assert found.closed_form <= found.snr


@pytest.mark.parametrize("r", [2, 4])
def test_proposition_1_closed_form_and_measured_on_white_and_on_smooth_maps(r):
    size = 32
    white = np.random.default_rng(0).normal(size=(16, size, size, 8))
    found = energies(white, r)
    assert found.snr == pytest.approx(r**2 / (r**2 - 1), rel=0.01)
    assert found.closed_form == pytest.approx(1 / (1 - (2 * r**2 - 1) / r**6), rel=0.01)

    wave = np.sin(2 * np.pi * (np.arange(size) + 0.5) / size)
    found = energies((wave[:, None] + wave)[None, :, :, None], r)
    lost = 1 - (np.sin(np.pi * r / size) / (r * np.sin(np.pi / size))) ** 2  # of a wave by means of r
    assert found.snr == pytest.approx(1 / lost, rel=1e-6)
    ceiling = (1 - 1 / r**2) ** -2
    assert 0.95 * ceiling < found.closed_form < ceiling < found.snr


def circular(g, w):
    """dx on a circular map, by its spectrum: the kernel w at the map's size."""
    return np.fft.ifft(np.fft.fft(g) * np.fft.fft(w, len(g))).real


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 5), st.floats(-3, 3), st.floats(-2, 2), st.integers(0, 2**32 - 1))
def test_proposition_1_in_its_model_dx_keeps_more_than_dy_where_the_condition_holds(r, level, tilt, seed):
    rng = np.random.default_rng(seed)
    g, w = rng.normal(size=r) + level, rng.normal(size=r) + tilt
    G, kernel = np.fft.fft(g), np.abs(np.fft.fft(w)) ** 2
    error = G.copy()
    error[0] -= G[0] / r  # a patch of one row has r elements, not r²
    snr_dy = spectrum.ratio(np.sum(np.abs(G) ** 2), np.sum(np.abs(error) ** 2))
    snr_dx = spectrum.ratio(np.sum(kernel * np.abs(G) ** 2), np.sum(kernel * np.abs(error) ** 2))
    if kernel[0] >= kernel.max():
        assert snr_dx >= snr_dy * (1 - 1e-12)
    elif kernel[0] <= kernel.min():
        assert snr_dx <= snr_dy * (1 + 1e-12)


def test_proposition_1_promises_nothing_beyond_its_model():
    """A wave that the kernel all but stops: its mean has an alias that passes, though DC is the largest."""
    g, w = np.cos(2 * np.pi * 3 * np.arange(8) / 8), np.ones(3)
    mean = spectrum.patch_means(g.reshape(1, 1, 8, 1), (1, 2), gf.CORNER).ravel()
    assert np.argmax(np.abs(np.fft.fft(w, 8))) == 0
    snr_dy = spectrum.ratio(np.sum(g**2), np.sum((g - mean) ** 2))
    snr_dx = spectrum.ratio(np.sum(circular(g, w) ** 2), np.sum(circular(g - mean, w) ** 2))
    assert snr_dy == pytest.approx(1 / np.sin(3 * np.pi / 8) ** 2)
    assert snr_dx < 0.25 * snr_dy


def test_proposition_1_energies_of_kernels():
    w = np.zeros((3, 3, 1, 4))
    w[1, 1, 0, 0] = 2  # a single tap: a flat spectrum
    w[:, :, 0, 1] = 1  # a box: DC alone
    w[:, :, 0, 2] = -1 / 8
    w[1, 1, 0, 2] = 1  # no DC
    w[0, :, 0, 3] = [1, -2, 1]  # one row of a second difference
    dc, other = spectrum.kernel_energies(w)
    np.testing.assert_allclose(dc[0], [4, 81, 0, 0], atol=1e-12)
    np.testing.assert_allclose(other[0], [4, 0, (9 / 8) ** 2, 9], atol=1e-12)
    found = spectrum.spectral_condition(w[..., :3])
    assert found["condition"] == pytest.approx(2 / 3)
    assert found["energy_ratio"] == pytest.approx(85 / (4 + (9 / 8) ** 2))
    assert spectrum.spectral_condition(np.ones((1, 1, 2, 2))) == {"condition": 1.0, "energy_ratio": None}


def test_eq_2_each_element_becomes_the_mean_of_its_patch():
    dy = np.arange(1.0, 13).reshape(1, 3, 4, 1)
    assert spectrum.patch_means(dy, (2, 2), gf.CORNER)[0, :, :, 0].tolist() == [
        [3.5, 3.5, 5.5, 5.5], [3.5, 3.5, 5.5, 5.5], [9.5, 9.5, 11.5, 11.5],
    ]  # fmt: skip
    assert spectrum.patch_means(dy, (2, 3), gf.CENTRE)[0, :, :, 0].tolist() == [
        [1.5, 1.5, 3.5, 3.5], [7.5, 7.5, 9.5, 9.5], [7.5, 7.5, 9.5, 9.5],
    ]  # fmt: skip


def test_patches_at_the_border_and_of_maps_of_one_row_have_fewer_elements():
    assert spectrum.patch_elements((1, 5), (2, 2), gf.CENTRE).tolist() == [[1, 2, 2, 2, 2]]
    assert spectrum.patch_elements((3, 3), (2, 2), gf.CORNER).tolist() == [[4, 4, 2], [4, 4, 2], [2, 2, 1]]
    pairs = np.tile([1.0, 0.0], 5).reshape(1, 1, 10, 1)  # what max pooling by 2 leaves of dy
    found = energies(pairs, 2)
    assert found.snr == pytest.approx(2) and found.closed_form == pytest.approx(1.6)


def test_energies_add_up_over_batches():
    a, b = np.random.default_rng(0).normal(size=(2, 2, 5, 7, 3))
    e = energies(a, (2, 3))
    e.add(b, (2, 3), gf.CENTRE)
    both = energies(np.concatenate([a, b]), (2, 3))
    assert (e.snr, e.closed_form) == (pytest.approx(both.snr), pytest.approx(both.closed_form))


def test_the_entry_of_a_filtered_layer_measures_the_same_as_its_parts():
    graph = NETS["residual"]()
    x, y = samples(graph, 4)
    plan = ri.Plan(rules=[ri.GradientFilter(2)])
    found = {e["layer"]: e for e in gradient_errors(graph, plan, x, y, 4, 1)}
    order = random.permutation(0, random.SHUFFLE, 0, 4)
    trainer = ri.Trainer(ri.compile(graph, replace(plan, rules=()), 4, backend="reference", dtype=np.float64))
    true = approximation.gradients(trainer, x[order], y[order], 0, 1)
    dy, w = true["conv2", "dy"], trainer.parameters["conv2.w"]
    mean = spectrum.patch_means(dy, (2, 2), gf.CENTRE)
    dx = conv2d.grad_x(mean, w, H=4, W=4, pad=1)
    of = found["conv2"]["filter"]
    assert of["patch"] == [2, 2] and found["conv2"]["map"] == [4, 4] and found["conv2"]["kernel"] == [3, 3]
    assert of["snr_dy"] == pytest.approx(np.sum(dy**2) / np.sum((dy - mean) ** 2))
    exact = true["conv2", "dx"]
    assert of["snr_dx_full_kernel"] == pytest.approx(np.sum(exact**2) / np.sum((exact - dx) ** 2))
    assert of["snr_dx"] == pytest.approx(found["conv2"]["local"]["dx"]["relative_error"] ** -2)
    assert "snr_dx" not in found["conv0"]["filter"]
