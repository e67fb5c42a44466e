"""Weighted k-NN: votes, bank, loops, ranks, and clear errors."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from beitv2_mm.engine import KNNHook, KNNMetric, knn_scores
from beitv2_mm.engine.metrics import knn
from beitv2_mm.models import BEiTV2Backbone
from support.knn_case import ARCH, extractor, loader
from support.tiny import CIFAR


def evaluate(tmp_path: Path, bank: Path, queries: Path, **settings: object) -> dict[str, float]:
    cfg = Config(
        dict(
            default_scope=None,
            work_dir=str(tmp_path),
            experiment_name=tmp_path.name,
            test_dataloader=loader(queries),
            test_cfg=dict(),
            test_evaluator=dict(type=KNNMetric, bank=loader(bank), **settings),
            custom_hooks=[dict(type=KNNHook)],
        )
    )
    return Runner(model=extractor(), **cfg._cfg_dict).test()


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    """The test images with a little noise."""
    rng = np.random.default_rng(0)
    for file in CIFAR.glob('*/*.png'):
        pixels = np.asarray(Image.open(file)).astype(float)
        noise = rng.normal(0, 3, pixels.shape)
        copy = tmp_path / 'noisy' / file.parent.name / file.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)).save(copy)
    return tmp_path / 'noisy'


def test_votes_are_weighted_by_similarity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compared with the definition, neighbour by neighbour, also for queries in parts."""
    generator = torch.Generator().manual_seed(0)
    queries, bank = (F.normalize(torch.randn(n, 8, generator=generator), dim=1) for n in (5, 30))
    labels = torch.randint(0, 4, (30,), generator=generator)
    expected = torch.zeros(5, 4)
    for i, query in enumerate(queries):
        cosine = bank @ query
        for j in cosine.argsort(descending=True)[:7]:
            expected[i, labels[j]] += torch.exp(cosine[j] / 0.07)
    for limit in (1 << 20, 60):
        monkeypatch.setattr(knn, 'MAX_SIMILARITIES', limit)
        scores = knn_scores(queries, bank, labels, 4, k=7, temperature=0.07)
        shares = [s / s.sum(dim=1, keepdim=True) for s in (scores, expected)]
        torch.testing.assert_close(*shares)


def test_more_neighbours_than_bank_and_a_tiny_temperature() -> None:
    bank = F.normalize(torch.tensor([[1.0, 0], [0, 1]]), dim=1)
    scores = knn_scores(bank, bank, torch.tensor([1, 0]), 2, k=20, temperature=1e-4)
    assert scores.isfinite().all()
    assert scores.argmax(dim=1).tolist() == [1, 0]


def test_near_copies_find_their_originals(tmp_path: Path, noisy: Path) -> None:
    """The loop of tools/test.py, with images, folders, model and metric together."""
    metrics = evaluate(tmp_path, CIFAR, noisy, k=1)
    assert metrics.keys() == {'knn/top1', 'knn/top5'}
    assert metrics['knn/top1'] > 90
    # with two of 20 images a class, five neighbours of a random network tell little
    assert evaluate(tmp_path, CIFAR, noisy, k=20, temperature=100.0)['knn/top1'] < 90


def test_bank_is_freed_after_the_evaluation() -> None:
    metric = KNNMetric(bank=loader(CIFAR))
    metric.fill(extractor())
    assert len(metric._features) == 20
    batch = next(iter(Runner.build_dataloader(loader(CIFAR))))
    metric.process(batch, [sample.to_dict() for sample in batch['data_samples']])
    metric.evaluate(4)
    assert metric._features.numel() == 0 and metric._model is None


def test_features_without_data_samples() -> None:
    model, images = extractor().eval(), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        found = model.predict(images)
        expected = model.extract_feat(images)[-1]
    assert torch.equal(torch.stack([sample.feature for sample in found]), expected)


def test_other_classes_are_refused(tmp_path: Path, noisy: Path) -> None:
    (noisy / 'cat').rename(noisy / 'lynx')
    with pytest.raises(ValueError, match=r'bank has 10 classes .*queries have 10 .*the same'):
        evaluate(tmp_path, CIFAR, noisy)


def test_errors_say_what_to_do() -> None:
    with pytest.raises(ValueError, match='k >= 1 and temperature > 0'):
        KNNMetric(bank={}, k=0)
    with pytest.raises(RuntimeError, match=r'no bank: add dict\(type=KNNHook\)'):
        KNNMetric(bank={}).process(None, [])
    with pytest.raises(ValueError, match='with_label=True'):
        KNNMetric(bank=loader(CIFAR, with_label=False)).fill(extractor())
    model = extractor()
    model.backbone.out_type = 'featmap'
    with pytest.raises(ValueError, match=r"\(4, 16, 4, 4\)\. Set the backbone's out_type"):
        KNNMetric(bank=loader(CIFAR)).fill(model)


def test_bank_of_two_ranks_is_in_order_and_without_padding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = torch.arange(5)
    ranks = [torch.tensor([0, 2, 4]), torch.tensor([1, 3, 0])]  # DefaultSampler repeats the first
    monkeypatch.setattr(knn, 'get_world_size', lambda: 2)
    monkeypatch.setattr(knn, 'all_gather', lambda values: ranks)
    assert torch.equal(knn._gather(ranks[0], 5), whole)


def test_pretraining_and_classifier_see_the_same_features(tmp_path: Path) -> None:
    """k-NN in the MIM loop looks at whole images, as the evaluation of the checkpoint does."""
    from beitv2_mm.checkpoint import load
    from beitv2_mm.models import BEiTV2Pretrainer, MIMHead

    backbone = dict(
        type=BEiTV2Backbone,
        arch=ARCH,
        img_size=32,
        patch_size=8,
        position='shared',
        out_type='raw',
        with_mask_token=True,
    )
    head = dict(type=MIMHead, embed_dims=16, num_codes=8)
    pretrainer = BEiTV2Pretrainer(backbone, head, tokenizer=dict()).eval()
    pretrainer.backbone.init_weights()
    table = pretrainer.backbone.rel_pos_bias.relative_position_bias_table
    torch.nn.init.normal_(table)
    model = extractor().eval()
    load(model, pretrainer.state_dict())
    image = torch.rand(2, 3, 32, 32)
    normalized = (image - pretrainer.mean) / pretrainer.std
    torch.testing.assert_close(
        pretrainer.extract_feat(image)[-1], model.extract_feat(normalized)[-1]
    )
