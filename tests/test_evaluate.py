"""The evaluation: about one for a candidate that knows all answers, chance on shuffled requests."""

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from omni.errors import ConfigError
from omni.parts import Image, Text
from omni.pipeline import Reply
from training.evaluate import app, chosen_tasks, evaluate, spread
from training.exams.pictures import is_unharmed, untouched
from training.exams.room import Room, by_split, pictures_of, with_of_real, words_of
from training.exams.words import held_out_phrasings
from training.scores import Score, figures, share, table, wilson_interval
from training.sheets import contact_sheet
from training.world.language import describe
from training.world.pack import concepts
from training.world.phrases import exchanges, phrases, small_talk
from training.world.scene import render, sample_scene
from training.world.tasks import document

COUNT = 12


def noisy(pixels: np.ndarray) -> np.ndarray:
    """Stand in for a codec, with about the error of the small one."""
    noise = np.random.default_rng(int(pixels.sum())).normal(0, 7, pixels.shape)
    return np.clip(pixels + noise, 0, 255).round().astype(np.uint8)


class Oracle:
    """Knows the right answer to every question of the exams, and passes pictures through the codec."""

    def __init__(self, count: int) -> None:
        room = Room(self, noisy, judges=None)  # type: ignore[arg-type]
        self.answers: dict[Any, dict[str, Any]] = {}
        self.talks: dict[tuple[str, ...], str] = {}
        self.asks_for_picture = {text: kind == "image" for text, kind in held_out_phrasings()}
        for task in ("text_to_image", "caption_image", "question", "edit"):
            for split in ("train", "test"):
                for example in room.examples(task, split, 4 * count, want=lambda e: True):
                    self.answers[self._key(example.messages[0])] = example.messages[1]
                for example in room.examples("recall", split, 4 * count, want=lambda e: True):
                    words = tuple(words_of(message) for message in example.messages)
                    self.talks |= {words[:end]: words[end] for end in range(1, len(words), 2)}
        self.chains: dict[tuple[str, ...], np.ndarray] = {}
        for split in ("train", "test"):
            for example in room.examples("dialogue", split, 40 * count, want=lambda e: True):
                words = [words_of(message) for message in example.messages]
                for number, message in enumerate(example.messages[1:], 1):
                    for picture in pictures_of(message)[:1]:
                        self.chains[tuple(words[max(0, number - 3) : number : 2])] = picture
                        self.chains.setdefault((words[number - 1],), picture)
        for task in ("text_to_image", "chat"):
            for example in room.examples(task, "train", 4 * count, want=lambda e: True):
                self.asks_for_picture[words_of(example.messages[0])] = task == "text_to_image"

    @staticmethod
    def _key(message: dict[str, Any], *, with_words: bool = True) -> tuple[str, bytes]:
        words = words_of(message) if with_words else ""
        return words, b"".join(picture.tobytes() for picture in pictures_of(message))

    def _answer(self, *items: dict[str, Any]) -> dict[str, Any]:
        return self.answers[self._key({"role": "user", "content": list(items)})]

    def image(self, prompt: Sequence[str], *, size: tuple[int, int], seed: Any) -> list[Image]:
        answers = [self._answer({"type": "text", "text": words}) for words in prompt]
        return [Image(noisy(pictures_of(answer)[0])) for answer in answers]

    def edit(self, image: Sequence[np.ndarray], instruction: Sequence[str], *, seed: Any) -> list[Image]:
        pairs = zip(image, instruction, strict=True)
        answers = [self._answer({"type": "image", "image": p}, {"type": "text", "text": w}) for p, w in pairs]
        return [Image(noisy(pictures_of(answer)[0])) for answer in answers]

    def caption(self, image: Sequence[np.ndarray], *, seed: Any) -> list[str]:
        known = {
            picture: answer for (_, picture), answer in self.answers.items() if picture and not pictures_of(answer)
        }
        return [words_of(known[picture.tobytes()]) for picture in image]

    def generate(self, conversations: Sequence[Any], *, seed: Any, **settings: Any) -> list[Reply]:
        replies = []
        for one in conversations:
            if isinstance(one, str):
                drawn = Image(np.zeros((16, 16, 3), np.uint8))
                replies.append(Reply((drawn if self.asks_for_picture[one] else Text("Words."),), 0))
            elif (words := tuple(words_of(message) for message in one)) in self.talks:
                replies.append(Reply((Text(self.talks[words]),), 0))
            elif not pictures_of(one[-1]):
                picture = self.chains.get(words[-3::2], self.chains[words[-1:]])
                replies.append(Reply((Image(noisy(picture)),), 0))
            else:
                replies.append(Reply((Text(words_of(self.answers[self._key(one[-1])])),), 0))
        return replies


@pytest.fixture(scope="module")
def scores() -> list[Score]:
    tasks = ("text_to_image", "caption_image", "edit", "modality", "question", "long_talk", "recall", "chain")
    return evaluate(Oracle(COUNT), noisy, tasks=tasks, count=COUNT, judge_settings={"feature_size": 96})[0]


def shares(scores: list[Score], measures: Sequence[str], *splits: str) -> float:
    return share([score for score in scores if score.measure in measures and score.split in splits])


@pytest.mark.parametrize(
    "measure",
    ["text_to_image/background", "text_to_image/place", "text_to_image/count", "text_to_image/thing_template",
     "text_to_image/size", "text_to_image/style", "caption_image/slots", "edit/unharmed", "modality/choice",
     "long_talk/behind_0", "long_talk/behind_20", "recall/answer", "chain/drawn", "chain/unharmed"],
)  # fmt: skip
def test_judges_find_the_truth_right(scores: list[Score], measure: str) -> None:
    assert shares(scores, [measure], "seen", "unseen") == 1.0


def test_judges_find_most_of_the_truth_right_where_they_can_err(scores: list[Score]) -> None:
    measures = ["text_to_image/thing", "text_to_image/relation", "edit/changed", "question/answer", "chain/changed"]
    assert shares(scores, measures, "seen", "unseen") >= 0.9
    assert shares(scores, measures, "real") >= 0.9
    assert shares(scores, ["text_to_image/thing_of_real"], "seen", "unseen") >= 0.85


def test_shuffled_requests_score_no_better_than_chance(scores: list[Score]) -> None:
    assert shares(scores, ["text_to_image/thing", "text_to_image/thing_template"], "shuffled") <= 0.25
    assert shares(scores, ["text_to_image/background", "caption_image/slots"], "shuffled") <= 0.35
    assert shares(scores, ["modality/choice"], "shuffled") <= 0.85
    assert shares(scores, ["recall/answer"], "shuffled") <= 0.2


def test_figures_are_shares_under_the_names_of_the_contract(scores: list[Score]) -> None:
    flat = figures(scores)
    assert all(0 <= value <= 1 for value in flat.values())
    for measure in ("background", "place", "count", "thing"):
        assert f"text_to_image/{measure}/real" in flat
    for name in ("caption_image/slots", "edit/changed", "edit/unharmed", "question/answer"):
        assert {f"{name}/{split}" for split in ("seen", "unseen", "real", "shuffled")} <= set(flat)
    assert {"modality/choice/unseen", "modality/choice/shuffled"} <= set(flat)
    assert json.loads(json.dumps(flat)) == flat
    assert all(measure in table(scores) for measure in ("text_to_image/thing_of_real", "edit/changed"))


def test_a_candidate_that_always_answers_alike_fails() -> None:
    class Stubborn(Oracle):
        def caption(self, image: Sequence[np.ndarray], *, seed: Any) -> list[str]:
            return ["a big 3D fox in the center on a white background"] * len(image)

    scores, _ = evaluate(
        Stubborn(COUNT), noisy, tasks=["caption_image"], count=COUNT, judge_settings={"feature_size": 32}
    )
    assert shares(scores, ["caption_image/slots"], "seen", "unseen") <= 0.1
    assert shares(scores, ["caption_image/slots"], "real") == 1.0


def test_unharmed_takes_the_codecs_error_and_no_more() -> None:
    edit = next(
        example.truth["edit"]
        for example in (document("edit", seed) for seed in range(500))
        if example.truth["edit"].operation == "replace"
    )
    before, after = render(edit.source), render(edit.result)
    rest, codec = untouched(before, after), noisy(before)
    assert is_unharmed(noisy(after), before=before, codec=codec, rest=rest)
    assert not is_unharmed(noisy(after + np.uint8(25)), before=before, codec=codec, rest=rest)
    assert not rest[(before != after).any(axis=-1)].any()


def test_wilson_interval_holds_known_values() -> None:
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    low, high = wilson_interval(20, 20)
    assert (low, high) == pytest.approx((0.8389, 1.0), abs=1e-4)
    with pytest.raises(ValueError):
        wilson_interval(3, 0)


def test_phrasings_are_a_hundred_and_of_both_kinds() -> None:
    phrasings = held_out_phrasings(["image"])
    assert len({text for text, _ in phrasings}) == 100
    assert sum(kind == "image" for _, kind in phrasings) == 40
    assert sum(kind in ("video", "audio") for _, kind in held_out_phrasings()) == 40


def words(text: str) -> list[str]:
    return re.sub(r"[^a-z0-9{} ]", " ", text.lower()).split()


def fits(frame: Sequence[str], said: Sequence[str], held: dict[str, set[str]]) -> bool:
    """Tell whether a frame can become what is said; a placeholder holds one or more words of its kind."""
    if not frame or not said:
        return not frame and not said
    if "{" in frame[0]:
        is_held = said[0] in held["{p}" if "{p}" in frame[0] else "{x}"]
        return is_held and (fits(frame, said[1:], held) or fits(frame[1:], said[1:], held))
    return frame[0] == said[0] and fits(frame[1:], said[1:], held)


def test_scores_of_a_question_go_under_their_splits() -> None:
    pairs = [("style", concept, "flat") for concept in concepts()]
    splits = {tuple(split for split, _ in by_split([pair], 1, 2, 3)) for pair in pairs}
    assert splits == {("seen", "real", "shuffled"), ("unseen", "real", "shuffled"), ("real", "shuffled")}
    seen = next(pair for pair in pairs if by_split([pair], 1, 2, 3)[0] == ("seen", 1))

    def measures(*, real: bool) -> list[tuple[str, str, bool]]:
        rights = by_split([seen], False, real, True)
        scores = with_of_real([Score("thing", split, (seen,), is_right) for split, is_right in rights])
        return [(score.measure, score.split, score.is_right) for score in scores]

    plain = [("thing", "seen", False), ("thing", "real", False), ("thing", "shuffled", True)]
    assert measures(real=False) == plain
    assert measures(real=True)[3:] == [("thing_of_real", "seen", False)]


def test_phrasings_share_no_template_with_training() -> None:
    rng = random.Random(0)
    of_things = {word for _ in range(800) for word in words(describe(sample_scene(rng, None), rng))}
    for concept in concepts().values():
        of_things |= {w for name in (concept.name, concept.plural, *concept.aliases) for w in words(name)}
    sections = ("picture", "wide", "tall", "icon")
    of_pictures = {word for section in sections for phrase in phrases(section) for word in words(phrase)}
    held = {"{x}": of_things, "{p}": of_pictures}
    asking = ("draw", "draw_bare", "draw_any", "what_is", "no_picture", "caption", "what_thing", "is_there")
    asking += ("film", "film_any", "speak", "play", "sound_of", "sound_of_one")
    frames = [words(frame) for section in asking for frame in phrases(section)]
    frames += [words(said) for ways, _ in exchanges() for said in ways] + [words(s) for s in small_talk()[0]]
    frames = [frame for frame in frames if any("{" not in word for word in frame)]
    for text, _ in held_out_phrasings():
        said = [word for word in words(text) if word != "please"]
        assert [" ".join(frame) for frame in frames if fits(frame, said, held)] == [], text


def test_unknown_task_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'drawing'.*text_to_image"):
        chosen_tasks("drawing", ["image"])
    assert chosen_tasks("edit, modality", ["image"]) == ["edit", "modality"]
    assert "text_to_video" not in chosen_tasks("", ["image"]) and "edit" in chosen_tasks("", ["image"])
    assert "audio_video" in chosen_tasks("", ["image", "video", "audio"])
    with pytest.raises(ConfigError, match="has no audio"):
        chosen_tasks("speech", ["image", "video"])


def test_command_line_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(tmp_path / "nothing-here"), "--tasks", "edit"])
    assert result.exit_code != 0
    assert result.exception is None or isinstance(result.exception, SystemExit)


def test_sheet_holds_every_picture() -> None:
    pictures = [np.full((64, side, 3), 90, np.uint8) for side in (64, 96, 64)]
    sheet = np.asarray(contact_sheet(pictures, ["a fox", "a long wish " * 9, ""], columns=2))
    assert (sheet == 90).all(axis=-1).sum() > 2 * 128 * 128
    assert len(spread([(picture, "") for picture in pictures] * 20, 12)) == 12
