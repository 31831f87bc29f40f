"""What a recipe did is told in sentences."""

import pytest

from gradledger.show_course import sentences

FIRST = {"before": {"measure": 0.073}, "after": {"measure": 0.659}, "rate": 0.003}
LOOKS = [[0, 1.05, 0.659], [10, 0.9, 0.7], [20, 0.8, 0.72]]
COURSE = {
    "first": None, "probed": [[10, 0.9, 0.7], [10, None, 0.0]], "looks": LOOKS, "best": 2, "lowered": 0, "factor": 0.25,
}  # fmt: skip


def record(**course):
    return {"course": COURSE | course, "settings": {"lr": 0.01}, "samples": {"validation": 41}}


@pytest.mark.parametrize("given, said", [
    ({"looks": []}, []),
    ({}, ["rates tried, the default and less: loss 0.9, not finite on the samples held out",
          "the best of 3 looks in the run, after 20 steps: loss 1.05 to 0.8, accuracy 65.9 % to 72.0 %"]),
    ({"first": FIRST, "probed": [[10, 0.9, 0.7]], "best": 0, "lowered": 2},
     ["the classifier first, alone: accuracy 7.3 % to 65.9 % on the 41 samples held out, at a rate of 0.003",
      "the run found nothing better than it began with, and ended after 20 steps, lowered 2 times"]),
    ({"probed": [], "lowered": 1, "again": {"begun": True, "made": 70, "kept": True}},
     ["the best of 3 looks in the rehearsal, after 20 steps, lowered once: loss 1.05 to 0.8, accuracy 65.9 % to 72.0 %",
      "then all samples, 70 steps at 0.0025: its weights are kept"]),
])  # fmt: skip
def test_the_sentences(given, said):
    assert sentences(record(**given)) == said
