"""The closed loop's two halves that the evaluation and the nodes share.

Observe at t, run the model, `plan` with stamp t, `advance` the physics, observe again.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from noisegate_ros.control.follower import TrajectoryFollower
from noisegate_ros.control.guard import check_chunk
from noisegate_ros.control.limits import JointLimits
from noisegate_ros.control.trajectory import Trajectory, chunk_to_trajectory


class Drivable(Protocol):
    """What `advance` needs of a simulated scene; positions in the scene's own units."""

    @property
    def time_ns(self) -> int:
        """Time since the episode began."""

    def set_target(
        self, position: NDArray[np.float64], velocity: NDArray[np.float64] | None
    ) -> None:
        """Set the drive target and its feed-forward velocity."""

    def step(self) -> None:
        """Advance the physics by one step."""


def plan(
    actions: ArrayLike,
    *,
    joints: tuple[str, ...],
    limits: JointLimits,
    measured: ArrayLike | None,
    stamp_ns: int,
    dt_ns: int,
    now_ns: int | None = None,
    margin_ns: int = 0,
    origin_ns: int | None = None,
    count: int | None = None,
) -> Trajectory:
    """Guard a chunk, then time it.

    Args:
        actions: ``[H, A]`` joint targets, SI units.
        joints: Names of the A columns.
        limits: What a chunk may ask for.
        measured: ``[A]`` positions of the observation, SI units; None: no test of the first step.
        stamp_ns: Time of the observation.
        dt_ns: Time between two actions.
        now_ns: Present time on the same clock; None: no time has passed (lock-step).
        margin_ns: Points earlier than now plus this are dropped.
        origin_ns: Time from which the actions count; None: the stamp.
        count: Actions that may be executed, after which the robot rests; None: all.

    Raises:
        ChunkRejected: if the guard refuses the chunk.
        TrajectoryError: if it is too late for every point.
    """
    chunk = check_chunk(actions, joints, limits, measured, dt_ns=dt_ns)
    now = stamp_ns if now_ns is None else now_ns
    return chunk_to_trajectory(
        chunk[:count], stamp_ns, dt_ns, joints, now, margin_ns, origin_ns=origin_ns
    )


def advance(
    scene: Drivable,
    follower: TrajectoryFollower,
    steps: int,
    *,
    step_ns: int,
    scale: NDArray[np.float64],
    origin_ns: int = 0,
) -> None:
    """Run physics for ``steps`` steps along the follower's commands.

    A step is driven towards the command of its end, so that the last target before an observation
    is the action that belongs to that observation's time, as it was when the episode was recorded.

    Args:
        scene: The scene to drive.
        follower: Commands in SI units, on the clock ``origin_ns + scene.time_ns``.
        steps: Physics steps to run.
        step_ns: Length of one physics step.
        scale: ``[A]`` SI units per unit of the scene.
        origin_ns: The follower's time at the scene's time zero.
    """
    for _ in range(steps):
        position, velocity = follower.sample(origin_ns + scene.time_ns + step_ns)
        scene.set_target(position / scale, velocity / scale)
        scene.step()
