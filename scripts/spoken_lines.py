"""The sentences that the voices of the omni world speak: which ones, decided by hashes of what they are about."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

CONCEPTS = Path(__file__).resolve().parents[1] / "training" / "world" / "data" / "concepts.json"
COLOURS = ("red", "green", "blue", "yellow", "white", "black", "pink", "orange")  # "gray" sounds like "great"
GROUNDS = (
    *(f"on {colour}" for colour in COLOURS), "in the sky", "on the grass", "in the sea", "at night", "in the snow",
)  # fmt: skip
COUNTS = ("two", "some", "three", "four", "five")
DEEDS = ("bounces", "falls", "rolls", "spins", "grows", "shrinks", "shakes", "jumps", "fades away",
         "slides to the left", "slides to the right", "slides up", "slides down", "moves in a circle")  # fmt: skip
RELATIONS = ("to the left of", "to the right of", "above", "below")
FRAMES = ("I see {one}", "here is {one}", "this is {one}", "I like {many}", "where is the {name}", "what is {one}",
          "show me {one}", "look at the {name}", "I have {one}", "there are {many}")  # fmt: skip
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


def hashed(*words: str) -> int:
    """Turn words into a number that nobody chose."""
    return int(hashlib.sha1("|".join(words).encode(), usedforsecurity=False).hexdigest(), 16)


def choose(options: Sequence[Any], *words: str) -> Any:
    """Choose one option by hash."""
    return options[hashed(*words) % len(options)]


def _of_concept(concept: dict[str, Any], names: Sequence[str]) -> Iterator[str]:
    name, many = concept["name"], concept["plural"]
    one = f"{concept['article']} {name}"
    yield one
    yield f"draw {one}"
    yield f"{choose(COUNTS[:2], 'few', name)} {many}"
    yield f"{choose(COUNTS[2:], 'count', name)} {many}"
    yield f"the {name} {choose(DEEDS, 'deed', name)}"
    yield f"the {name} is {choose(GROUNDS, 'ground', name)}"
    yield f"the {name} is {choose(COLOURS, 'colour', name)}"
    yield choose(FRAMES, "frame", name).format(one=one, many=many, name=name)
    if hashed("relation?", name) % 4 == 0:
        yield f"the {name} is {choose(RELATIONS, 'relation', name)} the {choose(names, 'other', name)}"


def lines() -> list[str]:
    """Return every sentence once, in a fixed order; no capitals but in names and "I", no full stop."""
    concepts = json.loads(CONCEPTS.read_text(encoding="utf-8"))
    names = [concept["name"] for concept in concepts]
    found = [line for concept in concepts for line in _of_concept(concept, names)]
    found += [*TALK, *COLOURS, *NUMBERS]
    found += [f"{NUMBERS[k]} {NUMBERS[k + 1]} {NUMBERS[k + 2]}" for k in range(len(NUMBERS) - 2)]
    found += [" ".join(choose(NUMBERS, "digits", str(k), str(place)) for place in range(3)) for k in range(20)]
    return list(dict.fromkeys(found))
