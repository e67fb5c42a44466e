"""Mixed precision and model EMA as switches of any config."""

from pathlib import Path

import pytest
import torch
from mmengine._strategy.deepspeed import DeepSpeedOptimWrapper
from mmengine.config import Config, DictAction
from mmengine.hooks import EMAHook
from mmengine.logging import MMLogger
from mmengine.optim import AmpOptimWrapper, OptimWrapper, build_optim_wrapper
from mmengine.runner import Runner
from torch import nn

from beitv2_mm.engine import mixed_precision, switches

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / 'configs').glob('*/*_in1k*.py'))


def built(**settings: object) -> OptimWrapper:
    config = dict(type=mixed_precision, optimizer=dict(type='SGD', lr=0.1), **settings)
    return build_optim_wrapper(nn.Linear(2, 2), config)


@pytest.mark.cpu_only(reason='other devices know mixed precision')
@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_full_precision_without_gpu(dtype: str) -> None:
    wrapper = built(dtype=dtype, loss_scale='dynamic', clip_grad=dict(max_norm=1.0))
    assert type(wrapper) is OptimWrapper
    assert wrapper.clip_grad_kwargs == dict(max_norm=1.0)


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_autocast_with_an_accelerator(dtype: str, device: str) -> None:
    if device == 'cpu':
        pytest.skip('the CPU trains in full precision: pytest --device pretend runs this')
    wrapper = built(dtype=dtype)
    assert type(wrapper) is AmpOptimWrapper
    model = nn.Linear(2, 2)
    with wrapper.optim_context(model):
        assert model(torch.ones(1, 2)).dtype is getattr(torch, dtype)


@pytest.mark.parametrize(('supported', 'expected'), [(False, 'float16'), (True, 'bfloat16')])
def test_a_gpu_without_bfloat16_takes_float16(
    supported: bool,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What would be chosen on a GPU, without one."""
    asked: list[dict] = []
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda including_emulation: supported)
    monkeypatch.setattr('beitv2_mm.engine.precision.has_accelerator', lambda: True)
    monkeypatch.setattr(
        'beitv2_mm.engine.precision.AmpOptimWrapper', lambda **kwargs: asked.append(kwargs)
    )
    logger = MMLogger.get_instance(f'bf16_{expected}')
    mixed_precision(dtype='bfloat16')
    assert asked[0]['dtype'] == expected
    assert asked[0]['loss_scale'] == ('dynamic' if expected == 'float16' else 1.0)
    said = [record for record in capsys.readouterr().out.splitlines() if 'no bfloat16' in record]
    assert len(said) == (expected == 'float16'), logger


def test_which_wrapper_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """fp16 needs a dynamic loss scale, bf16 does not."""
    asked: list[dict] = []
    module = 'beitv2_mm.engine.precision'
    monkeypatch.setattr(f'{module}.has_accelerator', lambda: True)
    monkeypatch.setattr(f'{module}.AmpOptimWrapper', lambda **kwargs: asked.append(kwargs))
    mixed_precision()
    mixed_precision(dtype='bfloat16', accumulative_counts=2)
    mixed_precision(loss_scale=512.0)
    assert [(a['dtype'], a['loss_scale']) for a in asked] == [
        ('float16', 'dynamic'),
        ('bfloat16', 1.0),
        ('float16', 512.0),
    ]


def test_amp_option_leaves_mixed_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('mmengine.device.utils.DEVICE', 'cuda')
    cfg = Config.fromfile(ROOT / 'configs/pretrain/beitv2_base_16xb128_300e_in1k.py')
    switches.set_amp(cfg)
    assert cfg.optim_wrapper.type is mixed_precision


@pytest.mark.parametrize('file', CONFIGS, ids=lambda file: file.stem)
def test_recipes_train_in_mixed_precision_by_config(file: Path) -> None:
    """No config needs a GPU to be built or names apex; one option changes the dtype."""
    cfg = Config.fromfile(file)
    if cfg.get('optim_wrapper') and not file.stem.startswith('linear'):
        cfg.merge_from_dict({'optim_wrapper.dtype': 'bfloat16'})
        zero = file.stem.endswith('_zero')  # DeepSpeed has its own
        assert cfg.optim_wrapper.type is (DeepSpeedOptimWrapper if zero else mixed_precision)
    assert 'apex' not in file.read_text()


def test_model_ema_is_one_option(tmp_path: Path) -> None:
    """The command in configs/classification/README.md."""
    line = 'default_hooks.ema.type=EMAHook default_hooks.ema.momentum=0.0001'
    assert line in (ROOT / 'configs/classification/README.md').read_text()
    options = {k: DictAction._parse_iterable(v) for k, v in (o.split('=') for o in line.split())}
    cfg = Config.fromfile(ROOT / 'configs/classification/beitv2_tiny_1xb32_8e_cifar10.py')
    cfg.merge_from_dict(options)
    cfg.model.backbone.init_cfg = None
    cfg.update(work_dir=str(tmp_path), experiment_name=tmp_path.name)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.update(data_root=str(ROOT / 'tests/data/cifar10'), val_per_class=1)
        loader.update(num_workers=0, batch_size=10)
    cfg.train_dataloader.dataset.samples_per_class = 1
    cfg.test_dataloader.dataset.val_per_class = 0
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    runner = Runner.from_cfg(cfg)
    runner.train()
    hook = next(h for h in runner.hooks if isinstance(h, EMAHook))
    assert hook.ema_model.momentum == 0.0001
    assert 'ema_state_dict' in torch.load(tmp_path / 'epoch_1.pth', weights_only=True)
