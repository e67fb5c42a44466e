"""Loads checkpoint files without running code in them; every error is one line."""

import functools
import os
import pickle
import re
import tarfile
import zipfile
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from mmengine.logging import print_log
from safetensors.torch import load_file


class CheckpointError(ValueError):
    """A checkpoint cannot be read, is refused, or belongs to another model; one line."""


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Replaces mmengine's function of this name for paths; also reads .safetensors files."""
    filename = os.path.expanduser(filename)
    if filename.endswith('.safetensors'):
        return load_file(filename, device=str(map_location or 'cpu'))
    _check_format(filename)
    return torch.load(filename, map_location=map_location, weights_only=True)


def _check_format(filename: str) -> None:
    """Refuses damaged archives, and compressed records, which may fill the memory. Also refuses
    TorchScript and tar files before PyTorch 1.0, whose errors advise switching the check off."""
    with open(filename, 'rb') as file:
        is_zip = file.read(4) == b'PK\3\4'  # as PyTorch distinguishes them
    if is_zip:
        try:
            with zipfile.ZipFile(filename) as archive:
                members = archive.infolist()
        except zipfile.BadZipFile as error:
            raise CheckpointError(
                f'{filename} cannot be read, it is truncated or damaged ({error}): copy or '
                'download it again'
            ) from error
        if any(member.filename.endswith('constants.pkl') for member in members):
            raise CheckpointError(f'{filename} holds TorchScript code, refused: save a state dict')
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise CheckpointError(f'{filename} is compressed, refused: torch.save never does that')
    elif tarfile.is_tarfile(filename):
        raise CheckpointError(
            f'{filename} is a tar file of PyTorch before 1.0, refused: save it again'
        )


def weights_only_torch() -> ModuleType:
    """A copy of the module torch whose ``load`` runs no code, for mmengine's other loaders."""
    module = ModuleType('torch')
    module.__dict__.update(torch.__dict__)
    module.__dict__['load'] = functools.partial(torch.load, weights_only=True)
    module.__dict__['__getattr__'] = lambda name: getattr(torch, name)
    return module


def naming_the_file(load: Callable[..., Any]) -> Callable[..., Any]:
    """mmengine's ``load_checkpoint``, whose errors become CheckpointErrors that name the file."""

    @functools.wraps(load)
    def load_checkpoint(filename: str, *args: Any, **kwargs: Any) -> Any:
        try:
            checkpoint = load(filename, *args, **kwargs)
        except CheckpointError:
            raise
        except FileNotFoundError:
            raise CheckpointError(
                f'There is no checkpoint {filename}: give the path of a file, or a URL'
            ) from None
        except pickle.UnpicklingError as error:
            # The rest of PyTorch's message says how to switch the check off.
            found = re.search(r'GLOBAL ([\w.]+)|(a checkpoint may ask .*)', str(error))
            if found is None:
                raise CheckpointError(f'{filename} is not a checkpoint') from None
            raise CheckpointError(
                f'{filename} holds code beside its weights, refused: {found[1] or found[2]}'
            ) from None
        except Exception as error:  # unpicklers may raise anything
            reason = str(error).strip().split('\n')[0] or 'it is empty'
            if isinstance(error, LookupError | TypeError | AttributeError | AssertionError):
                reason = f'it is damaged ({type(error).__name__}: {reason})'
            raise CheckpointError(f'{filename} cannot be read: {reason}') from error
        _drop_config(checkpoint, filename)
        return checkpoint

    return load_checkpoint


def _drop_config(checkpoint: Any, filename: str) -> None:
    """Removes the text ``meta.config`` of old files, which mmengine would run to resume."""
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    if isinstance(meta, dict) and meta.pop('config', None) is not None:
        print_log(f'{filename}: its config, which is code, is left out', 'current')
