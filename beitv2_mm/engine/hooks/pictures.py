"""Pictures of validation images during training: batches -> the runner's visualizer with any
backends (files, TensorBoard, Weights & Biases)."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from mmengine.structures import PixelData
from PIL import Image
from torch import Tensor, nn

from beitv2_mm.engine.hooks.predictions import draw_predictions, image_codes
from beitv2_mm.engine.unwrap import unwrapped_model
from beitv2_mm.layers.attention_maps import attention_probabilities, query_map
from beitv2_mm.models import BEiTV2Pretrainer, VQKDTokenizer
from beitv2_mm.registry import HOOKS
from beitv2_mm.visualization.attention_pictures import attention_tiles
from beitv2_mm.visualization.canvas import (
    as_colours,
    beside,
    default_palette,
    on_white,
    spread,
)
from beitv2_mm.visualization.codes import code_atlas, code_map
from beitv2_mm.visualization.segmentation import draw_overlay, draw_with_legend
from beitv2_mm.visualization.usage import plot_usage

Pictures = dict[str, Image.Image]


class PicturesHook(Hook):
    """Collects some images of every validation batch and draws them after the validation.

    If images differ in size, only those of the size of the first are drawn. Only the main process
    draws, so the images come from its share of the data.

    Args:
        interval: validations between two drawings.
        num_images: number of images to collect.
    """

    priority = 'NORMAL'  # before the page of `RunPageHook`

    def __init__(self, interval: int = 1, num_images: int = 64) -> None:
        if interval < 1 or num_images < 1:
            raise ValueError(f'interval={interval} and num_images={num_images} must be at least 1.')
        self.interval = interval
        self.num_images = num_images
        self._validations = 0
        self._inputs: list[Tensor] = []
        self._samples: list = []
        self._meta: dict = {}  # classes and palette of the data set

    def before_val_epoch(self, runner: Runner) -> None:
        """Forgets the last validation."""
        self._validations += 1
        self._inputs, self._samples = [], []

    @property
    def _is_due(self) -> bool:
        return is_main_process() and self._validations % self.interval == 0

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence | None = None,
    ) -> None:
        """Keeps images as they were before preprocessing, and the outputs of the model."""
        if not self._is_due or data_batch is None or outputs is None:
            return
        # Some images of every batch, because data sets are often sorted by class.
        wanted = -(-self.num_images // len(runner.val_dataloader))
        inputs = data_batch['inputs']
        for index in spread(len(inputs), min(wanted, self.num_images - len(self._inputs))):
            self._inputs.append(inputs[index])
            self._samples.append(outputs[index])

    @torch.no_grad()
    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, float] | None = None) -> None:
        """Draws the pictures for the visualizer, whose step is the epoch, or the iteration in
        iteration-based runs."""
        if not self._is_due or not self._inputs:
            return
        model = unwrapped_model(runner)
        size = self._inputs[0].shape
        kept = [index for index, image in enumerate(self._inputs) if image.shape == size]
        raw, samples = ([values[i] for i in kept] for values in (self._inputs, self._samples))
        batch = dict(inputs=torch.stack(raw), data_samples=samples)
        batch = model.data_preprocessor(batch, False)
        inputs = batch['inputs']
        images = to_pixels(inputs, model.data_preprocessor)
        self._meta = dict(runner.visualizer.dataset_meta or {})
        by_iter = isinstance(runner._train_loop, IterBasedTrainLoop)
        step = runner.iter if by_iter else runner.epoch
        for name, picture in self.draw(model, inputs, images, samples).items():
            runner.visualizer.add_image(name, on_white(picture), step=step)
        self._inputs, self._samples = [], []

    @abstractmethod
    def draw(self, model: nn.Module, inputs: Tensor, images: np.ndarray, samples: list) -> Pictures:
        """Pictures by name.

        Args:
            model: in eval mode.
            inputs: (M, C, H, W), preprocessed.
            images: (M, H, W, C) uint8.
            samples: the M data samples that the model returned.
        """


def to_pixels(inputs: Tensor, preprocessor: nn.Module) -> np.ndarray:
    """Undoes a preprocessor's normalisation: (M, C, H, W) -> uint8 (M, H, W, C)."""
    if getattr(preprocessor, 'mean', None) is not None:
        inputs = inputs * preprocessor.std + preprocessor.mean
    pixels = inputs.float().round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).cpu().numpy()


@HOOKS.register_module()
class CodePicturesHook(PicturesHook):
    """For a tokenizer: ``code_maps``, images beside their codes; ``code_atlas``, patches by code;
    ``code_usage``, a histogram over all validation images of the main process."""

    def before_val_epoch(self, runner: Runner) -> None:
        """Forgets the last validation."""
        super().before_val_epoch(runner)
        self._counts = np.zeros(unwrapped_model(runner).quantize.num_codes, int)

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence | None = None,
    ) -> None:
        """Keeps images and counts codes."""
        super().after_val_iter(runner, batch_idx, data_batch, outputs)
        if self._is_due:
            for sample in outputs or ():
                codes = sample.pred_codes.cpu().numpy()
                self._counts += np.bincount(codes, minlength=len(self._counts))

    def draw(self, model: nn.Module, inputs: Tensor, images: np.ndarray, samples: list) -> Pictures:
        codes, images = image_codes(model, images), as_colours(images)
        maps = [code_map(images[index], codes[index]) for index in spread(len(images), 8)]
        return {
            'code_maps': beside(maps, columns=2),
            'code_atlas': code_atlas(images, codes, model.encoder.patch_size[0]),
            'code_usage': plot_usage(self._counts),
        }


@HOOKS.register_module()
class PredictionPicturesHook(PicturesHook):
    """For masked image modelling: ``mim_predictions``, the codes predicted for masked patches of
    ``num_shown`` images, each shown by a patch of the other collected images."""

    def __init__(self, interval: int = 1, num_images: int = 64, num_shown: int = 8) -> None:
        super().__init__(interval, num_images)
        if not 0 < num_shown < num_images:
            raise ValueError(f'num_shown={num_shown} leaves none of {num_images} for the patches.')
        self.num_shown = num_shown

    def draw(self, model: nn.Module, inputs: Tensor, images: np.ndarray, samples: list) -> Pictures:
        shown = spread(len(images), min(self.num_shown, len(images) - 1))
        if not len(shown):
            return {}
        masks = torch.stack([torch.as_tensor(samples[i].mask).bool().cpu() for i in shown]).numpy()
        others = np.delete(images, shown, axis=0)
        picture = draw_predictions(model, model.tokenizer, images[shown], masks, others)
        return {'mim_predictions': picture}


@HOOKS.register_module()
class AttentionPicturesHook(PicturesHook):
    """For any model on this backbone: ``attention`` of the middle patch, a row for each image.

    Args:
        block: index of the block; a negative index counts from the end.
    """

    def __init__(self, interval: int = 1, num_images: int = 4, block: int = -1) -> None:
        super().__init__(interval, num_images)
        self.block = block

    def draw(self, model: nn.Module, inputs: Tensor, images: np.ndarray, samples: list) -> Pictures:
        network = model.backbone if hasattr(model, 'backbone') else model.encoder
        if isinstance(model, VQKDTokenizer):
            inputs = inputs * 2 - 1
        elif isinstance(model, BEiTV2Pretrainer):
            inputs = (inputs - model.mean) / model.std
        height, width = network.patch_size
        grid = inputs.shape[-2] // height, inputs.shape[-1] // width
        inputs = inputs[..., : grid[0] * height, : grid[1] * width]
        images = as_colours(images)[:, : grid[0] * height, : grid[1] * width]
        row, column = grid[0] // 2, grid[1] // 2
        rows = []
        for index, image in enumerate(images):
            attention = attention_probabilities(network, inputs[index : index + 1], self.block)[0]
            maps = query_map(attention, grid, row, column).float().cpu().numpy()
            rows.append(beside(attention_tiles(Image.fromarray(image), maps, row, column, 140)))
        return {'attention': beside(rows, columns=1)}


@HOOKS.register_module()
class SegmentationPicturesHook(PicturesHook):
    """For a segmentor: ``segmentation``, a row for each image with the true classes, if there are
    masks, and the predicted classes with a legend; small images are enlarged."""

    def __init__(self, interval: int = 1, num_images: int = 8) -> None:
        super().__init__(interval, num_images)

    def draw(self, model: nn.Module, inputs: Tensor, images: np.ndarray, samples: list) -> Pictures:
        classes = list(self._meta.get('classes') or map(str, range(model.num_classes)))
        palette = np.array(self._meta.get('palette') or default_palette(len(classes)), np.uint8)
        rows = []
        for image, sample in zip(as_colours(images), samples, strict=True):
            predicted = _label_map(sample.pred_sem_seg)
            photo = np.asarray(Image.fromarray(image).resize(predicted.shape[::-1]))
            photo, predicted = _enlarged(photo), _enlarged(predicted)
            row = [draw_with_legend(photo, predicted, palette, classes)]
            if 'gt_sem_seg' in sample:
                truth = _enlarged(_label_map(sample.gt_sem_seg))
                row.insert(0, Image.fromarray(draw_overlay(photo, truth, palette)))
            rows.append(beside(row))
        return {'segmentation': beside(rows, columns=1)}


def _label_map(found: PixelData) -> np.ndarray:
    """(1, H, W) of a data sample -> (H, W) uint8."""
    return found.data.squeeze(0).cpu().numpy().astype(np.uint8)


def _enlarged(pixels: np.ndarray) -> np.ndarray:
    """(H, W, ...) with every pixel repeated until the picture is some 200 pixels high."""
    factor = max(1, 200 // len(pixels))
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)
