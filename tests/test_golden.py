"""Every golden case of a folder: ``pytest tests/test_golden.py --golden DIR``.

The check follows from the case's name, all sizes from its settings.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import nn

from beitv2_mm.checkpoint import adapt, official_name
from beitv2_mm.engine import WarmupCosineLR
from beitv2_mm.layers import VectorQuantizer, spherical_kmeans
from beitv2_mm.models import BEiTV2Backbone
from golden.golden import Case
from support.golden_masks import assert_same_statistics, draw_masks
from support.golden_networks import (
    assert_close,
    check_attention_map,
    check_backbone,
    check_mim,
    check_segmentation_pyramid,
    check_teacher,
    check_tokenizer,
    tensor,
    tensors,
)

CONFIGS = Path(__file__).parents[1] / 'configs'


def check_bias_table_resize(case: Case) -> None:
    settings = case.settings
    heads = settings['num_heads']
    model = BEiTV2Backbone(
        arch=dict(embed_dims=heads, num_layers=settings['depth'], num_heads=heads),
        img_size=settings['target_grid'],
        patch_size=1,
        position='layerwise',
    )
    adapted, report = adapt(tensors(case), model)
    assert set(adapted) == set(case.expected) == set(report.resized)
    for name, expected in case.expected.items():
        assert_close(adapted[name], expected)


def check_block_mask_statistics(case: Case) -> None:
    draws = case.settings['draws']
    assert_same_statistics(draw_masks(case.settings), case.expected, draws)


def check_kmeans(case: Case) -> None:
    samples = nn.functional.normalize(tensor(case, 'samples'), dim=1)
    start = samples[: case.settings['num_clusters']]
    centroids, counts = spherical_kmeans(samples, start, case.settings['iterations'])
    assert_close(centroids, case.expected['centroids'])
    np.testing.assert_array_equal(counts.cpu().numpy(), case.expected['counts'])


def check_learning_rate_schedule(case: Case) -> None:
    settings = case.settings
    epochs, length = settings['epochs'], settings['iterations_per_epoch']
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=settings['base'])
    scheduler = WarmupCosineLR.build_iter_from_epoch(
        optimizer,
        warmup=settings['warmup_epochs'],
        start_lr=settings['warmup_start'],
        min_lr=settings['final'],
        end=epochs,
        epoch_length=length,
    )
    rates = []
    for _ in range(epochs * length):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(rates, case.expected['lr'], rtol=1e-4)


def check_param_groups(case: Case) -> None:
    """The optimizer groups of the config files, on a network of the reference's full size."""
    settings, task = case.settings, case.name.split('_')[2]
    pattern = {
        'finetune': f'classification/beitv2_{settings["arch"]}_8xb128_*e_in1k.py',
        'pretrain': f'pretrain/beitv2_{settings["arch"]}_*_300e_in1k.py',
        'segment': f'segmentation/beitv2_{settings["arch"]}_*_ade20k_512.py',
    }[task]
    config = Config.fromfile(next(CONFIGS.glob(pattern)))
    wrapper = config.optim_wrapper
    wrapper.type = OptimWrapper  # mixed precision wants a GPU; the groups are the same
    wrapper.optimizer.weight_decay = settings['weight_decay']
    if settings['layer_decay'] != 1:
        wrapper.paramwise_cfg.layer_decay_rate = settings['layer_decay']
    from mmpretrain.registry import MODELS

    with torch.device('meta'):
        model = MODELS.build(config.model)
    optimizer = build_optim_wrapper(model, wrapper).optimizer
    names = {id(p): official_name(name) for name, p in model.named_parameters()}
    groups = {
        names[id(p)]: (group['lr'] / wrapper.optimizer.lr, group['weight_decay'])
        for group in optimizer.param_groups
        for p in group['params']
    }
    golden_names = list(case.expected['names'])
    if task == 'segment':  # the case keeps the prefix, and one layer stands for the heads
        golden_names = [
            name.removeprefix('backbone.').replace('decode_head.', 'decode_head.conv_seg.')
            for name in golden_names
        ]
        assert set(groups) >= set(golden_names)
        others = {name for name in groups if '_head.' not in name} - set(golden_names)
        assert not others
    else:
        assert set(groups) == set(golden_names)
    for name, scale, decay in zip(
        golden_names,
        case.expected['lr_scale'],
        case.expected['weight_decay'],
        strict=True,
    ):
        assert groups[name] == pytest.approx((scale, decay), rel=1e-6), name


def check_quantizer(case: Case) -> None:
    settings = case.settings
    model = VectorQuantizer(
        settings['num_codes'], settings['dim'], settings['decay'], settings['beta']
    )
    model.load_state_dict({'embedding.weight': tensors(case)['codebook']}, strict=False)
    upstream = tensor(case, 'upstream')
    for step in range(sum(name.startswith('latents') for name in case.inputs)):
        maps = tensor(case, f'latents{step}').requires_grad_()  # (B, d, rows, columns)
        out = model(maps.flatten(2).transpose(1, 2))
        np.testing.assert_array_equal(out.codes.flatten().cpu(), case.expected[f'codes{step}'])
        quantized = out.quantized.transpose(1, 2).view_as(maps)
        assert_close(quantized, case.expected[f'quantized{step}'])
        assert_close(out.commitment_loss, case.expected[f'loss{step}'])
        ((quantized * upstream).sum() + out.commitment_loss).backward()
        assert_close(maps.grad, case.expected[f'grad{step}'], rtol=1e-3)
        assert_close(model.embedding.weight, case.expected[f'codebook{step}'])
        assert_close(model.cluster_size, case.expected[f'usage{step}'])


CHECKS: dict[str, Callable[..., None]] = {
    'attention_map': check_attention_map,
    'backbone_': check_backbone,
    'bias_table_resize_': check_bias_table_resize,
    'block_mask_statistics': check_block_mask_statistics,
    'kmeans_': check_kmeans,
    'learning_rate_schedule': check_learning_rate_schedule,
    'mim_': check_mim,
    'param_groups_finetune_': check_param_groups,
    'param_groups_pretrain_': check_param_groups,
    'param_groups_segment_': check_param_groups,
    'quantizer_': check_quantizer,
    'segmentation_pyramid': check_segmentation_pyramid,
    'teacher_': check_teacher,
    'tokenizer_': check_tokenizer,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    folder = Path(metafunc.config.getoption('--golden'))
    files = sorted(folder.glob('*.npz'))
    if not files:
        raise pytest.UsageError(f'--golden {folder} holds no cases (*.npz).')
    metafunc.parametrize('path', files, ids=[path.stem for path in files])


def test_golden(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(path)
    matches = [prefix for prefix in CHECKS if case.name.startswith(prefix)]
    assert matches, f'No check knows the case {case.name}.'
    check = CHECKS[max(matches, key=len)]
    if check is check_tokenizer:
        check(case, monkeypatch)
    else:
        check(case)
