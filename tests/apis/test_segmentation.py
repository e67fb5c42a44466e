"""Images -> label maps and overlays, from the API and the command line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from beitv2_mm.apis import SegmentationInferencer, segment_images
from beitv2_mm.visualization.canvas import default_palette
from beitv2_mm.visualization.segmentation import compare_labels, draw_overlay
from support.shrink import shrink
from support.tiny import CIFAR
from support.tools import run_tool

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with small.py, weights.pth (with names of classes) and bare.pth (without)."""
    folder = tmp_path_factory.mktemp('segmentation')
    file = ROOT / 'configs/segmentation/beitv2_base_8xb2_160k_ade20k_512.py'
    cfg = shrink(Config.fromfile(file), folder, iterations=1)
    cfg.experiment_name = 'inferencer'
    cfg.dump(folder / 'small.py')
    runner = Runner.from_cfg(cfg)
    runner.train()
    torch.save({'state_dict': runner.model.state_dict()}, folder / 'bare.pth')
    (folder / 'work/iter_1.pth').rename(folder / 'weights.pth')
    return folder


def test_labels_have_the_size_of_their_image(small: Path, device: str) -> None:
    inferencer = SegmentationInferencer(small / 'small.py', small / 'weights.pth', device)
    assert inferencer.classes[:2] == ['wall', 'building'] and len(inferencer.palette) == 150
    file = next(CIFAR.glob('*/*.png'))
    pixels = np.random.default_rng(0).integers(0, 256, (47, 71, 3)).astype(np.uint8)
    results = inferencer([str(file), pixels])
    assert [r.labels.shape for r in results] == [(32, 32), (47, 71)]
    np.testing.assert_array_equal(results[0].image, np.asarray(Image.open(file)))
    np.testing.assert_array_equal(results[1].image, pixels[..., ::-1])
    again = inferencer(np.ascontiguousarray(results[0].image[..., ::-1]))[0]
    np.testing.assert_array_equal(again.labels, results[0].labels)
    picture = inferencer.draw(results[1])
    assert picture.width > 71 and picture.height >= 47


def test_names_and_colours(small: Path) -> None:
    bare = SegmentationInferencer(small / 'small.py', small / 'bare.pth')
    assert bare.classes[0] == 'wall'  # of the config's data
    mine = SegmentationInferencer(
        small / 'small.py',
        small / 'bare.pth',
        classes=[f'c{i}' for i in range(150)],
        test_cfg=dict(windows_per_batch=2),
    )
    assert mine.classes[3] == 'c3' and mine.model.test_cfg.windows_per_batch == 2
    with pytest.raises(ValueError, match='has 150 classes, but there are 2 names'):
        SegmentationInferencer(small / 'small.py', small / 'bare.pth', classes=['a', 'b'])
    with pytest.raises(ValueError, match='no segmentation model'):
        SegmentationInferencer(
            ROOT / 'configs/classification/beitv2_tiny_1xb32_8e_cifar10.py', False
        )


def test_files(small: Path, tmp_path: Path, device: str) -> None:
    for name in ('a/x.png', 'b/x.png', 'b/y.jpg', 'b/y.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new('RGB', (40, 36), (90, 60, 30)).save(tmp_path / name)
    (tmp_path / 'b/broken.png').write_bytes(b'no image')
    files = [str(path) for path in sorted(tmp_path.glob('*/*'))]
    done: list[int] = []
    inferencer = SegmentationInferencer(small / 'small.py', small / 'weights.pth', device)
    unreadable = segment_images(files, inferencer, tmp_path / 'out', progress=done.append)
    assert [Path(file).name for file in unreadable] == ['broken.png'] and sum(done) == 5
    assert 'broken.png' in next(iter(unreadable.values()))
    names = {'a/x.png', 'b/x.png', 'b/y.jpg.png', 'b/y.png.png'}
    for folder in ('labels', 'overlays'):
        out = tmp_path / 'out' / folder
        assert {str(path.relative_to(out)) for path in out.rglob('*.png')} == names
    stored = Image.open(tmp_path / 'out/labels/a/x.png')
    expected = inferencer(files[0])[0].labels
    np.testing.assert_array_equal(np.asarray(stored), expected)
    assert stored.mode == 'P'
    color = np.asarray(stored.convert('RGB'))[0, 0]
    np.testing.assert_array_equal(color, inferencer.palette[expected[0, 0]])


def test_command_line(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def segment(*arguments: object) -> None:
        run_tool('segment_images', *arguments)

    options = ('--config', small / 'small.py', '--checkpoint', small / 'weights.pth')
    folder = next(CIFAR.iterdir())
    segment(folder, *options, '--out', tmp_path, '--windows-per-batch', 2, '--device', 'cpu')
    count = len(list(folder.iterdir()))
    assert len(list((tmp_path / 'overlays').iterdir())) == count
    assert f'{count} images, 0 unreadable' in capsys.readouterr().out
    with pytest.raises(SystemExit, match='no file or folder'):
        segment(tmp_path / 'nowhere', *options, '--out', tmp_path)
    with pytest.raises(SystemExit, match='There is no checkpoint'):
        segment(folder, *options[:3], tmp_path / 'none.pth', '--out', tmp_path)


TEXT = """
default_scope = 'mmseg'
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', size=(32, 32)),
    backbone=dict(
        type='beitv2_mm.BEiTV2Backbone',
        arch=dict(embed_dims=16, num_layers=4, num_heads=2),
        img_size=32, patch_size=8, out_type='featmap', out_indices=(0, 1, 2, 3)),
    decode_head=dict(
        type='FCNHead', in_channels=16, in_index=3, channels=8, num_convs=1,
        concat_input=False, num_classes=3),
    test_cfg=dict(mode='whole'))
val_dataloader = dict(dataset=dict(
    type='beitv2_mm.ImageMaskFolder', classes=('a', 'b', 'c'), data_root='data',
    pipeline=[
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]))
"""


@pytest.fixture
def text_config(tmp_path: Path) -> SegmentationInferencer:
    (tmp_path / 'text.py').write_text(TEXT)
    return SegmentationInferencer(tmp_path / 'text.py', pretrained=False)


def test_a_text_config_of_mmseg(text_config: SegmentationInferencer) -> None:
    assert text_config.classes == ['a', 'b', 'c']
    assert text_config(np.zeros((32, 40, 3), np.uint8))[0].labels.shape == (32, 40)


def test_a_large_image_slides_in_whole_mode(
    text_config: SegmentationInferencer, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, seen = [], []
    monkeypatch.setattr('beitv2_mm.apis.segmenter.print_log', lambda text, _: said.append(text))
    text_config.model.backbone.register_forward_pre_hook(
        lambda module, args: seen.append(tuple(args[0].shape[-2:]))
    )
    for size in ((64, 64), (72, 64), (80, 80)):
        assert text_config(np.zeros((*size, 3), np.uint8))[0].labels.shape == size
    assert seen[0] == (64, 64) and set(seen[1:]) == {(32, 32)}
    assert len(said) == 1 and 'sliding windows of 32 x 32' in said[0]
    assert text_config.model.test_cfg.mode == 'whole'


def test_too_little_memory_costs_one_image(
    text_config: SegmentationInferencer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for side in (16, 24, 32):
        Image.new('RGB', (side, side)).save(tmp_path / f'{side}.png')
    extract = text_config.model.extract_feat

    def extract_feat(inputs: torch.Tensor) -> tuple:
        if inputs.shape[-1] == 24:
            torch.empty(2**45, device='cpu')  # the allocator's own error
        return extract(inputs)

    monkeypatch.setattr(text_config.model, 'extract_feat', extract_feat)
    text_config.model.data_preprocessor.size = None
    files = [str(tmp_path / f'{side}.png') for side in (16, 24, 32)]
    failed = segment_images(files, text_config, tmp_path / 'out')
    assert list(failed) == files[1:2] and 'Memory ran out at' in failed[files[1]]
    assert '\n' not in failed[files[1]]
    assert {path.name for path in (tmp_path / 'out/labels').iterdir()} == {'16.png', '32.png'}


def test_overlay() -> None:
    image = np.full((2, 2, 3), 100, np.uint8)
    labels = np.array([[0, 1], [1, 255]], np.uint8)
    palette = np.array([[0, 0, 0], [200, 200, 200]], np.uint8)
    drawn = draw_overlay(image, labels, palette, 0.5)
    assert drawn[..., 0].tolist() == [[50, 150], [150, 100]]
    with pytest.raises(ValueError, match='label map'):
        draw_overlay(image, labels[:1], palette)
    assert len(np.unique(default_palette(150), axis=0)) == 150


def test_comparison_tints_what_each_row_found() -> None:
    images = np.full((2, 4, 4, 3), 100, np.uint8)
    truth, found = np.zeros((2, 2, 4, 4), np.uint8)
    truth[0, :2] = found[1] = 1
    palette = np.array([(0, 0, 0), (250, 0, 0)], np.uint8)
    rows = {'mask': truth, 'model': found}
    drawn = np.asarray(compare_labels(images, rows, palette, ['background', 'shoe'], tile=8))
    red = (drawn[..., 0] > 150) & (drawn[..., 1] < 60)
    tiles = [
        red[12 * row :, 112 + 12 * column :][:8, :8].mean()
        for row in range(3)
        for column in range(2)
    ]
    assert tiles == [0, 0, 0.5, 0, 0, 1]
    assert red[:, 112 + 2 * 12 :].any(), 'the legend'
