"""Training and test documents: conversations in chat form, made from a seed, with what is true of them.

    example = document("text_to_image", seed=7, split="train")
    example.messages   # chat form, pictures as uint8 arrays [H, W, 3], films [F, H, W, 3]
    example.truth      # scenes, films, asked slots, held-out keys: see Example

What the assistant says is what the model is trained to say.
"""

import random
from collections.abc import Callable, Iterator

from training.world.conversation import SHAPES, Example, Talk
from training.world.films import MOTION_TASKS
from training.world.held_out import Split
from training.world.phrases import small_talk
from training.world.pictures import PICTURE_TASKS
from training.world.recall import RECALL_TASKS
from training.world.sounds import SOUND_TASKS

__all__ = ["SHAPES", "TASKS", "Example", "corpus", "document"]

TASKS: dict[str, Callable[[random.Random, Split], Talk]] = {
    **PICTURE_TASKS,
    **MOTION_TASKS,
    **SOUND_TASKS,
    **RECALL_TASKS,
}
CORPUS_TASKS = (*PICTURE_TASKS, "chat", *(task for task in TASKS if task not in PICTURE_TASKS))


def document(task: str, seed: int, split: Split = "train") -> Example:
    """Make one conversation; the same task, seed and split always give the same one.

    Args:
        task: one of TASKS.
        seed: any whole number; splits do not share random streams.
        split: "train" contains no held-out combination; in "test" every conversation with pictures contains
            at least one combination of the test split, "validation" likewise with none of the test split.

    Raises:
        KeyError: the task is unknown.
    """
    rng = random.Random(f"{task}|{split}|{seed}")
    return TASKS[task](rng, split).finish(task, seed)


def corpus(num_lines: int, seed: int = 0) -> Iterator[str]:
    """Yield single lines of text, as users and the assistant write them, to train a text tokenizer on."""
    rng = random.Random(seed)
    made = 0
    while made < num_lines:
        lines = (
            [rng.choice(small_talk()[0])]
            if rng.random() < 0.1
            else [*TASKS[rng.choice(CORPUS_TASKS)](rng, "train").texts()]
        )
        yield from lines[: num_lines - made]
        made += len(lines)
