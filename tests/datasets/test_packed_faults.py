"""Packs from outside: cut, changed or made to harm. Only the documented errors come out."""

import os
import shutil
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from beitv2_mm.datasets import ImageFolder, packed, read_image
from beitv2_mm.datasets.packed import PREFIX, PackError, make_index, open_pack
from beitv2_mm.datasets.packing import check, pack
from beitv2_mm.datasets.reading import MAX_BYTES, UnreadableImageError
from beitv2_mm.jobs.survey import FolderError, survey
from support.tiny import CIFAR

pytestmark = pytest.mark.cpu_only(reason='images are read and prepared on the CPU')


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A sound pack."""
    path = tmp_path_factory.mktemp('data') / 'images.tar'
    assert pack(CIFAR, path) == {}
    return str(path)


def rewritten(source: str, target: Path, start: int, content: bytes) -> str:
    data = bytearray(Path(source).read_bytes())
    data[start : start + len(content)] = content
    target.write_bytes(data)
    return str(target)


def test_what_is_no_pack_is_refused(images: str, tmp_path: Path) -> None:
    whole = Path(images).read_bytes()
    with tarfile.open(tmp_path / 'plain.tar', 'w') as archive:
        archive.add(CIFAR, 'images')
    others = [b'', b'\0' * 50_000, b'PK\3\4 zip', (tmp_path / 'plain.tar').read_bytes()]
    others += [whole[: int(len(whole) * part)] for part in (0.01, 0.5, 0.9)]
    others.append(whole.rstrip(b'\0')[:-1])
    for content in others:
        (tmp_path / 'x.tar').write_bytes(content)
        open_pack.cache_clear()
        with pytest.raises(PackError, match=r'x\.tar is no pack .*pack_images\.py wrote: copy'):
            ImageFolder(str(tmp_path / 'x.tar'))
    with pytest.raises(FolderError, match='is no pack'):
        survey(tmp_path / 'x.tar')
    with pytest.raises(FileNotFoundError, match=r'There is no pack /.*gone\.tar. Check data_root'):
        ImageFolder(str(tmp_path / 'gone.tar'))
    with pytest.raises(FileNotFoundError, match='names no pack'):
        packed.PackBackend().get('pack://images.lmdb/a.png')


def test_changed_bytes_are_found_wherever_they_are(images: str, tmp_path: Path) -> None:
    with tarfile.open(images) as archive:
        members = archive.getmembers()
    index = members[-1]
    for place in np.linspace(0, index.size - 1, 40).astype(int):
        open_pack.cache_clear()
        before = Path(images).read_bytes()[index.offset_data + place]
        path = rewritten(
            images, tmp_path / 'x.tar', index.offset_data + place, bytes([before ^ 65])
        )
        with pytest.raises(PackError):
            ImageFolder(path)
    open_pack.cache_clear()
    victim = next(member for member in members if member.name.startswith('cat/'))
    path = rewritten(images, tmp_path / 'x.tar', victim.offset_data + 9, b'?')
    with pytest.raises(UnreadableImageError, match=f'{victim.name}: damaged .*checksum') as caught:
        read_image(f'{PREFIX}{path}/{victim.name}')
    assert caught.value.reason == 'damaged'
    assert list(check(path)) == [victim.name] and not check(images)


def hostile(path: Path, rows: dict[str, tuple[int, int, int]], content: bytes = b'') -> str:
    """A pack with an index of our choice."""
    index = make_index([os.fsencode(name) for name in rows], list(rows.values()))
    path.write_bytes(content + index + bytes(1024))
    open_pack.cache_clear()
    return str(path)


def test_claims_of_an_index_are_checked(tmp_path: Path) -> None:
    far = 2**63 - 1
    for row in ((0, 2000, 0), (far, 2, 0), (2, far, 0), (-1, 1, 0), (0, -1, 0)):
        path = hostile(tmp_path / 'x.tar', {'a.png': row}, bytes(1000))
        with pytest.raises(PackError, match='outside of the file'):
            ImageFolder(path)
    trailer = packed.TRAILER
    for numbers in ((10**19, 0), (0, 10**19), (1, 5), (0, 3)):
        (tmp_path / 'x.tar').write_bytes(b'a\0b' + trailer % (*numbers, 0x55555555))
        open_pack.cache_clear()
        with pytest.raises(PackError):
            ImageFolder(str(tmp_path / 'x.tar'))
    path = hostile(tmp_path / 'x.tar', {'a.png': (0, 4, 0), 'b\0c.png': (0, 4, 0)}, bytes(9))
    with pytest.raises(PackError, match='3 names instead of 2'):
        ImageFolder(path)
    with pytest.raises(FileNotFoundError, match='There is no image in'):
        ImageFolder(hostile(tmp_path / 'x.tar', {}))


def test_a_name_that_would_be_an_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackError, match='would be addresses'):
        open_pack(hostile(tmp_path / 'x.tar', {'http://a.b/c.png': (0, 1, 0)}, b'x'))


def test_too_large_an_image_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / 'x.tar'
    with path.open('wb') as file:
        file.truncate(MAX_BYTES + 1)  # takes no place on the disk
        file.seek(0, os.SEEK_END)
        file.write(make_index([b'a.png'], [(0, MAX_BYTES + 1, 0)]))
    with pytest.raises(UnreadableImageError, match=r'a\.png: too large') as caught:
        read_image(f'{PREFIX}{path}/a.png')
    assert caught.value.reason == 'too large'


def test_names_never_lead_to_files(tmp_path: Path) -> None:
    secret = str(shutil.copy(next(CIFAR.rglob('*.png')), tmp_path / 'secret.png'))
    names = sorted([secret, '../secret.png', 'x/../../secret.png', 'y//secret.png'])
    path = hostile(tmp_path / 'x.tar', dict.fromkeys(names, (0, 4, zlib.crc32(b'GIF8'))), b'GIF8')
    data = ImageFolder(path)
    assert data.files() == [secret, 'y//secret.png']  # names with .. are hidden
    for name in names:
        with pytest.raises(UnreadableImageError, match='pack://'):
            read_image(data.path(name))
    assert set(check(path)) == {secret, 'y//secret.png'}
    pack(path, tmp_path / 'copy.tar')
    assert open_pack(str(tmp_path / 'copy.tar')).read(secret) == b'GIF8'


def test_read_errors_are_tried_again(images: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pread, calls = os.pread, []

    def fails_twice(*arguments: int) -> bytes:
        calls.append(arguments)
        if len(calls) == 1:
            raise OSError(116, 'Stale file handle')
        return pread(*arguments)[: None if len(calls) > 2 else 5]

    name = ImageFolder(images).files()[0]
    monkeypatch.setattr(os, 'pread', fails_twice)
    monkeypatch.setattr('beitv2_mm.datasets.reading.RETRY_DELAYS', (0, 0, 0))
    assert np.array_equal(read_image(f'{PREFIX}{images}/{name}'), read_image(CIFAR / name))
    assert len(calls) == 3
