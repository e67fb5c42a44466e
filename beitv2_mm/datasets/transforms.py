"""Pipeline steps: results dict -> results dict."""

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from beitv2_mm.datasets.masking import BlockwiseMaskGenerator, to_grid
from beitv2_mm.datasets.reading import read_image
from beitv2_mm.layers.vision_transformer import patch_grid
from beitv2_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadImageFromFile(BaseTransform):
    """Takes the place, and the name, of mmcv's: 'img' (H, W, 3) uint8 in BGR from 'img_path'.

    Raises:
        UnreadableImageError: see `beitv2_mm.datasets.reading.read_image`, whose rules hold.
    """

    def transform(self, results: dict) -> dict:
        """Also writes 'img_shape' and 'ori_shape' (H, W)."""
        image = self.read(results['img_path'])
        results.update(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])
        return results

    def read(self, path: str) -> np.ndarray:
        """The pixels of a file, (H, W, 3) uint8, BGR."""
        return read_image(path)[..., ::-1]

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


@TRANSFORMS.register_module()
class BlockwiseMask(BaseTransform):
    """Adds ``results['mask']``: (H, W) bool over patches, True where a patch is masked.

    Args:
        patch_size: pixels of a patch, an int or (height, width): the grid follows from the
            image, ``results['img']`` (H, W, C).
        grid: the number of patches instead, an int or (height, width).
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
        self.settings = settings
        self._generators: dict[tuple[int, int], BlockwiseMaskGenerator] = {}
        if grid is not None:  # wrong settings fail when the config is built
            self.generator = BlockwiseMaskGenerator(grid, **settings)

    def transform(self, results: dict) -> dict:
        """Draws the mask from NumPy's global random state."""
        if self.patch_size is None:
            results['mask'] = self.generator()
            return results
        grid = patch_grid(results['img'].shape[:2], self.patch_size)
        if grid not in self._generators:
            self._generators[grid] = BlockwiseMaskGenerator(grid, **self.settings)
        results['mask'] = self._generators[grid]()
        return results

    def __repr__(self) -> str:
        where = (
            f'patch_size={self.patch_size}' if self.patch_size else f'grid={self.generator.grid}'
        )
        return f'{type(self).__name__}({where}, {self.settings})'
