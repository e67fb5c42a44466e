"""`python -m beitv2_mm predict`: classes, masks, boxes or features of new images."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.dataset import default_collate
from mmengine.utils import ProgressBar
from PIL import Image, ImageOps

from beitv2_mm.apis import (
    ClassificationInferencer,
    DetectionInferencer,
    FeatureInferencer,
    SegmentationInferencer,
    Tagger,
    build_pixel_decoder,
    build_tokenizer,
    detect_images,
    find_images,
    reconstruct_images,
    segment_images,
    tag_images,
)
from beitv2_mm.apis.files import result_names, write_table
from beitv2_mm.checkpoint.atomic import atomic
from beitv2_mm.datasets.pixel_rules import COLOURS
from beitv2_mm.jobs.recipe_parts import resize, shipped
from beitv2_mm.jobs.recipes import CLASSIFIERS
from beitv2_mm.jobs.stages import artifact, last_checkpoint
from beitv2_mm.jobs.survey import FolderError
from beitv2_mm.jobs.weights import Weights, find_weights, finished
from beitv2_mm.models import VQKDTokenizer
from beitv2_mm.multimodal import read_words
from beitv2_mm.visualization.canvas import as_picture, beside, new_canvas, write

BATCH = 16
TOP = 5  # classes in the table
SHEET = 48  # images on a picture
THUMBNAIL = 160  # pixels


class Job(NamedTuple):
    """A finished training in a folder."""

    task: str  # 'segment', 'detect' or 'finetune'
    config: Path
    checkpoint: str


def find_job(source: Path) -> Job:
    """The segmentor, detector or classifier in a folder.

    Raises:
        FolderError: there is no finished one.
    """
    task = finished(source)
    if task is not None and task != 'pretrain':
        return Job(task, source / f'{task}.py', str(artifact(source / task)))
    if task == 'pretrain':
        raise FolderError(
            f'{source} is a pretraining, which knows no classes: add --features, or finetune first '
            f'(python -m beitv2_mm finetune CLASSES --from {source} --out OUT).'
        )
    raise FolderError(
        f'{source} holds no finished training to predict with: --from takes the --out of finetune, '
        'segment-train or detect-train. With --features it takes any weights.'
    )


def predict(
    images: Sequence[str | Path],
    source: str,
    out: Path,
    features: bool = False,
    threshold: float | None = None,
    tags: Path | None = None,
    reconstruct: bool = False,
    device: str | None = None,
    logger: logging.Logger | None = None,
) -> Path:
    """Predicts, and returns the file or folder to look at.

    A classifier writes ``predictions.csv`` and pictures, a segmentor masks as PNGs and overlays, a
    detector ``detections.csv``, ``detections.json`` and pictures, a pretraining's tokenizer, given
    words, ``tags.csv`` and pictures, a pixel decoder ``reconstructions.csv`` and pictures; features
    are in ``features.npz``, with 'files' and 'features'
    (n, D). Unreadable images are listed in ``unreadable.csv``.

    Args:
        source: the folder of a finished job; for features any weights, see `find_weights`.
        threshold: score from which a detected object counts; None for `THRESHOLD` of the detector.

    Raises:
        FolderError: there is no such job, or it only gives features, or no image can be read; or
            there is a threshold and no detector.
        FileNotFoundError: there are no images.
    """
    others = [features, tags is not None, reconstruct]
    job = None if any(others) else find_job(Path(source))
    if threshold is not None and (job is None or job.task != 'detect'):
        raise FolderError('--threshold is for the --out of detect-train.')
    if sum(others) > 1:
        raise FolderError('Give one of --features, --tags and --reconstruct.')
    weights = find_weights(source) if features else None
    files = find_images(images)
    out.mkdir(parents=True, exist_ok=True)
    bar = ProgressBar(len(files))
    unreadable: dict[str, str] = {}
    inferencer: Any
    if tags:
        tagger = Tagger(_tokenizer(Path(source), device), read_words(tags))
        unreadable = tag_images(files, tagger, out, progress=bar.update)
        result = out / 'pictures'
    elif reconstruct:
        decoder = build_pixel_decoder(*_run(Path(source)), device)
        unreadable = reconstruct_images(files, decoder, out, progress=bar.update)
        result = out / 'pictures'
    elif weights:
        inferencer = _feature_inferencer(weights, device)
        result = _write_features(_forward(files, inferencer, bar, unreadable), out)
    elif job and job.task == 'segment':
        inferencer = SegmentationInferencer(job.config, job.checkpoint, device)
        unreadable = segment_images(files, inferencer, out, progress=bar.update)
        result = out / 'overlays'
    elif job and job.task == 'detect':
        inferencer = DetectionInferencer(job.config, job.checkpoint, device)
        inferencer.threshold = inferencer.threshold if threshold is None else threshold
        unreadable = detect_images(files, inferencer, out, progress=bar.update)
        result = out / 'pictures'
    else:
        assert job
        inferencer = ClassificationInferencer(job.config, job.checkpoint, device)
        result = _write_classes(_forward(files, inferencer, bar, unreadable), inferencer, out)
    if unreadable:
        write_table(out / 'unreadable.csv', ('file', 'reason'), unreadable.items())
    if logger:
        logger.info(f'{len(files) - len(unreadable)} images, {len(unreadable)} unreadable')
    if len(unreadable) == len(files):
        raise FolderError(f'Not one image can be read, e.g. {next(iter(unreadable.values()))}')
    return result


def _forward(
    files: Sequence[str], inferencer: Any, bar: ProgressBar, unreadable: dict[str, str]
) -> dict[str, Any]:
    """The model's output for each file; files that cannot be read go to ``unreadable``."""
    outputs: dict[str, Any] = {}
    for start in range(0, len(files), BATCH):
        chunk = files[start : start + BATCH]
        prepared = {}
        for file in chunk:
            try:
                prepared[file] = inferencer._prepare(file)
            except ValueError as error:
                unreadable[file] = str(error)
        if prepared:
            data = default_collate(list(prepared.values()))
            outputs.update(zip(prepared, inferencer.forward(data), strict=True))
        bar.update(len(chunk))
    return outputs


def _run(folder: Path) -> tuple[Path, Path]:
    """The config and the last checkpoint in the work directory of a training."""
    configs, checkpoint = sorted(folder.glob('*.py')), last_checkpoint(folder)
    if len(configs) != 1 or checkpoint is None:
        raise FolderError(
            f'{folder} is no work directory of a training, with its config and a checkpoint: with '
            '--reconstruct, --from takes that of a pixel decoder (configs/generation).'
        )
    return configs[0], checkpoint


def _tokenizer(source: Path, device: str | None) -> VQKDTokenizer:
    """The tokenizer of a pretraining."""
    if finished(source, ('tokenizer',)) is None:
        raise FolderError(
            f'{source} holds no tokenizer: with --tags, --from takes the --out of pretrain. For '
            'other tokenizers there is tools/tag_images.py.'
        )
    checkpoint = artifact(source / 'tokenizer')
    tokenizer: VQKDTokenizer = build_tokenizer(checkpoint, source / 'tokenizer.py')
    return tokenizer.to(device or 'cpu')


def _feature_inferencer(weights: Weights, device: str | None) -> FeatureInferencer:
    """An inferencer whose feature is the mean patch token after the last block, normalised."""
    if weights.in_channels != COLOURS:
        raise FolderError(
            f'{weights.checkpoint} takes images of {weights.in_channels} channels, and --features '
            'reads colours: use FeatureInferencer with the config of its training.'
        )
    cfg = shipped(CLASSIFIERS['knn'])
    cfg.model.backbone.update(weights.backbone())
    resize(cfg.test_dataloader.dataset.pipeline, weights.size)
    return FeatureInferencer(cfg, weights.checkpoint, device)


def _write_features(outputs: dict[str, Any], out: Path) -> Path:
    features = np.array([output[-1].float().cpu().numpy() for output in outputs.values()])
    path = out / 'features.npz'
    with atomic(path) as temporary, temporary.open('wb') as file:
        np.savez(file, files=np.array(list(outputs)), features=features)
    return path


def _write_classes(outputs: dict[str, Any], inferencer: Any, out: Path) -> Path:
    results = inferencer.postprocess(list(outputs.values()), [], top_k=TOP)
    ranked = {
        file: result.get('top_k')
        or [{'class': result['pred_class'], 'score': result['pred_score']}]
        for file, result in zip(outputs, results, strict=True)
    }
    count = max((len(best) for best in ranked.values()), default=0)
    head = ['file', *(f'{word}{i}' for i in range(1, count + 1) for word in ('class', 'score'))]
    rows = [
        [file, *(cell for b in best for cell in (b['class'], f'{b["score"]:.4f}'))]
        for file, best in ranked.items()
    ]
    write_table(out / 'predictions.csv', head, rows)
    _sheets(ranked, out / 'pictures', inferencer)
    return out / 'predictions.csv'


def _sheets(ranked: dict[str, list[dict]], folder: Path, inferencer: Any) -> None:
    """Draws all images with their class, the least certain first."""
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
