"""Words for images and patches from a tokenizer's codes."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from beitv2_mm.apis import Tagger, find_images, tag_images
from beitv2_mm.models import VQKDTokenizer
from beitv2_mm.multimodal import Words, WordsError, fit_map, through_map
from support.nets import randomize
from support.tiny import build_tokenizer, cifar_images

CLIP = 'vit_base_patch16_clip_quickgelu_224.openai'


def tokenizer(standardize: bool = False) -> VQKDTokenizer:
    model = randomize(build_tokenizer(standardize_target=standardize)).eval()
    if standardize:
        model.target_norm.running_var.abs_()
    return model


def words(width: int, count: int = 3, templates: int = 2, teacher: str = '') -> Words:
    vectors = np.random.default_rng(0).normal(size=(count, templates, width))
    return Words(('cat', 'dog', 'sky')[:count], vectors.astype(np.float32), teacher)


def plain_cosines(model: VQKDTokenizer, images: Tensor, given: Words) -> np.ndarray:
    """(B, N, K) by NumPy in double precision, from the decoder's features."""
    codes = model.get_codes(images)
    vectors = model.quantize.embedding.weight[codes]
    features = model.decode(vectors, model.encoder.grid).detach().cpu().numpy().astype(float)
    if model.target_norm is None:
        units = given.embeddings / np.linalg.norm(given.embeddings, axis=-1, keepdims=True)
        targets = units.mean(1)
    else:
        mean, var = (
            value.cpu().numpy().astype(float)
            for value in (model.target_norm.running_mean, model.target_norm.running_var)
        )
        targets = (given.embeddings.mean(1) - mean) / np.sqrt(var + model.target_norm.eps)
    targets = targets / np.linalg.norm(targets, axis=-1, keepdims=True)
    features /= np.linalg.norm(features, axis=-1, keepdims=True)
    return features @ targets.T


@pytest.mark.parametrize('standardize', [False, True])
def test_scores_are_the_plain_projection(standardize: bool) -> None:
    """Templates are averaged as unit vectors; standardised targets standardise the words."""
    model, images = tokenizer(standardize), cifar_images(3)
    given = words(model.target_dims)
    whole, patches = Tagger(model, given).scores(images)
    expected = plain_cosines(model, images, given)
    assert patches.shape == (3, 3, 4, 4)
    np.testing.assert_allclose(
        patches.flatten(2).transpose(1, 2).cpu().numpy(), expected, atol=1e-5
    )
    np.testing.assert_allclose(whole.cpu().numpy(), expected.mean(1), atol=1e-5)


def test_nothing_of_these() -> None:
    """By a word that stands for all else, or by a least cosine."""
    model = tokenizer()
    scores = np.array([[0.5, 0.1], [0.2, 0.3], [0.1, 0.2]])
    given = words(model.target_dims)
    assert Tagger(model, given).best(scores).tolist() == [0, 1]
    assert Tagger(model, given, nothing=['dog']).best(scores).tolist() == [0, 3]
    assert Tagger(model, given, threshold=0.4).best(scores).tolist() == [0, 3]
    with pytest.raises(WordsError, match="'tree' is not among the words: cat, dog, sky"):
        Tagger(model, given, nothing=['tree'])


def test_other_spaces_are_refused() -> None:
    model = tokenizer()
    with pytest.raises(WordsError, match='have 7 numbers each, but the tokenizer predicts'):
        Tagger(model, words(7))
    model.teacher_name = 'vit_base_patch16_224.dino'
    with pytest.raises(
        WordsError,
        match=r'in the space of .*clip.*teacher is vit_base_patch16_224\.dino: embed them',
    ):
        Tagger(model, words(model.target_dims, teacher=CLIP))
    Tagger(model, words(model.target_dims))  # the file does not say


def test_files_to_a_table_and_pictures(tmp_path: Path) -> None:
    model = tokenizer()
    (tmp_path / 'in').mkdir()
    for i, image in enumerate(cifar_images(3)):
        pixels = (image * 255).byte().permute(1, 2, 0).cpu().numpy()
        Image.fromarray(pixels).save(tmp_path / f'in/{i}.png')
    (tmp_path / 'in/broken.png').write_bytes(b'no picture')
    tagger = Tagger(model, words(model.target_dims), threshold=-0.5)
    files, counted = find_images([tmp_path / 'in']), []
    unreadable = tag_images(files, tagger, tmp_path / 'out', counted.append)
    assert [Path(file).name for file in unreadable] == ['broken.png'] and sum(counted) == 4
    with (tmp_path / 'out/tags.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 and rows[0].keys() >= {'file', 'tag', 'word1', 'score1', 'word3'}
    for row in rows:
        assert row['tag'] in ('', row['word1'])
        assert float(row['score1']) >= float(row['score2']) >= float(row['score3'])
    assert Image.open(tmp_path / 'out/pictures/0.png').width > 5 * 224


def test_a_map_brings_sentences_into_the_teachers_space() -> None:
    """Classes that were left out of the fit are told apart by their sentences."""
    random = np.random.default_rng(0)
    sentences = random.normal(size=(12, 6))
    mixing = random.normal(size=(6, 20))
    labels = np.arange(10).repeat(30)
    features = sentences[labels] @ mixing + 0.1 * random.normal(size=(300, 20))
    learnt = fit_map(features, labels, sentences, ridge=0.01)
    unseen = sentences[[10, 11]] @ mixing - features.mean(0)
    given = through_map(['a', 'b'], sentences[10:], learnt, CLIP)
    assert given.embeddings.shape == (2, 1, 20) and given.teacher == CLIP
    scores = unseen @ given.embeddings[:, 0].T
    assert scores.argmax(1).tolist() == [0, 1]
