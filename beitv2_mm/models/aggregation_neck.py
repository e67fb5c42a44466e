"""Patch aggregation: early patch tokens (B, N, D) and last CLS (B, 1, D) -> (B, 1 + N, D)."""

import torch
from torch import Tensor, nn

from beitv2_mm.layers import Block
from beitv2_mm.layers.arch import Arch, get_arch
from beitv2_mm.layers.attention import Queries
from beitv2_mm.layers.block import LAYER_NORM_EPS
from beitv2_mm.layers.recompute import WithCp
from beitv2_mm.layers.vision_transformer import drop_path_schedule
from beitv2_mm.models.backbone import Features
from beitv2_mm.models.base import Config, InitCfg, PretrainedModule
from beitv2_mm.registry import MODELS


@MODELS.register_module()
class PatchAggregationNeck(PretrainedModule):
    """Extra blocks that see the later layers only through the CLS token (paper section 2.3).

    The neck is thrown away after pretraining.

    Args:
        arch: size of the backbone; `BEiTV2Pretrainer` fills it in where a config leaves it out.
        early_layer: block, counted from 1, whose patch tokens enter the neck. None takes the
            third before the last: 9 of 12, 21 of 24.
        num_layers: number of extra blocks.
        layer_scale_init_value: None for the value of ``arch``.
        drop_path_rate: rate of the backbone; the extra blocks continue from the early layer.
        separate_norm: own a final norm (with `separate_head` of the MIM head); otherwise the norm
            of the backbone is applied.
        with_cp: True or 'selective' saves memory in training, see `Block`.
    """

    def __init__(
        self,
        arch: str | Config | Arch = 'base',
        early_layer: int | None = None,
        num_layers: int = 2,
        layer_scale_init_value: float | None = None,
        drop_path_rate: float = 0.0,
        separate_norm: bool = False,
        with_cp: WithCp = False,
        init_cfg: InitCfg = None,
    ) -> None:
        super().__init__(init_cfg)
        size = get_arch(arch)
        if early_layer is None:
            early_layer = max(1, size.num_layers - 3)
        if not 0 < early_layer < size.num_layers:
            raise ValueError(
                f'early_layer is a block from 1 to {size.num_layers - 1}, the one before the last, '
                f'but {early_layer} was given.'
            )
        if layer_scale_init_value is None:
            layer_scale_init_value = size.layer_scale_init_value
        self.early_layer = early_layer
        self.embed_dims = size.embed_dims
        rates = drop_path_schedule(drop_path_rate, size.num_layers)
        depths = range(early_layer, early_layer + num_layers)
        self.cls_pt_layers = nn.ModuleList(
            Block(
                size.embed_dims,
                size.num_heads,
                size.mlp_ratio,
                layer_scale_init_value,
                rates[min(depth, size.num_layers - 1)],
                with_cp=with_cp,
            )
            for depth in depths
        )
        self.cls_pt_norm = (
            nn.LayerNorm(size.embed_dims, eps=LAYER_NORM_EPS) if separate_norm else None
        )

    def reset_parameters(self) -> None:
        for depth, block in enumerate(self.cls_pt_layers, start=self.early_layer + 1):
            block.init_weights(depth)
        if self.cls_pt_norm is not None:
            self.cls_pt_norm.reset_parameters()

    def forward(self, features: Features, queries: Queries = None) -> Tensor:
        """Tokens after the extra blocks, not normalised: (B, 1 + N, D), or (B, M, D) for queries.

        Args:
            features: the backbone's, with the early layer among ``layers`` and CLS first in
                ``tokens``.
            queries: tokens of the last block that are needed; CLS is token 0, the first patch 1.
        """
        early = features.layers[self.early_layer][:, 1:]  # (B, N, D)
        x = torch.cat([features.tokens[:, :1], early], dim=1)  # (B, 1 + N, D)
        for i, block in enumerate(self.cls_pt_layers, start=1):
            is_last = i == len(self.cls_pt_layers)
            x = block(x, features.grid, features.bias, queries if is_last else None)
        return x
