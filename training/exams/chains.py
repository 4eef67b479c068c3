"""The exam of conversations: a picture is drawn, then changed, behind whatever was said before."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from omni.parts import Image
from training.exams.films import Shown
from training.exams.pictures import DRAWING_RULES, SMALLEST_REST, is_changed, is_unharmed, untouched
from training.exams.room import Pixels, Room, by_split, collect, next_of_same, pictures_of, shape_of, words_of
from training.judges.views import View
from training.scores import Score
from training.world.conversation import Example
from training.world.edits import Edit

# Every second conversation begins with so many exchanges of small talk.
TALK_BEFORE = 4
SQUARE = (64, 64)
# Rules of a drawing that are left out: things are told by template alone, and their style is not what chains are about.
NOT_JUDGED = ("thing", "other", "style")


@dataclass(frozen=True, eq=False)
class Chain:
    """One question: draw, then change.

    Args:
        example: the conversation it comes from.
        before: messages in front of the wish.
        wish: the message that asks for the picture.
        drawn: the true picture.
        asked: slots that the wish names.
        instruction: the message that asks for the change.
        edit: the change.
        changed: the picture after it.
    """

    example: Example
    before: list[dict[str, Any]]
    wish: dict[str, Any]
    drawn: Pixels
    asked: dict[str, Any]
    instruction: dict[str, Any]
    edit: Edit
    changed: Pixels


def _place(example: Example) -> int:
    """Return the number of the turn that draws what the next one changes; -1 where there is none."""
    turns = example.truth["turns"]
    for number, ((kind, value), (following, _)) in enumerate(zip(turns, turns[1:], strict=False)):
        if (kind, following) == ("asked", "edit") and "thing" in value:
            return number
    return -1


def _is_wanted(example: Example) -> bool:
    return shape_of(example) == SQUARE and _place(example) >= 0


def _chain(example: Example, talk: list[dict[str, Any]]) -> Chain:
    place, turns = _place(example), example.truth["turns"]
    wish, answer, instruction, change = example.messages[2 * place : 2 * place + 4]
    return Chain(
        example,
        [*talk, *example.messages[: 2 * place]],
        wish,
        pictures_of(answer)[0],
        turns[place][1],
        instruction,
        turns[place + 1][1],
        pictures_of(change)[0],
    )


def _pictures(replies: Sequence[Any]) -> list[Pixels]:
    """Return the first picture of every reply, black where none came or one of another size."""
    black = np.zeros((*SQUARE, 3), np.uint8)
    found = (next((part.pixels for part in reply.parts if isinstance(part, Image)), black) for reply in replies)
    return [picture if picture.shape == black.shape else black for picture in found]


def _hold(room: Room, chains: Sequence[Chain]) -> list[tuple[Pixels, Pixels]]:
    """Hold the conversations: what was drawn, and what became of it."""
    made: dict[int, tuple[Pixels, Pixels]] = {}
    for batch in room.batches([len(chain.before) for chain in chains], label="chain"):
        talks = [[*chains[number].before, chains[number].wish] for number in batch]
        drawn = room.candidate.generate(talks, seed=room.seeds(batch))
        talks = [
            [*talk, reply.message, chains[number].instruction]
            for talk, reply, number in zip(talks, drawn, batch, strict=True)
        ]
        changed = room.candidate.generate(talks, seed=room.seeds([number + len(chains) for number in batch]))
        made |= dict(zip(batch, zip(_pictures(drawn), _pictures(changed), strict=True), strict=True))
    return collect(made)


def _is_drawn(view: View, asked: dict[str, Any]) -> bool:
    """Tell whether everything that was asked for is in a picture, the thing by its looks."""
    rules = [rule for name, (slot, rule) in DRAWING_RULES.items() if slot in asked and name not in NOT_JUDGED]
    return all(rule(view, asked, "") for rule in rules)


def _views(room: Room, chains: Sequence[Chain], pictures: Sequence[Pixels]) -> list[View]:
    scenes = [chain.edit.source for chain in chains]
    styles = [chain.asked.get("style", "") for chain in chains]
    return room.judges.view(pictures, styles=styles, things=[2 if scene.relation else 1 for scene in scenes])


def chain(room: Room, count: int) -> tuple[list[Score], Shown]:
    """Examine drawing and changing within a conversation; a change is judged where the drawing was right."""
    talk = [m for e in room.examples("chat", "train", TALK_BEFORE, want=lambda e: True) for m in e.messages]
    examples = [
        example
        for split in ("train", "test")
        for example in room.examples("dialogue", split, count // 2, want=_is_wanted)
    ]
    chains = [_chain(example, talk if number % 2 else []) for number, example in enumerate(examples)]
    held = _hold(room, chains)
    drawn, changed = [first for first, _ in held], [second for _, second in held]
    truths = room.through_codec([one.drawn for one in chains]), room.through_codec([one.changed for one in chains])
    codecs, real_codecs = room.through_codec(drawn), room.through_codec(truths[0])
    views, real_views = _views(room, chains, drawn), _views(room, chains, truths[0])
    afters, real_afters = (
        room.judges.view(ones, styles=[""] * len(ones), things=[0] * len(ones)) for ones in (changed, truths[1])
    )
    others = next_of_same([one.edit.operation for one in chains])
    scores: list[Score] = []
    for number, one in enumerate(chains):
        keys, other = tuple(one.example.truth["keys"]), others[number]
        rest = untouched(one.drawn, one.changed)
        mine = (views[number], afters[number], drawn[number], changed[number], codecs[number])
        real = (real_views[number], real_afters[number], truths[0][number], truths[1][number], real_codecs[number])
        wrong = (views[other], afters[other], drawn[number], changed[other], codecs[number])
        for split, (view, after, first, second, codec) in by_split(keys, mine, real, wrong):
            is_drawn = _is_drawn(view, one.asked)
            scores.append(Score("chain/drawn", split, keys, is_drawn))
            behind = "talk" if one.before else "nothing"
            scores.append(Score(f"chain/drawn_behind_{behind}", split, keys, is_drawn))
            if not is_drawn and split != "shuffled":
                continue
            scores.append(Score("chain/changed", split, keys, is_changed(after, one.edit)))
            if rest.mean() >= SMALLEST_REST:
                is_right = is_unharmed(second, before=first, codec=codec, rest=rest)
                scores.append(Score("chain/unharmed", split, keys, is_right))
    shown = []
    for one, first, second in zip(chains, drawn, changed, strict=True):
        shown += [(first, words_of(one.wish)), (second, words_of(one.instruction))]
    return sorted(scores, key=lambda score: score.measure), shown
