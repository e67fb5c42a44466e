"""Pictures and page of real (tiny) runs: in files and in TensorBoard."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import default_collate
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from mmengine.visualization import LocalVisBackend, Visualizer
from mmpretrain.datasets import PackInputs
from mmpretrain.models import ClsDataPreprocessor
from torch.utils.data import DataLoader

from beitv2_mm.datasets import BlockwiseMask, ImageFolder
from beitv2_mm.engine import (
    AttentionPicturesHook,
    CodePicturesHook,
    MIMMetric,
    PredictionPicturesHook,
    RunPageHook,
    SegmentationPicturesHook,
    TokenizerMetric,
)
from beitv2_mm.engine.hooks.pictures import to_pixels
from beitv2_mm.visualization.curves import read_scalars
from beitv2_mm.visualization.run_page import latest_pictures, write_run_page
from support.tiny import (
    CIFAR,
    NUM_CODES,
    build_pretrainer,
    build_tokenizer,
    cifar_images,
    masks,
    randomize,
    teacher_config,
)

HOOKS = [dict(type=AttentionPicturesHook, num_images=2), dict(type=RunPageHook)]


def run(work_dir: Path, model: torch.nn.Module, hooks: list, metric: dict, **settings) -> Runner:
    """Two epochs of five batches, each with a validation."""
    mask = dict(type=BlockwiseMask, patch_size=8, num_masked=6, min_block=2)
    steps = [dict(type=LoadImageFromFile), mask, dict(type=PackInputs)]
    loader = DataLoader(
        ImageFolder(str(CIFAR), pipeline=steps, test_mode=True), 4, collate_fn=default_collate
    )
    runner = Runner(
        model,
        str(work_dir),
        train_dataloader=loader,
        val_dataloader=loader,
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-4)),
        val_evaluator=metric,
        default_hooks=dict(logger=dict(type='LoggerHook', interval=2), checkpoint=None),
        custom_hooks=hooks,
        experiment_name=work_dir.name,
        **{
            'train_cfg': dict(by_epoch=True, max_epochs=2),
            'val_cfg': dict(),
            'visualizer': dict(type=Visualizer, vis_backends=[dict(type=LocalVisBackend)]),
            **settings,
        },
    )
    runner.train()
    return runner


def pictures(work_dir: Path) -> dict[str, np.ndarray]:
    return {file.stem: cv2.imread(str(file)) for file in work_dir.glob('*/vis_data/vis_image/*')}


def test_tokenizer_run_in_files_and_tensorboard(tmp_path: Path) -> None:
    backends = [dict(type=LocalVisBackend), dict(type='TensorboardVisBackend')]
    pytest.importorskip('tensorboard')
    work_dir = tmp_path / 'tokenizer'
    model = randomize(build_tokenizer(teacher_config(tmp_path)))
    run(
        work_dir,
        model,
        [dict(type=CodePicturesHook, interval=2, num_images=10), *HOOKS],
        dict(type=TokenizerMetric, num_codes=NUM_CODES),
        visualizer=dict(type=Visualizer, vis_backends=backends),
    )
    names = {'attention_1', 'attention_2', 'code_maps_2', 'code_atlas_2', 'code_usage_2'}
    found = pictures(work_dir)
    assert set(found) == names
    assert all(image.std() > 10 for image in found.values())

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(next(work_dir.glob('*/vis_data'))))
    events.Reload()
    tags = {'attention', 'code_maps', 'code_atlas', 'code_usage'}
    assert set(events.Tags()['images']) == tags
    assert [image.step for image in events.Images('attention')] == [1, 2]
    assert 'loss_cosine' in events.Tags()['scalars']
    stored = cv2.imdecode(
        np.frombuffer(events.Images('code_maps')[0].encoded_image_string, 'u1'), 1
    )
    np.testing.assert_array_equal(stored, found['code_maps_2'])

    page = (work_dir / 'run.html').read_text()
    assert page.count('data:image/png') == 1 + len(tags) and 'http' not in page
    assert 'cosine to the teacher' in page and 'val/' not in page
    assert 'Epoch 2.' in page and 'Epoch 1.' not in page


def test_pretraining_run_by_iterations(tmp_path: Path) -> None:
    work_dir = tmp_path / 'pretraining'
    hooks = [dict(type=PredictionPicturesHook, num_images=10, num_shown=3), *HOOKS]
    settings = dict(
        train_cfg=dict(by_epoch=False, max_iters=4, val_interval=2),
        log_processor=dict(by_epoch=False),
    )
    run(work_dir, build_pretrainer(), hooks, dict(type=MIMMetric), **settings)
    steps = [f'{name}_{step}' for name in ('attention', 'mim_predictions') for step in (2, 4)]
    assert sorted(pictures(work_dir)) == steps
    assert [p.name for p in latest_pictures(work_dir)] == ['mim_predictions', 'attention']
    assert read_scalars(work_dir)['loss'][0] == [2, 4]
    assert '4 steps so far' in (work_dir / 'run.html').read_text()


def test_pictures_change_nothing_in_the_training(tmp_path: Path) -> None:
    weights = []
    for name, hooks in (('with', [dict(type=PredictionPicturesHook), *HOOKS]), ('without', [])):
        torch.manual_seed(0)
        np.random.seed(0)
        runner = run(tmp_path / name, build_pretrainer(), hooks, dict(type=MIMMetric))
        weights.append(runner.model.state_dict())
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_images_come_from_every_batch_and_look_as_they_are() -> None:
    """Preprocessing is undone exactly, channels in the right order."""
    files = sorted(CIFAR.glob('*/*.png'))[:3]
    images = np.stack([cv2.imread(str(file)) for file in files])
    batch = dict(inputs=torch.as_tensor(images).permute(0, 3, 1, 2))
    for preprocessor in (
        ClsDataPreprocessor(mean=[123.0, 116.0, 103.0], std=[58.0, 57.0, 56.0], to_rgb=True),
        build_pretrainer().data_preprocessor,
    ):
        inputs = preprocessor(dict(batch), False)['inputs']
        np.testing.assert_array_equal(to_pixels(inputs, preprocessor), images[..., ::-1])


def test_without_a_local_backend_there_is_no_page(tmp_path: Path) -> None:
    runner = run(
        tmp_path / 'none',
        build_pretrainer(),
        [dict(type=RunPageHook)],
        dict(type=MIMMetric),
        visualizer=dict(type=Visualizer, vis_backends=[]),
    )
    assert not (tmp_path / 'none/run.html').exists()
    log = next(Path(runner.work_dir).glob('*/*.log')).read_text()
    assert log.count('There is no run.html') == 1
    with pytest.raises(FileNotFoundError):
        write_run_page(tmp_path / 'none')


def test_masks_that_lie_on_the_device_are_drawn() -> None:
    """Data preprocessors of other packages, including mmengine's, put the samples there."""
    model, images = build_pretrainer().eval(), cifar_images(6)
    samples = [BaseDataElement(mask=mask) for mask in masks(6)]
    hook = PredictionPicturesHook(num_images=6, num_shown=2)
    pixels = (images * 255).byte().permute(0, 2, 3, 1).cpu().numpy()  # (6, H, W, 3)
    assert 'mim_predictions' in hook.draw(model, images, pixels, samples)


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match='at least 1'):
        CodePicturesHook(interval=0)
    with pytest.raises(ValueError, match='leaves none of 4'):
        PredictionPicturesHook(num_images=4, num_shown=4)


def test_segmentation_shows_truth_and_prediction() -> None:
    pytest.importorskip('mmseg')
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    from support.segmentors import build_segmentor

    hook = SegmentationPicturesHook()
    hook._meta = dict(classes=('one', 'two', 'three'), palette=[[255, 0, 0], [0, 255, 0], [0] * 3])
    inputs = torch.rand(2, 3, 32, 48)
    model = build_segmentor()
    samples = model.predict(inputs)  # logits resized, as the runner sees them
    for sample in samples:
        sample.gt_sem_seg = PixelData(data=torch.zeros(1, 32, 48, dtype=torch.long))
    assert isinstance(samples[0], SegDataSample)
    images = np.full((2, 32, 48, 3), 100, np.uint8)
    picture = hook.draw(model, inputs, images, samples)['segmentation'].convert('RGB')
    assert picture.height == 2 * 192 + 12
    assert picture.getpixel((100, 100)) == (178, 50, 50)  # the truth, half the class's red
    one = samples[0].pred_sem_seg.data[0]
    expected = [(178, 50, 50), (50, 178, 50), (50, 50, 50)][int(one[16, 24])]
    assert picture.getpixel((288 + 12 + 24 * 6 + 3, 16 * 6 + 3)) == expected
