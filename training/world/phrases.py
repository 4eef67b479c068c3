"""The phrasings kept in training/world/data: phrases*.txt by section, chat.txt, small_talk.txt."""

import random
import re
from functools import cache

from training.world.pack import DATA

__all__ = ["exchanges", "phrases", "small_talk", "vary"]


OPENED, CLOSED = 0.1, 0.12  # of all sentences


@cache
def _sections(file: str) -> dict[str, tuple[str, ...]]:
    sections: dict[str, list[str]] = {"": []}
    name = ""
    for line in (DATA / file).read_text(encoding="utf-8").splitlines():
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            name = heading[1]
        elif line and not line.startswith("# "):
            sections.setdefault(name, []).append(line)
    return {name: tuple(lines) for name, lines in sections.items()}


@cache
def _all_sections() -> dict[str, tuple[str, ...]]:
    files = [_sections(path.name) for path in sorted(DATA.glob("phrases*.txt"))]
    names = [name for sections in files for name in sections if name]
    twice = {name for name in names if names.count(name) > 1}
    assert not twice, f"sections stand in two files: {sorted(twice)}"
    return {name: lines for sections in files for name, lines in sections.items()}


def phrases(section: str) -> tuple[str, ...]:
    """The phrasings of one section of the files phrases*.txt, a frequent one several times."""
    return _all_sections()[section]


@cache
def exchanges() -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
    """Small talk: pairs of (what people say, what the model answers), each in several phrasings."""
    sides = [line.split(" => ") for line in _sections("chat.txt")[""]]
    return tuple((tuple(said.split(" | ")), tuple(answers.split(" | "))) for said, answers in sides)


@cache
def small_talk() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What people say of their lives, and the answers that fit whatever was said."""
    lines = (DATA / "small_talk.txt").read_text(encoding="utf-8").splitlines()
    return tuple(lines), _sections("chat.txt")["answers"]


def vary(rng: random.Random, text: str) -> str:
    """Type a sentence as people do: in lower case, without its full stop, with a please, a greeting before it.

    Behind some stands another sentence, which asks for nothing.
    """
    aside = random.Random(hash(rng.getstate()[1]))  # leaves the draws of rng, and so the documents, as they are
    if rng.random() < OPENED:
        opening = rng.choice(phrases("opening"))
        goes_on = opening[-1] in ",:" and not re.match(r"I\b", text)
        text = f"{opening} {text[:1].lower() + text[1:] if goes_on else text}"
    elif rng.random() < 0.05 and "please" not in text.lower() and text.endswith("."):
        text = f"{text[:-1]}, please."
    if aside.random() < CLOSED:
        text = f"{text}{'' if text[-1] in '.?!' else '.'} {aside.choice(phrases('closing'))}"
    draw = rng.random()
    if draw < 0.3:
        text = text.lower()
    elif draw < 0.31:
        text = text.upper()
    elif draw < 0.8:
        text = text[:1].upper() + text[1:]
    draw = rng.random()
    if draw < 0.3:
        text = text.rstrip(".?!")
    elif draw < 0.36:
        text = text.rstrip(".") + ("!" if text[-1:] not in "?!" else "")
    return text
