"""Words for recordings, and what is said of a recording read back into slots.

A slot is one fact: kind ("speech", "notes" or "sound"); the voice and the words of speech; the instrument and the
notes of music; of a named sound which it is, how often it sounds, and which one follows.
"""

import random
import re

from training.world.language import with_article
from training.world.notes import INSTRUMENTS, Music, name_of, read_notes
from training.world.phrases import phrases
from training.world.sound_classes import CALLED, Noise
from training.world.speech import VOICES, Saying, spoken_text

__all__ = ["Heard", "describe_music", "describe_noise", "hear", "heard_caption", "heard_slots", "plain_words"]

Heard = Saying | Music | Noise
Slots = dict[str, str | int]
TIMES = {2: "two times", 3: "three times", 4: "four times"}
TEMPO_WORDS = {"slow": ("slowly", "slowly", "at a slow pace"), "fast": ("quickly", "fast", "at a fast pace")}


def plain_words(text: str) -> str:
    """Reduce words to what is heard of them: lower case, no marks."""
    return " ".join(re.findall(r"[a-z0-9']+", text.lower()))


def heard_slots(heard: Heard) -> Slots:
    """Return everything a full caption says of a recording."""
    if isinstance(heard, Noise):
        return heard.slots
    if isinstance(heard, Saying):
        return {"kind": "speech", "voice": heard.who, "words": plain_words(heard.line)}
    return {"kind": "notes", "instrument": heard.instrument, "notes": " ".join(heard.names)}


def heard_caption(heard: Heard) -> str:
    """Describe a recording as the model is taught to: one phrasing, a whole sentence."""
    if isinstance(heard, Saying):
        return f"A {heard.who} says: {spoken_text(heard.line)}"
    if isinstance(heard, Music):
        words = with_article(heard.instrument)
        return f"{words[:1].upper()}{words[1:]} plays {' '.join(heard.names)}."
    words = f"The sound of {CALLED[heard.name][0]}"
    if heard.then:
        return f"{words} and then {CALLED[heard.then][0]}."
    return f"{words}, {TIMES[heard.count]}." if heard.count > 1 else f"{words}."


def _noise_slots(text: str) -> Slots:
    """Read named sounds; where one name stands inside another ("drum", "drum roll"), the longer one counts."""
    names = {words.lower(): name for name, called in CALLED.items() for words in (*called, name)}
    longest_first = sorted(names, key=len, reverse=True)
    found = [names[match[1]] for match in re.finditer(rf"\b({'|'.join(map(re.escape, longest_first))})\b", text)]
    slots: Slots = {"kind": "sound"} | ({"sound": found[0]} if found else {})
    if len(found) > 1:
        return slots | {"then": found[1]}
    counts = [count for count, words in TIMES.items() if re.search(rf"\b({words}|{count} times)\b", text)]
    return slots | {"count": counts[0] if counts else 1}


def hear(text: str) -> Slots:
    """Read the slots that a caption of a recording states."""
    speech = re.match(r"\W*an? (man|woman) says:? *(.*)", text.strip(), re.I | re.S)
    if speech:
        return {"kind": "speech", "voice": speech[1].lower(), "words": plain_words(speech[2])}
    music = re.search(rf"\b({'|'.join(INSTRUMENTS)})\b.* plays?\b(.*)", text, re.I | re.S)
    if music:
        instrument = music[1].lower()
        notes = " ".join(name_of(midi, instrument) for midi in read_notes(text, instrument))
        return {"kind": "notes", "instrument": instrument, "notes": notes}
    return _noise_slots(text.lower())


def _note_words(rng: random.Random, music: Music) -> str:
    octave = rng.random() < 0.15
    names = [name_of(midi, music.instrument, octave=octave) for midi in music.notes]
    if len(names) == 1:
        frame = rng.choice(phrases("one_note"))
        note = names[0] if "sharp" in frame or rng.random() < 0.8 else names[0].replace("#", " sharp")
        return frame.format(n=note)
    draw = rng.random()
    if draw < 0.25:
        listed = f"{', '.join(names[:-1])} and {names[-1]}"
    else:
        listed = (", " if draw < 0.45 else " - " if draw < 0.5 else " ").join(names)
    return rng.choice(phrases("notes")).format(n=listed)


def describe_music(rng: random.Random, music: Music, *, title: bool = False) -> str:
    """Say what is to be played, as people do: by its notes, or by its title where it has one."""
    words = music.title if title and music.title else _note_words(rng, music)
    words = re.sub(r"\ba (?=[AEF]\b)", "an ", words)
    return f"{words} {rng.choice(TEMPO_WORDS[music.tempo])}" if music.tempo else words


def describe_noise(rng: random.Random, noise: Noise) -> str:
    """Say which sound is meant, as people do."""
    first = CALLED[noise.name][0] if rng.random() < 0.75 else rng.choice(CALLED[noise.name])
    if noise.then:
        joint = rng.choice((" and then ", ", then ", " followed by ", " and after that "))
        return f"{first}{joint}{CALLED[noise.then][0]}"
    if noise.count == 1:
        return first
    times = rng.choice((TIMES[noise.count], TIMES[noise.count], f"{noise.count} times"))
    return f"{first}{rng.choice((', ', ' '))}{times}"


def asked_voice(rng: random.Random, saying: Saying) -> str:
    """Say in which voice something is to be spoken."""
    return rng.choice(phrases("voice")).format(w=VOICES[saying.voice])
