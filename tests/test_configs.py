"""Every config file: made small, trained and evaluated by a real Runner, dumped and read again."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from mmengine.config import Config
from mmengine.config import config as mm_config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from yapf.yapflib.yapf_api import FormatCode

from beitv2_mm.registry import DATASETS
from support.recipes import recipe_files
from support.shrink import shrink
from support.tiny import CIFAR

ROOT = Path(__file__).parents[1]
FILES = sorted(
    file
    for folder in ('pretrain', 'classification', 'segmentation', 'generation')
    for file in (ROOT / 'configs' / folder).glob('*.py')
)


@pytest.fixture(autouse=True)
def log_files_are_closed() -> Iterator[None]:
    yield
    for logger in MMLogger._instance_dict.values():
        for handler in list(logger.handlers):
            handler.close()
            logger.removeHandler(handler)


def small(file: Path, folder: Path, **kwargs: int) -> Config:
    cfg = shrink(Config.fromfile(file), folder, **kwargs)
    cfg.experiment_name = f'{file.stem}_{folder.name}'  # runs of equal names share their state
    return cfg


def dumped(cfg: Config, folder: Path) -> Config:
    with patch.object(mm_config, 'FormatCode', FormatCode):  # as users get it
        cfg.dump(folder / 'dumped.py')
    again = Config.fromfile(folder / 'dumped.py')
    assert again.to_dict() == cfg.to_dict()
    return again


def test_deepspeed_config_survives_a_dump_and_asks_for_deepspeed(tmp_path: Path) -> None:
    """As far as it goes without DeepSpeed."""
    (file,) = (file for file in FILES if file.stem.endswith('_zero'))
    cfg = dumped(small(file, tmp_path), tmp_path)
    if find_spec('deepspeed') is None:
        with pytest.raises(AssertionError, match='DeepSpeed is not installed'):
            RUNNERS.build(cfg)


@pytest.mark.parametrize('file', recipe_files(f for f in FILES if not f.stem.endswith('_zero')))
def test_config_trains_validates_and_survives_a_dump(file: Path, tmp_path: Path) -> None:
    cfg = small(file, tmp_path)
    again = dumped(cfg, tmp_path)
    runner = Runner.from_cfg(again)
    if cfg.get('test_dataloader') is not None:
        assert_finite(runner.test())
    if cfg.get('train_dataloader') is None:
        return
    start = {name: value.clone() for name, value in runner.model.state_dict().items()}
    runner.train()
    assert runner.iter == 2
    if cfg.get('val_dataloader') is not None:
        assert_finite(runner.val_loop.run())
    log = runner.message_hub.log_scalars
    assert log['train/loss'].data[0].size == 2
    assert all(map(torch.isfinite, map(torch.tensor, log['train/loss'].data[0])))
    weights = runner.model.state_dict()
    assert any(not torch.equal(value, start[name]) for name, value in weights.items())
    assert not any('teacher' in name or 'tokenizer' in name for name in weights)


def assert_finite(metrics: dict[str, float]) -> None:
    assert metrics
    assert all(torch.isfinite(torch.tensor(value)) for value in metrics.values())


DETECTION = sorted((ROOT / 'configs/detection').glob('*.py')) if find_spec('mmdet') else []


@pytest.mark.parametrize('file', [*FILES, *DETECTION], ids=lambda file: file.stem)
def test_config_says_what_it_is(file: Path) -> None:
    """Name, header and base batch size as the design asks for them."""
    head = file.read_text().split('"""')[1]
    for word in ('Command:', 'Hardware:', 'Measured'):
        assert word in head, word
    cfg = Config.fromfile(file)
    assert cfg.default_scope is None
    processes, batch = next(part.split('xb') for part in file.stem.split('_') if 'xb' in part)
    if cfg.get('train_dataloader') is None:  # an evaluation
        assert cfg.test_dataloader.batch_size == int(batch)
        return
    assert cfg.train_dataloader.batch_size == int(batch)
    assert cfg.auto_scale_lr.base_batch_size == int(processes) * int(batch)


class Interrupt(Hook):
    def before_train_epoch(self, runner: Runner) -> None:
        if runner.epoch == 1:
            raise KeyboardInterrupt


def last_weights(cfg: Config, name: str, hooks: tuple[Hook, ...] = ()) -> dict[str, torch.Tensor]:
    cfg.experiment_name = name
    cfg.work_dir = str(Path(cfg.work_dir).parent / name.split('-')[0])
    runner = Runner.from_cfg(cfg)
    for hook in hooks:
        runner.register_hook(hook)
    runner.train()
    return runner.model.state_dict()


@pytest.mark.parametrize(
    'name',
    [
        'pretrain/vqkd_tiny_1xb64_cifar10',
        'pretrain/beitv2_tiny_1xb32_cifar10',
        'generation/pixel_decoder_small_1xb32_100e_folder',
        'generation/maskgit_tiny_1xb64_4e_cifar10',
    ],
)
def test_interrupted_and_resumed_equals_uninterrupted(name: str, tmp_path: Path) -> None:
    """Bit for bit, with workers, crops, masks, drop path, revived codes and the optimizer."""

    def recipe() -> Config:
        cfg = small(ROOT / f'configs/{name}.py', tmp_path)
        cfg.train_cfg.max_epochs = 2
        cfg.train_dataloader.update(num_workers=1)
        for part in ('backbone', 'neck', 'encoder', 'decoder'):
            if part in cfg.model:
                cfg.model[part].drop_path_rate = 0.5
        if 'quantizer' in cfg.model:
            cfg.model.quantizer.revive_after = 1
        return cfg

    whole = last_weights(recipe(), f'whole-{name}')
    with pytest.raises(KeyboardInterrupt):
        last_weights(recipe(), f'parts-{name}-1', (Interrupt(),))
    cfg = recipe()
    cfg.resume = True
    torch.manual_seed(123)  # the state at the start is not the uninterrupted run's
    resumed = last_weights(cfg, f'parts-{name}-2')
    assert whole.keys() == resumed.keys()
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key
    first = torch.load(tmp_path / 'parts/epoch_1.pth', weights_only=True)['state_dict']
    assert any(not torch.equal(value.cpu(), first[key]) for key, value in whole.items())


def test_config_runs_under_the_tool_of_mmpretrain(tmp_path: Path) -> None:
    """Its own tools/train.py, with nothing but --cfg-options to make it small."""
    spec = find_spec('mmpretrain')
    assert spec is not None and spec.origin is not None
    tool = Path(spec.origin).parent / '.mim/tools/train.py'
    options = [
        f'train_dataloader.dataset.data_root={CIFAR}',
        f'val_dataloader.dataset.data_root={CIFAR}',
        f'test_dataloader.dataset.data_root={CIFAR}',
        'train_dataloader.dataset.samples_per_class=1',
        'train_dataloader.dataset.val_per_class=1',
        'val_dataloader.dataset.val_per_class=1',
        'train_dataloader.batch_size=5',
        'train_dataloader.num_workers=0',
        'val_dataloader.batch_size=5',
        'model.backbone.init_cfg=None',
        'train_cfg.max_epochs=1',
        'train_cfg.val_interval=1',
    ]
    config = ROOT / 'configs/classification/beitv2_tiny_1xb32_8e_cifar10.py'
    done = subprocess.run(
        [sys.executable, tool, config, '--work-dir', tmp_path, '--cfg-options', *options],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'accuracy/top1' in done.stdout + done.stderr
    assert (tmp_path / 'epoch_1.pth').exists()


@pytest.mark.parametrize('file', (ROOT / 'configs/pretrain').glob('*_folder.py'), ids=str)
def test_folder_recipes_validate_on_what_they_do_not_train_on(file: Path) -> None:
    cfg = Config.fromfile(file)
    train, val, test = (cfg[f'{name}_dataloader'].dataset for name in ('train', 'val', 'test'))
    assert train.val_images == val.val_images == 2000 and val.subset == 'val' and test == val
    parts = []
    for config in (train, val):
        config.update(data_root=str(CIFAR), pipeline=[])
        data = DATASETS.build(config)
        parts.append({data.get_data_info(i)['img_path'] for i in range(len(data))})
    assert [len(part) for part in parts] == [18, 2] and not parts[0] & parts[1]
