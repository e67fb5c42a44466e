"""Progress is logged by the clock while the logger, which counts steps, is silent."""

import json
import re
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from beitv2_mm.engine.hooks.progress import PROGRESS

# Two epochs of 8 steps, and 8 batches to validate on.
CONFIG = Path(__file__).parents[2] / 'support/toy_config.py'


@pytest.mark.parametrize(
    ('seconds', 'interval', 'train', 'val'),
    [
        (0.0, 100, [f'{step}/16' for step in range(1, 17)], [f'{i}/8' for i in range(1, 9)] * 2),
        (
            0.0,
            2,
            [f'{step}/16' for step in range(1, 17, 2)],
            [f'{i}/8' for i in range(1, 9, 2)] * 2,
        ),
        (60.0, 100, [], []),
    ],
)
def test_the_clock_speaks_where_the_logger_is_silent(
    tmp_path: Path, seconds: float, interval: int, train: list[str], val: list[str]
) -> None:
    cfg = Config.fromfile(CONFIG)
    cfg.work_dir = str(tmp_path)
    cfg.experiment_name = tmp_path.name
    cfg.default_hooks.logger.interval = interval
    next(hook for hook in cfg.custom_hooks if 'ProgressHook' in str(hook.type)).seconds = seconds
    Runner.from_cfg(cfg).train()
    (log,) = tmp_path.glob('*/*.log')
    found = re.findall(r'Iter\((\w+)\) \[(\d+/\d+)\]  eta: \d:\d\d:\d\d\n', log.read_text())
    assert [place for mode, place in found if mode == 'train'] == train
    assert [place for mode, place in found if mode == 'val'] == val
    state = json.loads((tmp_path / PROGRESS).read_text())
    assert state['mode'] in ('train', 'val') and 0 < state['step'] <= state['total']
    assert state['seconds_left'] >= 0


def test_training_goes_on_where_progress_cannot_be_written(tmp_path: Path) -> None:
    cfg = Config.fromfile(CONFIG)
    cfg.work_dir = str(tmp_path)
    cfg.experiment_name = tmp_path.name
    (tmp_path / PROGRESS).mkdir()  # a file cannot take its place
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 16 and not list(tmp_path.glob('.*.tmp'))
