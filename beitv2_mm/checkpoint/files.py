"""Checkpoint files: .pth and .safetensors, read without running anything, written atomically."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import CheckpointLoader
from safetensors.torch import save_file
from torch import Tensor

from beitv2_mm.checkpoint.names import StateDict, check_plain, shown
from beitv2_mm.files import atomic
from beitv2_mm.safe_load import CheckpointError

Source = str | PathLike | Mapping
WRAPPERS = ('state_dict', 'model', 'module')
MAX_WRAPPERS = 8  # one in another


def read(source: Source) -> StateDict:
    """Tensors of a file (.pth, .pt, .safetensors), URL or mapping, wrappers taken off.

    Files are read by mmengine's loader as `beitv2_mm.compat` hardens it: nothing in them is run.

    Raises:
        CheckpointError: the file is missing or damaged, holds code, or holds no tensors.
    """
    if isinstance(source, Mapping):
        checkpoint, name = source, 'the given mapping'
    else:
        name = str(source)
        checkpoint = CheckpointLoader.load_checkpoint(name, map_location='cpu')
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(
            f'{name} holds a {type(checkpoint).__name__}; expected a dict of tensors.'
        )
    for _ in range(MAX_WRAPPERS):  # a mapping may hold itself
        inner = next(
            (checkpoint[key] for key in WRAPPERS if isinstance(checkpoint.get(key), Mapping)), None
        )
        if inner is None:
            break
        checkpoint = inner
    tensors = {
        key: value
        for key, value in checkpoint.items()
        if isinstance(key, str) and isinstance(value, Tensor)
    }
    if not tensors:
        raise CheckpointError(
            f'{name} holds no tensors, only [{shown(checkpoint, 10)}]. Expected weights '
            f'at the top or under one of {WRAPPERS}.'
        )
    try:
        check_plain(tensors)
    except CheckpointError as error:
        raise CheckpointError(f'{name}: {error}') from None
    return tensors


def dataset_meta(source: str | PathLike) -> dict[str, Any]:
    """What mmengine notes about the data in a checkpoint, empty where there is nothing.

    Keys are 'classes', a list of str, 'palette', a list of (R, G, B), and how images were read,
    'white', a number, and 'channels', an int; others are left out.

    Raises:
        CheckpointError: see `read`.
    """
    if str(source).endswith('.safetensors'):
        return {}
    checkpoint: Any = CheckpointLoader.load_checkpoint(str(source), map_location='meta')
    for key in ('meta', 'dataset_meta'):
        checkpoint = checkpoint.get(key) if isinstance(checkpoint, Mapping) else None
    found = checkpoint if isinstance(checkpoint, Mapping) else {}
    classes, palette = _sequence(found.get('classes')), _sequence(found.get('palette'))
    meta: dict[str, Any] = {}
    if classes and all(isinstance(name, str) for name in classes):
        meta['classes'] = classes
    if palette and all(_is_color(color) for color in palette):
        meta['palette'] = palette
    white, channels = found.get('white'), found.get('channels')
    if isinstance(white, int | float) and white > 0:
        meta['white'] = white
    if isinstance(channels, int) and channels > 0:
        meta['channels'] = channels
    return meta


def _sequence(value: object) -> list:
    return list(value) if isinstance(value, list | tuple) else []


def _is_color(value: object) -> bool:
    channels = _sequence(value)
    return len(channels) == 3 and all(isinstance(c, int) and 0 <= c < 256 for c in channels)


def write(state_dict: StateDict, path: str | PathLike, wrapper: str | None = None) -> None:
    """Writes .safetensors, or a .pth with the tensors under ``wrapper``.

    The file appears at once and whole: an interruption leaves what was there before.

    Raises:
        CheckpointError: the folder does not exist or cannot be written.
    """
    try:
        with atomic(path) as temporary:
            if Path(path).suffix == '.safetensors':  # takes no tensors that share memory
                copies = {name: value.clone().contiguous() for name, value in state_dict.items()}
                save_file(copies, temporary, metadata={'format': 'pt'})
            else:
                torch.save(state_dict if wrapper is None else {wrapper: state_dict}, temporary)
    except OSError as error:
        raise CheckpointError(f'{path} cannot be written: {error.strerror or error}') from error
