"""The film exams: about one for a candidate that knows all answers, chance on shuffled requests."""

import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from omni.parts import Image, Text, Video
from omni.reply import Reply
from training.evaluate import evaluate
from training.exams.room import FIRST_FRESH_SEED, words_of
from training.exams.stories import beats_of
from training.exams.worlds import obeyed
from training.judges.motion import Spot, Tracker, film_verb, verb_of
from training.judges.templates import Found
from training.scores import Score, share
from training.world.language import caption, parse
from training.world.motion import film_boxes, render_film
from training.world.scene import place_things
from training.world.tasks import document
from training.world.verbs import VERBS, sample_film
from training.world.worlds import ACTIONS, FRAMES_PER_ACTION, play_film

COUNT = 6
# Examples that the exam may come to ask for.
KNOWN, KNOWN_OF = 12, {"continuation": 60, "story": 60, "first_and_last": 40}
TASKS = (
    "text_to_video", "image_to_video", "first_and_last", "continuation", "inpaint", "caption_video", "question_video",
    "world", "story", "spoken_request",
)  # fmt: skip


def noisy(pixels: np.ndarray) -> np.ndarray:
    """Stand in for a codec, with about the error of the small one."""
    noise = np.random.default_rng(int(pixels.sum())).normal(0, 7, pixels.shape)
    return np.clip(pixels + noise, 0, 255).round().astype(np.uint8)


def key(items: Sequence[dict[str, Any]], *, words: bool = True) -> tuple[str, bytes]:
    """What tells one question from another: words, pictures and films."""
    texts = [item["text"] for item in items if item["type"] == "text"] if words else []
    media = b""
    for item in items:
        frames = item.get("image", item.get("frames", item.get("video")))
        media += b"" if frames is None else (frames.frames if isinstance(frames, Video) else frames).tobytes()
        samples = item["audio"].samples if "audio" in item else item.get("samples")
        media += b"" if samples is None else samples.tobytes()
    return " ".join(texts), media


class Oracle:
    """Knows the right answer to every question of the exams, and passes pictures through the codec."""

    def __init__(self, tasks: Sequence[str]) -> None:
        self.answers: dict[Any, list[dict[str, Any]]] = {}
        self.worlds = {}
        for task in tasks:
            for split in ("train", "test"):
                for seed in range(FIRST_FRESH_SEED, FIRST_FRESH_SEED + (KNOWN_OF.get(task, KNOWN))):
                    self._learn(task, seed, split)

    def _learn(self, task: str, seed: int, split: Any) -> None:
        example = document(task, seed, split)
        if task == "world":
            film = example.truth["films"][0]
            self.worlds[caption(film.scene(0), example.truth["asked"])] = film.scene(0)
            return
        asked, answer = (message["content"] for message in example.messages[:2])
        self.answers[key(asked)] = answer
        if task in ("caption_video", "continuation"):
            self.answers[key(asked, words=False)] = answer

    def _film(self, items: Sequence[dict[str, Any]], *, words: bool = True) -> Video:
        answer = self.answers[key(items, words=words)]
        return Video(noisy(next(item["frames"] for item in answer if item["type"] == "video")), 8.0)

    def video(self, prompt: Sequence[str], *, seconds: float, size: Any, seed: Any) -> list[Video]:
        return [self._film([{"type": "text", "text": words}]) for words in prompt]

    def animate(self, image: Any, instruction: Any, *, seconds: float, seed: Any, last_image: Any = ()) -> list[Video]:
        pairs = zip(image, instruction, strict=True)
        films = [self._film([{"type": "image", "image": p}, {"type": "text", "text": w}]) for p, w in pairs]
        for film, last in zip(films, last_image, strict=bool(last_image)):
            assert np.abs(film.frames[-1].astype(int) - last).mean() < 10
        return films

    def continue_(self, video: Sequence[Video], *, seconds: float, seed: Any) -> list[Video]:
        return [self._film([{"type": "video", "video": one}], words=False) for one in video]

    def inpaint(self, image: np.ndarray, mask: np.ndarray, instruction: str, *, seed: Any) -> Image:
        assert mask.dtype == bool and mask.any()
        return Image(noisy(image))

    def caption(self, part: Sequence[Video], *, seed: Any) -> list[str]:
        return [words_of({"content": self.answers[key([{"type": "video", "video": p}], words=False)]}) for p in part]

    def play(self, prompt: str, *, size: Any, seed: Any) -> Any:
        scene, done = self.worlds[prompt], list[str]()

        def send(action: str) -> Video:
            done.append(action)
            return Video(noisy(render_film(play_film(scene, done, *size))[-FRAMES_PER_ACTION:]), 8.0)

        return SimpleNamespace(first=Video(render_film(play_film(scene, [], *size)), 8.0), send=send)

    def generate(self, conversations: Sequence[Any], *, seed: Any, **settings: Any) -> list[Reply]:
        replies = []
        for one in conversations:
            items = [{"type": "text", "text": one}] if isinstance(one, str) else one[0]["content"]
            parts: list[Any] = []
            for item in self.answers[key(items)]:
                if item["type"] == "text":
                    parts.append(Text(item["text"]))
                elif item["type"] == "image":
                    parts.append(Image(noisy(item["image"])))
                else:
                    parts.append(Video(noisy(item["frames"]), 8.0))
            replies.append(Reply(tuple(parts), 0))
        return replies


# Every picture is looked at by the judges: more than ten seconds on two cores.
@pytest.fixture(scope="module")
def scores() -> list[Score]:
    settings = {"feature_size": 96}
    return evaluate(Oracle(TASKS), noisy, tasks=TASKS, count=COUNT, judge_settings=settings)[0]  # type: ignore[arg-type]


def shares(scores: list[Score], measures: Sequence[str], *splits: str) -> float:
    return share([score for score in scores if score.measure in measures and score.split in splits])


@pytest.mark.slow
def test_judges_find_the_truth_right(scores: list[Score]) -> None:
    measures = ["text_to_video/background", "image_to_video/kept", "caption_video/slots", "question_video/answer"]
    measures += ["inpaint/unharmed", "world/action", "continuation/thing", "first_and_last/kept", "first_and_last/end"]
    measures += ["continuation/chosen"]
    for split in ("real", "seen", "unseen"):
        assert shares(scores, measures, split) >= 0.97


@pytest.mark.slow
def test_judges_find_most_of_the_truth_right_where_they_can_err(scores: list[Score]) -> None:
    for task in ("text_to_video", "image_to_video", "continuation"):
        assert shares(scores, [f"{task}/verb"], "real", "seen", "unseen") >= 0.9, task
    measures = [
        "text_to_video/thing",
        "inpaint/thing",
        "spoken_request/thing",
        "story/character",
        "story/events",
        "world/survival",
    ]
    assert shares(scores, measures, "real", "seen", "unseen") >= 0.85


@pytest.mark.slow
def test_shuffled_requests_score_no_better_than_chance(scores: list[Score]) -> None:
    for measures, most in (
        (["text_to_video/verb", "text_to_video/thing", "text_to_video/place"], 0.3),
        (["image_to_video/kept", "continuation/thing", "inpaint/thing", "first_and_last/end"], 0.3),
        (["first_and_last/kept", "spoken_request/thing"], 0.3),
        (["caption_video/slots"], 0.05),
        (["world/action", "story/events", "story/character"], 0.5),
    ):
        assert shares(scores, measures, "shuffled") <= most, measures


def known(film: Any) -> list[Found]:
    return [
        Found(actor.concept, actor.style, pose.extent, pose.row, pose.column, boxes[0], 1.0)
        for actor, boxes in zip(film.actors, film_boxes(film), strict=True)
        for pose in actor.poses[:1]
    ]


@pytest.mark.parametrize("verb", VERBS)
def test_tracked_positions_are_the_boxes_and_name_the_verb(verb: str) -> None:
    film = sample_film(random.Random(7), None, verb=verb, num_frames=17, size=(64, 64))
    found, spots, _ = film_verb(render_film(film), known(film))
    assert found == verb
    for spot, pose, (top, left, size) in zip(spots, film.actors[0].poses, film_boxes(film)[0], strict=True):
        if pose.opacity > 0.4:
            assert abs(spot.row - top - size / 2) <= 2.5 and abs(spot.column - left - size / 2) <= 2.5


def test_another_thing_is_not_kept() -> None:
    film = sample_film(random.Random(3), None, verb="slides left", num_frames=17, size=(64, 64))
    tracker = Tracker(render_film(film))
    spots = tracker.follow(film.concept, film.style, film_boxes(film)[0][0][2])
    assert all(tracker.is_kept(spots, film.concept, film.style, seed="a"))
    other = "fox" if film.concept != "fox" else "bus"
    assert not any(tracker.is_kept(spots, other, film.style, seed="a"))


def test_a_still_picture_has_no_verb() -> None:
    spots = [Spot(30.0, 30.0, 28, 0.0, 1.0, 0.9)] * 17
    assert verb_of(spots, 64, 64) == "stays"


def test_obeyed_tells_right_actions_from_wrong_ones() -> None:
    scene = place_things(random.Random(0), names=("fox",), style="flat", background="grass", size="small")
    actions = list(ACTIONS)
    boxes = film_boxes(play_film(scene, actions, 64, 64))[0]
    spots = [Spot(top + size / 2, left + size / 2, size, 0.0, 1.0, 0.9) for top, left, size in boxes]
    assert all(obeyed(spots, actions, (64, 64)))
    wrong = [*actions[1:], actions[0]]
    assert sum(obeyed(spots, wrong, (64, 64))) <= 1


def test_what_a_wall_stops_is_not_judged() -> None:
    corner = Spot(16.0, 16.0, 32, 0.0, 1.0, 0.9)
    assert obeyed([corner] * 17, ["up", "left", "jump", "stay"], (64, 64)) == [True]
    assert obeyed([], ["up", "right"], (64, 64)) == [False, False]


def test_beats_are_pictures_with_the_words_before_them() -> None:
    picture = np.zeros((16, 16, 3), np.uint8)
    beats = beats_of([Text("A."), Text("B."), Image(picture), Text("C."), Video(picture[None].repeat(5, 0), 8.0)])
    assert [beat.sentence for beat in beats] == ["A. B.", "C."] and len(beats[1].frames) == 5
    assert "background" in parse("Then the fox went to the sea.")
