"""Where exams take place: the candidate, the judges, and what all exams share."""

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from omni.parts import Audio, Video
from training.judges.views import PictureJudges
from training.scores import Score, ScoreSplit
from training.world.conversation import SHAPES, Example
from training.world.held_out import Key, Split, split_of_all
from training.world.tasks import document

Pixels = NDArray[np.uint8]
Item = TypeVar("Item")

# Training draws its examples from seeds below.
FIRST_FRESH_SEED = 10**9
SEEDS_PER_RUN = 10**6


class Candidate(Protocol):
    """What is examined: an `omni.Omni`, or anything that answers like one."""

    def image(self, prompt: Any, *, size: tuple[int, int], seed: Any) -> Any: ...
    def edit(self, image: Any, instruction: Any, *, seed: Any) -> Any: ...
    def caption(self, part: Any, *, seed: Any) -> Any: ...
    def audio(self, prompt: Any, *, seed: Any) -> Any: ...
    def video(self, prompt: Any, *, size: tuple[int, int], seed: Any, **settings: Any) -> Any: ...
    def animate(self, image: Any, instruction: Any, *, seconds: float, seed: Any, **settings: Any) -> Any: ...
    def continue_(self, video: Any, *, seconds: float, seed: Any) -> Any: ...
    def inpaint(self, image: Any, mask: Any, instruction: str, *, seed: Any) -> Any: ...
    def play(self, prompt: str, *, size: tuple[int, int], seed: Any) -> Any: ...
    def generate(self, conversations: Sequence[Any], *, seed: Any, **settings: Any) -> Any: ...


@dataclass(frozen=True)
class Room:
    """An exam's setting.

    Args:
        candidate: the model.
        round_trip: passes pictures of one size, uint8 [N, H, W, 3], or films, uint8 [N, F, H, W, 3], through the
            model's codec: nothing of the model's can be closer to the truth than this.
        judges: of pictures.
        seed: of the run; another seed gives other questions and other noise.
        batch_size: conversations answered together.
        modalities: what the model can make beside words.
        sound_round_trip: passes a recording, float32 [T] at 16 kHz, through the model's codec of sound; None for
            a model that has none.
    """

    candidate: Candidate
    round_trip: Callable[[Pixels], Pixels]
    judges: PictureJudges
    seed: int = 0
    batch_size: int = 16
    modalities: Collection[str] = ("image",)
    sound_round_trip: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None

    def examples(self, task: str, split: Split, count: int, *, want: Callable[[Example], bool]) -> list[Example]:
        """Make fresh examples of a task: those that are wanted, in a fixed order."""
        found: list[Example] = []
        seed = FIRST_FRESH_SEED + self.seed * SEEDS_PER_RUN
        while len(found) < count:
            example = document(task, seed, split)
            found += [example] if want(example) else []
            seed += 1
        return found

    def seeds(self, numbers: Sequence[int]) -> list[int]:
        """Give every question its own noise."""
        return [self.seed * SEEDS_PER_RUN + number for number in numbers]

    def batches(self, kinds: Sequence[Hashable], *, label: str) -> Iterator[list[int]]:
        """Split questions into batches of one kind each (one size, say), showing the progress."""
        with tqdm(total=len(kinds), desc=label, unit="", dynamic_ncols=True) as bar:
            for kind in dict.fromkeys(kinds):
                numbers = [number for number, other in enumerate(kinds) if other == kind]
                for start in range(0, len(numbers), self.batch_size):
                    batch = numbers[start : start + self.batch_size]
                    yield batch
                    bar.update(len(batch))

    def through_codec(self, pictures: Sequence[Pixels]) -> list[Pixels]:
        """Pass pictures, or films, of any sizes through the codec."""
        passed: dict[int, Pixels] = {}
        for batch in self.batches([picture.shape for picture in pictures], label="codec"):
            for number, picture in zip(batch, self.round_trip(np.stack([pictures[n] for n in batch])), strict=True):
                passed[number] = picture
        return [passed[number] for number in range(len(pictures))]


def collect(answers: dict[int, Item]) -> list[Item]:
    """Return answers in the order of their questions."""
    return [answers[number] for number in sorted(answers)]


def shape_of(example: Example) -> tuple[int, int]:
    """Return height and width of an example's pictures."""
    return SHAPES[example.truth["shape"]]


def words_of(message: dict[str, Any]) -> str:
    """Return the text of a message."""
    return " ".join(item["text"] for item in message["content"] if item["type"] == "text")


def pictures_of(message: dict[str, Any]) -> list[Pixels]:
    """Return the pictures of a message."""
    return [item["image"] for item in message["content"] if item["type"] == "image"]


def films_of(message: dict[str, Any]) -> list[Pixels]:
    """Return the films of a message, uint8 [F, H, W, 3] each."""
    return [item["frames"] for item in message["content"] if item["type"] == "video"]


def split_name(keys: Sequence[Key]) -> ScoreSplit | None:
    """Tell whether training contained these combinations; None for those that it looks at to stop."""
    names: dict[Split, ScoreSplit | None] = {"train": "seen", "test": "unseen", "validation": None}
    return names[split_of_all(keys)]


def by_split(keys: Sequence[Key], own: Item, real: Item, shuffled: Item) -> list[tuple[ScoreSplit, Item]]:
    """Put what is judged under the names of its splits: the candidate's own answer under seen or unseen, or nowhere.

    Args:
        keys: combinations that were asked for.
        own: the candidate's answer.
        real: the true one.
        shuffled: the candidate's answer to another question.
    """
    pairs = ((split_name(keys), own), ("real", real), ("shuffled", shuffled))
    return [(split, answer) for split, answer in pairs if split]


def own_again(scores: Sequence[Score], ending: str) -> Iterator[Score]:
    """Yield the candidate's own scores a second time, under a measure with an ending."""
    own = (score for score in scores if score.split in ("seen", "unseen"))
    yield from (replace(score, measure=f"{score.measure}_{ending}") for score in own)


def with_of_real(scores: Sequence[Score]) -> Iterator[Score]:
    """Yield the scores of one question, and the candidate's again as "..._of_real" where the true answer is right."""
    yield from scores
    if any(score.split == "real" and score.is_right for score in scores):
        yield from own_again(scores, "of_real")


def next_of_same(kinds: Sequence[Hashable]) -> list[int]:
    """For each question, choose another of its kind, whose answer it gets when answers are shuffled.

    A question that is the only one of its kind gets its own.
    """
    groups: dict[Hashable, list[int]] = {}
    for number, kind in enumerate(kinds):
        groups.setdefault(kind, []).append(number)
    following = {
        number: group[(place + 1) % len(group)] for group in groups.values() for place, number in enumerate(group)
    }
    return [following[number] for number in range(len(kinds))]


def next_of_other(kinds: Sequence[Hashable]) -> list[int]:
    """For each question, choose the next of another kind: shuffled so where all of a kind have the same answer.

    A question gets its own where there is no other kind.
    """
    count = len(kinds)
    following = ([other % count for other in range(number + 1, number + count)] for number in range(count))
    return [
        next((other for other in others if kinds[other] != kind), number)
        for number, (kind, others) in enumerate(zip(kinds, following, strict=True))
    ]


def as_given(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return a world's item in the form in which users give it; parts stay as they are."""
    if "frames" in item:
        return {"type": "video", "video": Video(item["frames"], float(item["fps"]))}
    if "samples" in item:
        return {"type": "audio", "audio": Audio(item["samples"][None], item["sample_rate"])}
    return dict(item)
