"""Exams whose answer is a film: from words, from a first frame, from a film's beginning."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from omni.parts import Video
from training.exams.room import (
    Pixels,
    Room,
    as_given,
    by_split,
    collect,
    films_of,
    next_of_same,
    pictures_of,
    shape_of,
    words_of,
)
from training.judges.motion import Spot, Tracker, backgrounds, film_verb, place_of, verb_of
from training.judges.views import View
from training.scores import Score
from training.world.conversation import Example
from training.world.held_out import Key
from training.world.motion import FPS, Film, film_boxes

Shown = list[tuple[Pixels, str]]

NUM_FRAMES, SIZE, SECONDS = 17, (64, 64), 2
# A film is begun with so many frames; whatever has motion to go on with.
BEGUN, FRAMES_PER_LATENT = 5, 4
GOING_ON = (
    "slides left", "slides right", "slides up", "slides down", "rolls", "orbits", "spins", "grows", "shrinks", "shakes",
)  # fmt: skip
# A thing has come to rest where it should within so many pixels, and this factor of its size.
REST_PX, REST_FACTOR = 4, 1.3
SHEET_FRAMES = 6


def strip(frames: Pixels) -> Pixels:
    """Lay some frames of a film side by side, for a sheet."""
    chosen = np.linspace(0, len(frames) - 1, min(SHEET_FRAMES, len(frames))).round().astype(int)
    return np.concatenate(list(frames[chosen]), axis=1)


def is_usual(example: Example) -> bool:
    """Whether a film has the length and size in which films are examined."""
    film: Film = example.truth["films"][0]
    return film.num_frames == NUM_FRAMES and (film.height, film.width) == SIZE


def both_splits(room: Room, task: str, count: int, want: Callable[[Example], bool] = is_usual) -> list[Example]:
    """Half of the examples as training has them, half with combinations that it never saw."""
    return [example for split in ("train", "test") for example in room.examples(task, split, count // 2, want=want)]


def verb_keys(film: Film) -> tuple[Key, ...]:
    """The combinations of a film's things with its verb."""
    return tuple(key for key in film.keys if key[0] == "verb")


def keys_of(film: Film, kind: str) -> tuple[Key, ...]:
    """The first thing's combination of a kind."""
    return tuple(key for key in film.keys if key[0] == kind)[:1]


@dataclass(frozen=True, eq=False)
class FilmView:
    """What the judges make of a film that answers words.

    Args:
        frames: uint8, [F, H, W, 3].
        first: what is seen in the first frame.
        num_things: how many were asked for.
    """

    frames: Pixels
    first: View
    num_things: int

    @cached_property
    def motion(self) -> tuple[str, list[Spot], Tracker]:
        """The verb, and the path of the first thing."""
        return film_verb(self.frames, self.first.sight.things[: self.num_things])

    @cached_property
    def backgrounds(self) -> list[str]:
        """The background of every frame."""
        return backgrounds(self.frames)

    def ends(self) -> tuple[str, str]:
        """Where the first thing begins and ends."""
        spots, size = self.motion[1], self.frames.shape[1:3]
        return (place_of(spots[0], *size), place_of(spots[-1], *size)) if spots else ("", "")


def _views(room: Room, films: Sequence[Pixels], examples: Sequence[Example], *, real: bool) -> list[FilmView]:
    wanted: list[Film] = [example.truth["films"][0] for example in examples]
    styles = [
        film.style if real else example.truth["asked"].get("style", "")
        for film, example in zip(wanted, examples, strict=True)
    ]
    things = [len(film.actors) for film in wanted]
    views = room.judges.view([frames[0] for frames in films], styles=styles, things=things)
    return [FilmView(*parts) for parts in zip(films, views, things, strict=True)]


Rule = Callable[[FilmView, dict[str, str], str], bool]
# measure -> the slot of the request that it judges, how, and the kind of combination that counts.
FILM_RULES: dict[str, tuple[str, Rule, str]] = {
    "thing": ("thing", lambda view, asked, seed: view.first.is_identified(asked["thing"], seed=seed), "style"),
    "verb": ("verb", lambda view, asked, seed: view.motion[0] == asked["verb"], "verb"),
    "place": ("start", lambda view, asked, seed: view.ends() == (asked["start"], asked["end"]), "verb"),
    "background": (
        "background",
        lambda view, asked, seed: set(view.backgrounds) == {asked["background"]},
        "background",
    ),
}


def _rule_keys(example: Example, kind: str) -> tuple[Key, ...]:
    film: Film = example.truth["films"][0]
    # A thing whose style was left open is asked for together with its verb.
    return keys_of(film, kind if kind in example.truth["asked"] else "verb")


def judge_films(room: Room, examples: Sequence[Example], filmed: Sequence[Pixels]) -> Iterator[Score]:
    """Score films, the real ones in their place, and the films against other requests."""
    reals = room.through_codec([films_of(example.messages[1])[0] for example in examples])
    views = _views(room, filmed, examples, real=False)
    real_views = _views(room, reals, examples, real=True)
    for measure, (slot, rule, kind) in FILM_RULES.items():
        numbers = [number for number, example in enumerate(examples) if slot in example.truth["asked"]]
        others = next_of_same([views[number].num_things for number in numbers])
        for number, other in zip(numbers, others, strict=True):
            asked, name, seed = examples[number].truth["asked"], f"text_to_video/{measure}", str(number)
            keys = _rule_keys(examples[number], kind)
            for split, view in by_split(keys, views[number], real_views[number], views[numbers[other]]):
                yield Score(name, split, keys, rule(view, asked, seed))


def text_to_video(room: Room, count: int) -> tuple[list[Score], Shown]:
    """Examine filming: half of the requests hold a combination that training never saw."""
    examples = both_splits(room, "text_to_video", count, lambda e: is_usual(e) and "verb" in e.truth["asked"])
    prompts = [words_of(example.messages[0]) for example in examples]
    filmed: dict[int, Pixels] = {}
    for batch in room.batches([SIZE] * len(examples), label="film"):
        videos = room.candidate.video([prompts[n] for n in batch], seconds=SECONDS, size=SIZE, seed=room.seeds(batch))
        filmed |= {number: video.frames for number, video in zip(batch, videos, strict=True)}
    films = collect(filmed)
    return list(judge_films(room, examples, films)), [(strip(f), p) for f, p in zip(films, prompts, strict=True)]


# Films that begin with something given: the sprites to look for are known.


@dataclass(frozen=True, eq=False)
class Followed:
    """A film whose things are known from what was given.

    Args:
        frames: uint8, [F, H, W, 3]; the first is given.
        truth: the film that was expected.
        first: the frame of that film at which this one begins.
    """

    frames: Pixels
    truth: Film
    first: int = 0

    @cached_property
    def tracker(self) -> Tracker:
        """Of the frames."""
        return Tracker(self.frames)

    @cached_property
    def paths(self) -> list[list[Spot]]:
        """Where each thing is."""
        sizes = [boxes[self.first][2] for boxes in film_boxes(self.truth)]
        actors = zip(self.truth.actors, sizes, strict=True)
        return self.tracker.follow_all([(actor.concept, actor.style, size) for actor, size in actors])

    @cached_property
    def verb(self) -> str:
        """What happens."""
        return verb_of(self.paths[0], *self.frames.shape[1:3], other=self.paths[1] if len(self.paths) > 1 else ())

    def keeps(self, film: Film, seed: str) -> bool:
        """Whether a film's thing is there in every frame."""
        return all(self.tracker.is_kept(self.paths[0], film.concept, film.style, seed=seed))

    def ends_as(self, film: Film) -> bool:
        """Whether the thing ends where a film's does, as large."""
        top, left, side = film_boxes(film)[0][-1]
        spot = self.paths[0][-1]
        away = max(abs(spot.row - top - side / 2), abs(spot.column - left - side / 2))
        return away <= REST_PX and 1 / REST_FACTOR <= spot.size / side <= REST_FACTOR

    def keeps_background(self, film: Film) -> bool:
        """Whether a film's background is there in every frame."""
        return set(backgrounds(self.frames)) == {film.background}


# The kind of combination that counts, and how it is judged.
FollowedRule = tuple[str, Callable[[Followed, Film, str], bool]]
FOLLOWED_RULES: dict[str, FollowedRule] = {
    "thing": ("style", lambda one, film, seed: one.keeps(film, seed)),
    "background": ("background", lambda one, film, seed: one.keeps_background(film)),
    "verb": ("verb", lambda one, film, seed: one.verb == film.verb),
}


def judge_followed(
    task: str, made: Sequence[Followed], reals: Sequence[Followed], rules: Mapping[str, FollowedRule] = FOLLOWED_RULES
) -> Iterator[Score]:
    """Score films that begin with something given; "kept" is thing and background together."""
    others = next_of_same([len(one.truth.actors) for one in made])
    for number, (one, real) in enumerate(zip(made, reals, strict=True)):
        seed, film, other = str(number), one.truth, made[others[number]].truth
        trios = ((one, film), (real, film), (one, other))
        found = {name: [rule(who, what, seed) for who, what in trios] for name, (_, rule) in rules.items()}
        found["kept"] = [a and b for a, b in zip(found["thing"], found["background"], strict=True)]
        for name, rights in found.items():
            keys = keys_of(film, rules[name][0]) if name in rules else film.scene(0).keys
            for split, is_right in by_split(keys, *rights):
                yield Score(f"{task}/{name}", split, keys, is_right)


def image_to_video(room: Room, count: int) -> tuple[list[Score], Shown]:
    """Examine setting pictures in motion."""
    examples = both_splits(room, "image_to_video", count, lambda e: is_usual(e) and "verb" in e.truth["asked"])
    made: dict[int, Followed] = {}
    for batch in room.batches([SIZE] * len(examples), label="animate"):
        pictures = [pictures_of(examples[number].messages[0])[0] for number in batch]
        wishes = [words_of(examples[number].messages[0]) for number in batch]
        videos = room.candidate.animate(pictures, wishes, seconds=SECONDS, seed=room.seeds(batch))
        for number, video in zip(batch, videos, strict=True):
            made[number] = Followed(video.frames, examples[number].truth["films"][0])
    answers = collect(made)
    reals = room.through_codec([films_of(example.messages[1])[0] for example in examples])
    truths = [Followed(frames, one.truth) for frames, one in zip(reals, answers, strict=True)]
    shown = [(strip(one.frames), words_of(e.messages[0])) for one, e in zip(answers, examples, strict=True)]
    return list(judge_followed("image_to_video", answers, truths)), shown


def first_and_last(room: Room, count: int) -> tuple[list[Score], Shown]:
    """Examine films between two pictures: as those from one, and whether the thing comes to rest as in the last."""
    examples = both_splits(room, "first_and_last", count)
    reals = [films_of(example.messages[1])[0] for example in examples]
    made: dict[int, Followed] = {}
    for batch in room.batches([SIZE] * len(examples), label="first_and_last"):
        pictures = [pictures_of(examples[number].messages[0])[0] for number in batch]
        wishes = [words_of(examples[number].messages[0]) for number in batch]
        lasts = [reals[number][-1] for number in batch]
        videos = room.candidate.animate(pictures, wishes, last_image=lasts, seconds=SECONDS, seed=room.seeds(batch))
        for number, video in zip(batch, videos, strict=True):
            made[number] = Followed(video.frames, examples[number].truth["films"][0])
    answers = collect(made)
    truths = [Followed(frames, one.truth) for frames, one in zip(room.through_codec(reals), answers, strict=True)]
    shown = [(strip(one.frames), words_of(e.messages[0])) for one, e in zip(answers, examples, strict=True)]
    rules = FOLLOWED_RULES | {"end": ("verb", lambda one, film, _: one.ends_as(film))}
    return list(judge_followed("first_and_last", answers, truths, rules)), shown


def _is_begun(example: Example) -> bool:
    film: Film = example.truth["films"][0]
    return is_usual(example) and film.verb in GOING_ON and len(films_of(example.messages[0])[0]) == BEGUN


def continuation(room: Room, count: int) -> tuple[list[Score], Shown]:
    """Examine going on with a film; the verb is read from the new frames alone, and the last given one."""
    examples = both_splits(room, "continuation", count, _is_begun)
    made: dict[int, Followed] = {}
    for batch in room.batches([SIZE] * len(examples), label="continue"):
        begun = [films_of(examples[number].messages[0])[0] for number in batch]
        films = [examples[number].truth["films"][0] for number in batch]
        videos = room.candidate.continue_(
            [Video(frames, film.fps) for frames, film in zip(begun, films, strict=True)],
            seconds=(NUM_FRAMES - BEGUN) / films[0].fps,
            seed=room.seeds(batch),
        )
        for number, before, film, video in zip(batch, begun, films, videos, strict=True):
            made[number] = Followed(np.concatenate([before[-1:], video.frames]), film, BEGUN - 1)
    answers = collect(made)
    reals = room.through_codec([np.concatenate([films_of(m)[0] for m in example.messages]) for example in examples])
    truths = [Followed(f[BEGUN - 1 :], one.truth, BEGUN - 1) for f, one in zip(reals, answers, strict=True)]
    shown = [(strip(one.frames), one.truth.verb) for one in answers]
    return [*judge_followed("continuation", answers, truths), *_chosen(room, count)], shown


def _chosen(room: Room, count: int) -> Iterator[Score]:
    """Examine whether a request in a chat to go on with a film, of any shape, is answered by going on with it."""
    examples = both_splits(room, "continuation", count, lambda e: True)
    given: dict[int, list[Video]] = {}
    for batch in room.batches([shape_of(example) for example in examples], label="go on"):
        first = [examples[number].messages[0] for number in batch]
        asked = [[{**message, "content": [as_given(item) for item in message["content"]]}] for message in first]
        replies = room.candidate.generate(asked, seed=room.seeds(batch))
        given |= {number: list(reply.videos) for number, reply in zip(batch, replies, strict=True)}
    answers = collect(given)
    truths = [[Video(films_of(example.messages[1])[0], float(FPS))] for example in examples]
    for number, other in enumerate(next_of_same([""] * len(examples))):
        film = examples[number].truth["films"][0]
        for split, videos in by_split(film.keys, answers[number], truths[number], answers[other]):
            yield Score(
                "continuation/chosen", split, film.keys, [_shape(v) for v in videos] == [(film.height, film.width)]
            )


def _shape(video: Video) -> tuple[int, int] | None:
    """Return rows and columns of what goes on with a film: a film that begins anew has a frame more."""
    return video.frames.shape[1:3] if video.num_frames % FRAMES_PER_LATENT == 0 else None
