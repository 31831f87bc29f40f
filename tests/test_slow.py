"""A step far above its prediction is said, with what to try."""

import pytest

from gradledger import slow

PREDICTED = {"low": 0.016, "mid": 0.022, "high": 0.03}


@pytest.mark.parametrize("measured", [None, 0.001, 0.022, 0.03, 0.06])
def test_nothing_is_said_of_a_step_near_its_prediction(measured):
    assert slow.advice(measured, PREDICTED, 2) is None


def test_a_step_that_waits_for_other_programs():
    assert slow.advice(0.253, PREDICTED, 2) == (
        "a step took 253 ms, 11.5 times the 22 ms predicted (at most 30); where other programs use the cores, threads "
        "wait for each other: try --threads 1"
    )
    assert slow.advice(0.0601, PREDICTED, 2)


def test_one_thread_has_nothing_to_wait_for():
    found = slow.advice(0.253, PREDICTED, 1)
    assert "--threads" not in found and found.endswith("hot or slowed down: gradledger doctor tells")
