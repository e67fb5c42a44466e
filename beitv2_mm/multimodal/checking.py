"""Images with captions, checked: what a file holds, unreadable images, words without a token."""

from pathlib import Path

from mmengine.logging import print_log

from beitv2_mm.datasets.prepare import progress
from beitv2_mm.datasets.reading import UnreadableImageError, read_image
from beitv2_mm.multimodal.captions import ImageCaptions, unknown_words
from beitv2_mm.multimodal.text_encoder import TextTokenizer

SHOWN = 5  # examples of each kind


def verify(path: Path, folder: Path, tokenizer: str | None = None) -> tuple[list[str], int]:
    """Reads captions and every image, and logs what they hold.

    Args:
        tokenizer: see `TextTokenizer`; words that it does not know are named.

    Returns:
        The captions, and the number of images that cannot be read.

    Raises:
        FileNotFoundError, WordsError: see `ImageCaptions`.
    """
    data = ImageCaptions(ann_file=str(path), data_prefix=dict(img_path=str(folder)))
    items = [data.get_data_info(i) for i in range(len(data))]
    captions = [item['caption'] for item in items]
    files = list(dict.fromkeys(item['img_path'] for item in items))
    words = sum(len(caption.split()) for caption in captions) / len(captions)
    _say(
        f'{path}: {len(captions)} captions, {len(set(captions))} of them different, of '
        f'{words:.1f} words in the mean, for {len(files)} images.'
    )
    if tokenizer:
        unknown = unknown_words(captions, TextTokenizer(tokenizer))
        names = ', '.join(word for word, _ in unknown.most_common(SHOWN))
        _say(f'{len(unknown)} words have no token{": " + names if unknown else ""}.')
    broken = []
    for file in progress(files, 'images: read '):
        try:
            read_image(file)
        except UnreadableImageError as error:
            broken.append(str(error))
    if broken:
        _say(f'{len(broken)} images cannot be read: {"; ".join(broken[:SHOWN])}.')
    return captions, len(broken)


def _say(text: str) -> None:
    print_log(text, logger='current')
