"""Mistakes in configs: numbers of classes, a batch of one, keys that nothing reads."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from beitv2_mm.engine import launch
from beitv2_mm.engine.config_checks import check_classes, explain_batch_of_one, misspelt
from beitv2_mm.engine.errors import ConfigError
from support.segmentors import segmentor_config
from support.shrink import shrink

ROOT = Path(__file__).parents[2]
CLASSIFIER = ROOT / 'configs/classification/beitv2_tiny_1xb32_8e_cifar10.py'


def test_parts_that_count_other_classes_are_named() -> None:
    cfg = Config.fromfile(CLASSIFIER)
    check_classes(cfg)
    cfg.merge_from_dict(
        {
            'model.head.num_classes': 7,
            'model.head.loss.num_classes': 8,
            'model.train_cfg': dict(augments=[dict(type='Mixup', num_classes=9)]),
        }
    )
    with pytest.raises(ConfigError) as error:
        launch.build_runner(cfg)
    for place in (
        'model.head.num_classes=7',
        'model.head.loss.num_classes=8',
        'model.data_preprocessor.num_classes=10',
        'model.train_cfg.augments.0.num_classes=9',
    ):
        assert place in str(error.value)


@pytest.mark.parametrize('count', [9, 10, 11])
def test_data_of_another_number_of_classes(count: int, tmp_path: Path) -> None:
    cfg = shrink(Config.fromfile(CLASSIFIER), tmp_path, iterations=1)
    cfg.experiment_name = f'classes{count}'
    cfg.model.head.num_classes = cfg.model.data_preprocessor.num_classes = count
    runner = launch.build_runner(cfg)
    if count == 10:
        runner.train()
        return
    with pytest.raises(ConfigError, match=f'data have 10 classes.*head.num_classes={count}'):
        runner.train()


def test_a_batch_of_one_is_explained() -> None:
    model = MODELS.build(segmentor_config())
    runner = SimpleNamespace(train_dataloader=SimpleNamespace(batch_size=1), iter=0)
    images = torch.rand(1, 3, 64, 64)
    with (
        pytest.raises(ConfigError, match=r'(?s)iteration 1.*batch_size=2 or more.*GN') as error,
        explain_batch_of_one(runner),
    ):
        model.train()(images)
    assert 'Expected more than 1 value per channel' in str(error.value.__cause__)
    runner.train_dataloader.batch_size = 4
    with pytest.raises(ConfigError, match='drop_last=True'), explain_batch_of_one(runner):
        nn.BatchNorm1d(2)(torch.rand(1, 2))
    with pytest.raises(ValueError, match=r'^other$'), explain_batch_of_one(runner):
        raise ValueError('other')


@pytest.mark.parametrize(
    ('key', 'hint'),
    [
        ('trian_cfg.max_epochs', 'train_cfg'),
        ('modle', 'model'),
        ('model.backbone.drop_path_rte', 'model.backbone.drop_path_rate'),
        ('model.head.num_clases', 'model.head.num_classes'),
        ('train_dataloader.batchsize', 'train_dataloader.batch_size'),
        ('optim_wrapper.paramwise_cfg.layer_decay_rte', 'paramwise_cfg.layer_decay_rate'),
        ('custom_hooks.77.patience', ''),
        ('nothing_like_it', ''),
    ],
)
def test_a_misspelt_key_is_warned_about(key: str, hint: str) -> None:
    (warning,) = misspelt(Config.fromfile(CLASSIFIER), [key])
    assert f'--cfg-options {key}' in warning and hint in warning
    assert ('did you mean' in warning) == bool(hint)


@pytest.mark.parametrize(
    'key',
    [
        'train_cfg.max_epochs',
        'model.backbone.with_cp',  # the class takes it
        'resume',
        'auto_scale_lr.enable',
        'strategy.type',
        'tta_model',
        'optim_wrapper.paramwise_cfg.bias_decay_mult',  # a dict without a type may hold anything
        'default_hooks.mine.type',
        'env_cfg.mine',
        'model.train_cfg.augments',
    ],
)
def test_a_key_that_something_may_read_is_not(key: str) -> None:
    assert misspelt(Config.fromfile(CLASSIFIER), [key]) == []


def test_the_tools_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple] = []
    monkeypatch.setattr(launch, 'print_log', lambda *args: said.append(args))
    launch.load_config(str(CLASSIFIER), options={'model.hed.num_classes': 3, 'resume': True})
    ((message, _, level),) = said
    assert 'did you mean model.head?' in message and level == logging.WARNING
