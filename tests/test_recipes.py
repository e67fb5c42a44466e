"""Every number of the reference's recipes, compared with what the configs build."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from timm.layers import DropPath
from torch import nn

from beitv2_mm.checkpoint import to_official
from beitv2_mm.models.pretrainer import IMAGENET_MEAN, IMAGENET_STD
from golden.golden import load
from support.reference import (
    CONFIGS,
    DEPTHS,
    EPOCH,
    FINE_TUNINGS,
    MIM,
    MIMS,
    OFFICIAL,
    TOKENIZERS,
    WIDTHS,
    FineTuning,
    Tokenizer,
    block_parameters,
    count,
    full_size,
    learning_rates,
    optimizer_groups,
    read,
    transforms,
)

pytestmark = pytest.mark.cpu_only(reason='settings and sizes, nothing is computed')

MEAN_STD = torch.tensor([(0.485, 0.456, 0.406), (0.229, 0.224, 0.225)])
TABLE = 27 * 27 + 3  # rows of the bias table of 14 x 14 patches
CLIP_CHECKPOINT = f'{OFFICIAL}vqkd_encoder_base_decoder_3x768x12_clip-d5036aa7.pth'


def stem(recipe: tuple) -> str:
    return recipe.file


def assert_schedule(
    cfg: Config, lr: float, warmup: int, epochs: int, final: float, scale: float = 1.0
) -> None:
    assert cfg.train_cfg.max_epochs == epochs
    assert cfg.optim_wrapper.optimizer.lr == lr
    rates = learning_rates(cfg, scale)
    first, last = warmup * EPOCH, epochs * EPOCH
    middle = (first + last) // 2
    share = (1 + math.cos(math.pi * (middle - first) / (last - first))) / 2
    near_end = (1 + math.cos(math.pi * (last - 1 - first) / (last - first))) / 2
    expected = {
        0: 1e-6,
        first - 1: lr,
        first: lr,
        middle: final + share * (lr - final),
        last - 1: final + near_end * (lr - final),
    }
    for iteration, rate in expected.items():
        assert rates[iteration] == pytest.approx(scale * rate, rel=2e-3), iteration
    assert len(rates) == last


def assert_batch(cfg: Config, gpus: int, batch: int) -> None:
    assert cfg.train_dataloader.batch_size == batch
    assert cfg.auto_scale_lr.base_batch_size == gpus * batch
    assert f'_{gpus}xb{batch}_' in Path(cfg.filename).stem


def assert_decay(groups: dict[str, dict], model: nn.Module, decay: float) -> None:
    parameters = to_official(dict(model.named_parameters()))
    shapes = {name: p.shape for name, p in parameters.items() if p.requires_grad}
    assert set(groups) == set(shapes)
    for name, group in groups.items():
        plain = len(shapes[name]) == 1 or name.split('.')[-1] in ('cls_token', 'pos_embed')
        assert group['weight_decay'] == (0 if plain else decay), name


def drop_rates(blocks: nn.ModuleList) -> list[float]:
    return [b.drop_path.drop_prob if isinstance(b.drop_path, DropPath) else 0.0 for b in blocks]


def golden_names(case: str) -> set[str]:
    return {re.sub(r'\.\d+\.', '.0.', name) for name in load(case).shapes}


def own_names(model: nn.Module, buffers: bool = False) -> set[str]:
    names = model.state_dict() if buffers else dict(model.named_parameters())
    return {re.sub(r'\.\d+\.', '.0.', name) for name in to_official(names)}


@pytest.mark.parametrize('recipe', TOKENIZERS, ids=stem)
def test_tokenizer(recipe: Tokenizer) -> None:
    cfg = read('pretrain', recipe.file)
    model = full_size(cfg)
    groups = optimizer_groups(cfg, model)
    assert_decay(groups, model, 1e-4)
    assert all(g['betas'] == (0.9, 0.99) for g in groups.values())
    assert not cfg.optim_wrapper.get('clip_grad')
    assert_schedule(cfg, 5e-5, 10, 100, 1e-5)
    assert_batch(cfg, 8, 64)

    assert (model.quantize.num_codes, model.quantize.dim) == (8192, 32)
    assert (model.quantize.decay, model.quantize.beta) == (0.99, 1.0)
    assert cfg.model.quantizer.kmeans_init and not cfg.model.quantizer.get('revive_after')
    assert (cfg.model.teacher.model, model.target_dims) == (recipe.teacher, recipe.dims)
    assert bool(cfg.model.teacher.get('projection')) is recipe.projection
    assert len(model.decoder.blocks) == recipe.decoder_blocks
    assert model.decoder.patch_size == (1, 1) and model.decoder.in_channels == 32
    assert drop_rates(model.encoder.blocks) == [0] * 12

    crop = transforms(cfg.train_pipeline)['RandomResizedCrop']
    assert (crop.scale, crop.crop_ratio_range, crop.interpolation) == (224, (0.08, 1), 'bicubic')
    assert list(transforms(cfg.train_pipeline)) == [
        'LoadImageFromFile',
        'RandomResizedCrop',
        'RandomFlip',
        'PackInputs',
    ]


@pytest.mark.parametrize('recipe', TOKENIZERS, ids=stem)
def test_tokenizer_parameters(recipe: Tokenizer) -> None:
    model = full_size(read('pretrain', recipe.file))
    dims, patches = 768, 196
    ends = dims + (1 + patches) * dims + 2 * dims  # CLS, positions, norm
    blocks = 12 * block_parameters(dims, layer_scale=False)
    assert count(model.encoder) == (3 * 16 * 16 * dims + dims) + ends + blocks
    blocks = recipe.decoder_blocks * block_parameters(dims, layer_scale=False)
    assert count(model.decoder) == (32 * dims + dims) + ends + blocks
    names = {n for n in own_names(model, buffers=True) if not n.startswith('quantize.')}
    assert names == {n for n in golden_names('tokenizer_vqkd') if not n.startswith('quantize.')}


@pytest.mark.parametrize('recipe', MIMS, ids=stem)
def test_mim(recipe: MIM) -> None:
    cfg = read('pretrain', recipe.file)
    model = full_size(cfg)
    groups = optimizer_groups(cfg, model)
    assert_decay(groups, model, 0.05)
    assert all(g['betas'] == (0.9, recipe.beta2) for g in groups.values())
    assert {g['lr'] for g in groups.values()} == {1.5e-3}
    assert cfg.optim_wrapper.clip_grad == dict(max_norm=3.0)
    assert_schedule(cfg, 1.5e-3, 10, recipe.epochs, 1e-5)
    assert_batch(cfg, recipe.gpus, recipe.batch)
    assert recipe.gpus * recipe.batch == 2048

    depth, dims = DEPTHS[recipe.arch], WIDTHS[recipe.arch]
    rates = np.linspace(0, recipe.drop_path, depth)
    assert drop_rates(model.backbone.blocks) == pytest.approx(rates)
    assert (model.backbone.position, model.backbone.layer_scale) == (
        'shared',
        0.1 if recipe.arch == 'base' else 1e-5,
    )
    parameters = 3 * 256 * dims + dims + 2 * dims + TABLE * model.backbone.num_heads + 2 * dims
    blocks = depth
    if recipe.early is None:
        assert model.neck is None
    else:
        assert model.neck.early_layer == recipe.early
        assert drop_rates(model.neck.cls_pt_layers) == pytest.approx(rates[recipe.early :][:2])
        blocks += 2
    parameters += blocks * block_parameters(dims) + dims * 8192 + 8192
    assert count(model) == parameters
    case = 'mim_shared_head' if recipe.early else 'mim_without_aggregation'
    assert own_names(model) == golden_names(case)

    assert cfg.model.tokenizer.init_cfg.checkpoint == CLIP_CHECKPOINT
    assert cfg.model.tokenizer.decoder.arch.num_layers == 3
    assert (model.head.num_codes, cfg.model.tokenizer.quantizer.num_codes) == (8192, 8192)
    torch.testing.assert_close(torch.tensor([IMAGENET_MEAN, IMAGENET_STD]), MEAN_STD)
    assert not {'mean', 'std'} & set(cfg.model)

    steps = transforms(cfg.train_pipeline)
    jitter, crop, mask = steps['ColorJitter'], steps['RandomResizedCrop'], steps['BlockwiseMask']
    assert [jitter[k] for k in ('brightness', 'contrast', 'saturation', 'hue')] == [0.4] * 3 + [0]
    assert (crop.scale, crop.crop_ratio_range, crop.interpolation) == (224, (0.2, 1), 'bicubic')
    assert steps['RandomFlip'].prob == 0.5
    assert (mask.patch_size, mask.num_masked, mask.min_block, mask.min_aspect) == (16, 75, 16, 0.3)
    assert [t['type'].__name__ for t in cfg.val_evaluator] == ['MIMMetric', 'KNNMetric']


@pytest.mark.parametrize('recipe', FINE_TUNINGS, ids=stem)
def test_fine_tuning(recipe: FineTuning) -> None:
    cfg = read('classification', recipe.file)
    model = full_size(cfg)
    groups = optimizer_groups(cfg, model)
    assert_decay(groups, model, 0.05)
    depth, dims = DEPTHS[recipe.arch], WIDTHS[recipe.arch]
    for name, group in groups.items():
        layer = depth + 1
        if name.startswith(('patch_embed', 'cls_token')):
            layer = 0
        elif name.startswith('blocks.'):
            layer = int(name.split('.')[1]) + 1
        scale = recipe.layer_decay ** (depth + 1 - layer)
        assert group['lr'] == pytest.approx(recipe.lr * scale), name
        assert group['betas'] == (0.9, 0.999)
    assert_schedule(cfg, recipe.lr, recipe.warmup, recipe.epochs, 1e-6)
    assert_schedule(cfg, recipe.lr, recipe.warmup, recipe.epochs, 1e-6, recipe.layer_decay**5)
    assert_batch(cfg, recipe.gpus, recipe.batch)
    assert not cfg.optim_wrapper.get('clip_grad')

    rates = np.linspace(0, recipe.drop_path, depth)
    assert drop_rates(model.backbone.blocks) == pytest.approx(rates)
    assert cfg.model.backbone.init_cfg.checkpoint == f'{OFFICIAL}{recipe.start}.pth'
    augments = (cfg.model.train_cfg or {}).get('augments', [])
    alphas = {a['type'].__name__: a['alpha'] for a in augments}
    expected = {'Mixup': recipe.mixup, 'CutMix': recipe.cutmix}
    assert alphas == {name: alpha for name, alpha in expected.items() if alpha}
    assert cfg.model.data_preprocessor.num_classes == model.head.num_classes == recipe.classes
    assert cfg.model.head.loss.label_smooth_val == 0.1
    assert cfg.model.head.init_cfg.std == pytest.approx(2e-5)
    mean, std = (torch.tensor(cfg.model.data_preprocessor[k]) / 255 for k in ('mean', 'std'))
    torch.testing.assert_close(torch.stack([mean, std]), MEAN_STD)

    published = {'base': 86.5e6, 'large': 304e6}[recipe.arch]
    assert count(model) - (recipe.classes - 1000) * (dims + 1) == pytest.approx(published, rel=5e-3)

    steps = transforms(cfg.train_pipeline)
    crop, erase = steps['RandomResizedCrop'], steps['RandomErasing']
    assert (crop.scale, crop.get('crop_ratio_range', (0.08, 1))) == (224, (0.08, 1))
    assert crop.interpolation == 'bicubic'
    assert (erase.erase_prob, erase.mode) == (0.25, 'rand')
    augment = steps['RandAugment']
    assert (augment.magnitude_level, augment.total_level, augment.magnitude_std) == (9, 10, 0.5)
    assert (augment.num_policies, augment.policies) == (2, 'timm_increasing')
    if recipe.classes == 1000:
        test = transforms(cfg.test_dataloader.dataset.pipeline)
        resize = test['ResizeEdge']
        assert (resize.scale, resize.edge, resize.interpolation) == (256, 'short', 'bicubic')
        assert test['CenterCrop'].crop_size == 224
        assert cfg.test_evaluator.topk == (1, 5)


@pytest.mark.parametrize('arch', ['base', 'large'])
def test_384_pixels_need_no_crop(arch: str) -> None:
    cfg = read('classification', f'beitv2_{arch}_16xb32_20e_in1k_384px')
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        steps = transforms(loader.dataset.pipeline)
        assert list(steps) == ['LoadImageFromFile', 'Resize', 'PackInputs']
        assert (steps['Resize'].scale, steps['Resize'].interpolation) == ((384, 384), 'bicubic')
    train = transforms(cfg.train_dataloader.dataset.pipeline)
    assert train['RandomResizedCrop'].scale == 384
    model = full_size(cfg)
    assert model.backbone.grid == (24, 24)
    assert cfg.load_from == f'{OFFICIAL}beitv2_{arch}_patch16_224_pt1k_ft21kto1k.pth'
    assert_batch(cfg, 16, 32)


@pytest.mark.parametrize('arch', ['base', 'large'])
def test_linear_probe_trains_one_layer(arch: str) -> None:
    cfg = read('classification', f'linear_{arch}_8xb128_50e_in1k')
    model = full_size(cfg)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained == ['head.fc.weight', 'head.fc.bias']
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
    groups = optimizer_groups(cfg, model)
    assert groups['head.weight']['weight_decay'] == 0
    assert list(transforms(cfg.train_dataloader.dataset.pipeline)) == [
        'LoadImageFromFile',
        'RandomResizedCrop',
        'RandomFlip',
        'PackInputs',
    ]


@pytest.mark.parametrize(
    'file',
    sorted(f for d in ('pretrain', 'classification') for f in (CONFIGS / d).glob('*.py')),
    ids=lambda file: file.stem,
)
def test_every_config_builds_at_full_size(file: Path) -> None:
    model = full_size(Config.fromfile(file))
    backbone = model.encoder if hasattr(model, 'encoder') else model.backbone
    arch = next((a for a in WIDTHS if f'_{a}_' in file.stem), None)
    if arch is not None:
        assert (backbone.embed_dims, len(backbone.blocks)) == (WIDTHS[arch], DEPTHS[arch])


@pytest.mark.parametrize('recipe', FINE_TUNINGS[:6], ids=stem)
def test_evaluation_config_tests_as_the_recipe_does(recipe: FineTuning) -> None:
    cfg = read('classification', recipe.file)
    evaluation = read('classification', f'beitv2_{recipe.arch}_8xb128_eval_in1k')
    assert evaluation.train_dataloader is None and evaluation.train_cfg is None
    assert evaluation.test_dataloader == cfg.test_dataloader
    assert evaluation.test_evaluator == cfg.test_evaluator
    weights = (full_size(c).state_dict() for c in (cfg, evaluation))
    shapes = [{name: value.shape for name, value in w.items()} for w in weights]
    assert shapes[0] == shapes[1]
