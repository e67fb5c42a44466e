"""The options of jobs, and the record of them in a job's folder."""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from beitv2_mm.checkpoint.atomic import write_atomic
from beitv2_mm.jobs.efficientnet import TEACHER_FILE
from beitv2_mm.jobs.survey import FolderError

RECORD = 'run.json'
LISTS = {'train': 'train.txt', 'val': 'val.txt'}  # files that list the images of a segmentor
JSONS = ('train.json', 'val.json')  # of a detector


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of all trainings; None leaves the choice to the data and the machine."""

    command: ClassVar[str]

    folder: Path
    out: Path
    source: str | None = None  # --from
    epochs: int | None = None
    batch_size: int | None = None  # images of a step on each device
    image_size: int | None = None
    gpus: int | None = None
    resume: bool = False  # refuse to start a new run


@dataclass(frozen=True, kw_only=True)
class PretrainOptions(Options):
    """The options of `pretrain`."""

    command = 'pretrain'

    arch: str | None = None  # None: tiny, or that of the weights
    teacher: str = 'clip'


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(Options):
    """The options of `finetune`."""

    command = 'finetune'

    source: str
    head: Literal['full', 'linear'] = 'full'
    probe: bool = False
    scratch: bool = False
    seeds: int | None = None  # None: 3 with scratch, otherwise 1


@dataclass(frozen=True, kw_only=True)
class SegmentOptions(Options):
    """The options of `segment-train`."""

    command = 'segment-train'

    source: str


@dataclass(frozen=True, kw_only=True)
class DetectOptions(Options):
    """The options of `detect-train`."""

    command = 'detect-train'

    source: str


def is_new(options: Options, files: Iterable[Path]) -> bool:
    """Whether the configs have to be written. Those of the same command stay, edited or not.

    Raises:
        FolderError: the output folder belongs to another command, holds other files or is the
            source; or there is nothing to resume.
    """
    if options.source and options.out.resolve() == Path(options.source).resolve():
        raise FolderError('--out is --from: give the new training a folder of its own.')
    record = options.out / RECORD
    if options.resume and not record.is_file():
        raise FolderError(f'--resume, but {options.out} holds no run: leave it out to start one.')
    if record.is_file():
        before, now = json.loads(record.read_text()), _arguments(options)
        if before != now:
            changed = [f'{key} was {before.get(key)}' for key in now if before.get(key) != now[key]]
            raise FolderError(
                f'{options.out} is of another command ({", ".join(changed)}): give the same '
                'options to continue it, or another --out.'
            )
    elif options.out.exists() and {p.name for p in options.out.iterdir()} - {
        TEACHER_FILE,
        *LISTS.values(),
        *JSONS,
    }:
        raise FolderError(f'{options.out} is not empty, and not of this program: change --out.')
    return not all(path.is_file() for path in files)


def record_command(options: Options) -> None:
    """Records in the output folder which command it belongs to, once the training can start."""
    options.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_arguments(options), indent=2, ensure_ascii=False) + '\n'
    write_atomic(options.out / RECORD, text.encode())


def _arguments(options: Options) -> dict[str, object]:
    values = dataclasses.asdict(options)
    del values['out'], values['resume']
    if options.source and Path(options.source).exists():
        values['source'] = Path(options.source)
    named = {'command': options.command}
    return named | {
        key: str(value.resolve()) if isinstance(value, Path) else value
        for key, value in values.items()
    }
