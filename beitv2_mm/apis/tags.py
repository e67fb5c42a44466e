"""Words for images and their patches, from codes of a tokenizer whose teacher's space has words.

The tokenizer's decoder predicts, from the codes alone, the teacher's feature of every patch. With
CLIP as teacher this is a point in CLIP's space of images and text, so its cosine to a word's vector
says how well the word fits. This is tagging, not segmentation: the decoder mixes the whole image
into every patch, and CLIP was never trained to tell patches apart.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from PIL import Image
from torch import Tensor

from beitv2_mm.apis.files import find_images, image_size, load_image, write_table
from beitv2_mm.apis.pipeline import infer_files, save_picture
from beitv2_mm.datasets.reading import UnreadableImageError
from beitv2_mm.models import VQKDTokenizer
from beitv2_mm.multimodal import TextTokenizer, Words, WordsError, fit_map, sentence_encoder
from beitv2_mm.multimodal.text_encoder import MINILM
from beitv2_mm.multimodal.words import TEMPLATES
from beitv2_mm.visualization.tags import draw_tags

NOTHING = ''  # the tag of what no word fits
TOP = 5  # words in the table


class Tags(NamedTuple):
    """The cosines of an image and of its patches to the words."""

    image: np.ndarray  # (K,)
    patches: np.ndarray  # (K, rows, columns)


class Tagger:
    """Scores of words for images.

    Args:
        tokenizer: see `beitv2_mm.apis.build_tokenizer`; it runs on the device that it is on.
        words: see `beitv2_mm.multimodal.read_words`. For a tokenizer with ``standardize_target``
            their vectors are the teacher's own features, such as the mean over a class, not of
            unit length: they are standardised as the targets were.
        nothing: those of the words that stand for all else: where one of them fits best, no word is
            given.
        threshold: least cosine of a word that is given.

    Raises:
        WordsError: the words are of another space or width, or ``nothing`` is not among them.
    """

    def __init__(
        self,
        tokenizer: VQKDTokenizer,
        words: Words,
        nothing: Sequence[str] = (),
        threshold: float = -1.0,
    ) -> None:
        teacher = getattr(tokenizer, 'teacher_name', '')
        if teacher and words.teacher and teacher != words.teacher:
            raise WordsError(
                f"The words are in the space of {words.teacher}, but the tokenizer's teacher is "
                f'{teacher}: embed them with the text tower of {teacher}, or take a tokenizer that '
                f'{words.teacher} has taught.'
            )
        width = words.embeddings.shape[-1]
        if width != tokenizer.target_dims:
            raise WordsError(
                f'The words have {width} numbers each, but the tokenizer predicts '
                f'{tokenizer.target_dims} features a patch: they are of different spaces.'
            )
        unknown = [word for word in nothing if word not in words.names]
        if unknown:
            raise WordsError(f'{unknown[0]!r} is not among the words: {", ".join(words.names)}.')
        self.tokenizer = tokenizer
        self.words = words.names
        self.nothing = [words.names.index(word) for word in nothing]
        self.threshold = threshold
        self.vectors = self._vectors(words)

    def _vectors(self, words: Words) -> Tensor:
        """Unit vectors (K, D), averaged over the templates of each word."""
        device = next(self.tokenizer.parameters()).device
        vectors = torch.from_numpy(words.embeddings).to(device)  # (K, T, D)
        norm = self.tokenizer.target_norm
        if norm is None or words.standardized:
            return F.normalize(F.normalize(vectors, dim=-1).mean(1), dim=-1)
        return F.normalize(norm(vectors.mean(1)), dim=-1)

    def scores(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines of whole images and of patches: (B, C, H, W) in [0, 1] or uint8 -> (B, K) and
        (B, K, rows, columns). That of an image is the mean over its patches."""
        patches = _outputs(self.tokenizer, images) @ self.vectors.T  # (B, N, K)
        return patches.mean(1), patches.transpose(1, 2).unflatten(2, self.tokenizer.grid_of(images))

    def tag(self, image: Image.Image) -> Tags:
        """The scores of an image of the tokenizer's size."""
        whole, patches = self.scores(_pixels(image))
        return Tags(whole[0].cpu().numpy(), patches[0].cpu().numpy())

    def best(self, scores: np.ndarray) -> np.ndarray:
        """(K, ...) -> the index of the word that fits best, (...); K where it is none."""
        index = scores.argmax(0)
        none = np.isin(index, self.nothing) | (scores.max(0) < self.threshold)
        return np.where(none, len(self.words), index)


def embed_through_labels(
    names: Sequence[str],
    folder: str | PathLike,
    tokenizer: VQKDTokenizer,
    source: str | PathLike = MINILM,
    templates: Sequence[str] = TEMPLATES,
) -> Words:
    """Words by a sentence encoder, brought to the tokenizer's outputs by a linear map that images
    with labels teach: ridge regression from the mean output of an image to its class's sentence.

    Args:
        names: the words, of the classes or not.
        folder: a subfolder of images for each class, named by it.
        source: of the sentence encoder, see `beitv2_mm.multimodal.sentence_encoder`.

    Raises:
        WordsError: there are fewer than two classes, or the sentence encoder is missing.
    """
    classes = sorted(path.name for path in Path(folder).iterdir() if path.is_dir())
    if len(classes) < 2:
        raise WordsError(
            f'{folder} has {len(classes)} folders of classes; a map from sentences needs two.'
        )
    tokenize, encoder = TextTokenizer(source), sentence_encoder(source)

    def sentences(words: Sequence[str]) -> np.ndarray:
        texts = [template.format(word) for word in words for template in templates]
        with torch.no_grad():
            vectors = F.normalize(encoder(tokenize(texts)), dim=-1)
        return vectors.unflatten(0, (len(words), -1)).mean(1).numpy()

    features, labels = [], []
    for label, name in enumerate(classes):
        for file in find_images([Path(folder, name)]):
            try:
                image = load_image(file, image_size(tokenizer), getattr(tokenizer, 'white', None))
            except UnreadableImageError as error:
                print_log(f'{error}: left out.', 'current', logging.WARNING)
                continue
            features.append(_outputs(tokenizer, _pixels(image)).mean(1)[0].cpu().numpy())
            labels.append(label)
    learnt = fit_map(np.stack(features), np.array(labels), sentences(classes))
    vectors = sentences(names) @ learnt.T
    teacher = getattr(tokenizer, 'teacher_name', '')
    return Words(tuple(names), vectors[:, None].astype(np.float32), teacher, standardized=True)


def _pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]


@torch.no_grad()
def _outputs(tokenizer: VQKDTokenizer, images: Tensor) -> Tensor:
    """What the decoder predicts from the codes of images, as unit vectors: (B, N, D)."""
    codes = tokenizer.get_codes(images.to(next(tokenizer.parameters()).device))
    quantized = tokenizer.quantize.decode(codes)
    return F.normalize(tokenizer.decode(quantized, tokenizer.grid_of(images)).float(), dim=-1)


def tag_images(
    files: Sequence[str],
    tagger: Tagger,
    out: str | PathLike,
    progress: Callable[[int], None] = lambda count: None,
) -> dict[str, str]:
    """Writes ``out/tags.csv``, the words that fit best with their cosines, and
    ``out/pictures/NAME.png``: the word of each patch with a legend, and heat maps of some words.

    Args:
        files: see `beitv2_mm.apis.find_images`.
        progress: called with the number of images finished since the last call.

    Returns:
        Files that cannot be read, and the reasons.
    """
    out, unreadable = Path(out), dict[str, str]()
    out.mkdir(parents=True, exist_ok=True)
    count = min(TOP, len(tagger.words))
    white = getattr(tagger.tokenizer, 'white', None)

    def infer(file: str) -> tuple[Image.Image, Tags]:
        image = load_image(file, image_size(tagger.tokenizer), white)
        return image, tagger.tag(image)

    def rows() -> Iterator[list[str]]:
        for file, name, (image, tags) in infer_files(files, infer, unreadable, progress):
            best = int(tagger.best(tags.image))
            order = np.argsort(-tags.image, kind='stable')[:count]
            cells = (c for k in order for c in (tagger.words[k], f'{tags.image[k]:.4f}'))
            word_map = tagger.best(tags.patches)
            picture = draw_tags(np.array(image), word_map, tags.patches, tagger.words)
            save_picture(picture, out / 'pictures' / f'{name}.png')
            yield [file, [*tagger.words, NOTHING][best], *cells]

    ranks = [f'{word}{i}' for i in range(1, count + 1) for word in ('word', 'score')]
    write_table(out / 'tags.csv', ['file', 'tag', *ranks], rows())
    return unreadable
