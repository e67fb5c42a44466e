"""A training that was interrupted half-way against one that was not."""

from pathlib import Path

import torch
from mmengine.config import Config

from support.tools import run_tool


def assert_resumes_exactly(cfg: Config, iterations: int) -> None:
    """In the current folder: the weights are equal bit for bit. 'parts' is the resumed run."""
    cfg.dump('small.py')
    half = iterations // 2
    every = ['--cfg-options', f'default_hooks.checkpoint.interval={half}']
    run_tool('train', 'small.py', '--work-dir', 'whole', *every)
    Path('parts').mkdir()
    Path(f'whole/iter_{half}.pth').rename(f'parts/iter_{half}.pth')
    run_tool('train', 'small.py', '--work-dir', 'parts', '--resume', f'parts/iter_{half}.pth')
    whole, parts = (
        torch.load(f'{name}/iter_{iterations}.pth', weights_only=True)['state_dict']
        for name in ('whole', 'parts')
    )
    assert all(torch.equal(value, parts[key]) for key, value in whole.items())
