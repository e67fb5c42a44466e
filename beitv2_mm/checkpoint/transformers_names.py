"""Maps the names of Hugging Face's BEiT and Data2VecVision, where q, k and v are separate tensors.

Files are written with the names on its hub, which every version of transformers reads;
`from_transformers` also reads the names of the modules of transformers 5.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from beitv2_mm.checkpoint.names import BIAS_TABLE, SHARED_TABLE, Kind, StateDict
from beitv2_mm.compat.safe_load import CheckpointError
from beitv2_mm.layers.arch import Arch
from beitv2_mm.layers.position import Grid

# official name -> name on the hub, within a block
_IN_BLOCK = {
    'attn.proj.': 'attention.output.dense.',
    f'attn.{BIAS_TABLE}': f'attention.attention.relative_position_bias.{BIAS_TABLE}',
    'gamma_1': 'lambda_1',
    'gamma_2': 'lambda_2',
    'mlp.fc1.': 'intermediate.dense.',
    'mlp.fc2.': 'output.dense.',
    'norm1.': 'layernorm_before.',
    'norm2.': 'layernorm_after.',
}
_IN_MODEL = {
    'cls_token': 'embeddings.cls_token',
    'mask_token': 'embeddings.mask_token',
    'pos_embed': 'embeddings.position_embeddings',
    'patch_embed.proj.': 'embeddings.patch_embeddings.projection.',
    SHARED_TABLE: f'encoder.relative_position_bias.{BIAS_TABLE}',
    'fc_norm.': 'pooler.layernorm.',
    'norm.': 'layernorm.',
}
_HEADS = {
    'head.': 'classifier.',
    'decode_head.conv_seg.': 'decode_head.classifier.',
    'auxiliary_head.conv_seg.': 'auxiliary_head.classifier.',
}
# Names of transformers 5 that differ from those on the hub.
_NEWER = {
    f'shared_position_bias.{BIAS_TABLE}': SHARED_TABLE,
    f'relative_position_bias.{BIAS_TABLE}': f'attn.{BIAS_TABLE}',
    'attention.o_proj.': 'attn.proj.',
    'mlp.fc1.': 'mlp.fc1.',
    'mlp.fc2.': 'mlp.fc2.',
}
_BLOCK = re.compile(r'^(.*?)(?:encoder\.layer|layers)\.(\d+)\.(.+)$')
_PROJECTION = re.compile(
    r'attention\.(?:attention\.)?(q|k|v)(?:uery|ey|alue|_proj)\.(weight|bias)$'
)
_ROOT = re.compile(r'(?<![^.])(beit|data2vec_vision)\.')
_ARCHITECTURES: dict[Kind, str] = dict(
    backbone='BeitModel',
    classifier='BeitForImageClassification',
    pretraining='BeitForMaskedImageModeling',
    segmentor='BeitForSemanticSegmentation',
)


def from_transformers(tensors: StateDict) -> StateDict:
    """Official names after the part before 'beit.' as prefix; other files are returned unchanged.

    Raises:
        CheckpointError: a block lacks a part of q, k and v.
    """
    if not any(_BLOCK.match(name) and _PROJECTION.search(name) for name in tensors):
        return tensors
    found: StateDict = {}
    projections: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        block, projection = _BLOCK.match(name), _PROJECTION.search(name)
        if block is None:
            root = _ROOT.search(name)
            start = root.start() if root else 0
            rest = name[root.end() :] if root else name
            found[name[:start] + _renamed(rest, _inverse(_IN_MODEL | _HEADS) | _NEWER)] = value
            continue
        prefix = f'{_ROOT.sub("", block[1])}blocks.{block[2]}.'
        if projection is None:
            found[prefix + _renamed(block[3], _inverse(_IN_BLOCK) | _NEWER)] = value
        elif projection[2] == 'weight':
            projections.setdefault(prefix, {})[projection[1]] = value
        else:  # keys need no bias: it would add the same number to all scores of a query
            found[f'{prefix}attn.{projection[1]}_bias'] = value
    for prefix, parts in projections.items():
        if parts.keys() != {'q', 'k', 'v'} or len({p.shape for p in parts.values()}) > 1:
            raise CheckpointError(f'{prefix}attention lacks one of query, key and value.')
        found[f'{prefix}attn.qkv.weight'] = torch.cat([parts[key] for key in 'qkv'])
    return found


def _inverse(names: Mapping[str, str]) -> dict[str, str]:
    return {hub: official for official, hub in names.items()}


def _renamed(name: str, names: Mapping[str, str]) -> str:
    """Replaces the start of a name by its value in ``names``."""
    for start, replacement in names.items():
        if name.startswith(start):
            return replacement + name[len(start) :]
    return name


def to_transformers(name: str, value: Tensor, kind: Kind) -> list[tuple[str, Tensor]]:
    """The names and tensors that represent one official tensor on the hub, or none.

    Raises:
        CheckpointError: q, k and v cannot be told apart.
    """
    root = '' if kind == 'backbone' else 'beit.'
    if name.startswith('cls_pt_'):
        return []
    if block := re.match(r'blocks\.(\d+)\.(.+)', name):
        start = f'{root}encoder.layer.{block[1]}.'
        attention = f'{start}attention.attention.'
        if block[2] == 'attn.qkv.weight':
            if not value.ndim or len(value) % 3:
                raise CheckpointError(f'{name} cannot be {tuple(value.shape)}.')
            parts = value.chunk(3)
            names = [f'{attention}{part}.weight' for part in ('query', 'key', 'value')]
            return list(zip(names, parts, strict=True))
        if block[2] in ('attn.q_bias', 'attn.v_bias'):
            part = 'query' if block[2] == 'attn.q_bias' else 'value'
            return [(f'{attention}{part}.bias', value)]
        return [(start + _renamed(block[2], _IN_BLOCK), value)]
    if kind == 'pretraining' and name.startswith('norm.'):  # a part of the head in transformers
        return [(_renamed(name, _IN_MODEL), value)]
    inside = _renamed(name, _IN_MODEL)
    return [(root + inside, value)] if inside != name else [(_renamed(name, _HEADS), value)]


def config_of(weights: Mapping[str, Tensor], kind: Kind, arch: Arch, grid: Grid) -> dict[str, Any]:
    """The content of ``config.json`` for a model with these tensors, which have official names."""
    _, channels, patch, _ = weights['patch_embed.proj.weight'].shape
    tables = [name for name in weights if name.endswith(BIAS_TABLE)]
    config: dict[str, Any] = dict(
        model_type='beit',
        architectures=[_ARCHITECTURES[kind]],
        hidden_size=arch.embed_dims,
        num_hidden_layers=arch.num_layers,
        num_attention_heads=arch.num_heads,
        intermediate_size=round(arch.embed_dims * arch.mlp_ratio),
        image_size=grid[0] * patch,
        patch_size=patch,
        num_channels=channels,
        layer_norm_eps=1e-6,
        use_mask_token='mask_token' in weights,
        use_absolute_position_embeddings='pos_embed' in weights,
        use_relative_position_bias=any(name.startswith('blocks.') for name in tables),
        use_shared_relative_position_bias=SHARED_TABLE in weights,
        layer_scale_init_value=0.1 if 'blocks.0.gamma_1' in weights else 0.0,
        use_mean_pooling='fc_norm.weight' in weights or kind in ('pretraining', 'segmentor'),
    )
    if kind == 'pretraining':
        config['vocab_size'] = len(weights['lm_head.weight'])
    head = {'classifier': 'head.weight', 'segmentor': 'decode_head.conv_seg.weight'}.get(kind)
    if head:
        config['id2label'] = {str(i): f'LABEL_{i}' for i in range(len(weights[head]))}
    return config
