"""How often the host waits for the device in a training step: each wait leaves the device idle."""

from pathlib import Path

import pytest
from mmengine.config import Config

from beitv2_mm.engine.launch import build_runner
from support.shrink import shrink, take_ten_classes
from support.waits import Waits, counted_syncs

CONFIGS = Path(__file__).parents[2] / 'configs'
# Blocking copies of the input are those of mmpretrain's preprocessor and, for each of the four
# images, of mmseg's.
RECIPES = [
    ('pretrain/beitv2_base_16xb128_300e_in1k', 'float16', 0),
    ('pretrain/beitv2_base_16xb128_300e_in1k', 'bfloat16', 0),
    ('pretrain/vqkd_base_clip_8xb64_100e_in1k', 'bfloat16', 0),
    ('classification/beitv2_base_8xb128_100e_in1k', 'bfloat16', 2),
    ('segmentation/beitv2_base_8xb2_160k_ade20k_512', 'bfloat16', 4 * 3),
]


@pytest.mark.parametrize(('recipe', 'dtype', 'copies'), RECIPES)
def test_waits_of_a_step(recipe: str, dtype: str, copies: int, tmp_path: Path, device: str) -> None:
    """One wait with the hooks of the recipe, except for iterations that write a log line."""
    if device != 'pretend':
        pytest.skip('the pretended device is the one that counts')
    cfg = shrink(Config.fromfile(CONFIGS / f'{recipe}.py'), tmp_path, iterations=4)
    take_ten_classes(cfg)
    cfg.optim_wrapper.dtype = dtype
    cfg.default_hooks.logger.interval = 100
    runner = build_runner(cfg)
    with counted_syncs() as counter:
        waits = Waits(counter)
        runner.register_hook(waits)
        runner.train()
    assert len(waits.steps) == 3
    for step in waits.steps[1:]:  # fp16 overflows in the first one, which is reported
        places = '\n'.join(f'{count} x {place}' for place, count in step.items())
        inputs = sum(n for place, n in step.items() if place.startswith('to device'))
        assert inputs <= copies, places
        assert step.total() - inputs <= 1, places
