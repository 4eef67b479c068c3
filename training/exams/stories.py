"""The exam of stories: is the character the same across the beats, and is every sentence true of its picture?"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omni.parts import Image, Text, Video
from training.exams.films import Shown
from training.exams.room import Pixels, Room, by_split, collect, next_of_same, split_name, words_of
from training.judges.motion import film_verb
from training.judges.views import View
from training.scores import Score
from training.world.conversation import Example
from training.world.film_language import parse_film
from training.world.held_out import Key
from training.world.language import parse
from training.world.stories import Story

GONE = re.compile(r"\b(went away|went home|goodbye)\b")
BIG_OR_SMALL = re.compile(r"\b(?:became|grew) (?:very )?(big|small)\b")
MOST_BEATS = 6


@dataclass(frozen=True, eq=False)
class Told:
    """One beat as it was told.

    Args:
        sentence: the words before the picture.
        frames: uint8, [F, H, W, 3]; a picture is one frame.
    """

    sentence: str
    frames: Pixels


def beats_of(parts: Sequence[Any]) -> list[Told]:
    """Read an answer as beats: every picture or film with the words before it."""
    beats, words = list[Told](), ""
    for part in parts:
        if isinstance(part, Text):
            words = f"{words} {part.text}".strip()
        elif isinstance(part, Image | Video):
            frames = part.pixels[None] if isinstance(part, Image) else part.frames
            beats.append(Told(words, frames))
            words = ""
    return beats[:MOST_BEATS]


def _number_of_things(sentence: str) -> int:
    return 2 if "other" in parse(sentence) and not GONE.search(sentence) else 1


def is_true(told: Told, sentence: str, view: View, seed: str) -> bool:
    """Tell whether a picture, or film, shows what a sentence says.

    Args:
        told: the beat.
        sentence: its own, or another one's.
        view: of its first frame, with as many things as its own sentence names.
        seed: draws the alternatives of the features judge.
    """
    slots, sight = parse(sentence), view.sight
    claims = []
    if "background" in slots:
        claims.append(sight.background == slots["background"])
    if GONE.search(sentence):
        claims.append(len(sight.things) == 1)
    elif "other" in slots:
        claims.append(len(sight.things) == 2 and view.is_identified(str(slots["other"]), seed=seed))
    if size := BIG_OR_SMALL.search(sentence):
        claims.append(bool(sight.things) and sight.things[0].size == size[1])
    elif "place" in slots:
        claims.append(bool(sight.things) and sight.things[0].place == slots["place"])
    # Of a film its verb is told, and no more.
    if len(told.frames) > 1 and (verb := parse_film(sentence).get("verb")):
        claims = [film_verb(told.frames, sight.things[:1])[0] == verb]
    elif not claims and "thing" in slots:
        claims.append(view.is_identified(str(slots["thing"]), seed=seed) or view.is_matched(str(slots["thing"])))
    return bool(claims) and all(claims)


def _views(room: Room, tellings: Sequence[Sequence[Told]], styles: Sequence[str]) -> list[list[View]]:
    flat = [(beat, style) for beats, style in zip(tellings, styles, strict=True) for beat in beats]
    seen = iter(
        room.judges.view(
            [beat.frames[0] for beat, _ in flat],
            styles=[style for _, style in flat],
            things=[_number_of_things(beat.sentence) for beat, _ in flat],
        )
    )
    return [[next(seen) for _ in beats] for beats in tellings]


def is_same_character(views: Sequence[View], concept: str, seed: str) -> bool:
    """Tell whether a character is in all pictures of a story, of two at least."""
    found = [view.is_identified(concept, seed=seed) or view.is_matched(concept) for view in views]
    return len(found) >= 2 and all(found)


def _real(example: Example, room: Room) -> list[Told]:
    told: Story = example.truth["story"]
    media = [
        item["image"][None] if item["type"] == "image" else item["frames"]
        for item in example.messages[1]["content"]
        if item["type"] != "text"
    ]
    return [Told(beat.sentence, frames) for beat, frames in zip(told.beats, room.through_codec(media), strict=True)]


def wish_keys(example: Example) -> tuple[Key, ...]:
    """Return the combinations that a wish names; a character alone is always one that training has."""
    asked = example.truth["asked"]
    return tuple((slot, asked["thing"], asked[slot]) for slot in ("style", "background") if slot in asked)


def _is_wanted(example: Example) -> bool:
    if "thing" not in example.truth["asked"]:
        return False
    return bool(example.truth["held_out"]) == (split_name(wish_keys(example)) == "unseen")


def story(room: Room, count: int) -> tuple[list[Score], Shown]:
    """Examine stories: half of the wishes name a combination that training never saw."""
    examples = [
        example for split in ("train", "test") for example in room.examples("story", split, count // 2, want=_is_wanted)
    ]
    answers: dict[int, list[Told]] = {}
    for batch in room.batches([""] * len(examples), label="story"):
        wishes = [words_of(examples[number].messages[0]) for number in batch]
        replies = room.candidate.generate(wishes, seed=room.seeds(batch))
        answers |= {number: beats_of(reply.parts) for number, reply in zip(batch, replies, strict=True)}
    tellings, reals = collect(answers), [_real(example, room) for example in examples]
    views = _views(room, tellings, [example.truth["asked"].get("style", "") for example in examples])
    real_views = _views(room, reals, [example.truth["story"].style for example in examples])
    scores: list[Score] = []
    others = next_of_same([""] * len(examples))
    for number, example in enumerate(examples):
        concept, other = (examples[one].truth["asked"]["thing"] for one in (number, others[number]))
        keys, seed = wish_keys(example), str(number)
        trio = ((tellings[number], views[number], concept, tellings[number]),
                (reals[number], real_views[number], concept, reals[number]),
                (tellings[number], views[number], other, tellings[others[number]]))  # fmt: skip
        for kind, (told, seen, who, sentences) in by_split(keys, *trio):
            scores.append(Score("story/character", kind, keys, is_same_character(seen, who, seed)))
            trues = [
                is_true(beat, spoken.sentence, view, seed)
                for beat, view, spoken in zip(told, seen, sentences, strict=False)
            ] or [False]
            scores += [Score("story/events", kind, keys, is_right) for is_right in trues]
            scores.append(Score("story/events_all", kind, keys, all(trues)))
    shown = [(beat.frames[0], beat.sentence) for beats in tellings for beat in beats]
    return sorted(scores, key=lambda score: score.measure), shown
