"""The limit on open files: every listener, connection and probe is one.

Source: getrlimit(2), RLIMIT_NOFILE.
"""

import os
import resource
from pathlib import Path

UNLIMITED = 1 << 30
"""What stands for RLIM_INFINITY: above every number of files that a plan can need."""


def raise_descriptor_limit() -> int:
    """Raise this process's soft limit of open files to the hard one, and return that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return UNLIMITED if hard == resource.RLIM_INFINITY else hard


def descriptor_limit() -> int:
    """The hard limit of open files of this process, as it is."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return UNLIMITED if hard == resource.RLIM_INFINITY else hard


def open_descriptors() -> int:
    """How many files this process has open now (a lower bound where it may not look)."""
    try:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())
    except PermissionError:  # a program with file capabilities may not look at itself: proc(5)
        with Path(os.devnull).open("rb") as lowest_free:
            return lowest_free.fileno()
