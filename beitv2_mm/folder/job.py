"""`python -m beitv2_mm pretrain` and `finetune`: survey, configs, trainings, report."""

import dataclasses
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from beitv2_mm.datasets.pixel_rules import COLOURS
from beitv2_mm.files import write_atomic
from beitv2_mm.folder import recipes
from beitv2_mm.folder.choices import Machine, Schedule, Size, image_size, schedule, this_machine
from beitv2_mm.folder.outcome import finetuning_report, pretraining_report
from beitv2_mm.folder.survey import FolderError, Survey, require_classes, survey
from beitv2_mm.folder.teachers import find_teacher
from beitv2_mm.paths import config_root
from beitv2_mm.quickstart.settings import FINETUNE_METRICS, PRETRAIN_METRICS, TOKENIZER_METRICS
from beitv2_mm.quickstart.stages import Stage, Stages, artifact, run_config
from beitv2_mm.quickstart.teacher import TEACHER_FILE
from beitv2_mm.visualization.report import Report, log_table, write_report

RECORD = 'run.json'


@dataclass(frozen=True)
class PretrainOptions:
    """The command line of `pretrain`."""

    folder: Path
    out: Path
    arch: str = 'tiny'
    teacher: str = 'clip'
    epochs: int | None = None


@dataclass(frozen=True)
class FinetuneOptions:
    """The command line of `finetune`; ``source`` is the out of a `pretrain`."""

    folder: Path
    source: Path
    out: Path
    epochs: int | None = None


def pretrain(options: PretrainOptions, logger: logging.Logger) -> Path:
    """Train a tokenizer and pretrain with it; what is done already is skipped. Returns the page.

    Raises:
        FolderError: the folder, teacher or out cannot be used.
        StageError: a training failed.
    """
    root = config_root()
    files = {name: options.out / f'{name}.py' for name in ('tokenizer', 'pretrain')}
    if _is_new(options, files.values()):
        found = survey(options.folder)
        _log_survey(found, logger)
        machine, size = this_machine(), image_size(found.short_side)
        left = found.num_images - max(1, min(2000, found.num_images // 10))
        third = options.epochs and max(1, options.epochs // 3)
        plans = {
            name: schedule(name, left, options.arch, size, machine, epochs)
            for name, epochs in (('tokenizer', third), ('pretrain', options.epochs))
        }
        teacher = find_teacher(options.teacher, options.out, size.grid)
        last = options.out.resolve() / f'tokenizer/epoch_{plans["tokenizer"].epochs}.pth'
        common = (root, found, options.arch, size, teacher)
        configs = {
            'tokenizer': recipes.tokenizer(*common, plans['tokenizer'], machine),
            'pretrain': recipes.pretrain(*common, last, plans['pretrain'], machine),
        }
        _record(options)
        for name, path in files.items():
            about = _about(name, options.folder, path, root, size, plans[name], machine)
            recipes.write(configs[name], path, about)
    metrics = {'tokenizer': TOKENIZER_METRICS, 'pretrain': PRETRAIN_METRICS}
    stages = _train(options.out, root, files, metrics, logger)
    return _report(pretraining_report(stages.results, files, options.folder), options.out, logger)


def finetune(options: FinetuneOptions, logger: logging.Logger) -> Path:
    """Fine-tune a classifier on folders of images; what is done already is skipped. Returns the
    page.

    Raises:
        FolderError: the folder, source or out cannot be used.
        StageError: the training failed.
    """
    root, path = config_root(), options.out / 'finetune.py'
    found = survey(options.folder, with_label=True)
    require_classes(found)
    if options.out.resolve() == options.source.resolve():
        raise FolderError('--out is --from: give the classifier a folder of its own.')
    if _is_new(options, [path]):
        source, checkpoint = _pretrained(options.source)
        seen = source.model.backbone.get('in_channels', COLOURS)
        if seen != found.channels:
            raise FolderError(
                f'{options.folder} has images of {found.channels} channels, but {options.source} '
                f'was pretrained on images of {seen}: give a folder of those, or pretrain on this '
                'one.'
            )
        white = source.train_dataloader.dataset.get('white')
        if found.white is not None and white is not None:  # as in the pretraining, if it holds
            found = dataclasses.replace(found, white=max(found.white, white))
        _log_survey(found, logger)
        machine, backbone = this_machine(), source.model.backbone
        held_out = max(1, min(50, min(found.classes.values()) // 5))
        left = found.num_images - held_out * len(found.classes)
        size = Size(backbone.img_size, backbone.patch_size)
        plan = schedule('finetune', left, backbone.arch, size, machine, options.epochs)
        cfg = recipes.finetune(root, found, source, checkpoint, held_out, plan, machine)
        _record(options)
        about = _about('finetune', options.folder, path, root, size, plan, machine)
        recipes.write(cfg, path, about)
    stages = _train(options.out, root, {'finetune': path}, {'finetune': FINETUNE_METRICS}, logger)
    report = finetuning_report(stages.results, path, found, options.source)
    return _report(report, options.out, logger)


def _pretrained(source: Path) -> tuple[Config, Path]:
    """Config and checkpoint of a finished pretraining."""
    path, folder = source / 'pretrain.py', source / 'pretrain'
    if not path.is_file() or not (folder / 'done.json').is_file():
        raise FolderError(
            f'{source} holds no finished pretraining. Make one first: '
            f'python -m beitv2_mm pretrain FOLDER --out {source}'
        )
    return Config.fromfile(path), artifact(folder).resolve()


def _is_new(options: PretrainOptions | FinetuneOptions, files: Iterable[Path]) -> bool:
    """Whether the configs have to be written. Those of the same command stay, edited or not.

    Raises:
        FolderError: the folder is another command's, or not ours.
    """
    record = options.out / RECORD
    if record.is_file():
        before, now = json.loads(record.read_text()), _arguments(options)
        if before != now:
            changed = [f'{key} was {before.get(key)}' for key in now if before.get(key) != now[key]]
            raise FolderError(
                f'{options.out} is of another command ({", ".join(changed)}): give the same '
                'options to continue it, or another --out.'
            )
    elif options.out.exists() and {p.name for p in options.out.iterdir()} - {TEACHER_FILE}:
        raise FolderError(f'{options.out} is not empty, and not of this program: change --out.')
    return not all(path.is_file() for path in files)


def _record(options: PretrainOptions | FinetuneOptions) -> None:
    """Say whose the folder is, once nothing stands against the training."""
    options.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_arguments(options), indent=2, ensure_ascii=False) + '\n'
    write_atomic(options.out / RECORD, text.encode())


def _arguments(options: PretrainOptions | FinetuneOptions) -> dict[str, object]:
    values = dataclasses.asdict(options)
    del values['out']
    return {
        key: str(value.resolve()) if isinstance(value, Path) else value
        for key, value in values.items()
    }


def _log_survey(found: Survey, logger: logging.Logger) -> None:
    classes = f', {len(found.classes)} folders' if found.classes else ''
    kind = '' if found.channels == COLOURS else f', {found.channels} channels'
    white = '' if found.white is None else f', white is {found.white:g}'
    logger.info(
        f'{found.num_images} images{classes}, {found.short_side} px on the short side{kind}{white}'
    )


def _about(
    task: str, folder: Path, path: Path, root: Path, size: Size, plan: Schedule, machine: Machine
) -> str:
    """The head of a config: what was chosen, and why."""
    what = {
        'tokenizer': 'Visual tokenizer',
        'pretrain': 'Masked image modelling',
        'finetune': 'Classifier',
    }[task]
    memory = f'a GPU of {machine.gpu_memory / 2**30:.0f} GiB' if machine.gpu_memory else 'CPU'
    return (
        f'{what} on {folder.resolve()}, written by python -m beitv2_mm.\n\n'
        f'Chosen for this folder and machine ({memory}, {machine.cores} cores): images of '
        f'{size.pixels} px in\npatches of {size.patch} px, batch size {plan.batch}, '
        f'{plan.epochs} epochs of {plan.steps} steps.\n'
        f'Run again, edited or not:\n'
        f'    python {root / "tools/train.py"} {path.resolve()}'
    )


def _train(
    out: Path,
    root: Path,
    files: Mapping[str, Path],
    metrics: Mapping[str, Sequence[str]],
    logger: logging.Logger,
) -> Stages:
    stages = Stages(out, logger)

    def action(name: str) -> Callable[[Path], dict[str, float]]:
        return lambda folder: run_config(root, files[name], folder, metrics[name], logger)

    done: list[str] = []
    for name, path in files.items():
        content = Config.fromfile(path).to_dict()
        stages.run(Stage(name, content, action(name), list(done)))
        done.append(name)
    return stages


def _report(report: Report, out: Path, logger: logging.Logger) -> Path:
    log_table(report, logger)
    return write_report(report, out)
