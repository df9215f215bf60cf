"""Memory for messages that are as large as pictures."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_LARGEST_BLOCK, _KEPT_FREE = 32 << 20, 128 << 20  # bytes; malloc takes no larger first one


def keep_large_blocks() -> bool:
    """Let freed memory of picture size be used again instead of going back to the system.

    Reading one picture of 640x480 allocates its 0.9 MB three times. By default glibc asks the
    system for each and gives it back, and the system clears every page again: 1.2 ms a picture,
    fifteen times what reading it takes without. The price is that up to 128 MiB of freed memory
    stay with the process.

    Returns:
        Whether the C library has taken it; another one than glibc keeps its own way.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    # Both, for naming one switches off that glibc adapts the other.
    return bool(
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK) and mallopt(_M_TRIM_THRESHOLD, _KEPT_FREE)
    )
