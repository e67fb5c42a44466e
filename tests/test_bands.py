"""40 TIFFs of four bands through everything: the configs of docs/guides/images.md, made small, are
trained, resumed and used."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from beitv2_mm.apis import ClassificationInferencer, FeatureInferencer, SegmentationInferencer
from beitv2_mm.engine import launch, switches
from support.markdown import ROOT, blocks
from support.shrink import BATCH, DEPTH, PATCH, SIZE, shrink
from support.tiffs import write_tiff
from support.tiny import CIFAR

GUIDE = ROOT / 'docs/guides/images.md'
CLASSES = ('maize', 'wheat')
BANDS = 4


@pytest.fixture(scope='module')
def fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real pictures of 12 bits, and a fourth band that tells the two classes apart; and masks."""
    root = tmp_path_factory.mktemp('fields')
    pictures = sorted(CIFAR.glob('*/*.png'))
    for i in range(40):
        colours = np.asarray(Image.open(pictures[i // 2])).astype(np.uint16) * 16
        name, near_infrared = CLASSES[i % 2], np.full((32, 32), (1000, 3000)[i % 2])
        near_infrared[:16] += 95
        values = np.dstack([colours, near_infrared]).astype(np.uint16)
        for folder in (root / 'classes' / name, root / 'pairs/images'):
            folder.mkdir(parents=True, exist_ok=True)
            write_tiff(folder / f'{i:02d}.tif', values)
        (root / 'pairs/masks').mkdir(exist_ok=True)
        Image.fromarray(np.full((32, 32), i % 2, np.uint8)).save(root / f'pairs/masks/{i:02d}.png')
    return root


@pytest.fixture
def config(tmp_path: Path, fields: Path) -> Callable[..., Config]:
    """A config of the guide, by its file name, made small; its images are `fields`."""
    configs = Path(shutil.copytree(ROOT / 'configs', tmp_path / 'configs'))
    for code in blocks(GUIDE, 'python'):
        file = re.match(r'# configs/(\S+)', code)
        if file:
            (configs / file[1]).write_text(code)

    def load(name: str, data_root: Path) -> Config:
        (file,) = configs.glob(f'*/{name}.py')
        cfg = shrink(Config.fromfile(file), tmp_path, iterations=2)
        for hook in cfg.custom_hooks:
            if 'interval' in hook:
                hook.interval = 1  # pictures at every validation
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            loader.dataset.data_root = str(data_root)
            loader.dataset.indices = None
            loader.dataset.channels = BANDS
        cfg.work_dir = str(tmp_path / name)
        cfg.experiment_name = f'{name}_{tmp_path.name}'
        return cfg

    return load


def train_and_resume(cfg: Config) -> tuple[Runner, str]:
    """Two epochs, the second one in a run of its own; the runner and its checkpoint."""
    launch.build_runner(cfg.copy()).train()
    again = cfg.copy()
    if 'max_iters' in cfg.train_cfg:
        again.train_cfg.max_iters *= 2
    else:
        again.train_cfg.max_epochs = 2
    switches.set_resume(again, 'auto')
    again.experiment_name += '_resumed'
    runner = launch.build_runner(again)
    done: list[int] = []
    runner.call_hook = _watched(runner.call_hook, runner, done)
    runner.train()
    assert done[0] >= 2, 'it began from the start'
    losses = runner.message_hub.get_scalar('train/loss').current()
    assert np.isfinite(losses)
    last = sorted(Path(cfg.work_dir).glob('*.pth'), key=lambda path: path.stat().st_mtime)[-1]
    return runner, str(last)


def _watched(call_hook: Callable, runner: Runner, done: list[int]) -> Callable:
    def call(name: str, **kwargs: object) -> None:
        if name == 'before_train_iter':
            done.append(runner.iter)
        call_hook(name, **kwargs)

    return call


def test_tokenizer_pretraining_and_classifier(
    config: Callable[..., Config], fields: Path, tmp_path: Path, device: str
) -> None:
    cfg = config('my_tokenizer', fields / 'classes')
    assert cfg.model.teacher.channels == (0, 1, 2)
    runner, tokenizer = train_and_resume(cfg)
    assert runner.model.encoder.patch_embed.proj.weight.shape[1] == BANDS
    assert runner.train_dataloader.dataset.white == 4095
    log = '\n'.join(path.read_text() for path in Path(cfg.work_dir).glob('*/*.log'))
    assert 'of 36 sampled' not in log and 'values from 0 to 4080; white is 4095' in log
    seen, grid = [], (SIZE // PATCH, SIZE // PATCH)
    image = torch.rand(2, BANDS, SIZE, SIZE)
    other = torch.cat([image[:, :3], torch.rand(2, 1, SIZE, SIZE)], dim=1)
    for given in (image, other):  # the teacher does not see the fourth
        seen.append(runner.model.target(given, grid))
    assert torch.equal(*seen)
    assert not torch.equal(*(runner.model.encode(given) for given in (image, other)))

    cfg = config('my_pretraining', fields / 'classes')
    cfg.model.tokenizer.update(
        init_cfg=dict(type='Pretrained', checkpoint=tokenizer),
        target_dims=runner.model.target_dims,
    )
    cfg.train_dataloader.dataset.pipeline[0].to_float32 = True  # and bytes in the validation
    runner, pretrained = train_and_resume(cfg)
    images = next(iter(runner.train_dataloader))['inputs']
    assert images.dtype == torch.float32 and len(images.unique()) > 1000
    assert runner.model.mean.flatten().tolist() == pytest.approx([0.21, 0.24, 0.22, 0.41])
    cfg.dump(tmp_path / 'pretraining.py')
    example = str(next((fields / 'classes/wheat').iterdir()))
    tokens = FeatureInferencer(str(tmp_path / 'pretraining.py'), pretrained)(example)[0][0]
    assert tokens.shape == (1 + grid[0] * grid[1], 16)

    cfg = config('my_classifier', fields / 'classes')
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=pretrained)
    cfg.model.head.num_classes = cfg.model.data_preprocessor.num_classes = len(CLASSES)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.val_per_class = 2
    cfg.optim_wrapper.optimizer.lr = 0.01
    runner, trained = train_and_resume(cfg)
    cfg.dump(tmp_path / 'classifier.py')
    infer = ClassificationInferencer(str(tmp_path / 'classifier.py'), trained)
    results = infer([example, example])
    assert results[0]['pred_class'] in CLASSES
    assert np.array_equal(results[0]['pred_scores'], results[1]['pred_scores'])
    data = runner.val_dataloader.dataset
    expected = runner.model.eval().test_step(
        dict(inputs=data[0]['inputs'][None], data_samples=[data[0]['data_samples']])
    )[0]
    found = infer(data.get_data_info(0)['img_path'])[0]['pred_scores']
    # read by the white level that the checkpoint carries: the config says 'auto'
    assert np.allclose(found, expected.pred_score.detach().cpu().numpy(), atol=1e-5)


def test_segmentor(
    config: Callable[..., Config],
    fields: Path,
    tmp_path: Path,
) -> None:
    cfg = config('my_segmentor', fields / 'pairs')
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_prefix = dict(img_path='images', seg_map_path='masks')
        loader.dataset.classes = CLASSES
    cfg.val_dataloader.dataset.indices = BATCH
    cfg.model.backbone.init_cfg = None
    runner, trained = train_and_resume(cfg)
    assert runner.model.backbone.patch_embed.proj.weight.shape[1] == BANDS
    assert len(runner.model.backbone.blocks) >= DEPTH
    cfg.dump(tmp_path / 'segmentor.py')
    infer = SegmentationInferencer(str(tmp_path / 'segmentor.py'), trained)
    result = infer(str(fields / 'pairs/images/07.tif'))[0]
    assert result.labels.shape == (32, 32) and result.image.shape == (32, 32, 3)
    colours = np.asarray(Image.open(sorted(CIFAR.glob('*/*.png'))[3]))
    assert np.abs(result.image.astype(int) - colours * (16 * 255 / 4095)).max() <= 1


def test_mistakes_in_the_model_are_one_line(
    config: Callable[..., Config],
    fields: Path,
) -> None:
    cfg = config('my_tokenizer', fields / 'classes')
    cfg.model.teacher.channels = None
    with pytest.raises(ValueError, match='sees 3 channels, but the images have 4: say which'):
        launch.build_runner(cfg).train()
    cfg = config('my_tokenizer', fields / 'classes')
    cfg.experiment_name += '_2'
    cfg.model.encoder.in_channels = 3
    with pytest.raises(ValueError, match=r'\(B, 3, H, W\), but \(4, 4, 32, 32\) was given'):
        launch.build_runner(cfg).train()
    cfg = config('my_pretraining', fields / 'classes')
    cfg.model.mean = [0.5] * 3
    with pytest.raises(ValueError, match='have 4 channels .in_channels., but mean has 3 values'):
        launch.build_runner(cfg)
