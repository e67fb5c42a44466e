"""mmpretrain's own multimodal models with this package's backbone, by config alone: their configs,
made small, are trained and tested by real Runners, and mmpretrain's inferencers run them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain import ImageCaptionInferencer, VisualQuestionAnsweringInferencer
from mmpretrain.registry import MODELS
from mmpretrain.utils.dependency import WITH_MULTIMODAL

from beitv2_mm.engine import launch
from support.shrink_mmpretrain import CAPTIONS, EYE, FILES, QUESTION, shrink_mmpretrain

pytestmark = [
    pytest.mark.skipif(
        not WITH_MULTIMODAL, reason='needs pycocotools and a transformers that mmpretrain knows'
    ),
    pytest.mark.not_pretended(reason="mmpretrain's tokenizers make tensors on a device by name"),
]
CONFIGS = Path(__file__).parents[2] / 'configs/multimodal'
IMAGES = [str(file) for file in FILES]


def small(name: str, folder: Path) -> Config:
    (file,) = CONFIGS.glob(f'*_{name}_*.py')
    cfg = launch.load_config(str(file))
    shrink_mmpretrain(cfg, folder)
    return cfg


def learn(cfg: Config, steps: int) -> list[float]:
    """Trains on all twenty images at once; the loss of each step."""
    cfg.train_cfg.update(max_epochs=steps, val_interval=steps + 1)
    cfg.optim_wrapper = dict(optimizer=dict(type='AdamW', lr=3e-3))
    cfg.train_dataloader.batch_size = cfg.train_dataloader.dataset.indices = len(IMAGES)
    cfg.default_hooks.checkpoint.interval = steps
    runner = launch.build_runner(cfg, verbose=False)
    runner.train()
    return list(runner.message_hub.log_scalars['train/loss'].data[0])


class Start(Hook):
    """Keeps the initial weights."""

    def before_train(self, runner: Runner) -> None:
        self.weights = {k: v.clone() for k, v in runner.model.named_parameters()}


def assert_trains(runner: Runner) -> None:
    """Every weight that is to be learnt changes in two steps; a frozen backbone's does not."""
    start = Start()
    runner.register_hook(start)
    runner.train()
    for name, value in runner.model.named_parameters():
        if value.requires_grad or name.startswith('vision_backbone.'):
            assert value.requires_grad != torch.equal(value, start.weights[name]), name


def test_captions(tmp_path: Path) -> None:
    """Sixty steps on twenty images, which mmpretrain's inferencer then captions and draws."""
    cfg = small('blip_caption', tmp_path)
    losses = learn(cfg, steps=60)
    assert losses[-1] < 0.3 * losses[0]
    cfg.dump(tmp_path / 'blip.py')
    weights = str(tmp_path / 'work/epoch_60.pth')
    describe = ImageCaptionInferencer(str(tmp_path / 'blip.py'), pretrained=weights)
    found = describe(IMAGES, show_dir=str(tmp_path / 'drawn'))
    right = sum(f['pred_caption'] == caption for f, caption in zip(found, CAPTIONS, strict=True))
    assert right > 10  # of twenty, ten classes
    assert len(list((tmp_path / 'drawn').glob('*.png'))) == len(IMAGES)


def test_answers(tmp_path: Path) -> None:
    """mmpretrain's inferencer asks a network of sixty steps what it sees."""
    cfg = small('blip_vqa', tmp_path)
    losses = learn(cfg, steps=60)
    assert losses[-1] < 0.5 * losses[0]
    cfg.dump(tmp_path / 'blip.py')
    weights = str(tmp_path / 'work/epoch_60.pth')
    answer = VisualQuestionAnsweringInferencer(str(tmp_path / 'blip.py'), pretrained=weights)
    found = answer(IMAGES, [QUESTION] * len(IMAGES))
    classes = [file.parent.name for file in FILES]
    answers = [one['pred_answer'] for one in found]
    assert set(answers) <= set(classes)
    assert sum(map(str.__eq__, answers, classes)) > 4  # of twenty, ten classes


@pytest.mark.parametrize('name', ['blip_caption', 'blip_retrieval', 'blip_vqa', 'blip2_caption'])
def test_config_trains_and_is_tested(name: str, tmp_path: Path) -> None:
    runner = launch.build_runner(small(name, tmp_path), verbose=False)
    assert_trains(runner)
    metrics = runner.test()
    if name == 'blip_retrieval':
        assert {'i2t/retrieval/Recall@1', 't2i/retrieval/Recall@10'} <= metrics.keys()
    else:
        assert list(tmp_path.glob('found.*'))


def test_llava_describes(tmp_path: Path) -> None:
    """As far as it goes without weights: mmpretrain has no loss for it."""
    cfg = small('llava_caption', tmp_path)
    launch.build_runner(cfg, verbose=False).test()
    cfg.dump(tmp_path / 'llava.py')
    (found,) = ImageCaptionInferencer(str(tmp_path / 'llava.py'))(IMAGES[:1])
    assert isinstance(found['pred_caption'], str)


def test_weights_of_blip_around_another_vision_encoder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The text side of published weights is loaded, and nothing of their ViT: its class token has
    the name and shape of ours."""
    cfg = small('blip_caption', tmp_path)
    vit: Any = dict(type='mmpretrain.VisionTransformer', out_type='raw', **EYE)
    vit['arch'] = EYE['arch'] | dict(feedforward_channels=96)
    torch.manual_seed(1)
    theirs = MODELS.build({**cfg.model, 'vision_encoder': vit}).state_dict()
    theirs['visual_encoder.cls_token'].normal_()
    torch.save(dict(state_dict=theirs), tmp_path / 'blip.pth')
    cfg.load_from = str(tmp_path / 'blip.pth')
    runner = launch.build_runner(cfg)
    runner.load_or_resume()
    loaded = runner.model.state_dict()
    for name, value in loaded.items():
        assert ('visual_encoder' not in name) == torch.equal(value, theirs.get(name, value + 1)), (
            name
        )
    assert 'visual_encoder keeps its weights' in capsys.readouterr().out
