"""Files that are whole or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from walras.calibrate.errors import CalibrationError


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to, which takes its name when all is written: a killed process leaves no half of it.

    It is made at once, so that a wrong path costs no time. Raises `CalibrationError` when it cannot be written; what was
    there before is then still there.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise CalibrationError(f"{path} cannot be written ({reason}): make room, or choose another folder") from error
    finally:
        with suppress(OSError):  # it is gone where all went well, and never was in what is no folder
            temporary.unlink()


def write_whole(path: Path, content: str | bytes):
    """Write a file that is whole or not there; raises as `whole`."""
    with whole(path) as file:
        file.write_bytes(content.encode() if isinstance(content, str) else content)
