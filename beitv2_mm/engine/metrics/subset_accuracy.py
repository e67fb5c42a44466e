"""Accuracy on a data set with a part of the classes of a classifier, such as ImageNet-A or -R."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpretrain.evaluation import Accuracy
from timm.data import ImageNetInfo

from beitv2_mm.registry import METRICS


def read_class_ids(source: str | Path | Sequence[str] | None = None) -> list[str]:
    """Names of the classes of a classifier, in the order of its outputs.

    Args:
        source: a folder with a folder per class (ImageNet's ``train``), a text file with a name per
            line, the names themselves, or None for ImageNet-1k's WordNet ids as timm lists them.

    Raises:
        FileNotFoundError: no such folder or file.
    """
    if source is None:
        return list(ImageNetInfo('imagenet-1k').label_names())
    if not isinstance(source, str | Path):
        return list(source)
    path = Path(source).expanduser()
    if path.is_dir():
        return sorted(p.name for p in path.iterdir() if p.is_dir() and p.name[0] != '.')
    if not path.is_file():
        raise FileNotFoundError(
            f'There is no class list {path}. Give a folder of class folders, a text file with a '
            'class per line, or None for the classes of ImageNet-1k.'
        )
    return [line.split()[0] for line in path.read_text().splitlines() if line.strip()]


@METRICS.register_module()
class SubsetAccuracy(Accuracy):
    """mmpretrain's Accuracy among the outputs for the classes of the data set.

    The names of the data set's class folders (WordNet ids for ImageNet and its variants) tell which
    outputs these are, so the subset needs no settings.

    Args:
        class_ids: names of the classifier's classes, see `read_class_ids`.
        kwargs: arguments of Accuracy (``topk``, ``thrs``, ``prefix``, ...).
    """

    def __init__(self, class_ids: str | Path | Sequence[str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._outputs = {name: i for i, name in enumerate(read_class_ids(class_ids))}
        self._columns: list[int] = []

    def process(self, data_batch: object, data_samples: Sequence[Mapping]) -> None:
        """Processes the scores of the data set's classes, in the order of its labels."""
        if not self._columns:
            self._columns = self._find_columns()
        restricted = []
        for sample in data_samples:
            scores = sample['pred_score']
            if len(scores) != len(self._outputs):
                raise ValueError(
                    f'The classifier has {len(scores)} outputs, but class_ids names '
                    f'{len(self._outputs)}.'
                )
            restricted.append(dict(gt_label=sample['gt_label'], pred_score=scores[self._columns]))
        super().process(data_batch, restricted)

    def _find_columns(self) -> list[int]:
        names = (self.dataset_meta or {}).get('classes')
        if not names:
            raise ValueError('SubsetAccuracy needs a data set with classes: set with_label=True.')
        unknown = [name for name in names if name not in self._outputs]
        if unknown:
            raise ValueError(
                f'{len(unknown)} of the {len(names)} class folders are not classes of the '
                f'classifier: {", ".join(unknown[:5])}. Expected names such as '
                f'{next(iter(self._outputs))}; see class_ids.'
            )
        return [self._outputs[name] for name in names]
