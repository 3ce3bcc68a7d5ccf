"""Files written whole or not at all; files of users and JSON files opened with clear errors."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from omni_rt.errors import InputError, ModelFormatError

MAX_JSON_BYTES = 256 << 20  # the largest real one, a tokenizer.json, is about 12 MB


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends well.

    The file is flushed to the disk before it is renamed, so a reader sees the old file or the whole new one. When the
    block raises, Ctrl-C included, the temporary file is removed and `path` stays as it was. Until then other processes
    see that it `is_held`. Raises InputError for an OSError, such as a full disk.
    """
    target, temporary = Path(path), None
    try:
        prefix, suffix = f".{target.stem}-{os.getpid()}-", target.suffix
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=suffix, dir=target.parent)
        temporary = Path(name)
        with _held(handle):
            yield temporary
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
            temporary.chmod(_permissions(target))
            os.replace(temporary, target)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        hint = "make room" if error.errno == errno.ENOSPC else "check that its directory is there and can be written"
        raise InputError(f"{target}: cannot be written ({error.strerror or error}); {hint}") from error
    _flush_directory(target.parent)


def unfinished(target: Path) -> Iterator[Path]:
    """Yield what `atomic_write` in this process has not finished of `target`, or of files in it."""
    if target.is_dir():
        return target.glob(f".*-{os.getpid()}-*")
    return target.parent.glob(f".{glob.escape(target.stem)}-{os.getpid()}-*{glob.escape(target.suffix)}")


@contextlib.contextmanager
def _held(handle: int) -> Iterator[None]:
    """Mark an open file as in use for a block, for `is_held` of others, and close it behind that.

    Where no file can be held it is closed before: there, an open one could not be renamed.
    """
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        os.close(handle)
        yield
        return
    try:
        yield
    finally:
        os.close(handle)


def is_held(path: Path) -> bool:
    """Say whether somebody holds a file. Where no file can be held, an open one cannot be removed by others."""
    try:
        import fcntl

        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except ImportError:
        return False
    except OSError:
        return True
    return False


def open_input(path: str | os.PathLike[str], what: str) -> BinaryIO:
    """Open the `what` file that a user named, for reading; raise InputError unless it is a regular one with content."""
    where, article = Path(path), "an" if what[0] in "aeiou" else "a"
    if "\0" in str(where):
        raise InputError(f"{str(where)!r}: cannot be read (a path holds no NUL); check the path")
    try:
        if where.is_dir():
            raise InputError(f"{where}: is a directory; give {article} {what} file")
        if not where.exists():
            raise InputError(f"{where}: does not exist; check the path")
        if not where.is_file():
            raise InputError(f"{where}: is not a regular file; save the {what} to a file first")
        if where.stat().st_size == 0:
            raise InputError(f"{where}: is empty (0 bytes); give {article} {what} file with content")
        return open(where, "rb")
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror or error}); check its permissions") from error


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the JSON object in `path`; raise ModelFormatError when it is not one."""
    where = Path(path)
    try:
        size = where.stat().st_size
        if size > MAX_JSON_BYTES:
            raise ModelFormatError(
                f"{where}: {size} bytes of JSON, at most {MAX_JSON_BYTES} are read; is it the right file?"
            )
        data = json.loads(where.read_bytes())
    except OSError as error:
        raise ModelFormatError(
            f"{where}: cannot be read ({error.strerror or error}); check the path and permissions"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"{where}: is not JSON ({error}); download the file again") from error
    if not isinstance(data, dict):
        raise ModelFormatError(f"{where}: holds a JSON {type(data).__name__}, expected an object")
    return data


def _permissions(target: Path) -> int:
    """Return the mode that a plain open() would have given: the old file's, or 0o666 less the umask."""
    try:
        return target.stat().st_mode & 0o777
    except OSError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask


def _flush_directory(directory: Path) -> None:
    """Flush the rename itself, where the platform lets a directory be opened."""
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
