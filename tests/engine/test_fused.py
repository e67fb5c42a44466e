"""Resuming with another implementation of the optimizer than that of the checkpoint."""

from pathlib import Path

import pytest

from beitv2_mm.engine import launch, switches

CONFIG = Path(__file__).parents[1] / 'support/toy_config.py'


def train(folder: Path, fused: bool, epochs: int) -> dict:
    options = {'optim_wrapper.optimizer.fused': fused, 'train_cfg.max_epochs': epochs}
    cfg = launch.load_config(str(CONFIG), str(folder), options)
    cfg.experiment_name = f'{folder.name}_{fused}'
    switches.set_resume(cfg, 'auto')
    runner = launch.build_runner(cfg)
    runner.train()
    assert runner.iter == 8 * epochs
    return runner.optim_wrapper.optimizer.param_groups[0]


@pytest.mark.parametrize('fused', [True, False])
def test_the_config_decides_and_not_the_checkpoint(fused: bool, tmp_path: Path) -> None:
    """A GradScaler passes arguments to a fused optimizer that others refuse."""
    assert train(tmp_path, not fused, 1)['fused'] is not fused
    group = train(tmp_path, fused, 2)
    assert group['fused'] is fused and group['lr'] < 0.01
