"""Documents with pictures and words: drawing, captions, questions, edits, chat, and dialogues of them all.

What the assistant says is what the model is trained to say.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from training.world.conversation import SHAPES, Part, Snapshot, Talk
from training.world.edits import Edit, edit_scene, sample_edit, thought
from training.world.held_out import Split, split_of, split_of_all
from training.world.language import caption, describe, with_article
from training.world.pack import STYLES, concepts, extras, further_drawings
from training.world.phrases import exchanges, phrases, vary
from training.world.questions import ask
from training.world.scene import (
    PLAIN_BACKGROUNDS,
    SIZES,
    USUAL_SPOTS,
    Layout,
    Light,
    Scene,
    place_things,
    sample_scene,
)
from training.world.talk import talk

__all__ = ["PICTURE_TASKS", "caption_turn", "draw_turn", "edited", "sample_picture", "thank"]

SHAPE_WEIGHTS = (72, 10, 10, 8)
Turns = list[tuple[str, Any]]
KINDS_OF_LAYOUT = {
    "single": ("style", "background"),
    "count": ("count", "style"),
    "relation": ("relation", "style"),
}
TINTS = (0.8, 1.2)  # of red, green and blue light
MENTION = {"style": 0.5, "background": 0.65, "place": 0.5, "size": 0.45, "count": 0.95, "relation": 0.9}


def _shape(rng: random.Random, scene: Scene) -> str:
    shape = rng.choices(tuple(SHAPES), SHAPE_WEIGHTS)[0]
    return "square" if shape == "icon" and scene.layout == "count" else shape


def _focus(rng: random.Random, split: Split, layout: Layout) -> str:
    """Which kind of combination must be held out: all kinds get their share of a test."""
    return "" if split == "train" else rng.choice(KINDS_OF_LAYOUT[layout])


def _layout(rng: random.Random) -> Layout:
    draw = rng.random()
    return "single" if draw < 0.6 else "count" if draw < 0.77 else "relation"


def _with_defaults(rng: random.Random, scene: Scene, said: set[str]) -> Scene:
    """Give what the request leaves open its usual value: plain ground (mostly white), center, medium, usual spots."""
    background = scene.background
    count = len(scene.things) if scene.layout == "count" else 1
    if "background" not in said:
        background = "white" if rng.random() < 0.7 else rng.choice(tuple(PLAIN_BACKGROUNDS))
    return place_things(
        rng,
        names=tuple(dict.fromkeys(thing.concept for thing in scene.things)),
        style=scene.style if "style" in said else rng.choices(STYLES, (50, 25, 25))[0],
        background=background,
        count=count,
        spots=USUAL_SPOTS[:count],
        place=scene.place if "place" in said else "center",
        size=scene.size if "size" in said else "medium",
        relation=scene.relation if "relation" in said else "left of" if scene.relation else "",
    )


def _wish(rng: random.Random, split: Split, layout: Layout | None = None) -> tuple[Scene, set[str]]:
    """A scene to be drawn, and the slots that the request for it names."""
    layout = layout or _layout(rng)
    focus = _focus(rng, split, layout)
    draw = rng.random()
    while True:
        scene = sample_scene(rng, None, layout=layout)
        said = {slot for slot in scene.slots if slot not in MENTION or draw < 0.3 or rng.random() < MENTION[slot]}
        if draw > 0.85 and layout == "single":
            said = {"thing"}
        said |= {focus} if focus else set()
        scene = _with_defaults(rng, scene, said)
        if split_of_all(scene.keys) != split:
            continue
        if not focus or any(key[0] == focus and split_of(*key) == split for key in scene.keys):
            return scene, said


def _request(rng: random.Random, scene: Scene, said: set[str], shape: str) -> str:
    """Ask for the picture."""
    bare = rng.random() < 0.12
    frames = phrases("draw_bare" if bare else "draw")
    picture = rng.choice(phrases("picture"))
    if shape != "square" and rng.random() < 0.9:
        frames = tuple(frame for frame in frames if "{p}" in frame)
        picture = rng.choice(phrases(shape))
    frame = rng.choice(frames)
    words = describe(scene, rng, said, ground_first=frame == "{x}" and rng.random() < 0.3)
    return vary(rng, frame.format(x=words, p=picture))


def _agree(scene: Scene, words: str) -> str:
    """Here is, here are: several things take the plural."""
    if scene.layout != "count":
        return words
    return words.replace("ere is ", "ere are ").replace("This is ", "These are ")


def _drawn(rng: random.Random, scene: Scene) -> list[Part]:
    """The assistant's answer to a wish: mostly a short sentence, and the picture."""
    if rng.random() < 0.35:
        return [scene]
    named = caption(scene, ("thing", "other", "count", "relation"))
    sentence = _agree(scene, rng.choice(phrases("draw_reply")).format(y=named))
    return [scene, sentence] if rng.random() < 0.1 else [sentence, scene]


def _shown(rng: random.Random, scene: Scene, text: str) -> list[Part]:
    return [scene, text] if rng.random() < 0.75 else [text, scene]


def _captioned(rng: random.Random, scene: Scene) -> str:
    words = caption(scene)
    return _agree(scene, rng.choice(phrases("caption_reply")).format(y=words, Y=words[0].upper() + words[1:]))


def _vague(rng: random.Random, talk_: Talk) -> None:
    """Ask for any picture, for one of a group, or for a thing that the model does not know."""
    scene = None
    while scene is None or scene.split != "train":
        scene = _with_defaults(rng, sample_scene(rng, layout="single"), {"thing"})
    concept = concepts()[scene.things[0].concept]
    group = {"animals": "an animal", "foods": "a food", "faces": "a face"}.get(concept.group)
    draw, picture = rng.random(), rng.choice(phrases("picture"))
    if draw < 0.4:
        unknown = with_article(rng.choice(phrases("unknown")))
        talk_.say("user", vary(rng, rng.choice(phrases("draw")).format(x=unknown, p=picture)))
        talk_.say("assistant", f"I do not know {unknown}. Here is {concept.one}.", scene)
        return
    if draw < 0.7 and group:
        text = rng.choice(phrases("draw")).format(x=group, p=picture)
    else:
        text = rng.choice(phrases("draw_any")).format(p=picture)
    talk_.say("user", vary(rng, text))
    talk_.say("assistant", *_drawn(rng, scene))


def _text_to_image(rng: random.Random, split: Split) -> Talk:
    if split == "train" and rng.random() < 0.04:
        talk_ = Talk()
        talk_.truth["asked"] = {}
        _vague(rng, talk_)
        return talk_
    scene, said = _wish(rng, split)
    talk_ = Talk(_shape(rng, scene))
    talk_.say("user", _request(rng, scene, said, talk_.shape))
    talk_.say("assistant", *_drawn(rng, scene))
    talk_.truth["asked"] = {slot: value for slot, value in scene.slots.items() if slot in said}
    return talk_


def sample_picture(rng: random.Random, split: Split, layout: Layout | None = None) -> Scene:
    """Draw a scene that a person shows; a test's holds each kind of combination equally often."""
    layout = layout or _layout(rng)
    return sample_scene(rng, split, layout=layout, kind=_focus(rng, split, layout))


def _described(rng: random.Random, scene: Scene) -> Talk:
    talk_ = Talk(_shape(rng, scene))
    text = vary(rng, rng.choice(phrases("caption")))
    talk_.say("user", *([scene] if rng.random() < 0.12 else _shown(rng, scene, text)))
    talk_.say("assistant", _captioned(rng, scene))
    talk_.truth["caption"] = scene.slots
    return talk_


def _asked(rng: random.Random, scene: Scene, kind: str = "") -> Talk:
    question = ask(rng, scene, kind)
    talk_ = Talk(_shape(rng, scene))
    talk_.say("user", *_shown(rng, scene, vary(rng, question.text)))
    talk_.say("assistant", question.answer)
    talk_.truth["question"] = question
    return talk_


def _caption_image(rng: random.Random, split: Split) -> Talk:
    return _described(rng, sample_picture(rng, split))


def _question(rng: random.Random, split: Split) -> Talk:
    return _asked(rng, sample_picture(rng, split))


def _presence(rng: random.Random, split: Split) -> Talk:
    """Ask whether something is there, or belongs to a group: yes and no are hard to learn, so there are many."""
    scene = sample_picture(rng, split)
    return _asked(rng, scene, "group" if scene.layout == "count" else "present")


def edited(rng: random.Random, edit: Edit) -> list[Part]:
    """The assistant's answer to an instruction."""
    if words := thought(edit):
        return [words, edit.result]
    return [edit.result] if rng.random() < 0.6 else [rng.choice(phrases("edit_reply")), edit.result]


def _edit(rng: random.Random, split: Split, operation: str | None = None) -> Talk:
    edit = sample_edit(rng, split, operation, own=split != "train" and rng.random() < 0.6)
    talk_ = Talk(_shape(rng, edit.source if len(edit.source.things) > 1 else edit.result))
    talk_.say("user", *_shown(rng, edit.source, vary(rng, edit.instruction)), keys=edit.keys)
    talk_.say("assistant", *edited(rng, edit))
    talk_.truth |= {"edit": edit, "asked": edit.asked}
    return talk_


def _chat(rng: random.Random, split: Split) -> Talk:
    exchange = talk(rng)
    talk_ = Talk()
    talk_.say("user", exchange.said)
    talk_.say("assistant", exchange.answer)
    talk_.truth["exchange"] = exchange
    return talk_


def _talk_once(rng: random.Random, talk_: Talk, turns: Turns) -> None:
    exchange = talk(rng)
    while exchange.kind == "no_picture":
        exchange = talk(rng)
    talk_.say("user", exchange.said)
    talk_.say("assistant", exchange.answer)
    turns.append(("exchange", exchange))


def thank(rng: random.Random, talk_: Talk) -> None:
    """Let the user thank or say goodbye."""
    said, answers = rng.choice([pair for pair in exchanges() if {"thanks", "great", "bye", "yes"} & set(pair[0])])
    talk_.say("user", vary(rng, rng.choice(said)))
    talk_.say("assistant", rng.choice(answers))


def draw_turn(
    rng: random.Random, split: Split, talk_: Talk, turns: Turns, *, first: bool, layout: Layout | None = None
) -> Scene:
    """Let the user ask for a picture, and draw it; gives the picture."""
    scene, said = _wish(rng, split, layout)
    if first:
        talk_.shape = _shape(rng, scene)
    elif talk_.shape == "icon" and scene.layout == "count":
        scene, said = _wish(rng, split, "single")
    talk_.say("user", _request(rng, scene, said, talk_.shape))
    talk_.say("assistant", *_drawn(rng, scene))
    turns.append(("asked", {slot: value for slot, value in scene.slots.items() if slot in said}))
    return scene


def caption_turn(rng: random.Random, scene: Scene, talk_: Talk, turns: Turns, *, show: bool) -> None:
    """Let the user ask what is in the picture, which is shown or was drawn before."""
    text = vary(rng, rng.choice(phrases("caption")))
    talk_.say("user", *(_shown(rng, scene, text) if show else [text]))
    talk_.say("assistant", _captioned(rng, scene))
    turns.append(("caption", scene.slots))


def _open(rng: random.Random, split: Split, talk_: Talk, turns: Turns) -> Scene:
    """Begin a dialogue so that there is a picture to speak of; gives that picture."""
    draw = rng.random()
    if draw < 0.3:
        scene = sample_picture(rng, split)
        talk_.shape = _shape(rng, scene)
        caption_turn(rng, scene, talk_, turns, show=True)
        return scene
    if draw < 0.5:
        _talk_once(rng, talk_, turns)
    return draw_turn(rng, split, talk_, turns, first=True)


def _go_on(rng: random.Random, scene: Scene, talk_: Talk, turns: Turns) -> Scene:
    """One more turn about the picture; gives the picture that is then spoken of."""
    draw, split = rng.random(), scene.split
    edit = edit_scene(rng, scene, split) if draw < 0.5 else None
    if edit:
        talk_.say("user", vary(rng, edit.instruction), keys=edit.keys)
        talk_.say("assistant", *edited(rng, edit))
        turns.append(("edit", edit))
        return edit.result
    if draw < 0.65:
        return draw_turn(rng, split, talk_, turns, first=False)
    if draw < 0.77:
        caption_turn(rng, scene, talk_, turns, show=False)
        return scene
    question = ask(rng, scene)
    talk_.say("user", vary(rng, question.text))
    talk_.say("assistant", question.answer)
    turns.append(("question", question))
    return scene


def _dialogue(rng: random.Random, split: Split) -> Talk:
    talk_ = Talk()
    turns: Turns = []
    scene = _open(rng, split, talk_, turns)
    for _ in range(rng.choice((1, 1, 2))):
        scene = _go_on(rng, scene, talk_, turns)
    if rng.random() < 0.25:
        thank(rng, talk_)
    talk_.truth["turns"] = turns
    return talk_


def _rare(rng: random.Random, split: Split, kinds: Mapping[Callable[[random.Random, Split], Talk], int]) -> Talk:
    """Draw, caption or ask about what all pictures show too rarely.

    Half of them hold a single medium thing; here are small, big or several ones, icons, and two things to be told.
    """
    while True:
        kind = rng.choices(tuple(kinds), tuple(kinds.values()))[0]
        talk_ = kind(rng, split)
        scenes = [part for _, parts in talk_.turns for part in parts if isinstance(part, Scene)]
        extents = {thing.extent for scene in scenes for thing in scene.things}
        are_told = kind is not _text_to_image and any(scene.relation for scene in scenes)
        if talk_.shape == "icon" or are_told or SIZES["medium"] not in extents:
            return talk_


def _practice(rng: random.Random, split: Split) -> Talk:
    return _rare(rng, split, {_text_to_image: 60, _caption_image: 30, _question: 10})


def _practice_drawing(rng: random.Random, split: Split) -> Talk:
    return _rare(rng, split, {_text_to_image: 1})


def _practice_edit(rng: random.Random, split: Split) -> Talk:
    """Edit in the ways that are learnt last: what is named is to go, or all that is there is drawn another way."""
    return _edit(rng, split, rng.choice(("remove", "remove", "restyle", "count", "replace")))


def _in_other_light(rng: random.Random, talk_: Talk) -> Talk:
    """Turn the things of its pictures the other way, or show them in other light."""
    tint = rng.uniform(*TINTS), rng.uniform(*TINTS), rng.uniform(*TINTS)
    light = Light(is_mirrored=rng.random() < 0.5, tint=tint)
    talk_.turns = [
        (role, [Snapshot(part, light) if isinstance(part, Scene) else part for part in parts])
        for role, parts in talk_.turns
    ]
    talk_.truth["light"] = light
    return talk_


def _seen_anew(rng: random.Random, split: Split) -> Talk:
    """Describe a picture, or answer a question about it, whose things face the other way or stand in other light."""
    return _in_other_light(rng, rng.choices((_caption_image, _question), (80, 20))[0](rng, split))


def _album(rng: random.Random, split: Split) -> Talk:
    """Answer a question about a picture of what the model neither draws nor describes.

    It learns what a fox is from more drawings than its own three, and what a style is from more things than its own;
    were they described, descriptions of its own things would name what is in the album alone.
    """
    while True:
        scene = sample_scene(rng, None, layout="count" if rng.random() < 0.2 else "single")
        is_extra = rng.random() < 0.3
        name, style = (rng.choice(tuple(extras())), rng.choice(STYLES)) if is_extra else rng.choice(further_drawings())
        scene = replace(scene, things=tuple(replace(thing, concept=name, style=style) for thing in scene.things))
        if scene.split == split and scene.size != "big":  # the album's sprites are small
            return _in_other_light(rng, _asked(rng, scene, "style" if is_extra and rng.random() < 0.5 else "thing"))


PICTURE_TASKS: dict[str, Callable[[random.Random, Split], Talk]] = {
    "text_to_image": _text_to_image,
    "caption_image": _caption_image,
    "question": _question,
    "presence": _presence,
    "edit": _edit,
    "chat": _chat,
    "dialogue": _dialogue,
    "practice": _practice,
    "practice_drawing": _practice_drawing,
    "practice_edit": _practice_edit,
    "seen_anew": _seen_anew,
    "album": _album,
}
