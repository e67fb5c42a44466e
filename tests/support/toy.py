"""A model, a data set and a metric small enough for a Runner in a second; see toy_config.py."""

import os
import time

import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from torch import nn
from torch.utils.data import Dataset


class ToyModel(BaseModel):
    """(B, 4), (B) -> cross entropy of a linear classifier, or its predictions (B)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(
        self, inputs: torch.Tensor, labels: torch.Tensor, mode: str
    ) -> dict[str, torch.Tensor] | list[dict[str, torch.Tensor]]:
        logits = self.linear(inputs)
        if mode == 'loss':
            return {'loss': nn.functional.cross_entropy(logits, labels)}
        return [
            {'pred': p, 'label': label} for p, label in zip(logits.argmax(1), labels, strict=True)
        ]


class ToyDataset(Dataset):
    """16 fixed samples; TOY_DELAY seconds for each, so that a run can be killed midway."""

    def __init__(self) -> None:
        self.inputs = torch.randn(16, 4, generator=torch.Generator().manual_seed(0), device='cpu')

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> dict[str, object]:
        time.sleep(float(os.environ.get('TOY_DELAY', 0)))
        return {'inputs': self.inputs[index], 'labels': int(self.inputs[index].sum() > 0)}


class ToyAccuracy(BaseMetric):
    def process(self, data_batch: object, data_samples: list[dict[str, torch.Tensor]]) -> None:
        self.results += [float(sample['pred'] == sample['label']) for sample in data_samples]

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        return {'accuracy': sum(results) / len(results)}
