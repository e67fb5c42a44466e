from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
from PIL import Image, ImageOps
from torchvision.transforms import v2

from beitv2_mm.datasets import (
    ImageFolder,
    LoadImageFromFile,
    TorchvisionTransforms,
    UnreadableImageError,
)
from beitv2_mm.datasets.tensor_transforms import to_array, to_tensor
from support.tiny import CIFAR

pytestmark = pytest.mark.cpu_only(reason='images are read and prepared on the CPU')

FILES = sorted(CIFAR.rglob('*.png'))
CROP = dict(type=v2.RandomResizedCrop, size=48, scale=(0.2, 1.0), interpolation='bicubic')


def picture(mode='RGB', size=(150, 117)):
    """Real images side by side, enlarged: (width, height) of ``size``."""
    rows = [np.hstack([np.array(Image.open(f)) for f in FILES[i : i + 5]]) for i in (0, 5, 10)]
    return Image.fromarray(np.vstack(rows)).resize(size, Image.Resampling.BICUBIC).convert(mode)


def save(path, image, **options):
    image.save(path, **options)
    return str(path)


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize(
    ('mode', 'name', 'options'),
    [
        ('RGB', 'a.jpg', {'quality': 90}),
        ('RGB', 'a.jpg', {'quality': 70, 'progressive': True, 'subsampling': 0}),
        ('RGB', 'misnamed.png', {'format': 'JPEG'}),
        ('L', 'grey.jpg', {}),
        ('CMYK', 'cmyk.jpg', {}),
        ('RGB', 'a.png', {}),
        ('RGB', 'a.webp', {}),
    ],
)
def test_pixels_are_those_of_pillow(tmp_path, mode, name, options, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / name, picture(mode), exif=exif, **options)
    results = LoadImageFromFile()(dict(img_path=path))
    with Image.open(path) as image:
        expected = np.array(ImageOps.exif_transpose(image).convert('RGB'))[..., ::-1]
    assert results['img'].dtype == np.uint8 and np.array_equal(results['img'], expected)
    size = (117, 150) if orientation < 5 else (150, 117)
    assert results['img_shape'] == results['ori_shape'] == size


@pytest.mark.parametrize('keep', [0, 2, 300, 2500])
def test_damaged_jpeg_is_an_error(tmp_path, keep):
    path = save(tmp_path / 'a.jpg', picture())
    content = Path(path).read_bytes()
    assert len(content) > 3000
    (tmp_path / 'a.jpg').write_bytes(content[:keep])
    with pytest.raises(UnreadableImageError, match=r'a\.jpg'):
        LoadImageFromFile()(dict(img_path=path))
    save(tmp_path / 'b.jpg', picture())
    dataset = ImageFolder(str(tmp_path), pipeline=[dict(type=LoadImageFromFile)])
    np.random.seed(0)
    assert dataset[0]['img_path'].endswith('b.jpg')
    assert dataset.num_unreadable == 1


def test_no_copy_between_array_and_tensor():
    image = torch.randint(0, 256, (5, 7, 3), dtype=torch.uint8).permute(2, 0, 1)
    array = to_array(image)
    assert np.array_equal(array[..., 0], image[2].numpy())  # BGR
    again = to_tensor(array)
    assert torch.equal(again, image) and again.data_ptr() == image.data_ptr()
    assert torch.equal(to_tensor(np.ascontiguousarray(array)), image)


def test_crop_and_resize_are_pillows():
    """Bicubic with antialiasing: at most 2 levels off anywhere, a hundredth on average."""
    image = picture(size=(500, 375))
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    differences = []
    for top, left, height, width in [(0, 0, 375, 500), (13, 20, 300, 310), (50, 60, 150, 170)]:
        ours = v2.functional.resized_crop(
            tensor,
            top,
            left,
            height,
            width,
            [224, 224],
            v2.InterpolationMode.BICUBIC,
            antialias=True,
        )
        box = image.crop((left, top, left + width, top + height))
        theirs = np.array(box.resize((224, 224), Image.Resampling.BICUBIC))
        differences.append(np.abs(ours.permute(1, 2, 0).numpy().astype(int) - theirs))
    assert max(d.max() for d in differences) <= 2
    assert np.mean(differences) < 0.01


def test_transforms_by_class_and_by_name():
    image = np.array(picture())
    results = []
    for crop in (CROP, {**CROP, 'type': 'torchvision.transforms.v2.RandomResizedCrop'}):
        transform = ROOT_TRANSFORMS.build(
            dict(type='beitv2_mm.TorchvisionTransforms', transforms=[crop])
        )
        torch.manual_seed(0)
        results.append(transform(dict(img=image)))
    assert np.array_equal(results[0]['img'], results[1]['img'])
    assert results[0]['img'].shape == (48, 48, 3) and results[0]['img_shape'] == (48, 48)
    assert 'RandomResizedCrop' in repr(transform)


def test_result_is_bgr_again():
    image = np.zeros((4, 6, 3), np.uint8)
    image[:, :2, 2] = 200  # red, left
    transform = TorchvisionTransforms([dict(type=v2.RandomHorizontalFlip, p=1.0)])
    result = transform(dict(img=image))['img']
    assert np.array_equal(result, image[:, ::-1])
