"""What is white in files of more than 8 bits: the rule, and what a data set makes of it."""

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.logging import MMLogger
from mmpretrain.datasets import PackInputs
from PIL import Image

from beitv2_mm.datasets import ImageFolder, LoadImageFromFile, reading
from beitv2_mm.datasets.bit_depth import scale, white_level
from beitv2_mm.datasets.reading import UnreadableImageError, read_image
from support.tiffs import write_tiff

pytestmark = pytest.mark.cpu_only(reason='images are read and prepared on the CPU')

TWELVE = np.arange(4096, dtype=np.uint16).reshape(64, 64)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What data sets and readers log."""
    messages: list[str] = []
    for module in ('reading', 'sampling', 'pixel_rules', 'skipping'):
        monkeypatch.setattr(
            f'beitv2_mm.datasets.{module}.print_log', lambda text, *a, **k: messages.append(text)
        )
    monkeypatch.setattr(reading, '_said_upper_bits', False)
    return messages


def folder_of(folder: Path, values: np.ndarray, count: int = 20, suffix: str = '.png') -> Path:
    folder.mkdir()
    for i in range(count):
        assert cv2.imwrite(str(folder / f'{i:02d}{suffix}'), np.roll(values, i, 0))
    return folder


@pytest.mark.parametrize(
    ('largest', 'white'),
    [(3, 255), (255, 255), (256, 511), (1023, 1023), (4095, 4095), (4096, 8191), (65535, 65535)],
)
def test_white_is_that_of_the_fewest_bits(largest: int, white: int) -> None:
    assert white_level(largest) == white


def test_scaling() -> None:
    assert scale(np.array([0, 2048, 4095], np.uint16), 4095).tolist() == [0, 128, 255]
    assert scale(np.array([0, 255, 256, 65535], np.uint16)).tolist() == [0, 0, 1, 255]
    assert scale(np.array([0.0, 0.5, 1.0]), 1.0).tolist() == [0, 128, 255]
    assert scale(np.array([7], np.uint8), 4095).tolist() == [7]  # bytes are what they are
    floats = scale(TWELVE, 4095, float32=True)
    assert floats.dtype == np.float32 and len(np.unique(floats)) == 4096 and floats.max() == 255
    for wrong in ([0.1, np.nan], [-0.1, 0.5], [0.2, 1.5]):
        with pytest.raises(ValueError, match='expected 0 to 1'):
            scale(np.array(wrong), 1.0)
    with pytest.raises(ValueError, match='what is white is not stated for float64'):
        scale(np.array([0.5]))


def test_all_levels_of_12_bits_arrive(tmp_path: Path, said: list[str]) -> None:
    root = folder_of(tmp_path / 'scans', TWELVE)
    bytes_, floats = (
        ImageFolder(str(root), pipeline=[dict(type=LoadImageFromFile, to_float32=wanted)])[3]['img']
        for wanted in (False, True)
    )
    assert bytes_.dtype == np.uint8 and len(np.unique(bytes_)) == 256
    assert floats.dtype == np.float32 and len(np.unique(floats)) == 4096
    assert floats.shape == bytes_.shape == (64, 64, 3) and floats.max() == 255
    assert np.abs(floats - bytes_).max() <= 0.5
    assert len(said) == 2 and said[0] == said[1]
    assert '20 of 20 sampled images have more than 8 bits, with values from 0 to 4095' in said[0]
    assert 'white is 4095' in said[0]


def test_16_bits_that_are_used_stay_as_they_were(tmp_path: Path, said: list[str]) -> None:
    root = folder_of(tmp_path / 'full', TWELVE * 16 + 15)
    dataset = ImageFolder(str(root), pipeline=[dict(type=LoadImageFromFile)])
    assert np.array_equal(dataset[0]['img'][..., 0], (TWELVE * 16 >> 8).astype(np.uint8))
    assert dataset.white == 65535 and 'the upper 8 bits' in said[0]


@pytest.mark.parametrize('channels', [1, 3, 4])
@pytest.mark.parametrize('suffix', ['.png', '.tif'])
def test_colours_and_alpha_of_12_bits(
    tmp_path: Path, said: list[str], channels: int, suffix: str
) -> None:
    planes = [np.roll(TWELVE, 7 * i, 1) for i in range(channels)]
    if channels == 4:
        planes[3][:] = 4095  # opaque
    values = planes[0] if channels == 1 else np.dstack(planes)
    root = folder_of(tmp_path / 'images', values, 1, suffix)
    pixels = ImageFolder(str(root), pipeline=[dict(type=LoadImageFromFile)])[0]['img']
    expected = np.rint(values * (255 / 4095)).astype(np.uint8)
    expected = np.dstack([expected] * 3) if channels == 1 else expected[..., :3]
    assert np.array_equal(pixels, expected)


def test_alpha_is_laid_on_white_in_floats_too(tmp_path: Path) -> None:
    values = np.dstack([TWELVE] * 3 + [np.roll(TWELVE, 9, 1)])
    cv2.imwrite(str(tmp_path / 'a.png'), values)
    as_bytes = read_image(tmp_path / 'a.png', 4095).astype(float)
    floats = read_image(tmp_path / 'a.png', 4095, float32=True)
    assert floats.shape == (64, 64, 3) and np.abs(as_bytes - floats).max() < 1.5


@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_turns_16_bits_as_it_turns_8(tmp_path: Path, orientation: int) -> None:
    picture = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture).save(tmp_path / '8.png', exif=exif)
    Image.fromarray(picture.astype(np.uint16) * 257).save(tmp_path / '16.png', exif=exif)
    cv2.imwrite(str(tmp_path / 'colour.png'), np.dstack([picture.astype(np.uint16) * 257] * 3))
    content = (tmp_path / 'colour.png').read_bytes()
    chunk = content.index(b'IDAT') - 4
    stored = (tmp_path / '8.png').read_bytes()
    start = stored.index(b'eXIf') - 4
    size = int.from_bytes(stored[start : start + 4], 'big') + 12
    (tmp_path / 'colour.png').write_bytes(
        content[:chunk] + stored[start : start + size] + content[chunk:]
    )
    expected = read_image(tmp_path / '8.png')
    assert expected.shape == ((4, 6, 3) if orientation < 5 else (6, 4, 3))
    for name in ('16.png', 'colour.png'):
        assert np.array_equal(read_image(tmp_path / name), expected), name


def test_files_that_state_their_white_keep_it(tmp_path: Path, said: list[str]) -> None:
    header = b'P5 64 64 4095\n'
    (tmp_path / 'a.pgm').write_bytes(header + TWELVE.astype('>u2').tobytes())
    dataset = ImageFolder(str(tmp_path), pipeline=[dict(type=LoadImageFromFile)])
    assert len(np.unique(dataset[0]['img'])) == 256
    assert dataset.white is None and not said


def test_a_given_white(tmp_path: Path, said: list[str]) -> None:
    root = folder_of(tmp_path / 'scans', TWELVE // 2)
    dataset = ImageFolder(str(root), white=4095, pipeline=[dict(type=LoadImageFromFile)])
    assert dataset[0]['img'].max() == 127
    assert 'values from 0 to 2047; white is 4095 (given)' in said[0]
    upper = ImageFolder(str(root), white=None, pipeline=[dict(type=LoadImageFromFile)])
    assert upper[0]['img'].max() == 2047 >> 8
    assert 'the upper 8 are taken' in said[-1] and 'give white=2047' in said[-1]
    with pytest.raises(ValueError, match=r'white=1023 is smaller .* 2047, of .*png: give white=20'):
        ImageFolder(str(root), white=1023)
    for wrong in (0, 'fully'):
        with pytest.raises(ValueError, match='expected a number'):
            ImageFolder(str(root), white=wrong)


def test_a_brighter_image_outside_of_the_sample_is_named_not_clipped(
    tmp_path: Path, said: list[str]
) -> None:
    root = folder_of(tmp_path / 'scans', TWELVE, count=130)
    cv2.imwrite(str(root / '01.png'), TWELVE * 3)  # every third one is looked at, from the first
    dataset = ImageFolder(str(root), pipeline=[dict(type=LoadImageFromFile)])
    assert dataset[1]['img_path'] != str(root / '01.png')
    assert list(dataset.unreadable().items()) == [(str(root / '01.png'), 'unsupported')]
    assert '01.png' in said[-1] and 'give white=16383 to the data set' in said[-1]
    with pytest.raises(UnreadableImageError, match='values go from 0 to 12285, expected 0 to 4095'):
        read_image(root / '01.png', 4095)


def test_8_bit_folders_say_nothing_and_samples_stay_the_same(
    tmp_path: Path, said: list[str]
) -> None:
    root = folder_of(tmp_path / 'bytes', TWELVE.astype(np.uint8), 3)
    dataset = ImageFolder(str(root), pipeline=[dict(type=LoadImageFromFile), dict(type=PackInputs)])
    assert dataset.white is None and not said
    assert set(dataset.get_data_info(0)) == {'img_path', 'sample_idx'}


def test_a_loader_that_does_not_know_the_white_level(tmp_path: Path, said: list[str]) -> None:
    root = folder_of(tmp_path / 'scans', TWELVE, 2)
    ImageFolder(str(root), pipeline=[dict(type='mmcv.LoadImageFromFile')])
    assert 'does not know that white is 4095' in said[-1]


def test_the_split_of_a_folder_has_one_white(tmp_path: Path, said: list[str]) -> None:
    root = folder_of(tmp_path / 'scans', TWELVE // 16, 40)
    for subset in ('train', 'val'):
        for path in sorted(root.iterdir())[:1]:
            cv2.imwrite(str(path), TWELVE)
        split = ImageFolder(str(root), subset=subset, val_images=4)
        assert split.white == 4095 and split.metainfo['white'] == 4095


def test_the_white_level_is_in_the_log_of_a_run(tmp_path: Path) -> None:
    logger = MMLogger.get_instance('samples', log_file=str(tmp_path / 'log'))
    assert logger.level <= logging.INFO
    ImageFolder(str(folder_of(tmp_path / 'scans', TWELVE, 2)))
    assert 'white is 4095 (the fewest bits that hold them)' in (tmp_path / 'log').read_text()


def test_16_bit_bands_beside_colours(tmp_path: Path) -> None:
    """A fourth band that is no alpha was, and is, not laid on white."""
    values = np.dstack([TWELVE * 16] * 4)
    values[..., 3] = 0
    path = write_tiff(tmp_path / 'a.tif', values)
    assert np.array_equal(read_image(path), np.dstack([TWELVE >> 4] * 3))
