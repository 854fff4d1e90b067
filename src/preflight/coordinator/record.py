"""The run file as it grows: every line is on its way to the disk when `write` returns."""

import fcntl
import stat
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from preflight.errors import PreflightError
from preflight.wire.runfile import LONGEST_OPENING, Line, encode_line, is_run_file


class RunRecord:
    """Writes a run file, or nothing at all where `path` is None.

    Opening raises `PreflightError`. A disk that fails later costs the file, not the run:
    `problem` then says what happened.
    """

    def __init__(self, path: Path | None) -> None:
        self.problem = ""
        self._path = path
        self._file: BinaryIO | None = None
        if path is not None:
            self._file = _open_for_one(path)

    def write(self, line: Line) -> None:
        """Append one line."""
        if self._file is None:
            return
        try:
            rest = memoryview(encode_line(line))
            while rest:  # unbuffered: a disk that is nearly full takes a part
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self.problem = f"the run file {self._path} is incomplete: {error.strerror}"
            self.close()

    def close(self) -> None:
        """Close the file. May be called again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _open_for_one(path: Path) -> BinaryIO:
    """Open and empty the file, unless another run is writing it (flock(2)).

    Only a run file is ever emptied: a slip of the hand must not cost a key.
    """
    file: BinaryIO | None = None
    try:
        # Unbuffered: a killed run leaves every line that was written.
        file = path.open("ab", buffering=0)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if stat.S_ISREG(path.stat().st_mode):
            _expect_run_file(path)
            file.truncate(0)
    except BlockingIOError:
        _close(file)
        raise PreflightError(f"another run is writing the run file {path}") from None
    except OSError as error:
        _close(file)
        raise PreflightError(f"the run file {path} can't be written: {error.strerror}") from error
    except PreflightError:
        _close(file)
        raise
    return file


def _expect_run_file(path: Path) -> None:
    with path.open("rb") as existing:
        if not is_run_file(existing.read(LONGEST_OPENING)):
            raise PreflightError(f"{path} is there and is no run file: it is not overwritten")


def _close(file: BinaryIO | None) -> None:
    if file is not None:
        file.close()
