"""Downloads checkpoints to PyTorch's cache, with a timeout and a check of their hash."""

import hashlib
import logging
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urldefrag, urlparse

import torch
from mmengine.logging import print_log
from safetensors import SafetensorError

TIMEOUT = 60  # seconds without a byte


@contextmanager
def timeouts() -> Iterator[None]:
    """Limits connections that are opened inside to `TIMEOUT`; by default they wait for ever.

    The limit holds for all threads of the process.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def load_url(
    url: str,
    model_dir: str | None = None,
    map_location: Any = None,
    progress: bool = True,
    *,
    load: Callable[[str, Any], Any],
) -> Any:
    """Downloads the file at ``url`` once and returns ``load(file, map_location)``.

    The expected SHA-256 is given as ``url#sha256=...``, or its beginning is part of the file name,
    as in name-d5036aa7.pth. Without either, a warning gives the hash of the downloaded file.

    Raises:
        RuntimeError: there is no network or no such file, the hash differs, or the copy in the
            cache cannot be read; the message says what to do.
    """
    address, fragment = urldefrag(url)
    name = os.path.basename(urlparse(address).path)
    if name in ('', '.', '..'):
        raise RuntimeError('the address names no file')
    pinned = re.fullmatch(r'sha256=([0-9a-f]{64})', fragment)
    if fragment and not pinned:
        raise RuntimeError(f'#{fragment} is not #sha256= with 64 hexadecimal digits')
    folder = os.path.expanduser(model_dir or os.path.join(torch.hub.get_dir(), 'checkpoints'))
    file = os.path.join(folder, name)
    if not os.path.exists(file):
        start = pinned or re.search(r'-([0-9a-f]{8,64})\.\w+$', name)
        try:
            os.makedirs(folder, exist_ok=True)
            with timeouts():
                torch.hub.download_url_to_file(address, file, start and start[1], progress)
        except (OSError, RuntimeError, ValueError) as error:
            raise RuntimeError(
                f'the download failed ({_reason(error)}): download it by hand and save it as {file}'
            ) from error
        if not start:
            print_log(
                f'{address} states no hash, so the file was not checked; with '
                f'{address}#sha256={_sha256(file)} it is checked from now on',
                'current',
                level=logging.WARNING,
            )
    elif pinned and _sha256(file) != pinned[1]:
        raise RuntimeError(f'its copy {file} has another hash: delete it, try again')
    try:
        return load(file, map_location)
    except (OSError, EOFError, RuntimeError, SafetensorError) as error:
        raise RuntimeError(f'its copy {file}: {_reason(error)}; delete it, try again') from error


def _sha256(file: str) -> str:
    digest = hashlib.sha256()
    with open(file, 'rb') as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    return str(error).strip().split('\n')[0] or 'it is empty'
