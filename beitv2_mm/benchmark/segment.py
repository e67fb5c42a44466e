"""UPerNet against mmseg's BEiT: one window, and sliding windows over a wide image."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from beitv2_mm.benchmark.backbone import PATCH
from beitv2_mm.benchmark.work import OURS, Settings, Step, Work, scramble
from beitv2_mm.checkpoint import load

CLASSES = 150
PYRAMID = (('neck.upsample_4x', 'decode_head.fpn1'), ('neck.upsample_2x', 'decode_head.fpn2'))


@dataclass(frozen=True)
class Segment(Work):
    """Logits of an image, in eval mode."""

    size: int = 512
    batch_size: int = 1
    slide: bool = False

    implementations = (OURS, 'mmseg')

    @property
    def name(self) -> str:
        what = f'slide inference, windows of {self.size} px' if self.slide else 'forward'
        width = 2 * self.size if self.slide else self.size
        shape = f'{self.batch_size} x {self.size} x {width} px'
        return f'{self.settings.arch} UPerNet {what}, {shape}'

    def build(self, implementation: str) -> Step:
        import mmseg.models  # noqa: F401  registers
        from mmseg.registry import MODELS

        config = self._peer_config()
        if implementation == OURS:
            config = self._own_config(config)
        with DefaultScope.overwrite_default_scope('mmseg'):
            model = scramble(MODELS.build(config)).to(self.settings.device)
        model.eval()  # not chained: mmseg's BEiT returns None
        width = 2 * self.size if self.slide else self.size
        generator = torch.Generator().manual_seed(0)
        image = torch.randn(self.batch_size, 3, self.size, width, generator=generator)
        image = image.to(self.settings.device)
        metas = [dict(img_shape=image.shape[2:], ori_shape=image.shape[2:])] * self.batch_size

        def run() -> Tensor:
            with torch.inference_mode(), self.settings.autocast():
                return model.inference(image, metas)

        return Step(run, model)

    def _peer_config(self) -> ConfigDict:
        """mmseg's own UPerNet on BEiT at these sizes, with the batch norm of a single device."""
        model = get_config('mmseg::_base_/models/upernet_beit.py').model
        arch, depth, width = self.arch, self.arch.num_layers, self.arch.embed_dims
        model.backbone.update(
            img_size=(self.size, self.size),
            embed_dims=width,
            num_layers=depth,
            num_heads=arch.num_heads,
            mlp_ratio=int(arch.mlp_ratio),
            out_indices=[depth // 3 - 1, depth // 2 - 1, 2 * depth // 3 - 1, depth - 1],
        )
        norm = dict(type='BN')
        model.neck.update(embed_dim=width, norm_cfg=norm)
        model.decode_head.update(
            in_channels=[width] * 4, channels=width, num_classes=CLASSES, norm_cfg=norm
        )
        model.auxiliary_head.update(in_channels=width, num_classes=CLASSES, norm_cfg=norm)
        window = (self.size, self.size)
        stride = 2 * self.size // 3
        model.test_cfg = (
            dict(mode='slide', crop_size=window, stride=(stride, stride))
            if self.slide
            else dict(mode='whole')
        )
        return model

    def _own_config(self, peer: ConfigDict) -> ConfigDict:
        import beitv2_mm.segmentation  # noqa: F401  registers

        peer.pop('neck')
        peer.type = 'beitv2_mm.BEiTV2Segmentor'
        peer.backbone = dict(
            type='beitv2_mm.BEiTV2Backbone',
            arch=self.arch._asdict(),  # mmengine's configs take no named tuple
            img_size=self.size,
            patch_size=PATCH,
            out_type='featmap',
            out_indices=peer.backbone.out_indices,
            layer_scale_init_value=0.1,
        )
        peer.decode_head.update(type='beitv2_mm.BEiTV2UPerHead')
        peer.auxiliary_head.update(type='beitv2_mm.BEiTV2FCNHead')
        return peer

    def share_weights(self, modules: Mapping[str, nn.Module | None]) -> None:
        ours, theirs = modules.get(OURS), modules.get('mmseg')
        if ours is not None and theirs is not None:
            weights = theirs.state_dict()
            for old, new in PYRAMID:
                for name in [name for name in weights if name.startswith(old)]:
                    weights[name.replace(old, new)] = weights.pop(name)
            load(ours, weights)


def segment(settings: Settings) -> list[Work]:
    """At 512 pixels, one image at a time."""
    return [
        Segment(settings, size, settings.batch_size or 1, slide)
        for size in settings.sizes(512)
        for slide in (False, True)
    ]
