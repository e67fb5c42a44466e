"""Standardisation of every channel with statistics over all ranks: (M, D) -> (M, D)."""

import torch
from torch import Tensor, nn

from beitv2_mm.layers.ranks import sum_over_ranks, world_size


class Standardize(nn.BatchNorm1d):
    """Uses batch statistics in training and their average over all steps in evaluation.

    It is made for targets: it has no learned parameters and passes no gradient. Where gradients
    are needed, ``nn.SyncBatchNorm`` passes them over several ranks, but not on the CPU.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__(dim, affine=False, momentum=None)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        count = sum_over_ranks(x.new_full((), len(x))) if world_size() > 1 else len(x)
        mean = sum_over_ranks(x.sum(dim=0)) / count
        centred = x - mean
        squares = sum_over_ranks(centred.square().sum(dim=0))
        # A step with NaN or Inf on any rank is left out of the average; the device decides this, so
        # that the host does not wait.
        finite = squares.isfinite().all()
        self.num_batches_tracked.add_(finite)
        share = 1 / self.num_batches_tracked.clamp(min=1)
        for average, new in ((self.running_mean, mean), (self.running_var, squares / (count - 1))):
            average.copy_(torch.where(finite, average.lerp(new, share), average))
        return centred / (squares / count + self.eps).sqrt()
