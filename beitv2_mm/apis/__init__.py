"""Models and images in one line: the model zoo, inferencers for classes, features, masks and
boxes, the codes of image files, and attention."""

from beitv2_mm import config_root
from beitv2_mm.apis.attention import (
    AttentionModel,
    build_attention_model,
    visualize_attention,
)
from beitv2_mm.apis.codes import build_pretrainer, visualize_codes
from beitv2_mm.apis.detector import DetectionInferencer, detect_images
from beitv2_mm.apis.files import find_images
from beitv2_mm.apis.generated_files import (
    build_pixel_decoder,
    read_hole,
    reconstruct_images,
    write_samples,
)
from beitv2_mm.apis.generation import GenerationError, ImageGenerator
from beitv2_mm.apis.inferencers import ClassificationInferencer, FeatureInferencer
from beitv2_mm.apis.segmenter import SegmentationInferencer, segment_images
from beitv2_mm.apis.tags import Tagger, Tags, embed_through_labels, tag_images
from beitv2_mm.apis.tokenize import build_tokenizer, tokenize_images
from beitv2_mm.apis.zoo import ModelInfo, get_model, list_models

__all__ = [
    'AttentionModel',
    'ClassificationInferencer',
    'DetectionInferencer',
    'FeatureInferencer',
    'GenerationError',
    'ImageGenerator',
    'ModelInfo',
    'SegmentationInferencer',
    'Tagger',
    'Tags',
    'build_attention_model',
    'build_pixel_decoder',
    'build_pretrainer',
    'build_tokenizer',
    'config_root',
    'detect_images',
    'embed_through_labels',
    'find_images',
    'get_model',
    'list_models',
    'read_hole',
    'reconstruct_images',
    'segment_images',
    'tag_images',
    'tokenize_images',
    'visualize_attention',
    'visualize_codes',
    'write_samples',
]
