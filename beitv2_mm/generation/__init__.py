"""Images from codes: a pixel decoder, a masked generator of codes, and how good they are."""

from beitv2_mm.generation.codebook import CodebookError
from beitv2_mm.generation.masked_generator import MaskedGenerator
from beitv2_mm.generation.patch_discriminator import PatchDiscriminator
from beitv2_mm.generation.pixel_decoder import PixelDecoder
from beitv2_mm.generation.quality import ImageQualityMetric, fit_classifier, frechet_distance
from beitv2_mm.generation.sampling import masked_counts, sample_codes, uniform_noise

__all__ = [
    'CodebookError',
    'ImageQualityMetric',
    'MaskedGenerator',
    'PatchDiscriminator',
    'PixelDecoder',
    'fit_classifier',
    'frechet_distance',
    'masked_counts',
    'sample_codes',
    'uniform_noise',
]
