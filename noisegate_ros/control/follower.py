"""Follow trajectories as ros2_control's joint trajectory controller does.

A new trajectory replaces the old one from its stamp on. Motion is continuous: the new segment
starts at the position and velocity that are commanded at that moment, not at the measured ones.
Between points the path is a cubic where velocities are given and a straight line where they are
not; after the last point the last position is held.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from noisegate_ros.control.trajectory import NS_PER_S, Trajectory
from noisegate_ros.errors import TrajectoryError

Sample = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class Knots:
    """Points in time and the path through them; the last position is held.

    Of a follower's trajectories ``times_ns[0]`` is the moment of take-over and row 0 the state
    commanded at that moment.
    """

    times_ns: NDArray[np.int64]
    positions: NDArray[np.float64]
    velocities: NDArray[np.float64] | None

    def sample(self, now_ns: int) -> Sample:
        """Return ``(position [A], velocity [A])`` at a time."""
        last = len(self.times_ns) - 1
        index = int(np.searchsorted(self.times_ns, now_ns, side="right")) - 1
        if last == 0 or index >= last:
            return self.positions[last].copy(), np.zeros_like(self.positions[last])
        index = max(index, 0)
        start, stop = int(self.times_ns[index]), int(self.times_ns[index + 1])
        # Differences of integers first: the result does not depend on the clock's origin.
        span = (stop - start) / NS_PER_S
        part = min(max(now_ns - start, 0), stop - start) / (stop - start)
        p0, p1 = self.positions[index], self.positions[index + 1]
        if self.velocities is None:
            return p0 + part * (p1 - p0), (p1 - p0) / span
        return _hermite(part, span, p0, self.velocities[index], p1, self.velocities[index + 1])


def _hermite(
    part: float,
    span: float,
    p0: NDArray[np.float64],
    v0: NDArray[np.float64],
    p1: NDArray[np.float64],
    v1: NDArray[np.float64],
) -> Sample:
    """Cubic through two points with given velocities; ``part`` in 0..1 of ``span`` seconds."""
    if part == 1.0:  # exact at the knots, where rounding would leave a last-bit difference
        return p1.copy(), v1.copy()
    if part == 0.0:
        return p0.copy(), v0.copy()
    m0, m1, rise = v0 * span, v1 * span, p1 - p0
    c2 = 3 * rise - 2 * m0 - m1
    c3 = m0 + m1 - 2 * rise
    position = p0 + part * (m0 + part * (c2 + part * c3))
    velocity = (m0 + part * (2 * c2 + part * 3 * c3)) / span
    return position, velocity


class TrajectoryFollower:
    """The commanded position and velocity of a set of joints over time.

    Args:
        joints: Names of the A joints.
        start: ``[A]`` position that is held until the first trajectory, SI units.
    """

    def __init__(self, joints: tuple[str, ...], start: ArrayLike) -> None:
        self.joints = tuple(joints)
        position = np.array(start, dtype=np.float64)
        if position.shape != (len(self.joints),) or not np.isfinite(position).all():
            raise TrajectoryError(
                f"the start must be {len(self.joints)} finite positions, got {position.tolist()}"
            )
        rest = Knots(np.array([0], dtype=np.int64), position[None], None)
        # Ordered by the moment of take-over; more than one only while a stamp lies ahead.
        self._segments: list[Knots] = [rest]

    def replace(self, trajectory: Trajectory, now_ns: int) -> None:
        """Take over ``trajectory`` from its stamp, or from now if the stamp is past.

        Raises:
            TrajectoryError: if it names other joints, or all of its points are past.
        """
        new = trajectory.reordered(self.joints)
        begin = max(new.stamp_ns, now_ns)
        times = new.stamp_ns + new.times_ns
        keep = times > begin
        if not keep.any():
            raise TrajectoryError(
                f"the trajectory ended {(now_ns - new.end_ns) / 1e6:.0f} ms ago: all of its points "
                "are past"
            )
        position, velocity = self.sample(begin)
        positions = np.vstack([position, new.positions[keep]])
        velocities = None
        if new.velocities is not None:
            velocities = np.vstack([velocity, new.velocities[keep]])
        knots = Knots(np.concatenate([[begin], times[keep]]), positions, velocities)
        first, *later = self._segments
        older = [first, *(s for s in later if int(s.times_ns[0]) < begin)]
        self._segments = [*older, knots]
        self._forget(now_ns)

    def sample(self, now_ns: int) -> Sample:
        """Return the commanded ``(position [A], velocity [A])`` at ``now_ns``, SI units."""
        active = self._segments[0]
        for segment in self._segments[1:]:
            if int(segment.times_ns[0]) <= now_ns:
                active = segment
        return active.sample(now_ns)

    def hold(self, now_ns: int) -> None:
        """Stop at the position commanded at ``now_ns`` and forget every trajectory."""
        position, _ = self.sample(now_ns)
        self._segments = [Knots(np.array([now_ns], dtype=np.int64), position[None], None)]

    def _forget(self, now_ns: int) -> None:
        """Drop the segments that a later one has already replaced."""
        while len(self._segments) > 1 and int(self._segments[1].times_ns[0]) <= now_ns:
            del self._segments[0]
