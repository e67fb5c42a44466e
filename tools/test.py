"""Evaluate a checkpoint with the test set and metrics of its config."""

import argparse
import sys
from pathlib import Path

from beitv2_mm.jobs import command_line as options


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        'checkpoint', help='checkpoint file or URL: own, official, timm, mmpretrain'
    )
    options.add_common_arguments(parser)
    parser.add_argument(
        '--out',
        metavar='FILE',
        help='also write the metrics (.json) or the prediction of every sample (.pkl)',
    )
    parser.add_argument(
        '--tta', action='store_true', help='average over the scales and flips of tta_pipeline'
    )
    args = parser.parse_args()
    if args.out and Path(args.out).suffix not in ('.json', '.pkl'):
        parser.error(f'--out must end with .json (metrics) or .pkl (predictions): {args.out}')
    return args


def main() -> None:
    options.let_threads_sleep()
    args = parse_args()
    with options.quick_imports():
        import mmengine
        from mmengine.dist import is_main_process
        from mmengine.evaluator import DumpResults

        from beitv2_mm.engine import launch, switches

    try:
        cfg = launch.load_config(args.config, args.work_dir, args.cfg_options, args.launcher)
        switches.require_checkpoint(args.checkpoint)
        cfg.load_from, cfg.resume = args.checkpoint, False
        if args.tta:
            switches.set_tta(cfg)
        runner = launch.build_runner(cfg, testing=True, verbose=args.verbose)
        if args.out and args.out.endswith('.pkl'):
            runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
        with launch.extra_is_named():  # metrics are built when the test starts
            metrics = runner.test()
    except launch.USER_ERRORS as error:
        sys.exit(f'test.py: {error}')
    if args.out and args.out.endswith('.json') and is_main_process():
        mmengine.dump(metrics, args.out)
    del runner
    launch.end_processes()


if __name__ == '__main__':
    main()
