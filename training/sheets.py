"""Contact sheets: pictures side by side, with what was asked for under each."""

import textwrap
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

CELL = 128
LINE = 12
NUM_LINES = 4
LETTERS_A_LINE = 24


def contact_sheet(pictures: Sequence[NDArray[np.uint8]], captions: Sequence[str], *, columns: int = 8) -> Image.Image:
    """Lay pictures out in rows, enlarged, each above its caption.

    Args:
        pictures: uint8, [H, W, 3] each, of any sizes.
        captions: as many.
        columns: pictures in a row.
    """
    rows = -(-len(pictures) // columns)
    height = CELL + NUM_LINES * LINE
    sheet = Image.new("RGB", (columns * (CELL + 8), rows * (height + 8)), "white")
    canvas, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=10)
    for number, (pixels, caption) in enumerate(zip(pictures, captions, strict=True)):
        left, top = number % columns * (CELL + 8) + 4, number // columns * (height + 8) + 4
        scale = CELL / max(pixels.shape[:2])
        size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
        sheet.paste(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC), (left, top))
        lines = textwrap.wrap(caption, LETTERS_A_LINE)[:NUM_LINES]
        canvas.multiline_text((left, top + CELL + 2), "\n".join(lines), fill="black", font=font, spacing=2)
    return sheet
