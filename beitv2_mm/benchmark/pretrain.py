"""One training step of masked image modelling, optimizer included, against mmpretrain's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.hub import get_config
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from beitv2_mm.benchmark.backbone import PATCH, mmpretrain_arch
from beitv2_mm.benchmark.work import OURS, NotTheSameError, Settings, Step, Work, scramble
from beitv2_mm.checkpoint import load
from beitv2_mm.datasets import BlockwiseMaskGenerator
from beitv2_mm.models import BEiTV2Pretrainer

MASKED = 75 / 196  # of the patches
CODE_DIMS = 32


@dataclass(frozen=True)
class Pretrain(Work):
    """From images and masks on the host to updated weights: AdamW with gradient clipping."""

    size: int = 224
    batch_size: int = 4
    num_codes: int = 8192

    implementations = (OURS, 'mmpretrain')

    @property
    def name(self) -> str:
        codes = f', {self.num_codes} codes' if self.num_codes != 8192 else ''
        return f'{self.settings.arch} MIM step, {self.batch_size} x {self.size} px{codes}'

    @property
    def early(self) -> int:
        """The block whose patch tokens enter the aggregation: 9 of 12, 21 of 24."""
        return self.arch.num_layers - 3

    def build(self, implementation: str) -> Step:
        model = getattr(self, f'_{implementation}')().to(self.settings.device)
        model.train()
        weights = [p for p in model.parameters() if p.requires_grad]
        optimizer = OptimWrapper(
            # fused, as our recipes have it
            torch.optim.AdamW(
                weights, lr=1e-5, betas=(0.9, 0.98), weight_decay=0.05, fused=implementation == OURS
            ),
            clip_grad=dict(max_norm=3.0),
        )
        data = self._batch(two_views=implementation != OURS)

        def run() -> dict[str, Tensor]:
            with self.settings.autocast():
                return model.train_step(data, optimizer)

        return Step(run, model)

    def _batch(self, two_views: bool) -> dict[str, Any]:
        rng = np.random.default_rng(0)
        shape = (self.batch_size, 3, self.size, self.size)
        batch = torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8))
        if self.settings.device != 'cpu':  # as by a data loader with pin_memory=True
            batch = batch.pin_memory()
        np.random.seed(0)
        grid = self.size // PATCH
        generator = BlockwiseMaskGenerator(grid, round(MASKED * grid**2), min(16, grid))
        samples = []
        for _ in batch:
            sample = DataSample()
            sample.set_field(torch.from_numpy(generator()), 'mask')
            samples.append(sample)
        return dict(inputs=[batch, batch] if two_views else batch, data_samples=samples)

    def _beitv2_mm(self) -> BaseModel:
        arch = self.arch
        common = dict(arch=arch, img_size=self.size, patch_size=PATCH)
        recompute = dict(with_cp='selective')  # as our recipes have it
        model = BEiTV2Pretrainer(
            backbone=dict(
                type='beitv2_mm.BEiTV2Backbone',
                position='shared',
                out_type='raw',
                with_mask_token=True,
                **common,
                **recompute,
            ),
            neck=dict(
                type='beitv2_mm.PatchAggregationNeck',
                arch=arch,
                early_layer=self.early,
                **recompute,
            ),
            head=dict(
                type='beitv2_mm.MIMHead', embed_dims=arch.embed_dims, num_codes=self.num_codes
            ),
            tokenizer=dict(
                encoder=common,
                decoder=dict(arch=dict(embed_dims=arch.num_heads, num_layers=1, num_heads=1)),
                quantizer=dict(num_codes=self.num_codes, dim=CODE_DIMS),
            ),
        )
        model.init_weights()
        return model

    def _mmpretrain(self) -> BaseModel:
        from mmpretrain.registry import MODELS

        config = get_config('mmpretrain::beitv2/beitv2_beit-base-p16_8xb256-amp-coslr-300e_in1k.py')
        arch, model = mmpretrain_arch(self.arch), config.model
        model.backbone.update(
            arch=arch, img_size=self.size, out_indices=[self.early - 1, self.arch.num_layers - 1]
        )
        model.neck.update(backbone_arch=arch, early_layers=self.early)
        model.head.update(embed_dims=self.arch.embed_dims, num_embed=self.num_codes)
        model.target_generator.encoder_config.update(arch=arch, img_size=self.size)
        model.target_generator.update(init_cfg=None, num_embed=self.num_codes)
        model.data_preprocessor = config.data_preprocessor
        model.data_preprocessor.update(type='mmpretrain.TwoNormDataPreprocessor')
        built = MODELS.build(model)
        built.init_weights()
        scramble(built)
        quantizer = built.target_generator.quantize
        quantizer.embedding.weight.data = nn.functional.normalize(
            torch.randn_like(quantizer.embedding.weight), dim=1
        )
        quantizer.embedding.initted.fill_(1)
        built.target_generator.requires_grad_(False)
        return built

    def share_weights(self, modules: Mapping[str, nn.Module | None]) -> None:
        ours, theirs = modules.get(OURS), modules.get('mmpretrain')
        if ours is not None and theirs is not None:
            weights = theirs.state_dict()
            generator = 'target_generator.'
            network = {n: v for n, v in weights.items() if not n.startswith(generator)}
            load(ours, network)
            load(ours.tokenizer, weights, prefix='target_generator')

    def compare(self, ours: Any, theirs: Any) -> None:
        pairs = (('loss_main', 'loss_1'), ('loss_aggregation', 'loss_2'))
        for mine, peers in pairs:
            a, b = float(ours[mine]), float(theirs[peers])
            bound = 2e-3 if self.settings.precision == 'fp32' else 0.1
            if not abs(a - b) <= bound * abs(b):
                raise NotTheSameError(
                    f'{self.name}: {mine} is {a:.4f} here and {b:.4f} in mmpretrain.'
                )


def pretrain(settings: Settings) -> list[Work]:
    """A step at 224 pixels."""
    return [
        Pretrain(settings, size, settings.batch_size or 4, settings.num_codes)
        for size in settings.sizes(224)
    ]
