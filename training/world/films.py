"""Documents with films: asking for one, setting a picture in motion, going on, filling in, telling what happens."""

import random
from collections.abc import Callable, Collection

from training.world.conversation import SHAPES, Masked, Part, Shot, Talk
from training.world.film_dialogue import animate_request, animate_words, film_dialogue, film_words
from training.world.film_language import act, describe_film, film_caption, starts_at
from training.world.film_questions import ask_film
from training.world.held_out import Split, split_of
from training.world.language import caption, describe, sentence
from training.world.motion import Film
from training.world.pack import STYLES
from training.world.phrases import phrases, vary
from training.world.scene import CELL, PLAIN_BACKGROUNDS, Scene, boxes, sample_scene
from training.world.stories import story
from training.world.verbs import FILM_LENGTHS, VERBS, film_of, sample_film, stage_scene
from training.world.worlds import drifted_world, played_world, world

__all__ = ["FILM_KEYS", "MOTION_TASKS"]

FILM_KEYS = ("style", "background", "verb")
MENTION = {"style": 0.4, "background": 0.6, "path": 0.5}
HELD_VERBS = (
    "slides left", "slides right", "slides up", "slides down", "falls", "rolls", "grows", "shrinks",
)  # fmt: skip
FIRST_GIVEN = 0.7  # of the films that a picture begins


def _focus(rng: random.Random, split: Split) -> str:
    return "" if split == "train" else rng.choice(FILM_KEYS)


def _shape_of(film: Film) -> str:
    return next(name for name, size in SHAPES.items() if size == (film.height, film.width))


def _film(rng: random.Random, split: Split, *, hold: int = 0, verbs: Collection[str] = tuple(VERBS)) -> Film:
    lengths = [length for length in FILM_LENGTHS if length >= 9] if hold else None
    num_frames = rng.choice(lengths) if lengths else None
    return sample_film(rng, split, kind=_focus(rng, split), hold=hold, verbs=tuple(verbs), num_frames=num_frames)


def _with_defaults(rng: random.Random, film: Film, said: Collection[str]) -> Film:
    """Give what the request leaves open its usual value, as for pictures; paths their longest."""
    background = film.background
    if "background" not in said:
        background = "white" if rng.random() < 0.7 else rng.choice(tuple(PLAIN_BACKGROUNDS))
    scene = stage_scene(
        rng,
        film.verb,
        names=tuple(actor.concept for actor in film.actors),
        style=film.style if "style" in said else rng.choices(STYLES, (50, 25, 25))[0],
        background=background,
        place=film.start if "start" in said else starts_at(film.verb),
    )
    again = film_of(rng, scene, film.verb, num_frames=film.num_frames, height=film.height, width=film.width)
    # What rolls from the middle may roll either way.
    return again if "start" not in said or again.end == film.end else film


def _said(rng: random.Random, film: Film, focus: str) -> set[str]:
    said = {"thing", "verb", "other"} & set(film.slots)
    everything = rng.random() < 0.25
    said |= {slot for slot in ("style", "background") if everything or slot == focus or rng.random() < MENTION[slot]}
    if film.start and (everything or rng.random() < MENTION["path"]):
        said |= {"start", "end"}
    return said


def wish_film(rng: random.Random, split: Split) -> tuple[Film, set[str]]:
    """A film to be made, and the slots that the request for it names."""
    while True:
        focus = _focus(rng, split)
        film = sample_film(rng, None)
        said = _said(rng, film, focus)
        film = _with_defaults(rng, film, said)
        if film.split == split and (not focus or any(key[0] == focus and split_of(*key) == split for key in film.keys)):
            return film, said


def _request(rng: random.Random, film: Film, said: set[str], shape: str) -> str:
    clause, words = rng.random() < 0.35, film_words(rng, film, shape)
    frame = rng.choice(phrases("film_clause" if clause else "film_bare" if rng.random() < 0.1 else "film"))
    if (shape != "square" or film.num_frames != FILM_LENGTHS[-1]) and "{v}" not in frame:
        frame = "Make {v} where {c}." if clause else "Make {v} of {x}."
    text = describe_film(film, rng, said, form="third" if clause else "gerund")
    return vary(rng, frame.format(v=words, c=text, x=text))


def filmed(rng: random.Random, film: Film) -> list[Part]:
    """The assistant's answer to a wish: mostly a short sentence, and the film."""
    if rng.random() < 0.35:
        return [film]
    words = film_caption(film, ("thing", "verb", "other"), form="gerund")
    return [rng.choice(phrases("film_reply")).format(y=words), film]


def _text_to_video(rng: random.Random, split: Split) -> Talk:
    film, said = wish_film(rng, split)
    talk = Talk(_shape_of(film))
    if split == "train" and rng.random() < 0.02:
        said = set()
        text = vary(rng, rng.choice(phrases("film_any")).format(v=film_words(rng, film, talk.shape)))
    else:
        text = _request(rng, film, said, talk.shape)
    talk.say("user", text)
    talk.say("assistant", *filmed(rng, film))
    talk.truth["asked"] = {slot: value for slot, value in film.slots.items() if slot in said}
    return talk


def _image_to_video(rng: random.Random, split: Split) -> Talk:
    """The film begins with the picture: mostly it is given as its first frame, else the model draws it again."""
    film = _film(rng, split)
    talk = Talk(_shape_of(film))
    text, said = animate_request(rng, film, talk.shape)
    picture = film.scene(0)
    talk.say("user", *([picture, text] if rng.random() < 0.8 else [text, picture]))
    shot = Shot(film, given=(0,) if rng.random() < FIRST_GIVEN else ())
    talk.say("assistant", *animate_words(rng, film, sure="verb" not in said), shot)
    talk.truth["asked"] = {slot: value for slot, value in film.slots.items() if slot in said}
    return talk


def _first_and_last(rng: random.Random, split: Split) -> Talk:
    """The first frame stands before the film, the last latent frame, at rest, inside it."""
    film = _film(rng, split, hold=3, verbs=HELD_VERBS)
    talk = Talk(_shape_of(film))
    text = rng.choice(phrases("between")).format(n=film.concept)
    if rng.random() < 0.4:
        text, _ = animate_request(rng, film, "square")
    last = film.num_frames
    talk.say("user", film.scene(0), vary(rng, text))
    talk.say("assistant", Shot(film, given=tuple(range(last - 4, last))))
    return talk


def _still_moves(film: Film, cut: int) -> bool:
    return any(pose != actor.poses[cut - 1] for actor in film.actors for pose in actor.poses[cut:])


def _continuation(rng: random.Random, split: Split) -> Talk:
    """Give a film up to a frame after which there is still something to be seen; say what happens, and show it."""
    film, cut = None, 0
    while film is None or not _still_moves(film, cut):
        film = sample_film(rng, split, kind=_focus(rng, split), num_frames=rng.choice((13, 17, 17, 17)))
        cut = rng.choice((5, 5, 5, 9))
    talk = Talk(_shape_of(film))
    text = vary(rng, rng.choice(phrases("continue")))
    given = Shot(film, stop=cut)
    talk.say("user", *([given, text] if rng.random() < 0.8 else [text, given]))
    talk.say(
        "assistant", f"It {act(film, 'third', path=film.start != film.end)}.", Shot(film, first=cut, continues=True)
    )
    return talk


def _caption_video(rng: random.Random, split: Split) -> Talk:
    film = _film(rng, split)
    talk = Talk(_shape_of(film))
    text = vary(rng, rng.choice(phrases("caption_film")))
    talk.say("user", *([film] if rng.random() < 0.1 else [film, text] if rng.random() < 0.8 else [text, film]))
    words = film_caption(film)
    talk.say("assistant", sentence(words))
    talk.truth["caption"] = film.slots
    return talk


def _question_video(rng: random.Random, split: Split) -> Talk:
    film = _film(rng, split)
    question = ask_film(rng, film)
    talk = Talk(_shape_of(film))
    text = vary(rng, question.text)
    talk.say("user", *([film, text] if rng.random() < 0.8 else [text, film]))
    talk.say("assistant", question.answer)
    talk.truth["question"] = question
    return talk


def _box_around(
    rng: random.Random, box: tuple[int, int, int], size: tuple[int, int], *, half: bool
) -> tuple[int, int, int, int]:
    """A box on the grid around a thing, or around a half of it; it leaves some of the picture."""
    top, left, side = box
    edges = [top, left, top + side, left + side]
    if half:
        middle = (top + side // 2, left + side // 2)
        edge = rng.randrange(4)
        edges[edge] = middle[edge % 2]
    room = rng.choice((0, 0, CELL)) if side <= min(size) // 2 else 0
    first = [max(0, (edge - room) // CELL * CELL) for edge in edges[:2]]
    last = [min(limit, -(-(edge + room) // CELL) * CELL) for edge, limit in zip(edges[2:], size, strict=True)]
    height, width = last[0] - first[0], last[1] - first[1]
    return _box_around(rng, box, size, half=True) if (height, width) == size else (first[0], first[1], height, width)


def _inpaint(rng: random.Random, split: Split) -> Talk:
    scene = None
    while scene is None or scene.background == "gray":
        kind = "" if split == "train" else rng.choice(("style", "background"))
        scene = sample_scene(rng, split, layout=rng.choice(("single", "single", "relation")), kind=kind)
    talk = Talk(rng.choices(tuple(SHAPES), (72, 10, 10, 8))[0])
    number = rng.randrange(len(scene.things))
    thing, bare = scene.things[number], rng.random() < 0.15
    box = _box_around(rng, boxes(scene, *talk.size)[number], talk.size, half=bare)
    one = Scene((thing,), scene.background, place=scene.place, size=scene.size)
    said = {"thing"} | ({"style"} if not scene.relation and rng.random() < 0.5 else set())
    text = rng.choice(phrases("inpaint_bare" if bare else "inpaint")).format(x=describe(one, rng, said))
    masked, text = Masked(scene, box), vary(rng, text)
    talk.say("user", *([masked, text] if rng.random() < 0.8 else [text, masked]))
    words = rng.choice(phrases("inpaint_reply")).format(x=caption(one, {"thing"}))
    talk.say("assistant", *([words] if rng.random() < 0.3 else []), Masked(scene, box, is_whole=True))
    asked = {"thing": thing.concept} | ({"style": thing.style} if "style" in said else {})
    talk.truth |= {"asked": {} if bare else asked, "box": box, "number": number}
    return talk


MOTION_TASKS: dict[str, Callable[[random.Random, Split], Talk]] = {
    "text_to_video": _text_to_video,
    "image_to_video": _image_to_video,
    "first_and_last": _first_and_last,
    "continuation": _continuation,
    "caption_video": _caption_video,
    "question_video": _question_video,
    "inpaint": _inpaint,
    "world": world,
    "played_world": played_world,
    "drifted_world": drifted_world,
    "story": story,
    "film_dialogue": film_dialogue,
}
