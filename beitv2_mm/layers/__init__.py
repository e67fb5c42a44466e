"""Plain PyTorch layers: nothing here knows OpenMMLab."""

from beitv2_mm.layers.attention import Attention
from beitv2_mm.layers.block import Block
from beitv2_mm.layers.position import (
    RelativePositionBias,
    relative_position_index,
    resize_bias_table,
    resize_pos_embed,
    table_size,
)
from beitv2_mm.layers.standardize import Standardize
from beitv2_mm.layers.vector_quantizer import Quantized, VectorQuantizer, spherical_kmeans
from beitv2_mm.layers.vision_transformer import VisionTransformer, patch_grid, to_pair

__all__ = [
    'Attention',
    'Block',
    'Quantized',
    'RelativePositionBias',
    'Standardize',
    'VectorQuantizer',
    'VisionTransformer',
    'patch_grid',
    'relative_position_index',
    'resize_bias_table',
    'resize_pos_embed',
    'spherical_kmeans',
    'table_size',
    'to_pair',
]
