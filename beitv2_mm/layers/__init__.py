"""Plain PyTorch layers: nothing here knows OpenMMLab."""

from .attention import Attention
from .block import Block, run_block
from .position import (
    RelativePositionBias,
    relative_position_index,
    resize_bias_table,
    resize_pos_embed,
    table_size,
)
from .vector_quantizer import Quantized, VectorQuantizer, spherical_kmeans
from .vision_transformer import VisionTransformer, patch_grid, to_pair

__all__ = [
    'Attention',
    'Block',
    'Quantized',
    'RelativePositionBias',
    'VectorQuantizer',
    'VisionTransformer',
    'patch_grid',
    'relative_position_index',
    'resize_bias_table',
    'resize_pos_embed',
    'run_block',
    'spherical_kmeans',
    'table_size',
    'to_pair',
]
