"""Placement of buffers in one block of memory."""

from unittest import mock

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from refimpl.compiler import arena
from refimpl.compiler.arena import ALIGN, Lifetime


@st.composite
def lifetimes(draw, most=40):
    found = []
    for _ in range(draw(st.integers(0, most))):
        first, length = draw(st.integers(0, 30)), draw(st.integers(0, 12))
        found.append(Lifetime(draw(st.sampled_from([0, 1, 63, 64, 65, 100, 1000, 4096])), first, first + length))
    return found


def in_order(buffers):
    """Offsets and peak of buffers placed in the order of a list."""
    nbytes, first, last = np.array([(b.nbytes, b.first, b.last) for b in buffers], np.int64).reshape(-1, 3).T.copy()
    return arena.in_order(np.arange(len(buffers)), nbytes, first, last)


@settings(max_examples=100)
@given(lifetimes())
def test_no_two_live_buffers_share_a_byte(buffers):
    offsets, peak = arena.place(buffers)
    placed = [(o, o + b.nbytes, b) for o, b in zip(offsets, buffers, strict=True) if b.nbytes]
    for i, (start, end, b) in enumerate(placed):
        assert start % ALIGN == 0
        for other_start, other_end, other in placed[:i]:
            assert not b.overlaps(other) or end <= other_start or other_end <= start
    assert peak == max((end for _, end, _ in placed), default=0)


@settings(max_examples=100)
@given(lifetimes())
def test_the_peak_lies_between_the_lower_bound_and_the_sum(buffers):
    bound, launch = arena.lower_bound(buffers)
    _, peak = arena.place(buffers)
    assert bound <= peak <= sum(-(-b.nbytes // ALIGN) * ALIGN for b in buffers)
    sums = [sum(b.nbytes for b in buffers if b.first <= i <= b.last) for i in range(45)]
    assert bound == max(sums)
    assert launch == sums.index(bound)


@settings(max_examples=100)
@given(lifetimes())
def test_each_buffer_takes_the_lowest_gap_that_is_free(buffers):
    offsets, _ = in_order(buffers)
    for i, b in enumerate(buffers):
        if not b.nbytes:
            continue
        taken = [(offsets[j], -(-(offsets[j] + o.nbytes) // ALIGN) * ALIGN) for j, o in enumerate(buffers[:i])
                 if o.nbytes and o.overlaps(b)]  # fmt: skip
        fits = [s for s in {0, *(end for _, end in taken)} if all(s + b.nbytes <= a or s >= e for a, e in taken)]
        assert offsets[i] == min(fits)


def oracle(buffers):
    """The rule in its plainest words: every order in turn, every placed buffer looked at."""
    orders = (
        lambda i: (-buffers[i].nbytes, buffers[i].first, i),
        lambda i: (-buffers[i].nbytes * (buffers[i].last - buffers[i].first + 1), i),
        lambda i: (buffers[i].first - buffers[i].last, -buffers[i].nbytes, i),
        lambda i: (buffers[i].first, -buffers[i].nbytes, i),
    )
    best = None
    for order in orders:
        offsets, placed = [0] * len(buffers), []
        for i in sorted(range(len(buffers)), key=order):
            b = buffers[i]
            for start, end, other in sorted(placed, key=lambda p: p[0]) if b.nbytes else ():
                if other.overlaps(b) and offsets[i] + b.nbytes > start:
                    offsets[i] = max(offsets[i], end)
            if b.nbytes:
                placed.append((offsets[i], -(-(offsets[i] + b.nbytes) // ALIGN) * ALIGN, b))
        peak = max((start + b.nbytes for start, _, b in placed), default=0)
        if best is None or peak < best[1]:
            best = offsets, peak
        if best[1] <= arena.lower_bound(buffers)[0]:
            break
    return best


@settings(max_examples=200)
@given(lifetimes(60))
def test_the_placement_is_that_of_the_plain_rule_in_either_form(buffers):
    for plain in (0, 1 << 40):
        with mock.patch.object(arena, "PLAIN", plain):
            assert arena.place(buffers) == oracle(buffers)


def test_the_compiled_form_takes_over_where_there_is_much_to_place(monkeypatch):
    used = []
    for form in ("lowest_gaps", "compiled_lowest_gaps"):
        monkeypatch.setattr(arena, form, lambda *args, form=form: used.append(form) or 1)
    monkeypatch.setattr(arena, "PLAIN", 5)
    monkeypatch.setattr(arena, "_placed", 0)
    for count in (2, 3, 1):
        in_order([Lifetime(64, 0, 0)] * count)
    assert used == ["lowest_gaps", "lowest_gaps", "compiled_lowest_gaps"]


def test_buffers_that_follow_each_other_share_their_place():
    assert arena.place([Lifetime(128, i, i) for i in range(5)]) == ([0] * 5, 128)
    assert arena.place([Lifetime(128, i, i + 1) for i in range(5)])[1] == 256


def test_a_gap_is_used():
    # 128 bytes between two long-lived ones are free from launch 2 on
    buffers = [Lifetime(64, 0, 9), Lifetime(128, 0, 1), Lifetime(64, 0, 9), Lifetime(128, 2, 9)]
    offsets, peak = in_order(buffers)
    assert (offsets, peak) == ([0, 64, 192, 64], 256)


def test_nothing_to_place():
    assert arena.place([]) == ([], 0)
    assert arena.lower_bound([]) == (0, 0)
