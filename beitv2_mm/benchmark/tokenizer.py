"""The tokenizer's quantizer in training, against mmpretrain's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from beitv2_mm.benchmark.work import OURS, Settings, Step, Work
from beitv2_mm.layers import VectorQuantizer

TOKENS = 196
DIMS = 32


@dataclass(frozen=True)
class Quantizer(Work):
    """The quantizer in a training step: search, straight-through gradient, moving averages."""

    batch_size: int = 8
    num_codes: int = 8192

    implementations = (OURS, 'mmpretrain')

    @property
    def name(self) -> str:
        return f'quantizer in training, {self.batch_size} x {TOKENS} tokens, {self.num_codes} codes'

    def build(self, implementation: str) -> Step:
        module = getattr(self, f'_{implementation}')().to(self.settings.device).train()
        generator = torch.Generator().manual_seed(0)
        latents = torch.randn(self.batch_size, TOKENS, DIMS, generator=generator)
        latents = latents.to(self.settings.device).requires_grad_()
        side = int(TOKENS**0.5)

        def run() -> Tensor:
            latents.grad = None
            given: Any = latents
            if implementation != OURS:
                given = latents.transpose(1, 2).unflatten(2, (side, side))
            with self.settings.autocast():
                quantized, second, third = module(given)
            codes, loss = (second, third) if implementation == OURS else (third, second)
            (quantized.square().mean() + loss).backward()
            assert latents.grad is not None
            return torch.cat([codes.flatten() / self.num_codes, latents.grad.flatten() * 1e3])

        return Step(run, module)

    def _beitv2_mm(self) -> nn.Module:
        return VectorQuantizer(self.num_codes, DIMS, kmeans_init=False)

    def _mmpretrain(self) -> nn.Module:
        from mmpretrain.models.utils import NormEMAVectorQuantizer

        return NormEMAVectorQuantizer(self.num_codes, DIMS, beta=1.0, kmeans_init=False)

    def share_weights(self, modules: Mapping[str, nn.Module | None]) -> None:
        weight = F.normalize(
            torch.randn(self.num_codes, DIMS, generator=torch.Generator().manual_seed(1)), dim=1
        )
        for module in modules.values():
            assert module is not None
            module.get_parameter('embedding.weight').data.copy_(weight)


def tokenizer(settings: Settings) -> list[Work]:
    """The quantizer on the tokens of 8 images."""
    return [Quantizer(settings, settings.batch_size or 8, settings.num_codes)]
