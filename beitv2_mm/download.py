"""Checkpoints from URLs: downloaded once into torch's cache, hash checked."""

import os
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlparse

import torch
from safetensors import SafetensorError


def load_url(
    url: str,
    model_dir: str | None = None,
    map_location: Any = None,
    progress: bool = True,
    *,
    load: Callable[[str, Any], Any],
) -> Any:
    """What ``load(file, map_location)`` makes of the file at ``url``, whatever its suffix.

    Raises:
        RuntimeError: no network, no such file, or another hash than its name says; the message
            tells what to do by hand. Or the copy in the cache cannot be read.
    """
    folder = os.path.expanduser(model_dir or os.path.join(torch.hub.get_dir(), 'checkpoints'))
    file = os.path.join(folder, os.path.basename(urlparse(url).path))
    if not os.path.exists(file):
        # Published weights end with the start of their SHA-256: name-d5036aa7.pth
        start = re.search(r'-([0-9a-f]{8,64})\.\w+$', file)
        try:
            os.makedirs(folder, exist_ok=True)
            torch.hub.download_url_to_file(url, file, start[1] if start else None, progress)
        except (OSError, RuntimeError) as error:
            raise RuntimeError(
                f'the download failed ({_reason(error)}): fetch it by hand and put it at {file}'
            ) from error
    try:
        return load(file, map_location)
    except (OSError, EOFError, RuntimeError, SafetensorError) as error:
        raise RuntimeError(f'its copy {file}: {_reason(error)}; delete it, try again') from error


def _reason(error: Exception) -> str:
    return str(error).strip().split('\n')[0] or 'it is empty'
