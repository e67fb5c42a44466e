"""A tiny network, a loader of class folders and a k-NN metric on them."""

from pathlib import Path

import torch
from mmengine.dataset import DefaultSampler, default_collate
from mmengine.runner import Runner
from mmpretrain.datasets import PackInputs
from mmpretrain.models import ClsDataPreprocessor

from beitv2_mm.datasets import ImageFolder, LoadImageFromFile
from beitv2_mm.engine import KNNMetric
from beitv2_mm.models import BEiTV2Backbone, FeatureExtractor
from support.tiny import CIFAR

ARCH = dict(embed_dims=16, num_layers=1, num_heads=2)


def loader(folder: Path, with_label: bool = True) -> dict:
    return dict(
        batch_size=4,
        num_workers=0,
        sampler=dict(type=DefaultSampler, shuffle=False),
        collate_fn=dict(type=default_collate),
        dataset=dict(
            type=ImageFolder,
            data_root=str(folder),
            with_label=with_label,
            pipeline=[dict(type=LoadImageFromFile), dict(type=PackInputs)],
            test_mode=True,
        ),
    )


def extractor() -> FeatureExtractor:
    torch.manual_seed(0)
    model = FeatureExtractor(
        backbone=dict(type=BEiTV2Backbone, arch=ARCH, img_size=32, patch_size=8),
        data_preprocessor=dict(
            type=ClsDataPreprocessor, mean=[127.0] * 3, std=[64.0] * 3, to_rgb=True
        ),
    )
    model.init_weights()
    return model


def evaluate(count: int) -> dict[str, torch.Tensor]:
    """Bank and accuracy of ``count`` images among themselves, on however many ranks there are."""
    config = loader(CIFAR)
    config['dataset']['indices'] = count
    metric = KNNMetric(bank=config, k=3)
    metric.fill(extractor())
    for batch in Runner.build_dataloader(config):
        samples = [sample.to_dict() for sample in batch['data_samples']]
        metric.process(batch, samples)
    bank = dict(bank=metric._features, labels=metric._labels)
    return dict(**bank, top1=torch.tensor(metric.evaluate(count)['knn/top1']))
