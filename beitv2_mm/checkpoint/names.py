"""Maps the names of weights in timm, mmpretrain, mmseg and our own files to the official ones.

The official flat names are the common form for comparing and converting layouts.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from beitv2_mm.compat.safe_load import CheckpointError

StateDict = dict[str, Tensor]
Kind = Literal['tokenizer', 'pretraining', 'classifier', 'segmentor', 'backbone']

BIAS_TABLE = 'relative_position_bias_table'
SHARED_TABLE = f'rel_pos_bias.{BIAS_TABLE}'
CODEBOOK = 'quantize.embedding.weight'
INITIALIZED = 'quantize.embedding.initted'
MAX_EXPANDED = 1 << 30  # bytes of an expanded tensor, which is larger than its storage
SEGMENTATION_HEADS = r'(decode_head|auxiliary_head)\.'
HEADS = re.compile(rf'^(head|lm_head|cls_pt_lm_head|{SEGMENTATION_HEADS}conv_seg)\.')
# Buffers that follow from the settings, or that the reference quantizer writes and never reads.
DERIVED = re.compile(
    r'(^|\.)(relative_position_index|k_bias)$|^quantize\.embedding\.(cluster_size|embed_avg)$'
)

_TO_OFFICIAL = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # models of OpenMMLab nest what is flat in the official files
        (r'^module\.', ''),
        (r'^backbone\.', ''),
        (r'^neck\.', ''),
        (r'^head\.(fc|layers\.fc)\.', 'head.'),
        (r'^head\.((cls_pt_)?lm_head)\.', r'\1.'),
        (r'^quantize\.initialized$', INITIALIZED),
        # here the head rescales the features, in the official code the backbone
        (r'^decode_head\.(fpn[12])\.', r'\1.'),
        # names of mmpretrain and mmseg
        (r'^head\.cls_head\.', 'lm_head.'),
        (r'^patch_aggregation\.', 'cls_pt_layers.'),
        (r'^((encoder|decoder)\.)?layers\.(\d+)\.', r'\1blocks.\3.'),
        (r'^((encoder|decoder)\.)?patch_embed\.projection\.', r'\1patch_embed.proj.'),
        (r'(blocks|cls_pt_layers)\.(\d+)\.ln([12])\.', r'\1.\2.norm\3.'),
        (r'(blocks|cls_pt_layers)\.(\d+)\.ffn\.layers\.0\.0\.', r'\1.\2.mlp.fc1.'),
        (r'(blocks|cls_pt_layers)\.(\d+)\.ffn\.layers\.1\.', r'\1.\2.mlp.fc2.'),
        (r'^(encoder|decoder)\.ln[12]\.', r'\1.fc_norm.'),  # their only norm
        (r'^ln1\.', 'norm.'),
        (r'^ln2\.', 'fc_norm.'),
    )
)


def shown(names: Iterable[object], count: int = 3) -> str:
    """The first names, shortened and quoted: names in a hostile file could control a terminal."""
    names = list(names)
    first = [repr(str(name)[:80]) for name in names[:count]]
    return ', '.join(first) + (f' and {len(names) - count} more' if len(names) > count else '')


@lru_cache(maxsize=10_000)  # every ending of every name in a file is asked for
def official_name(name: str) -> str:
    """The official name of a parameter of any known layout.

    >>> official_name('backbone.layers.3.ln1.weight')  # mmpretrain's
    'blocks.3.norm1.weight'
    """
    for pattern, replacement in _TO_OFFICIAL:
        name = pattern.sub(replacement, name)
    return name


def official_names(state_dict: Mapping[str, object]) -> dict[str, str]:
    """Official name -> name in ``state_dict``, without derived buffers.

    Raises:
        CheckpointError: two names mean the same parameter.
    """
    names: dict[str, str] = {}
    for name in state_dict:
        official = official_name(name)
        if DERIVED.search(official):
            continue
        if official in names:
            raise CheckpointError(
                f'{shown([names[official]])} and {shown([name])} would both be '
                f'{shown([official])}: the checkpoint is not of a network of BEiT v2.'
            )
        names[official] = name
    return names


def check_plain(state_dict: Mapping[str, Tensor]) -> None:
    """Raises a CheckpointError for tensors that can be neither used nor written."""
    for name, value in state_dict.items():
        if value.is_nested or value.layout is not torch.strided or value.is_quantized:
            raise CheckpointError(f'{shown([name])} is sparse, nested or quantized.')
        size = value.numel() * value.element_size()
        if size > MAX_EXPANDED and size > value.untyped_storage().nbytes():
            raise CheckpointError(f'{shown([name])} claims {size} bytes, more than the file holds.')


def to_official(state_dict: Mapping[str, Tensor]) -> StateDict:
    """The tensors of any known layout by official names.

    Raises:
        CheckpointError: see `official_names`.
    """
    return {official: state_dict[name] for official, name in official_names(state_dict).items()}


def kind_of(names: Mapping[str, object]) -> Kind:
    """The kind of a checkpoint, from its official names."""
    if CODEBOOK in names:
        return 'tokenizer'
    if any(re.match(SEGMENTATION_HEADS, name) for name in names):
        return 'segmentor'
    if 'lm_head.weight' in names or 'mask_token' in names:
        return 'pretraining'
    return 'classifier' if 'head.weight' in names else 'backbone'
