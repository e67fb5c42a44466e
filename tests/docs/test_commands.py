"""Every command of every page: its arguments parse, its config takes the options, and what can run
in seconds runs, made small.

CONFIG, CHECKPOINT, photos/ and the like stand for the reader's own; tiny ones take their place.
"""

import argparse
import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmpretrain.utils.dependency import WITH_MULTIMODAL
from torch.distributed.run import get_args_parser

import beitv2_mm
from beitv2_mm.checkpoint import write
from beitv2_mm.engine import launch
from beitv2_mm.models import BEiTV2Backbone
from support.markdown import ROOT, Command, commands
from support.option_keys import is_known
from support.shrink import shrink, take_ten_classes
from support.shrink_mmpretrain import shrink_mmpretrain
from support.tiny import CIFAR
from support.tools import run_tool

pytestmark = pytest.mark.not_pretended(reason='it runs in processes of its own')

COMMANDS = commands()
TOKENIZER = ROOT / 'tests/support/vqkd_config.py'
# Programs that are there or not, without arguments of ours.
OTHERS = ('.', 'apt-get', 'git', 'mim', 'pre-commit', 'pytest', 'ruff', 'sphinx-build')
# Own tests run these; here they would download, or train for minutes.
LONG = (
    'quickstart', 'prepare_ade20k', 'prepare_cifar10', 'prepare_coco', 'prepare_composites',
    'benchmark', 'embed_words', 'generate_images', 'prepare_captions', 'tag_images',
)  # fmt: skip


class ParsedError(Exception):
    """Carries what a tool understood, and keeps it from doing it."""


def argument(words: list[str]) -> list[str]:
    """A program's words after ``python [-u]``: a tool's path, or -m and a module, and arguments."""
    assert words[0] in ('python', 'python3'), words
    return [word for word in words[1:] if word != '-u']


def parse(words: list[str], monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace | None:
    """What the program makes of its arguments; SystemExit where it refuses them."""
    original = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, *args: object) -> None:
        raise ParsedError(original(self, *args))

    program, *arguments = argument(words)
    if program == '-c':
        return None
    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, 'parse_args', stop)
        try:
            if program == '-m':
                module, *arguments = arguments
                if module == 'venv':
                    return None
                assert module == 'beitv2_mm', f'teach this test to read python -m {module}'
                patch.setattr(sys, 'argv', [module, *arguments])
                runpy.run_module(module, run_name='__main__', alter_sys=True)
            else:
                patch.setattr(sys, 'argv', [program, *arguments])
                patch.syspath_prepend(str((ROOT / program).parent))
                runpy.run_path(str(ROOT / program), run_name='__main__')
        except ParsedError as parsed:
            return parsed.args[0]
    raise AssertionError(f'{program} reads no arguments')


def unfold(command: Command, folder: Path) -> list[str]:
    """What a shell script of tools/ starts in the end; other commands as they are.

    In place of python and srun stand programs that write down how they are called.
    """
    words = list(command.words)
    if words[0] == 'torchrun':
        called = get_args_parser().parse_args(words[1:])
        return ['python', called.training_script, *called.training_script_args]
    if words[0] != 'bash':
        return words
    for name in ('python', 'srun'):
        recorder = folder / name
        recorder.write_text(
            f'#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n'
        )
        recorder.chmod(0o755)
    environment = os.environ | command.environment | {'PATH': f'{folder}:{os.environ["PATH"]}'}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    called = json.loads(done.stdout)
    tool = next(i for i, word in enumerate(called) if re.search(r'tools/\w+\.py$', word))
    return ['python', *called[tool:]]


@pytest.fixture(autouse=True)
def modules_are_kept() -> Iterator[None]:
    modules = sys.modules.copy()
    yield
    sys.modules.update(modules)  # run_module takes __main__ out


@pytest.mark.parametrize('command', COMMANDS, ids=str)
def test_command_is_understood(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = unfold(command, tmp_path)
    if words[0] == 'pip':
        extras_exist(words)
    elif words[0] in ('python', 'python3'):
        args = parse(words, monkeypatch)
        config = str(getattr(args, 'config', None) or getattr(args, 'model', None) or '')
        if config.startswith('configs/'):
            options_exist(config, getattr(args, 'cfg_options', None))
        elif config.startswith(('beitv2_', 'vqkd_')):
            assert config in beitv2_mm.list_models(), config
        for word in words:
            if '_patch16_224_pt1k' in word and word.endswith('.pth'):
                assert Path(word).stem in beitv2_mm.list_models(), word
    else:
        assert words[0] in OTHERS, f'{command}: teach this test to check {words[0]}'


def extras_exist(words: list[str]) -> None:
    for extras in re.findall(r'\[(.+)\]', ' '.join(words)):
        known = set(re.findall(r"^        '(\w+)': \w+,$", (ROOT / 'setup.py').read_text(), re.M))
        assert set(extras.split(',')) <= known, (extras, known)


def options_exist(path: str, options: dict | None) -> None:
    config = Config.fromfile(ROOT / path)
    for key in options or {}:
        assert is_known(config, key), f'{path} has no {key}'


def test_mistakes_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wrong = ['python', 'tools/train.py', 'c.py', '--no-such-option']
    with pytest.raises(SystemExit):
        parse(wrong, monkeypatch)
    with pytest.raises(AssertionError, match='usage'):
        unfold(Command('', {}, ('bash', 'tools/dist_train.sh', 'c.py')), tmp_path)
    with pytest.raises(AssertionError, match='has no'):
        options_exist('configs/pretrain/beitv2_tiny_1xb32_cifar10.py', {'model.bakbone.arch': 1})


def program(command: Command) -> str:
    """Name of the tool that a command starts, ``-m`` for the package itself."""
    joined = ' '.join(command.words)
    found = re.search(r'tools/(?:dist_|slurm_)?(\w+)\.(?:py|sh)', joined)
    if found:
        return found[1]
    return joined.removeprefix('python ') if joined == 'python -m beitv2_mm' else ''


def work(command: Command) -> tuple[str, ...]:
    """The same for commands that come to the same run once they are small."""
    if program(command) in ('train', 'test'):
        words = (word.split('=')[0] for word in command.words if 'data_root=' not in word)
        return (program(command), *(w for w in words if '.' in w and 'tools/' not in w))
    return command.words


RUN = list({work(c): c for c in COMMANDS if program(c) and program(c) not in LONG}.values())


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """`run_tool` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return run_tool


@pytest.mark.parametrize('command', RUN, ids=str)
def test_command_runs(
    command: Command,
    run: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tool = program(command)
    if tool.startswith('-m'):
        monkeypatch.setattr(sys, 'argv', ['beitv2_mm'])
        runpy.run_module('beitv2_mm', run_name='__main__', alter_sys=True)
        assert 'mmengine' in capsys.readouterr().out
        return
    words = argument(unfold(command, tmp_path))[1:]
    if tool in ('train', 'test'):
        run_config(tool, words, run, monkeypatch, tmp_path)
        return
    stand_ins(words, tool, tmp_path)
    made = [tmp_path / words[i + 1] for i, w in enumerate(words) if w in ('--out', '--output_dir')]
    run(tool, *words)
    assert all(path.exists() for path in made)


def run_config(
    tool: str,
    words: list[str],
    run: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
) -> None:
    """The command's config and options, made small, through the real tool."""
    args = parse(['python', f'tools/{tool}.py', *words], monkeypatch)
    assert args is not None
    if not args.config.startswith('configs/'):
        args.config = 'configs/classification/beitv2_base_8xb128_eval_in1k.py'
        if tool == 'train':
            args.config = 'configs/classification/beitv2_tiny_1xb32_8e_cifar10.py'
    cfg = launch.load_config(str(ROOT / args.config), options=args.cfg_options)
    if cfg.default_scope == 'mmpretrain':
        if not WITH_MULTIMODAL:
            pytest.skip('needs a transformers that mmpretrain knows')
        shrink_mmpretrain(cfg, folder)
    else:
        shrink(cfg, folder, iterations=1)
    for i, step in enumerate(cfg['tta_pipeline'][1].transforms[0] if 'tta_pipeline' in cfg else ()):
        step.scale = (32 + 16 * i, 16 + 8 * i)
    if tool == 'train':
        take_ten_classes(cfg)
    if (
        'compile' in cfg.default_hooks and cfg.default_hooks.compile.enabled
    ):  # Inductor would take a minute for its C++
        cfg.default_hooks.compile.update(backend='aot_eager', strict=True)
    cfg.dump(folder / 'small.py')
    flags = [w for w in ('--resume', '--auto-scale-lr', '--tta') if w in words]
    if tool == 'train':
        run('train', 'small.py', '--work-dir', 'work', *flags)
        assert list(Path('work').glob('*_1.pth'))
        return
    model = MODELS.build(cfg.model)
    torch.save({'state_dict': model.state_dict()}, 'small.pth')
    run('test', 'small.py', 'small.pth', '--work-dir', 'work', '--out', 'metrics.json', *flags)
    assert json.loads(Path('metrics.json').read_text())


def stand_ins(words: list[str], tool: str, folder: Path) -> None:
    """Puts tiny things in the place of what the reader has."""
    for i, word in enumerate(words):
        if word == 'photos/':
            words[i] = str(CIFAR / 'cat')
        elif word in ('photo.jpg', 'cat.jpg'):
            words[i] = str(next(CIFAR.glob('*/*.png')))
    if tool in ('tokenize_images', 'visualize_codes', 'export_model'):
        torch.manual_seed(0)
        config = Config.fromfile(TOKENIZER)
        model = MODELS.build({**config.model.to_dict(), 'teacher': None})
        model.init_weights()
        write(model.state_dict(), folder / 'tokenizer.pth')
    if tool in ('tokenize_images', 'visualize_codes'):
        replace(words, '--tokenizer', folder / 'tokenizer.pth')
        replace(words, '--config', TOKENIZER)
        if tool == 'tokenize_images':
            replace(words, '--num-workers', 0)
    elif tool == 'export_model':
        if 'CONFIG' not in words:
            pytest.skip('a published model of full size; tests/test_export.py exports small ones')
        words[words.index('CONFIG')] = str(TOKENIZER)
        replace(words, '--checkpoint', folder / 'tokenizer.pth')
    elif tool == 'visualize_attention':
        weights('tiny', folder / 'weights.pth')
        replace(words, '--model', 'tiny')
        if '--pretrained_weights' in words:
            replace(words, '--pretrained_weights', folder / 'weights.pth')
        else:
            replace(words, '--input_size', 64)
    elif tool == 'convert_checkpoint':
        weights('tiny', folder / 'weights.pth')
        words[0] = str(folder / 'weights.pth')
    elif tool == 'segment_images':
        path = ROOT / 'configs/segmentation/beitv2_base_8xb2_160k_ade20k_512.py'
        cfg = shrink(Config.fromfile(path), folder, iterations=1)
        cfg.dump(folder / 'small.py')
        torch.save({'state_dict': MODELS.build(cfg.model).state_dict()}, folder / 'small.pth')
        replace(words, '--config', folder / 'small.py')
        replace(words, '--checkpoint', folder / 'small.pth')
    elif tool == 'visualize_run':
        record = folder / words[0] / '20260101_000000/vis_data/scalars.json'
        record.parent.mkdir(parents=True)
        record.write_text('{"loss": 1.0, "lr": 0.1, "iter": 1, "step": 1, "epoch": 1}\n')


def weights(arch: str, file: Path) -> None:
    torch.manual_seed(0)
    model = BEiTV2Backbone(arch, position='layerwise')
    model.init_weights()
    write(model.state_dict(), file)


def replace(words: list[str], option: str, value: object) -> None:
    if option in words:
        words[words.index(option) + 1] = str(value)
    else:
        words += [option, str(value)]


def test_there_are_commands() -> None:
    """The parser has not gone blind."""
    assert len(COMMANDS) > 40 and len(RUN) > 25
    assert find_spec('beitv2_mm') is not None
