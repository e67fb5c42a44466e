"""What the processes of tests/test_strategies.py run: recipes under a Runner, DDP or FSDP."""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.config import Config

from beitv2_mm import launch
from shrink import shrink

CONFIGS = Path(__file__).parents[1] / 'configs'
RECIPES = dict(
    mim='pretrain/beitv2_large_64xb32_1600e_in1k',
    tokenizer='pretrain/vqkd_base_clip_8xb64_100e_in1k',
    classifier='classification/beitv2_large_8xb128_50e_in1k',
)
EPOCHS, PER_EPOCH = 4, 5  # 20 steps of 4 images
Runs = dict[str, list[float]]


def recipe(name: str, folder: Path, ranks: int, sharded: bool) -> Config:
    file = RECIPES[name] + ('_fsdp' if sharded and name == 'mim' else '')
    cfg = shrink(Config.fromfile(CONFIGS / f'{file}.py'), folder, PER_EPOCH)
    if sharded and name != 'mim':
        cfg.runner_type = 'beitv2_mm.StrategyRunner'
        cfg.strategy = dict(type='beitv2_mm.BlockShardedStrategy')
    cfg.launcher = 'pytorch' if ranks > 1 else 'none'
    cfg.train_dataloader.batch_size = 4 // ranks
    for part in ('backbone', 'neck', 'encoder', 'decoder'):
        if part in cfg.model:  # what would differ between the ranks
            cfg.model[part].drop_path_rate = 0.0
    if name == 'classifier':
        cfg.model.train_cfg = None
    for key in ('val_dataloader', 'val_cfg', 'val_evaluator'):
        cfg[key] = cfg['test' + key[3:]] = None
    cfg.train_cfg.max_epochs = EPOCHS
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=10)
    cfg.custom_hooks = [hook for hook in cfg.custom_hooks if 'KNN' not in str(hook['type'])]
    kind = 'single' if ranks == 1 else 'fsdp' if sharded else 'ddp'
    cfg.work_dir = str(folder / f'{name}_{kind}')
    cfg.experiment_name = f'{folder.parent.name}_{name}_{kind}'
    cfg.log_level = 'ERROR'
    return cfg


def train(cfg: Config) -> list[float]:
    """The loss of every step."""
    runner = launch.build_runner(cfg)
    runner.train()
    return runner.message_hub.log_scalars['train/loss'].data[0].tolist()


def process(rank: int, port: int, folder: Path) -> None:
    """Entry point of a spawned process; writes ``rank<r>.pth``."""
    os.environ |= dict(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2')
    os.environ |= dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    torch.set_num_threads(1)
    sys.stderr = open(os.devnull, 'w') if rank else sys.stderr  # noqa: SIM115
    runs: Runs = {}
    for name in RECIPES:
        runs[f'{name}_ddp'] = train(recipe(name, folder, 2, False))
        runs[f'{name}_fsdp'] = train(recipe(name, folder, 2, True))
    cfg = recipe('mim', folder, 2, True)
    cfg.load_from, cfg.resume = f'{cfg.work_dir}/iter_10.pth', True
    cfg.work_dir += '_resumed'
    cfg.experiment_name += '_resumed'
    runs['mim_fsdp_resumed'] = train(cfg)
    torch.save(runs, folder / f'rank{rank}.pth')
    dist.destroy_process_group()
