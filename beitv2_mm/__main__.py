"""What is installed and what is missing; trainings on a folder of images, and what they predict.

    python -m beitv2_mm                                               # versions, what is missing
    python -m beitv2_mm pretrain photos/ --out pretrained             # no labels needed
    python -m beitv2_mm finetune classes/ --from pretrained --out classifier
    python -m beitv2_mm segment-train pairs/ --from pretrained --out segmentor
    python -m beitv2_mm detect-train boxes/ --from pretrained --out detector
    python -m beitv2_mm predict new/ --from classifier --out predictions

--from takes the folder of another training, a file of weights, or the name of a published model.
Ctrl-C stops a training, the same command continues it.
"""

import argparse
import logging
import sys
from pathlib import Path

from beitv2_mm.jobs.command_line import add_device, run_job

WEIGHTS = 'folder of a training, file of weights of any layout, or name of a published model'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m beitv2_mm',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest='command', metavar='COMMAND')
    for name, add_arguments, text in (
        ('pretrain', add_pretrain, 'train a tokenizer and pretrain a transformer on images'),
        (
            'finetune',
            add_finetune,
            'train a classifier from trained weights, on a folder for each class',
        ),
        (
            'segment-train',
            add_segment,
            'train a segmentor from trained weights, on images and masks',
        ),
        (
            'detect-train',
            add_detect,
            "train a detector from trained weights, on images and a json in COCO's layout",
        ),
        ('predict', add_predict, 'classes, masks, boxes or features of images, by a training'),
    ):
        about = f'{text[0].upper()}{text[1:]}.'
        add_arguments(commands.add_parser(name, help=text, description=about))
    return parser.parse_args()


def add_pretrain(parser: argparse.ArgumentParser) -> None:
    add_training(parser, 'images, in any subfolder, or their pack')
    parser.add_argument(
        '--arch', choices=['tiny', 'small', 'base', 'large'], help='(tiny, or that of --from)'
    )
    parser.add_argument(
        '--teacher',
        default='clip',
        metavar='NAME|PATH',
        help='clip, dino, efficientnet_lite0 (needs no download), a timm name, or a file of '
        'weights (%(default)s)',
    )
    add_source(parser, f'continue from it: {WEIGHTS}', required=False)


def add_finetune(parser: argparse.ArgumentParser) -> None:
    add_training(parser, 'a folder of images for each class, or their pack')
    parser.add_argument(
        '--head',
        choices=['full', 'linear'],
        default='full',
        help='train the whole network, or a linear layer on frozen features (%(default)s)',
    )
    parser.add_argument(
        '--probe', action='store_true', help='no training: k-nearest neighbours of the features'
    )
    parser.add_argument(
        '--scratch', action='store_true', help='train from scratch too, and compare'
    )
    parser.add_argument(
        '--seeds', type=positive, metavar='N', help='trainings of each kind (1, with --scratch 3)'
    )
    add_source(parser, WEIGHTS)


def add_segment(parser: argparse.ArgumentParser) -> None:
    add_training(
        parser, 'images/ and masks/ with the same file names; classes.txt may name the labels'
    )
    add_source(parser, WEIGHTS)


def add_detect(parser: argparse.ArgumentParser) -> None:
    add_training(parser, "images/ and a json in COCO's layout, or train and val of both")
    add_source(parser, WEIGHTS)


def add_predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('images', nargs='+', metavar='IMAGES', help='files, or folders of images')
    add_source(parser, 'folder of a training; for --features any weights')
    parser.add_argument(
        '--out', type=Path, default=Path('predictions'), metavar='DIR', help='(%(default)s)'
    )
    parser.add_argument(
        '--features', action='store_true', help='features.npz instead of classes, masks or boxes'
    )
    parser.add_argument(
        '--threshold',
        type=share,
        metavar='SCORE',
        help='least score of a detected object, 0 to 1 (0.3)',
    )
    parser.add_argument(
        '--tags',
        type=Path,
        metavar='FILE',
        help='a file of words, for images and patches; --from is then the --out of pretrain',
    )
    parser.add_argument(
        '--reconstruct',
        action='store_true',
        help='images beside what their codes keep; --from is then the work directory of a pixel '
        'decoder',
    )
    add_device(parser)


def add_source(parser: argparse.ArgumentParser, text: str, required: bool = True) -> None:
    parser.add_argument('--from', dest='source', required=required, metavar='X', help=text)


def add_training(parser: argparse.ArgumentParser, folder: str) -> None:
    """Options of all trainings."""
    parser.add_argument('folder', type=Path, metavar='FOLDER', help=folder)
    parser.add_argument(
        '--out', type=Path, required=True, metavar='DIR', help='configs, checkpoints, report'
    )
    for name, text in (
        ('epochs', 'instead of a choice by the data'),
        ('batch-size', 'of each device, instead of a choice by data and memory'),
        ('image-size', 'pixels, instead of a choice by data and weights'),
        ('gpus', 'that train together (1)'),
    ):
        parser.add_argument(f'--{name}', type=positive, metavar='N', help=text)
    parser.add_argument(
        '--resume', action='store_true', help='fail where --out holds nothing to continue'
    )


def positive(text: str) -> int:
    """A number of epochs, images, ..."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'a number from 1 on was expected, not {text!r}')
    return int(text)


def share(text: str) -> float:
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'a number from 0 to 1 was expected, not {text!r}')
    return value


def main() -> None:
    arguments = vars(parse_args())
    command = arguments.pop('command')
    if command is None:
        from beitv2_mm.compat.environment import describe

        sys.stdout.write(describe() + '\n')
        return

    def job(logger: logging.Logger) -> Path:
        from beitv2_mm import jobs  # imports what --help can spare

        if command == 'pretrain':
            return jobs.pretrain(jobs.PretrainOptions(**arguments), logger)
        if command == 'finetune':
            return jobs.finetune(jobs.FinetuneOptions(**arguments), logger)
        if command == 'segment-train':
            return jobs.segment_train(jobs.SegmentOptions(**arguments), logger)
        if command == 'detect-train':
            return jobs.detect_train(jobs.DetectOptions(**arguments), logger)
        return jobs.predict(**arguments, logger=logger)

    run_job(command, job, outcome='result' if command == 'predict' else 'report')


if __name__ == '__main__':
    main()
