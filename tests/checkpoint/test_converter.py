"""Converting there and back is exact, and tools/convert_checkpoint.py reports what it did."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from beitv2_mm.checkpoint import CheckpointError, convert, convert_file, load, read, write
from golden.golden import load as golden
from support import nets
from support.tools import run_tool

ROOT = Path(__file__).parents[2]


def assert_equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert value.dtype == right[name].dtype and torch.equal(value.cpu(), right[name].cpu()), (
            name
        )


@pytest.mark.parametrize('case', ['backbone_layerwise_bias', 'mim_shared_head'])
@pytest.mark.parametrize('to', ['beitv2_mm', 'mmpretrain'])
def test_official_there_and_back(case: str, to: str) -> None:
    weights = {k: torch.as_tensor(v) for k, v in golden(case).state_dict().items()}
    there = convert(weights, to)
    assert not there.dropped
    back = convert(there.state_dict, 'official')
    assert not back.dropped
    made = [name for name in back.state_dict if name not in weights]
    assert made and all(name.endswith('relative_position_index') for name in made)
    assert_equal(weights, {name: back.state_dict[name] for name in weights})
    # with the index tensors that official files hold, nothing differs at all
    assert_equal(
        back.state_dict, convert(convert(back.state_dict, to).state_dict, 'official').state_dict
    )


def test_the_moving_average_is_found_by_wrapper_and_by_prefix(tmp_path: Path) -> None:
    plain, average = (nets.backbone().state_dict() for _ in range(2))
    average = {name: value + 1.0 for name, value in average.items()}
    by_prefix = {f'model.{k}': v for k, v in plain.items()}
    by_prefix |= {f'model_ema.{k}': v for k, v in average.items()}
    for saved in ({'model': plain, 'model_ema': average}, by_prefix):
        torch.save(saved, tmp_path / 'saved.pth')
        for ema, expected in ((False, plain), (True, average)):
            convert_file(tmp_path / 'saved.pth', tmp_path / 'out.pth', 'beitv2_mm', ema=ema)
            assert_equal(read(tmp_path / 'out.pth'), expected)
    torch.save(plain, tmp_path / 'saved.pth')
    with pytest.raises(CheckpointError, match='no moving average'):
        convert_file(tmp_path / 'saved.pth', tmp_path / 'out.pth', 'beitv2_mm', ema=True)


@pytest.mark.parametrize(
    ('build', 'formats'),
    [
        (nets.classifier, ('official', 'timm', 'mmpretrain')),
        (nets.backbone, ('official', 'timm', 'mmpretrain')),
        (nets.pretrainer, ('official', 'mmpretrain')),
        (lambda: nets.pretrainer(aggregation=False), ('official', 'mmpretrain')),
        (lambda: nets.pretrainer(separate=True), ('official',)),
    ],
    ids=['classifier', 'backbone', 'pretrainer', 'without_aggregation', 'separate_head'],
)
@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_own_there_and_back(
    tmp_path: Path, build: Callable[[], nn.Module], formats: tuple[str, ...], suffix: str
) -> None:
    weights = build().state_dict()
    for to in formats:
        there, back = tmp_path / f'{to}.{suffix}', tmp_path / f'back.{suffix}'
        assert not convert_file(weights, there, to).dropped
        assert not convert_file(there, back, 'beitv2_mm').dropped
        assert_equal(read(back), weights)
    assert len(list(tmp_path.iterdir())) == len(formats) + 1  # no temporary file stays


def test_tokenizer_there_and_back() -> None:
    ours = nets.tokenizer()
    ours.quantize.initialized.fill_(True)
    ours.quantize.cluster_size.uniform_()
    weights = ours.state_dict()
    official = convert(weights, 'official')
    assert official.dropped == ['quantize.idle_steps']
    assert official.state_dict['quantize.embedding.initted'].tolist() == [1.0]
    # the reference loads its tokenizer strictly, so its unused tensors have to be there
    assert {'quantize.embedding.embed_avg', 'quantize.embedding.cluster_size'} <= set(
        official.state_dict
    )
    back = convert(official.state_dict, 'beitv2_mm')
    assert not back.dropped
    assert_equal(back.state_dict, {k: v for k, v in weights.items() if k != 'quantize.idle_steps'})
    fresh = nets.tokenizer(seed=3)
    report = load(fresh, official.state_dict)
    assert report.missing == ['quantize.idle_steps'] and not report.unexpected
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(fresh.get_codes(image), ours.get_codes(image))

    there = convert(weights, 'mmpretrain')  # has neither decoder nor idle steps
    assert all(n.startswith(('decode', 'quantize.idle_steps')) for n in there.dropped)
    kept = convert(there.state_dict, 'beitv2_mm').state_dict
    assert_equal(kept, {name: weights[name] for name in weights if name not in there.dropped})


def test_another_grid() -> None:
    conversion = convert(nets.pretrainer().state_dict(), 'timm', grid=(6, 8))
    assert {row.action for row in conversion.rows if 'bias_table' in row.target} == {'resized'}
    model = nets.backbone(seed=3, img_size=(96, 128), final_norm=True)
    assert load(model, conversion.state_dict).resized == {}
    back = convert(conversion.state_dict, 'official', source_grid=(6, 8))
    assert back.state_dict['blocks.0.attn.relative_position_index'].shape == (49, 49)
    with pytest.raises(CheckpointError, match='not square'):
        convert(conversion.state_dict, 'official')


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    monkeypatch.chdir(tmp_path)
    return partial(run_tool, 'convert_checkpoint')


def test_tool_prints_a_table(tool: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    write(nets.pretrainer().state_dict(), 'mim.pth', wrapper='state_dict')
    tool('mim.pth', 'timm.safetensors', '--to', 'timm', '--grid', '6', '6')
    lines = [' '.join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert 'pretraining -> timm' in lines
    assert '3 renamed backbone.blocks.*.mlp.fc1.weight blocks.*.mlp.fc1.weight (64, 32)' in lines
    assert (
        '3 resized backbone.rel_pos_bias.relative_position_bias_table '
        'blocks.*.attn.relative_position_bias_table (124, 4)'
    ) in lines
    assert '1 dropped head.lm_head.weight - (24, 32)' in lines
    assert 'blocks.0.norm1.bias' in read('timm.safetensors')


def test_tool_explains_mistakes(tool: Callable[..., None]) -> None:
    write({'weight': torch.zeros(1)}, 'other.pth')
    Path('old.pth').write_text('precious')
    for arguments, message in (
        (('none.pth', 'x.pth'), r'^convert_checkpoint\.py: There is no checkpoint none\.pth'),
        (('other.pth', 'old.pth'), r"no weights of BEiT v2: \['weight'\]"),
    ):
        with pytest.raises(SystemExit, match=message):
            tool(*arguments, '--to', 'official')
    assert Path('old.pth').read_text() == 'precious'
    write(nets.backbone().state_dict(), 'good.pth')
    with pytest.raises(SystemExit, match=r'nowhere/x\.pth cannot be written: No such file'):
        tool('good.pth', 'nowhere/x.pth', '--to', 'official')
    assert sorted(path.name for path in Path().iterdir()) == ['good.pth', 'old.pth', 'other.pth']


def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / 'weights.pth'
    path.write_text('precious')

    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, 'save', interrupted)
    with pytest.raises(KeyboardInterrupt):
        write({'weight': torch.zeros(1)}, path)
    assert path.read_text() == 'precious' and list(tmp_path.iterdir()) == [path]
