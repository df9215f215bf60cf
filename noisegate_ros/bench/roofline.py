"""The least time that a denoising step can take, from its arithmetic and its weights.

A step multiplies matrices and reads every weight once; the machine does so many operations and
moves so many bytes a second (Williams et al. 2009, the roofline model). Work is counted on a model
without memory; what the machine can do is measured in the same run, by one large product and one
large copy, and not taken from a data sheet. Activations and calls are left out, so the larger of
both times is lower than anything can reach, as long as the weights come from memory and not from a
cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from noisegate_ros.wam.config import WamConfig
from noisegate_ros.wam.model import Observation, WorldActionModel

_ONCE_A_CHUNK = ("stem", "cross_kv", "context_token", "proprioception", "language")


@dataclass(frozen=True)
class Work:
    """What one denoising step of one observation costs.

    Attributes:
        flops: Floating-point operations, a multiplication and an addition counted as two.
        weights: Weights that are read.
    """

    flops: float
    weights: int


@dataclass(frozen=True)
class Ceilings:
    """What a machine can do, measured.

    Attributes:
        flops_s: Operations a second, in large matrix products.
        bytes_s: Bytes a second to and from memory, in a large copy.
    """

    flops_s: float
    bytes_s: float

    def least_ms(self, work: Work, weight_bytes: int) -> tuple[float, float]:
        """Milliseconds for the arithmetic, and for reading weights of so many bytes each."""
        return 1e3 * work.flops / self.flops_s, 1e3 * work.weights * weight_bytes / self.bytes_s


def step_work(config: WamConfig) -> Work:
    """Count a dense denoising step with the observation's keys in place; takes no memory."""
    with torch.device("meta"), torch.inference_mode():
        model = WorldActionModel(config).eval()
        width, height = config.image_size
        observation = Observation(
            torch.empty(1, len(config.cameras), 3, height, width),
            torch.empty(1, config.action_size),
            torch.empty(1, config.language_width) if config.language_width else None,
        )
        prepared = model.prepare(observation, torch.empty(1, config.channels, 1, *config.grid))
        v = torch.empty(1, config.channels, config.frames, *config.grid)
        a = torch.empty(1, config.horizon, config.action_size)
        with FlopCounterMode(display=False) as counter:
            model.backbone(prepared, v, a, torch.ones(1, config.frames), torch.ones(1))
    weights = sum(
        parameter.numel()
        for name, parameter in model.backbone.named_parameters()
        if not any(part in _ONCE_A_CHUNK for part in name.split("."))
    )
    return Work(float(counter.get_total_flops()), weights)


def ceilings(
    device: torch.device,
    dtype: torch.dtype,
    *,
    size: int = 1024,
    copied: int = 2**28,
    rounds: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> Ceilings:
    """Measure a machine: the best of some products and of some copies.

    Args:
        device: Where.
        dtype: Of the product.
        size: Rows and columns of the product's square matrices.
        copied: Bytes of the copy; larger than any cache.
        rounds: How often each is tried.
        clock: Seconds.
    """
    a = torch.randn(size, size, device=device).to(dtype)
    source = torch.empty(copied, dtype=torch.uint8, device=device).fill_(1)
    target = torch.empty_like(source)

    def best(run: Callable[[], object]) -> float:
        spent = []
        for _ in range(rounds + 1):  # the first one warms up
            begin = clock()
            run()
            synchronise(device)
            spent.append(clock() - begin)
        return min(spent[1:])

    product, copy = best(lambda: a @ a), best(lambda: target.copy_(source))
    return Ceilings(2 * size**3 / product, 2 * copied / copy)


def synchronise(device: torch.device) -> None:
    """Wait until a device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
