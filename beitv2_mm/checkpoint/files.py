"""Checkpoint files: .pth and .safetensors, read without running anything, written atomically."""

import os
import tempfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import torch
from mmengine.runner import CheckpointLoader
from safetensors.torch import save_file
from torch import Tensor

from beitv2_mm.checkpoint.names import StateDict
from beitv2_mm.compat import CheckpointError

Source = str | PathLike | Mapping
WRAPPERS = ('state_dict', 'model', 'module')


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
    while True:
        inner = next(
            (checkpoint[key] for key in WRAPPERS if isinstance(checkpoint.get(key), Mapping)), None
        )
        if inner is None:
            break
        checkpoint = inner
    tensors = {key: value for key, value in checkpoint.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(
            f'{name} holds no tensors, only {sorted(map(str, checkpoint))[:10]}. Expected weights '
            f'at the top or under one of {WRAPPERS}.'
        )
    return tensors


def write(state_dict: StateDict, path: str | PathLike, wrapper: str | None = None) -> None:
    """Writes .safetensors, or a .pth with the tensors under ``wrapper``.

    The file appears at once and whole: an interruption leaves what was there before.

    Raises:
        CheckpointError: the folder does not exist or cannot be written.
    """
    path = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    except OSError as error:
        raise CheckpointError(f'{path} cannot be written: {error.strerror}') from error
    os.close(handle)
    try:
        if path.suffix == '.safetensors':  # takes no tensors that share memory
            copies = {name: value.clone().contiguous() for name, value in state_dict.items()}
            save_file(copies, temporary, metadata={'format': 'pt'})
        else:
            torch.save(state_dict if wrapper is None else {wrapper: state_dict}, temporary)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp's files are private
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
