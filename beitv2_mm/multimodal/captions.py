"""Images and their captions as a data set: a CSV, or a json in the layout of COCO's captions."""

import csv
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset

from beitv2_mm.datasets.image_folder import ImageFolder
from beitv2_mm.datasets.pixel_rules import PixelRules
from beitv2_mm.multimodal.text_encoder import TextTokenizer
from beitv2_mm.multimodal.words import WordsError
from beitv2_mm.registry import DATASETS, TRANSFORMS

COLUMNS = ('file', 'caption')
EXPECTED = "Expected is a CSV with the columns file and caption, or a json of COCO's captions."


@DATASETS.register_module()
class ImageCaptions(PixelRules, BaseDataset):
    """One item for each caption; an image may have several.

    A third column of the CSV, ``group``, names a part of the data that `RetrievalMetric` reports by
    itself.

    Args:
        kwargs: of mmengine's BaseDataset: ``data_root``, ``ann_file``,
            ``data_prefix=dict(img_path=...)``, ``pipeline``; and of `SkipUnreadable`: an item whose
            image cannot be read is skipped.

    Raises:
        FileNotFoundError: the file of captions or an image is missing.
        WordsError: the file has another layout, or captions are missing or empty.
    """

    def load_data_list(self) -> list[dict]:
        """Dicts of 'img_path', 'caption' and 'group'."""
        path = Path(self.ann_file)
        if not path.is_file():
            raise FileNotFoundError(f'There is no file {path.absolute()} of captions.')
        items = _from_json(path) if path.suffix == '.json' else _from_csv(path)
        if not items:
            raise WordsError(f'{path} has no captions. {EXPECTED}')
        empty = [item['file'] for item in items if not item['caption'].strip()]
        if empty:
            raise WordsError(
                f'{path}: {len(empty)} of {len(items)} captions are empty, e.g. that of '
                f'{empty[0]}: fill them in, or take the lines out.'
            )
        folder = Path(self.data_prefix.get('img_path', ''))
        files = list(dict.fromkeys(item['file'] for item in items))
        absent = [name for name in files if not (folder / name).is_file()]
        if absent:
            raise FileNotFoundError(
                f'{path} names {len(absent)} of {len(files)} images that are not there, e.g. '
                f'{(folder / absent[0]).absolute()}.'
            )
        self.settle_pixels(files, lambda name: str(folder / name), str(folder))
        return [
            dict(
                img_path=str(folder / item['file']),
                caption=item['caption'].strip(),
                group=item.get('group') or '',
            )
            for item in items
        ]


@DATASETS.register_module()
class ClassCaptions(ImageFolder):
    """A folder of images for each class, whose captions are made of the class names.

    'image_to_text/r1' of `RetrievalMetric` is then the accuracy of a classifier that knows the
    classes by their names alone: with ``only``, classes that the training was ``without``.

    Args:
        template: of the captions, with {} for the name.
        only: names of the classes to take; None for all.
        without: names of classes to leave out.
        kwargs: see `ImageFolder`.

    Raises:
        ValueError: there is no class of a name.
    """

    def __init__(
        self,
        data_root: str = '',
        template: str = 'a photo of a {}.',
        only: Sequence[str] | None = None,
        without: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        self.template = template
        self.only = only
        self.without = without
        super().__init__(data_root, with_label=True, **kwargs)

    def load_data_list(self) -> list[dict]:
        """The items of `ImageFolder` with 'caption' and an empty 'group'."""
        items = super().load_data_list()
        names = list(self.CLASSES)
        unknown = [name for name in (*(self.only or ()), *self.without) if name not in names]
        if unknown:
            raise ValueError(f'{self.data_root} has no class {unknown[0]!r}; it has {names}.')
        taken = set(names if self.only is None else self.only) - set(self.without)
        for item in items:
            item.update(caption=self.template.format(names[item['gt_label']]), group='')
        return [item for item in items if names[item['gt_label']] in taken]


def _from_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline='', encoding='utf-8') as file:
        rows = csv.DictReader(file)
        lacking = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
        if lacking:
            raise WordsError(f'{path} has no column {lacking[0]!r}. {EXPECTED}')
        return [{key: value or '' for key, value in row.items() if key} for row in rows]


def _from_json(path: Path) -> list[dict[str, str]]:
    try:
        content = json.loads(path.read_bytes())
        names = {image['id']: image['file_name'] for image in content['images']}
        boxes = content['annotations']
        return [dict(file=names[each['image_id']], caption=each['caption']) for each in boxes]
    except (KeyError, TypeError, ValueError) as error:
        raise WordsError(f'{path} holds no captions ({error!r}). {EXPECTED}') from error


@TRANSFORMS.register_module()
class TokenizeCaption(BaseTransform):
    """Writes 'text_ids' (L,), the tokens of 'caption'.

    Args: see `TextTokenizer`.
    """

    def __init__(self, source: str, length: int = 32) -> None:
        self.tokenize = TextTokenizer(source, length)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        results['text_ids'] = self.tokenize([results['caption']])[0]
        return results


def unknown_words(captions: list[str], tokenizer: TextTokenizer) -> Counter[str]:
    """Words that the tokenizer does not know, with their numbers."""
    unknown = tokenizer.tokenizer.token_to_id('[UNK]')
    found: Counter[str] = Counter()
    for caption in captions:
        coded = tokenizer.tokenizer.encode(caption)
        found.update(
            caption[start:end]
            for token, (start, end) in zip(coded.ids, coded.offsets, strict=True)
            if token == unknown
        )
    return found
