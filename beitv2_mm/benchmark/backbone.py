"""The network only: forward, and forward with backward, against timm and mmpretrain."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from beitv2_mm.benchmark.work import OURS, Settings, Step, Work, scramble
from beitv2_mm.checkpoint import convert
from beitv2_mm.layers.arch import Arch
from beitv2_mm.models import BEiTV2Backbone

PATCH = 16


def mmpretrain_arch(arch: Arch) -> dict[str, int]:
    """The ``arch`` of a network of the same size in mmpretrain."""
    return dict(
        embed_dims=arch.embed_dims,
        num_layers=arch.num_layers,
        depth=arch.num_layers,
        num_heads=arch.num_heads,
        feedforward_channels=int(arch.embed_dims * arch.mlp_ratio),
    )


@dataclass(frozen=True)
class Backbone(Work):
    """The pooled features of a batch, with or without the gradients of all weights."""

    size: int = 224
    batch_size: int = 4
    backward: bool = False

    implementations = (OURS, 'timm', 'mmpretrain')

    @property
    def name(self) -> str:
        what = 'forward + backward' if self.backward else 'forward'
        return f'{self.settings.arch} backbone {what}, {self.batch_size} x {self.size} px'

    def build(self, implementation: str) -> Step:
        module = getattr(self, f'_{implementation}')().to(self.settings.device)
        module.train(self.backward)
        generator = torch.Generator().manual_seed(0)
        image = torch.randn(self.batch_size, 3, self.size, self.size, generator=generator)
        image = image.to(self.settings.device)

        def features() -> Tensor:
            with self.settings.autocast():
                output = module(image)
            return output[0] if isinstance(output, tuple) else output

        def forward() -> Tensor:
            with torch.inference_mode():
                return features()

        def both() -> Tensor:
            module.zero_grad()
            features().float().square().mean().backward()
            gradient = module.cls_token.grad
            assert gradient is not None
            return gradient

        return Step(both if self.backward else forward, module)

    def _beitv2_mm(self) -> nn.Module:
        module = BEiTV2Backbone(self.arch, self.size, PATCH)
        module.init_weights()
        return scramble(module)

    def _timm(self) -> nn.Module:
        from timm.models.beit import Beit

        arch = self.arch
        return Beit(
            img_size=self.size,
            patch_size=PATCH,
            embed_dim=arch.embed_dims,
            depth=arch.num_layers,
            num_heads=arch.num_heads,
            mlp_ratio=arch.mlp_ratio,
            init_values=arch.layer_scale_init_value,
            use_rel_pos_bias=True,
            use_abs_pos_emb=False,
            num_classes=0,
            global_pool='avg',
        )

    def _mmpretrain(self) -> nn.Module:
        from mmpretrain.models import BEiTViT

        return BEiTViT(
            arch=mmpretrain_arch(self.arch),
            img_size=self.size,
            patch_size=PATCH,
            norm_cfg=dict(type='LN', eps=1e-6),
            layer_scale_init_value=self.arch.layer_scale_init_value,
            final_norm=False,
        )

    def share_weights(self, modules: Mapping[str, nn.Module | None]) -> None:
        ours = modules.get(OURS)
        for name in ('timm', 'mmpretrain'):
            peer = modules.get(name)
            if ours is not None and peer is not None:
                peer.load_state_dict(convert(ours.state_dict(), name).state_dict, strict=True)


def backbone(settings: Settings) -> list[Work]:
    """At 224 and 384 pixels, without and with gradients."""
    return [
        Backbone(settings, size, settings.batch_size or 4, backward)
        for size in settings.sizes(224, 384)
        for backward in (False, True)
    ]
