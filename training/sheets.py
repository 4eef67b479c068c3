"""Contact sheets: pictures side by side, with what was asked for under each."""

import textwrap
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

CELL = 128
LINE = 12
GAP = 8
LETTERS_A_LINE = 24


def contact_sheet(
    pictures: Sequence[NDArray[np.uint8] | None], captions: Sequence[str], *, columns: int = 8
) -> Image.Image:
    """Lay pictures out in rows, enlarged, each above its caption.

    Args:
        pictures: uint8, [H, W, 3] each, of any sizes; None where a caption stands alone.
        captions: as many.
        columns: pictures in a row.
    """
    cells = list(zip(pictures, (textwrap.wrap(caption, LETTERS_A_LINE) for caption in captions), strict=True))
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    spaces = [CELL * any(pixels is not None for pixels, _ in row) for row in rows]  # for pictures, above the words
    heights = [space + max(len(lines) for _, lines in row) * LINE for space, row in zip(spaces, rows, strict=True)]
    sheet = Image.new("RGB", (columns * (CELL + GAP), sum(heights) + GAP * len(rows) + GAP // 2), "white")
    canvas, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=10)
    top = GAP // 2
    for row, space, height in zip(rows, spaces, heights, strict=True):
        for number, (pixels, lines) in enumerate(row):
            left = number * (CELL + GAP) + GAP // 2
            if pixels is not None:
                scale = CELL / max(pixels.shape[:2])
                size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
                sheet.paste(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC), (left, top))
            canvas.multiline_text((left, top + space + 2), "\n".join(lines), fill="black", font=font, spacing=2)
        top += height + GAP
    return sheet
