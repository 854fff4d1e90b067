"""How this process introduces itself to others."""

import getpass
import os
import platform


def describe_process() -> str:
    """Name this process for whoever is turned away because of it: `"root@jump (pid 4711)"`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no passwd entry, as in a container with a bare uid
        user = f"uid {os.getuid()}"
    return f"{user}@{platform.node()} (pid {os.getpid()})"
