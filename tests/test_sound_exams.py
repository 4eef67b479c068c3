"""Exams with sound: one for a candidate that knows all answers, and little for shuffled ones."""

from typing import Any

import numpy as np
import pytest

from omni.parts import Audio, Text, Video
from omni.pipeline import Reply
from training.evaluate import exams
from training.exams.listening import errors_in_row, heard_words
from training.exams.room import Room, as_given, next_of_other, next_of_same, words_of
from training.exams.sounding_films import swells
from training.exams.sounds import LABELS, melody
from training.scores import Score, figures
from training.world.sound_classes import SOUNDS
from training.world.sound_films import loudness, swelling

COUNT = 16
# Exams whose judges are arithmetic; the others need files that are fetched.
OFFLINE = ("speech_to_text", "caption_audio", "question_audio", "video_to_audio", "audio_to_video", "audio_video")


def quieter(samples: np.ndarray) -> np.ndarray:
    """Stand in for a codec."""
    noise = np.random.default_rng(len(samples)).normal(0, 1e-4, len(samples))
    return (0.9 * samples + noise).astype(np.float32)


def part_of(item: dict[str, Any]) -> Any:
    if item["type"] == "text":
        return Text(item["text"])
    if item["type"] == "audio":
        return Audio(quieter(item["samples"])[None], item["sample_rate"])
    sound = Audio(quieter(item["audio"])[None], 16000) if "audio" in item else None
    return Video(item["frames"], float(item["fps"]), sound)


class Oracle:
    """Knows the right answer to every question of the exams with sound."""

    def __init__(self) -> None:
        room = Room(self, lambda pixels: pixels, judges=None)  # type: ignore[arg-type]
        self.answers: dict[Any, list[dict[str, Any]]] = {}
        for task in OFFLINE:
            for split in ("train", "test"):
                for example in room.examples(task, split, COUNT, want=lambda e: True):
                    self.answers[self._key(example.messages[0]["content"])] = example.messages[1]["content"]

    @staticmethod
    def _key(items: list[dict[str, Any]]) -> tuple[str, bytes]:
        parts = (as_given(item) for item in items if item["type"] != "text")
        given = (part["audio"].samples if part["type"] == "audio" else part["video"].frames for part in parts)
        return words_of({"content": items}), b"".join(array.tobytes() for array in given)

    def video(self, prompt: list[str], *, size: tuple[int, int], sound: bool, seed: Any) -> list[Video]:
        assert sound
        answers = [self.answers[words, b""] for words in prompt]
        return [next(part_of(item) for item in items if item["type"] == "video") for items in answers]

    def caption(self, parts: list[Audio], *, seed: Any) -> list[str]:
        known = {sound: items for (_, sound), items in self.answers.items()}
        return [words_of({"content": known[part.samples.tobytes()]}) for part in parts]

    def generate(self, conversations: list[Any], *, seed: Any, **settings: Any) -> list[Reply]:
        answers = [self.answers[self._key(messages[0]["content"])] for messages in conversations]
        return [Reply(tuple(part_of(item) for item in items), 0) for items in answers]


@pytest.fixture(scope="module")
def scores() -> list[Score]:
    room = Room(Oracle(), lambda pixels: pixels, judges=None, sound_round_trip=quieter)  # type: ignore[arg-type]
    return [score for task in OFFLINE for score in exams()[task](room, COUNT)[0]]


@pytest.mark.parametrize("measure", ["speech_to_text/slots", "caption_audio/slots", "question_audio/answer",
                                     "video_to_audio/onset", "audio_to_video/onset", "audio_video/onset"])  # fmt: skip
def test_exams_with_sound_know_the_truth(scores, measure):
    shares = figures(scores)
    for split in ("seen", "unseen", "real"):
        assert shares[f"{measure}/{split}"] >= 0.85
    assert shares[f"{measure}/shuffled"] <= 0.6


def test_ceilings_of_films_with_sound_are_those_of_the_codec():
    room = Room(Oracle(), np.zeros_like, judges=None, sound_round_trip=quieter)  # type: ignore[arg-type]
    for task in ("audio_to_video", "audio_video"):
        shares = figures(exams()[task](room, 4)[0])
        assert shares[f"{task}/onset/real"] == 0.0 < shares[f"{task}/onset/seen"]


def test_exams_with_sound_judge_both_splits(scores):
    assert {score.split for score in scores} == {"seen", "unseen", "real", "shuffled"}
    assert {"caption_audio/words", "caption_audio/notes", "caption_audio/sound"} <= {s.measure for s in scores}


def test_shuffled_among_other_kinds():
    assert next_of_other(["one", "one", "two"]) == [2, 2, 0]
    assert next_of_other(["one", "one"]) == [0, 1]


def test_instruments_swell_with_other_films_only_where_as_many_notes_are_due():
    room = Room(None, lambda pixels: pixels, judges=None)  # type: ignore[arg-type]
    examples = room.examples("playing_film", "train", 32, want=lambda e: True)
    films = [example.messages[1]["content"][-1]["frames"] for example in examples]
    due = [tuple(note["onset_s"] for note in one.truth["recordings"][0]["notes"]) for one in examples]
    share = {}
    for name, others in (("as long", next_of_same([len(film) for film in films])), ("other", next_of_other(due))):
        levels = [swelling(due[other], len(film)) for other, film in zip(others, films, strict=True)]
        rows = zip(examples, films, levels, strict=True)
        share[name] = np.mean([swells(one.truth["films"][0], film, level) for one, film, level in rows])
    assert share["as long"] >= 0.8 and share["other"] <= 0.4


def test_every_named_sound_has_a_label():
    assert set(LABELS) == set(SOUNDS)


def test_melody_leaves_out_overtones_and_echoes():
    found = [(0.1, 60), (0.1, 72), (0.2, 60), (0.5, 64), (0.52, 83), (0.9, 100), (0.9, 67)]
    assert melody(found, "piano") == [60, 64, 67]
    assert melody([(0.1, 60), (1.2, 72)], "piano") == [60, 72]


def test_melody_hears_a_wrong_order():
    assert melody([(0.1, 62), (0.5, 60)], "piano") == [62, 60]


@pytest.mark.parametrize(
    ("heard", "errors"),
    [
        ("a red fox three owls hello", [0, 0, 0]),
        ("a great fox three owls hello", [1, 0, 0]),
        ("fox three owls hello", [2, 0, 0]),
        ("a red fox hello", [0, 2, 0]),
        ("a red fox 3 owls oh hello well", [0, 1, 1]),
        ("", [3, 2, 1]),
    ],
)
def test_errors_in_row_belong_to_their_recording(heard, errors):
    truths = [["a", "red", "fox"], ["three", "owls"], ["hello"]]
    assert errors_in_row(truths, heard_words(heard)) == errors


@pytest.mark.parametrize("task", ["playing_film", "speaking_film"])
def test_what_plays_and_what_speaks_is_seen_to_swell(task):
    room = Room(None, lambda pixels: pixels, judges=None)  # type: ignore[arg-type]
    right, still, late = 0, 0, 0
    for example in room.examples(task, "train", 12, want=lambda e: True):
        film, item = example.truth["films"][0], example.messages[1]["content"][-1]
        frames, count = item["frames"], len(item["frames"])
        onsets = [note["onset_s"] for note in example.truth["recordings"][0].get("notes", ())]
        level = swelling(onsets, count) if task == "playing_film" else loudness(item["audio"], count)
        right += swells(film, frames, level)
        still += swells(film, frames[:1].repeat(count, 0), level)
        late += swells(film, np.roll(frames, 2, axis=0), level)
    assert right == 12 and not still and late <= 4
