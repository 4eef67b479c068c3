"""Conversation in words alone: greetings, capabilities, definitions, simple facts, refusals."""

import random
from dataclasses import dataclass

from training.world.language import with_article
from training.world.pack import Concept, concepts
from training.world.phrases import exchanges, phrases, small_talk, vary

__all__ = ["Exchange", "define", "talk"]


@dataclass(frozen=True)
class Exchange:
    """One thing said and the answer to it.

    Args:
        kind: "exchange", "definition", "unknown", "small_talk" or "no_picture".
        topic: the concept or word that a definition is about, else "".
    """

    kind: str
    said: str
    answer: str
    topic: str = ""


def define(concept: Concept) -> str:
    """Define a concept in one sentence."""
    return f"{concept.one.capitalize() if concept.name != 'ufo' else 'A ufo'} is {concept.gloss}."


def _definition(rng: random.Random) -> Exchange:
    concept = concepts()[rng.choice(tuple(concepts()))]
    group = {"animals": "an animal", "foods": "a food"}.get(concept.group)
    frames = [frame for frame in phrases("what_is") if group or "{group}" not in frame]
    said = rng.choice(frames).format(x=concept.one, n=concept.name, s=concept.plural, group=group)
    return Exchange("definition", said, define(concept), concept.name)


def _unknown(rng: random.Random) -> Exchange:
    word = rng.choice(phrases("unknown"))
    x = with_article(word)
    frame = rng.choice([frame for frame in phrases("what_is") if "{s}" not in frame and "{group}" not in frame])
    return Exchange("unknown", frame.format(x=x, n=word), phrases("unknown_reply")[0].format(x=x), word)


def talk(rng: random.Random) -> Exchange:
    """Say something that is answered in words, and the answer."""
    draw = rng.random()
    if draw < 0.45:
        ways, answers = rng.choice(exchanges())
        if rng.random() < 0.35:  # the first lines of the file are what people say most
            ways, answers = exchanges()[int(rng.random() ** 2 * 30)]
        exchange = Exchange("exchange", rng.choice(ways), rng.choice(answers))
    elif draw < 0.77:
        exchange = _definition(rng)
    elif draw < 0.83:
        exchange = _unknown(rng)
    elif draw < 0.94:
        lines, answers = small_talk()
        return Exchange("small_talk", rng.choice(lines), rng.choice(answers))
    else:
        answer = "I do not see a picture. Please give me one."
        exchange = Exchange("no_picture", rng.choice(phrases("no_picture")), answer)
    mark = "?" if exchange.said.split()[0] in QUESTION_WORDS else "." if len(exchange.said.split()) > 1 else ""
    said = exchange.said if exchange.said[-1] in ".?!" else exchange.said + mark
    return Exchange(exchange.kind, vary(rng, said), exchange.answer, exchange.topic)


QUESTION_WORDS = frozenset(
    "what who how where when why which are is do does can will should may have has did could would".split()
)
