"""Train what a config describes: tokenizer, masked image modelling or a downstream task."""

import argparse
import sys

from beitv2_mm.jobs import command_line as options


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    options.add_common_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='PATH',
        help='continue from a checkpoint; without PATH from the last one of the work directory',
    )
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rate by the batch size, relative to the config's",
    )
    return parser.parse_args()


def main() -> None:
    options.let_threads_sleep()
    args = parse_args()
    with options.quick_imports():
        from beitv2_mm.engine import launch, switches

    try:
        cfg = launch.load_config(args.config, args.work_dir, args.cfg_options, args.launcher)
        if args.amp:
            switches.set_amp(cfg)
        if args.auto_scale_lr:
            switches.set_auto_scale_lr(cfg)
        if args.resume:
            switches.set_resume(cfg, args.resume)
        with launch.extra_is_named():  # metrics are built when training starts
            launch.build_runner(cfg, verbose=args.verbose).train()
        launch.end_processes()
    except launch.USER_ERRORS as error:
        sys.exit(f'train.py: {error}')
    except KeyboardInterrupt:  # before the first step, or of a config with another checkpoint hook
        print('train.py: interrupted; nothing was saved by that', file=sys.stderr)
        sys.exit(130)


if __name__ == '__main__':
    main()
