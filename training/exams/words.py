"""Exams whose answer is in words, or in the choice between words and a picture."""

import json
import random
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from training.exams.room import (
    Pixels,
    Room,
    by_split,
    collect,
    next_of_same,
    pictures_of,
    shape_of,
    words_of,
)
from training.scores import Score
from training.world.conversation import Example
from training.world.language import canonical, caption, parse
from training.world.questions import Question, read_answer
from training.world.recall import Recall, is_recalled

PHRASINGS = Path(__file__).parents[1] / "phrasings.json"
# Enough to see that a picture is begun; what becomes of it is another exam.
CHOICE_STEPS = 2

# So many exchanges of small talk stand before the picture that is to be described.
TALK_LENGTHS = (0, 2, 5, 10, 20)

Shown = list[tuple[Pixels, str]]


def _both_splits(room: Room, task: str, count: int, truth: str = "scenes") -> list[Example]:
    return [
        example
        for split in ("train", "test")
        for example in room.examples(task, split, count // 2, want=lambda e: bool(e.truth[truth]))
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
        truth = canonical(scene.slots)
        for split, text in by_split(scene.keys, texts[number], caption(scene), texts[others[number]]):
            slots = canonical(parse(text))
            scores.append(Score("caption_image/slots", split, scene.keys, slots == truth))
            for slot, value in truth.items():
                scores.append(Score(f"caption_image/{slot}", split, scene.keys, slots.get(slot) == value))
    return sorted(scores, key=lambda score: score.measure != "caption_image/slots"), list(
        zip(pictures, texts, strict=True)
    )


def long_talk(room: Room, count: int) -> tuple[list[Score], Shown]:
    """Examine captions late in a conversation: by how many exchanges stand before, whether all facts are right."""
    talks = room.examples("chat", "train", max(TALK_LENGTHS), want=lambda e: True)
    before = [[message for talk in talks[:length] for message in talk.messages] for length in TALK_LENGTHS]
    examples = _both_splits(room, "caption_image", max(2, count // len(TALK_LENGTHS)))
    asked = [(number, place) for place in range(len(TALK_LENGTHS)) for number in range(len(examples))]
    said: dict[int, str] = {}
    for batch in room.batches([(place, shape_of(examples[n])) for n, place in asked], label="long talk"):
        conversations = [[*before[asked[i][1]], examples[asked[i][0]].messages[0]] for i in batch]
        replies = room.candidate.generate(conversations, seed=room.seeds(batch), max_media=0)
        said |= {number: reply.text for number, reply in zip(batch, replies, strict=True)}
    others = next_of_same([example.truth["scenes"][0].layout for example in examples])
    scores = []
    for text, (number, place) in zip(collect(said), asked, strict=True):
        scene, other = (examples[n].truth["scenes"][0] for n in (number, others[number]))
        truth, slots = canonical(scene.slots), canonical(parse(text))
        measure = f"long_talk/behind_{TALK_LENGTHS[place]}"
        rights = (slots == truth, canonical(parse(caption(scene))) == truth, slots == canonical(other.slots))
        scores += [Score(measure, split, scene.keys, is_right) for split, is_right in by_split(scene.keys, *rights)]
    return scores, []


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
        names = ("question/answer", f"question/answer_{one.kind}")
        for split, text in by_split(keys, texts[number], one.answer, texts[others[number]]):
            is_right = read_answer(one.kind, text) == one.fact
            scores += [Score(name, split, keys, is_right) for name in names]
    shown = [(picture, f"{one.text} {text}") for picture, one, text in zip(pictures, asked, texts, strict=True)]
    return sorted(scores, key=lambda score: score.measure != "question/answer"), shown


def recall(room: Room, count: int) -> tuple[list[Score], Shown]:
    """Examine answers in words to questions about what was said just before, or an exchange or two earlier."""
    examples = _both_splits(room, "recall", count, truth="recall")
    asked: list[Recall] = [example.truth["recall"][0] for example in examples]
    talks = []
    for example, one in zip(examples, asked, strict=True):
        said_before = [m["role"] != "assistant" or words_of(m) != one.answer for m in example.messages]
        talks.append(example.messages[: said_before.index(False)])
    said: dict[int, str] = {}
    for batch in room.batches([""] * len(talks), label="recall"):
        replies = room.candidate.generate([talks[n] for n in batch], seed=room.seeds(batch), steps=CHOICE_STEPS)
        said |= {number: reply.text for number, reply in zip(batch, replies, strict=True)}
    texts = collect(said)
    others = next_of_same([one.key[1] for one in asked])
    scores = []
    for number, one in enumerate(asked):
        names = ("recall/answer", f"recall/answer_{one.key[1]}")
        for split, text in by_split([one.key], texts[number], one.answer, texts[others[number]]):
            scores += [Score(name, split, (one.key,), is_recalled(one, text)) for name in names]
    return sorted(scores, key=lambda score: score.measure != "recall/answer"), []


def held_out_phrasings(modalities: Collection[str] = ("image", "video", "audio")) -> list[tuple[str, str]]:
    """Read the held-out phrasings: what is said, and the modality of the answer that it asks for, "text" among them.

    Args:
        modalities: those that a model can make; what asks for another one is left out.
    """
    entries = json.loads(PHRASINGS.read_text(encoding="utf-8"))
    return [(entry["text"], entry["expects"]) for entry in entries if entry["expects"] in ("text", *modalities)]


def _spread(phrasings: list[tuple[str, str]], count: int) -> list[tuple[str, str]]:
    """Take some, evenly spread over all."""
    count = min(count, len(phrasings))
    return [phrasings[number * len(phrasings) // count] for number in range(count)]


def _taught_phrasings(room: Room, count: int) -> list[tuple[str, str]]:
    """Make phrasings as training has them, in about the proportion of the held-out ones."""
    tasks = [("text_to_image", "image", 2), ("chat", "text", 3)]
    tasks += [("text_to_video", "video", 1)] if "video" in room.modalities else []
    tasks += [(task, "audio", 0.4) for task in ("speech", "notes", "sound")] if "audio" in room.modalities else []
    whole = sum(share for _, _, share in tasks)
    return [
        (words_of(example.messages[0]), kind)
        for task, kind, share in tasks
        for example in room.examples(task, "train", max(1, round(count * share / whole)), want=lambda e: True)
    ]


def _choices(room: Room, texts: Sequence[str]) -> list[str]:
    """Return the modality of the first medium of each answer, or "text"."""
    chosen: dict[int, str] = {}
    for batch in room.batches([""] * len(texts), label="modality"):
        replies = room.candidate.generate([texts[n] for n in batch], seed=room.seeds(batch), steps=CHOICE_STEPS)
        chosen |= {number: _first_kind(reply.parts) for number, reply in zip(batch, replies, strict=True)}
    return collect(chosen)


def _first_kind(parts: Sequence[Any]) -> str:
    kinds = [type(part).__name__.lower() for part in parts]
    return next((kind for kind in kinds if kind in ("image", "video", "audio")), "text")


def modality(room: Room, count: int) -> tuple[list[Score], Shown]:
    """Examine the choice between words, pictures, films and sound: phrasings as taught (seen), held-out (unseen)."""
    scores = []
    for split, phrasings in (
        ("seen", _taught_phrasings(room, count)),
        ("unseen", _spread(held_out_phrasings(room.modalities), count)),
    ):
        chosen = _choices(room, [text for text, _ in phrasings])
        mixed = random.Random(room.seed).sample(chosen, len(chosen))
        for (text, kind), one, other in zip(phrasings, chosen, mixed, strict=True):
            pair = (("phrasing", text),)
            scores.append(Score("modality/choice", split, pair, one == kind))
            scores.append(Score("modality/choice", "shuffled", pair, other == kind))
            if split == "unseen":
                scores.append(Score(f"modality/choice_{kind}", split, pair, one == kind))
    return scores, []
