"""What the policy node knows about itself, as diagnostic statuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from noisegate_ros.nodes.messages import to_time

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


def status(
    name: str, level: bytes, message: str, values: Mapping[str, Any] | None = None
) -> DiagnosticStatus:
    """Return one status; values become text."""
    return DiagnosticStatus(
        name=name,
        level=level,
        message=message,
        hardware_id="noisegate_ros",
        values=[
            KeyValue(key=key, value=f"{value:.6g}" if isinstance(value, float) else str(value))
            for key, value in (values or {}).items()
        ],
    )


def array(statuses: list[DiagnosticStatus], stamp_ns: int) -> DiagnosticArray:
    """Return the statuses as one message."""
    message = DiagnosticArray(status=statuses)
    message.header.stamp = to_time(stamp_ns)
    return message


def stream_status(
    prefix: str, name: str, age_s: float | None, max_age_s: float | None, refused: str = ""
) -> DiagnosticStatus:
    """Return the status of one input stream.

    Args:
        prefix: The node's name.
        name: The stream's.
        age_s: Seconds since it was heard; None: never.
        max_age_s: Silence longer than this is a fault; None: silence is normal.
        refused: Why its last message was not used; empty: it was.
    """
    values = {} if age_s is None else {"age_s": age_s}
    level, text = OK, "fresh"
    if age_s is None:
        level, text = ERROR, "never heard"
    elif max_age_s is not None and age_s > max_age_s:
        level, text = ERROR, f"silent for {age_s:.1f} s"
    if refused:
        level, text = (level if level != OK else WARN), f"{text}; a message was refused: {refused}"
    return status(f"{prefix}: {name}", level, text, values)


def worst(message: DiagnosticArray) -> tuple[bytes, ...]:
    """Return the levels in order, to notice a change."""
    return tuple(item.level for item in message.status)
