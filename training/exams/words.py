"""Exams whose answer is in words, or in the choice between words and a picture."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

from training.exams.room import (
    Pixels,
    Room,
    collect,
    next_of_same,
    pictures_of,
    shape_of,
    split_name,
    words_of,
)
from training.scores import Score
from training.world.conversation import Example
from training.world.language import caption, parse
from training.world.questions import Question, read_answer

PHRASINGS = Path(__file__).parents[1] / "phrasings.json"
# Enough to see that a picture is begun; what becomes of it is another exam.
CHOICE_STEPS = 2

Shown = list[tuple[Pixels, str]]


def _both_splits(room: Room, task: str, count: int) -> list[Example]:
    return [
        example
        for split in ("train", "test")
        for example in room.examples(task, split, count // 2, want=lambda e: bool(e.truth["scenes"]))
    ]


def caption_image(room: Room, count: int) -> tuple[list[Score], Shown]:
    """Examine captions: a caption is right when it states all facts of the picture and no other.

    Single facts are scored too, each under the name of its slot.
    """
    examples = _both_splits(room, "caption_image", count)
    pictures = [pictures_of(example.messages[0])[0] for example in examples]
    said: dict[int, str] = {}
    for batch in room.batches([shape_of(example) for example in examples], label="caption"):
        captions = room.candidate.caption([pictures[number] for number in batch], seed=room.seeds(batch))
        said |= dict(zip(batch, captions, strict=True))
    texts = collect(said)
    others = next_of_same([example.truth["scenes"][0].layout for example in examples])
    scores = []
    for number, example in enumerate(examples):
        scene = example.truth["scenes"][0]
        truth, split = scene.slots, split_name(scene.keys)
        kinds = ((split, texts[number]), ("real", caption(scene)), ("shuffled", texts[others[number]]))
        for kind, text in ((kind, text) for kind, text in kinds if kind):
            slots = parse(text)
            scores.append(Score("caption_image/slots", kind, scene.keys, slots == truth))
            for slot, value in truth.items():
                scores.append(Score(f"caption_image/{slot}", kind, scene.keys, slots.get(slot) == value))
    return sorted(scores, key=lambda score: score.measure != "caption_image/slots"), list(
        zip(pictures, texts, strict=True)
    )


def question(room: Room, count: int) -> tuple[list[Score], Shown]:
    """Examine answers to questions about a picture."""
    examples = _both_splits(room, "question", count)
    pictures = [pictures_of(example.messages[0])[0] for example in examples]
    said: dict[int, str] = {}
    for batch in room.batches([shape_of(example) for example in examples], label="question"):
        replies = room.candidate.generate(
            [examples[n].messages[:1] for n in batch], seed=room.seeds(batch), steps=CHOICE_STEPS
        )
        said |= {number: reply.text for number, reply in zip(batch, replies, strict=True)}
    texts = collect(said)
    asked: list[Question] = [example.truth["question"] for example in examples]
    others = next_of_same([one.kind for one in asked])
    scores = []
    for number, (example, one) in enumerate(zip(examples, asked, strict=True)):
        keys = example.truth["scenes"][0].keys
        kinds = ((split_name(keys), texts[number]), ("real", one.answer), ("shuffled", texts[others[number]]))
        for name in ("question/answer", f"question/answer_{one.kind}"):
            scores += [Score(name, kind, keys, read_answer(one.kind, text) == one.fact) for kind, text in kinds if kind]
    shown = [(picture, f"{one.text} {text}") for picture, one, text in zip(pictures, asked, texts, strict=True)]
    return sorted(scores, key=lambda score: score.measure != "question/answer"), shown


def held_out_phrasings() -> list[tuple[str, bool]]:
    """Read the held-out phrasings: what is said, and whether it asks for a picture."""
    entries = json.loads(PHRASINGS.read_text(encoding="utf-8"))
    return [(entry["text"], entry["expects"] == "image") for entry in entries]


def _spread(phrasings: list[tuple[str, bool]], count: int) -> list[tuple[str, bool]]:
    """Take some, evenly spread over all."""
    count = min(count, len(phrasings))
    return [phrasings[number * len(phrasings) // count] for number in range(count)]


def _taught_phrasings(room: Room, count: int) -> list[tuple[str, bool]]:
    """Make phrasings as training has them, in the same proportion as the held-out ones."""
    drawing = room.examples("text_to_image", "train", 2 * count // 5, want=lambda e: True)
    talking = room.examples("chat", "train", count - len(drawing), want=lambda e: True)
    return [
        (words_of(example.messages[0]), is_drawing)
        for examples, is_drawing in ((drawing, True), (talking, False))
        for example in examples
    ]


def _draws(room: Room, texts: Sequence[str]) -> list[bool]:
    drew: dict[int, bool] = {}
    for batch in room.batches([""] * len(texts), label="modality"):
        replies = room.candidate.generate([texts[n] for n in batch], seed=room.seeds(batch), steps=CHOICE_STEPS)
        drew |= {number: bool(reply.images) for number, reply in zip(batch, replies, strict=True)}
    return collect(drew)


def modality(room: Room, count: int) -> tuple[list[Score], Shown]:
    """Examine the choice between words and a picture: phrasings as taught (seen), held-out ones (unseen)."""
    scores = []
    for split, phrasings in (
        ("seen", _taught_phrasings(room, count)),
        ("unseen", _spread(held_out_phrasings(), count)),
    ):
        drew = _draws(room, [text for text, _ in phrasings])
        mixed = random.Random(room.seed).sample(drew, len(drew))
        for (text, is_drawing), one, other in zip(phrasings, drew, mixed, strict=True):
            pair = (("phrasing", text),)
            scores.append(Score("modality/choice", split, pair, one == is_drawing))
            scores.append(Score("modality/choice", "shuffled", pair, other == is_drawing))
            if split == "unseen":
                scores.append(
                    Score(f"modality/choice_{'image' if is_drawing else 'text'}", split, pair, one == is_drawing)
                )
    return scores, []
