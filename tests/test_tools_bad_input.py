"""Bad input of the tools ends with one clear line."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from support.tools import Tool

CONFIG = Path(__file__).parent / 'support/toy_config.py'


@pytest.mark.parametrize(
    ('name', 'arguments', 'message'),
    [
        ('train', ['none.py'], r'^train\.py: no such config file: none\.py$'),
        ('test', ['none.py', 'x.pth'], r'^test\.py: no such config file: none\.py$'),
        ('test', [CONFIG, 'none.pth'], r'^test\.py: no such checkpoint: none\.pth$'),
        ('train', [CONFIG, '--resume', 'none.pth'], r'^train\.py: no such checkpoint: none\.pth$'),
        (
            'train',
            [CONFIG, '--resume', '--work-dir', 'stale'],
            r'stale/epoch_7\.pth, which does not',
        ),
        ('test', [CONFIG, 'code.pth'], r'^test\.py: code\.pth holds code .*refused: \w+\.system$'),
        ('train', [CONFIG, '--resume', 'code.pth'], r'^train\.py: code\.pth holds code .*refused'),
        ('test', [CONFIG, 'other.pth'], r'of another model than ToyModel.*other\.weight \(1,\)'),
        (
            'test',
            [CONFIG, 'wider.pth'],
            r'linear\.weight \(2, 8\); expected: linear\.weight \(2, 4\)',
        ),
        (
            'train',
            [CONFIG, '--auto-scale-lr', '--cfg-options', 'auto_scale_lr=None'],
            r'needs auto_scale_lr = dict\(base_batch_size',
        ),
    ],
    ids=str,
)
def test_bad_input_ends_with_one_clear_line(
    tool: Tool, name: str, arguments: list[object], message: str
) -> None:
    Path('stale').mkdir()
    Path('stale/last_checkpoint').write_text('/gone/stale/epoch_7.pth')
    torch.save({'state_dict': {'other.weight': torch.ones(1)}}, 'other.pth')
    torch.save({'state_dict': {'linear.weight': torch.ones(2, 8)}}, 'wider.pth')
    torch.save(Call(), 'code.pth')
    with pytest.raises(SystemExit, match=message) as error:
        tool(name, *arguments)
    assert '\n' not in str(error.value)
    assert not Path('touched').exists()


class Call:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ('touch touched',)


@pytest.mark.cpu_only(reason='other devices know mixed precision')
def test_amp_without_gpu_is_explained(tool: Tool) -> None:
    with pytest.raises(SystemExit, match='--amp needs a GPU'):
        tool('train', CONFIG, '--amp')


def test_out_of_unknown_kind_is_refused(tool: Tool, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tool('test', CONFIG, 'x.pth', '--out', 'result.txt')
    assert (
        'must end with .json (metrics) or .pkl (predictions): result.txt' in capsys.readouterr()[1]
    )


@pytest.mark.parametrize(
    'name',
    ['visualize_attention', 'visualize_codes', 'tokenize_images', 'segment_images'],
)
def test_a_device_that_is_not_here(
    name: str, tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        tool(name, '--device', 'cuda:99')
    assert re.search(
        r"--device: 'cuda:99' cannot be used here \(.*such as --device cpu", capsys.readouterr().err
    )


@pytest.mark.cpu_only(reason='it asks for a GPU that is hidden')
def test_a_benchmark_of_a_device_that_is_not_here(tool: Tool) -> None:
    with pytest.raises(SystemExit, match=r"--device: 'cuda' cannot be used here .*--device cpu"):
        tool('benchmark', 'tokenizer', '--device', 'cuda')
