"""What stops a run, with its exit code.

A failed probe is data (`model.observation.Failure`), and never one of these.
"""


class PreflightError(Exception):
    """We could not work. The message is one clear sentence for the user."""

    exit_code = 2


class ConfigError(PreflightError):
    """A file of the user's is wrong; `path` says where, as in `nodes.m1.address`."""

    def __init__(self, message: str, *, file: str = "", path: str = "") -> None:
        place = ": ".join(part for part in (file, path) if part)
        super().__init__(f"{place}: {message}" if place else message)
        self.file = file
        self.path = path


class KeyFileError(PreflightError):
    """A key file is missing, unreadable, or not the one of the two that is needed here."""


class WireError(PreflightError):
    """The other end of a control connection does not speak our conversation."""


class LimitError(PreflightError):
    """A limit of this machine (file descriptors) is below what the plan needs."""
