"""Trainings of a detector as the package promises them: resumed exactly, on two ranks, with waits
for the device that are mmdet's own."""

import os
import subprocess
from importlib.util import find_spec
from pathlib import Path

import mmengine
import pytest
from mmengine.config import Config

from beitv2_mm.engine.launch import build_runner
from support.resuming import assert_resumes_exactly
from support.shrink import shrink
from support.tools import free_port, run_tool
from support.waits import Waits, counted_syncs

if not find_spec('mmdet'):
    pytest.skip('needs mmdet', allow_module_level=True)

ROOT = Path(__file__).parents[2]
FILE = ROOT / 'configs/detection/beitv2_tiny_mask_rcnn_1xb16_400i_composites.py'


def small(folder: Path, iterations: int) -> Config:
    cfg = shrink(Config.fromfile(FILE), folder, iterations)
    cfg.model.backbone.drop_path_rate = 0.2
    return cfg


def test_resumed_in_the_middle_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regions are sampled at random: the weights are equal bit for bit none the less."""
    monkeypatch.chdir(tmp_path)
    assert_resumes_exactly(small(tmp_path, 6), 6)


@pytest.mark.cpu_only(reason='two processes over gloo')
def test_two_ranks_train_and_evaluate(tmp_path: Path) -> None:
    """An image without objects on one rank stops nobody; two ranks measure what one measures."""
    cfg = small(tmp_path, 3)
    cfg.train_dataloader.dataset.filter_cfg = dict(filter_empty_gt=False)
    cfg.train_dataloader.batch_size = 1
    file = tmp_path / 'data/annotations/train.json'
    content = mmengine.load(file)
    some = {image['id'] for image in content['images'][::2]}
    content['annotations'] = [box for box in content['annotations'] if box['image_id'] in some]
    mmengine.dump(content, file)
    cfg.model.test_cfg.rcnn.score_thr = 0.0
    cfg.dump(tmp_path / 'small.py')
    environment = os.environ | {'PORT': free_port(), 'PYTHONPATH': str(ROOT)}
    for tool, arguments in (
        ('train', ['2', '--work-dir', 'two']),
        ('test', ['two/iter_3.pth', '2', '--out', 'two.json']),
    ):
        command = ['bash', ROOT / f'tools/dist_{tool}.sh', 'small.py', *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    os.chdir(tmp_path)
    run_tool('test', 'small.py', 'two/iter_3.pth', '--out', 'one.json')
    assert mmengine.load('one.json') == mmengine.load('two.json')


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_waits_of_a_step_are_those_of_mmdet(dtype: str, tmp_path: Path, device: str) -> None:
    """Backbone, pyramid and hooks add one at most, that of the guard against divergence."""
    if device != 'pretend':
        pytest.skip('the pretended device is the one that counts')
    cfg = small(tmp_path, 4)
    cfg.optim_wrapper.dtype = dtype
    cfg.default_hooks.logger.interval = 100
    runner = build_runner(cfg)
    with counted_syncs() as counter:
        waits = Waits(counter)
        runner.register_hook(waits)
        runner.train()
    assert all(value.isfinite().all() for value in runner.model.state_dict().values())
    for step in waits.steps[1:]:  # fp16 overflows in the first one, which is reported
        ours = {place: count for place, count in step.items() if 'beitv2_mm/' in place}
        assert step.total() > sum(ours.values()) <= 1, ours
