"""Pictures whose words can be read: none leaves the picture or lies on another, and names may hold any character."""

import itertools
import json
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gradledger import advise_plot, plot

LONG = {
    "model": "/home/somebody/models/mobilenetv2_1.00_160_of_dogs.npz", "data": "/media/card/my $x_{1$ photographs",
    "method": "gradient-filter:patch=2,align=centre + error-map-pruning:keep=0.5 + instance-filter:keep=0.1,window=20",
}  # fmt: skip
LEARNT = {
    "losses": np.geomspace(2, 0.1, 30).tolist(), "accuracy_before": 0.2, "accuracy_after": 0.8,
    "recall": {f"a rather long name of a class, number ${i}": {"before": 0.2, "after": 0.8} for i in range(4)},
}  # fmt: skip
ESTIMATED = {"gradients": {"errors": [], "estimator": {
    key: 0.5 for key in ("cosine", "variance", "cosine_by_theory", "variance_by_theory")
}}}  # fmt: skip
PLAN = {"method": "backprop", "memory_bytes": 2**20, "gradient_error": 0.1, "seconds_per_epoch": {
    "low": 1.0, "mid": 2.0, "high": 3.0
}, "fits": True}  # fmt: skip
ADVISED = {
    "memory_limit": 2**21, "seconds_per_epoch": 5.0, "front": [PLAN], "others": [], "size": [96, 96],
    "device": "a device of the user's own in a file of some name", "samples": 10_000,
}  # fmt: skip


@pytest.mark.parametrize(
    "draw, record",
    [(plot.learning, LEARNT), (plot.errors, ESTIMATED), (advise_plot.draw, ADVISED)],
    ids=["learning", "estimates", "advice"],
)
def test_heads_are_whole_and_apart(draw, record):
    with matplotlib.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(11, 4.2), layout="constrained")
        draw(LONG | record, figure)
        FigureCanvasAgg(figure).draw()
        heads = [figure._suptitle, *(axes.title for axes in figure.axes)]
        boxes = [head.get_window_extent() for head in heads if head is not None and head.get_text()]
    assert boxes
    for box in boxes:
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_the_process_of_its_own_draws_names_with_any_character(tmp_path):
    path = tmp_path / "picture.png"
    plot.draw(json.loads(json.dumps(LONG | LEARNT)), Path(path))
    assert path.read_bytes().startswith(b"\x89PNG")


def test_powers_of_ten_are_named():
    with matplotlib.rc_context({"text.parse_math": False}):
        figure = Figure(layout="constrained")
        for limits in ((1, 1e9), (300, 20_000)):
            axes = figure.add_subplot()
            axes.set(xscale="log", xlim=limits)
            plot.name_powers(figure)
            FigureCanvasAgg(figure).draw()
            labels = [text.get_text() for text in axes.get_xticklabels()]
            assert "10 k" in labels and not any("$" in label for label in labels)
