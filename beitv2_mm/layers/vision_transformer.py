"""The vision transformer of every BEiT v2 network: (B, C, H, W) -> (B, 1 + N, D).

With windows it has no CLS token: (B, C, H, W) -> (B, N, D).
"""

from collections.abc import Iterator, Sequence
from operator import index
from typing import Literal

import torch
from timm.layers import PatchEmbed
from torch import Tensor, nn

from beitv2_mm.layers.attention import Queries
from beitv2_mm.layers.block import Block
from beitv2_mm.layers.position import Grid, RelativePositionBias, resize_pos_embed
from beitv2_mm.layers.recompute import WithCp

Position = Literal['shared', 'layerwise', 'absolute']
Size = int | tuple[int, int]


def to_pair(size: Size) -> tuple[int, int]:
    """Expands n to (n, n); a pair stays as it is."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def patch_grid(size: Size, patch_size: Size) -> Grid:
    """Number of rows and columns of patches in an image ``(height, width)``.

    >>> patch_grid((224, 448), 16)
    (14, 28)

    Raises:
        ValueError: the patch size does not divide the image size.
    """
    (height, width), (patch_height, patch_width) = to_pair(size), to_pair(patch_size)
    if height % patch_height or width % patch_width or not height or not width:
        raise ValueError(
            f'An image of {height} x {width} pixels cannot be cut into patches of '
            f'{patch_height} x {patch_width}. Resize or pad it to a multiple of the patch size, '
            f'e.g. {max(1, round(height / patch_height)) * patch_height} x '
            f'{max(1, round(width / patch_width)) * patch_width}.'
        )
    return height // patch_height, width // patch_width


def drop_path_schedule(rate: float, num_layers: int) -> list[float]:
    """Drop path rates of all blocks, growing linearly from 0 to ``rate``."""
    return [rate * i / max(num_layers - 1, 1) for i in range(num_layers)]


def _check(
    position: Position, window_size: int | None, global_blocks: Sequence[int], num_layers: int
) -> None:
    if position not in ('shared', 'layerwise', 'absolute'):
        raise ValueError(
            f"position is 'shared', 'layerwise' or 'absolute', but {position!r} was given."
        )
    if window_size is None:
        if len(global_blocks):
            raise ValueError('global_blocks needs window_size: without it every block is global.')
        return
    if window_size < 1:
        raise ValueError(f'window_size is a number of patches from 1, or None: {window_size}.')
    if position != 'layerwise':
        raise ValueError(f"Windows need position='layerwise', but {position!r} was given.")
    wrong = [block for block in global_blocks if block not in range(num_layers)]
    if wrong:
        raise ValueError(
            f'global_blocks are numbers from 0 to {num_layers - 1}, but {wrong} were given.'
        )


class VisionTransformer(nn.Module):
    """Patch embedding, CLS token, positions and blocks, without a final norm.

    Parameters have the names of the official checkpoints. Images may have any size that the patch
    size divides, square or not: positions are resized from those of ``img_size``.

    Args:
        img_size: size in pixels for which the position tables are made.
        patch_size: size of a patch in pixels.
        position: 'shared' is one relative position bias table for all blocks (pretraining),
            'layerwise' one table for each block (fine-tuning), 'absolute' a position embedding
            (tokenizer).
        layer_scale: initial value of gamma_1 and gamma_2; None or 0 leaves them out.
        drop_path_rate: rate of the last block; rates grow linearly from 0 in the first.
        with_mask_token: whether there is a mask token; `embed` needs it for a mask.
        with_cp: True or 'selective' saves memory in training, see `Block`.
        window_size: side of windows in patches, see `WindowAttention`; None attends to the whole
            image in every block. With windows no token is CLS; its parameter stays for checkpoints
            and gets no gradient.
        global_blocks: blocks, counted from 0, that attend to the whole image all the same.
    """

    def __init__(
        self,
        img_size: Size = 224,
        patch_size: Size = 16,
        in_channels: int = 3,
        embed_dims: int = 768,
        num_layers: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        position: Position = 'shared',
        layer_scale: float | None = 0.1,
        drop_path_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_rate: float = 0.0,
        with_mask_token: bool = False,
        with_cp: WithCp = False,
        window_size: int | None = None,
        global_blocks: Sequence[int] = (),
    ) -> None:
        super().__init__()
        _check(position, window_size, global_blocks, num_layers)
        self.patch_size = to_pair(patch_size)
        self.grid = patch_grid(img_size, patch_size)
        self.in_channels = in_channels
        self.embed_dims = embed_dims
        self.num_heads = num_heads
        self.mlp_ratio = mlp_ratio
        self.layer_scale = layer_scale
        self.position = position
        self.drop_path_rates = drop_path_schedule(drop_path_rate, num_layers)
        self.patch_embed = PatchEmbed(
            to_pair(img_size), self.patch_size, in_channels, embed_dims, strict_img_size=False
        )
        self.num_prefix = int(window_size is None)  # tokens before those of the patches
        # unread beside windows, and distributed training asks for a gradient of every parameter
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dims), window_size is None)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, embed_dims)) if with_mask_token else None
        self.pos_embed: nn.Parameter | None = None
        self.rel_pos_bias: RelativePositionBias | None = None
        if position == 'absolute':
            num_patches = self.grid[0] * self.grid[1]
            self.pos_embed = nn.Parameter(torch.zeros(1, 1 + num_patches, embed_dims))
        elif position == 'shared':
            self.rel_pos_bias = RelativePositionBias(self.grid, num_heads)
        self.pos_drop = nn.Dropout(drop_rate)
        self.blocks = nn.ModuleList(
            Block(
                embed_dims,
                num_heads,
                mlp_ratio,
                layer_scale,
                drop_path,
                self.grid if position == 'layerwise' else None,
                attn_drop_rate,
                drop_rate,
                with_cp,
                window_size=0 if window_size and i in global_blocks else window_size,
            )
            for i, drop_path in enumerate(self.drop_path_rates)
        )

    def embed(self, image: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Grid]:
        """Computes the tokens before the first block and their grid.

        Args:
            image: (B, C, H, W).
            mask: (B, rows, columns) or (B, N) bool, True where the mask token replaces the patch.

        Returns:
            Tokens (B, 1 + N, D), CLS first, or (B, N, D) with windows, and (rows, columns).
        """
        if image.ndim != 4 or image.shape[1] != self.in_channels:
            raise ValueError(
                f'Images are (B, {self.in_channels}, H, W), but {tuple(image.shape)} was given.'
            )
        # index() turns a compiler's symbols into numbers: positions are constants of a graph, so
        # every image size has its own.
        grid = patch_grid((index(image.shape[2]), index(image.shape[3])), self.patch_size)
        x = self.patch_embed(image)  # (B, N, D)
        if mask is not None:
            if self.mask_token is None:
                raise ValueError('A mask needs a mask token: build with `with_mask_token=True`.')
            if mask.shape[1:] not in (grid, x.shape[1:2]) or len(mask) != len(x):
                raise ValueError(
                    f'{len(x)} images of {grid[0]} x {grid[1]} patches need a mask of that shape, '
                    f'but {tuple(mask.shape)} was given.'
                )
            x = torch.where(mask.flatten(1).unsqueeze(-1), self.mask_token, x)
        if not self.num_prefix:
            return self.pos_drop(x.float()), grid
        # Under autocast, x is half precision here; the fp32 CLS token makes the result fp32.
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        if self.pos_embed is not None:
            x = x + resize_pos_embed(self.pos_embed, self.grid, grid)
        return self.pos_drop(x), grid

    def shared_bias(self, grid: Grid) -> Tensor | None:
        """The bias (heads, 1 + N, 1 + N) that all blocks add; None unless positions are shared."""
        return None if self.rel_pos_bias is None else self.rel_pos_bias(grid)

    def iterate_blocks(
        self,
        x: Tensor,
        grid: Grid,
        bias: Tensor | None,
        queries: Queries = None,
        depth: int | None = None,
    ) -> Iterator[Tensor]:
        """Runs the first ``depth`` blocks, by default all, and yields the tokens after each.

        Tokens are (B, 1 + N, D), not normalised; after the last block only the ``queries`` are
        left, (B, M, D).
        """
        blocks = self.blocks[:depth]
        for i, block in enumerate(blocks, 1):
            x = block(x, grid, bias, queries if i == len(blocks) else None)
            yield x

    def init_transformer(self, std: float = 0.02) -> None:
        """Initialises as BEiT does: truncated normal, branches rescaled by depth, zero biases."""
        nn.init.trunc_normal_(self.patch_embed.proj.weight, std=std)
        nn.init.zeros_(self.patch_embed.proj.bias)
        for token in (self.cls_token, self.mask_token, self.pos_embed):
            if token is not None:
                nn.init.trunc_normal_(token, std=std)
        if self.rel_pos_bias is not None:
            nn.init.zeros_(self.rel_pos_bias.relative_position_bias_table)
        for depth, block in enumerate(self.blocks, start=1):
            block.init_weights(depth, std)
