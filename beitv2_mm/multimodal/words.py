"""Words as vectors in a teacher's space: files of them, and a map to it from another space.

A file is a .npz with 'words' (K,), 'embeddings' (K, D) or (K, T, D) for T templates of each word
("a photo of a dog", "a painting of a dog"), and where it is known 'teacher', the timm name of the
network whose space it is; or a .safetensors with 'embeddings' and the other two as metadata, the
words as a json list. 'standardized' says that the vectors belong to the tokenizer's own outputs.
"""

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from beitv2_mm.checkpoint.atomic import atomic

TEMPLATES = ('a photo of a {}.', 'a picture of a {}.', 'a {}.')
TEXT_TOWERS = {  # timm names of teachers -> open_clip's names of model and weights
    'vit_base_patch16_clip_quickgelu_224.openai': ('ViT-B-16-quickgelu', 'openai'),
    'vit_base_patch16_clip_224.openai': ('ViT-B-16-quickgelu', 'openai'),
    'vit_large_patch14_clip_quickgelu_224.openai': ('ViT-L-14-quickgelu', 'openai'),
    'vit_large_patch14_clip_224.openai': ('ViT-L-14-quickgelu', 'openai'),
}
LAYOUT = (
    "Expected is a .npz with 'words' (K,) and 'embeddings' (K, D) or (K, T, D), or a .safetensors "
    "with 'embeddings', and the words as a json list in its metadata."
)


class WordsError(ValueError):
    """Words that cannot be used; the message names the file and says what was expected."""


class Words(NamedTuple):
    """Words and the vectors of their templates."""

    names: tuple[str, ...]  # K
    embeddings: np.ndarray  # (K, T, D) float32
    teacher: str = ''  # timm name; '' where the file does not say
    standardized: bool = False  # of the space of a tokenizer's standardised outputs

    def write(self, path: str | PathLike) -> None:
        """Writes a .npz, completely or not at all."""
        with atomic(Path(path)) as temporary, temporary.open('wb') as file:
            fields = self._asdict()
            np.savez(file, words=list(fields.pop('names')), **fields)


def read_words(path: str | PathLike) -> Words:
    """The words in a file.

    Raises:
        FileNotFoundError: there is no such file.
        WordsError: it is damaged or has another layout.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'There is no file {path.absolute()} of words.')
    try:
        if path.suffix == '.safetensors':
            with safe_open(path, 'numpy') as file:
                meta = file.metadata() or {}
                names, embeddings = json.loads(meta['words']), file.get_tensor('embeddings')
            teacher, standardized = meta.get('teacher', ''), False
        else:
            with np.load(path, allow_pickle=False) as file:
                names, embeddings = file['words'].tolist(), file['embeddings']
                teacher = str(file['teacher']) if 'teacher' in file else ''
                standardized = 'standardized' in file and bool(file['standardized'])
    except (KeyError, OSError, SafetensorError, ValueError, EOFError) as error:
        raise WordsError(f'{path} holds no words ({error}). {LAYOUT}') from error
    if embeddings.ndim == 2:
        embeddings = embeddings[:, None]
    if embeddings.ndim != 3 or len(names) != len(embeddings) or not names:
        raise WordsError(
            f'{path} holds {len(names)} words and embeddings of the shape {embeddings.shape}. '
            f'{LAYOUT}'
        )
    if len(set(names)) < len(names):
        raise WordsError(f'{path} holds a word twice: {sorted(names)}.')
    embeddings = embeddings.astype(np.float32)
    broken = ~np.isfinite(embeddings).all((1, 2)) | (np.abs(embeddings).sum((1, 2)) == 0)
    if broken.any():
        word = names[int(np.flatnonzero(broken)[0])]
        raise WordsError(f'{path}: the vector of {word!r} is zero, or holds NaN or Inf.')
    return Words(tuple(map(str, names)), embeddings, teacher, standardized)


def fit_map(
    features: np.ndarray, labels: np.ndarray, sentences: np.ndarray, ridge: float = 1.0
) -> np.ndarray:
    """A linear map (D, E) between a teacher's features and the vectors of a sentence encoder.

    It is learnt by ridge regression from labelled images: features (n, D) -> the sentence vector of
    their class, ``sentences[labels]`` with sentences (K, E), both centred. ``map @ sentence`` is
    then a vector in the teacher's space for any sentence (E,), even of a class never seen.

    Args:
        ridge: weight of the penalty, in units of the features' mean variance.
    """
    x = features.astype(np.float64) - features.mean(0)
    y = sentences[labels].astype(np.float64)
    y -= y.mean(0)
    gram = x.T @ x
    penalty = ridge * np.trace(gram) / len(gram)
    return np.linalg.solve(gram + penalty * np.eye(len(gram)), x.T @ y)


def embed_with_clip(
    names: Sequence[str], teacher: str, templates: Sequence[str] = TEMPLATES
) -> Words:
    """Words by the text tower of a CLIP network, which open_clip downloads once.

    Args:
        teacher: timm name of the tokenizer's teacher, e.g.
            'vit_base_patch16_clip_quickgelu_224.openai'.

    Raises:
        ImportError: open_clip is not installed.
        WordsError: no text tower belongs to the teacher.
    """
    if teacher not in TEXT_TOWERS:
        raise WordsError(
            f'No text tower belongs to {teacher or "a teacher that is not known"}: words need a '
            f'tokenizer whose teacher is one of {", ".join(TEXT_TOWERS)}, or labelled images '
            '(--labels).'
        )
    try:
        import open_clip
    except ImportError as error:
        raise ImportError(
            f'The text tower of {teacher} needs open_clip ({error}): pip install open_clip_torch'
        ) from error
    import torch

    name, weights = TEXT_TOWERS[teacher]
    tower = open_clip.create_model(name, pretrained=weights).eval()
    tokenize = open_clip.get_tokenizer(name)
    texts = tokenize([template.format(name) for name in names for template in templates])
    with torch.no_grad():
        vectors = tower.encode_text(texts).float().numpy()
    return Words(tuple(names), vectors.reshape(len(names), len(templates), -1), teacher)
