"""The newest intact checkpoint of a work directory, from which a run resumes."""

import logging
import zipfile
import zlib
from pathlib import Path

from mmengine.logging import print_log

from beitv2_mm.checkpoint import CheckpointError

_KINDS = ('epoch', 'iter')


def intact(path: Path) -> bool:
    """Whether a checkpoint, which is a file or a folder of files, can be read to its end.

    PyTorch's files are ZIP archives; the checksum of each tensor is verified.
    """
    files = [path] if path.is_file() else [*path.rglob('*.pt'), *path.rglob('*.pth')]
    return bool(files) and all(map(_intact_file, files))


def _intact_file(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError):
        return False


def latest_checkpoint(work_dir: Path, out_dir: Path | None = None) -> Path | None:
    """The checkpoint that ``last_checkpoint`` names or, if it is damaged, the newest intact one.

    Damaged checkpoints are warned about, but not deleted.

    Args:
        out_dir: the folder of the checkpoint hook, if it is not the work directory.

    Returns:
        None if there is no checkpoint yet.

    Raises:
        CheckpointError: there are checkpoints, or one was named, but none is intact.
    """
    pointer = work_dir / 'last_checkpoint'
    named = Path(pointer.read_text().strip()) if pointer.is_file() else None
    if named == Path():  # the run was killed while it wrote the file
        _warn(f'{pointer} is empty, so it counts as absent')
        named = None
    folders = {work_dir.resolve(): work_dir}
    for folder in (out_dir, named and named.parent):
        if folder is not None:
            folders.setdefault(folder.resolve(), folder)
    found = [p for f in folders.values() for kind in _KINDS for p in f.glob(f'{kind}_*.pth')]
    candidates = sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)
    if named is not None:
        moved = work_dir / named.name  # the path is absolute, so wrong if the folder was moved
        candidates.insert(0, named if named.exists() else moved)
    for path in dict.fromkeys(candidates):
        if not path.exists():
            _warn(f'{pointer} names {named}, which does not exist; an earlier one is looked for')
        elif intact(path):
            return path
        else:
            _warn(f'The checkpoint {path} is damaged (truncated?); an earlier one is looked for')
    if not candidates:
        return None
    if named is not None and not found:
        raise CheckpointError(
            f'{pointer} names {named}, which does not exist: '
            f'give --resume a checkpoint, or delete {pointer} to start from the beginning'
        )
    raise CheckpointError(
        f'None of the {len(found)} checkpoints in {" and ".join(map(str, folders.values()))} is '
        f'intact: give --resume another one, or delete them and {pointer} to start from the '
        'beginning'
    )


def _warn(message: str) -> None:
    print_log(message, 'current', logging.WARNING)
