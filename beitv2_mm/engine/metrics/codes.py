"""Metrics of both pretraining stages; they keep sums, so memory does not grow with the data."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.dist import all_gather_object, get_dist_info
from mmengine.evaluator import BaseMetric
from torch import Tensor

from beitv2_mm.registry import METRICS


def codebook_statistics(counts: Tensor, min_share: float = 0.0) -> dict[str, float]:
    """How often each code was chosen, (K,) >= 0 -> usage in percent, perplexity, unused codes.

    A code is used if its count exceeds ``min_share`` of the mean count. Perplexity is
    exp(entropy) of the shares: K for equal shares, 1 if all patches have the same code.
    """
    counts = counts.detach().double().cpu()
    total = counts.sum()
    shares = counts / total if total > 0 else counts
    used = int((shares * len(counts) > min_share).sum())
    return {
        'codebook_usage': 100 * used / len(counts),
        'perplexity': torch.special.entr(shares).sum().exp().item(),
        'unused_codes': len(counts) - used,
    }


class SumMetric(BaseMetric):
    """Sums tensors over the samples of all ranks, without those that the sampler added as padding.

    mmengine drops padding from a list of the results of all samples, which here would hold every
    code of the data set. As ranks take samples in turn, at most the last one of a rank is padding;
    only that one is held back until the size of the data set is known.
    """

    def __init__(self, prefix: str | None = None, **kwargs: Any) -> None:
        super().__init__(prefix=prefix, **kwargs)
        self._reset()

    def _reset(self) -> None:
        self._count = 0
        self._last: dict[str, Tensor] = {}
        self._sums: dict[str, Tensor] = {}

    def _add(self, sample: dict[str, Tensor]) -> None:
        _accumulate(self._sums, self._last)
        self._last = sample
        self._count += 1

    def evaluate(self, size: int) -> dict[str, float]:
        """The metrics over a data set of ``size`` samples, the same on every rank."""
        rank, world_size = get_dist_info()
        if (self._count - 1) * world_size + rank < size:
            _accumulate(self._sums, self._last)
        sums: dict[str, Tensor] = {}
        # as objects, because a rank without samples does not know the names
        mine = {name: value.cpu() for name, value in self._sums.items()}
        for part in all_gather_object(mine):
            _accumulate(sums, part)
        self._reset()
        if not sums:
            raise ValueError(
                f'{type(self).__name__} has seen no samples. Check that the data loader is not '
                'empty and that the model returns data samples in predict mode.'
            )
        metrics = self.compute_metrics(sums)  # type: ignore[arg-type]
        return {f'{self.prefix}/{k}' if self.prefix else k: v for k, v in metrics.items()}


def _accumulate(sums: dict[str, Tensor], sample: Mapping[str, Tensor]) -> None:
    for name, value in sample.items():
        sums[name] = sums[name] + value if name in sums else value


def _field(sample: Mapping, name: str, metric: str, to_host: bool = True) -> Tensor:
    if name not in sample:
        raise KeyError(
            f'{metric} needs the field {name!r} in every data sample; the model returned '
            f'{sorted(sample)}.'
        )
    value = torch.as_tensor(sample[name]).detach()
    return value.cpu() if to_host else value


@METRICS.register_module()
class TokenizerMetric(SumMetric):
    """Cosine to the teacher and use of the codebook.

    Data samples have ``pred_codes``, (N,) integers, ``cosine``, the mean over the image, and
    ``target``, the teacher's features as unit vectors (N, D). The metrics are ``cosine``;
    ``cosine_constant``, the cosine of the best output that depends on the position of the patch
    but not on the image, namely the mean target; and, counted over the whole data set,
    ``codebook_usage`` in percent of the ``num_codes`` codes, ``perplexity`` and ``unused_codes``.
    """

    def __init__(self, num_codes: int, prefix: str | None = None, **kwargs: Any) -> None:
        super().__init__(prefix=prefix, **kwargs)
        self.num_codes = num_codes

    def process(self, data_batch: object, data_samples: Sequence[Mapping]) -> None:
        """Counts the codes and sums the cosines of a batch."""
        for sample in data_samples:
            codes = _field(sample, 'pred_codes', 'TokenizerMetric').flatten()
            counts = torch.bincount(codes, minlength=self.num_codes)
            if len(counts) != self.num_codes:
                raise ValueError(
                    f'There is a code {len(counts) - 1}, but num_codes is {self.num_codes}: set '
                    "num_codes of TokenizerMetric to the tokenizer's codebook size."
                )
            cosine = _field(sample, 'cosine', 'TokenizerMetric').double().mean()
            # (N, D) is summed on its device, without waiting for it, and separately for each N,
            # because images of different sizes have no common positions.
            target = _field(sample, 'target', 'TokenizerMetric', to_host=False)
            sums = {'counts': counts, 'cosine': cosine, 'samples': torch.tensor(1)}
            self._add({**sums, f'target {len(target)}': target})

    def compute_metrics(self, results: dict[str, Tensor]) -> dict[str, float]:  # type: ignore[override]
        """The sums over all samples -> metrics."""
        samples = results['samples'].item()
        # The unit vector u with the largest sum of u . target is parallel to the sum of the
        # targets, and the largest sum is the norm of that sum.
        targets = [value for name, value in results.items() if name.startswith('target ')]
        constant = sum(target.norm(dim=-1).mean().item() for target in targets)
        return {
            'cosine': results['cosine'].item() / samples,
            'cosine_constant': constant / samples,
            **codebook_statistics(results['counts']),
        }


@METRICS.register_module()
class MIMMetric(SumMetric):
    """Means over images of every ``accuracy_*`` (percent) and ``loss_*`` field.

    If the data samples have ``code_shares``, (K,) percentages of the masked patches, there is also
    ``accuracy_constant``, the accuracy of always predicting the commonest code.
    """

    def process(self, data_batch: object, data_samples: Sequence[Mapping]) -> None:
        """Sums the fields of a batch."""
        for sample in data_samples:
            names = [name for name in sample if name.startswith(('accuracy_', 'loss_'))]
            if not names:
                raise KeyError(
                    'MIMMetric needs fields named accuracy_* or loss_* in every data sample; the '
                    f'model returned {sorted(sample)}.'
                )
            sums = {name: _field(sample, name, 'MIMMetric').double().mean() for name in names}
            if 'code_shares' in sample:
                sums['code_shares'] = _field(sample, 'code_shares', 'MIMMetric', to_host=False)
            self._add({**sums, 'samples': torch.tensor(1)})

    def compute_metrics(self, results: dict[str, Tensor]) -> dict[str, float]:  # type: ignore[override]
        """The sums over all samples -> metrics."""
        samples = results.pop('samples').item()
        shares = results.pop('code_shares', None)
        means = {name: value.item() / samples for name, value in results.items()}
        if shares is not None:
            means['accuracy_constant'] = shares.max().item() / samples
        return means
