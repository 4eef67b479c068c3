"""Exams of sound: speaking, playing, sounding, hearing; with films they are in sounding_films.py."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni.parts import Audio
from training.exams.listening import errors_in_row, hear_in_rows, heard_words
from training.exams.room import (
    Room,
    as_given,
    by_split,
    collect,
    next_of_same,
    pictures_of,
    shape_of,
    split_name,
    with_of_real,
    words_of,
)
from training.judges.fetched import mono, resample
from training.judges.notes import notes_of
from training.judges.sounds import classify
from training.scores import Score
from training.world.conversation import Example
from training.world.notes import INSTRUMENTS, Music
from training.world.sound_classes import Noise
from training.world.sound_language import hear, plain_words
from training.world.sound_questions import read_heard_answer

Samples = NDArray[np.float32]
Shown = list[tuple[NDArray[np.uint8], str]]
RATE = 16000
NOTHING_DRAWN = np.full((64, 64, 3), 128, np.uint8)
# Of a classifier's 521 classes, the right one must be among so many of its first.
FIRST_CLASSES = 5
# Semitones from a note to its overtones; how much before it, and how long after, they may be heard.
OVERTONES = (12, 19, 24)
EARLY_S, SOUNDING_S = 0.12, 0.7
# What the classifier calls each named sound; a sound it has no name for goes by its next of kin.
LABELS = {
    "bell": ("Bell", "Church bell", "Bicycle bell", "Tubular bells", "Jingle bell", "Ding", "Chime"),
    "drum": ("Drum", "Bass drum", "Drum kit", "Drum machine", "Tabla", "Percussion"),
    "snare drum": ("Snare drum", "Drum", "Drum kit", "Drum machine", "Percussion"),
    "cymbal": ("Cymbal", "Hi-hat", "Gong", "Drum kit", "Percussion"),
    "cowbell": ("Cowbell", "Percussion", "Vehicle horn, car horn, honking"),
    "clap": ("Clapping", "Hands", "Finger snapping", "Burst, pop"),
    "applause": ("Applause", "Clapping", "Crowd", "Cheering"),
    "whistle": ("Whistle", "Whistling", "Steam whistle"),
    "triangle": ("Ding", "Jingle, tinkle", "Chime", "Tuning fork", "Percussion"),
    "wood block": ("Wood block", "Tick-tock", "Knock", "Tap", "Percussion"),
    "crow": ("Crow", "Caw", "Bird vocalization, bird call, bird song"),
    "door": ("Door", "Slam", "Creak", "Sliding door", "Squeak"),
    "bird": ("Bird", "Bird vocalization, bird call, bird song", "Chirp, tweet"),
    "telephone": ("Telephone", "Telephone bell ringing", "Ringtone", "Alarm clock"),
    "helicopter": ("Helicopter", "Aircraft", "Propeller, airscrew", "Mechanisms", "Vehicle"),
    "rain": ("Rain", "Raindrop", "Rain on surface", "Water", "Stream", "Pour"),
    "wind": ("Wind", "Wind noise (microphone)", "Rustling leaves", "Whoosh, swoosh, swish"),
    "thunder": ("Thunder", "Thunderstorm", "Explosion", "Boom", "Rumble"),
    "siren": ("Siren", "Civil defense siren", "Police car (siren)", "Ambulance (siren)"),
    "clock": ("Clock", "Tick", "Tick-tock"),
    "beep": ("Beep, bleep", "Sine wave", "Dial tone", "Busy signal", "Sonar"),
    "cat": ("Cat", "Meow", "Caterwaul"),
    "dog": ("Dog", "Bark", "Yip", "Domestic animals, pets"),
    "train": ("Train whistle", "Train horn", "Steam whistle", "Train", "Air horn, truck horn"),
    "car horn": ("Vehicle horn, car horn, honking", "Air horn, truck horn", "Toot", "Car alarm"),
    "glass": ("Glass", "Shatter", "Chink, clink", "Jingle, tinkle"),
    "bubbles": ("Boing", "Drip", "Gurgling", "Water", "Liquid"),
    "knock": ("Knock", "Tap", "Thump, thud", "Drum machine", "Wood"),
    "burp": ("Burping, eructation", "Pig", "Oink"),
    "cash register": ("Cash register", "Ding", "Coin (dropping)"),
    "drum roll": ("Drum roll", "Snare drum", "Drum"),
}


def both_splits(room: Room, task: str, count: int, want: Callable[[Example], bool] = lambda e: True) -> list[Example]:
    return [example for split in ("train", "test") for example in room.examples(task, split, count // 2, want=want)]


def items(message: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [item for item in message["content"] if item["type"] == kind]


def true_sounds(room: Room, examples: Sequence[Example], *, side: int = 1) -> list[Samples]:
    """Return the real recordings of one message, through the model's codec where the room has one."""
    return [given_back(room, items(example.messages[side], "audio")[0]["samples"]) for example in examples]


def given_back(room: Room, samples: Samples) -> Samples:
    """Pass a recording through the model's codec, where the room has one."""
    return room.sound_round_trip(samples) if room.sound_round_trip else samples


def at_rate(audio: Audio | None) -> Samples:
    """Return what a model made as the judges hear it, [T] at RATE; nothing where it made nothing."""
    if audio is None:
        return np.zeros(1, np.float32)
    return resample(mono(audio.samples), audio.sample_rate, RATE)


def _sounded(room: Room, examples: Sequence[Example], label: str) -> list[Samples]:
    """Let the candidate make the sound that is asked for in words."""
    made: dict[int, Samples] = {}
    for batch in room.batches([label] * len(examples), label=label):
        prompts = [words_of(examples[number].messages[0]) for number in batch]
        recordings = room.candidate.audio(prompts, seed=room.seeds(batch))
        made |= {number: at_rate(audio) for number, audio in zip(batch, recordings, strict=True)}
    return collect(made)


def replies(room: Room, examples: Sequence[Example], label: str) -> list[Any]:
    """Let the candidate answer the first message of every conversation."""
    given: dict[int, Any] = {}
    for batch in room.batches([shape_of(example) for example in examples], label=label):
        first = [examples[number].messages[0] for number in batch]
        asked = [[{**message, "content": [as_given(item) for item in message["content"]]}] for message in first]
        given |= dict(zip(batch, room.candidate.generate(asked, seed=room.seeds(batch)), strict=True))
    return collect(given)


def judged(
    measure: str,
    examples: Sequence[Example],
    answers: dict[str, Sequence[Any]],
    rule: Callable[[Example, Any], bool],
    *,
    of_real: bool = False,
) -> Iterator[Score]:
    """Score every answer by a rule: the model's own, the real ones, and the model's to other questions.

    Args:
        answers: "own" and "real" answers, in the order of the examples.
        rule: tells from the example and an answer whether it is right.
        of_real: count those apart whose real answer is right.
    """
    others = next_of_same([_kind(example) for example in examples])
    for number, example in enumerate(examples):
        keys = tuple(example.truth["keys"])
        trio = by_split(keys, answers["own"][number], answers["real"][number], answers["own"][others[number]])
        scores = [Score(measure, split, keys, rule(example, answer)) for split, answer in trio]
        yield from with_of_real(scores) if of_real else scores


def _kind(example: Example) -> str:
    """Only among answers of one kind are they shuffled."""
    return example.truth["recordings"][0]["kind"]


def _words(example: Example) -> list[str]:
    return heard_words(example.truth["recordings"][0]["words"])


def word_errors(measure: str, examples: Sequence[Example], recordings: Mapping[str, Sequence[Samples]]) -> list[Score]:
    """Score how many words a listener gets wrong, as a share of those to be said.

    The measure is an error: every word is one judgement, "right" where it is wrongly heard or left out, or one is
    put in. Shuffled, what was heard is compared with the words of another.

    Args:
        measure: its name.
        examples: with one spoken recording each.
        recordings: "own" and "real" ones, in the order of the examples.
    """
    own, real = (hear_in_rows(recordings[name]) for name in ("own", "real"))
    plain = range(len(examples))
    others = [(number + len(examples) // 2) % len(examples) for number in plain]  # of another row
    scores = []
    for kind, rows, numbers in (("", own, plain), ("real", real, plain), ("shuffled", own, others)):
        for row, heard in rows:
            truths = [_words(examples[numbers[number]]) for number in row]
            for number, truth, errors in zip(row, truths, errors_in_row(truths, heard), strict=True):
                keys = tuple(examples[number].truth["keys"])
                split = kind or split_name(keys)
                scores += [Score(measure, split, keys, place < errors) for place in range(len(truth)) if split]
    return scores


def speech(room: Room, count: int) -> tuple[list[Score], Shown]:
    """Examine speaking: how many of the words a listener gets wrong; see `word_errors`."""
    examples = both_splits(room, "speech", count)
    heard = {"own": _sounded(room, examples, "speech"), "real": true_sounds(room, examples)}
    return word_errors("speech/wer", examples, heard), []


def _without_repeats(notes: Sequence[int]) -> list[int]:
    return [midi for number, midi in enumerate(notes) if not number or midi != notes[number - 1]]


def melody(found: Sequence[tuple[float, int]], instrument: str) -> list[int]:
    """Reduce what a judge hears to the notes that follow one another.

    A judge of many voices hears overtones as notes of their own, and one note twice where it swells: overtones of
    what sounds already, notes outside the instrument's octaves, and the same note again do not count.

    Args:
        found: (second, MIDI number) of notes.
        instrument: one of INSTRUMENTS.
    """
    lowest = INSTRUMENTS[instrument]
    inside = [(second, midi) for second, midi in found if lowest <= midi <= lowest + 24]
    notes = [
        midi
        for second, midi in sorted(inside)
        if not any(midi - other in OVERTONES and -EARLY_S <= second - at <= SOUNDING_S for at, other in inside)
    ]
    return _without_repeats(notes)


def notes_right(example: Example, found: Sequence[tuple[float, int]]) -> bool:
    music: Music = example.truth["heard"][0]
    return melody(found, music.instrument) == _without_repeats(music.notes)


def notes(room: Room, count: int) -> tuple[list[Score], Shown]:
    """Examine playing: all notes that were asked for, in their order, and no others; see `melody`."""
    examples = both_splits(room, "notes", count)
    made, real = _sounded(room, examples, "notes"), true_sounds(room, examples)
    found = {name: [notes_of(samples) for samples in them] for name, them in (("own", made), ("real", real))}
    return list(judged("notes/order", examples, found, notes_right)), []


def _named(samples: Samples, count: int) -> set[str]:
    return {label for label, _ in classify(samples)[: FIRST_CLASSES * count]}


def is_named(noise: Noise, samples: Samples) -> bool:
    """Tell whether a classifier hears a named sound, and the one that follows it, among its first classes."""
    names = [name for name in (noise.name, noise.then) if name]
    labels = _named(samples, len(names))
    return all(labels & set(LABELS[name]) for name in names)


def _is_known(example: Example) -> bool:
    return is_named(example.truth["heard"][0], items(example.messages[1], "audio")[0]["samples"])


def sound(room: Room, count: int) -> tuple[list[Score], Shown]:
    """Examine named sounds, those alone whose real recording the classifier knows (apart: knows after the codec)."""
    examples = both_splits(room, "sound", count, want=_is_known)
    answers = {"own": _sounded(room, examples, "sound"), "real": true_sounds(room, examples)}

    def rule(example: Example, samples: Samples) -> bool:
        return is_named(example.truth["heard"][0], samples)

    return list(judged("sound/class", examples, answers, rule, of_real=True)), []


def speech_to_text(room: Room, count: int) -> tuple[list[Score], Shown]:
    """Examine writing down what is said: right where all words are."""
    examples = both_splits(room, "speech_to_text", count)
    texts = [reply.text for reply in replies(room, examples, "speech_to_text")]
    answers = {"own": texts, "real": [words_of(example.messages[1]) for example in examples]}

    def rule(example: Example, text: str) -> bool:
        said = re.sub(r"^\W*(they say|i hear)\b", "", text, flags=re.I)
        return plain_words(said) == example.truth["caption"]["words"]

    return list(judged("speech_to_text/slots", examples, answers, rule)), []


def spoken_request(room: Room, count: int) -> tuple[list[Score], Shown]:
    """Examine drawing what a recording asks for, without a written word: the thing is identified among others."""
    examples = both_splits(room, "spoken_request", count)
    answers = replies(room, examples, "spoken_request")
    scenes = [example.truth["scenes"][0] for example in examples]
    drawn = [reply.images[0].pixels if reply.images else NOTHING_DRAWN for reply in answers]
    real = room.through_codec([pictures_of(example.messages[1])[0] for example in examples])
    things = [len(scene.things) for scene in scenes]
    views = room.judges.view(drawn, styles=[""] * len(scenes), things=things)
    real_views = room.judges.view(real, styles=[scene.style for scene in scenes], things=things)
    scores: list[Score] = []
    for number, other in enumerate(next_of_same([""] * len(examples))):
        keys, thing = tuple(examples[number].truth["keys"]), examples[number].truth["asked"]["thing"]
        trio = by_split(keys, views[number], real_views[number], views[other])
        scores += with_of_real(
            [
                Score("spoken_request/thing", split, keys, view.is_identified(thing, seed=str(number)))
                for split, view in trio
            ]
        )
    shown = [
        (picture, example.truth["recordings"][0]["words"]) for picture, example in zip(drawn, examples, strict=True)
    ]
    return scores, shown


def caption_audio(room: Room, count: int) -> tuple[list[Score], Shown]:
    """Examine captions of recordings: right where all facts are; single facts under the names of their slots."""
    examples = both_splits(room, "caption_audio", count)
    said: dict[int, str] = {}
    for batch in room.batches([""] * len(examples), label="caption_audio"):
        sounds = [items(examples[number].messages[0], "audio")[0]["samples"] for number in batch]
        parts = [Audio(samples[None], RATE) for samples in sounds]
        said |= dict(zip(batch, room.candidate.caption(parts, seed=room.seeds(batch)), strict=True))
    answers = {"own": collect(said), "real": [words_of(example.messages[1]) for example in examples]}
    scores = list(
        judged("caption_audio/slots", examples, answers, lambda example, text: hear(text) == example.truth["caption"])
    )
    for slot in dict.fromkeys(slot for example in examples for slot in example.truth["caption"]):
        numbers = [number for number, example in enumerate(examples) if slot in example.truth["caption"]]
        scores += judged(
            f"caption_audio/{slot}",
            [examples[number] for number in numbers],
            {name: [them[number] for number in numbers] for name, them in answers.items()},
            lambda example, text, slot=slot: hear(text).get(slot) == example.truth["caption"][slot],
        )
    return scores, []


def question_audio(room: Room, count: int) -> tuple[list[Score], Shown]:
    """Examine answers to questions about a recording."""
    examples = both_splits(room, "question_audio", count)
    texts = [reply.text for reply in replies(room, examples, "question_audio")]
    answers = {"own": texts, "real": [example.truth["question"].answer for example in examples]}

    def rule(example: Example, text: str) -> bool:
        question = example.truth["question"]
        return read_heard_answer(question, text) == question.fact

    return list(judged("question_audio/answer", examples, answers, rule)), []
