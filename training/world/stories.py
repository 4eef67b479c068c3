"""Stories: one character in one style, told in beats of a sentence and a picture; the last may be a film.

Every sentence says something that its picture shows, so that both can be compared.
"""

import random
from dataclasses import dataclass, replace

from training.world.conversation import Talk
from training.world.film_dialogue import MAX_TOKENS
from training.world.film_language import act
from training.world.held_out import Key, Split, split_of, split_of_all
from training.world.language import background_phrase, describe, place_phrase
from training.world.motion import Film
from training.world.pack import STYLES, concepts
from training.world.phrases import phrases, vary
from training.world.scene import DRAWN_BACKGROUNDS, PLACES, RELATIONS, Scene, place_things, sample_scene
from training.world.verbs import film_of, possible_verbs

__all__ = ["EVENTS", "Beat", "Story", "story"]

TO = {
    "sky": "up into the sky", "grass": "to the grass", "sea": "to the sea", "night": "out into the night",
    "snow": "to the snow",
}  # fmt: skip
EVENTS = ("begin", "go", "meet", "leave", "move", "grow", "shrink", "film")
FILM_FRAMES = (9, 17)


@dataclass(frozen=True)
class Beat:
    """One step of a story.

    Args:
        event: one of EVENTS.
        sentence: what is told.
        shown: the picture, or the film.
    """

    event: str
    sentence: str
    shown: Scene | Film

    @property
    def scene(self) -> Scene:
        """What is seen; of a film its first frame."""
        return self.shown if isinstance(self.shown, Scene) else self.shown.scene(0)


@dataclass(frozen=True)
class Story:
    """A character and what becomes of it."""

    character: str
    style: str
    beats: tuple[Beat, ...]

    @property
    def keys(self) -> tuple[Key, ...]:
        """The combinations it contains: of its pictures, and of character, setting and event."""
        events = [("event", self.character, beat.scene.background, beat.event) for beat in self.beats]
        return tuple(dict.fromkeys([*(key for beat in self.beats for key in beat.shown.keys), *events]))


def _again(rng: random.Random, scene: Scene, **changes: str) -> Scene:
    """The character alone, where and as it was but for what changes."""
    slots = {"place": scene.place or "center", "size": scene.size or "medium", "background": scene.background}
    names, style = (scene.things[0].concept,), scene.style
    return place_things(rng, names=names, style=style, **slots | changes)  # type: ignore[arg-type]


def _tell(rng: random.Random, event: str, scene: Scene, **words: str) -> Beat:
    frame = rng.choice(phrases(f"beat_{event}"))
    concept = concepts()[scene.things[0].concept]
    return Beat(event, frame.format(n=concept.name, x=concept.one, **words), scene)


def _begin(rng: random.Random, concept: str, style: str, background: str) -> Beat:
    place = rng.choice(("center", "center", *PLACES))
    scene = place_things(rng, names=(concept,), style=style, background=background, place=place)
    where = place_phrase(place).replace("in the center", "in the middle")
    beat = _tell(rng, "begin", scene, place=where, ground=background_phrase(background))
    if place == "center":
        return beat
    frame = phrases("beat_begin")[0]  # whatever is not in the middle is told
    return replace(
        beat, sentence=frame.format(x=concepts()[concept].one, place=where, ground=background_phrase(background))
    )


def _go(rng: random.Random, scene: Scene) -> Beat:
    ground = rng.choice([name for name in DRAWN_BACKGROUNDS if name != scene.background])
    return _tell(rng, "go", _again(rng, scene, background=ground), to=TO[ground])


def _meet(rng: random.Random, scene: Scene) -> Beat:
    name = scene.things[0].concept
    other = rng.choice([one for one in concepts() if one != name])
    pair = place_things(
        rng, names=(name, other), style=scene.style, background=scene.background, relation=rng.choice(RELATIONS[:2])
    )
    return _tell(rng, "meet", pair, other=concepts()[other].one)


def _leave(rng: random.Random, scene: Scene) -> Beat:
    beat = _tell(
        rng,
        "leave",
        _again(rng, replace(scene, relation="", place="center", size="medium")),
        other=scene.things[1].concept,
    )
    return beat


def _move(rng: random.Random, scene: Scene) -> Beat:
    place = rng.choice([name for name in ("left", "right", "top", "bottom") if name != scene.place])
    return _tell(rng, "move", _again(rng, scene, place=place), spot=place)


def _resize(rng: random.Random, scene: Scene) -> Beat:
    size = rng.choice([size for size in ("small", "big") if size != scene.size])
    return _tell(rng, "grow" if size == "big" else "shrink", _again(rng, scene, size=size))


def _next(rng: random.Random, scene: Scene) -> Beat:
    if scene.relation:
        return _leave(rng, scene)
    return rng.choice((_go, _go, _meet, _meet, _move, _resize))(rng, scene)


def _film(rng: random.Random, scene: Scene, num_frames: int, size: tuple[int, int]) -> Beat | None:
    verbs = possible_verbs(scene, num_frames)
    if not verbs:
        return None
    height, width = size
    film = film_of(rng, scene, rng.choice(verbs), num_frames=num_frames, height=height, width=width)
    moves = film.start != film.end
    words = act(film, "third", path=moves and film.verb == "rolls")
    frame = rng.choice(phrases("beat_film"))
    return Beat("film", frame.format(n=film.concept, t=words), film)


def _told(rng: random.Random, scene: Scene, num_beats: int, *, film: bool, size: tuple[int, int]) -> Story | None:
    beats = [_begin(rng, scene.things[0].concept, scene.style, scene.background)]
    while len(beats) < num_beats - film:
        beats.append(_next(rng, beats[-1].scene))
    if film:
        last = _film(rng, beats[-1].scene, rng.choice(FILM_FRAMES) if num_beats == 3 else 9, size)
        if last is None:
            return None
        beats.append(last)
    return Story(scene.things[0].concept, scene.style, tuple(beats))


def _wish(rng: random.Random) -> tuple[Scene, set[str]]:
    """The character and its setting, and the slots that the wish names."""
    scene = sample_scene(rng, None, layout="single")
    said = {"thing"} | {slot for slot, share in (("style", 0.25), ("background", 0.35)) if rng.random() < share}
    grounds = [*DRAWN_BACKGROUNDS, "white"]
    return place_things(
        rng,
        names=(scene.things[0].concept,),
        style=scene.style if "style" in said else rng.choices(STYLES, (50, 25, 25))[0],
        background=scene.background if "background" in said else rng.choice(grounds),
    ), said


def story(rng: random.Random, split: Split) -> Talk:
    """Wish for a story, and tell it in three to five beats."""
    focus = "" if split == "train" else rng.choice(("style", "background", "event"))
    while True:
        scene, said = _wish(rng)
        talk = Talk(rng.choices(("square", "icon"), (88, 12))[0])
        film = rng.random() < 0.35
        told = _told(rng, scene, rng.choice((3, 3, 4, 4, 5)), film=film, size=talk.size)
        if told is None or split_of_all(told.keys) != split:
            continue
        if focus and not any(key[0] == focus and split_of(*key) == split for key in told.keys):
            continue
        wish = rng.choice(phrases("story")).format(x=describe(scene, rng, said))
        if said == {"thing"} and not film and rng.random() < 0.06:
            wish, said = rng.choice(phrases("story_any")), set()
        ending = (
            rng.choice(phrases("story_film" if film else "story_with")) if film or said and rng.random() < 0.4 else ""
        )
        talk.say("user", vary(rng, f"{wish.rstrip('.?')}{ending}{wish[-1] if wish[-1] in '.?' else ''}"))
        talk.say("assistant", *(p for beat in told.beats for p in (beat.sentence, beat.shown)), keys=told.keys)
        if talk.num_tokens() > MAX_TOKENS:
            continue
        talk.truth |= {"story": told, "asked": {slot: value for slot, value in scene.slots.items() if slot in said}}
        return talk
