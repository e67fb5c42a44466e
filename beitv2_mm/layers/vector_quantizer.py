"""Vector quantizer with an l2-normalised codebook: (B, N, d) -> quantized (B, N, d), codes (B, N).

Paper section 2.2, equations 1 to 3. No optimizer trains the codebook: it follows the latents of all
ranks by an exponential moving average (EMA).
"""

import warnings
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from beitv2_mm.layers.nearest_codes import nearest_codes
from beitv2_mm.layers.ranks import sum_over_ranks, world_size


class Quantized(NamedTuple):
    """Result of `VectorQuantizer`."""

    quantized: Tensor  # (B, N, d); the gradient passes straight through to the latents
    codes: Tensor  # (B, N), int64
    commitment_loss: Tensor  # scalar


def _sums_and_counts(latents: Tensor, codes: Tensor, num_codes: int) -> Tensor:
    """Sum of the latents of each code and, in the last column, their number: (K, d + 1)."""
    totals = latents.new_zeros(num_codes, latents.shape[1] + 1)
    return totals.index_add_(0, codes, F.pad(latents, (0, 1), value=1.0))


def _mean_directions(totals: Tensor, codebook: Tensor) -> Tensor:
    """l2-normalised mean (K, d) of the latents of each code; a code without latents stays."""
    used = totals[:, -1:] > 0
    return torch.where(used, F.normalize(totals[:, :-1], dim=1), codebook)


@torch.no_grad()
def spherical_kmeans(
    samples: Tensor, centroids: Tensor, iterations: int = 10
) -> tuple[Tensor, Tensor]:
    """K-means by cosine; an empty cluster keeps its centroid.

    Args:
        samples: (M, d), l2-normalised.
        centroids: (K, d), l2-normalised start.

    Returns:
        Centroids (K, d), l2-normalised, and the size of each cluster (K,) in the last iteration.
    """
    counts = samples.new_zeros(len(centroids))
    for _ in range(iterations):
        codes = nearest_codes(samples, centroids)
        totals = _sums_and_counts(samples, codes, len(centroids))
        centroids, counts = _mean_directions(totals, centroids), totals[:, -1]
    return centroids, counts


class VectorQuantizer(nn.Module):
    """EMA codebook on the unit sphere.

    Everything is computed in fp32, even under autocast, because half precision changes codes. All
    ranks hold the same codebook. The codebook and its statistics stay unchanged in evaluation, and
    in a training step where the latents of any rank hold a NaN or Inf; k-means, with which training
    starts, leaves such latents out.

    Args:
        num_codes: K.
        dim: d.
        decay: decay of the moving averages in each training step.
        beta: weight of the commitment loss.
        kmeans_init: start from k-means on the first training batch of all ranks; otherwise from
            random directions.
        revive_after: number of training steps after which an unused code is replaced by a random
            latent of the batch; None (as in the paper) never replaces any.
    """

    cluster_size: Tensor
    idle_steps: Tensor
    initialized: Tensor

    def __init__(
        self,
        num_codes: int = 8192,
        dim: int = 32,
        decay: float = 0.99,
        beta: float = 1.0,
        kmeans_init: bool = True,
        kmeans_iterations: int = 10,
        revive_after: int | None = None,
    ) -> None:
        super().__init__()
        if num_codes < 2:
            raise ValueError(f'A codebook needs at least 2 codes, but num_codes={num_codes}.')
        if revive_after is not None and revive_after < 1:
            raise ValueError(f'revive_after is a number of steps from 1 on, not {revive_after}.')
        self.num_codes = num_codes
        self.dim = dim
        self.decay = decay
        self.beta = beta
        self.kmeans_iterations = kmeans_iterations
        self.revive_after = revive_after
        self.embedding = nn.Embedding(num_codes, dim).requires_grad_(False)
        with torch.no_grad():
            self.embedding.weight.copy_(F.normalize(torch.randn(num_codes, dim), dim=1))
        self.register_buffer('cluster_size', torch.zeros(num_codes))
        self.register_buffer('idle_steps', torch.zeros(num_codes, dtype=torch.int32))
        self.register_buffer('initialized', torch.tensor(not kmeans_init))
        self._is_initialized = not kmeans_init  # saves a device synchronisation in each step

    def forward(self, latents: Tensor) -> Quantized:
        """Quantizes latents (B, N, d), which need not be normalised."""
        with torch.autocast(latents.device.type, enabled=False):
            z = F.normalize(latents.float(), dim=-1)
            if self.training and not self._is_initialized:
                self._initialize(z.detach())
            codebook = self.embedding.weight.float()
            codes = nearest_codes(z.detach().flatten(0, -2), codebook)
            vectors = codebook[codes].view_as(z)
            if self.training:
                self._update(z.detach().flatten(0, -2), codes)
            loss = self.beta * F.mse_loss(z, vectors)
            quantized = z + (vectors - z).detach()
        return Quantized(quantized, codes.view(z.shape[:-1]), loss)

    def encode(self, latents: Tensor) -> Tensor:
        """Codes of latents: (B, N, d) -> (B, N). The codebook does not change, even in training."""
        with torch.autocast(latents.device.type, enabled=False):
            z = F.normalize(latents.detach().float(), dim=-1)
            codebook = self.embedding.weight.float()
            return nearest_codes(z.flatten(0, -2), codebook).view(z.shape[:-1])

    def decode(self, codes: Tensor) -> Tensor:
        """Vectors of codes: (...) -> (..., d), l2-normalised."""
        return self.embedding(codes)

    @torch.no_grad()
    def _initialize(self, z: Tensor) -> None:
        """K-means on the latents (B, N, d) of all ranks, computed by rank 0 and broadcast.

        Latents with NaN or Inf are left out; if none remain, the next batch initialises.
        """
        ranks = world_size()
        if ranks > 1:
            parts = [torch.empty_like(z) for _ in range(ranks)]
            dist.all_gather(parts, z.contiguous())
            # Samplers give images to the ranks in turn: restore the order of the whole batch.
            z = torch.stack(parts, dim=1)
        samples = z.flatten(0, -2)
        samples = samples[samples.isfinite().all(dim=1)]
        if not len(samples):
            return
        codebook, counts = self.embedding.weight, self.cluster_size
        if ranks == 1 or dist.get_rank() == 0:
            order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))
            start = samples[order[: self.num_codes].to(samples.device)]
            missing = self.num_codes - len(start)
            if missing > 0:
                warnings.warn(
                    f'The first batch has {len(samples)} latents for a codebook of '
                    f'{self.num_codes}: {missing} codes start at random. Use a larger batch, a '
                    'smaller codebook or revive_after.',
                    stacklevel=2,
                )
                start = torch.cat([start, codebook[:missing]])
            start, sizes = spherical_kmeans(samples, start, self.kmeans_iterations)
            codebook.copy_(start)
            counts.copy_(sizes)
        if ranks > 1:
            dist.broadcast(codebook.data, src=0)
            dist.broadcast(counts, src=0)
        self.initialized.fill_(True)
        self._is_initialized = True

    @torch.no_grad()
    def _update(self, z: Tensor, codes: Tensor) -> None:
        """One EMA step from the latents (M, d) and codes (M,) of all ranks."""
        totals = sum_over_ranks(_sums_and_counts(z, codes, self.num_codes))
        finite = totals.isfinite().all()  # the same on all ranks: a NaN or Inf stays in the sum
        weight, counts = self.embedding.weight, totals[:, -1]
        codebook = weight.float()
        means = _mean_directions(totals, codebook)
        codebook = F.normalize(codebook * self.decay + means * (1 - self.decay), dim=1)
        sizes = self.cluster_size.mul(self.decay).add(counts, alpha=1 - self.decay)
        idle = (self.idle_steps + 1) * (counts == 0)
        if self.revive_after is not None:
            dead = idle >= self.revive_after
            codebook = torch.where(dead[:, None], self._random_latents(z), codebook)
            idle = idle * ~dead
        # The device chooses; to look at `finite`, the host would have to wait for the step.
        for buffer, new in (
            (weight, codebook),
            (self.cluster_size, sizes),
            (self.idle_steps, idle),
        ):
            buffer.copy_(torch.where(finite, new, buffer))

    def _random_latents(self, z: Tensor) -> Tensor:
        """Draws a latent (M, d) of rank 0 for every code, the same on all ranks: (K, d)."""
        latents = z[torch.randint(len(z), (self.num_codes,), device=z.device)]
        if world_size() > 1:
            dist.broadcast(latents, src=0)
        return latents

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: object) -> None:
        if f'{prefix}embedding.weight' in state_dict:
            # The official files lack our flag and statistics; their codebook is a trained one.
            state_dict.setdefault(f'{prefix}initialized', torch.tensor(True))
            state_dict.setdefault(f'{prefix}cluster_size', self.cluster_size)
            state_dict.setdefault(f'{prefix}idle_steps', self.idle_steps)
            self._is_initialized = bool(state_dict[f'{prefix}initialized'])
        super()._load_from_state_dict(state_dict, prefix, *args)
