"""Is a step far slower than it was predicted to be, and what is to be tried?"""

from collections.abc import Mapping

FAR = 2.0  # times the top of the prediction's interval, in which 19 of 20 steps lie


def advice(measured: float | None, predicted: Mapping[str, float], threads: int) -> str | None:
    """A sentence where a step took far longer than predicted; None where it did not, or where nothing was measured.

    measured: seconds of a step once everything is loaded, in the middle. predicted: `low`, `mid` and `high` seconds
    (`Estimate.seconds`). threads: those that the step ran on.
    """
    if measured is None or measured <= FAR * predicted["high"]:
        return None
    if threads > 1:
        tip = "where other programs use the cores, threads wait for each other: try --threads 1"
    else:
        tip = "other programs may use the core, or it may be hot or slowed down: gradledger doctor tells"
    took, mid, high = (f"{1e3 * seconds:.3g}" for seconds in (measured, predicted["mid"], predicted["high"]))
    times = f"{measured / predicted['mid']:.3g}"
    return f"a step took {took} ms, {times} times the {mid} ms predicted (at most {high}); {tip}"
