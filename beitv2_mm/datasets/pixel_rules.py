"""The number of channels and the white level of a data set."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from mmengine.logging import print_log

from beitv2_mm.datasets.bands import stored_values
from beitv2_mm.datasets.bit_depth import FULL
from beitv2_mm.datasets.reading import UnreadableImageError
from beitv2_mm.datasets.sampling import (
    EIGHT_BITS,
    WITH_BANDS,
    channel_statistics,
    count_channels,
    sample,
    settle_white,
    shown,
)
from beitv2_mm.datasets.skipping import SkipUnreadable
from beitv2_mm.datasets.transforms import LoadImageFromFile

COLOURS = 3
BAND_EXTENSIONS = ('.npy',)  # images of other than 3 channels


class PixelRules(SkipUnreadable):
    """A mixin for any data set of mmengine: the first base class, in place of `SkipUnreadable`.

    The loader of this package gets both settings with the path of an image. When the files are
    listed, the white level is found in a sample of at most 64 of them, and logged.

    Args:
        channels: the number of channels. 3 are colours: grey is repeated, and transparency is laid
            on white. Other numbers are taken as stored, see `beitv2_mm.datasets.bands`.
        white: the white level of files with 16 bits (see `beitv2_mm.datasets.bit_depth`), a number,
            None for the upper 8 bits, or 'auto' for the largest value of the fewest bits that hold
            all values of the sample.

    Raises:
        ValueError: ``white`` is too small for a file of the sample, or no file of the sample has
            that many channels; the message names a file.
    """

    white: float | None = None  # set when the files are listed

    def __init__(
        self, *args: Any, channels: int = COLOURS, white: float | str | None = 'auto', **kwargs: Any
    ) -> None:
        if not isinstance(channels, int) or channels < 1:
            raise ValueError(f'channels is {channels!r}; expected a number from 1.')
        self.channels = channels
        self.given_white = white
        super().__init__(*args, **kwargs)

    def get_data_info(self, idx: int) -> dict:
        """Adds the settings that are not the usual ones."""
        return {**super().get_data_info(idx), **self._unusual()}

    def _unusual(self) -> dict[str, float]:
        """'white' unless it is None, and 'channels' unless they are colours."""
        white = {} if self.white is None else {'white': self.white}
        return white if self.channels == COLOURS else {**white, 'channels': self.channels}

    def full_init(self) -> None:
        """Lists the files (once), and checks that the pipeline can read them."""
        if self._fully_initialized:
            return
        super().full_init()
        steps = getattr(self.pipeline, 'transforms', ())
        ours = any(isinstance(step, LoadImageFromFile) for step in steps)
        if steps and not ours and (self.white not in (None, FULL) or self.channels != COLOURS):
            print_log(
                f'{type(steps[0]).__name__} of another package loads the images and does not '
                f'know that white is {self.white} and channels is {self.channels}: use '
                "LoadImageFromFile of this package (in text configs 'beitv2_mm.LoadImageFromFile')"
                '.',
                logger='current',
                level=logging.WARNING,
            )
        wrong = [type(s).__name__ for s in steps if getattr(s, 'backend', '') == 'pillow']
        if wrong and self.channels != COLOURS:
            raise ValueError(
                f"{wrong[0]} has backend='pillow', which takes three channels for colours and a "
                f'fourth for transparency, but the images have {self.channels} channels. Give '
                "backend='cv2', or use TorchvisionTransforms in its place."
            )

    def settle_pixels(
        self, names: Sequence[str], path_of: Callable[[str], str], folder: str
    ) -> None:
        """Finds the white level and checks the number of channels in a sample of the files."""
        where = shown(folder)
        if self.channels == COLOURS:
            bands = sample([name for name in names if name.lower().endswith(WITH_BANDS)])
            self._warn_of_bands(list(map(path_of, bands)), where)
        else:
            self._check_channels(list(map(path_of, sample(names))))
        deep = sample([name for name in names if not name.lower().endswith(EIGHT_BITS)])
        paths = list(map(path_of, deep))
        self.white = settle_white(paths, self.given_white, self.channels, where)
        self._metainfo.update(self._unusual())  # goes into checkpoints, for the use of the model

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel, for values from 0 to 1, over at most 64
        images; three channels are in the order red, green, blue.

        Raises:
            ValueError: no image could be read.
        """
        self.full_init()
        rows = sample(range(len(self)))
        paths = [self.get_data_info(row)['img_path'] for row in rows]
        return channel_statistics(paths, self.channels, self.white)

    def _warn_of_bands(self, paths: Sequence[str], where: str) -> None:
        counts = count_channels(paths)
        others = {number: count for number, count in counts.items() if number > COLOURS}
        if others:
            number = max(others, key=lambda key: others[key])
            print_log(
                f'{where}: {sum(others.values())} of {len(paths)} sampled TIFF and .npy images '
                f'have {number} channels; at most the first three of them are read, as colours. '
                f'Give channels={number} to the data set to read all.',
                logger='current',
                level=logging.WARNING,
            )

    def _check_channels(self, paths: Sequence[str]) -> None:
        errors = []
        for path in paths:
            try:
                stored_values(path, self.channels)
                return
            except UnreadableImageError as error:
                errors.append(error)
        named = [error for error in errors if error.reason == 'unsupported']
        if named and len(named) == len(errors):
            raise ValueError(
                f'Not one of {len(errors)} sampled images can be read with {self.channels} '
                f'channels, e.g.: {named[0]}'
            )
