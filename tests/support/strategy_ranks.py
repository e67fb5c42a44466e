"""What tests/test_strategies.py and test_zero.py run: recipes, on one process or on two."""

import gc
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.config import Config

import beitv2_mm.engine
import beitv2_mm.models  # noqa: F401  the configs import them
from beitv2_mm.engine import launch, switches
from support.shrink import shrink, take_ten_classes
from support.tools import free_port

CONFIGS = Path(__file__).parents[2] / 'configs'
RECIPES = dict(
    mim='pretrain/beitv2_large_64xb32_1600e_in1k',
    tokenizer='pretrain/vqkd_base_clip_8xb64_100e_in1k',
    classifier='classification/beitv2_large_8xb128_50e_in1k',
)
EPOCHS, PER_EPOCH = 4, 5  # 20 iterations of 4 images
SAVED = 12  # a checkpoint in the middle of an epoch
Run = tuple[str, str]  # name of the recipe, kind


def recipe(name: str, kind: str, folder: Path) -> Config:
    """Kinds: 'single', 'ddp', 'fsdp', 'zero'; with '_accumulated', steps of two iterations; with
    '_float32', no mixed precision, which the others do not have on a CPU anyway."""
    strategy, _, change = kind.partition('_')
    own = strategy in ('fsdp', 'zero') and name == 'mim'
    file = CONFIGS / f'{RECIPES[name]}{f"_{strategy}" if own else ""}.py'
    cfg = shrink(Config.fromfile(file, format_python_code=False), folder, PER_EPOCH)
    take_ten_classes(cfg)
    if strategy == 'fsdp' and not own:
        cfg.runner_type = 'beitv2_mm.StrategyRunner'
        cfg.strategy = dict(type='beitv2_mm.BlockShardedStrategy')
    if change == 'accumulated':
        cfg.optim_wrapper.accumulative_counts = 2
    if change == 'float32':
        cfg.strategy.config.torch_autocast.enabled = False
    cfg.launcher = 'none' if strategy == 'single' else 'pytorch'
    cfg.train_dataloader.batch_size = 4 if strategy == 'single' else 2
    for part in ('backbone', 'neck', 'encoder', 'decoder'):
        if part in cfg.model:  # what would differ between the ranks
            cfg.model[part].drop_path_rate = 0.0
    if name == 'classifier':
        cfg.model.train_cfg = None
    for key in ('val_dataloader', 'val_cfg', 'val_evaluator'):
        cfg[key] = cfg['test' + key[3:]] = None
    cfg.train_cfg.max_epochs = EPOCHS
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=SAVED)
    cfg.custom_hooks = [
        hook
        for hook in cfg.custom_hooks
        if not any(word in str(hook['type']) for word in ('KNN', 'RunPage'))
    ]
    cfg.work_dir = str(folder / f'{name}_{kind}')
    cfg.experiment_name = f'{folder.parent.name}_{name}_{kind}'
    cfg.log_level = 'ERROR'
    return cfg


def resumed(cfg: Config) -> Config:
    switches.set_resume(cfg, f'{cfg.work_dir}/iter_{SAVED}.pth')
    cfg.work_dir += '_resumed'
    cfg.experiment_name += '_resumed'
    return cfg


def train(cfg: Config) -> list[float]:
    """The loss of every iteration."""
    runner = launch.build_runner(cfg)
    runner.train()
    return runner.message_hub.log_scalars['train/loss'].data[0].tolist()


def process(rank: int, port: str, folder: Path, runs: list[Run], again: list[Run]) -> None:
    """Entry point of a process; writes ``rank<r>.pth``."""
    gc.freeze()  # every data set collects garbage, among all that was imported
    torch.set_num_threads(1)
    sys.stderr = open(os.devnull, 'w') if rank else sys.stderr  # noqa: SIM115
    alone = [run for run in runs if run[1].startswith('single')]
    losses = {'_'.join(run): train(recipe(*run, folder)) for run in alone[rank::2]}
    os.environ |= dict(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2')
    os.environ |= dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
    losses |= {'_'.join(run): train(recipe(*run, folder)) for run in runs if run not in alone}
    for run in again:
        losses[f'{"_".join(run)}_resumed'] = train(resumed(recipe(*run, folder)))
    torch.save(losses, folder / f'rank{rank}.pth')
    if dist.is_initialized():
        dist.destroy_process_group()


def two_processes(
    folder: Path, runs: list[Run], again: list[Run] | None = None
) -> dict[str, torch.Tensor]:
    """Mean losses of ``runs`` and, from their checkpoints on, of those to do ``again``.

    Each process does half of the 'single' ones alone, before they join.
    """
    # forked: their imports are done
    arguments = (free_port(), folder, runs, again or [])
    mp.start_processes(process, arguments, nprocs=2, start_method='fork')
    ranks = [torch.load(folder / f'rank{rank}.pth', weights_only=True) for rank in (0, 1)]
    return {
        name: torch.tensor([rank[name] for rank in ranks if name in rank]).mean(0)
        for name in ranks[0] | ranks[1]
    }
