"""Conversations in words about what was just said: what is where, is called what, how many, in which order.

Nothing in them is true outside the talk, so whoever answers has to look up what was said, and cannot know it by heart.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from training.world.conversation import Talk
from training.world.held_out import Key, Split, split_of
from training.world.language import NUMBER_WORDS, place_phrase, sentence
from training.world.pack import Concept, concepts
from training.world.phrases import phrases, small_talk, vary
from training.world.scene import PLACES, PLAIN_BACKGROUNDS
from training.world.talk import talk

__all__ = ["RECALL_TASKS", "Recall", "is_recalled"]


@dataclass(frozen=True)
class Recall:
    """A question for something that was said.

    Args:
        text: of the question.
        answer: in words.
        fact: the words of the answer that count.
        others: what was said too and would be wrong.
        key: the combination that is asked for.
    """

    text: str
    answer: str
    fact: str
    others: tuple[str, ...]
    key: Key


Told = tuple[str, list[Recall]]  # what is said, and what can be asked about it


def _listed(parts: list[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]


def _things(rng: random.Random, least: int = 2) -> list[Concept]:
    count = rng.choices((2, 3, 4), (5, 3, 1))[0]
    return [concepts()[name] for name in rng.sample(tuple(concepts()), max(count, least))]


def _both_ways(
    kind: str, pairs: list[tuple[str, str]], ask: Callable[[str, str], tuple[str, str, str, str]]
) -> list[Recall]:
    """Ask for the second of each pair by the first, and for the first by the second.

    Args:
        ask: returns question and answer of the one, and of the other.
    """
    asked = []
    for one, other in pairs:
        there, answer, back, answer_back = ask(one, other)
        firsts, seconds = (tuple({pair[i] for pair in pairs} - {(one, other)[i]}) for i in (0, 1))
        asked.append(Recall(there, answer, other, seconds, ("recall", kind, one, other)))
        asked.append(Recall(back, answer_back, one, firsts, ("recall", kind, other, one)))
    return asked


def _places(rng: random.Random) -> Told:
    things = _things(rng)
    spots = [place_phrase(place) for place in rng.sample(tuple(PLACES), len(things))]
    pairs = [(thing.name, at) for thing, at in zip(things, spots, strict=True)]
    frame = rng.choice(("{}", "there is {}", "I see {}", "in the picture is {}", "I drew {}"))
    every = [(thing.one, *pair) for thing, pair in zip(things, pairs, strict=True)]
    told = sentence(frame.format(_listed([f"{one} {at}" for one, _, at in every])))
    asked = _both_ways(
        "place",
        pairs,
        lambda name, at: (
            rng.choice(("Where is the {}?", "Where did I say the {} is?", "Where is the {} now?")).format(name),
            f"The {name} is {at}.",
            rng.choice(("What is {}?", "Which one is {}?", "What did I say is {}?")).format(at),
            f"The {name}.",
        ),
    )
    for (name, _), (left, at) in (pairs, pairs[::-1]) if len(pairs) == 2 else ():
        text = rng.choice(
            ("Take the {} away. What is left?", "What is left without the {}?", "The {} goes. What stays?")
        )
        key = ("recall", "left", name, left)
        asked.append(Recall(text.format(name), f"The {left} {at}.", f"{left} {at}", (name,), key))
        text = rng.choice(("And without the {}?", "Now without the {}.", "The same without the {}, please."))
        parts = [f"{one} {f'stays {where}' if thing == left else 'goes'}" for one, thing, where in every]
        whole = sentence(", ".join(parts))
        asked.append(Recall(text.format(name), whole, f"{left} stays {at}", (), key))
    return told, asked


def _names(rng: random.Random) -> Told:
    things = _things(rng)
    pairs = list(zip([thing.name for thing in things], rng.sample(phrases("first_names"), len(things)), strict=True))
    is_mine = rng.random() < 0.6
    mine, yours = ("my", "your") if is_mine else ("the", "the")
    verb = rng.choice(("is called", "is called", "has the name", "is named"))
    told = sentence(_listed([f"{mine} {name} {verb} {called}" for name, called in pairs]))
    return told, _both_ways(
        "name",
        pairs,
        lambda name, called: (
            rng.choice(("What is {} {} called?", "What is the name of {} {}?")).format(mine, name),
            sentence(f"{yours} {name} is called {called}"),
            rng.choice(("Who is {}?", "Which one is called {}?", "What is {}?")).format(called),
            f"{called} is {yours} {name}.",
        ),
    )


def _colors(rng: random.Random) -> Told:
    things = _things(rng)
    colors = rng.sample(tuple(PLAIN_BACKGROUNDS), len(things))
    pairs = list(zip([thing.name for thing in things], colors, strict=True))
    told = sentence(_listed([f"the {name} is {color}" for name, color in pairs]))
    return told, _both_ways(
        "color",
        pairs,
        lambda name, color: (
            rng.choice(("What color is the {}?", "What color has the {}?", "Which color did I say the {} is?")).format(
                name
            ),
            f"The {name} is {color}.",
            rng.choice(("What is {}?", "Which one is {}?", "What did I say is {}?")).format(color),
            f"The {name} is {color}.",
        ),
    )


def _numbers(rng: random.Random) -> Told:
    things = _things(rng)
    numbers = rng.sample(tuple(NUMBER_WORDS.values()), len(things))
    pairs = [(thing.plural, number) for thing, number in zip(things, numbers, strict=True)]
    told = sentence(f"I {rng.choice(('have', 'bought', 'saw', 'drew'))} {_listed([f'{k} {s}' for s, k in pairs])}")
    return told, _both_ways(
        "number",
        pairs,
        lambda plural, number: (
            rng.choice(("How many {}?", "How many {} did I say?", "How many {} are there?")).format(plural),
            f"{number.capitalize()} {plural}.",
            rng.choice(("What are there {} of?", "Of what did I say {}?")).format(number),
            f"{number.capitalize()} {plural}.",
        ),
    )


def _order(rng: random.Random) -> Told:
    names = [thing.name for thing in _things(rng, least=3)]
    told = sentence(rng.choice(("{}", "my list: {}", "remember: {}")).format(", ".join(names)))
    asked = []
    for before, after in zip(names, names[1:], strict=False):
        key = ("recall", "order", before, after)
        rest = tuple(name for name in names if name not in (before, after))
        there = rng.choice(("What comes after the {}?", "What follows the {}?")).format(before)
        asked.append(Recall(there, f"The {after} comes after the {before}.", f"the {after} comes", rest, key))
        back = f"What comes before the {after}?"
        asked.append(Recall(back, f"The {before} comes before the {after}.", f"the {before} comes", rest, key))
    for word, name in (("first", names[0]), ("last", names[-1])):
        rest = tuple(other for other in names if other != name)
        asked.append(Recall(f"What is {word}?", f"The {name} is {word}.", name, rest, ("recall", word, *names)))
    return told, asked


def _secret(rng: random.Random) -> Told:
    kind = rng.choice(("word", "number", "name", "friend"))
    if kind == "number":
        value = str(rng.randrange(10, 10 ** rng.choice((2, 3, 4))))
    else:
        value = rng.choice(phrases("unknown" if kind == "word" else "first_names"))
    mine, yours, what = {
        "word": ("the secret word is", "the secret word is", "What is the secret word?"),
        "number": ("my number is", "your number is", "What is my number?"),
        "name": ("my name is", "your name is", rng.choice(("What is my name?", "Who am I?", "What am I called?"))),
        "friend": ("my friend is called", "your friend is called", "What is my friend called?"),
    }[kind]
    asked = Recall(what, sentence(f"{yours} {value}"), value, (), ("recall", kind, value))
    return sentence(f"{mine} {value}"), [asked]


def _repeat(rng: random.Random) -> Told:
    if rng.random() < 0.5:
        words = rng.choice(small_talk()[0]).rstrip(".?!")
    else:
        words = ", ".join(thing.name for thing in _things(rng))
    asked = Recall("What did I say?", f"You said: {words}.", words, (), ("recall", "repeat", words))
    return sentence(words), [asked]


KINDS: dict[Callable[[random.Random], Told], int] = {
    _places: 6, _names: 3, _colors: 3, _numbers: 2, _order: 2, _secret: 2, _repeat: 2,
}  # fmt: skip


def _recall(rng: random.Random, split: Split) -> Talk:
    """Tell something, and ask for it: at once, or after other talk; then perhaps for more of it."""
    asked: list[Recall] = []
    while not asked:
        told, every = rng.choices(tuple(KINDS), tuple(KINDS.values()))[0](rng)
        asked = [recall for recall in every if split_of(*recall.key) == split]
    asked = rng.sample(asked, min(len(asked), rng.choices((1, 2, 3, 4), (3, 3, 2, 2))[0]))
    talk_ = Talk()
    opening = f"{told} "
    if rng.random() < 0.35:
        talk_.say("user", told)
        talk_.say("assistant", rng.choice(phrases("understood")))
        opening = ""
        if rng.random() < 0.3:
            exchange = talk(rng)
            talk_.say("user", exchange.said)
            talk_.say("assistant", exchange.answer)
    for recall in asked:
        text = opening + recall.text
        talk_.say("user", vary(rng, text) if not opening else text, keys=(recall.key,))
        talk_.say("assistant", recall.answer)
        opening = ""
    talk_.truth["recall"] = asked
    return talk_


RECALL_TASKS: dict[str, Callable[[random.Random, Split], Talk]] = {"recall": _recall}


def is_recalled(recall: Recall, answer: str) -> bool:
    """Tell whether an answer holds what was asked for, and nothing else that was said in its place."""
    words = f" {' '.join(re.findall(r'[a-z0-9]+', answer.lower()))} "

    def holds(text: str) -> bool:
        return f" {' '.join(re.findall(r'[a-z0-9]+', text.lower()))} " in words

    words_of_fact = f" {recall.fact.lower()} "
    wrong = [other for other in recall.others if f" {other.lower()} " not in words_of_fact]
    return holds(recall.fact) and not any(holds(other) for other in wrong)
