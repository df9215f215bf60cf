"""Which trajectories on a command topic are the node's own, and which are somebody else's.

Messages do not say who sent them. But the node hears its own topic, and knows what it has sent.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from trajectory_msgs.msg import JointTrajectory

_KEPT = 256  # more than the depth of any queue between sending and hearing


class OwnCommands:
    """The latest trajectories that were sent, to be known again when they are heard."""

    def __init__(self) -> None:
        self._sent: deque[tuple[Any, ...]] = deque(maxlen=_KEPT)

    def sent(self, message: JointTrajectory) -> None:
        """Remember a message; call it before the message is published."""
        self._sent.append(_mark(message))

    def __contains__(self, message: JointTrajectory) -> bool:
        return _mark(message) in self._sent


def _mark(message: JointTrajectory) -> tuple[Any, ...]:
    """Return what tells one trajectory from another: its start, joints, length and ends."""
    stamp, points = message.header.stamp, message.points
    ends = tuple(tuple(point.positions) for point in (points[:1] + points[-1:]))
    return stamp.sec, stamp.nanosec, tuple(message.joint_names), len(points), ends
