"""Files that are whole or not there."""

import os
from pathlib import Path

from walras.calibrate.errors import CalibrationError


def write_whole(path: Path, content: str | bytes):
    """Write a file beside its name and put it there when it is complete, so that a killed process leaves no half of it.

    Raises `CalibrationError` when it cannot be written; what was there before is then still there.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CalibrationError(f"{path} cannot be written ({error.strerror or error}): make room, or choose another") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
