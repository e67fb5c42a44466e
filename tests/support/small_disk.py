"""A disk so small that it can be filled, where this process may mount one."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small_disk(folder: Path, megabytes: int = 16) -> Iterator[bool]:
    """Mounts a tmpfs at the new ``folder`` and tells whether that was permitted.

    At the end what it holds lies in the folder itself.
    """
    folder.mkdir(parents=True)
    command = ['mount', '-t', 'tmpfs', '-o', f'size={megabytes}m', 'tmpfs', str(folder)]
    mounted = (
        bool(shutil.which('mount'))
        and not subprocess.run(command, capture_output=True, check=False).returncode
    )
    try:
        yield mounted
    finally:
        if mounted:
            copy = shutil.copytree(folder, folder.with_suffix('.copy'))
            subprocess.run(['umount', '--lazy', str(folder)], check=True)
            folder.rmdir()
            copy.rename(folder)


def fill(disk: Path) -> Path:
    """The file that takes the last byte."""
    ballast = disk / 'ballast'
    with ballast.open('wb', buffering=0) as file:
        for size in (2**16, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:  # no space left
                pass
    return ballast
