"""What a finished job says of new images: classes, masks or features."""

import csv
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.utils import ProgressBar
from PIL import Image, ImageOps

from beitv2_mm import config_root
from beitv2_mm.apis import (
    ClassificationInferencer,
    FeatureInferencer,
    SegmentationInferencer,
    find_images,
    segment_images,
)
from beitv2_mm.apis.files import result_names
from beitv2_mm.checkpoint.atomic import atomic
from beitv2_mm.datasets.pixel_rules import COLOURS
from beitv2_mm.jobs.choices import Size
from beitv2_mm.jobs.recipe_parts import resize
from beitv2_mm.jobs.recipes import KNN
from beitv2_mm.jobs.stages import artifact
from beitv2_mm.jobs.survey import FolderError
from beitv2_mm.jobs.weights import Weights, find_weights
from beitv2_mm.visualization.canvas import as_picture, beside, new_canvas, write

BATCH = 16
TOP = 5  # classes in the table
SHEET = 48  # images on a picture
THUMBNAIL = 160  # pixels


class Job(NamedTuple):
    """A finished training of a job's folder."""

    task: str  # 'segment' or 'finetune'
    config: Path
    checkpoint: str


def find_job(source: Path) -> Job:
    """The last training that a folder holds.

    Raises:
        FolderError: it holds none that is finished.
    """
    for task in ('segment', 'finetune'):
        config = source / f'{task}.py'
        if config.is_file() and (source / task / 'done.json').is_file():
            return Job(task, config, str(artifact(source / task)))
    if (source / 'pretrain/done.json').is_file():
        raise FolderError(
            f'{source} is a pretraining, which knows no classes: add --features, or finetune first '
            f'(python -m beitv2_mm finetune CLASSES --from {source} --out OUT).'
        )
    raise FolderError(
        f'{source} holds no finished training to predict with: --from takes the --out of finetune '
        'or segment-train. With --features it takes any weights.'
    )


def predict(
    images: Sequence[str | Path],
    source: str,
    out: Path,
    features: bool = False,
    device: str | None = None,
    logger: logging.Logger | None = None,
) -> Path:
    """Classes as ``predictions.csv`` and pictures, masks as PNGs and overlays, or features as
    ``features.npz`` with 'files' and 'features' (n, D). Unreadable images are listed in
    ``unreadable.csv``. Returns what to look at.

    Args:
        source: the folder of a finished job; for features any weights, see `find_weights`.

    Raises:
        FolderError: no such job, or one that only gives features.
        FileNotFoundError: there are no images.
    """
    job = None if features else find_job(Path(source))
    weights = find_weights(source) if features else None
    files = find_images(images)
    out.mkdir(parents=True, exist_ok=True)
    bar = ProgressBar(len(files))
    if weights:
        result, unreadable = _features(files, weights, out, device, bar)
    elif job and job.task == 'segment':
        inferencer = SegmentationInferencer(job.config, job.checkpoint, device)
        unreadable = segment_images(files, inferencer, out, progress=bar.update)
        result = out / 'overlays'
    else:
        assert job
        result, unreadable = _classes(files, job, out, device, bar)
    if unreadable:
        _table(out / 'unreadable.csv', ('file', 'reason'), unreadable.items())
    if logger:
        logger.info(f'{len(files) - len(unreadable)} images, {len(unreadable)} unreadable')
    if len(unreadable) == len(files):
        raise FolderError(f'Not one image can be read, e.g. {next(iter(unreadable.values()))}')
    return result


def _batches(
    files: Sequence[str], inferencer: Any, bar: ProgressBar, unreadable: dict[str, str]
) -> Iterator[tuple[list[str], dict]]:
    """Names and the collated images of each batch; what cannot be read goes to ``unreadable``."""
    for start in range(0, len(files), BATCH):
        chunk = files[start : start + BATCH]
        prepared = {}
        for file in chunk:
            try:
                prepared[file] = inferencer._prepare(file)
            except ValueError as error:
                unreadable[file] = str(error)
        if prepared:
            yield list(prepared), default_collate(list(prepared.values()))
        bar.update(len(chunk))


def _features(
    files: Sequence[str], weights: Weights, out: Path, device: str | None, bar: ProgressBar
) -> tuple[Path, dict[str, str]]:
    """The mean patch token after the last block, normalised."""
    if weights.in_channels != COLOURS:
        raise FolderError(
            f'{weights.checkpoint} takes images of {weights.in_channels} channels, and --features '
            'reads colours: use FeatureInferencer with the config of its training.'
        )
    cfg = Config.fromfile(config_root() / KNN)
    cfg.model.backbone.update(weights.backbone())
    resize(cfg.test_dataloader.dataset.pipeline, Size(weights.img_size, weights.patch_size))
    inferencer = FeatureInferencer(cfg, weights.checkpoint, device)
    names: list[str] = []
    rows: list[np.ndarray] = []
    unreadable: dict[str, str] = {}
    for batch, data in _batches(files, inferencer, bar, unreadable):
        names += batch
        rows += [outputs[-1].float().cpu().numpy() for outputs in inferencer.forward(data)]
    path = out / 'features.npz'
    with atomic(path) as temporary, temporary.open('wb') as file:
        np.savez(file, files=np.array(names), features=np.array(rows))
    return path, unreadable


def _classes(
    files: Sequence[str], job: Job, out: Path, device: str | None, bar: ProgressBar
) -> tuple[Path, dict[str, str]]:
    inferencer = ClassificationInferencer(job.config, job.checkpoint, device)
    results: dict[str, dict] = {}
    unreadable: dict[str, str] = {}
    for batch, data in _batches(files, inferencer, bar, unreadable):
        found = inferencer.postprocess(inferencer.forward(data), [], top_k=TOP)
        results.update(zip(batch, found, strict=True))
    ranked = {
        file: result.get('top_k')
        or [{'class': result['pred_class'], 'score': result['pred_score']}]
        for file, result in results.items()
    }
    count = max((len(best) for best in ranked.values()), default=0)
    head = ['file', *(f'{word}{i}' for i in range(1, count + 1) for word in ('class', 'score'))]
    rows = [
        [file, *(cell for b in best for cell in (b['class'], f'{b["score"]:.4f}'))]
        for file, best in ranked.items()
    ]
    _table(out / 'predictions.csv', head, rows)
    _sheets(ranked, out / 'pictures', inferencer)
    return out / 'predictions.csv', unreadable


def _sheets(ranked: dict[str, list[dict]], folder: Path, inferencer: Any) -> None:
    """Pictures of all images with their class, the least certain first."""
    folder.mkdir(exist_ok=True)
    order = sorted(ranked, key=lambda file: ranked[file][0]['score'])
    for number, start in enumerate(range(0, len(order), SHEET), 1):
        chunk = order[start : start + SHEET]
        names = [path.name for path in result_names(chunk)]
        cards = [
            _card(as_picture(inferencer._read(file)['img']), name, ranked[file][0])
            for file, name in zip(chunk, names, strict=True)
        ]
        beside(cards, columns=8).save(folder / f'{number:03d}.png')


def _card(image: np.ndarray, name: str, best: dict) -> Image.Image:
    card = new_canvas(THUMBNAIL, THUMBNAIL + 40)
    picture = ImageOps.contain(Image.fromarray(image), (THUMBNAIL, THUMBNAIL))
    card.paste(picture, ((THUMBNAIL - picture.width) // 2, (THUMBNAIL - picture.height) // 2))
    write(card, (0, THUMBNAIL + 10), f'{best["class"]}  {best["score"]:.0%}')
    write(card, (0, THUMBNAIL + 28), name[-24:], size=11)
    return card


def _table(path: Path, head: Sequence[str], rows: Any) -> None:
    with atomic(path) as temporary, temporary.open('w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)
