"""10,000 hostile inputs: only the documented errors come out (CheckpointError, ValueError, OSError,
SystemExit of an option parser), nothing is written elsewhere, nothing hangs."""

import contextlib
import gzip
import importlib.util
import io
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from mmengine.logging import HistoryBuffer
from safetensors.torch import save

import nets
from beitv2_mm import launch
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
from beitv2_mm.datasets import ade20k, cifar10, composites
from beitv2_mm.datasets.reading import UnreadableImageError, read_image, read_labels
from beitv2_mm.engine.adapt_hook import _fits, _weights
from faulty_images import encoded, originals

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.filterwarnings('ignore::UserWarning')  # of damaged files there are many
COUNTS = dict(
    adapt=1000, convert=1000, wrappers=500, files=1000, pickles=800, images=800, zips=600,
    tars=1800,
    idx=1000, options=1500,
)  # fmt: skip


def fuzz(name: str, **strategies: st.SearchStrategy) -> Callable:
    def decorate(test: Callable) -> Callable:
        chosen = settings(
            max_examples=COUNTS[name],
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],  # shrinking networks takes minutes
            report_multiple_bugs=False,
            print_blob=False,
        )
        return chosen(given(**strategies)(test))

    return decorate


def test_there_are_enough() -> None:
    assert sum(COUNTS.values()) == 10_000


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('fuzz')


@contextlib.contextmanager
def only(*errors: type[Exception]) -> Iterator[None]:
    """No other exception, and a message that fits a terminal and says something."""
    try:
        yield
    except errors as error:
        text = str(error)
        assert text and len(text) < 5000, text


# --- weights

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
        _fits(weights, target)
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
        _fits(_weights(nested), TARGETS[0])


# --- files


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
EDITS = st.lists(
    st.tuples(st.integers(0, 10**6), st.sampled_from(['set', 'cut', 'insert', 'flip']),
              st.binary(min_size=1, max_size=8)),
    max_size=5,
)  # fmt: skip


def edited(content: bytes, edits: list[tuple]) -> bytes:
    result = bytearray(content)
    for position, action, data in edits:
        at = position % (len(result) + 1)
        if action == 'cut':
            del result[at:]
        elif action == 'insert':
            result[at:at] = data
        elif action == 'set':
            result[at : at + len(data)] = data
        elif at < len(result):
            result[at] ^= data[0]
    return bytes(result)


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


PICTURES = [
    encoded(originals()[0], kind) for kind in ('JPEG', 'PNG', 'WEBP', 'BMP', 'PPM', 'TIFF', 'GIF')
]


@fuzz('images', picture=st.sampled_from(PICTURES), edits=EDITS)
def test_images(folder: Path, picture: bytes, edits: list) -> None:
    path = folder / 'image'
    path.write_bytes(edited(picture, edits))
    with only(UnreadableImageError):
        image = read_image(path)
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    with only(ValueError):
        assert read_labels(path).ndim == 2
    ade20k.check_pair(ade20k.Pair(path, path))


# --- archives

MEMBERS = st.sampled_from(
    [f'{ade20k.NAME}/a', f'{ade20k.NAME}/b/c', f'{ade20k.NAME}/a/d', f'{ade20k.NAME}/', '', '.',
     '/', '..',
     '../evil', '/tmp/evil', f'{ade20k.NAME}/../../evil', f'{ade20k.NAME}\\..\\evil', 'C:\\evil',
     f'{ade20k.NAME}/{"n" * 300}', f'{ade20k.NAME}/\0x', 'package/test_batch.png', 'test_batch',
     'x/../y']
)  # fmt: skip


@fuzz(
    'zips',
    names=st.lists(MEMBERS, max_size=4),
    mode=st.sampled_from([0, 0o100644, 0o120777, 0o060644, 0o010644]),
    method=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA]),
    edits=EDITS,
)
def test_zips(folder: Path, names: list[str], mode: int, method: int, edits: list) -> None:
    path, out = folder / 'x.zip', folder / 'zip/out'
    out.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, 'w') as archive:
        for name in names:
            member = zipfile.ZipInfo(name)
            member.external_attr, member.compress_type = mode << 16, method
            archive.writestr(member, b'content' * 9)
    path.write_bytes(edited(path.read_bytes(), edits))
    with only(ValueError, OSError):
        ade20k.unpack(path, out)
    assert {p.name for p in out.parent.iterdir()} == {'out'}
    assert {p.name for p in out.iterdir()} <= {ade20k.NAME}
    assert not any(p.is_symlink() for p in out.rglob('*'))
    ade20k.shutil.rmtree(out)


@fuzz(
    'tars',
    names=st.lists(MEMBERS, max_size=4),
    kind=st.sampled_from([tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE]),
    edits=EDITS,
    packed=st.booleans(),
)
def test_tars(folder: Path, names: list[str], kind: bytes, edits: list, packed: bool) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w') as archive:
        for name in names:
            member = tarfile.TarInfo(name.replace('\0', ''))
            member.type, member.linkname = kind, '/etc/passwd'
            member.size = 9 if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(b'content x'))
    path = folder / 'x.tgz'
    if packed:  # a sound gzip file of a damaged archive, or the other way round
        path.write_bytes(gzip.compress(edited(buffer.getvalue(), edits), 1))
    else:
        path.write_bytes(edited(gzip.compress(buffer.getvalue(), 1), edits))
    with only(ValueError, OSError):
        cifar10.read_source(path)


@fuzz(
    'idx',
    shape=st.lists(st.integers(0, 2**32 - 1), max_size=4),
    edits=EDITS,
    packed=st.booleans(),
    rank=st.integers(0, 255),
)
def test_idx_files_and_records(
    folder: Path, shape: list[int], edits: list, packed: bool, rank: int
) -> None:
    content = b'\0\0\x08' + bytes([rank]) + struct.pack(f'>{len(shape)}I', *shape) + b'pixels'
    path = folder / ('x.gz' if packed else 'x.idx')
    path.write_bytes(edited(gzip.compress(content, 1) if packed else content, edits))
    with only(ValueError, OSError):
        composites.read_idx(path)
    (folder / cifar10.MARKER).write_bytes(edited(b'{"limit": 3, "counts": {}}', edits))
    cifar10._finished(folder, 3)
    for name in ('labels', 'images'):
        (folder / 'fashion').mkdir(exist_ok=True)
        kind = 'idx1' if name == 'labels' else 'idx3'
        (folder / f'fashion/train-{name}-{kind}-ubyte').write_bytes(edited(content, edits))
    with only(ValueError, OSError):
        composites.prepare(folder / 'made', folder, folder / 'fashion', (1, 0, 0))


# --- command lines


def tool(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / f'tools/{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOLS = {
    name: tool(name)
    for name in ('train', 'test', 'convert_checkpoint', 'tokenize_images', 'segment_images')
}
CONFIG = ROOT / 'configs/classification/beitv2_tiny_1xb32_8e_cifar10.py'
WORDS = st.one_of(
    st.sampled_from(
        ['--cfg-options', 'a=1', 'model.backbone=3', 'model.backbone.x.y=1', 'x', '=', 'a=[1,(2',
         'a=)(',
         'train_pipeline.99.type=3', 'train_pipeline.x=3', 'a.b=(', 'model=None', 'model.head.y=1',
         '--device', 'cuda:99', 'cpu', 'nonsense', '--grid', '3', '-1', '--to', 'timm', '--resume',
         '--out', 'o.npz', 'o.json', '--tokenizer', 't.pth', '--batch-size', 'x', '--opacity',
         '7', 'nan',
         '--config', str(CONFIG), '--checkpoint', '--launcher', 'pytorch', '--tta', '--', '-h',
         '\0']
    ),
    st.text(max_size=8),
)  # fmt: skip


@fuzz('options', which=st.sampled_from(list(TOOLS)), words=st.lists(WORDS, max_size=6))
def test_options(which: str, words: list[str]) -> None:
    """What the parser lets through, the config takes or refuses in a line."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()):
        patch.setattr('sys.argv', [which, *words])
        patch.setattr('sys.stdout', io.StringIO())
        with contextlib.suppress(SystemExit):
            args = TOOLS[which].parse_args()
            options = getattr(args, 'cfg_options', None)
            if options:
                with only(launch.LaunchError):
                    launch.load_config(str(ROOT / 'tests/toy_config.py'), options=options)
