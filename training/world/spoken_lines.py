"""The sentences that the voices of the omni world speak, and the phrases of which they are made.

A voice has said every phrase once, and says a sentence phrase by phrase: "the fox", "slides to the left".
"""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from training.world.pack import DATA

__all__ = ["Line", "lines", "phrases_spoken"]

Line = tuple[str, ...]  # phrases in the order in which they are said

COLOURS = ("red", "green", "blue", "yellow", "white", "black", "pink", "orange")  # "gray" sounds like "great"
GROUNDS = (
    *(f"is on {colour}" for colour in COLOURS), "is in the sky", "is on the grass", "is in the sea", "is at night",
    "is in the snow",
)  # fmt: skip
COUNTS = ("two", "some", "three", "four", "five")
DEEDS = ("bounces", "falls", "rolls", "spins", "grows", "shrinks", "shakes", "jumps", "fades away",
         "slides to the left", "slides to the right", "slides up", "slides down", "moves in a circle")  # fmt: skip
RELATIONS = ("is to the left of", "is to the right of", "is above", "is below")
BEFORE_ONE = ("draw", "I see", "here is", "this is", "what is", "show me", "I have")
BEFORE_THE = ("where is", "look at")
BEFORE_MANY = ("I like", "there are")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
TALK = (
    "hello", "hello there", "hi", "good morning", "good evening", "good night", "good day", "how are you",
    "I am fine", "I am happy", "thank you", "thanks a lot", "you are welcome", "yes", "no", "maybe", "please",
    "yes please", "no thank you", "goodbye", "see you soon", "see you later", "bye bye", "welcome", "nice to meet you",
    "what is your name", "my name is Omni", "I can draw", "I can speak", "I can sing", "I can play the piano",
    "what can you do", "tell me a story", "sing a song", "one moment please", "here you are", "of course", "I am sorry",
    "excuse me", "have a nice day", "good job", "well done", "that is great", "let us go", "come here", "stop", "go on",
    "look at me", "listen to me", "I am here", "where are you", "it is late", "it is cold", "it is hot",
    "happy birthday", "good luck", "the end", "once upon a time", "are you ready", "I am ready", "what a nice day",
)  # fmt: skip


def _of_concept(concept: dict[str, Any], others: list[str]) -> Iterator[Line]:
    one, the, many = f"{concept['article']} {concept['name']}", f"the {concept['name']}", concept["plural"]
    yield (one,)
    yield from ((start, one) for start in BEFORE_ONE)
    yield from ((start, the) for start in BEFORE_THE)
    yield from ((start, many) for start in (*BEFORE_MANY, *COUNTS))
    yield from ((the, end) for end in (*DEEDS, *GROUNDS, *(f"is {colour}" for colour in COLOURS)))
    yield from ((the, relation, f"the {other}") for relation, other in zip(RELATIONS, others, strict=True))


@cache
def lines() -> dict[str, Line]:
    """Return every sentence with its phrases, in a fixed order; no capitals but in names and "I", no full stop."""
    concepts = json.loads((DATA / "concepts.json").read_text(encoding="utf-8"))
    names = [concept["name"] for concept in concepts]
    found: list[Line] = []
    for place, concept in enumerate(concepts):
        found += _of_concept(concept, [names[(place + step) % len(names)] for step in (7, 19, 31, 53)])
    found += [(text,) for text in (*TALK, *COLOURS, *NUMBERS)]
    found += [
        tuple(NUMBERS[(k + step * i) % len(NUMBERS)] for i in range(3)) for step in range(1, 13) for k in range(13)
    ]
    return {" ".join(line): line for line in found}


@cache
def phrases_spoken() -> dict[str, int]:
    """Return every phrase with the number of its recording."""
    return {phrase: number for number, phrase in enumerate(dict.fromkeys(p for line in lines().values() for p in line))}
