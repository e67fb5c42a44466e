"""ADE20K: unpacked safely, every wrong file named."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from beitv2_mm.datasets.prepare import ade20k
from beitv2_mm.datasets.prepare.ade20k import NAME, unpack, verify

pytestmark = pytest.mark.cpu_only(reason='images are read and prepared on the CPU')


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two images of each split."""
    monkeypatch.setattr(ade20k, 'COUNTS', {'training': 2, 'validation': 2})
    folder = tmp_path / NAME
    for split in ('training', 'validation'):
        for i in range(2):
            image = folder / f'images/{split}/ADE_{split}_{i}.jpg'
            mask = folder / f'annotations/{split}/ADE_{split}_{i}.png'
            for path in (image, mask):
                path.parent.mkdir(parents=True, exist_ok=True)
            Image.new('RGB', (6, 4)).save(image)
            Image.fromarray(np.full((4, 6), 150 * i, np.uint8)).save(mask)
    return folder


def mask_of(root: Path) -> Path:
    return root / 'annotations/training/ADE_training_1.png'


@pytest.mark.parametrize(
    ('pixels', 'words'),
    [
        (np.full((4, 6), 151, np.uint8), 'ADE_training_1.png has label 151'),
        (np.zeros((6, 4), np.uint8), 'ADE_training_1.png is 4 x 6, its image 6 x 4'),
        (np.zeros((4, 6, 3), np.uint8), 'ADE_training_1.png has 3 channels'),
    ],
)
def test_bad_masks(root: Path, pixels: np.ndarray, words: str) -> None:
    Image.fromarray(pixels).save(mask_of(root))
    with pytest.raises(ValueError, match='1 of 2 training pairs') as error:
        verify(root)
    assert words in str(error.value)


def test_missing_and_damaged_files(root: Path) -> None:
    mask_of(root).write_bytes(b'')
    with pytest.raises(ValueError, match=r'Cannot read .*ADE_training_1\.png: empty'):
        verify(root)
    mask_of(root).unlink()
    with pytest.raises(FileNotFoundError, match=r'no mask for .*ADE_training_1\.jpg'):
        verify(root)
    (root / 'images/training/ADE_training_1.jpg').unlink()
    with pytest.raises(ValueError, match='has 1 images; ADE20K has 2'):
        verify(root)
    verify(root, complete=False)
    with pytest.raises(FileNotFoundError, match='no folder .*nowhere'):
        verify(root / 'nowhere')


def archive(path: Path, *names: str, source: Path | None = None) -> Path:
    with zipfile.ZipFile(path, 'w') as content:
        for name in names:
            content.writestr(name, b'x')
        for file in sorted(source.rglob('*.*')) if source else []:
            content.write(file, f'{NAME}/{file.relative_to(source)}')
    return path


def test_unpacking(root: Path, tmp_path: Path) -> None:
    out = tmp_path / 'data'
    zipped = archive(tmp_path / 'ade.zip', source=root)
    unpacked = unpack(zipped, out)
    verify(unpacked)
    assert unpacked == out / NAME and [path.name for path in out.iterdir()] == [NAME]
    with pytest.raises(FileExistsError, match='is there already'):
        unpack(zipped, out)
    with pytest.raises(FileNotFoundError, match='data.csail.mit.edu'):
        unpack(tmp_path / 'none.zip', out / 'b')


@pytest.mark.parametrize(
    'name', [f'{NAME}/../../evil', '/etc/evil', f'{NAME}\\..\\evil', 'other/file']
)
def test_archives_that_are_something_else(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f'ADE20K has only files in {NAME}'):
        unpack(archive(tmp_path / 'bad.zip', name), tmp_path / 'data')
    assert not any((tmp_path / 'data').iterdir())


def test_links_bombs_and_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = zipfile.ZipInfo(f'{NAME}/link')
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / 'link.zip', 'w') as content:
        content.writestr(link, '/etc/passwd')
    with pytest.raises(ValueError, match='link'):
        unpack(tmp_path / 'link.zip', tmp_path / 'data')
    good = archive(tmp_path / 'good.zip', f'{NAME}/file')
    monkeypatch.setattr(ade20k, 'MAX_BYTES', 0)
    with pytest.raises(ValueError, match='would unpack to 1 bytes'):
        unpack(good, tmp_path / 'data')
    (tmp_path / 'cut.zip').write_bytes(good.read_bytes()[:30])
    with pytest.raises(ValueError, match='damaged'):
        unpack(tmp_path / 'cut.zip', tmp_path / 'data')
    assert not any((tmp_path / 'data').iterdir())
