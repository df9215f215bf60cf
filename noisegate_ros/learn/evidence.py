"""Evidence: figures that a machine can read again, beside the model that they were measured on."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noisegate_ros.errors import InputError
from noisegate_ros.learn.episode import Outcome
from noisegate_ros.learn.statistics import wilson
from noisegate_ros.wam.checkpoint import weights_sha256, write_text

if TYPE_CHECKING:
    from noisegate_ros.learn.evaluate import Setup

Row = dict[str, Any]

_PLAIN_LIST = re.compile(r'\[([^\[\]{}"]*)\]')


def machine() -> str:
    """Describe the machine in words: processor, cores, memory, operating system, Python."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} "
        f"{platform.machine()}, Python {platform.python_version()}"
    )


def commit() -> str:
    """Return the checkout's commit, with ``+`` if tracked files differ; ``unknown`` without git."""
    folder = Path(__file__).resolve().parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        changed = subprocess.run(
            [
                "git",
                "status",
                "--porcelain",
                "--untracked-files=no",
                "--",
                "*.py",
                "*.frag",
                "*.vert",
            ],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changed else "")


def summarise(
    setup: Setup,
    outcomes: Sequence[Outcome],
    training_seed: int,
    transport: str = "direct",
    **more: object,
) -> list[Row]:
    """Count successes per task and level.

    Args:
        setup: The policy that ran.
        outcomes: Its episodes.
        training_seed: Seed of the run that trained it.
        transport: ``ros`` if it ran over the nodes, else ``direct``.
        more: Further fields of every row.
    """
    rows: list[Row] = []
    for task, level in dict.fromkeys((o.task, o.level) for o in outcomes):
        chosen = [o for o in outcomes if (o.task, o.level) == (task, level)]
        successes = sum(o.success for o in chosen)
        seeds = [o.seed for o in chosen]
        rows.append(
            {
                "task": task,
                "randomization": level,
                "policy": setup.policy,
                "schedule": setup.schedule if setup.policy == "wam" else None,
                "steps": setup.steps,
                "evaluations": max(o.evaluations for o in chosen) or None,
                **({"follow": True} if setup.follow else {}),
                **setup.engine_facts,
                **_delay(setup),
                "transport": transport,
                "training_seed": training_seed,
                **more,
                "episodes": len(chosen),
                "successes": successes,
                "ci95": [round(end, 4) for end in wilson(successes, len(chosen))],
                "seeds": [min(seeds), max(seeds)],
                "successful_seeds": [o.seed for o in chosen if o.success],
                "failed_seeds": [o.seed for o in chosen if not o.success],
                "frames_mean": round(sum(o.frames for o in chosen) / len(chosen), 1),
                "chunk_ms_mean": round(sum(o.chunk_ms for o in chosen) / len(chosen), 1),
                "rejected_chunks": sum(o.rejected for o in chosen),
            }
        )
    return rows


def _delay(setup: Setup) -> Row:
    """What a row tells of answers that come late, nothing where the world waited."""
    if setup.delay is None:
        return {}
    return {"delay_ms": setup.delay.ms, "chunking": setup.delay.chunking}


def readable(content: Mapping[str, Any]) -> str:
    """JSON of one line a field, with every list of plain values on one line too."""
    text = json.dumps(content, indent=1)
    return _PLAIN_LIST.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


def write_evidence(
    path: Path, command: str, folder: Path, rows: Sequence[Row], **more: object
) -> None:
    """Write an evidence file, whole or not at all.

    Args:
        path: ``models/<name>/evidence/<what>.json``.
        command: The command that measured it.
        folder: The model folder whose weights were used.
        rows: What was measured.
        more: Further fields of the file, after the rows.
    """
    now = dt.datetime.now(dt.timezone.utc)
    content: Mapping[str, Any] = {
        "command": command,
        "commit": commit(),
        "date": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": machine(),
        "model_sha256": weights_sha256(folder),
        "rows": list(rows),
        **more,
    }
    write_text(path, readable(content))


def training_seed(folder: Path) -> int:
    """Read the training seed from a model's stats.json.

    Raises:
        InputError: if the file has none.
    """
    try:
        return int(json.loads((folder / "stats.json").read_text())["seed"])
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{folder / 'stats.json'} does not name the training seed: save the model again with "
            "noisegate train"
        ) from error
