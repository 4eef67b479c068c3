"""Documents with sound: speaking, playing, sounding; telling what is heard; films that sound.

    SOUND_TASKS[name](rng, split) -> Talk

The truth of an example with sound holds "heard" (one Saying, Music or Noise for each recording that is no film's) and
"recordings": for each recording, in order, what sounds in it and the second at which each part begins.
"""

import random
from collections.abc import Callable
from typing import Any

from training.world.conversation import SHAPES, Item, Part, Shot, Talk
from training.world.film_language import describe_film, film_caption
from training.world.held_out import Split
from training.world.language import with_article
from training.world.motion import Film
from training.world.notes import Music, name_of, play, sample_music
from training.world.phrases import phrases, vary
from training.world.scene import Scene, place_things
from training.world.sound_classes import CALLED, Noise, make_noise, sample_noise
from training.world.sound_films import (
    SHOWN_INSTRUMENTS,
    impact_onsets,
    moments,
    playing_film,
    soundtrack,
    speaking_film,
)
from training.world.sound_language import (
    Heard,
    asked_voice,
    describe_music,
    describe_noise,
    heard_caption,
    heard_slots,
)
from training.world.sound_pack import SAMPLE_RATE, Samples
from training.world.sound_questions import ask_heard
from training.world.speech import Saying, sample_saying, speak, spoken_text
from training.world.verbs import sample_film

__all__ = ["SOUNDING_VERBS", "SOUND_TASKS", "audio_item"]

SOUNDING_VERBS = ("bounces", "falls", "collides")
Record = dict[str, Any]


def audio_item(samples: Samples) -> Item:
    """Make a recording the item of a message."""
    return {"type": "audio", "samples": samples, "sample_rate": SAMPLE_RATE}


def _music_record(music: Music, onsets: tuple[float, ...]) -> Record:
    notes = [
        {"name": name_of(midi, music.instrument, octave=True), "midi": midi, "onset_s": onset}
        for midi, onset in zip(music.notes, onsets, strict=True)
    ]
    return {"kind": "notes", "instrument": music.instrument, "notes": notes}


def _film_record(film: Film) -> Record:
    return {
        "kind": "film",
        "onsets_s": impact_onsets(film),
        "frames": tuple(blow.frame for blow in film.impacts),
        "materials": tuple(blow.material for blow in film.impacts),
    }


def _record(rng: random.Random, heard: Heard) -> tuple[Item, Record]:
    """Make the recording of something, and tell what is in it."""
    if isinstance(heard, Saying):
        return audio_item(speak(rng, heard)), {"kind": "speech", "words": heard.line, "voice": heard.voice}
    if isinstance(heard, Music):
        return audio_item(play(rng, heard)), _music_record(heard, heard.onsets)
    samples, onsets = make_noise(rng, heard)
    return audio_item(samples), heard.slots | {"onsets_s": onsets}


def _talk(heard: Heard | None, record: Record, shape: str = "square") -> Talk:
    return Talk(shape, truth={"heard": [heard] if heard else [], "recordings": [record]})


def _answered(rng: random.Random, reply: str, item: Part, *, silent: float = 0.6) -> list[Part]:
    """Answer with a recording or film: mostly alone, else after a short sentence."""
    return [item] if rng.random() < silent else [reply, item]


def _requested(rng: random.Random, heard: Heard, text: str, reply: str) -> Talk:
    """A person asks for a sound, and gets it."""
    item, record = _record(rng, heard)
    talk = _talk(heard, record)
    talk.say("user", text)
    talk.say("assistant", *_answered(rng, reply, item), keys=heard.keys)
    return talk


def _speech(rng: random.Random, split: Split) -> Talk:
    saying = sample_saying(rng, split)
    draw = rng.random()
    words = spoken_text(saying.line) if draw < 0.5 else saying.line
    if saying.who == "woman" or rng.random() < 0.15:
        frame = rng.choice(phrases("speak_in_voice"))
        text = frame.format(x=words.rstrip(".") if '"' in frame else words, v=asked_voice(rng, saying))
    else:
        frame = rng.choice(phrases("speak"))
        text = frame.format(x=words.rstrip(".") if '"' in frame else words)
    return _requested(rng, saying, text, rng.choice(phrases("speak_reply")))


def _notes(rng: random.Random, split: Split) -> Talk:
    music = sample_music(rng, split)
    one = with_article(music.instrument)
    words = {"i": one, "I": one[:1].upper() + one[1:], "j": music.instrument}
    if split == "train" and rng.random() < 0.05 and not music.tempo:
        text = rng.choice(phrases("play_anything")).format(**words)
    else:
        asked = describe_music(rng, music, title=rng.random() < 0.6)
        text = rng.choice(phrases("play")).format(x=asked, **words)
    reply = rng.choice(phrases("play_reply")).format(**words)
    return _requested(rng, music, _typed(rng, text), reply)


def _typed(rng: random.Random, text: str) -> str:
    """Type a request for notes as people do; a note stays a capital, or the article "a" would be one."""
    return text if rng.random() < 0.7 else text.rstrip(".") if rng.random() < 0.7 else vary(rng, text)


def _sound(rng: random.Random, split: Split) -> Talk:
    return _asked_noise(rng, sample_noise(rng, split))


def _practice_sound(rng: random.Random, split: Split) -> Talk:
    """Make a sound several times, or two in turn: of the sounds of `sound` half are single ones."""
    noise = sample_noise(rng, split)
    while not noise.keys:
        noise = sample_noise(rng, split)
    return _asked_noise(rng, noise)


def _asked_noise(rng: random.Random, noise: Noise) -> Talk:
    is_single = noise.count == 1 and not noise.then
    section = "sound_of_one" if is_single and rng.random() < 0.25 else "sound_of"
    text = rng.choice(phrases(section)).format(x=describe_noise(rng, noise))
    reply = rng.choice(phrases("sound_reply")).format(y=CALLED[noise.name][0])
    return _requested(rng, noise, vary(rng, text), reply)


def _any_heard(rng: random.Random, split: Split) -> Heard:
    draw = rng.random()
    if draw < 0.3:
        return sample_saying(rng, split)
    return sample_music(rng, split) if draw < 0.65 else sample_noise(rng, split)


def _given(rng: random.Random, heard: Heard, text: str, *, alone: float = 0.0) -> Talk:
    """A person gives a recording and says something about it."""
    item, record = _record(rng, heard)
    talk = _talk(heard, record)
    draw = rng.random()
    parts: list[Part] = [item] if draw < alone else [item, text] if draw < 0.8 else [text, item]
    talk.say("user", *parts, keys=heard.keys)
    return talk


def _speech_to_text(rng: random.Random, split: Split) -> Talk:
    saying = sample_saying(rng, split)
    talk = _given(rng, saying, vary(rng, rng.choice(phrases("transcribe"))))
    talk.say("assistant", rng.choice(phrases("transcribe_reply")).format(x=spoken_text(saying.line)))
    talk.truth["caption"] = {"words": heard_slots(saying)["words"]}
    return talk


def _caption_audio(rng: random.Random, split: Split) -> Talk:
    heard = _any_heard(rng, split)
    talk = _given(rng, heard, vary(rng, rng.choice(phrases("caption_audio"))), alone=0.08)
    talk.say("assistant", heard_caption(heard))
    talk.truth["caption"] = heard_slots(heard)
    return talk


def _question_audio(rng: random.Random, split: Split) -> Talk:
    heard = _any_heard(rng, split)
    question = ask_heard(rng, heard)
    talk = _given(rng, heard, vary(rng, question.text))
    talk.say("assistant", question.answer)
    talk.truth["question"] = question
    return talk


def _wished_aloud(rng: random.Random, saying: Saying) -> Scene | None:
    """The picture that a spoken wish asks for; None for a thing that may only be drawn in other splits."""
    name = saying.line.removeprefix("draw an ").removeprefix("draw a ")
    scene = place_things(rng, names=(name,), style=rng.choice(("3D", "3D", "flat", "simple")), background="white")
    return scene if scene.split == "train" else None


def _spoken_request(rng: random.Random, split: Split) -> Talk:
    """A person asks for a picture in a recording, without a word of writing."""
    scene = None
    while scene is None:
        saying = sample_saying(rng, split, start="draw a")
        scene = _wished_aloud(rng, saying)
    item, record = _record(rng, saying)
    talk = _talk(saying, record)
    talk.say("user", item, keys=saying.keys)
    name = with_article(scene.things[0].concept)
    talk.say("assistant", *_answered(rng, rng.choice(phrases("draw_reply")).format(y=name), scene, silent=0.4))
    talk.truth["asked"] = {"thing": scene.things[0].concept}
    return talk


def _shape_of(film: Film) -> str:
    return next(name for name, size in SHAPES.items() if size == (film.height, film.width))


def _sounding_film(rng: random.Random, split: Split) -> Film:
    kind = "" if split == "train" else rng.choice(("style", "background", "verb"))
    while True:
        film = sample_film(rng, split, kind=kind, verbs=SOUNDING_VERBS, size=(64, 64) if rng.random() < 0.8 else None)
        if film.impacts:
            return film


def _filmed(rng: random.Random, film: Film) -> tuple[str, set[str]]:
    """Describe a film that is wished for; the slots that are named."""
    said = {"thing", "verb", "other", "background"} & set(film.slots)
    said |= {"style"} if rng.random() < 0.5 else set()
    said |= {"start", "end"} & set(film.slots) if rng.random() < 0.3 else set()
    return describe_film(film, rng, said, form="gerund"), said


def _audio_video(rng: random.Random, split: Split) -> Talk:
    film = _sounding_film(rng, split)
    words, said = _filmed(rng, film)
    talk = _talk(None, _film_record(film), _shape_of(film))
    talk.say("user", vary(rng, rng.choice(phrases("film_sound")).format(x=words)))
    named = film_caption(film, ("thing", "verb", "other"), form="gerund")
    reply = rng.choice(phrases("film_sound_reply")).format(y=named)
    words = moments(film) if rng.random() < 0.75 else f"{reply} {moments(film)}"
    talk.say("assistant", words, Shot(film, audio=soundtrack(film)))
    talk.truth["asked"] = {slot: value for slot, value in film.slots.items() if slot in said}
    return talk


def _video_to_audio(rng: random.Random, split: Split) -> Talk:
    film = _sounding_film(rng, split)
    talk = _talk(None, _film_record(film), _shape_of(film))
    text = vary(rng, rng.choice(phrases("add_sound")))
    talk.say("user", *([film, text] if rng.random() < 0.8 else [text, film]))
    talk.say("assistant", *_answered(rng, "Here is the sound.", audio_item(soundtrack(film)), silent=0.8))
    return talk


def _audio_to_video(rng: random.Random, split: Split) -> Talk:
    film = _sounding_film(rng, split)
    words, said = _filmed(rng, film)
    talk = _talk(None, _film_record(film), _shape_of(film))
    text = vary(rng, rng.choice(phrases("sound_to_film")).format(x=words))
    sound = audio_item(soundtrack(film))
    talk.say("user", *([sound, text] if rng.random() < 0.7 else [text, sound]))
    talk.say("assistant", *_answered(rng, "Here is the film.", film, silent=0.7))
    talk.truth["asked"] = {slot: value for slot, value in film.slots.items() if slot in said}
    return talk


def _said_with_ground(film: Film) -> str:
    return f"{with_article(film.concept)} on {film.background}"


def _playing_film(rng: random.Random, split: Split) -> Talk:
    """An instrument plays, seen and heard."""
    music = None
    while music is None or len(music.notes) > 5 or music.tempo:
        music = sample_music(rng, split, rng.choice(SHOWN_INSTRUMENTS))
    film, sound, onsets = playing_film(rng, music)
    while split == "train" and film.split != split:
        film, sound, onsets = playing_film(rng, music)
    talk = _talk(music, _music_record(music, onsets))
    text = rng.choice(phrases("show_playing")).format(i=_said_with_ground(film), x=describe_music(rng, music))
    talk.say("user", _typed(rng, text), keys=music.keys)
    talk.say("assistant", *_answered(rng, "Look and listen.", Shot(film, audio=sound)))
    return talk


def _speaking_film(rng: random.Random, split: Split) -> Talk:
    """A face says its line, seen and heard."""
    shown = None
    while shown is None or (split == "train" and shown[0].split != split):
        saying = sample_saying(rng, split, voice="joe")
        shown = speaking_film(rng, saying)
    film, sound = shown
    talk = _talk(saying, {"kind": "speech", "words": saying.line, "voice": saying.voice})
    text = rng.choice(phrases("show_speaking")).format(f=_said_with_ground(film), x=saying.line)
    talk.say("user", text, keys=saying.keys)
    talk.say("assistant", *_answered(rng, "Look and listen.", Shot(film, audio=sound)))
    return talk


SOUND_TASKS: dict[str, Callable[[random.Random, Split], Talk]] = {
    "speech": _speech,
    "speech_to_text": _speech_to_text,
    "spoken_request": _spoken_request,
    "notes": _notes,
    "sound": _sound,
    "practice_sound": _practice_sound,
    "caption_audio": _caption_audio,
    "question_audio": _question_audio,
    "audio_video": _audio_video,
    "video_to_audio": _video_to_audio,
    "audio_to_video": _audio_to_video,
    "playing_film": _playing_film,
    "speaking_film": _speaking_film,
}
