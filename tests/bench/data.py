"""Contents to sync: noise that is the same for the same seed, and the comparison of two trees."""

import os
import random
import shutil
from pathlib import Path
from typing import Dict, List

MIB = 1 << 20
BLOCK = 4 * MIB
FILES_PER_DIRECTORY = 100
# What the programs keep for themselves inside a synced directory.
OWN_NAMES = {".meshwork", ".stfolder", ".stversions"}


def make_file(path: Path, size: int, seed: int) -> None:
    noise = random.Random(seed)
    with path.open("wb") as file:
        for begin in range(0, size, BLOCK):
            file.write(noise.randbytes(min(BLOCK, size - begin)))


def make_files(root: Path, count: int, size: int, seed: int) -> None:
    noise = random.Random(seed)
    for number in range(count):
        directory = root / f"d{number // FILES_PER_DIRECTORY:05}"
        if number % FILES_PER_DIRECTORY == 0:
            directory.mkdir(parents=True)
        (directory / f"f{number:06}").write_bytes(noise.randbytes(size))


def copy(source: Path, target: Path) -> None:
    """Copies a file or a tree, and waits until the disk has it: nobody's figures are to pay for that."""
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)
    os.sync()


def change_middle(path: Path, size: int, seed: int) -> None:
    """Overwrites `size` bytes in the middle of a file, in place."""
    with path.open("r+b") as file:
        file.seek((path.stat().st_size - size) // 2)
        file.write(random.Random(seed).randbytes(size))


def middle(path: Path, size: int) -> bytes:
    """`size` bytes from the middle of a file; none while it is not there."""
    try:
        with path.open("rb") as file:
            file.seek((os.fstat(file.fileno()).st_size - size) // 2)
            return file.read(size)
    except (OSError, ValueError):
        return b""


def count_files(root: Path) -> int:
    """How many files with a final name are below `root`; both programs receive under hidden names."""
    total = 0
    todo = [str(root)]
    while todo:
        try:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                    else:
                        total += 1
        except OSError:
            continue
    return total


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def differences(one: Path, other: Path) -> List[str]:
    """Paths that are not the same in both trees, by name, kind and content."""
    ours, theirs = _entries(one), _entries(other)
    return sorted(
        name for name in ours.keys() | theirs.keys()
        if ours.get(name) != theirs.get(name) or (ours[name] >= 0 and not _same(one / name, other / name))
    )


def _entries(root: Path) -> Dict[str, int]:
    """Size by relative path; -1 for a directory."""
    found = {}
    for directory, names, files in os.walk(root):
        names[:] = [name for name in names if name not in OWN_NAMES]
        at = Path(directory)
        found.update((str((at / name).relative_to(root)), -1) for name in names)
        found.update((str((at / name).relative_to(root)), (at / name).stat().st_size) for name in files)
    return found


def _same(one: Path, other: Path) -> bool:
    with one.open("rb") as first, other.open("rb") as second:
        while True:
            block = first.read(BLOCK)
            if block != second.read(BLOCK):
                return False
            if not block:
                return True
