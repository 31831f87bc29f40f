"""Planes through the weights, and the experiments that look along the paths of forward gradients."""

import json

import numpy as np
import pytest
from test_experiments import assert_drawn, silent

from validation.experiments import forward_gradients, loss_landscape
from validation.instruments import landscape


def points(rng, count):
    """A path that lies in a plane but for a little."""
    one, two = ({"w": rng.normal(size=(3, 4)), "b": rng.normal(size=4)} for _ in range(2))
    return [
        {name: (i * one[name] + i * i * two[name] / count + 1e-6 * rng.normal(size=one[name].shape)) for name in one}
        for i in range(count)
    ]


def test_the_principal_plane_holds_a_path_that_lies_in_a_plane():
    path = points(np.random.default_rng(0), 9)
    plane, kept = landscape.principal([path[:5], path[5:]])
    assert sum(kept) == pytest.approx(1, abs=1e-9) and kept[0] > kept[1] > 0
    assert plane.first @ plane.second == pytest.approx(0, abs=1e-12)
    assert np.linalg.norm(plane.first) == pytest.approx(1)
    where = plane.coordinates(path)
    np.testing.assert_allclose(where[4], 0, atol=1e-9)  # where the first path ends
    for (a, b), point in zip(where, path, strict=True):
        for name, w in plane.at(a, b).items():
            assert w.dtype == np.float32
            np.testing.assert_allclose(w, point[name], atol=1e-4)


def test_filters_of_random_directions_have_the_lengths_of_the_centre():
    rng = np.random.default_rng(1)
    centre = {"w": rng.normal(size=(3, 3, 2, 5)), "b": rng.normal(size=5), "dead": np.zeros((2, 3))}
    plane = landscape.filter_normalised(centre, 3)
    moved = plane.at(1, 0)
    change = moved["w"] - centre["w"]
    lengths = [np.sqrt(np.square(a).sum((0, 1, 2))) for a in (change, centre["w"])]
    np.testing.assert_allclose(*lengths, rtol=1e-5)
    np.testing.assert_allclose(moved["b"], centre["b"], rtol=1e-6)
    assert not moved["dead"].any()
    assert abs(plane.first @ plane.second) < 0.5 * np.linalg.norm(plane.first) * np.linalg.norm(plane.second)
    again = landscape.filter_normalised(centre, 3)
    assert np.array_equal(plane.first, again.first) and not np.array_equal(plane.first, plane.second)


def test_a_surface_is_the_loss_at_each_point():
    plane, _ = landscape.principal([points(np.random.default_rng(2), 4)])
    a, b = np.array([-1.0, 0.0, 2.0]), np.array([0.5, 3.0])
    centre = plane.at(0, 0)
    loss = lambda w: sum(float(np.square(w[name] - centre[name]).sum()) for name in w)  # noqa: E731
    np.testing.assert_allclose(landscape.surface(plane, loss, a, b), np.square(a) + np.square(b)[:, None], rtol=1e-4)


def test_the_landscape_of_two_short_paths(tmp_path, monkeypatch):
    monkeypatch.setattr(loss_landscape, "POINTS", 3)
    monkeypatch.setattr(loss_landscape, "SIDE", 4)
    ways = {name: (step, 20) for name, (step, _) in loss_landscape.WAYS.items()}
    monkeypatch.setattr(loss_landscape, "WAYS", ways)
    found = loss_landscape.run(tmp_path, silent)
    planes = found["measured"]["planes"]
    assert list(planes) == ["principal", "filter-normalised"]
    assert np.shape(planes["principal"]["loss"]) == (4, 4)
    tracks = planes["principal"]["paths"]
    assert {name: len(track) for name, track in tracks.items()} == dict.fromkeys(ways, 4)
    np.testing.assert_allclose(tracks["backprop"][0], tracks["sign, m = 1"][0], atol=1e-6)  # both begin at one place
    np.testing.assert_allclose(tracks["backprop"][-1], 0, atol=1e-6)
    json.dumps(found)
    assert_drawn(found, tmp_path)


def test_forward_gradients_on_two_people(tmp_path, monkeypatch):
    modes = {
        "classifier": ("backprop", "sign, m = 1", "together", "16w8a, m = 1", "8w8a, m = 3"),
        "whole net": ("backprop", "classifier by backprop", "sign, m = 1"),
    }
    short = forward_gradients.Protocol((10,), 60, 20, subjects=2, trials=1, points=2, modes=modes)
    name = "forward-gradient-watch"
    found = forward_gradients.run(name, tmp_path, silent, short)
    rows = found["measured"]["classifier"]
    assert tuple(rows) == modes["classifier"] and rows["backprop"]["gap"]["mean"] == 0
    assert (rows["sign, m = 1"]["passes_a_step"], rows["together"]["passes_a_step"]) == (2, 4)
    assert len(rows["sign, m = 1"]["curve"]) == 3
    assert rows["16w8a, m = 1"]["state_bytes"] < 0.6 * rows["sign, m = 1"]["state_bytes"]
    assert abs(rows["16w8a, m = 1"]["before"] - rows["8w8a, m = 3"]["before"]) < 5  # two nets in whole numbers
    whole = found["measured"]["whole net"]
    assert whole["classifier by backprop"]["passes_a_step"] == 3
    assert whole["classifier by backprop"]["arena_bytes"] < whole["backprop"]["arena_bytes"]
    assert [goal["least"] for goal in found["goals"]] == [-1.0, -1.0, -5.0]
    monkeypatch.setattr(forward_gradients, "adapt", lambda *a: pytest.fail("a finished run was run again"))
    again = forward_gradients.run(name, tmp_path, silent, short)
    assert json.loads(json.dumps(again)) == json.loads(json.dumps(found))
