"""Official names -> names and tensors in the layouts to which files are converted."""

import re
from collections.abc import Callable, Container
from typing import Literal

from torch import Tensor

from beitv2_mm.checkpoint.mismatch import num_blocks
from beitv2_mm.checkpoint.names import (
    BIAS_TABLE,
    INITIALIZED,
    SEGMENTATION_HEADS,
    SHARED_TABLE,
    Kind,
)
from beitv2_mm.checkpoint.transformers_names import to_transformers
from beitv2_mm.compat.safe_load import CheckpointError

Format = Literal['beitv2_mm', 'official', 'timm', 'mmpretrain', 'transformers']


def target_tensors(
    name: str, value: Tensor, kind: Kind, to: Format, names: Container[str]
) -> list[tuple[str, Tensor]]:
    """The names and tensors that represent one official tensor in the layout ``to``.

    Args:
        names: all official names of the checkpoint.

    Returns:
        One pair, several if the tensor is copied or split, none if the layout has no place for it.
    """
    if to == 'transformers':
        return to_transformers(name, value, kind)
    if to == 'timm' and name == SHARED_TABLE:
        return [(f'blocks.{i}.attn.{BIAS_TABLE}', value) for i in range(num_blocks(names))]
    if name == INITIALIZED:
        if value.numel() != 1:
            raise CheckpointError(f'{name} has {value.numel()} values; expected one.')
        value = value.flatten()[0].bool() if to == 'beitv2_mm' else value.reshape(1).float()
    target = _NAMES[to](name, kind)
    if to == 'mmpretrain' and target and 'cls_pt_layers.0.norm1.weight' in names:
        target = target.replace('backbone.ln1.', 'neck.norm.')  # there the neck has the final norm
    return [] if target is None else [(target, value)]


def _beitv2_mm_name(name: str, kind: Kind) -> str | None:
    if kind == 'tokenizer':
        return 'quantize.initialized' if name == INITIALIZED else name
    if kind == 'segmentor' and name.startswith('fpn'):
        return f'decode_head.{name}'
    if kind == 'backbone' or re.match(SEGMENTATION_HEADS, name):
        return name
    if name.startswith(('lm_head.', 'cls_pt_lm_head.')):
        return f'head.{name}'
    if name.startswith('head.'):
        return name.replace('head.', 'head.fc.', 1)
    if name.startswith(('cls_pt_layers.', 'cls_pt_norm.')):
        return f'neck.{name}'
    return f'backbone.{name}'


def _official_name(name: str, kind: Kind) -> str | None:
    if name == 'quantize.idle_steps' or name.startswith('target_norm.'):
        return None  # only our training needs it
    if kind == 'segmentor' and not re.match(SEGMENTATION_HEADS, name):
        return f'backbone.{name}'
    return name


def _timm_name(name: str, kind: Kind) -> str | None:
    pretraining = ('mask_token', 'lm_head.', 'cls_pt_')
    segmentation = ('fpn', 'decode_head.', 'auxiliary_head.')
    return None if name.startswith(pretraining + segmentation) else name


_TO_MMPRETRAIN = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r'(blocks|cls_pt_layers)\.(\d+)\.norm([12])\.', r'\1.\2.ln\3.'),
        (r'(blocks|cls_pt_layers)\.(\d+)\.mlp\.fc1\.', r'\1.\2.ffn.layers.0.0.'),
        (r'(blocks|cls_pt_layers)\.(\d+)\.mlp\.fc2\.', r'\1.\2.ffn.layers.1.'),
        (r'^((encoder|decoder)\.)?blocks\.', r'\1layers.'),
        (r'^((encoder|decoder)\.)?patch_embed\.proj\.', r'\1patch_embed.projection.'),
        (r'^(encoder|decoder)\.(fc_)?norm\.', r'\1.ln1.'),
        (r'^norm\.', 'ln1.'),
        (r'^fc_norm\.', 'ln2.'),
    )
)


_NOT_IN_MMPRETRAIN = (
    'auxiliary_head.',
    'cls_pt_lm_head.',
    'cls_pt_norm.',
    'decode_',
    'decoder.',
    'fpn',
    'quantize.idle_steps',
    'target_norm.',
)


def _mmpretrain_name(name: str, kind: Kind) -> str | None:
    if name.startswith(_NOT_IN_MMPRETRAIN):
        return None
    if name.startswith('lm_head.'):
        return name.replace('lm_head.', 'head.cls_head.', 1)
    if name.startswith('head.'):
        return name.replace('head.', 'head.fc.', 1)
    for pattern, replacement in _TO_MMPRETRAIN:
        name = pattern.sub(replacement, name)
    if name.startswith('cls_pt_layers.'):
        return name.replace('cls_pt_layers.', 'neck.patch_aggregation.', 1)
    return name if kind in ('tokenizer', 'backbone') else f'backbone.{name}'


_NAMES: dict[Format, Callable[[str, Kind], str | None]] = dict(
    beitv2_mm=_beitv2_mm_name,
    official=_official_name,
    timm=_timm_name,
    mmpretrain=_mmpretrain_name,
)
