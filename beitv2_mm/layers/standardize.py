"""Standardisation of every channel with the statistics of all ranks: (M, D) -> (M, D)."""

import torch
from torch import Tensor, nn

from beitv2_mm.layers.ranks import sum_over_ranks, world_size


class Standardize(nn.BatchNorm1d):
    """Batch statistics in training, their plain average over all steps in evaluation.

    For targets: without learned parameters, and without gradients over several ranks
    (``nn.SyncBatchNorm`` has them, but not on the CPU).
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__(dim, affine=False, momentum=None)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(x)
        count = sum_over_ranks(x.new_tensor(float(len(x))))
        mean = sum_over_ranks(x.sum(dim=0)) / count
        centred = x - mean
        squares = sum_over_ranks(centred.square().sum(dim=0))
        self.num_batches_tracked.add_(1)
        share = 1 / self.num_batches_tracked
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(squares / (count - 1), share)
        return centred / (squares / count + self.eps).sqrt()
