"""Names in a file system: held by one process at a time, and given to another folder in one step."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

from flatcoat.errors import Misuse

AT_FDCWD, EXCHANGE = -100, 2  # of Linux's renameat2


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    mine = os.fstat(descriptor)
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


def held(path: Path, open_it: Callable[[], int], *, wait: bool) -> int:
    """A descriptor of `path`, locked; where another process has it, wait, or raise Misuse."""
    import fcntl

    for turn in range(1000):
        try:
            descriptor = open_it()
        except FileNotFoundError:  # it took its name between making and opening
            if turn < 999:
                continue
            raise
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            os.close(descriptor)
            said = path.parent / path.name.removeprefix(".").removesuffix(".partial")
            raise Misuse(f"{said}: another process is writing it; wait for it or choose another --out") from error
        except OSError:  # a file system without locks
            return descriptor
        if _is_at(descriptor, path):
            return descriptor
        os.close(descriptor)
    raise Misuse(f"{path}: taken away again and again; is another process at work here?")


def made(path: Path) -> int:
    """Make a folder where there is none, and open it."""
    path.mkdir(exist_ok=True)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def install_folder(partial: Path, path: Path) -> None:
    """Give a finished folder the name `path`; what was there is replaced in one step, so that no moment is without a folder.

    Where a file system cannot exchange two names, the old folder is moved aside first; killed in between, `restore` undoes it.
    """
    if not path.exists():
        partial.rename(path)
        return
    lock = held(path, lambda: os.open(path, os.O_RDONLY), wait=True)  # who finds it as `partial` sees it in use
    try:
        gone = partial
        if not _exchanged(partial, path):
            gone = path.with_name(f".{path.name}.old")
            shutil.rmtree(gone, ignore_errors=True)
            path.rename(gone)
            partial.rename(path)
        shutil.rmtree(gone, ignore_errors=True)
    finally:
        os.close(lock)


def _exchanged(one: Path, other: Path) -> bool:
    """Swap two names in one step (Linux); whether that can be done here."""
    with contextlib.suppress(OSError, AttributeError):
        rename = ctypes.CDLL(None).renameat2
        return rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), EXCHANGE) == 0
    return False


def restore(path: Path) -> None:
    """Bring back a folder that was moved aside by a process that did not live to put the new one in its place."""
    old = path.with_name(f".{path.name}.old")
    if path.exists() or not old.is_dir():
        return
    with contextlib.suppress(FileNotFoundError):
        lock = os.open(old, os.O_RDONLY)
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)  # whoever is at it finishes first
            if not path.exists() and _is_at(lock, old):
                old.rename(path)
        finally:
            os.close(lock)


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with what is in it."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def as_open(folder: Path) -> None:
    """Open files to whoever their folder is open to: safetensors writes them for their owner alone."""
    who = folder.stat().st_mode & 0o666
    for file in folder.rglob("*"):
        mode = file.lstat().st_mode
        if stat.S_ISREG(mode) and mode | who != mode:
            file.chmod(mode | who)
