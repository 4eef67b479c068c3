"""Keep freed memory in the process instead of giving it back to the system after every step."""

import ctypes
import sys

__all__ = ["keep_freed_memory"]

# Parameters of glibc's mallopt.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory() -> None:
    """Ask glibc to serve large blocks from its heap and not to trim it.

    By default every large tensor is mapped afresh and faulted in page by page; on virtual machines that was
    measured to cost several times the arithmetic of a training step. Does nothing outside Linux with glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 64 << 20)
        mallopt(M_ARENA_MAX, 1)  # other arenas are of small heaps, which cannot hold large tensors
