"""Class subsets: folders named by WordNet id, as in ImageNet-A, -R and -Sketch."""

import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.evaluation import Accuracy
from timm.data import ImageNetInfo

from beitv2_mm.engine import SubsetAccuracy
from beitv2_mm.engine.metrics.subset_accuracy import read_class_ids

ROOT = Path(__file__).parents[3]
IDS = list(ImageNetInfo('imagenet-1k').label_names())
PICKED = [900, 3, 17]


def samples(scores: torch.Tensor, labels: list[int]) -> list[dict]:
    return [
        dict(pred_score=s, gt_label=torch.tensor([label]))
        for s, label in zip(scores, labels, strict=True)
    ]


def metric(classes: list[str], **settings: object) -> SubsetAccuracy:
    result = SubsetAccuracy(topk=(1,), **settings)
    result.dataset_meta = dict(classes=classes)
    return result


def test_outputs_of_other_classes_do_not_count() -> None:
    classes = [IDS[i] for i in sorted(PICKED)]  # ids 3, 17, 900 are labels 0, 1, 2
    scores = torch.zeros(3, 1000)
    scores[:, 500] = 9.0  # a class that the data set does not have
    scores[0, 3] = scores[1, 17] = scores[2, 3] = 1.0
    subset = metric(classes)
    subset.process(None, samples(scores, [0, 1, 2]))
    assert subset.evaluate(3)['accuracy/top1'] == pytest.approx(200 / 3)
    plain = Accuracy(topk=(1,))
    plain.process(None, samples(scores, [3, 17, 900]))
    assert plain.evaluate(3)['accuracy/top1'] == 0


def test_class_ids_from_a_folder_a_file_and_timm(tmp_path: Path) -> None:
    for name in ('n02', 'n01', '.hidden'):
        (tmp_path / 'train' / name).mkdir(parents=True)
    (tmp_path / 'ids.txt').write_text('n02 dog\nn01 cat\n\n')
    assert read_class_ids(tmp_path / 'train') == ['n01', 'n02']
    assert read_class_ids(str(tmp_path / 'ids.txt')) == ['n02', 'n01']
    assert read_class_ids(['a']) == ['a']
    assert read_class_ids() == sorted(read_class_ids())
    assert len(read_class_ids()) == 1000
    with pytest.raises(FileNotFoundError, match=r'no class list .*gone\.txt'):
        read_class_ids(tmp_path / 'gone.txt')


def test_errors() -> None:
    with pytest.raises(
        ValueError, match=r'1 of the 2 class folders .*: cat\. Expected .*n01440764'
    ):
        metric([IDS[0], 'cat']).process(None, [])
    with pytest.raises(ValueError, match='10 outputs, but class_ids names 1000'):
        metric(IDS[:2]).process(None, samples(torch.zeros(1, 10), [0]))
    with pytest.raises(ValueError, match='with_label=True'):
        SubsetAccuracy().process(None, [])


@pytest.mark.parametrize('name', ['a', 'r', 'sketch'])
def test_the_configs_on_folders_laid_out_as_theirs(name: str, tmp_path: Path) -> None:
    """A tiny classifier of 1000 classes on folders of four of them."""
    chosen = [IDS[i] for i in (6, 11, 900, 999)]
    for wordnet, cifar in zip(chosen, ('airplane', 'bird', 'cat', 'dog'), strict=True):
        shutil.copytree(ROOT / 'tests/data/cifar10' / cifar, tmp_path / 'images' / wordnet)
    cfg = Config.fromfile(ROOT / f'configs/classification/beitv2_base_8xb128_imagenet_{name}.py')
    arch = dict(embed_dims=16, num_layers=1, num_heads=2)
    cfg.model.backbone.update(arch=arch, img_size=32, patch_size=8)
    cfg.model.head.in_channels = 16
    steps = cfg.test_dataloader.dataset.pipeline
    steps[1].scale, steps[2].crop_size = 36, 32
    cfg.test_dataloader.update(batch_size=4, num_workers=0)
    cfg.test_dataloader.dataset.data_root = str(tmp_path / 'images')
    cfg.test_evaluator.topk = (1, 4)
    cfg.update(work_dir=str(tmp_path / 'work'), experiment_name=f'{name}_{tmp_path.name}')
    runner = Runner.from_cfg(cfg)
    with torch.no_grad():  # always the class of the cats among these; another one among all
        runner.model.head.fc.bias[[900, 500]] = torch.tensor([50.0, 99.0])
    metrics = runner.test()
    assert metrics == {'accuracy/top1': 25.0, 'accuracy/top4': 100.0}
