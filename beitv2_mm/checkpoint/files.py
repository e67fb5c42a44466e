"""Reads checkpoint files (.pth, .safetensors) without running code, and writes them atomically."""

from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.runner import CheckpointLoader
from safetensors.torch import save_file
from torch import Tensor

from beitv2_mm.checkpoint.atomic import atomic
from beitv2_mm.checkpoint.names import StateDict, check_plain, shown
from beitv2_mm.compat.safe_load import CheckpointError

Source = str | PathLike[str] | Mapping[str, Any]
WRAPPERS = ('state_dict', 'model', 'module')
EMA_WRAPPERS = ('model_ema', 'state_dict_ema', 'ema_state_dict')
MAX_WRAPPERS = 8  # depth of nested mappings
MAX_TENSORS = 100_000


class Content(NamedTuple):
    """Tensors of a file, a note on moving averages (EMA), and whether the tensors are one."""

    tensors: StateDict
    note: str = ''
    is_average: bool = False


def read(source: Source, ema: bool = False) -> StateDict:
    """Tensors of a file (.pth, .pt, .ckpt, .safetensors), URL or mapping, without wrappers.

    The file is read by mmengine's loader, which `beitv2_mm.compat` keeps from running its code.

    Args:
        ema: take the moving average if the file has one beside the ordinary weights.

    Raises:
        CheckpointError: the file is missing or damaged, holds code, or holds no tensors.
    """
    return open_checkpoint(source, ema).tensors


def open_checkpoint(source: Source, ema: bool = False) -> Content:
    """Reads a checkpoint as `read` does, and notes whether it has moving averages."""
    if isinstance(source, Mapping):
        checkpoint, name = source, 'the given mapping'
    else:
        name = str(source)
        checkpoint = CheckpointLoader.load_checkpoint(name, map_location='cpu')
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(
            f'{name} holds a {type(checkpoint).__name__}; expected a dict of tensors.'
        )
    chosen, note, is_average = _choose_weights(checkpoint, ema)
    tensors = dict(_tensors(chosen))
    if not tensors:
        raise CheckpointError(
            f'{name} holds no tensors, only [{shown(chosen, 10)}]. Expected weights '
            f'at the top level or under one of {WRAPPERS}.'
        )
    try:
        check_plain(tensors)
    except CheckpointError as error:
        raise CheckpointError(f'{name}: {error}') from None
    return Content(tensors, note, is_average)


def _choose_weights(
    checkpoint: Mapping[str, Any], ema: bool
) -> tuple[Mapping[str, Any], str, bool]:
    """The mapping that holds the weights, a note, and whether they are a moving average."""
    note, is_average = '', False
    for _ in range(MAX_WRAPPERS):  # a mapping may contain itself
        averages, ordinary = (
            [key for key in keys if isinstance(checkpoint.get(key), Mapping)]
            for keys in (EMA_WRAPPERS, WRAPPERS)
        )
        # mmengine swaps the two when it saves: state_dict holds the average.
        exchanged = 'ema_state_dict' in averages and 'mmengine_version' in _meta(checkpoint)
        if exchanged and ordinary:
            key, is_average = ordinary[0], True
            note = f"moving average (EMA) taken: mmengine stores it as '{key}'"
        elif averages and (ema or not ordinary):
            key, is_average = averages[0], True
            note = f"moving average (EMA) taken, from '{key}'"
        elif ordinary:
            key = ordinary[0]
            if averages:
                note = f"a moving average (EMA) is in the file too, as '{averages[0]}': ema=True"
        else:
            break
        checkpoint = checkpoint[key]
    return checkpoint, note, is_average


def _meta(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    meta = checkpoint.get('meta')
    return meta if isinstance(meta, Mapping) else {}


def _tensors(checkpoint: Mapping[Any, Any]) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors; the key of an inner mapping, such as 'teacher', becomes a prefix."""
    waiting: list[tuple[str, Mapping[Any, Any], int]] = [('', checkpoint, 0)]
    count = 0
    while waiting:
        prefix, mapping, depth = waiting.pop(0)
        for key, value in mapping.items():
            count += 1
            if count > MAX_TENSORS:
                raise CheckpointError(f'The checkpoint has more than {MAX_TENSORS} entries.')
            if not isinstance(key, str):
                continue
            if isinstance(value, Tensor):
                yield prefix + key, value
            elif isinstance(value, Mapping) and depth < MAX_WRAPPERS:
                waiting.append((f'{prefix}{key}.', value, depth + 1))


def dataset_meta(source: str | PathLike[str]) -> dict[str, Any]:
    """The metainfo of the data set that mmengine stores in a checkpoint, or an empty dict.

    Its keys are 'classes', a list of str, 'palette', a list of (R, G, B), and the settings with
    which images were read: 'white', a number, and 'channels', an int. Other keys are left out.

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


def _sequence(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _is_color(value: object) -> bool:
    channels = _sequence(value)
    return len(channels) == 3 and all(isinstance(c, int) and 0 <= c < 256 for c in channels)


def write(state_dict: StateDict, path: str | PathLike[str], wrapper: str | None = None) -> None:
    """Writes .safetensors, or a .pth with the tensors under ``wrapper``.

    After an interruption, the file is the one that was there before.

    Raises:
        CheckpointError: the folder does not exist or cannot be written.
    """
    try:
        with atomic(path) as temporary:
            if Path(path).suffix == '.safetensors':  # refuses tensors that share memory
                copies = {name: value.clone().contiguous() for name, value in state_dict.items()}
                save_file(copies, temporary, metadata={'format': 'pt'})
            else:
                torch.save(state_dict if wrapper is None else {wrapper: state_dict}, temporary)
    except OSError as error:
        raise CheckpointError(f'{path} cannot be written: {error.strerror or error}') from error
