"""Files of words."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from beitv2_mm.multimodal import Words, WordsError, read_words

pytestmark = pytest.mark.cpu_only(reason='files are read, nothing is computed')


def test_both_kinds_of_files(tmp_path: Path) -> None:
    given = Words(('Katze', 'dog'), np.arange(6, dtype=np.float32).reshape(2, 1, 3) + 1, 'teacher')
    given.write(tmp_path / 'words.npz')
    meta = dict(words=json.dumps(given.names), teacher='teacher')
    save_file(dict(embeddings=given.embeddings[:, 0]), tmp_path / 'words.safetensors', meta)
    for name in ('words.npz', 'words.safetensors'):
        found = read_words(tmp_path / name)
        assert found.names == given.names and found.teacher == 'teacher'
        np.testing.assert_array_equal(found.embeddings, given.embeddings)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (dict(words=['a']), 'holds no words'),
        (dict(words=['a', 'b'], embeddings=np.ones((3, 4))), r'2 words and .* \(3, 1, 4\)'),
        (dict(words=['a', 'a'], embeddings=np.ones((2, 4))), 'holds a word twice'),
        (dict(words=['a', 'b'], embeddings=np.eye(2, 4) * [[1], [0]]), "vector of 'b' is zero"),
        (dict(words=['a'], embeddings=np.full((1, 4), np.nan)), "'a' is zero, or holds NaN"),
        (dict(words=[], embeddings=np.ones((0, 4))), '0 words'),
    ],
)
def test_bad_files(content: dict, message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / 'words.npz', **content)
    with pytest.raises(WordsError, match=message):
        read_words(tmp_path / 'words.npz')


def test_damaged_and_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'There is no file .*words\.npz of words'):
        read_words(tmp_path / 'words.npz')
    for name in ('words.npz', 'words.safetensors'):
        (tmp_path / name).write_bytes(b'damaged')
        with pytest.raises(WordsError, match='holds no words'):
            read_words(tmp_path / name)
