"""Draw a sheet of samples, none of them chosen: python scripts/sample_sheet.py MODEL FILE.png [--count 48]
[--seed 0]

The requests are fresh ones of the test split, so that each holds a combination that training never saw.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# A script is started by its path, and would find the project's packages only where they are installed.
sys.path.insert(0, str(Path(__file__).parents[1]))

from omni.errors import OmniError  # noqa: E402


def draw(model: str, *, count: int, seed: int) -> tuple[list, list[str]]:
    """Let a model draw fresh requests; gives the pictures, uint8 [H, W, 3], and the requests."""
    from omni import Omni
    from training.exams.room import FIRST_FRESH_SEED, shape_of, words_of
    from training.world.tasks import document

    omni = Omni.from_pretrained(model)
    examples = [document("text_to_image", FIRST_FRESH_SEED + seed + number, "test") for number in range(count)]
    prompts, drawn = [words_of(example.messages[0]) for example in examples], {}
    for size in dict.fromkeys(map(shape_of, examples)):
        numbers = [number for number, example in enumerate(examples) if shape_of(example) == size]
        images = omni.image([prompts[number] for number in numbers], size=size, seed=[seed + n for n in numbers])
        drawn |= {number: image.pixels for number, image in zip(numbers, images, strict=True)}
    return [drawn[number] for number in range(count)], prompts


def main(given: Sequence[str] | None = None) -> None:
    """Read the command line, draw and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="model folder")
    parser.add_argument("file", type=Path, help="PNG to write")
    parser.add_argument("--count", type=int, default=48, help="pictures")
    parser.add_argument("--seed", type=int, default=0, help="of requests and noise")
    arguments = parser.parse_args(given)
    from training.sheets import contact_sheet

    try:
        pictures, prompts = draw(arguments.model, count=arguments.count, seed=arguments.seed)
    except OmniError as error:
        sys.exit(f"error: {error}")
    contact_sheet(pictures, prompts).save(arguments.file)


if __name__ == "__main__":
    main()
