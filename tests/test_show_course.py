"""What a recipe did is told in sentences."""

import pytest

from gradledger.show_course import sentences

FIRST = {"before": {"measure": 0.073}, "after": {"measure": 0.659}, "rate": 0.003, "again": 0}
LOOKS = [[0, 1.05, 0.659], [10, 0.9, 0.7], [20, 0.8, 0.72]]
COURSE = {
    "first": None, "direct": [], "at_once": False, "tried": [[1.0, 0.9], [4.0, None]], "looks": LOOKS, "best": 2,
    "lowered": 0, "factor": 0.25,
}  # fmt: skip
TRIED = "learning rates tried, and the loss on samples held out, 1.05 before: 0.01 → 0.9, 0.04 → not finite"


DIRECT = [[10, 0.8, 0.7], [20, 0.7, 0.75], [30, None, 0.0]]
AT_ONCE = "all layers at once, with the classifier as it was: loss on the samples held out "


def record(**course):
    return {"course": COURSE | course, "settings": {"lr": 0.01}, "samples": {"validation": 41}}


@pytest.mark.parametrize("given, said", [
    ({"looks": []}, []),
    ({}, [TRIED, "the best of 3 looks in the run, after 20 steps: loss 1.05 to 0.8, accuracy 65.9 % to 72.0 %"]),
    ({"first": FIRST, "tried": [], "best": 0, "lowered": 2},
     ["the classifier first, alone: accuracy 7.3 % to 65.9 % on the 41 samples held out, at a rate of 0.003",
      "the run found nothing better than it began with, and ended after 20 steps, lowered 2 times"]),
    ({"again": {"made": 70, "kept": True}}, [TRIED, "then all samples, 70 steps at 0.0025: its weights are kept"]),
    ({"again": {"made": 70, "kept": False}},
     [TRIED, "then all samples, 70 steps at 0.0025: it ended worse, the best weights seen before are kept"]),
    ({"first": FIRST | {"again": 12}, "tried": [], "again": {"made": 0, "kept": False}},
     ["the classifier first, alone: accuracy 7.3 % to 65.9 % on the 41 samples held out, at a rate of 0.003; once "
      "more, 12 passes over all samples, for when the probes are over",
      "no rate was better than what it began with: only the classifier, which trained on all samples, is new"]),
    ({"direct": DIRECT, "at_once": True, "tried": [], "best": 0},
     [f"{AT_ONCE}0.7, of the classifier alone 1.05: that is the run",
      "the best of 3 looks in the run, after 20 steps: accuracy 75.0 %"]),
    ({"direct": DIRECT, "at_once": True, "tried": [], "factor": 1.0, "again": {"made": 70, "kept": True}},
     [f"{AT_ONCE}0.7, of the classifier alone 1.05: that is the run",
      "then all samples, 70 steps at 0.01: its weights are kept"]),
    ({"direct": DIRECT[2:]},
     [f"{AT_ONCE}not finite, of the classifier alone 1.05: the run begins with the classifier", TRIED,
      "the best of 3 looks in the run, after 20 steps: loss 1.05 to 0.8, accuracy 65.9 % to 72.0 %"]),
    ({"again": {"made": 0, "kept": False}},
     [TRIED, "no rate was better than what it began with: the weights stay as they were"]),
])  # fmt: skip
def test_the_sentences(given, said):
    assert sentences(record(**given)) == said
