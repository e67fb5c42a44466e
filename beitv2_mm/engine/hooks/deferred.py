"""A file backend of mmengine that collects files for a thread to write."""

from pathlib import Path
from typing import ClassVar

from mmengine.fileio import FileClient, HardDiskBackend, LocalBackend, register_backend

PREFIX = 'deferred://'


@register_backend('deferred', prefixes='deferred')
class DeferredBackend(LocalBackend):
    """Keeps the bytes of files in `pending`, from which a thread takes and writes them."""

    pending: ClassVar[dict[Path, bytes]] = {}

    def put(self, obj: bytes, filepath: str | Path) -> None:
        self.pending[Path(str(filepath).removeprefix(PREFIX))] = obj


# mmengine's save_checkpoint also looks the prefix up in its deprecated list of backends
FileClient.register_backend('deferred', HardDiskBackend, prefixes='deferred')
