"""Images and text: contrastive training, retrieval, words in the space of a tokenizer's teacher."""

from beitv2_mm.multimodal.captions import ClassCaptions, ImageCaptions, TokenizeCaption
from beitv2_mm.multimodal.contrastive import ImageTextModel, ImageTextPreprocessor, contrastive_loss
from beitv2_mm.multimodal.retrieval import RetrievalMetric
from beitv2_mm.multimodal.text_encoder import TextEncoder, TextTokenizer, sentence_encoder
from beitv2_mm.multimodal.words import Words, WordsError, embed_with_clip, fit_map, read_words

__all__ = [
    'ClassCaptions',
    'ImageCaptions',
    'ImageTextModel',
    'ImageTextPreprocessor',
    'RetrievalMetric',
    'TextEncoder',
    'TextTokenizer',
    'TokenizeCaption',
    'Words',
    'WordsError',
    'contrastive_loss',
    'embed_with_clip',
    'fit_map',
    'read_words',
    'sentence_encoder',
]
