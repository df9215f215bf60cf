"""The delay to count on: of chunks that were really answered, and not of the first one."""

from __future__ import annotations

import numpy as np
import pytest

from noisegate_ros.control import DelayEstimate, steps_of

DT = 60_000_000
MS = 1_000_000


def estimate(*delays_ms: float, window: int = 40) -> float | None:
    found = DelayEstimate(window)
    for delay in delays_ms:
        found.add(round(delay * MS))
    return None if found.p95_ns is None else found.p95_ns / MS


def test_nothing_is_known_before_the_first_answer() -> None:
    assert estimate() is None


def test_the_first_answer_counts_only_while_there_is_no_other() -> None:
    """What is loaded on first use made it slow: 21 of 30 actions would be left out for ever."""
    assert estimate(1260) == 1260
    assert estimate(1260, 100) == 100
    assert estimate(1260, *[100] * 40) == 100


def test_it_is_the_95th_percentile_of_a_window() -> None:
    delays = list(range(1, 41))
    assert estimate(0, *delays) == pytest.approx(np.percentile(delays, 95))
    assert estimate(0, *[900] * 40, *[100] * 40) == 100, "what left the window is forgotten"
    assert estimate(0, *[100] * 38, 900, 900) < 200, "two hiccups among forty change little"
    assert estimate(0, *[100] * 36, *[900] * 4) == 900, "four are what is to be expected"


def test_a_clock_that_was_set_back_is_no_delay() -> None:
    assert estimate(-5) is None
    assert estimate(100, -5) == 100
    assert estimate(100, 120, -5) == 120


@pytest.mark.parametrize(
    ("delay_ms", "steps"), [(0, 0), (0.001, 1), (59.9, 1), (60, 1), (60.001, 2), (200, 4), (-9, 0)]
)
def test_a_delay_in_steps_is_rounded_up(delay_ms: float, steps: int) -> None:
    assert steps_of(delay_ms * MS, DT) == steps
