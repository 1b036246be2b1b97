"""JPEGs decoded by simplejpeg, where it is installed: Pillow's pixels in two thirds of the time.

Both have the same decoder inside (libjpeg-turbo). Pillow hands its pixels on in pieces, and they are put together and
copied; simplejpeg decodes to where they stay.
"""

import numpy as np
from PIL import Image

try:
    from simplejpeg import decode_jpeg
except ImportError:  # no extra `jpeg`: Pillow decodes
    decode_jpeg = None

__all__ = ["decoded"]

KINDS = {"RGB": "RGB", "L": "GRAY"}  # Pillow's name of what a pixel is, and simplejpeg's


def decoded(content: bytes, image: Image.Image) -> np.ndarray | None:
    """The pixels `(h, w, c)` of a file that Pillow has opened and not decoded yet, at the scale of its `draft`.

    None where that is for Pillow to do: no JPEG, or of four inks, or damaged so that it has to say what is the matter.
    """
    if decode_jpeg is None or image.format != "JPEG" or image.mode not in KINDS:
        return None
    try:
        return decode_jpeg(content, KINDS[image.mode], min_height=image.height, min_width=image.width)
    except ValueError:
        return None
