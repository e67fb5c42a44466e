"""Words for images and their patches, from codes of a tokenizer whose teacher's space has words.

The tokenizer's decoder predicts, from the codes alone, the teacher's feature of every patch. With
CLIP as teacher this is a point in CLIP's space of images and text, so its cosine to a word's vector
says how well the word fits. This is tagging, not segmentation: the decoder mixes the whole image
into every patch, and CLIP was never trained to tell patches apart.
"""

import csv
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from beitv2_mm.apis.files import load_image, result_names
from beitv2_mm.checkpoint.atomic import atomic
from beitv2_mm.datasets.reading import UnreadableImageError
from beitv2_mm.models import VQKDTokenizer
from beitv2_mm.multimodal import Words, WordsError
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
        if norm is None:
            return F.normalize(F.normalize(vectors, dim=-1).mean(1), dim=-1)
        return F.normalize(norm(vectors.mean(1)), dim=-1)

    @torch.no_grad()
    def scores(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines of whole images and of patches: (B, C, H, W) in [0, 1] or uint8 -> (B, K) and
        (B, K, rows, columns). That of an image is the mean over its patches."""
        tokenizer = self.tokenizer
        rows, columns = tokenizer.encoder.patch_size
        grid = images.shape[-2] // rows, images.shape[-1] // columns
        codes = tokenizer.get_codes(images.to(self.vectors.device))
        features = tokenizer.decode(tokenizer.quantize.decode(codes), grid).float()  # (B, N, D)
        patches = F.normalize(features, dim=-1) @ self.vectors.T  # (B, N, K)
        return patches.mean(1), patches.transpose(1, 2).unflatten(2, grid)

    def tag(self, image: Image.Image) -> Tags:
        """The scores of an image of the tokenizer's size."""
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
        whole, patches = self.scores(pixels)
        return Tags(whole[0].cpu().numpy(), patches[0].cpu().numpy())

    def best(self, scores: np.ndarray) -> np.ndarray:
        """(K, ...) -> the index of the word that fits best, (...); K where it is none."""
        index = scores.argmax(0)
        none = np.isin(index, self.nothing) | (scores.max(0) < self.threshold)
        return np.where(none, len(self.words), index)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images that the tokenizer takes."""
        encoder = self.tokenizer.encoder
        (rows, columns), (height, width) = encoder.grid, encoder.patch_size
        return rows * height, columns * width


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
    (out / 'pictures').mkdir(parents=True, exist_ok=True)
    count = min(TOP, len(tagger.words))
    white = getattr(tagger.tokenizer, 'white', None)
    with atomic(out / 'tags.csv') as part, part.open('w', newline='', encoding='utf-8') as file:
        table = csv.writer(file)
        ranks = range(1, count + 1)
        table.writerow(
            ['file', 'tag', *(f'{word}{i}' for i in ranks for word in ('word', 'score'))]
        )
        for name, path in zip(files, result_names(files), strict=True):
            try:
                image = load_image(name, tagger.size, white)
            except UnreadableImageError as error:
                unreadable[name] = str(error)
            else:
                tags = tagger.tag(image)
                best = int(tagger.best(tags.image))
                order = np.argsort(-tags.image, kind='stable')[:count]
                cells = (c for k in order for c in (tagger.words[k], f'{tags.image[k]:.4f}'))
                table.writerow([name, [*tagger.words, NOTHING][best], *cells])
                picture = out / 'pictures' / f'{path}.png'
                picture.parent.mkdir(parents=True, exist_ok=True)
                word_map = tagger.best(tags.patches)
                draw_tags(np.array(image), word_map, tags.patches, tagger.words).save(picture)
            progress(1)
    return unreadable
