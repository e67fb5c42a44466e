"""Hostile weights and checkpoint files: only CheckpointError comes out, and no module is spoilt."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from mmengine.logging import HistoryBuffer
from safetensors.torch import save

from beitv2_mm.apis import build_tokenizer
from beitv2_mm.checkpoint import (
    FORMATS,
    CheckpointError,
    convert,
    convert_file,
    dataset_meta,
    load,
    read,
)
from beitv2_mm.engine.hooks.adapt import AdaptCheckpointHook, _fits, _require_shared_weight
from support import nets
from support.fuzzing import EDITS, edited, fuzz, only

pytestmark = [
    pytest.mark.filterwarnings('ignore::UserWarning'),  # of damaged files there are many
    pytest.mark.cpu_only(reason='any bytes of files, no computation'),
]


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('fuzz')


SOURCES = [
    nets.backbone(position=position).state_dict()
    for position in ('shared', 'layerwise', 'absolute')
] + [model.state_dict() for model in (nets.classifier(), nets.pretrainer(), nets.tokenizer())]
SOURCES += [
    convert(SOURCES[i], to).state_dict for i in (1, 3, 5) for to in ('official', 'mmpretrain')
]
TARGETS = [nets.backbone(), nets.classifier(), nets.pretrainer(), nets.tokenizer()]
NAMES = st.sampled_from(
    [
        '', '.', 'module.', 'module.module.backbone.', 'backbone.', 'encoder.',
        'blocks.0.attn.q_bias',
        'blocks.99999999999.attn.qkv.weight', f'blocks.{"9" * 5000}.attn.q_bias', 'blocks.x.ln1.w',
        'rel_pos_bias.relative_position_bias_table', 'pos_embed', 'quantize.embedding.weight',
        'quantize.embedding.initted', 'decode_task_layer.2.weight', 'head.weight', 'fpn1.0.weight',
        'encoder.blocks.0.attn.q_bias', 'cls_pt_layers.0.norm1.weight', 'x' * 3000, '\x1b[2J\n\0',
        'blocks.0.attn.relative_position_bias_table', 'blocks.1.attn.relative_position_bias_table',
        'lm_head.weight', 'mask_token', 'decode_head.conv_seg.weight',
        'layers.0.ffn.layers.0.0.weight',
    ]
)  # fmt: skip
SHAPES = st.sampled_from(
    [(), (0,), (1,), (2,), (7,), (32,), (3, 4), (12, 4), (52, 4), (732, 4), (2, 2, 2), (1, 17, 32),
     (1, 18, 32), (1, 2, 32), (1, 1, 32), (0, 4), (1, 0, 32), (32, 3, 16, 16), (24, 8), (4, 4)]
)  # fmt: skip
DTYPES = st.sampled_from(
    [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8,
     torch.bool, torch.complex64]
)  # fmt: skip


def expanded(shape: tuple[int, ...]) -> torch.Tensor:
    """A huge tensor that takes no memory."""
    return torch.zeros(()).expand(shape)


TENSORS = st.one_of(
    st.builds(lambda shape, dtype: torch.ones(shape, dtype=dtype), SHAPES, DTYPES),
    st.builds(lambda shape, value: torch.full(shape, value), SHAPES,
              st.sampled_from([float('nan'), float('inf'), 1e38])),
    st.builds(expanded, st.sampled_from([(10**12,), (3999 * 3999 + 3, 4), (10**9, 4), (1, 10**8,
    32)])),
    st.sampled_from([torch.eye(3).to_sparse(), torch.empty(2, 2, device='meta')]),
)  # fmt: skip
JUNK = st.one_of(
    st.none(), st.integers(), st.text(max_size=5), st.just([1]), st.just({}), st.just(np.ones(3))
)
VALUES = st.one_of(TENSORS, TENSORS, JUNK)
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just('drop'), st.integers(0, 200), st.none()),
        st.tuples(st.just('value'), st.integers(0, 200), TENSORS),
        st.tuples(st.just('nan'), st.integers(0, 200), st.none()),
        st.tuples(st.just('flatten'), st.integers(0, 200), st.none()),
        st.tuples(st.just('half'), st.integers(0, 200), st.none()),
        st.tuples(st.just('add'), NAMES, TENSORS),
        st.tuples(st.just('prefix'), NAMES, st.none()),
        st.tuples(st.just('rename'), st.integers(0, 200), NAMES),
    ),
    max_size=4,
)  # fmt: skip
# index of a source, and what is changed in it
STATE_DICTS = st.tuples(st.integers(-1, len(SOURCES) - 1), CHANGES)


def is_small(tensor: torch.Tensor) -> bool:
    return tensor.layout is torch.strided and tensor.numel() < 1e6


def changed(recipe: tuple[int, list[tuple]]) -> dict[str, torch.Tensor]:
    source, changes = recipe
    weights = dict(SOURCES[source]) if source >= 0 else {}
    for action, where, value in changes:
        names = [key for key, tensor in weights.items() if is_small(tensor)]
        name = names[where % len(names)] if isinstance(where, int) and names else str(where)
        if action == 'add':
            weights[where] = value
        elif action == 'prefix':
            weights = {where + key: tensor for key, tensor in weights.items()}
        elif name not in weights:
            continue
        elif action == 'drop':
            del weights[name]
        elif action == 'value':
            weights[name] = value
        elif action == 'nan' and weights[name].is_floating_point():
            weights[name] = torch.full_like(weights[name], float('nan'))
        elif action == 'flatten':
            weights[name] = weights[name].reshape(-1)
        elif action == 'half' and weights[name].ndim:
            weights[name] = weights[name][: len(weights[name]) // 2]
        elif action == 'rename':
            weights[value] = weights.pop(name)
    return weights


GRIDS = st.sampled_from([None, None, (4, 4), (2, 8), (0, 3), (-1, -1), (1, 1), (10**6, 10**6)])


@fuzz('adapt', recipe=STATE_DICTS, target=st.integers(0, len(TARGETS) - 1), grid=GRIDS)
def test_adapter(recipe: tuple, target: int, grid: Any) -> None:
    weights, target = changed(recipe), TARGETS[target]
    before = {name: value.shape for name, value in target.state_dict().items()}
    given_before = {name: id(value) for name, value in weights.items()}
    with only(CheckpointError):
        _fits({'state_dict': weights}, target)
        str(load(target, weights, source_grid=grid))
    assert {name: id(value) for name, value in weights.items()} == given_before
    after = target.state_dict()
    assert {name: value.shape for name, value in after.items()} == before
    assert all(value.isfinite().all() for value in after.values())


@fuzz('convert', recipe=STATE_DICTS, to=st.sampled_from(FORMATS), grid=GRIDS, source=GRIDS)
def test_converter_and_tokenizers(recipe: tuple, to: str, grid: Any, source: Any) -> None:
    weights = changed(recipe)
    with only(CheckpointError):
        str(convert(read(weights), to, source, grid))
    with only(CheckpointError):
        build_tokenizer(weights)


NESTED = st.recursive(
    st.one_of(VALUES, st.builds(changed, st.tuples(st.just(-1), CHANGES))),
    lambda inner: st.dictionaries(
        st.one_of(st.sampled_from(['state_dict', 'model', 'module', 'meta', 'ema']), NAMES,
                  st.integers(0, 3), st.none()),
        inner, max_size=3,
    ),
    max_leaves=4,
)  # fmt: skip


@fuzz('wrappers', nested=NESTED, circular=st.booleans())
def test_wrappers(nested: Any, circular: bool) -> None:
    if circular and isinstance(nested, dict):
        nested['model'] = {'module': nested}
    with only(CheckpointError):
        if isinstance(nested, dict):
            assert all(isinstance(value, torch.Tensor) for value in read(nested).values())
    with only(CheckpointError):
        if isinstance(nested, dict):
            _fits(nested, TARGETS[0])
            _require_shared_weight(nested, TARGETS[0])
        else:
            AdaptCheckpointHook().after_load_checkpoint(None, nested)


def _content(kind: str) -> bytes:
    weights = {'blocks.0.attn.q_bias': torch.ones(4), 'pos_embed': torch.ones(1, 5, 4)}
    if kind == 'safetensors':
        return save(weights)
    buffer = io.BytesIO()
    extra = dict(
        meta=dict(epoch=1, dataset_meta=dict(classes=['a', 'b'], palette=[[1, 2, 3]])),
        message_hub=dict(log=HistoryBuffer([0.5], [1]), array=np.arange(3)),
    )
    torch.save(
        {'state_dict': weights, **extra}, buffer, _use_new_zipfile_serialization=kind == 'zip'
    )
    return buffer.getvalue()


CONTENTS = {kind: _content(kind) for kind in ('zip', 'legacy', 'safetensors')}


def read_everything(path: Path) -> None:
    with only(CheckpointError):
        read(path)
    with only(CheckpointError):
        dataset_meta(path)
    with only(CheckpointError):
        convert_file(path, path.with_name('out.safetensors'), 'timm')


@fuzz(
    'files',
    kind=st.sampled_from(['zip', 'legacy', 'safetensors', 'random']),
    suffix=st.sampled_from(['.pth', '.pth', '.safetensors']),
    edits=EDITS,
    noise=st.binary(max_size=200),
)
def test_checkpoint_files(folder: Path, kind: str, suffix: str, edits: list, noise: bytes) -> None:
    suffix = '.safetensors' if kind == 'safetensors' else suffix
    path = folder / f'x{suffix}'
    path.write_bytes(edited(CONTENTS.get(kind, noise), edits))
    read_everything(path)


@fuzz('pickles', edits=EDITS, opcodes=st.binary(max_size=30), replace=st.booleans())
def test_pickles_in_sound_archives(
    folder: Path, edits: list, opcodes: bytes, replace: bool
) -> None:
    """Checksums are right here, so the unpickler sees what was changed."""
    path = folder / 'y.pth'
    with (
        zipfile.ZipFile(io.BytesIO(CONTENTS['zip'])) as source,
        zipfile.ZipFile(path, 'w') as target,
    ):
        for member in source.infolist():
            data = source.read(member)
            if member.filename.endswith('data.pkl'):
                data = b'\x80\x02' + opcodes + b'.' if replace else edited(data, edits)
            target.writestr(member.filename, data)
    read_everything(path)
