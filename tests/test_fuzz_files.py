"""Hostile images, archives, records and command lines: only the documented errors come out
(ValueError, OSError, SystemExit of a parser), and nothing is written elsewhere."""

import contextlib
import gzip
import importlib.util
import io
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from beitv2_mm.datasets.prepare import ade20k, cifar10, composites
from beitv2_mm.datasets.reading import UnreadableImageError, read_image, read_labels
from beitv2_mm.engine import launch
from beitv2_mm.engine.errors import LaunchError
from support.faulty_images import encoded, originals
from support.fuzzing import COUNTS, EDITS, edited, fuzz, only

ROOT = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.filterwarnings('ignore::UserWarning'),  # of damaged files there are many
    pytest.mark.cpu_only(reason='any bytes of files, no computation'),
]


def test_there_are_enough() -> None:
    assert sum(COUNTS.values()) == 10_000


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('fuzz')


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
    (folder / cifar10.MARKER).write_bytes(edited(b'{"limit": 3, "counts": {}}', edits))
    cifar10._finished(folder, 3)
    for name in ('labels', 'images'):
        (folder / 'fashion').mkdir(exist_ok=True)
        kind = 'idx1' if name == 'labels' else 'idx3'
        file = folder / f'fashion/train-{name}-{kind}-ubyte'
        packed_file = file.with_name(f'{file.name}.gz')
        (file if packed else packed_file).unlink(missing_ok=True)
        (packed_file if packed else file).write_bytes(
            edited(gzip.compress(content, 1) if packed else content, edits)
        )
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
                with only(LaunchError):
                    launch.load_config(str(ROOT / 'tests/support/toy_config.py'), options=options)
