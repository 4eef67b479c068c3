"""Exams of films with sound: sound for a film, a film for a sound, both at once; what plays, and what speaks."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.exams.room import (
    Pixels,
    Room,
    by_split,
    collect,
    films_of,
    next_of_other,
    next_of_same,
    shape_of,
    words_of,
)
from training.exams.sounds import (
    Samples,
    Shown,
    at_rate,
    both_splits,
    given_back,
    items,
    judged,
    notes_right,
    replies,
    true_sounds,
    word_errors,
)
from training.judges.notes import notes_of
from training.judges.onsets import matched, onsets_of
from training.judges.tracks import impact_frames, shown_area
from training.scores import Score
from training.world.conversation import Example
from training.world.motion import FPS, Film
from training.world.scene import ground_of
from training.world.sound_films import loudness, swelling

# A sound that is in time with a film begins within one frame of what is seen.
FRAME_S = 1 / FPS
# What swells as it should: correlation over the frames of the side it has with the one it should have.
SWELLING = 0.7
NOTHING_SEEN = np.zeros((1, 16, 16, 3), np.uint8)
Sounding = tuple[Pixels, Samples]  # a film's frames, and its sound


def video_to_audio(room: Room, count: int) -> tuple[list[Score], Shown]:
    """Examine the sound that is made for a silent film: one beginning within a frame of every impact, no other."""
    examples = both_splits(room, "video_to_audio", count)
    answers = replies(room, examples, "video_to_audio")
    made = [at_rate(reply.audios[0] if reply.audios else None) for reply in answers]
    found = {
        name: [onsets_of(samples) for samples in them]
        for name, them in (("own", made), ("real", true_sounds(room, examples)))
    }

    def rule(example: Example, onsets: list[float]) -> bool:
        return matched(example.truth["recordings"][0]["onsets_s"], onsets, within_s=FRAME_S)

    return list(judged("video_to_audio/onset", examples, found, rule)), []


def _in_time(film: Film, frames: Pixels, samples: Samples) -> bool:
    """Tell whether what is heard begins when what is seen hits something."""
    ground = ground_of(film.background, *frames.shape[1:3])
    seen = impact_frames(frames, ground, is_collision=film.verb == "collides")
    return bool(seen) and matched([frame / film.fps for frame in seen], onsets_of(samples), within_s=FRAME_S + 1e-6)


def swells(film: Film, frames: Pixels, level: NDArray[np.floating[Any]]) -> bool:
    """Tell whether what is seen is large when it should be.

    Args:
        film: the one that was asked for; its background is known.
        frames: uint8, [F, H, W, 3].
        level: how large it should be, or how loud its sound is, in each frame, [F].
    """
    side = np.sqrt(shown_area(frames, ground_of(film.background, *frames.shape[1:3])))
    if min(side.std(), level.std()) < 1e-6:
        return False
    return float(np.corrcoef(side, level)[0, 1]) >= SWELLING


def _together(
    measure: str,
    examples: Sequence[Example],
    own: Sequence[tuple[Pixels, Any]],
    real: Sequence[tuple[Pixels, Any]],
    rule: Callable[[Film, Pixels, Any], bool],
    others: Sequence[int] | None = None,
) -> Iterator[Score]:
    """Score what is seen against what is heard; shuffled, a film stands beside what is heard in another.

    The other is one as long, or, where they are given, that of `others`.
    """
    others = others or next_of_same([len(frames) for frames, _ in own])
    for number, (example, other) in enumerate(zip(examples, others, strict=True)):
        film, keys = example.truth["films"][0], tuple(example.truth["keys"])
        trio = (own[number], real[number], (own[number][0], own[other][1]))
        for split, (frames, heard) in by_split(keys, *trio):
            yield Score(measure, split, keys, rule(film, frames, heard))


def _real_films(room: Room, examples: Sequence[Example]) -> list[Sounding]:
    """Return the real films of the answers, picture and sound through the model's codecs."""
    found = [items(example.messages[1], "video")[0] for example in examples]
    seen = room.through_codec([item["frames"] for item in found])
    return [(frames, given_back(room, item["audio"])) for frames, item in zip(seen, found, strict=True)]


def _filmed(room: Room, examples: Sequence[Example], label: str, *, is_timed: bool = False) -> list[Sounding]:
    """Let the candidate make the films with sound that are asked for in words; timed, as long as the real ones."""
    made: dict[int, Sounding] = {}
    kinds = [(shape_of(one), len(films_of(one.messages[1])[0]) if is_timed else 0) for one in examples]
    for batch in room.batches(kinds, label=label):
        prompts = [words_of(examples[number].messages[0]) for number in batch]
        size, num_frames = kinds[batch[0]]
        length = {"seconds": num_frames / FPS} if is_timed else {}
        films = room.candidate.video(prompts, size=size, sound=True, seed=room.seeds(batch), **length)
        made |= {number: (film.frames, at_rate(film.audio)) for number, film in zip(batch, films, strict=True)}
    return collect(made)


def _firsts(films: Sequence[Sounding], examples: Sequence[Example]) -> Shown:
    return [(frames[0], words_of(one.messages[0])) for (frames, _), one in zip(films, examples, strict=True)]


def audio_video(room: Room, count: int) -> tuple[list[Score], Shown]:
    """Examine films with sound: one beginning within a frame of every impact that is seen, no other."""
    examples = both_splits(room, "audio_video", count)
    films = _filmed(room, examples, "audio_video")
    scores = list(_together("audio_video/onset", examples, films, _real_films(room, examples), _in_time))
    return scores, _firsts(films, examples)


def audio_to_video(room: Room, count: int) -> tuple[list[Score], Shown]:
    """Examine the film that is made for a sound: an impact within a frame of everything heard, no other."""
    examples = both_splits(room, "audio_to_video", count)
    answers = replies(room, examples, "audio_to_video")
    seen = [reply.videos[0].frames if reply.videos else NOTHING_SEEN for reply in answers]
    heard = [items(example.messages[0], "audio")[0]["samples"] for example in examples]
    own = list(zip(seen, heard, strict=True))
    passed = room.through_codec([films_of(example.messages[1])[0] for example in examples])
    real = list(zip(passed, heard, strict=True))
    return list(_together("audio_to_video/onset", examples, own, real, _in_time)), _firsts(own, examples)


def playing_film(room: Room, count: int) -> tuple[list[Score], Shown]:
    """Examine instruments that are seen and heard: the notes, and whether the instrument swells when they are due."""
    examples = both_splits(room, "playing_film", count)
    own, real = _filmed(room, examples, "playing_film", is_timed=True), _real_films(room, examples)
    found = {name: [notes_of(samples) for _, samples in films] for name, films in (("own", own), ("real", real))}
    due = [tuple(note["onset_s"] for note in example.truth["recordings"][0]["notes"]) for example in examples]
    pairs = [[(frames, onsets) for (frames, _), onsets in zip(films, due, strict=True)] for films in (own, real)]

    def rule(film: Film, frames: Pixels, onsets: Sequence[float]) -> bool:
        return swells(film, frames, swelling(onsets, len(frames), fps=film.fps))

    scores = list(judged("playing_film/order", examples, found, notes_right))
    # As many notes are due at the same moments, so films of another number of notes show what chance gives.
    scores += _together("playing_film/swells", examples, pairs[0], pairs[1], rule, next_of_other(due))
    return scores, _firsts(own, examples)


def speaking_film(room: Room, count: int) -> tuple[list[Score], Shown]:
    """Examine faces that speak: the words, as in `speech`, and whether the face swells with them."""
    examples = both_splits(room, "speaking_film", count)
    own, real = _filmed(room, examples, "speaking_film", is_timed=True), _real_films(room, examples)
    heard = {name: [samples for _, samples in films] for name, films in (("own", own), ("real", real))}
    scores = word_errors("speaking_film/wer", examples, heard)

    def rule(film: Film, frames: Pixels, samples: Samples) -> bool:
        return swells(film, frames, loudness(samples, len(frames), fps=film.fps))

    scores += _together("speaking_film/swells", examples, own, real, rule)
    return scores, _firsts(own, examples)
