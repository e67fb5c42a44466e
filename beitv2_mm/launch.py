"""From a command line to a Runner: what tools/train.py and tools/test.py share."""

import ctypes
import logging
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch.distributed as dist
from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from beitv2_mm import compat
from beitv2_mm.errors import TrainingError
from beitv2_mm.resume import latest_checkpoint


class LaunchError(Exception):
    """A mistake in what the user gave: options, paths or the checkpoint."""


# The tools show the message alone: a traceback would say nothing more.
USER_ERRORS = (LaunchError, TrainingError, compat.CheckpointError)


class SharedWeightsHook(Hook):
    """Refuses a checkpoint that has no weight of the model, by name and shape.

    mmengine loads what fits and lists the rest in a warning, so the checkpoint of another model
    would be trained or tested as random weights.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        from beitv2_mm.engine.unwrap import whole_model  # see `build_runner`

        model = whole_model(runner)
        given = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, dict) else None
        if not isinstance(given, dict):
            raise LaunchError(f'the checkpoint holds a {type(given).__name__} for weights')
        weights = {
            str(key).removeprefix('module.'): getattr(value, 'shape', None)
            for key, value in given.items()
        }
        # a model for test-time augmentation keeps the network in its `module`
        expected = {
            key.removeprefix('module.'): value.shape for key, value in model.state_dict().items()
        }
        if expected and not any(weights.get(key) == shape for key, shape in expected.items()):
            raise LaunchError(
                f'the checkpoint is of another model than {type(model).__name__}: it has none of '
                f'its weights (given: {_first(weights)}; expected: {_first(expected)})'
            )


def _first(shapes: dict[str, Any]) -> str:
    return ', '.join(f'{key[:80]} {tuple(shape or ())}' for key, shape in [*shapes.items()][:3])


def load_config(
    path: str,
    work_dir: str | None = None,
    options: dict[str, Any] | None = None,
    launcher: str = 'none',
) -> Config:
    """Read a config file, apply the options and settle its work directory.

    Raises:
        LaunchError: there is no such config file, or the options do not fit it.
    """
    if not Path(path).is_file():
        raise LaunchError(f'no such config file: {path}')
    cfg = Config.fromfile(path)
    if options:
        from beitv2_mm.engine.config_checks import misspelt

        for warning in misspelt(cfg, options):
            print_log(warning, 'current', logging.WARNING)
    try:
        cfg.merge_from_dict(options or {})
    except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise LaunchError(f'--cfg-options do not fit {path}: {error}') from error
    cfg.work_dir = work_dir or cfg.get('work_dir') or str(Path('work_dirs', Path(path).stem))
    cfg.launcher = launcher
    return cfg


def build_runner(cfg: Config, testing: bool = False, verbose: bool = True) -> Runner:
    """The Runner of a config, or the class that its ``runner_type`` names.

    Its ``load_from`` may be a checkpoint of any layout that `beitv2_mm.checkpoint` knows; for
    testing it must have the model's head. Unless ``verbose``, the config, the environment and the
    list of hooks are written to the log file only.
    """
    from beitv2_mm.engine.adapt_hook import AdaptCheckpointHook  # needs the fixes of compat
    from beitv2_mm.engine.config_checks import ClassCountHook, check_classes
    from beitv2_mm.engine.quiet import quiet_terminal

    if cfg.get('launcher') == 'mpi':  # mmengine reads LOCAL_RANK, which other launchers set
        os.environ.setdefault('LOCAL_RANK', os.environ['OMPI_COMM_WORLD_LOCAL_RANK'])
    if not compat.has_accelerator():
        keep_freed_memory()
    _unset_static_graph(cfg)
    check_classes(cfg)
    with nullcontext() if verbose else quiet_terminal():
        runner: Runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    if not any(isinstance(hook, AdaptCheckpointHook) for hook in runner.hooks):
        runner.register_hook(AdaptCheckpointHook())
    for hook in runner.hooks:
        if isinstance(hook, AdaptCheckpointHook):
            hook.require_head |= testing
    runner.register_hook(SharedWeightsHook(), priority='VERY_LOW')
    runner.register_hook(ClassCountHook())
    if compat.active():
        runner.logger.info(f'beitv2_mm.compat: {", ".join(compat.active())}')
    return runner


def keep_freed_memory() -> None:
    """Tells glibc to keep the memory of freed tensors for the next ones.

    It returns a part to the system at every step, only to ask for it again: on CPUs, steps of
    training took 5 to 25 % longer. Elsewhere than with glibc, or where the user has set
    MALLOC_TRIM_THRESHOLD_ or MALLOC_MMAP_THRESHOLD_, nothing is done.
    """
    if not sys.platform.startswith('linux') or any(
        f'MALLOC_{name}_THRESHOLD_' in os.environ for name in ('TRIM', 'MMAP')
    ):
        return
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is not None:
        trim, mmap = -1, -3  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
        mallopt(trim, 2**31 - 1)
        mallopt(mmap, 2**30) or mallopt(mmap, 2**25)  # which is the most that an old glibc takes


def _unset_static_graph(cfg: Config) -> None:
    """DDP's static graph fails an assertion of PyTorch where its first gradients are not exchanged.

    Exchanging those alone would round otherwise after a resume, so the graph is not static then.
    """
    wrapper, optim = cfg.get('model_wrapper_cfg') or {}, cfg.get('optim_wrapper') or {}
    if wrapper.get('static_graph') and optim.get('accumulative_counts', 1) > 1:
        cfg.model_wrapper_cfg.static_graph = False
        print_log(
            'gradient accumulation: model_wrapper_cfg.static_graph is set to False', 'current'
        )


def set_resume(cfg: Config, source: str) -> None:
    """Resume from a checkpoint path, or with 'auto' from the last checkpoint of the work directory.

    'auto' without checkpoint starts anew and then keeps the config's ``load_from``.

    Raises:
        LaunchError: the checkpoint does not exist.
        CheckpointError: the work directory has checkpoints, but not one that is intact.
    """
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    out_dir = hook.get('out_dir')  # mmengine adds the name of the work directory
    folders = [Path(cfg.work_dir), *([Path(out_dir, Path(cfg.work_dir).name)] if out_dir else [])]
    checkpoint = latest_checkpoint(*folders) if source == 'auto' else source
    cfg.resume = checkpoint is not None
    if checkpoint is None:
        print_log(f'no checkpoint in {cfg.work_dir} yet: training starts anew', 'current')
        return
    if source != 'auto':
        require_checkpoint(source)
    cfg.load_from = str(checkpoint)


def require_checkpoint(path: str) -> None:
    """Raise LaunchError where a local checkpoint does not exist; URLs are mmengine's to check.

    Sharded strategies write folders, named like files.
    """
    local = Path(path).expanduser()
    if '://' not in path and not (local.is_file() or (local.suffix == '.pth' and local.is_dir())):
        raise LaunchError(f'no such checkpoint: {path}')


def set_tta(cfg: Config) -> None:
    """Test with the augmentations (scales, flips) of the config's ``tta_pipeline``.

    Raises:
        LaunchError: the config states no ``tta_pipeline`` and ``tta_model``.
    """
    if 'tta_pipeline' not in cfg or 'tta_model' not in cfg:
        raise LaunchError('--tta needs tta_pipeline and tta_model in the config')
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def set_amp(cfg: Config) -> None:
    """Train in mixed precision with dynamic loss scale.

    Raises:
        LaunchError: no accelerator, or the config has an optimizer wrapper of its own.
    """
    if not compat.has_accelerator():
        raise LaunchError('--amp needs a GPU, and there is none here')
    wrapper = cfg.optim_wrapper.get('type', 'OptimWrapper')
    name = wrapper if isinstance(wrapper, str) else wrapper.__name__
    if name.split('.')[-1] == 'mixed_precision':  # of beitv2_mm.engine: it is that already
        return
    if name not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise LaunchError(f'--amp replaces OptimWrapper, but the config has {name}')
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def end_processes() -> None:
    """Leaves the process group after a run over gloo, whose threads may otherwise abort a process
    that exits ("terminate called without an active exception")."""
    if dist.is_available() and dist.is_initialized() and dist.get_backend() == 'gloo':
        dist.destroy_process_group()


def set_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate by actual / base batch size.

    Raises:
        LaunchError: the config states no ``auto_scale_lr.base_batch_size``.
    """
    if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        raise LaunchError(
            '--auto-scale-lr needs auto_scale_lr = dict(base_batch_size=...) in the config'
        )
    cfg.auto_scale_lr.enable = True
