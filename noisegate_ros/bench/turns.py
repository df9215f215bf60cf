"""Cases take turns against one clock, so that a busy neighbour disturbs all of them alike.

In every round each case runs once, in an order that changes from round to round: no case always
runs in the caches that the same other one has left. What is compared is compared within one run.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from noisegate_ros.errors import InputError

Row = dict[str, Any]
NOT_ASKED = "not asked for in this run"
"""Reason of a case that was left out on purpose."""


@dataclass(frozen=True)
class Case:
    """Something that is timed.

    Attributes:
        name: Name of its row.
        run: Does it once; returns when it is done, on whatever device.
        baseline: Name of the case that it is compared with, or None.
        facts: Further fields of its row.
    """

    name: str
    run: Callable[[], object]
    baseline: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Missing:
    """Something that cannot be timed here.

    Attributes:
        name: Name of its row.
        reason: Why not, a sentence.
        facts: Further fields of its row.
    """

    name: str
    reason: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Clock:
    """What cases are timed with, seconds.

    Attributes:
        wall: Time as it passes.
        busy: Processor time of this thread, which a neighbour's turns are not part of.
    """

    wall: Callable[[], float] = time.perf_counter
    busy: Callable[[], float] = time.thread_time


@dataclass
class Times:
    """Milliseconds of one case, round by round.

    Attributes:
        wall: As they passed.
        busy: Processor time of the thread.
    """

    wall: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)


def take_turns(
    cases: Sequence[Case],
    rounds: int,
    *,
    warm_up: int = 2,
    clock: Clock | None = None,
    after_round: Callable[[], None] = lambda: None,
) -> dict[str, Times]:
    """Run every case once a round, against the clock.

    Args:
        cases: What to time; their names differ.
        rounds: Rounds that count.
        warm_up: Rounds before them that do not.
        clock: Another clock than the machine's.
        after_round: Called after every round, those of the warm-up too.

    Raises:
        InputError: if there are no rounds, or two cases have one name.
    """
    if rounds < 1:
        raise InputError(f"{rounds} rounds: expected at least 1")
    times = {case.name: Times() for case in cases}
    if len(times) < len(cases):
        names = [case.name for case in cases]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"two cases are called {twice!r}: expected a name of its own for each")
    clock = clock or Clock()
    order = list(cases)
    for index in range(-warm_up, rounds):
        random.Random(index).shuffle(order)
        for case in order:
            began, busy = clock.wall(), clock.busy()
            case.run()
            spent, used = clock.wall() - began, clock.busy() - busy
            if index >= 0:
                times[case.name].wall.append(1e3 * spent)
                times[case.name].busy.append(1e3 * used)
        after_round()
    return times


def percentiles(milliseconds: Sequence[float]) -> Row:
    """Return p50, p95, p99 and the largest as fields of a row; None of nothing."""
    names = ("p50_ms", "p95_ms", "p99_ms", "max_ms")
    if not len(milliseconds):
        return dict.fromkeys(names)
    found = [*np.percentile(milliseconds, [50, 95, 99]), max(milliseconds)]
    return {name: round(float(value), 3) for name, value in zip(names, found, strict=True)}


def rows_of(cases: Sequence[Case | Missing], times: Mapping[str, Times]) -> list[Row]:
    """Make a row of every case, in their order.

    ``ratio`` is how many times as fast as its baseline a case is: the baseline's median over its
    own, both of the same rounds.
    """
    rows = []
    for case in cases:
        if isinstance(case, Missing):
            rows.append(
                {"name": case.name, **percentiles([]), **case.facts, "missing": case.reason}
            )
            continue
        own = times[case.name]
        row: Row = {
            "name": case.name,
            **percentiles(own.wall),
            "busy_p50_ms": percentiles(own.busy)["p50_ms"],
            "rounds": len(own.wall),
            **case.facts,
        }
        if case.baseline is not None and case.baseline in times:
            row["baseline"] = case.baseline
            row["ratio"] = ratio(times[case.baseline].wall, own.wall)
        rows.append(row)
    return rows


def ratio(baseline: Sequence[float], own: Sequence[float]) -> float | None:
    """Median of the baseline over the median of the case; None where that is nothing."""
    middle = float(np.median(own))
    return round(float(np.median(baseline)) / middle, 3) if middle > 0 else None
