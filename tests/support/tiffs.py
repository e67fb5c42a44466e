"""TIFF files of any number of bands, uncompressed, for tests that must not need tifffile."""

import struct
from pathlib import Path

import numpy as np

SHORT, LONG = 3, 4


def write_tiff(
    path: Path, values: np.ndarray, photometric: int = 2, extra: int | None = 0, planar: int = 1
) -> Path:
    """Writes (H, W, C) as one strip; ``planar`` 2 lays the bands one after the other.

    Args:
        photometric: 1 for grey first, 2 for red, green and blue first.
        extra: kind of each band that is no colour, 0 unspecified and 2 alpha; None leaves it out.
    """
    height, width, bands = values.shape
    stored = values if planar == 1 else values.transpose(2, 0, 1)
    data = np.ascontiguousarray(stored).tobytes()
    plane = len(data) // (1 if planar == 1 else bands)
    planes = 1 if planar == 1 else bands
    bits, kind = values.itemsize * 8, 3 if values.dtype.kind == 'f' else 1
    tags = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, [bits] * bands),
        259: (SHORT, [1]),
        262: (SHORT, [photometric]),
        273: (LONG, [8 + i * plane for i in range(planes)]),
        277: (SHORT, [bands]),
        278: (LONG, [height]),
        279: (LONG, [plane] * planes),
        284: (SHORT, [planar]),
        339: (SHORT, [kind] * bands),
    }
    others = bands - (3 if photometric == 2 else 1)
    if others and extra is not None:
        tags[338] = (SHORT, [extra] * others)
    start = 8 + len(data) + len(data) % 2
    after = start + 2 + 12 * len(tags) + 4
    entries, tail = b'', b''
    for tag, (form, numbers) in sorted(tags.items()):
        packed = struct.pack(f'<{len(numbers)}{"H" if form == SHORT else "I"}', *numbers)
        if len(packed) > 4:
            place = struct.pack('<I', after + len(tail))
            tail += packed
        else:
            place = packed.ljust(4, b'\0')
        entries += struct.pack('<HHI', tag, form, len(numbers)) + place
    directory = struct.pack('<H', len(tags)) + entries + struct.pack('<I', 0)
    header = b'II*\0' + struct.pack('<I', start)
    path.write_bytes(header + data + bytes(len(data) % 2) + directory + tail)
    return path
