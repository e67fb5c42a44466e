"""Checks of golden cases that are networks; tests/test_golden.py runs them."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from beitv2_mm.checkpoint import adapt, official_name
from beitv2_mm.layers.attention_maps import attention_probabilities, mass_mask, query_map
from beitv2_mm.models import BEiTV2Backbone, BEiTV2Pretrainer, TimmTeacher, VQKDTokenizer
from beitv2_mm.models.aggregation_neck import PatchAggregationNeck
from beitv2_mm.models.mim_head import MIMHead
from golden.golden import Case


def assert_close(actual: Tensor, expected: np.ndarray, rtol: float = 1e-4) -> None:
    atol = 1e-5 if actual.device.type == 'cpu' else 3e-5  # other devices sum in another order
    np.testing.assert_allclose(actual.detach().cpu().numpy(), expected, rtol=rtol, atol=atol)


def tensors(case: Case) -> dict[str, Tensor]:
    return {name: torch.as_tensor(value) for name, value in case.state_dict().items()}


def tensor(case: Case, name: str) -> Tensor:
    return torch.as_tensor(case.input(name))


def load_all(module: nn.Module, case: Case) -> None:
    """Loads the reference's weights through the adapter; every one must find its place."""
    adapted, report = adapt(tensors(case), module)
    own_state = ('initialized', 'cluster_size', 'idle_steps')
    missing = [name for name in report.missing if not name.endswith(own_state)]
    assert not missing and not report.resized and not report.dropped
    assert all(name.startswith(('head.', 'lm_head.')) for name in report.unexpected)
    module.load_state_dict(adapted, strict=False)


def backbone_config(settings: dict) -> dict:
    """The reference's words for a network -> ours."""
    position = 'absolute'
    if settings.get('use_shared_rel_pos_bias'):
        position = 'shared'
    elif settings.get('use_rel_pos_bias'):
        position = 'layerwise'
    return dict(
        arch=dict(
            embed_dims=settings['embed_dim'],
            num_layers=settings['depth'],
            num_heads=settings['num_heads'],
            mlp_ratio=settings['mlp_ratio'],
        ),
        img_size=settings['img_size'],
        patch_size=settings['patch_size'],
        in_channels=settings['in_chans'],
        position=position,
        layer_scale_init_value=settings['init_values'],
    )


def check_gradients(model: nn.Module, case: Case) -> None:
    gradients = {official_name(name): p.grad for name, p in model.named_parameters()}
    expected = {name: value for name, value in case.expected.items() if name.startswith('grad.')}
    assert expected
    for name, value in expected.items():
        assert_close(gradients[name.removeprefix('grad.')], value, rtol=1e-3)


def check_backbone(case: Case) -> None:
    settings, image = case.settings, tensor(case, 'image')
    config = backbone_config(settings)
    out_type = 'avg_featmap' if settings['use_mean_pooling'] else 'cls_token'
    model = BEiTV2Backbone(**config, out_type=out_type).eval()
    load_all(model, case)
    pooled = model(image)[-1]
    assert_close(pooled, case.expected['pooled'])
    weights = tensors(case)
    logits = nn.functional.linear(pooled, weights['head.weight'], weights['head.bias'])
    assert_close(logits, case.expected['logits'])
    assert_close(model.forward_patches(image), case.expected['patch_tokens'])
    raw = BEiTV2Backbone(
        **config, out_type='raw', final_norm=False, out_indices=range(settings['depth'])
    ).eval()
    raw.load_state_dict(adapt(tensors(case), raw)[0])
    for i, block in enumerate(raw(image)):
        assert_close(block[:, 1:], case.expected[f'block{i}'])


def check_attention_map(case: Case) -> None:
    settings, image = case.settings, tensor(case, 'image')
    model = BEiTV2Backbone(**backbone_config(settings), out_type='raw', with_mask_token=True).eval()
    load_all(model, case)
    rows, columns = (side // settings['patch_size'] for side in image.shape[-2:])
    attention = attention_probabilities(model, image)
    assert_close(attention, case.expected['attention'])
    maps = query_map(
        attention[0], (rows, columns), settings['selected_row'], settings['selected_col']
    )
    assert_close(maps, case.expected['map'])
    mask = mass_mask(maps, settings['threshold'])
    np.testing.assert_array_equal(mask.cpu().numpy(), case.expected['mask'])
    resized = BEiTV2Backbone(
        **{**backbone_config(settings), 'img_size': image.shape[-2:]},
        out_type='raw',
        with_mask_token=True,
    )
    adapted, report = adapt(tensors(case), resized)
    assert list(report.resized) == ['pos_embed']
    assert_close(adapted['pos_embed'], case.expected['pos_embed'])


def check_mim(case: Case) -> None:
    settings = case.settings
    config = backbone_config(settings)
    aggregates = 'early_layers' in settings
    separate = aggregates and not settings['shared_lm_head']
    neck = dict(
        type=PatchAggregationNeck,
        arch=config['arch'],
        early_layer=settings.get('early_layers'),
        num_layers=settings.get('head_layers'),
        layer_scale_init_value=settings['init_values'],
        separate_norm=separate,
    )
    model = BEiTV2Pretrainer(
        backbone=dict(type=BEiTV2Backbone, **config, out_type='raw', with_mask_token=True),
        neck=neck if aggregates else None,
        head=dict(
            type=MIMHead,
            embed_dims=settings['embed_dim'],
            num_codes=settings['vocab_size'],
            separate_head=separate,
        ),
        tokenizer=dict(type=VQKDTokenizer),
    )
    load_all(model, case)
    mask = tensor(case, 'mask')
    codes = (settings['vocab_size'] * tensor(case, 'codes')).long()[mask]
    logits = model.head(**model.masked_tokens(tensor(case, 'image'), mask))
    losses = model.head.loss(logits, codes)
    assert len(logits) == 1 + aggregates
    for i, branch in enumerate(logits):
        assert_close(logits[branch], case.expected[f'logits{i}'])
        assert_close(losses[f'loss_{branch}'], case.expected[f'loss{i}'])
    sum(losses[f'loss_{branch}'] for branch in logits).backward()
    check_gradients(model, case)


def check_segmentation_pyramid(case: Case) -> None:
    from beitv2_mm.segmentation import BEiTV2UPerHead

    settings, image = case.settings, tensor(case, 'image')
    backbone = BEiTV2Backbone(
        **backbone_config(settings), out_type='featmap', out_indices=settings['out_indices']
    )
    head = BEiTV2UPerHead(
        in_channels=[settings['embed_dim']] * 4,
        patch_size=settings['patch_size'],
        channels=8,
        num_classes=3,
    )
    model = nn.ModuleDict(dict(backbone=backbone, decode_head=head)).eval()
    adapted, report = adapt(tensors(case), model)
    assert not report.unexpected and not report.resized and not report.dropped
    rescales = [name for name in report.loaded if name.startswith('decode_head.')]
    assert rescales and all('.fpn' in name for name in rescales)
    model.load_state_dict(adapted, strict=False)
    maps = head.rescale(backbone(image))
    assert len(maps) == len(case.expected)
    for stride, level in zip((4, 8, 16, 32), maps, strict=True):
        assert_close(level, case.expected[f'stride{stride}'])


def check_teacher(case: Case) -> None:
    settings = case.settings
    clip = 'output_dim' in settings
    teacher = TimmTeacher(
        'vit_base_patch16_clip_quickgelu_224.openai' if clip else 'vit_base_patch16_224.dino',
        checkpoint=tensors(case),
        projection=clip,
        model_kwargs=dict(
            embed_dim=settings['width'],
            depth=settings['layers'],
            num_heads=settings['heads'],
            patch_size=settings['patch_size'],
            img_size=settings['img_size'],
            num_classes=settings['output_dim'] if clip else 0,
        ),
    ).eval()
    image = tensor(case, 'image')
    side = settings['img_size'] // settings['patch_size']
    assert_close(teacher(image, (side, side)), case.expected['target'])


def check_tokenizer(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = case.settings
    model = VQKDTokenizer(
        encoder=backbone_config(settings['encoder']),
        decoder=backbone_config(settings['decoder']),
        quantizer=dict(
            num_codes=settings['n_embed'],
            dim=settings['embed_dim'],
            decay=settings['decay'],
            beta=settings['beta'],
        ),
        target_dims=settings['decoder_out_dim'],
    ).eval()
    load_all(model, case)
    # The case gives the regression target as numbers, not as a network.
    monkeypatch.setattr(model, 'target', lambda image, grid: tensor(case, 'teacher'))
    image = tensor(case, 'image')
    latents = model.encode(image)
    assert_close(latents, case.expected['latents'])
    np.testing.assert_array_equal(model.get_codes(image).cpu(), case.expected['codes'])
    quantized = model.quantize(latents)
    expected = case.expected['quantized']  # (B, d, rows, columns)
    assert_close(quantized.quantized.transpose(1, 2).reshape(expected.shape), expected)
    grid = expected.shape[-2:]
    assert_close(model.decode(quantized.quantized, grid), case.expected['reconstruction'])
    for mode, prefix in ((False, ''), (True, 'train.')):
        losses = model.train(mode).loss(image)
        assert_close(losses['loss_commitment'], case.expected[f'{prefix}commitment_loss'])
        assert_close(losses['loss_cosine'], case.expected[f'{prefix}reconstruction_loss'])
    (losses['loss_commitment'] + losses['loss_cosine']).backward()
    assert_close(model.quantize.embedding.weight, case.expected['train.codebook'])
    check_gradients(model, case)
