"""Films with their sound: what hits something sounds, an instrument pulses on its notes, a face speaks its line."""

import random
from collections.abc import Sequence

import numpy as np

from training.world.motion import FPS, Actor, Film, Pose
from training.world.notes import Music, play_at
from training.world.pack import STYLES, concepts
from training.world.scene import PLAIN_BACKGROUNDS
from training.world.sound_impacts import impact
from training.world.sound_pack import SAMPLE_RATE, Samples, faded, mix
from training.world.speech import Saying, speak

__all__ = [
    "SHOWN_INSTRUMENTS", "faces", "impact_onsets", "loudness", "moments", "playing_film", "soundtrack", "speaking_film",
    "swelling",
]  # fmt: skip

TAKES = 4
SHOWN_INSTRUMENTS = ("guitar", "violin", "trumpet", "piano")  # instruments that can be both seen and heard
FILM_FRAMES = (9, 13, 17)
REST, SWELL = 0.5, 0.24  # side of a thing at rest, and how much it grows with the sound; of the shorter side
FADING_S = 0.2


def faces() -> tuple[str, ...]:
    """Name the concepts that have a mouth to speak with."""
    return tuple(name for name, concept in concepts().items() if concept.group == "faces")


def impact_onsets(film: Film) -> tuple[float, ...]:
    """Return the second at which each impact of a film sounds: the moment when its frame is shown."""
    return tuple(impact.frame / film.fps for impact in film.impacts)


def moments(film: Film) -> str:
    """Say when a film's impacts come: "It lands after 0.5, 1.5 and 2.0 seconds."

    Said before a film with sound is made, so that picture and sound go by the same moments.
    """
    seconds = " and ".join(", ".join(f"{onset:.1f}" for onset in impact_onsets(film)).rsplit(", ", 1))
    return f"{'They meet' if len(film.actors) > 1 else 'It lands'} after {seconds} seconds."


def film_seconds(num_frames: int, fps: float = FPS) -> float:
    """Return how long a film lasts, and its sound with it."""
    return num_frames / fps


def soundtrack(film: Film) -> Samples:
    """Sound every impact of a film in its material, as strong as it is; nothing else is heard.

    Returns:
        float32 [T] at 16 kHz, exactly as long as the film.
    """
    parts = [
        (blow.frame / film.fps, impact(blow.material, blow.strength, take=blow.frame % TAKES)) for blow in film.impacts
    ]
    seconds = film_seconds(film.num_frames, film.fps)
    return faded(mix(parts, seconds), seconds)


def loudness(samples: Samples, num_frames: int, *, fps: float = FPS) -> np.ndarray:
    """Return how loud a recording is while each frame is shown, [F], 1 for its loudest frame."""
    step = round(SAMPLE_RATE / fps)
    padded = np.pad(samples, (0, max(0, num_frames * step - len(samples))))[: num_frames * step]
    level = np.sqrt((padded.reshape(num_frames, step) ** 2).mean(axis=1))
    return level / max(float(level.max()), 1e-6)


def swelling(onsets: Sequence[float], num_frames: int, *, fps: float = FPS) -> np.ndarray:
    """Return how large a thing is that swells at one or more onsets, in seconds, and fades: [F], 1 to 0 at rest."""
    times = np.arange(num_frames)[:, None] / fps - np.array(onsets)
    return np.where(times >= 0, np.exp(-times.clip(0) / FADING_S), 0.0).max(axis=1)


def _pulsing(rng: random.Random, concept: str, verb: str, sizes: Sequence[float]) -> Film:
    """A thing in the middle that stays where it is and changes its size."""
    poses = tuple(Pose(0.5, 0.5, round(REST + SWELL * float(size), 4)) for size in sizes)
    actor = Actor(concept, rng.choice(STYLES), poses)
    background = "white" if rng.random() < 0.4 else rng.choice(tuple(PLAIN_BACKGROUNDS))
    return Film(verb, (actor,), background, "center", "center", (), 64, 64, "")


def playing_film(rng: random.Random, music: Music) -> tuple[Film, Samples, tuple[float, ...]]:
    """Show an instrument that swells on each of its notes.

    Args:
        music: at most five notes; its instrument is one of SHOWN_INSTRUMENTS.

    Returns:
        the film, its sound, and the second at which each note begins, always the beginning of a frame.
    """
    step = 3 if len(music.notes) > 2 else 4
    onsets = tuple((1 + step * number) / FPS for number in range(len(music.notes)))
    num_frames = next(
        count for count in FILM_FRAMES if count >= 1 + step * len(music.notes) or count == FILM_FRAMES[-1]
    )
    seconds = film_seconds(num_frames)
    film = _pulsing(rng, music.instrument, "plays", swelling(onsets, num_frames))
    return film, play_at(rng, music, onsets, seconds), onsets


def speaking_film(rng: random.Random, saying: Saying) -> tuple[Film, Samples] | None:
    """Show a face that is the larger the louder it speaks; None where the line is too long for a film.

    Returns:
        the film and its sound.
    """
    voice = speak(rng, saying)
    fitting = [count for count in FILM_FRAMES if film_seconds(count) * SAMPLE_RATE >= len(voice)]
    if not fitting:
        return None
    sound = mix([(0.0, voice)], film_seconds(fitting[0]))
    return _pulsing(rng, rng.choice(faces()), "speaks", loudness(sound, fitting[0])), sound
