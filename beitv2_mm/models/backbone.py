"""BEiT v2 backbone: (B, C, H, W) [+ mask] -> a tuple of tokens, feature maps or pooled features."""

import copy
from collections.abc import Sequence
from typing import Literal, NamedTuple

from torch import Tensor, nn

from beitv2_mm.layers import VisionTransformer
from beitv2_mm.layers.arch import Arch, get_arch
from beitv2_mm.layers.attention import Read, read_tokens
from beitv2_mm.layers.block import LAYER_NORM_EPS, WithCp
from beitv2_mm.layers.position import Grid
from beitv2_mm.layers.vision_transformer import Position, Size
from beitv2_mm.models.base import PretrainedModule
from beitv2_mm.registry import MODELS

OutType = Literal['raw', 'featmap', 'avg_featmap', 'cls_token']
READ_BY_OUT_TYPE: dict[str, Read] = dict(
    raw=None, featmap=slice(1, None), avg_featmap=slice(1, None), cls_token=slice(0, 1)
)


class MaskedFeatures(NamedTuple):
    """What masked image modelling reads of the backbone; no tensor is normalised."""

    tokens: Tensor  # (B, 1 + N, D) after the last block, or (B, M, D) where M tokens are read
    early: Tensor | None  # (B, N, D), patch tokens after the early block
    grid: Grid
    bias: Tensor | None  # (heads, 1 + N, 1 + N)


@MODELS.register_module()
class BEiTV2Backbone(VisionTransformer, PretrainedModule):
    """Vision transformer of BEiT v2, for every task.

    The input may have any size that the patch size divides, square or not; positions are resized
    from those of ``img_size``.

    Args:
        arch: 'tiny', 'small', 'base', 'large' or a dict, see `get_arch`.
        position: 'layerwise' bias tables (fine-tuning), one 'shared' table (pretraining) or an
            'absolute' embedding (tokenizer).
        out_indices: blocks whose outputs are returned, from 0; negative ones count from the end.
            Blocks after the last of them exist, so that checkpoints fit, but are not run and get
            no gradient: to train with several processes, set find_unused_parameters=True.
        out_type: 'raw' all tokens (B, 1 + N, D); 'featmap' (B, D, rows, columns); 'avg_featmap'
            fc_norm of the mean patch token (B, D); 'cls_token' (B, D).
        final_norm: normalise the last block's output; None does so for 'raw' and 'cls_token'.
        layer_scale_init_value: None for the arch's own, 0 for no layer scale.
        frozen_stages: 0 freezes patch embedding, tokens and positions, k also the first k blocks,
            the number of blocks everything; -1 nothing.
        with_mask_token: own a mask token, so that ``mask`` may be given.
    """

    def __init__(
        self,
        arch: str | dict | Arch = 'base',
        img_size: Size = 224,
        patch_size: Size = 16,
        in_channels: int = 3,
        position: Position = 'layerwise',
        out_indices: int | Sequence[int] = -1,
        out_type: OutType = 'avg_featmap',
        final_norm: bool | None = None,
        layer_scale_init_value: float | None = None,
        drop_path_rate: float = 0.0,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        frozen_stages: int = -1,
        with_mask_token: bool = False,
        with_cp: WithCp = False,
        init_cfg: dict | list | None = None,
    ) -> None:
        size = get_arch(arch)
        if out_type not in READ_BY_OUT_TYPE:
            raise ValueError(
                f'out_type is one of {list(READ_BY_OUT_TYPE)}, but {out_type!r} was given.'
            )
        super().__init__(
            img_size,
            patch_size,
            in_channels,
            size.embed_dims,
            size.num_layers,
            size.num_heads,
            size.mlp_ratio,
            position,
            size.layer_scale_init_value
            if layer_scale_init_value is None
            else layer_scale_init_value,
            drop_path_rate,
            attn_drop_rate,
            drop_rate,
            with_mask_token,
            with_cp,
        )
        self.init_cfg = copy.deepcopy(init_cfg)
        self.num_layers = size.num_layers
        self.out_type = out_type
        indices = [out_indices] if isinstance(out_indices, int) else list(out_indices)
        if not all(-self.num_layers <= i < self.num_layers for i in indices):
            raise ValueError(
                f'out_indices {indices} name blocks that a network of {self.num_layers} lacks.'
            )
        self.out_indices = tuple(sorted(i % self.num_layers for i in indices))
        if final_norm is None:
            final_norm = out_type in ('raw', 'cls_token')
        pooled = out_type == 'avg_featmap'
        self.norm = nn.LayerNorm(self.embed_dims, eps=LAYER_NORM_EPS) if final_norm else None
        self.fc_norm = nn.LayerNorm(self.embed_dims, eps=LAYER_NORM_EPS) if pooled else None
        if frozen_stages > self.num_layers:
            raise ValueError(
                f'frozen_stages={frozen_stages}, but there are {self.num_layers} blocks.'
            )
        self.frozen_stages = frozen_stages
        self._freeze()

    def forward(self, image: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """One output for each of ``out_indices``.

        Args:
            image: (B, C, H, W), normalised.
            mask: (B, rows, columns) or (B, N) bool, True where the mask token stands in.
        """
        x, grid = self.embed(image, mask)
        read, depth = READ_BY_OUT_TYPE[self.out_type], self.out_indices[-1] + 1
        blocks = self.iterate_blocks(x, grid, self.shared_bias(grid), read, depth)
        outputs = []
        for i, x in enumerate(blocks, 1):
            if i - 1 in self.out_indices:
                outputs.append(
                    self._format(
                        x if i == depth else read_tokens(x, read), grid, i == self.num_layers
                    )
                )
        return tuple(outputs)

    def _format(self, x: Tensor, grid: Grid, is_last: bool) -> Tensor:
        """The tokens that ``out_type`` reads, in its form."""
        if is_last and self.norm is not None:
            x = self.norm(x)
        if self.out_type == 'featmap':
            return x.transpose(1, 2).unflatten(2, grid).contiguous()  # (B, D, rows, columns)
        if self.out_type == 'cls_token':
            return x[:, 0]
        return x if self.fc_norm is None else self.fc_norm(x.mean(dim=1))

    def forward_patches(self, image: Tensor, patches: Tensor | None = None) -> Tensor:
        """Patch tokens of the last block after the norm that this network has.

        (B, N, D), or (B, M, D) for the ``patches`` (B, M) alone.
        """
        x, grid = self.embed(image)
        bias = self.shared_bias(grid)
        read = slice(1, None) if patches is None else patches + 1
        for x in self.iterate_blocks(x, grid, bias, read):  # noqa: B007, B020
            pass
        norm = self.fc_norm if self.fc_norm is not None else self.norm
        return x if norm is None else norm(x)

    def forward_masked(
        self,
        image: Tensor,
        mask: Tensor | None,
        early_layer: int | None = None,
        read: Read = None,
    ) -> MaskedFeatures:
        """What the MIM heads read; ``early_layer`` counts blocks from 1 (9 of 12, 21 of 24).

        Of the last block, only the tokens that are ``read`` (CLS is 0, the first patch 1).
        """
        x, grid = self.embed(image, mask)
        bias = self.shared_bias(grid)
        early = None
        for i, x in enumerate(self.iterate_blocks(x, grid, bias, read), 1):  # noqa: B020
            if i == early_layer:
                early = x[:, 1:]
        return MaskedFeatures(x, early, grid, bias)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter and number of depths, for layer-wise learning-rate decay.

        Depth 0 is what comes before the blocks, n is block n, and everything else, the shared
        bias table too, counts as the top.
        """
        num_depths = self.num_layers + 2
        name = param_name.removeprefix(prefix) if param_name.startswith(prefix) else ''
        if name in ('cls_token', 'mask_token', 'pos_embed') or name.startswith('patch_embed.'):
            return 0, num_depths
        if name.startswith('blocks.'):
            return int(name.split('.')[1]) + 1, num_depths
        return num_depths - 1, num_depths

    def reset_parameters(self) -> None:
        self.init_transformer()
        for norm in (self.norm, self.fc_norm):
            if norm is not None:
                norm.reset_parameters()

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        everything = self.frozen_stages == self.num_layers
        for name, parameter in self.named_parameters():
            if everything or self.get_layer_depth(name)[0] <= self.frozen_stages:
                parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> 'BEiTV2Backbone':
        """Frozen blocks stay in eval mode."""
        super().train(mode)
        for block in self.blocks[: max(self.frozen_stages, 0)]:
            block.eval()
        return self
