"""Command-line switches that change a config: resume, mixed precision, learning rate, TTA."""

from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from beitv2_mm.compat.mmengine_ import has_accelerator
from beitv2_mm.engine.errors import LaunchError
from beitv2_mm.engine.resume import latest_checkpoint
from beitv2_mm.registry import type_name


def set_resume(cfg: Config, source: str) -> None:
    """Resumes from a checkpoint, or with 'auto' from the last one of the work directory.

    'auto' without a checkpoint starts a new training and keeps the config's ``load_from``.

    Raises:
        LaunchError: the checkpoint does not exist.
        CheckpointError: the work directory has checkpoints, but none is intact.
    """
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    out_dir = hook.get('out_dir')  # mmengine adds the name of the work directory
    folders = [Path(cfg.work_dir), *([Path(out_dir, Path(cfg.work_dir).name)] if out_dir else [])]
    checkpoint = latest_checkpoint(*folders) if source == 'auto' else source
    cfg.resume = checkpoint is not None
    if checkpoint is None:
        print_log(f'no checkpoint in {cfg.work_dir} yet: a new training starts', 'current')
        return
    if source != 'auto':
        require_checkpoint(source)
    cfg.load_from = str(checkpoint)


def require_checkpoint(path: str) -> None:
    """Raises a LaunchError if a local checkpoint does not exist; mmengine checks URLs.

    Checkpoints of sharded strategies are folders whose names end like those of files.
    """
    local = Path(path).expanduser()
    if '://' not in path and not (local.is_file() or (local.suffix == '.pth' and local.is_dir())):
        raise LaunchError(f'no such checkpoint: {path}')


def set_amp(cfg: Config) -> None:
    """Trains in mixed precision with a dynamic loss scale.

    Raises:
        LaunchError: there is no accelerator, or the config has another optimizer wrapper.
    """
    if not has_accelerator():
        raise LaunchError('--amp needs a GPU, and there is none here')
    name = type_name(cfg.optim_wrapper) or 'OptimWrapper'
    if name == 'mixed_precision':  # of beitv2_mm.engine, which trains in mixed precision already
        return
    if name not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise LaunchError(f'--amp replaces OptimWrapper, but the config has {name}')
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def set_auto_scale_lr(cfg: Config) -> None:
    """Scales the learning rate by actual / base batch size.

    Raises:
        LaunchError: the config has no ``auto_scale_lr.base_batch_size``.
    """
    if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        raise LaunchError(
            '--auto-scale-lr needs auto_scale_lr = dict(base_batch_size=...) in the config'
        )
    cfg.auto_scale_lr.enable = True


def set_tta(cfg: Config) -> None:
    """Tests with the augmentations (scales, flips) of the config's ``tta_pipeline``.

    Raises:
        LaunchError: the config has no ``tta_pipeline`` or no ``tta_model``.
    """
    if 'tta_pipeline' not in cfg or 'tta_model' not in cfg:
        raise LaunchError('--tta needs tta_pipeline and tta_model in the config')
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
