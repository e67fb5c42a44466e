"""From a command line to a Runner, for tools/train.py and tools/test.py."""

import ctypes
import gc
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch.distributed as dist
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from beitv2_mm import compat
from beitv2_mm.checkpoint import CheckpointError
from beitv2_mm.compat.mmengine_ import has_accelerator
from beitv2_mm.engine.config_checks import ClassCountHook, check_classes, misspelt
from beitv2_mm.engine.errors import LaunchError, TrainingError
from beitv2_mm.engine.hooks.adapt import AdaptCheckpointHook
from beitv2_mm.engine.quiet import quiet_terminal

# Tools print only the message of these errors, because a traceback would not help the user.
USER_ERRORS = (TrainingError, CheckpointError)
# What errors of imports name, and the extra that installs it.
EXTRAS = {
    'mmdet': 'det',
    'mmseg': 'seg',
    'transformers': 'vl',
    'multi-modal': 'vl',
    'torchmetrics': 'gen',
}


def load_config(
    path: str,
    work_dir: str | None = None,
    options: dict[str, Any] | None = None,
    launcher: str = 'none',
) -> Config:
    """Reads a config file, applies the options and sets its work directory.

    Raises:
        LaunchError: there is no such config file, or the options do not fit it.
    """
    if not Path(path).is_file():
        raise LaunchError(f'no such config file: {path}')
    cfg = Config.fromfile(path)
    _set_collate_fn(cfg)
    if options:
        for warning in misspelt(cfg, options):
            print_log(warning, 'current', logging.WARNING)
    try:
        cfg.merge_from_dict(options or {})
    except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise LaunchError(f'--cfg-options do not fit {path}: {error}') from error
    cfg.work_dir = work_dir or cfg.get('work_dir') or str(Path('work_dirs', Path(path).stem))
    cfg.launcher = launcher
    return cfg


def _set_collate_fn(cfg: Config) -> None:
    """Batches for configs of mmpretrain, as its own tools make them: its multimodal models would
    take mmengine's lists of images for the frames of a video."""
    if cfg.get('default_scope') == 'mmpretrain':
        for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            if cfg.get(name):
                cfg[name].setdefault('collate_fn', dict(type='default_collate'))


@contextmanager
def extra_is_named() -> Iterator[None]:
    """A config imports the classes that it names when the runner is built."""
    try:
        yield
    except ImportError as error:
        for package, extra in EXTRAS.items():
            if package in str(error):
                raise LaunchError(
                    f'The config needs what "beitv2_mm[{extra}]" installs ({error}): '
                    f'pip install "beitv2_mm[{extra}]"'
                ) from error
        raise


def build_runner(cfg: Config, testing: bool = False, verbose: bool = True) -> Runner:
    """Builds the Runner of a config, or the runner that its ``runner_type`` names.

    ``load_from`` may be a checkpoint of any layout that `beitv2_mm.checkpoint` knows; for testing,
    it must have the model's head. Unless ``verbose``, the config, the environment and the list of
    hooks are written to the log file only.

    Raises:
        ConfigError: parts of the config give different numbers of classes.
        LaunchError: a package that the config names is not installed.
    """
    if cfg.get('launcher') == 'mpi':  # mmengine needs LOCAL_RANK, which mpirun does not set
        os.environ.setdefault('LOCAL_RANK', os.environ['OMPI_COMM_WORLD_LOCAL_RANK'])
    if not has_accelerator():
        keep_freed_memory()
    _unset_static_graph(cfg)
    check_classes(cfg)
    with nullcontext() if verbose else quiet_terminal(), extra_is_named():
        runner: Runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    if not any(isinstance(hook, AdaptCheckpointHook) for hook in runner.hooks):
        runner.register_hook(AdaptCheckpointHook())
    for hook in runner.hooks:
        if isinstance(hook, AdaptCheckpointHook):
            hook.require_head |= testing
    runner.register_hook(ClassCountHook())
    if compat.active():
        runner.logger.info(f'beitv2_mm.compat: {", ".join(compat.active())}')
    return runner


def _unset_static_graph(cfg: Config) -> None:
    """Unsets DDP's static graph for gradient accumulation.

    The first backward pass of a static graph has to exchange gradients, or an assertion of PyTorch
    fails. If only that pass did, a resumed run would round differently.
    """
    wrapper, optim = cfg.get('model_wrapper_cfg') or {}, cfg.get('optim_wrapper') or {}
    if wrapper.get('static_graph') and optim.get('accumulative_counts', 1) > 1:
        cfg.model_wrapper_cfg.static_graph = False
        print_log(
            'gradient accumulation: model_wrapper_cfg.static_graph is set to False', 'current'
        )


def keep_freed_memory() -> None:
    """Tells glibc to keep the memory of freed tensors for the next ones.

    By default it returns a part of it to the system in every step and then asks for it again, which
    made training steps on CPUs 5 to 25 % longer. Nothing is done without glibc, or where the user
    has set MALLOC_TRIM_THRESHOLD_ or MALLOC_MMAP_THRESHOLD_.
    """
    if not sys.platform.startswith('linux') or any(
        f'MALLOC_{name}_THRESHOLD_' in os.environ for name in ('TRIM', 'MMAP')
    ):
        return
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is not None:
        trim, mmap = -1, -3  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
        mallopt(trim, 2**31 - 1)
        mallopt(mmap, 2**30) or mallopt(mmap, 2**25)  # the maximum of an old glibc


def end_processes() -> None:
    """Ends the threads of a process group over gloo after a run.

    One that still works while Python exits may abort the process, and torchrun would call a run
    that has saved everything a failure. A model in a DDP wrapper holds the group: the caller keeps
    no reference to it.
    """
    if dist.is_available() and dist.is_initialized() and dist.get_backend() == 'gloo':
        gc.collect()  # the wrapper, which is part of reference cycles
        dist.destroy_process_group()
