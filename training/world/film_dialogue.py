"""What people say to set a picture in motion, and dialogues that draw, change, animate and say what changed."""

import random
import re
from collections.abc import Callable

from training.world.conversation import Part, Talk
from training.world.edits import Edit, edit_scene
from training.world.film_language import act
from training.world.film_questions import ask_film, happened
from training.world.held_out import Split
from training.world.language import with_article
from training.world.motion import Film
from training.world.pack import concepts
from training.world.phrases import phrases, vary
from training.world.pictures import Turns, caption_turn, draw_turn, edited, sample_picture, thank
from training.world.questions import ask
from training.world.scene import DRAWN_BACKGROUNDS, Scene
from training.world.verbs import film_of, possible_verbs

__all__ = ["MAX_TOKENS", "animate_request", "animate_words", "film_dialogue", "film_words", "what_changed"]

MAX_TOKENS = 370  # of a training row, with something left for the error of the estimate


def film_words(rng: random.Random, film: Film, shape: str) -> str:
    """Name the kind of film that is wished for: "a wide one second video"."""
    words = [rng.choice(phrases("film_noun"))]
    if film.num_frames < 17 or rng.random() < 0.05:
        words.insert(0, rng.choice(phrases(f"film_{film.num_frames}")))
    if shape != "square":
        words.insert(0, rng.choice(phrases(f"film_{shape}")))
    return with_article(" ".join(words))


def animate_request(rng: random.Random, film: Film, shape: str) -> tuple[str, set[str]]:
    """Ask to set a picture in motion; gives the words and the slots that they name."""
    said = {"thing", "verb", "other"} & set(film.slots)
    if rng.random() < 0.04:
        return vary(rng, rng.choice(phrases("animate_any")).format(n=film.concept)), {"thing"}
    # What stands in the middle may roll either way.
    must = film.verb == "rolls" and film.start in ("center", "top", "bottom")
    moves = film.start != film.end
    path = bool(film.start) and moves and (must or rng.random() < 0.25)
    frame = rng.choice(phrases("animate"))
    forms = {
        "b": act(film, "base", rng, path=path),
        "t": act(film, "third", rng, path=path),
        "g": act(film, "gerund", rng, path=path),
    }
    text = frame.format(n=film.concept, **forms)
    if len(film.actors) > 1:
        text = re.sub(r"(with|into) (a|an) ", r"\1 the ", text)
    if film.num_frames < 17 and rng.random() < 0.9:
        text = f"{text[:-1]}, as {film_words(rng, film, 'square')}{text[-1]}"
    return vary(rng, text), said | ({"start", "end"} if path else set())


def animate_words(rng: random.Random, film: Film, *, sure: bool = False) -> list[Part]:
    """What the assistant says before the film, if anything."""
    if not sure and rng.random() < 0.6:
        return []
    return [rng.choice(phrases("animate_reply")).format(n=film.concept, t=act(film, "third"))]


def _changed_ground(edit: Edit) -> str:
    ground = str(edit.asked["background"])
    return f"The background is now {'the ' if ground in DRAWN_BACKGROUNDS else ''}{ground}."


CHANGES: dict[str, Callable[[Edit], str]] = {
    "recolour": _changed_ground,
    "background": _changed_ground,
    "move": lambda edit: f"The {edit.asked['thing']} moved to the {edit.asked['place']}.",
    "replace": lambda edit: f"The {edit.asked['other']} became {concepts()[str(edit.asked['thing'])].one}.",
    "restyle": lambda edit: f"The {edit.result.things[0].concept} is now in {edit.asked['style']} style.",
    "resize": lambda edit: f"The {edit.asked['thing']} is now {edit.asked['size']}.",
    "add": lambda edit: f"There is now {concepts()[str(edit.asked['thing'])].one}.",
    "remove": lambda edit: f"The {edit.asked['thing']} is gone.",
    "count": lambda edit: f"There are now {len(edit.result.things)}.",
}


def what_changed(edit: Edit) -> str:
    """Say what an edit changed, in one sentence."""
    return CHANGES[edit.operation](edit)


def _edit_turn(rng: random.Random, scene: Scene, talk: Talk, turns: Turns) -> Scene:
    """Change the picture so that one thing remains, and mostly say what changed."""
    edits = (edit_scene(rng, scene, scene.split) for _ in range(8))
    edit = next((edit for edit in edits if edit and edit.result.layout == "single"), None)
    if edit is None:
        return scene
    talk.say("user", vary(rng, edit.instruction), keys=edit.keys)
    talk.say("assistant", *edited(rng, edit))
    turns.append(("edit", edit))
    if rng.random() < 0.5:
        talk.say("user", vary(rng, rng.choice(phrases("what_changed"))))
        talk.say("assistant", what_changed(edit))
        turns.append(("changed", edit))
    return edit.result


def _film_from(rng: random.Random, scene: Scene, talk: Talk, num_frames: int) -> Film | None:
    verbs = possible_verbs(scene, num_frames)
    rng.shuffle(verbs)
    height, width = talk.size
    films = (film_of(rng, scene, verb, num_frames=num_frames, height=height, width=width) for verb in verbs)
    return next((film for film in films if film.split == scene.split), None)


def _animate_turn(rng: random.Random, scene: Scene, talk: Talk, turns: Turns) -> Film | None:
    """Set the picture in motion, in as many frames as there is room for."""
    rows, columns = (side // 16 for side in talk.size)
    room = (MAX_TOKENS - 45 - talk.num_tokens()) // (2 * rows * columns)
    lengths = [length for length in (9, 17) if length // 4 + 1 <= room]
    film = _film_from(rng, scene, talk, lengths[-1]) if lengths else None
    if film is None:
        return None
    text, said = animate_request(rng, film, talk.shape)
    talk.say("user", text)
    talk.say("assistant", *animate_words(rng, film, sure="verb" not in said), film)
    turns.append(("film", film))
    return film


def _talk_of_film(rng: random.Random, film: Film, talk: Talk, turns: Turns) -> None:
    if rng.random() < 0.55:
        talk.say("user", vary(rng, rng.choice(phrases("what_did")).format(n=film.concept)))
        talk.say("assistant", happened(film))
        turns.append(("happened", film))
        return
    question = ask_film(rng, film)
    talk.say("user", vary(rng, question.text))
    talk.say("assistant", question.answer)
    turns.append(("question", question))


def film_dialogue(rng: random.Random, split: Split) -> Talk:
    """Draw or look, describe or change, set in motion, tell what happened: two to five turns."""
    while True:
        talk, turns = Talk(), []
        if rng.random() < 0.6:
            scene = draw_turn(rng, split, talk, turns, first=True, layout="single")
        else:
            scene = sample_picture(rng, split, "single")
            talk.shape = rng.choices(("square", "wide", "tall", "icon"), (72, 10, 10, 8))[0]
            caption_turn(rng, scene, talk, turns, show=True)
        draw = rng.random()
        if draw < 0.45:
            scene = _edit_turn(rng, scene, talk, turns)
        elif draw < 0.65:
            question = ask(rng, scene)
            talk.say("user", vary(rng, question.text))
            talk.say("assistant", question.answer)
            turns.append(("question", question))
        film = _animate_turn(rng, scene, talk, turns)
        if film is None:
            continue
        if rng.random() < 0.6:
            _talk_of_film(rng, film, talk, turns)
        elif rng.random() < 0.3:
            thank(rng, talk)
        talk.truth["turns"] = turns
        return talk
