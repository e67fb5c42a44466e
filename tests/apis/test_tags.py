"""Words for images and patches from a tokenizer's codes."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from beitv2_mm.apis import Tagger, embed_through_labels, find_images, tag_images
from beitv2_mm.models import VQKDTokenizer
from beitv2_mm.multimodal import Words, WordsError, embed_with_clip, fit_map, read_words
from beitv2_mm.multimodal.text_encoder import train_tokenizer
from beitv2_mm.registry import MODELS
from support.bert import SIZES, bert_weights
from support.nets import randomize
from support.tiny import CIFAR, build_tokenizer, cifar_images
from support.tools import run_tool

VQKD = Path(__file__).parents[1] / 'support/vqkd_config.py'
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
    scores = unseen @ (sentences[10:] @ learnt.T).T
    assert scores.argmax(1).tolist() == [0, 1]


def test_words_through_labels(tmp_path: Path) -> None:
    """A sentence encoder with random weights; the words need not be classes."""
    (tmp_path / 'config.json').write_text(json.dumps(SIZES | dict(max_position_embeddings=32)))
    weights = bert_weights()
    weights['embeddings.position_embeddings.weight'] = torch.zeros(32, 16)
    save_file(weights, tmp_path / 'model.safetensors')
    train_tokenizer(['a photo picture of dog cat frog deer .'], tmp_path / 'tokenizer.json')
    model = tokenizer(standardize=True)
    found = embed_through_labels(['dog', 'fox'], CIFAR, model, tmp_path)
    assert found.names == ('dog', 'fox') and found.standardized
    assert found.embeddings.shape == (2, 1, model.target_dims)
    found.write(tmp_path / 'words.npz')
    again = read_words(tmp_path / 'words.npz')
    assert again.standardized
    vectors = Tagger(model, again).vectors
    expected = found.embeddings[:, 0] / np.linalg.norm(found.embeddings[:, 0], axis=1)[:, None]
    np.testing.assert_allclose(vectors.cpu().numpy(), expected, rtol=1e-5)
    (tmp_path / 'one/dog').mkdir(parents=True)
    with pytest.raises(WordsError, match='has 1 folders of classes'):
        embed_through_labels(['dog'], tmp_path / 'one', model, tmp_path)


def test_a_teacher_without_a_text_tower() -> None:
    with pytest.raises(WordsError, match=r'No text tower belongs to vit_base_patch16_224\.dino'):
        embed_with_clip(['dog'], 'vit_base_patch16_224.dino')


def test_the_tool_and_what_it_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = Config.fromfile(VQKD)
    model = randomize(MODELS.build({**config.model.to_dict(), 'teacher': None}))
    torch.save(model.state_dict(), 'tokenizer.pth')
    words(model.target_dims).write('words.npz')
    start = [CIFAR / 'dog', '--tokenizer', 'tokenizer.pth', '--config', VQKD]
    run_tool('tag_images', *start, '--words', 'words.npz', '--nothing', 'sky')
    assert len(Path('tags/tags.csv').read_text().splitlines()) == 3
    words(7).write('others.npz')
    with pytest.raises(SystemExit, match='have 7 numbers each'):
        run_tool('tag_images', *start, '--words', 'others.npz')
    with pytest.raises(SystemExit, match='No text tower belongs to'):
        run_tool('embed_words', 'dog', '--tokenizer', 'tokenizer.pth', '--config', VQKD)
