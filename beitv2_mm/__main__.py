"""What is installed and what is missing; pretraining and fine-tuning on a folder of images.

    python -m beitv2_mm                                              # versions, what is missing
    python -m beitv2_mm pretrain photos/ --out pretrained            # no labels needed
    python -m beitv2_mm finetune classes/ --from pretrained --out classifier

Ctrl-C stops a training, the same command continues it.
"""

import argparse
import signal
import sys
from pathlib import Path

from beitv2_mm.environment import describe


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m beitv2_mm',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest='command', metavar='{pretrain,finetune}')
    pretrain = commands.add_parser(
        'pretrain',
        help='train a tokenizer and pretrain a transformer on a folder of images',
        description='Train a tokenizer and pretrain a transformer on a folder of images.',
    )
    finetune = commands.add_parser(
        'finetune',
        help='train a classifier from a pretraining, on a folder of images for each class',
        description='Train a classifier from a pretraining, on a folder of images for each class.',
    )
    for command in (pretrain, finetune):
        command.add_argument(
            'folder', type=Path, metavar='FOLDER', help='images, in any subfolder, or their pack'
        )
        command.add_argument(
            '--out', type=Path, required=True, metavar='DIR', help='configs, checkpoints, report'
        )
        command.add_argument(
            '--epochs', type=positive, metavar='N', help='instead of a choice by the data'
        )
    pretrain.add_argument(
        '--arch', choices=['tiny', 'small', 'base', 'large'], default='tiny', help='(%(default)s)'
    )
    pretrain.add_argument(
        '--teacher',
        default='clip',
        metavar='NAME|PATH',
        help='clip, dino, efficientnet_lite0 (needs no download), a timm name, or a file of '
        'weights (%(default)s)',
    )
    finetune.add_argument(
        '--from', dest='source', type=Path, required=True, metavar='DIR', help="pretrain's --out"
    )
    return parser.parse_args()


def positive(text: str) -> int:
    """A number of epochs."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'a number from 1 on was expected, not {text!r}')
    return int(text)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    arguments = vars(parse_args())
    command = arguments.pop('command')
    if command is None:
        sys.stdout.write(describe() + '\n')
        return
    from mmengine.logging import MMLogger

    from beitv2_mm import folder  # imports what --help can spare

    logger = MMLogger.get_instance(command, logger_name=command)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        if command == 'pretrain':
            page = folder.pretrain(folder.PretrainOptions(**arguments), logger)
        else:
            page = folder.finetune(folder.FinetuneOptions(**arguments), logger)
    except KeyboardInterrupt:
        logger.warning('interrupted: run the same command again to continue')
        sys.exit(130)
    except (ImportError, OSError, RuntimeError, ValueError, KeyError) as error:
        sys.exit(f'{command}: {error}')
    logger.info(f'report: {page.resolve()}')


if __name__ == '__main__':
    main()
