import math
import os

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmpretrain.structures import DataSample
from torch import distributed, multiprocessing

from beitv2_mm.engine import MIMMetric, TokenizerMetric, codebook_statistics


def sample(codes, cosine=0.5, target=None):
    if target is None:
        target = torch.eye(3)[: len(codes)]
    return dict(pred_codes=torch.tensor(codes), cosine=torch.tensor(cosine), target=target)


def test_codebook_statistics():
    even = codebook_statistics(torch.ones(8))
    assert even == {'codebook_usage': 100.0, 'perplexity': pytest.approx(8), 'unused_codes': 0}
    one = codebook_statistics(torch.tensor([0, 5, 0, 0]))
    assert one == {'codebook_usage': 25.0, 'perplexity': pytest.approx(1), 'unused_codes': 3}
    shares = torch.tensor([0.5, 0.25, 0.25, 0.0])
    assert math.log2(codebook_statistics(7 * shares)['perplexity']) == pytest.approx(1.5)
    assert codebook_statistics(torch.zeros(4))['unused_codes'] == 4
    rare = torch.tensor([100.0, 100.0, 100.0, 0.1])
    assert codebook_statistics(rare)['unused_codes'] == 0
    assert codebook_statistics(rare, min_share=0.01)['unused_codes'] == 1


def test_tokenizer_metric_in_an_evaluator():
    evaluator = Evaluator([dict(type='beitv2_mm.TokenizerMetric', num_codes=4)])
    for codes, cosine in (([0, 1, 1, 0], 0.25), ([0, 0, 1, 1], 0.75)):
        data_sample = DataSample()
        data_sample.set_field(torch.tensor(codes), 'pred_codes')
        data_sample.set_field(torch.tensor(cosine), 'cosine')
        data_sample.set_field(torch.eye(4), 'target')
        evaluator.process([data_sample])
    assert evaluator.evaluate(2) == {
        'cosine': pytest.approx(0.5),
        'cosine_constant': pytest.approx(1.0),  # the targets of a position are all equal
        'codebook_usage': 50.0,
        'perplexity': pytest.approx(2),
        'unused_codes': 2,
    }


def test_metric_starts_afresh_and_keeps_no_list():
    metric = TokenizerMetric(4, prefix='val')
    for _ in range(100):
        metric.process(None, [sample([0, 1])])
    assert not metric.results
    assert metric.evaluate(100)['val/unused_codes'] == 2
    metric.process(None, [sample([3], 1.0)])
    assert metric.evaluate(1)['val/cosine'] == 1.0


def test_size_cuts_off_padding():
    metric = TokenizerMetric(4)
    metric.process(None, [sample([0], 0.0), sample([1], 1.0), sample([0], 0.0)])
    assert metric.evaluate(2)['cosine'] == 0.5


def test_mim_metric():
    metric = MIMMetric(prefix='mim')
    for accuracy in (25.0, 75.0):
        metric.process(
            None,
            [dict(accuracy_main=accuracy, loss_main=torch.tensor(2.0), gt_label=torch.ones(1))],
        )
    assert metric.evaluate(2) == {'mim/accuracy_main': 50.0, 'mim/loss_main': 2.0}


def test_cosine_constant_is_what_the_best_constant_reaches():
    targets = torch.randn(6, 5, 3) + torch.tensor([2.0, 0.0, 0.0])
    targets = torch.nn.functional.normalize(targets, dim=-1)
    metric = TokenizerMetric(4)
    metric.process(None, [sample([0] * 5, target=target) for target in targets])
    host = targets.cpu().double().numpy()
    constant = host.mean(axis=0)
    constant /= np.linalg.norm(constant, axis=-1, keepdims=True)
    best = (host * constant).sum(axis=-1).mean()
    assert metric.evaluate(6)['cosine_constant'] == pytest.approx(best, abs=1e-6)
    for _ in range(20):  # no other constant is better
        other = np.random.normal(size=constant.shape) / 5 + constant
        other /= np.linalg.norm(other, axis=-1, keepdims=True)
        assert (host * other).sum(axis=-1).mean() < best


def test_images_of_several_sizes_have_constants_of_their_own():
    metric = TokenizerMetric(4)
    east, north = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    small, large = torch.stack([east]), torch.stack([east, north])
    both = [small, large, torch.stack([north, north])]
    metric.process(None, [sample([0] * len(target), target=target) for target in both])
    expected = (1 + 2 * (math.sqrt(0.5) + 1) / 2) / 3
    assert metric.evaluate(3)['cosine_constant'] == pytest.approx(expected)


def test_accuracy_constant_is_that_of_the_commonest_code():
    codes = np.array([[0, 2, 2, 5], [2, 5, 5, 5], [2, 2, 1, 0]])
    metric = MIMMetric()
    for row in codes:
        shares = torch.tensor(100 * np.bincount(row, minlength=8) / len(row)).float()
        metric.process(None, [dict(accuracy_main=0.0, code_shares=shares)])
    best = 100 * max((codes == code).mean() for code in range(8))
    assert metric.evaluate(3) == {'accuracy_main': 0.0, 'accuracy_constant': pytest.approx(best)}


def test_bad_samples():
    with pytest.raises(KeyError, match=r"needs the field 'pred_codes'.*\['cosine'\]"):
        TokenizerMetric(4).process(None, [dict(cosine=1.0)])
    with pytest.raises(ValueError, match='a code 4, but num_codes is 4'):
        TokenizerMetric(4).process(None, [sample([4])])
    with pytest.raises(KeyError, match='accuracy_'):
        MIMMetric().process(None, [dict(pred=1)])
    with pytest.raises(ValueError, match='has seen no samples'):
        MIMMetric().evaluate(3)


SAMPLES = [sample([i % 7, i % 3], i / 10, torch.eye(5)[[i, 0]]) for i in range(5)]


def _rank(rank: int, port_file: str, queue: multiprocessing.SimpleQueue) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE='2')
    distributed.init_process_group('gloo', f'file://{port_file}', world_size=2, rank=rank)
    metric, mim = TokenizerMetric(8), MIMMetric()
    # mmengine's DefaultSampler: every second sample, the first one again as padding of rank 1
    mine = (SAMPLES + SAMPLES[:1])[rank::2]
    for item in mine:
        metric.process(None, [item])
    if rank == 0:  # a rank may be without samples
        mim.process(None, [dict(accuracy_main=50.0)])
    queue.put((metric.evaluate(len(SAMPLES)), mim.evaluate(1)))
    distributed.destroy_process_group()


@pytest.mark.cpu_only(reason='two processes over gloo')
def test_two_ranks_give_what_one_gives(tmp_path):
    metric = TokenizerMetric(8)
    metric.process(None, SAMPLES)
    expected = metric.evaluate(len(SAMPLES))
    queue = multiprocessing.get_context('fork').SimpleQueue()  # spawning imports everything again
    arguments = str(tmp_path / 'rendezvous'), queue
    multiprocessing.start_processes(_rank, arguments, nprocs=2, start_method='fork')
    for _ in range(2):
        assert queue.get() == (pytest.approx(expected), {'accuracy_main': 50.0})
