"""A config and a checkpoint of the version before the rooms of the package were moved."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from beitv2_mm.checkpoint import load
from beitv2_mm.datasets import LoadImageFromFile
from beitv2_mm.engine.launch import build_runner, load_config
from beitv2_mm.models import BEiTV2Backbone, BEiTV2Pretrainer
from beitv2_mm.registry import MODELS, TRANSFORMS

DATA = Path(__file__).parent / 'data'
CONFIG, CHECKPOINT = DATA / 'earlier_run/config.py', DATA / 'earlier_run/epoch_1.pth'
# The losses and rates that the earlier version logged in the two steps of its second epoch.
LOSSES = [5.577846686045329, 5.553367614746094]
RATES = [0.003, 0.001515]


@pytest.mark.cpu_only(reason='its losses were computed on a CPU')
def test_it_resumes_with_the_losses_it_had(tmp_path: Path) -> None:
    shutil.copy(CHECKPOINT, tmp_path)
    cfg = load_config(str(CONFIG), str(tmp_path), {'resume': True})
    cfg.load_from = str(tmp_path / CHECKPOINT.name)
    for name in ('train', 'val', 'test'):
        cfg[f'{name}_dataloader'].dataset.data_root = str(DATA / 'cifar10')
    build_runner(cfg, verbose=False).train()
    (log,) = tmp_path.glob('*/vis_data/scalars.json')
    steps = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [step for step in steps if 'loss' in step]
    assert [step['iter'] for step in steps] == [3, 4]
    # The log smooths over the steps of the whole run, which the checkpoint brings along.
    assert [step['loss'] for step in steps] == pytest.approx(LOSSES, rel=1e-5)
    assert [step['lr'] for step in steps] == pytest.approx(RATES)


def test_the_name_of_its_fast_loader_is_kept() -> None:
    for name in ('beitv2_mm.LoadImage', 'beitv2_mm.datasets.LoadImage'):
        assert isinstance(TRANSFORMS.build(dict(type=name)), LoadImageFromFile)


def test_its_weights_load_into_the_models_of_today() -> None:
    settings = Config.fromfile(CONFIG).model
    pretrainer = MODELS.build(settings)
    assert type(pretrainer) is BEiTV2Pretrainer
    report = load(pretrainer, str(CHECKPOINT))
    assert not report.missing
    assert not report.unexpected
    backbone = BEiTV2Backbone(settings.backbone.arch, 32, 4, position='shared', out_type='raw')
    report = load(backbone, str(CHECKPOINT))
    assert not report.missing
    expected = pretrainer.backbone.state_dict()
    for name, value in backbone.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)
