"""Words of patches as a picture: an image, the best word of each patch, and heat maps of words."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from beitv2_mm.visualization.attention_pictures import heat_map
from beitv2_mm.visualization.canvas import beside, default_palette, enlarge, labelled
from beitv2_mm.visualization.segmentation import draw_with_legend

TILE = 224  # pixels of the longer side of each part
MAPS = 3  # words that are shown as heat maps


def draw_tags(
    image: np.ndarray, best: np.ndarray, scores: np.ndarray, words: Sequence[str]
) -> Image.Image:
    """The image under the colours of its patches' words with a legend, and heat maps.

    Args:
        image: (H, W, 3) uint8.
        best: (rows, columns), the index of each patch's word; patches without a word have the
            number of words and stay clear.
        scores: (K, rows, columns); the words with the highest maximum get a heat map.
    """
    factor = TILE / max(image.shape[:2])
    height, width = (round(side * factor) for side in image.shape[:2])
    photo = enlarge(image, height, width)
    size = (width, height)
    labels = Image.fromarray(best.astype(np.uint16)).resize(size, Image.Resampling.NEAREST)
    colours = default_palette(len(words))
    patches = draw_with_legend(np.asarray(photo), np.asarray(labels), colours, words, 0.5)
    order = np.argsort(-scores.max((1, 2)), kind='stable')[:MAPS]
    maps = [labelled(_blend(photo, scores[k]), words[k]) for k in order]
    return beside([labelled(photo, 'image'), labelled(patches, 'word of each patch'), *maps])


def _blend(photo: Image.Image, scores: np.ndarray) -> Image.Image:
    return Image.blend(photo, heat_map(scores, photo.size), 0.6)
