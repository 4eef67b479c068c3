"""Exams about films in words: captions and questions."""

from collections.abc import Sequence

from omni.parts import Video
from training.exams.films import Shown, both_splits, strip
from training.exams.room import Room, as_given, by_split, collect, films_of, next_of_same
from training.scores import Score
from training.world.conversation import Example
from training.world.film_language import film_caption, parse_film
from training.world.film_questions import read_film_answer
from training.world.motion import Film
from training.world.questions import Question

# Nothing is drawn in an answer.
FEW_STEPS = 2


def _films(examples: Sequence[Example]) -> list[Film]:
    return [example.truth["films"][0] for example in examples]


def caption_video(room: Room, count: int) -> tuple[list[Score], Shown]:
    """Examine captions: one is right when it states all facts of the film and no other; single facts beside it."""
    examples = both_splits(room, "caption_video", count)
    films = _films(examples)
    clips = [films_of(example.messages[0])[0] for example in examples]
    said: dict[int, str] = {}
    for batch in room.batches([""] * len(examples), label="caption"):
        videos = [Video(clips[number], films[number].fps) for number in batch]
        said |= dict(zip(batch, room.candidate.caption(videos, seed=room.seeds(batch)), strict=True))
    texts = collect(said)
    others = next_of_same([len(film.actors) for film in films])
    scores = []
    for number, film in enumerate(films):
        for split, text in by_split(film.keys, texts[number], film_caption(film), texts[others[number]]):
            slots = parse_film(text)
            scores.append(Score("caption_video/slots", split, film.keys, slots == film.slots))
            for slot, value in film.slots.items():
                scores.append(Score(f"caption_video/{slot}", split, film.keys, slots.get(slot) == value))
    shown = [(strip(clip), text) for clip, text in zip(clips, texts, strict=True)]
    return sorted(scores, key=lambda score: score.measure != "caption_video/slots"), shown


def question_video(room: Room, count: int) -> tuple[list[Score], Shown]:
    """Examine answers to questions about a film."""
    examples = both_splits(room, "question_video", count)
    asked: list[Question] = [example.truth["question"] for example in examples]
    said: dict[int, str] = {}
    for batch in room.batches([""] * len(examples), label="question"):
        conversations = [
            [{"role": "user", "content": [as_given(item) for item in examples[number].messages[0]["content"]]}]
            for number in batch
        ]
        replies = room.candidate.generate(conversations, seed=room.seeds(batch), steps=FEW_STEPS)
        said |= {number: reply.text for number, reply in zip(batch, replies, strict=True)}
    texts = collect(said)
    others = next_of_same([one.kind for one in asked])
    scores = []
    for number, (film, one) in enumerate(zip(_films(examples), asked, strict=True)):
        names = ("question_video/answer", f"question_video/answer_{one.kind}")
        for split, text in by_split(film.keys, texts[number], one.answer, texts[others[number]]):
            is_right = read_film_answer(one.kind, text) == one.fact
            scores += [Score(name, split, film.keys, is_right) for name in names]
    clips = [films_of(example.messages[0])[0] for example in examples]
    shown = [(strip(clip), f"{one.text} {text}") for clip, one, text in zip(clips, asked, texts, strict=True)]
    return sorted(scores, key=lambda score: score.measure != "question_video/answer"), shown
