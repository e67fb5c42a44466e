"""Vector quantizer with an l2-normalised codebook: (B, N, d) -> quantized (B, N, d), codes (B, N).

Paper section 2.2, equations 1 to 3. The codebook is no parameter of the optimizer: it follows the
latents by an exponential moving average (EMA), summed over all ranks.
"""

import warnings
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from beitv2_mm.layers.ranks import sum_over_ranks, world_size

# Scores held at once by the search, whatever the number of tokens: on a CPU what its cache holds
# (4 MiB, 1.4 times as fast as 16), on other devices enough to fill them (128 MiB).
MAX_SCORES = 2**20
MAX_SCORES_ON_DEVICE = 2**25


class Quantized(NamedTuple):
    """What the quantizer returns."""

    quantized: Tensor  # (B, N, d), the gradient goes straight through to the latents
    codes: Tensor  # (B, N), int64
    commitment_loss: Tensor  # scalar


def _argmax(scores: Tensor, block: int = 128) -> Tensor:
    """``scores.argmax(dim=1)``: first among blocks, then within the best. PyTorch's maximum is 30
    times as fast as its argmax on a CPU."""
    missing = -scores.shape[1] % block
    if missing:
        scores = F.pad(scores, (0, missing), value=-torch.inf)
    blocks = scores.unflatten(1, (-1, block))
    best = blocks.amax(dim=2).argmax(dim=1)
    rows = torch.arange(len(scores), device=scores.device)
    return best * block + blocks[rows, best].argmax(dim=1)


def search_codes(latents: Tensor, codebook: Tensor) -> Tensor:
    """Index of the code with the largest cosine: (M, d), (K, d), both l2-normalised -> (M,)."""
    limit = MAX_SCORES if latents.device.type == 'cpu' else MAX_SCORES_ON_DEVICE
    parts = latents.split(max(1, limit // len(codebook)))
    return torch.cat([_argmax(part @ codebook.T) for part in parts])


# An operator of its own, without gradient: a compiled graph holds it whole, for any M.
nearest_codes = torch.library.custom_op('beitv2_mm::nearest_codes', search_codes, mutates_args=())


@nearest_codes.register_fake
def _(latents: Tensor, codebook: Tensor) -> Tensor:
    return latents.new_empty(len(latents), dtype=torch.int64)


@register_flop_formula(torch.ops.beitv2_mm.nearest_codes)
def _(latents: Any, codebook: Any, **kwargs: Any) -> int:
    return 2 * latents[0] * latents[1] * codebook[0]  # shapes (M, d) and (K, d)


def _sums_and_counts(latents: Tensor, codes: Tensor, num_codes: int) -> Tensor:
    """Sum of the latents of each code and, last column, their number: (K, d + 1)."""
    totals = latents.new_zeros(num_codes, latents.shape[1] + 1)
    return totals.index_add_(0, codes, F.pad(latents, (0, 1), value=1.0))


def _mean_directions(totals: Tensor, codebook: Tensor) -> Tensor:
    """l2-normalised mean of the latents of each code; a code without latents stays: (K, d)."""
    used = totals[:, -1:] > 0
    return torch.where(used, F.normalize(totals[:, :-1], dim=1), codebook)


@torch.no_grad()
def spherical_kmeans(
    samples: Tensor, centroids: Tensor, iterations: int = 10
) -> tuple[Tensor, Tensor]:
    """K-means by cosine; an empty cluster keeps its centroid.

    Args:
        samples: (M, d), l2-normalised.
        centroids: (K, d), l2-normalised, where it starts.

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

    Everything is computed in fp32, under autocast too: half precision changes codes. Evaluation
    changes neither the codebook nor the statistics. All ranks hold the same codebook. A training
    step with a NaN or Inf among the latents of any rank leaves the codebook and its statistics as
    they were.

    Args:
        num_codes: K.
        dim: d.
        decay: of the moving averages, for each training step.
        beta: weight of the commitment loss.
        kmeans_init: start from k-means on the first training batch of all ranks; otherwise from
            random directions.
        revive_after: replace a code by a random latent of the batch once it has gone unused for so
            many training steps; None (the paper) never does.
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
        self._is_initialized = not kmeans_init  # spares a device synchronisation a step

    def forward(self, latents: Tensor) -> Quantized:
        """(B, N, d), not normalised -> quantized vectors, codes, commitment loss."""
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
        """Codes alone: (B, N, d), not normalised -> (B, N). Changes nothing in any mode."""
        with torch.autocast(latents.device.type, enabled=False):
            z = F.normalize(latents.detach().float(), dim=-1)
            codebook = self.embedding.weight.float()
            return nearest_codes(z.flatten(0, -2), codebook).view(z.shape[:-1])

    def decode(self, codes: Tensor) -> Tensor:
        """Vectors of codes: (...) -> (..., d), l2-normalised."""
        return self.embedding(codes)

    @torch.no_grad()
    def _initialize(self, z: Tensor) -> None:
        """K-means on the latents (B, N, d) of all ranks, computed once and sent to everybody.

        NaN and Inf are left out; where nothing else is there, the next batch is waited for.
        """
        ranks = world_size()
        if ranks > 1:
            parts = [torch.empty_like(z) for _ in range(ranks)]
            dist.all_gather(parts, z.contiguous())
            # Samplers deal images out in turn: so one process with the whole batch orders them.
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
        finite = totals.isfinite().all()  # the same on all ranks, as a sum passes NaN and Inf on
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
        # Chosen on the device: the host would have to wait for the step to look at `finite`.
        for buffer, new in (
            (weight, codebook),
            (self.cluster_size, sizes),
            (self.idle_steps, idle),
        ):
            buffer.copy_(torch.where(finite, new, buffer))

    def _random_latents(self, z: Tensor) -> Tensor:
        """A latent (M, d) of rank 0 for every code, the same on all ranks: (K, d)."""
        latents = z[torch.randint(len(z), (self.num_codes,), device=z.device)]
        if world_size() > 1:
            dist.broadcast(latents, src=0)
        return latents

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: object) -> None:
        if f'{prefix}embedding.weight' in state_dict:
            # A codebook from elsewhere is a trained one; the official files have no flag of ours.
            state_dict.setdefault(f'{prefix}initialized', torch.tensor(True))
            state_dict.setdefault(f'{prefix}cluster_size', self.cluster_size)
            state_dict.setdefault(f'{prefix}idle_steps', self.idle_steps)
            self._is_initialized = bool(state_dict[f'{prefix}initialized'])
        super()._load_from_state_dict(state_dict, prefix, *args)
