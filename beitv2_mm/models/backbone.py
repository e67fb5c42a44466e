"""BEiT v2 backbone: (B, C, H, W) [+ mask] -> a tuple of tokens, feature maps or pooled features."""

import copy
from collections.abc import Sequence
from typing import Literal, NamedTuple

from torch import Tensor, nn

from beitv2_mm.layers import VisionTransformer
from beitv2_mm.layers.arch import Arch, get_arch
from beitv2_mm.layers.attention import Queries, select_tokens
from beitv2_mm.layers.block import LAYER_NORM_EPS
from beitv2_mm.layers.position import Grid
from beitv2_mm.layers.recompute import WithCp
from beitv2_mm.layers.vision_transformer import Position, Size
from beitv2_mm.models.base import Config, InitCfg, PretrainedModule
from beitv2_mm.registry import MODELS

OutType = Literal['raw', 'featmap', 'avg_featmap', 'cls_token']
QUERIES_BY_OUT_TYPE: dict[str, Queries] = dict(
    raw=None, featmap=slice(1, None), avg_featmap=slice(1, None), cls_token=slice(0, 1)
)


class Features(NamedTuple):
    """Result of `BEiTV2Backbone.forward_features`; no tensor is normalised."""

    tokens: Tensor  # (B, 1 + N, D) after the last block, or (B, M, D) for M query tokens
    layers: dict[int, Tensor]  # by block, counted from 1: (B, 1 + N, D)
    grid: Grid
    bias: Tensor | None  # (heads, 1 + N, 1 + N), shared by all blocks


def _check_out_type(out_type: OutType, window_size: int | None) -> None:
    if out_type not in QUERIES_BY_OUT_TYPE:
        raise ValueError(
            f'out_type is one of {list(QUERIES_BY_OUT_TYPE)}, but {out_type!r} was given.'
        )
    if window_size is not None and out_type == 'cls_token':
        raise ValueError("With windows there is no CLS token: set out_type='featmap'.")


def _checked_indices(out_indices: int | Sequence[int], num_layers: int) -> tuple[int, ...]:
    """Sorted indices from 0 without duplicates; negative ones count from the end."""
    indices = [out_indices] if isinstance(out_indices, int) else list(out_indices)
    if not all(-num_layers <= i < num_layers for i in indices):
        raise ValueError(f'out_indices {indices} name blocks that a network of {num_layers} lacks.')
    return tuple(sorted({i % num_layers for i in indices}))


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
            Blocks after the last of them exist, so that checkpoints fit, but they do not run and
            get no gradient: to train with several processes, set find_unused_parameters=True.
        out_type: 'raw' for all tokens (B, 1 + N, D), 'featmap' for (B, D, rows, columns),
            'avg_featmap' for the fc_norm of the mean patch token (B, D), 'cls_token' for (B, D).
        final_norm: whether the last block's output is normalised; None means yes for 'raw' and
            'cls_token', no for the others.
        layer_scale_init_value: None for the value of ``arch``, 0 for no layer scale.
        frozen_stages: -1 freezes nothing; 0 freezes patch embedding, tokens and positions; k also
            freezes the first k blocks; the number of blocks freezes everything.
        with_mask_token: whether there is a mask token; forward passes with a mask need it.
        with_cp: True or 'selective' saves memory in training, see `Block`.
        window_size: side in patches of the windows in which the blocks attend, for large images;
            None for attention to the whole image. With windows there is no CLS token.
        global_blocks: blocks, counted from 0, that attend to the whole image all the same.
    """

    def __init__(
        self,
        arch: str | Config | Arch = 'base',
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
        window_size: int | None = None,
        global_blocks: Sequence[int] = (),
        init_cfg: InitCfg = None,
    ) -> None:
        size = get_arch(arch)
        _check_out_type(out_type, window_size)
        if layer_scale_init_value is None:
            layer_scale_init_value = size.layer_scale_init_value
        super().__init__(
            img_size=img_size,
            patch_size=patch_size,
            in_channels=in_channels,
            embed_dims=size.embed_dims,
            num_layers=size.num_layers,
            num_heads=size.num_heads,
            mlp_ratio=size.mlp_ratio,
            position=position,
            layer_scale=layer_scale_init_value,
            drop_path_rate=drop_path_rate,
            attn_drop_rate=attn_drop_rate,
            drop_rate=drop_rate,
            with_mask_token=with_mask_token,
            with_cp=with_cp,
            window_size=window_size,
            global_blocks=global_blocks,
        )
        self.init_cfg = copy.deepcopy(init_cfg)
        self.arch = size
        self.num_layers = size.num_layers
        self.out_type = out_type
        self.out_indices = _checked_indices(out_indices, size.num_layers)
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

    def forward_features(
        self,
        image: Tensor,
        mask: Tensor | None = None,
        queries: Queries = None,
        layers: Sequence[int] = (),
        depth: int | None = None,
    ) -> Features:
        """Runs the blocks and returns the tokens after the last one and after any others.

        Args:
            image: (B, C, H, W), normalised.
            mask: (B, rows, columns) or (B, N) bool, True where the mask token replaces the patch.
            queries: tokens of the last block that are needed; CLS is token 0, the first patch 1.
            layers: blocks, counted from 1, after which all tokens are returned as well.
            depth: number of blocks to run, by default all.
        """
        x, grid = self.embed(image, mask)
        bias = self.shared_bias(grid)
        blocks = self.iterate_blocks(x, grid, bias, queries, depth)
        outputs = {}
        for i, x in enumerate(blocks, 1):
            if i in layers:
                outputs[i] = x
        return Features(x, outputs, grid, bias)

    def forward(self, image: Tensor, mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """One output for each of ``out_indices``; arguments as in `forward_features`."""
        queries = self._queries(self.out_type)
        *inner, last = (index + 1 for index in self.out_indices)
        features = self.forward_features(image, mask, queries, inner, depth=last)
        outputs = [select_tokens(features.layers[i], queries) for i in inner]
        tokens = features.tokens
        if last == self.num_layers and self.norm is not None:
            tokens = self.norm(tokens)
        return tuple(self._format(x, features.grid) for x in (*outputs, tokens))

    def _queries(self, out_type: OutType) -> Queries:
        return QUERIES_BY_OUT_TYPE[out_type] if self.num_prefix else None  # else all are patches

    def _format(self, x: Tensor, grid: Grid) -> Tensor:
        """Brings the selected tokens into the form of ``out_type``."""
        if self.out_type == 'featmap':
            return x.transpose(1, 2).unflatten(2, grid).contiguous()  # (B, D, rows, columns)
        if self.out_type == 'cls_token':
            return x[:, 0]  # (B, D)
        return x if self.fc_norm is None else self.fc_norm(x.mean(dim=1))

    def forward_patches(self, image: Tensor, patches: Tensor | None = None) -> Tensor:
        """Patch tokens of the last block after the final norm, if the network has one.

        (B, N, D), or (B, M, D) for only the ``patches`` (B, M).
        """
        queries = self._queries('featmap') if patches is None else patches + self.num_prefix
        tokens = self.forward_features(image, queries=queries).tokens
        norm = self.fc_norm if self.fc_norm is not None else self.norm
        return tokens if norm is None else norm(tokens)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter and number of depths, for layer-wise learning-rate decay.

        mmpretrain's optimizer constructor multiplies the parameter's learning rate by
        ``layer_decay_rate ** (num_depths - 1 - depth)``.

        Patch embedding, tokens and position embedding have depth 0, and block n, counted from 1,
        has depth n. Everything else has the largest depth, including the shared bias table.
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
        """Sets the mode of the backbone; frozen blocks stay in eval mode."""
        super().train(mode)
        for block in self.blocks[: max(self.frozen_stages, 0)]:
            block.eval()
        return self
