"""Runs the tests whose lines `covered` measures: python -m validation.instruments.covered_tests OUT LIMIT MINUTES FILE

FILE lists the tests, one a line; OUT gets which passed, what the others raised and which were not reached. A test and
its set-up are stopped after LIMIT seconds of the processor each, 0 for none; after MINUTES no further test begins.
"""

import json
import math
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import pytest

WAITS = 20  # a test that waits for another process, or on a busy machine, takes longer by the clock
TIMERS = {signal.SIGPROF: (signal.ITIMER_PROF, 1), signal.SIGALRM: (signal.ITIMER_REAL, WAITS)}


class TooLong(BaseException):
    """A test had its seconds. Not an Exception, which a test may expect."""


class Watch:
    """A pytest plugin: stops what takes longer than `limit` seconds, and keeps what became of the tests."""

    def __init__(self, limit: float, minutes: float):
        self.limit, self.seconds, self.end = limit, 60 * minutes, math.inf
        self.passed, self.failed, self.waiting = [], {}, {}

    @contextmanager
    def within(self):
        """Raise TooLong inside once the time is over: that of the processor, or WAITS times as much by the clock."""
        if not self.limit:  # a test may have an alarm of its own
            yield
            return

        def stop(*_):
            raise TooLong(f"not done after {self.limit:g} s")

        before = {number: signal.signal(number, stop) for number in TIMERS}
        for timer, times in TIMERS.values():
            signal.setitimer(timer, times * self.limit)
        try:
            yield
        finally:
            for number, (timer, _) in TIMERS.items():
                signal.setitimer(timer, 0)
                signal.signal(number, before[number])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item):
        """Its fixtures within the limit."""
        with self.within():
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item):
        """The test itself within the limit."""
        with self.within():
            return (yield)

    def pytest_collection_finish(self, session):
        """Know all tests; their time begins."""
        self.end = time.monotonic() + self.seconds
        self.waiting = dict.fromkeys(item.nodeid for item in session.items)

    def pytest_runtest_logfinish(self, nodeid):
        """Note that a test was run."""
        self.waiting.pop(nodeid)

    def pytest_runtest_teardown(self, item):
        """Begin no test after the last minute."""
        if time.monotonic() > self.end:
            item.session.shouldstop = "the time is over"

    def pytest_runtest_makereport(self, item, call):
        """See what a test, its set-up or its end raised."""
        if call.excinfo and not call.excinfo.errisinstance(pytest.skip.Exception):
            self.failed[item.nodeid] = f"{call.excinfo.typename}: {call.excinfo.value}".partition("\n")[0][:200]
        elif call.when == "call" and not call.excinfo:
            self.passed.append(item.nodeid)

    def pytest_collectreport(self, report):
        """See a file of tests that cannot be imported."""
        if report.failed:
            self.failed[report.nodeid] = "it cannot be imported"


def main(out: str, limit: str, minutes: str, listed: str) -> None:
    """Run the tests of a list and write what became of them."""
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]  # a failing case need not be made small
    hypothesis.settings.register_profile("covered", phases=phases)
    hypothesis.settings.load_profile("covered")
    watch = Watch(float(limit), float(minutes))
    known = "ignore:Module already imported:pytest.PytestAssertRewriteWarning"  # hypothesis, here
    pytest.main(["-q", "-p", "no:cacheprovider", "--tb=no", "-W", known, f"@{listed}"], plugins=[watch])
    found = {"passed": watch.passed, "failed": watch.failed, "not_reached": list(watch.waiting)}
    Path(out).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
