"""How training on a CPU gets its memory."""

import ctypes
import sys


# Of <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Lets this process keep the memory of freed tensors for the next ones, instead of giving it back each time.

    By default glibc maps a tensor of more than 32 MB anew each time, and the kernel clears it page by page, which can
    take longer than what training itself does with it. The price: memory that was used once stays with the process.

    Returns:
        `bool`: Whether it is so now; `False` without glibc, where nothing changes.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return mallopt(_M_MMAP_MAX, 0) == 1 and mallopt(_M_TRIM_THRESHOLD, -1) == 1
