"""What the model thinks, as pictures for people."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GATE_PIXELS = 16


def gates_picture(times: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the time of every latent at every step as a grey picture, white is noise.

    Args:
        times: ``[K + 1, F]`` in 0..1.

    Returns:
        ``[F * 16, (K + 1) * 16]`` uint8: one row of squares a latent, one column a step.
    """
    grey = np.rint(np.clip(np.asarray(times).T, 0, 1) * 255).astype(np.uint8)
    return np.kron(grey, np.ones((_GATE_PIXELS, _GATE_PIXELS), dtype=np.uint8))


def imagined_picture(
    frames: dict[str, NDArray[np.uint8]], cameras: tuple[str, ...]
) -> NDArray[np.uint8]:
    """Return imagined frames ``[F, h, w, 3]`` by camera as one picture: F rows of cameras."""
    return np.concatenate(
        [np.concatenate(list(frames[camera]), axis=0) for camera in cameras], axis=1
    )
