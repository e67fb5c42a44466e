"""Images of any number of channels: as stored, or an error that names the file."""

from pathlib import Path

import numpy as np
import pytest
from mmpretrain.datasets import ResizeEdge
from PIL import Image
from torchvision.transforms import v2

from beitv2_mm.datasets import (
    ImageFolder,
    LoadImageFromFile,
    TorchvisionTransforms,
    UnreadableImageError,
)
from beitv2_mm.datasets.bands import read_bands, stored_values
from beitv2_mm.datasets.sampling import channel_statistics, count_channels
from support.tiffs import write_tiff

pytestmark = pytest.mark.cpu_only(reason='images are read and prepared on the CPU')

LOAD = [dict(type=LoadImageFromFile)]


def values(bands: int, dtype: type = np.uint8, largest: int = 255) -> np.ndarray:
    drawn = np.random.default_rng(bands).integers(0, largest + 1, (20, 24, bands))
    return drawn.astype(dtype)


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('extra', [None, 0])
def test_four_interleaved_bands_need_no_other_package(
    tmp_path: Path, dtype: type, extra: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__('sys').modules, 'tifffile', None)
    stored = values(4, dtype, np.iinfo(dtype).max)
    path = write_tiff(tmp_path / 'a.tif', stored, extra=extra)
    assert np.array_equal(stored_values(path, 4)[0], stored)
    expected = stored if dtype == np.uint8 else stored >> 8
    assert np.array_equal(read_bands(path, 4), expected)


def test_other_layouts_say_what_they_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__('sys').modules, 'tifffile', None)
    path = write_tiff(tmp_path / 'a.tif', values(6))
    with pytest.raises(UnreadableImageError, match=r"a\.tif: unsupported .*pip install 'tifffile'"):
        read_bands(path, 6)
    with pytest.raises(ValueError, match=r'Not one of 1 sampled .*6 channels.*a\.tif.*tifffile'):
        ImageFolder(str(tmp_path), channels=6)


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize('planar', [1, 2])
@pytest.mark.parametrize('photometric', [1, 2])
@pytest.mark.parametrize('bands', [2, 4, 6])
def test_any_layout_of_tiff(
    tmp_path: Path, bands: int, photometric: int, planar: int, dtype: type
) -> None:
    pytest.importorskip('tifffile')
    if bands == 2 and photometric == 2:
        photometric = 1
    stored = values(bands, dtype)
    for extra in (0, 2):  # any, alpha
        path = write_tiff(tmp_path / f'{extra}.tif', stored, photometric, extra, planar)
        assert np.array_equal(stored_values(path, bands)[0], stored)


def test_pages_are_bands_where_each_has_one(tmp_path: Path) -> None:
    tifffile = pytest.importorskip('tifffile')
    stored = values(6, np.uint16, 4095)
    tifffile.imwrite(tmp_path / 'a.tif', stored.transpose(2, 0, 1), photometric='minisblack')
    tifffile.imwrite(
        tmp_path / 'b.tif',
        stored,
        photometric='minisblack',
        planarconfig='contig',
        compression='zlib',
    )
    for name in 'ab':
        assert np.array_equal(stored_values(tmp_path / f'{name}.tif', 6)[0], stored)


@pytest.mark.parametrize('order', ['C', 'F'])
@pytest.mark.parametrize('dtype', ['u1', '<u2', '>u2', '<f4', '<i4'])
def test_arrays_of_either_order(tmp_path: Path, dtype: str, order: str) -> None:
    stored = values(6).astype(dtype)
    for name, array in (('last', stored), ('first', stored.transpose(2, 0, 1))):
        np.save(tmp_path / f'{name}.npy', np.asarray(array, order=order))
        read, _ = stored_values(tmp_path / f'{name}.npy', 6)
        assert np.array_equal(read, stored) and read.dtype.isnative
    np.save(tmp_path / 'grey.npy', stored[..., 0])
    assert stored_values(tmp_path / 'grey.npy', 1)[0].shape == (20, 24, 1)


def test_other_formats_as_they_are_stored(tmp_path: Path) -> None:
    rgba = values(4)
    Image.fromarray(rgba).save(tmp_path / 'a.png')
    assert np.array_equal(read_bands(tmp_path / 'a.png', 4), rgba)
    Image.fromarray(rgba[..., 0]).save(tmp_path / 'grey.png')
    assert np.array_equal(read_bands(tmp_path / 'grey.png', 1), rgba[..., :1])
    Image.fromarray(rgba[..., 0].astype(np.uint16) * 16).save(tmp_path / 'deep.tif')
    assert np.array_equal(read_bands(tmp_path / 'deep.tif', 1, 4080), rgba[..., :1])


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (b'', 'empty'),
        (b'II*\0' + b'\xff' * 20, 'damaged'),
        (b'\x93NUMPY\x01\0\xff', 'damaged'),
        (b'no image', 'no image'),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / 'a.tif').write_bytes(content)
    with pytest.raises(UnreadableImageError, match=r'a\.tif') as error:
        read_bands(tmp_path / 'a.tif', 4)
    assert error.value.reason == reason


def test_arrays_that_are_no_images(tmp_path: Path) -> None:
    path = tmp_path / 'a.npy'
    for array in (np.zeros(5), np.array([['a']]), np.zeros((2, 2, 2, 2))):
        np.save(path, array)
        with pytest.raises(UnreadableImageError, match=r'unsupported .*expected numbers of shape'):
            read_bands(path, 4)
    np.save(path, np.array([[{}]]), allow_pickle=True)
    with pytest.raises(UnreadableImageError, match='unsupported'):
        read_bands(path, 4)
    np.save(path, np.zeros((1, 500, 4), np.uint8))
    with pytest.raises(UnreadableImageError, match='thinner than 1:200'):
        read_bands(path, 4)
    np.save(path, values(4))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UnreadableImageError, match='damaged .*for an array of shape'):
        read_bands(path, 4)


def test_a_tiff_that_announces_too_much(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / 'a.tif', values(4))
    content = bytearray(path.read_bytes())
    for tag in (256, 257):
        place = content.index(tag.to_bytes(2, 'little') + b'\x04\0\x01\0\0\0') + 8
        content[place : place + 4] = (60_000).to_bytes(4, 'little')
    path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match='too large'):
        read_bands(path, 4)


def test_a_data_set_of_arrays(tmp_path: Path) -> None:
    for i in range(3):
        np.save(tmp_path / f'{i}.npy', values(6, np.uint16, 4095))
    (tmp_path / 'no.txt').write_text('')
    steps = [
        dict(type=LoadImageFromFile, to_float32=True),
        dict(type=TorchvisionTransforms, transforms=[dict(type=v2.Resize, size=(10, 12))]),
    ]
    dataset = ImageFolder(str(tmp_path), channels=6, pipeline=steps)
    assert len(dataset) == 3 and dataset.white == 4095
    assert dataset.metainfo['channels'] == 6
    image = dataset[0]['img']
    assert image.shape == (10, 12, 6) and image.dtype == np.float32
    assert image.min() >= 0 and image.max() <= 255
    only_load = ImageFolder(str(tmp_path), channels=6, pipeline=steps[:1])[0]['img']
    assert np.allclose(only_load, values(6, np.uint16, 4095) * (255 / 4095), atol=1e-3)


def test_wrong_numbers_of_channels(tmp_path: Path) -> None:
    Image.fromarray(values(3)).save(tmp_path / 'b.png')
    with pytest.raises(
        ValueError, match=r'Not one .*b\.png.*it has 3 channels, expected 4: change'
    ):
        ImageFolder(str(tmp_path), channels=4)
    write_tiff(tmp_path / 'a.tif', values(4))
    dataset = ImageFolder(str(tmp_path), channels=4, pipeline=LOAD)
    assert dataset[1]['img_path'].endswith('a.tif')  # one of several is skipped and counted
    assert dataset.unreadable() == {str(tmp_path / 'b.png'): 'unsupported'}
    with pytest.raises(RuntimeError, match=r'b\.png.*3 channels, expected 4'):
        ImageFolder(str(tmp_path), channels=4, pipeline=LOAD, test_mode=True)[1]
    pillow = dict(type=ResizeEdge, scale=8, backend='pillow')
    with pytest.raises(ValueError, match="ResizeEdge has backend='pillow'"):
        ImageFolder(str(tmp_path), channels=4, pipeline=[*LOAD, pillow])
    for wrong in (0, '4'):
        with pytest.raises(ValueError, match='expected a number from 1'):
            ImageFolder(str(tmp_path), channels=wrong)


def test_bands_read_as_colours_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(
        'beitv2_mm.datasets.pixel_rules.print_log', lambda text, **kwargs: said.append(text)
    )
    write_tiff(tmp_path / 'a.tif', values(4))
    Image.fromarray(values(3)).save(tmp_path / 'b.tif')
    assert ImageFolder(str(tmp_path), pipeline=LOAD)[0]['img'].shape == (20, 24, 3)
    assert len(said) == 1 and '1 of 2 sampled' in said[0] and 'Give channels=4' in said[0]
    write_tiff(tmp_path / 'grey_first.tif', values(5), photometric=1)
    with pytest.raises(UnreadableImageError, match='its 5 bands are not colours: give channels=5'):
        LoadImageFromFile().read(str(tmp_path / 'grey_first.tif'))


def test_inks_and_transparency_are_colours(tmp_path: Path) -> None:
    Image.fromarray(values(4), 'CMYK').save(tmp_path / 'inks.tif')
    Image.fromarray(values(4), 'RGBA').save(tmp_path / 'alpha.tif')
    Image.fromarray(values(1)[..., 0]).save(tmp_path / 'grey.tif')
    assert count_channels([str(path) for path in tmp_path.iterdir()]) == {3: 3}


def test_floats_need_a_white_level(tmp_path: Path) -> None:
    np.save(tmp_path / 'a.npy', values(4).astype(np.float32) / 255)
    with pytest.raises(ValueError, match=r'go from 0 to 1.*a\.npy.*give white=1'):
        ImageFolder(str(tmp_path), channels=4)
    dataset = ImageFolder(str(tmp_path), channels=4, white=1.0, pipeline=LOAD)
    assert np.array_equal(dataset[0]['img'], values(4))


def test_statistics_of_a_sample(tmp_path: Path) -> None:
    for i in range(3):
        write_tiff(tmp_path / f'{i}.tif', np.roll(values(4, np.uint16, 1000), i, 0))
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    assert count_channels(paths) == {4: 3}
    mean, std = channel_statistics(paths, 4, 1023)
    flat = values(4, np.uint16, 1000).reshape(-1, 4) / 1023
    assert np.allclose(mean, flat.mean(0), atol=1e-6) and np.allclose(std, flat.std(0), atol=1e-6)
