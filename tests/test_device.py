"""``--device``: what tests make is there; the pretended device refuses what a GPU refuses."""

import copy
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.device import get_device
from torch import nn

from beitv2_mm.apis import get_model
from beitv2_mm.apis.export import Exportable, export
from beitv2_mm.compat.mmengine_ import has_accelerator
from beitv2_mm.datasets.seeding import numpy_seed
from support.nets import classifier
from support.tiny import build_pretrainer, cifar_images


@pytest.fixture
def pretended(device: str) -> None:
    if device != 'pretend':
        pytest.skip('about the pretended device')


def test_models_and_data_of_the_tests_are_on_the_device(device: str) -> None:
    model = build_pretrainer()
    found = {t.device.type for t in (*model.parameters(), *model.buffers(), cifar_images(2))}
    assert found == {device}
    batch = model.data_preprocessor(dict(inputs=torch.zeros(2, 3, 32, 32, device='cpu')))
    assert batch['inputs'].device.type == device == get_device()
    assert has_accelerator() == (device != 'cpu')


def test_what_the_package_makes_is_where_the_package_puts_it(pretended: None) -> None:
    config = Path(__file__).parent / 'support/cls_config.py'
    for name in ('cpu', 'pretend'):
        places = {p.device.type for p in get_model(config, device=name).parameters()}
        assert places == {name}
    assert {p.device.type for p in get_model(config).parameters()} == {'cpu'}


def test_the_pretended_device_refuses_what_a_gpu_refuses(pretended: None) -> None:
    there, here = torch.ones(3), torch.ones(3, device='cpu')
    for to_numpy in (np.asarray, lambda t: t.numpy(), lambda t: np.asarray([t])):
        with pytest.raises(TypeError, match=r'Use Tensor\.cpu\(\) to copy'):
            to_numpy(there)
    for together in (torch.add, torch.equal, lambda a, b: torch.cat([a, b])):
        with pytest.raises(RuntimeError, match='on the same device, but found at least two'):
            together(there, here)
    assert torch.equal((there * here.sum()).cpu(), here * 3)  # a number may come from the CPU
    assert not torch.equal(there.cpu().fill_(2), there.cpu())  # a copy, not the same memory
    assert torch.equal(there.new_tensor(list(there)).cpu(), here)  # each number is fetched


def test_mixed_precision_and_copies_on_the_pretended_device(pretended: None) -> None:
    model, x = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), torch.ones(2, 4)
    with torch.autocast('pretend', torch.bfloat16):
        half = model[0](x)
        assert half.dtype == torch.bfloat16 and model[1](half).dtype == torch.float32
    with pytest.raises(TypeError, match='BFloat16'):
        half.detach().cpu().numpy()
    model(x).sum().backward()
    assert model[0].weight.grad.device.type == 'pretend'
    assert copy.deepcopy(model)[0].weight.device.type == 'pretend'
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    for place in ('cpu', 'pretend'):
        file.seek(0)
        assert torch.load(file, map_location=place)['0.weight'].device.type == place


def test_waits_are_counted_where_they_are_caused(pretended: None) -> None:
    from support.waits import counted_syncs

    x, mask = torch.ones(3), torch.tensor([True, False, True])
    with counted_syncs() as counter:
        x.sum().item(), x[mask], x.cpu(), x.to('cpu', non_blocking=True), x + x
    kinds = sorted(place.split(' at ')[0] for place in counter.elements())
    assert kinds == ['mask', 'scalar', 'to host']
    assert all('test_device.py:' in place for place in counter)


def test_an_export_leaves_the_model_where_it_is(tmp_path, device: str) -> None:
    model = Exportable(classifier())
    export(model, tmp_path / 'model.pt2', batch=1)
    assert {p.device.type for p in model.parameters()} == {model.mean.device.type} == {device}


def test_the_seed_of_masks_leaves_numpys_state_alone() -> None:
    np.random.seed(5)
    expected = np.random.random(3)
    np.random.seed(5)
    with numpy_seed(0):
        first = np.random.random(3)
    with numpy_seed(0):
        assert (np.random.random(3) == first).all()
    assert (np.random.random(3) == expected).all()
