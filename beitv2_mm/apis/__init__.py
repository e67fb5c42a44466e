"""One-line use: the model zoo, inferencers for classes and features, codes of image files."""

from beitv2_mm.apis.inferencers import ClassificationInferencer, FeatureInferencer
from beitv2_mm.apis.tokenize import find_images, tokenize_images
from beitv2_mm.apis.tokenizers import build_tokenizer
from beitv2_mm.apis.zoo import ModelInfo, config_root, get_model, list_models

__all__ = [
    'ClassificationInferencer',
    'FeatureInferencer',
    'ModelInfo',
    'build_tokenizer',
    'config_root',
    'find_images',
    'get_model',
    'list_models',
    'tokenize_images',
]
