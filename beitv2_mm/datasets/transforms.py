"""Pipeline steps: results dict -> results dict."""

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from beitv2_mm.datasets.bands import read_bands
from beitv2_mm.datasets.masking import BlockwiseMaskGenerator, to_grid
from beitv2_mm.datasets.reading import read_image, unreadable
from beitv2_mm.layers.vision_transformer import patch_grid
from beitv2_mm.registry import TRANSFORMS


@TRANSFORMS.register_module(name=['LoadImageFromFile', 'LoadImage'])
class LoadImageFromFile(BaseTransform):
    """Reads 'img' (H, W, C) uint8 from 'img_path'; it replaces mmcv's transform of this name.

    Three channels are colours, in BGR; other numbers of channels keep the order of the file.

    Args:
        channels, white: see `beitv2_mm.datasets.pixel_rules`; None takes those of the data set.
        to_float32: floats from 0 to 255, which keep more than 256 levels of files with 16 bits.

    Raises:
        UnreadableImageError: see `beitv2_mm.datasets.reading.read_image`, whose rules hold; or the
            image has another size than the annotations of the data set are for.
    """

    def __init__(
        self, channels: int | None = None, white: float | None = None, to_float32: bool = False
    ) -> None:
        self.channels = channels
        self.white = white
        self.to_float32 = to_float32

    def transform(self, results: dict) -> dict:
        """Also writes 'img_shape' and 'ori_shape' (H, W)."""
        white = results.get('white') if self.white is None else self.white
        image = self.read(results['img_path'], self.channels or results.get('channels', 3), white)
        annotated = results.get('height'), results.get('width')  # as mmdet's data sets know it
        if None not in annotated and annotated != image.shape[:2]:
            raise unreadable(
                results['img_path'],
                'unsupported',
                f'it has {image.shape[0]} x {image.shape[1]} pixels, height x width, but its '
                f'annotations are for {annotated[0]} x {annotated[1]}',
            )
        results.update(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
        return results

    def read(self, path: str, channels: int = 3, white: float | None = None) -> np.ndarray:
        """The pixels of a file, (H, W, channels); three are BGR."""
        if channels != 3:
            return read_bands(path, channels, white, self.to_float32)
        return read_image(path, white, self.to_float32)[..., ::-1]

    def __repr__(self) -> str:
        given = dict(channels=self.channels, white=self.white, to_float32=self.to_float32 or None)
        words = (f'{key}={value}' for key, value in given.items() if value is not None)
        return f'{type(self).__name__}({", ".join(words)})'


LoadImage = LoadImageFromFile  # the name in recipes, and so in dumped configs, of earlier versions


@TRANSFORMS.register_module()
class BlockwiseMask(BaseTransform):
    """Adds ``results['mask']``: (H, W) bool over patches, True where a patch is masked.

    Args:
        patch_size: pixels of a patch, an int or (height, width); the grid then follows from the
            image, ``results['img']`` (H, W, C).
        grid: the number of patches, an int or (height, width), instead of ``patch_size``.
        settings: of :class:`~beitv2_mm.datasets.masking.BlockwiseMaskGenerator`.
    """

    def __init__(
        self,
        patch_size: int | tuple[int, int] | None = None,
        grid: int | tuple[int, int] | None = None,
        **settings: Any,
    ) -> None:
        if (patch_size is None) == (grid is None):
            raise ValueError(
                f'patch_size is {patch_size} and grid is {grid}; give exactly one of the two.'
            )
        self.patch_size = None if patch_size is None else to_grid(patch_size, 'patch_size')
        self.grid = None if grid is None else to_grid(grid, 'grid')
        self.settings = settings
        self._generators: dict[tuple[int, int], BlockwiseMaskGenerator] = {}
        if self.grid:  # now, so that wrong settings fail when the config is built
            self._generators[self.grid] = BlockwiseMaskGenerator(self.grid, **settings)

    def transform(self, results: dict) -> dict:
        """Draws the mask from NumPy's global random state."""
        grid = self.grid
        if grid is None:
            assert self.patch_size is not None
            grid = patch_grid(results['img'].shape[:2], self.patch_size)
        if grid not in self._generators:
            self._generators[grid] = BlockwiseMaskGenerator(grid, **self.settings)
        results['mask'] = self._generators[grid]()
        return results

    def __repr__(self) -> str:
        where = f'patch_size={self.patch_size}' if self.patch_size else f'grid={self.grid}'
        return f'{type(self).__name__}({where}, {self.settings})'
