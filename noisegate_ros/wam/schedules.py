"""Schedules: how fast each future latent frame is denoised, as data and as decisions.

A schedule answers one question at every step: given the state, what are the frames' next times?
The hand-crafted ones are matrices ``[K+1, F]`` of times (step x frame), after Diffusion Forcing
(Chen et al. 2024): baselines are rows of a table, not branches in the sampler. A learned gate
answers the same question from the state.

=================  ==================================================================
``shared``         every frame follows the nominal clock, together with the actions
``masked``         every frame stays pure noise
``near_first``     one frame after the other, the near one first
``far_first``      one frame after the other, the far one first
``residual(rho)``  every frame follows the clock, but stops at ``rho``
``clean_first``    the frames first, then the actions: twice the evaluations
``gpn``            the model's learned gate, its mean
``replayed``       the average times of the learned gate, whatever it sees
``shuffled``       the learned gate's rates, each given to the next frame
``gpn_untrained``  a gate that has learned nothing, sampled: mere noise
``auto``           ``gpn`` where the model folder holds a gate, else ``shared``
=================  ==================================================================
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from noisegate_ros.errors import InputError, ModelError
from noisegate_ros.wam.config import WamConfig
from noisegate_ros.wam.gpn import (
    GATE_FACTS,
    GateConfig,
    GatingPolicy,
    gate_facts,
    has_gate,
    load_gate,
    next_times,
    rate,
)


@dataclass(frozen=True)
class State:
    """What a schedule may look at.

    Attributes:
        v: Future latents at their current times ``[B, C, F, h, w]``.
        v0: Clean latent of the observation ``[B, C, 1, h, w]``.
        t: Current times of the future frames ``[B, F]``, float32.
        sigma: The nominal clock ``[K+1]``.
    """

    v: Tensor
    v0: Tensor
    t: Tensor
    sigma: Tensor


class Schedule(Protocol):
    """Decides the next times of the future frames.

    A chunk takes as many evaluations of the backbone as the action's clock has steps.
    """

    @property
    def name(self) -> str:
        """Name of the schedule, as diagnostics and evidence quote it."""
        ...

    def action_clock(self, sigma: Tensor) -> Tensor:
        """Times of the actions ``[N+1]`` from 1 to 0, given the nominal clock ``[K+1]``."""
        ...

    def begin(self, seeds: Sequence[int], steps: int) -> Schedule:
        """Return the schedule of one batch of chunks.

        Args:
            seeds: Seed of every chunk, for a schedule that draws.
            steps: Steps of the nominal clock, ``K``.
        """
        ...

    def __call__(self, state: State, k: int) -> Tensor:
        """Return the times after step ``k``, ``[B, F]``, never above ``state.t`` nor below 0."""
        ...


def nominal_clock(sigma: Tensor) -> Tensor:
    """The actions follow the nominal clock."""
    return sigma


@dataclass(frozen=True)
class TimeTable:
    """A schedule that is a fixed matrix of times.

    Attributes:
        name: Name of the schedule.
        table: Builds the matrix ``[N+1, F]`` from the clock and the number of frames.
        action_clock: Times of the actions ``[N+1]`` from the clock.
    """

    name: str
    table: Callable[[Tensor, int], Tensor]
    action_clock: Callable[[Tensor], Tensor] = nominal_clock

    def begin(self, seeds: Sequence[int], steps: int) -> TimeTable:  # noqa: ARG002
        """Return itself: a table draws nothing."""
        return self

    def __call__(self, state: State, k: int) -> Tensor:
        """Look up row ``k+1``."""
        times = self.table(state.sigma, state.t.shape[1])
        return times[k + 1].to(state.t).expand_as(state.t)


@dataclass(frozen=True)
class Decision:
    """What the gate saw and drew at one step, to be learned from.

    Attributes:
        v: Future latents ``[B, C, F, h, w]``, float32.
        v0: Latent of the observation ``[B, C, 1, h, w]``, float32.
        t: Times before the step ``[B, F]``.
        u: What was drawn ``[B, F]``; the rate is ``2 * sigmoid(u)``.
        k: Number of the step, from 0.
    """

    v: Tensor
    v0: Tensor
    t: Tensor
    u: Tensor
    k: int


@dataclass(frozen=True)
class GateSchedule:
    """A gate that decides from the state.

    Attributes:
        gate: The network.
        mode: ``mean`` takes ``u = mu``; ``sample`` takes ``u = mu + exp(log_sigma) * eps``.
        eps: Standard normal numbers ``[B, K, F]`` of ``sample``, the first for the first decision.
            Where they are None, :meth:`begin` draws them from the chunks' seeds, so that a chunk is
            a function of its seed.
        trace: Takes down every decision, where it is a list.
        name: Name of the schedule.
        roll: Frames by which the rates are moved on; 0 gives each frame its own.
        held: The rates of the last decision, for the steps for which it holds.
        compute: Computes the network's mean in its place, compiled; None is the network itself.
    """

    gate: GatingPolicy
    mode: str = "mean"
    eps: Tensor | None = None
    trace: list[Decision] | None = None
    name: str = "gpn"
    roll: int = 0
    held: list[Tensor] = field(default_factory=list)
    compute: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None

    def action_clock(self, sigma: Tensor) -> Tensor:
        """The actions follow the nominal clock."""
        return sigma

    def begin(self, seeds: Sequence[int], steps: int) -> GateSchedule:
        """Draw what is sampled, unless it is there."""
        if self.mode == "mean" or self.eps is not None:
            return self
        eps = torch.stack([gate_noise(seed, steps, self.gate.config.frames) for seed in seeds])
        return dataclasses.replace(self, eps=eps)

    def __call__(self, state: State, k: int) -> Tensor:
        """Look at the state and decide, or stand by the last decision while it holds."""
        hold = self.gate.config.hold
        if k % hold == 0:
            r = rate(self._decide(state, k, k // hold))
            self.held[:] = [r.roll(self.roll, -1) if self.roll else r]
        return next_times(state.t, self.held[0], state.sigma, k)

    def _decide(self, state: State, k: int, decision: int) -> Tensor:
        """Return ``u`` ``[B, F]`` of a decision, counted from 0."""
        u: Tensor = (self.compute or self.gate)(state.v, state.v0, state.t)
        if self.mode == "sample":
            if self.eps is None:
                raise ValueError("a sampling gate has no noise: call begin() first")
            u = u + self.gate.log_sigma.exp() * self.eps[:, decision].to(u)
        if self.trace is not None:
            with torch.inference_mode(False):  # copies that a gradient may be taken through later
                seen = [x.detach().clone().float() for x in (state.v, state.v0, state.t, u)]
            self.trace.append(Decision(seen[0], seen[1], seen[2], seen[3], k))
        return u


_GATE_STREAM = 0x5DEECE66D


def gate_noise(seed: int, steps: int, frames: int) -> Tensor:
    """Standard normal numbers ``[K, F]`` of a chunk's gate, independent of the chunk's own noise.

    Args:
        seed: Seed of the chunk, in 0..2**63-1.
        steps: Decisions, ``K``.
        frames: Future frames, ``F``.
    """
    generator = torch.Generator().manual_seed(seed ^ _GATE_STREAM)
    return torch.randn(steps, frames, generator=generator)


def shared_table(sigma: Tensor, frames: int) -> Tensor:
    """Every frame follows the nominal clock (``r = 1``)."""
    return sigma[:, None].expand(-1, frames)


def masked_table(sigma: Tensor, frames: int) -> Tensor:
    """Every frame stays pure noise: the action may trust none of the imagined future."""
    return torch.ones(len(sigma), frames)


def pyramid_table(sigma: Tensor, frames: int, near_first: bool) -> Tensor:
    """Frames run down the clock one after the other, each over two thirds of the steps.

    With K = 4, F = 2 and a linear clock, near first::

        step     0     1     2     3     4
        frame 1  1.00  0.62  0.25  0.00  0.00     the near frame is clean early
        frame 2  1.00  1.00  0.75  0.38  0.00     the far one waits, then catches up
    """
    steps = len(sigma) - 1
    if frames == 1:
        return shared_table(sigma, frames)
    span = steps * 2 / 3
    delay = (steps - span) / (frames - 1)
    k = torch.arange(steps + 1, dtype=torch.float64)
    columns = []
    for frame in range(frames):
        place = frame if near_first else frames - 1 - frame
        at = ((k - place * delay) / span).clamp(0, 1) * steps
        low = at.floor().long().clamp(max=steps - 1)
        part = (at - low).to(sigma.dtype)
        columns.append(sigma[low] * (1 - part) + sigma[low + 1] * part)
    return torch.stack(columns, 1)


def residual_table(sigma: Tensor, frames: int, rho: float) -> Tensor:
    """Every frame follows the clock from 1 to ``rho`` and stops there, still noisy."""
    return rho + (1 - rho) * shared_table(sigma, frames)


def clean_first_table(sigma: Tensor, frames: int) -> Tensor:
    """The frames run down the clock while the actions wait, and are clean from then on."""
    video = torch.cat([sigma, torch.zeros_like(sigma[1:])])
    return video[:, None].expand(-1, frames)


def late_clock(sigma: Tensor) -> Tensor:
    """The actions wait at 1 for as many steps as the clock has, then follow it: ``[2K+1]``."""
    return torch.cat([torch.ones_like(sigma[1:]), sigma])


TABLES = ("shared", "masked", "near_first", "far_first", "residual", "clean_first")
GATES = ("gpn", "replayed", "shuffled", "gpn_untrained")
AUTO = "auto"
SCHEDULES = (AUTO, *TABLES, *GATES)


def make_schedule(text: str) -> Schedule:
    """Build a hand-crafted schedule from its name.

    Args:
        text: One of :data:`TABLES`; ``residual`` takes its level as ``residual(0.3)``.

    Raises:
        InputError: if the name or the level is not known.
    """
    name, _, argument = text.partition("(")
    if argument and (name != "residual" or not argument.endswith(")")):
        raise InputError(
            f"schedule {text!r} is not understood: expected e.g. shared or residual(0.3)"
        )
    if name == "shared":
        return TimeTable(text, shared_table)
    if name == "masked":
        return TimeTable(text, masked_table)
    if name in ("near_first", "far_first"):
        return TimeTable(text, lambda s, f: pyramid_table(s, f, name == "near_first"))
    if name == "clean_first":
        return TimeTable(text, clean_first_table, late_clock)
    if name == "residual":
        try:
            rho = float(argument[:-1]) if argument else 0.5
        except ValueError:
            rho = -1.0
        if not 0 <= rho <= 1:
            raise InputError(f"schedule {text!r} has no level in 0..1: write e.g. residual(0.3)")
        return TimeTable(text, lambda s, f: residual_table(s, f, rho))
    if name in (AUTO, *GATES):
        raise InputError(
            f"schedule {text!r} needs a model folder: expected one of {', '.join(TABLES)}"
        )
    raise InputError(f"unknown schedule {text!r}: expected one of {', '.join(SCHEDULES)}")


def load_schedule(text: str, folder: Path, config: WamConfig, steps: int) -> Schedule:
    """Build any schedule, with the gate of a model folder where it needs one.

    Args:
        text: One of :data:`SCHEDULES`.
        folder: The model folder.
        config: The model's architecture.
        steps: Denoising steps, ``K``.

    Raises:
        InputError: if the name is not known, or the times of ``replayed`` are not those of ``K``.
        ModelError: if the schedule needs a gate that the folder does not hold, or that belongs to
            another model.
    """
    if text == AUTO:
        text = "gpn" if has_gate(folder) else "shared"
    if text not in GATES:
        return make_schedule(text)
    if text == "gpn_untrained":
        return GateSchedule(_untrained_gate(folder, config), mode="sample", name=text)
    gate = load_gate(folder, config)
    if text == "replayed":
        times = _mean_times(folder, steps, config.frames)
        return TimeTable(text, lambda *_: times)
    return GateSchedule(gate, name=text, roll=1 if text == "shuffled" else 0)


def _untrained_gate(folder: Path, config: WamConfig) -> GatingPolicy:
    """A fresh gate, of the folder's gate's architecture if there is one; the same every time."""
    gate_config = GateConfig.of(config)
    if has_gate(folder):
        gate_config = load_gate(folder, config).config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        gate = GatingPolicy(gate_config)
    return gate.eval().requires_grad_(False)


def _mean_times(folder: Path, steps: int, frames: int) -> Tensor:
    """Average times ``[K+1, F]`` of the gate in a folder, from its ``gate.json``.

    Raises:
        InputError: if they are not there for this ``K``.
        ModelError: if they are not falling times in 0..1.
    """
    known = gate_facts(folder).get("mean_times")
    rows = known.get(str(steps)) if isinstance(known, dict) else None
    if rows is None:
        there = ", ".join(known) if isinstance(known, dict) and known else "none"
        raise InputError(
            f"schedule replayed has no times for {steps} steps in {folder / GATE_FACTS}, which has "
            f"{there}: choose other steps"
        )
    try:
        times = torch.tensor(rows, dtype=torch.float32)
    except (TypeError, ValueError):
        times = torch.empty(0)
    if (
        times.shape != (steps + 1, frames)
        or not bool(((times >= 0) & (times <= 1)).all())
        or not bool((times.diff(dim=0) <= 0).all())
        or not bool((times[0] == 1).all())
    ):
        raise ModelError(
            f"mean_times of {steps} steps in {folder / GATE_FACTS} are not {steps + 1} rows of "
            f"{frames} times that fall from 1: train the gate again"
        )
    return times
