"""Fixes for mmengine with today's PyTorch, setuptools and DeepSpeed."""

import argparse
import contextlib
import functools
import io
import logging
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import PathFinder
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NoReturn

import numpy as np
import torch
from mmengine.config import config
from mmengine.device import get_device
from mmengine.dist import utils as dist_utils
from mmengine.logging import HistoryBuffer, print_log
from mmengine.model import MMDistributedDataParallel
from mmengine.runner import checkpoint, runner

from beitv2_mm.compat.after_import import StandIn, stands_in
from beitv2_mm.compat.download import load_url
from beitv2_mm.compat.safe_load import load_from_local, naming_the_file, weights_only_torch

_STATISTICS = ('mean', 'min', 'max', 'current')


def has_accelerator() -> bool:
    """Whether mmengine's device supports mixed precision and several processes.

    CUDA, NPU, MLU and MUSA devices do; mmengine supports neither on Apple's MPS and on DIPU.
    """
    return get_device() not in ('cpu', 'mps', 'dipu')


def _history_buffer_method(owner: Any, name: str) -> Any:
    """Replaces ``builtins.getattr`` in checkpoints: a statistic of HistoryBuffer, or an error."""
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise pickle.UnpicklingError(
            f'a checkpoint may ask for {", ".join(_STATISTICS)} of HistoryBuffer, '
            f'this one asks for {name!r} of {owner!r}: refused'
        )
    return getattr(HistoryBuffer, name)


def _loads(checkpoint: object) -> bool:
    file = io.BytesIO()
    torch.save(checkpoint, file)
    file.seek(0)
    try:
        torch.load(file, weights_only=True)
    except pickle.UnpicklingError:
        return False
    return True


def resume_weights_only() -> bool:
    """Let ``weights_only=True`` load the checkpoints that mmengine writes.

    Why: mmengine saves HistoryBuffer objects (its log), but torch loads only tensors and plain
    containers, so no run can be resumed. The classes in such a file are allow-listed, including
    NumPy's numbers. The file also calls ``builtins.getattr``, which would give access to every
    attribute of every object, so it is replaced by a function that knows only the four statistics
    of HistoryBuffer.
    Until: an mmengine (> 0.10.7) that lists these classes, or saves plain lists.
    """
    if _loads([HistoryBuffer([0.5], [1]), np.float64(0.5), np.arange(1)]):
        return False
    allowed: list[Any] = [HistoryBuffer, np.ndarray, np.dtype]
    allowed += {type(np.dtype(code)) for code in '?bhilqBHILQefdg'}
    for core in ('numpy.core', 'numpy._core'):  # NumPy 1 and 2 name the same functions differently
        allowed.append((np.empty(0).__reduce__()[0], f'{core}.multiarray._reconstruct'))
        allowed.append((np.float64(0).__reduce__()[0], f'{core}.multiarray.scalar'))
    allowed.append((_history_buffer_method, 'builtins.getattr'))
    torch.serialization.add_safe_globals(allowed)
    return True


def refuse_code() -> bool:
    """Load all checkpoints with ``weights_only=True``, and name a file that is refused.

    Why: mmengine switches the check off for URLs, and when it resumes, it runs the text
    ``meta.config`` of the checkpoint. PyTorch's error for a local file does not name the file, and
    recommends switching the check off.
    Until: an mmengine (> 0.10.7) that says ``weights_only=True`` in all its loaders, and reads no
    config from a checkpoint.
    """
    loader = checkpoint.CheckpointLoader
    if hasattr(loader.load_checkpoint, '__wrapped__'):
        return False
    # Some official files contain their command line as a Namespace, which is plain data.
    torch.serialization.add_safe_globals([argparse.Namespace])
    loader.register_scheme('', loader=load_from_local, force=True)
    checkpoint.load_url = functools.partial(load_url, load=load_from_local)
    checkpoint.torch = weights_only_torch()  # pavi://, s3://, petrel://, openmmlab://
    loader.load_checkpoint = staticmethod(naming_the_file(loader.load_checkpoint))
    return True


@contextlib.contextmanager
def _no_set_device() -> Iterator[None]:
    original = torch.cuda.set_device
    torch.cuda.set_device = lambda device: None
    try:
        yield
    finally:
        torch.cuda.set_device = original


def launch_without_gpu() -> bool:
    """Start ``--launcher pytorch|slurm|mpi`` over gloo on a machine without accelerator.

    Why: no multi-process run starts without a GPU (or with CUDA_VISIBLE_DEVICES=-1). mmengine
    always calls ``torch.cuda.set_device``, its default backend nccl does not run on CPUs, and it
    passes the number of a GPU to DistributedDataParallel, an error for modules on a CPU. The fix
    also ignores ``sync_bn`` there, because PyTorch's SyncBatchNorm refuses CPU tensors.
    Until: an mmengine (> 0.10.7) that sets a device only if there is one.
    """
    if has_accelerator():
        return False
    names = ('_init_dist_pytorch', '_init_dist_slurm', '_init_dist_mpi')
    if hasattr(getattr(dist_utils, names[0]), '__wrapped__'):
        return False
    for name in names:
        setattr(dist_utils, name, _over_gloo(getattr(dist_utils, name)))
    wrap = MMDistributedDataParallel.__init__

    @functools.wraps(wrap)
    def wrap_on_cpu(self: Any, *args: Any, device_ids: Any = None, **kwargs: Any) -> None:
        wrap(self, *args, **kwargs)

    MMDistributedDataParallel.__init__ = wrap_on_cpu  # type: ignore[method-assign]
    runner.convert_sync_batchnorm = lambda model, implementation: model
    return True


def _over_gloo(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def launch(backend: str, **kwargs: Any) -> None:
        chosen = 'gloo' if backend == 'nccl' else backend
        with _no_set_device():
            init(chosen, **kwargs)
        if chosen != backend and dist_utils.get_rank() == 0:
            print_log(
                f'no GPU here: backend {chosen} instead of {backend}', 'current', logging.WARNING
            )

    return launch


def _refuse_import(module: ModuleType) -> NoReturn:
    raise ModuleNotFoundError(
        'mmengine imports pkg_resources, which setuptools 82 and newer lack: '
        'pip install "setuptools<81"',
        name=module.__name__,
    )


def explain_setuptools() -> bool:
    """Say what to install if ``pkg_resources`` is missing.

    Why: mmengine needs it for its hub and for inheritance from ``package::config``. This package
    uses neither, so the import succeeds, and only such a call fails, with this advice.
    Until: an mmengine (> 0.10.7) on importlib.metadata.
    """
    if stands_in('pkg_resources') or find_spec('pkg_resources') is not None:
        return False
    sys.meta_path.append(StandIn({'pkg_resources'}, _refuse_import))
    return True


def format_config_once() -> bool:
    """Format the text of a config once, not for every log, dump and checkpoint.

    Why: a Runner formats its whole config by yapf when it starts, five times over, and again for
    every checkpoint that it saves. Half a second passes each time, in which training waits.
    Until: an mmengine (> 0.10.7) that keeps the text.
    """
    original = config.FormatCode
    if hasattr(original, '__wrapped__'):
        return False
    kept: dict[tuple[str, str], tuple[str, bool]] = {}

    @functools.wraps(original)
    def format_code(text: str, **options: Any) -> tuple[str, bool]:
        key = text, repr(options)
        if key not in kept:
            kept.clear()  # of a run there is one text
            kept[key] = original(text, **options)
        return kept[key]

    config.FormatCode = format_code
    return True


def deepspeed_without_onebit() -> bool:
    """Let mmengine's DeepSpeedStrategy be built with today's DeepSpeed.

    Why: mmengine registers 1-bit optimizers that DeepSpeed (0.19) no longer has. Empty classes
    stand in for them.
    Until: an mmengine (> 0.10.7) that registers only the optimizers that DeepSpeed has.
    """
    name, deepspeed = 'deepspeed.runtime.fp16.onebit', find_spec('deepspeed')
    folders = (deepspeed and deepspeed.submodule_search_locations) or ()
    fp16 = [os.path.join(folder, 'runtime', 'fp16') for folder in folders]
    if not fp16 or name in sys.modules or PathFinder.find_spec(name, fp16):
        return False
    onebit = ModuleType(name)
    for optimizer in ('OnebitAdam', 'OnebitLamb', 'ZeroOneAdam'):
        setattr(onebit, optimizer, type(optimizer, (), {}))
    sys.modules[name] = onebit
    return True
