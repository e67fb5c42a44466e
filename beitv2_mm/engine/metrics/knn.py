"""Weighted k-nearest neighbours: features (B, D) and a labelled bank (M, D) -> top-k accuracy."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import all_gather, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import Tensor, nn

from beitv2_mm.engine.metrics.codes import SumMetric
from beitv2_mm.engine.unwrap import unwrapped_model
from beitv2_mm.registry import HOOKS, METRICS

MAX_SIMILARITIES = 1 << 26  # computed at once: 256 MiB


def knn_scores(
    features: Tensor,
    bank: Tensor,
    bank_labels: Tensor,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> Tensor:
    """Votes of the k most similar bank entries, each exp(cosine / temperature): (B, num_classes).

    Args:
        features, bank: (B, D) and (M, D), l2-normalised.
        bank_labels: (M,) integers below ``num_classes``.
    """
    scores = []
    for part in features.split(max(1, MAX_SIMILARITIES // len(bank))):
        cosine, index = (part @ bank.T).topk(min(k, len(bank)), dim=1)
        votes = part.new_zeros(len(part), num_classes)
        # relative to the largest cosine, because a small temperature would overflow
        weights = ((cosine - cosine[:, :1]) / temperature).exp()
        scores.append(votes.scatter_add_(1, bank_labels[index], weights))
    return torch.cat(scores)


def extract_features(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    """Features (B, D) of a batch from the data loader.

    They are the model's ``extract_feat(inputs)``, or the last one of several outputs.

    Raises:
        ValueError: the features are not (B, D).
    """
    data = model.data_preprocessor(batch, False)
    features = model.extract_feat(data['inputs'])
    if isinstance(features, tuple | list):
        features = features[-1]
    if features.ndim != 2:
        raise ValueError(
            f'k-NN compares one vector per image, but {type(model).__name__}.extract_feat returns '
            f"{tuple(features.shape)}. Set the backbone's out_type to 'avg_featmap' or 'cls_token'."
        )
    return features


@METRICS.register_module()
class KNNMetric(SumMetric):
    """Accuracy of a weighted k-NN classifier on the model's features, in percent.

    The images of the evaluation are the queries. Their features come from ``model.extract_feat``,
    whatever the model predicts, so the metric also works in masked image modelling, where the
    network then sees the whole image; a `FeatureExtractor` predicts the features themselves.
    `KNNHook` must be among the hooks: it fills the bank before each evaluation. Every rank holds
    the whole bank, 4 * D bytes per image.

    Args:
        bank: config of a data loader with labels, with the classes of the queries and without
            augmentation.
        k: number of neighbours.
        temperature: divides the cosine in the weight of a neighbour, exp(cosine / temperature).
        topk: accuracies to compute.
    """

    def __init__(
        self,
        bank: dict,
        k: int = 20,
        temperature: float = 0.07,
        topk: Sequence[int] = (1, 5),
        prefix: str | None = 'knn',
        **kwargs: Any,
    ) -> None:
        super().__init__(prefix=prefix, **kwargs)
        if k < 1 or temperature <= 0:
            raise ValueError(f'Expected k >= 1 and temperature > 0, got {k} and {temperature}.')
        self.bank = bank
        self.k = k
        self.temperature = temperature
        self.topk = tuple(topk)

    def _reset(self) -> None:
        super()._reset()
        # The next evaluation fills another bank, and training needs the memory.
        self._model: nn.Module | None = None
        self._features = self._labels = torch.empty(0)

    @torch.no_grad()
    def fill(self, model: nn.Module) -> None:
        """Computes the bank with ``model``, which is put into eval mode."""
        model.eval()
        # A new loader each time, because idle workers would hold memory until the next evaluation.
        loader = Runner.build_dataloader(self.bank)
        features, labels = [], []
        for batch in loader:
            features.append(_unit(extract_features(model, batch)))
            labels += [_label(sample) for sample in batch['data_samples']]
        size = len(loader.dataset)
        device = features[0].device
        self._features = _gather(torch.cat(features), size)
        self._labels = _gather(torch.tensor(labels, device=device), size)
        self._classes = tuple(loader.dataset.metainfo.get('classes', ()))
        self._num_classes = max(len(self._classes), int(self._labels.max()) + 1)
        self._model = model
        print_log(f'k-NN: {size} images in the bank', 'current')

    @torch.no_grad()
    def process(self, data_batch: Any, data_samples: Sequence[Mapping]) -> None:
        """Classifies a batch and counts the hits."""
        if self._model is None:
            raise RuntimeError(
                'KNNMetric has no bank: add dict(type=KNNHook) to custom_hooks of the config.'
            )
        classes = tuple((self.dataset_meta or {}).get('classes', self._classes))
        if classes != self._classes:
            raise ValueError(
                f'The bank has {len(self._classes)} classes ({_some(self._classes)}), the queries '
                f'have {len(classes)} ({_some(classes)}); they must be the same.'
            )
        if all('feature' in sample for sample in data_samples):  # from a FeatureExtractor
            queries = torch.stack([sample['feature'] for sample in data_samples])
        else:
            queries = extract_features(self._model, data_batch)
        scores = knn_scores(
            _unit(queries),
            self._features,
            self._labels,
            self._num_classes,
            self.k,
            self.temperature,
        )
        labels = torch.tensor([_label(s) for s in data_batch['data_samples']], device=scores.device)
        best = scores.topk(min(max(self.topk), self._num_classes), dim=1).indices
        right = (best == labels[:, None]).cpu()  # (B, max(topk))
        for row in right:
            found = {f'top{k}': row[:k].any().double() for k in self.topk}
            self._add({**found, 'samples': torch.tensor(1)})

    def compute_metrics(self, results: dict[str, Tensor]) -> dict[str, float]:  # type: ignore[override]
        """The sums over all samples -> percent."""
        samples = results['samples'].item()
        return {f'top{k}': 100 * results[f'top{k}'].item() / samples for k in self.topk}


@HOOKS.register_module()
class KNNHook(Hook):
    """Fills the bank of every `KNNMetric` before each validation and test."""

    priority = 'LOW'  # after EMAHook has put the averaged weights in

    def before_val_epoch(self, runner: Runner) -> None:
        self._fill(runner, runner.val_loop.evaluator.metrics)

    def before_test_epoch(self, runner: Runner) -> None:
        self._fill(runner, runner.test_loop.evaluator.metrics)

    def _fill(self, runner: Runner, metrics: Sequence) -> None:
        model = unwrapped_model(runner)
        for metric in metrics:
            if isinstance(metric, KNNMetric):
                metric.fill(model)


def _unit(features: Tensor) -> Tensor:
    return F.normalize(features.float(), dim=1)


def _label(sample: Any) -> int:
    label = sample.get('gt_label')
    if label is None:
        raise ValueError(
            'k-NN needs labelled images: set with_label=True in the dataset, one folder per class.'
        )
    return int(label)


def _gather(values: Tensor, size: int) -> Tensor:
    """The entries of all ranks in the order of the data set, without the padding of the sampler."""
    if get_world_size() == 1:
        return values
    # rank r has samples r, r + world size, ...
    return torch.stack(all_gather(values), dim=1).flatten(0, 1)[:size]


def _some(names: Sequence[str]) -> str:
    return ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')
