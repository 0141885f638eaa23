"""How much memory the worker has held."""

import os

try:
    from resource import RUSAGE_SELF, getrusage
except ImportError:  # built without it
    getrusage = None

PEAK = 6  # the slot's word of what bpp-flow saw from outside, in KiB


class Memory:
    """The most memory since it was last asked for."""

    def __init__(self, slots):
        self.slots = slots

    def peak(self):
        """In KiB; 0 where nobody knows. Processes that an item started are seen from outside only."""
        seen = self.slots[PEAK]
        self.slots[PEAK] = 0
        if getrusage is not None:
            seen = max(seen, getrusage(RUSAGE_SELF).ru_maxrss)
            forget()
        return min(seen, 0xFFFFFFFF)


def forget():
    """Has the kernel begin anew with its high-water mark."""
    try:
        # Opened each time: an item may have closed whatever it found.
        fd = os.open("/proc/self/clear_refs", os.O_WRONLY)
        try:
            os.write(fd, b"5")
        finally:
            os.close(fd)
    except OSError:
        pass
