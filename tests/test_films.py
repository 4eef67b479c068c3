"""The laws of films, worlds and stories: seeds decide, held-out combinations stay out, truth agrees with pixels."""

import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from omni.text import TextTokenizer
from training.world.film_dialogue import what_changed
from training.world.film_language import describe_film, film_caption, parse_film
from training.world.film_questions import ASK, ask_film, read_film_answer
from training.world.films import MOTION_TASKS
from training.world.held_out import split_of, split_of_all
from training.world.materials import MATERIALS, material_of
from training.world.motion import Film, Impact, film_boxes, render_film
from training.world.pack import concepts
from training.world.phrases import phrases
from training.world.scene import BACKGROUNDS, PLACES, PLAIN_BACKGROUNDS, ground_of, place_things, render
from training.world.stories import EVENTS
from training.world.tasks import SHAPES, TASKS, document
from training.world.verbs import FILM_LENGTHS, FILM_SIZES, VERBS, sample_clips, sample_film
from training.world.worlds import ACTIONS, FRAMES_PER_ACTION, PLAY, play_film, step_pixels

SEEDS = 20
TOKENIZER = Path(__file__).parents[1] / "tokenizers" / "text" / "nano"
DOCUMENT_TOKENS = 512  # a row of configs/train/nano.yaml


def films(num, split="train", seed=0, **options):
    rng = random.Random(seed)
    return [sample_film(rng, split, **options) for _ in range(num)]


def seen(frame, background):
    """The rows and columns in which a frame differs from its ground: first and last of each."""
    rows, columns = np.nonzero((frame != ground_of(background, *frame.shape[:2])).any(-1))
    return rows.min(), columns.min(), rows.max(), columns.max()


def test_a_film_always_renders_to_the_same_pixels():
    for film in films(30):
        frames = render_film(film)
        assert frames.shape == (film.num_frames, film.height, film.width, 3) and frames.dtype == np.uint8
        assert np.array_equal(frames, render_film(film))
    assert films(5, seed=9) == films(5, seed=9) != films(5, seed=8)


def test_the_first_frame_is_the_scene_it_starts_from():
    for film in films(100, None):
        assert np.array_equal(render_film(film)[0], render(film.scene(0), film.height, film.width))


def test_lengths_and_sizes_are_those_of_the_codec():
    found = films(400)
    assert {film.num_frames for film in found} == set(FILM_LENGTHS)
    assert {(film.height, film.width) for film in found} == set(FILM_SIZES)
    assert all(film.num_frames % 4 == 1 for film in found)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_films_belong_to_their_split(split):
    assert {film.split for film in films(60, split)} == {split}
    if split != "train":
        for film in films(20, split, kind="verb"):
            assert any(key[0] == "verb" and split_of(*key) == split for key in film.keys)


def test_every_verb_thing_and_background_occurs_in_training():
    found = films(3000)
    assert {film.verb for film in found} == set(VERBS)
    assert {film.concept for film in found} == set(concepts())
    assert {film.background for film in found} == set(BACKGROUNDS)


def test_boxes_are_where_the_pixels_are():
    for film in films(150, None, verbs=("slides left", "slides up", "falls", "bounces", "orbits", "grows", "shrinks")):
        if film.background not in PLAIN_BACKGROUNDS:
            continue
        for frame, (top, left, size) in zip(render_film(film), film_boxes(film)[0], strict=True):
            first_row, first_column, last_row, last_column = seen(frame, film.background)
            assert top <= first_row and left <= first_column
            assert last_row < top + size and last_column < left + size
            assert (last_row - first_row + 1) >= 0.3 * size


def test_places_of_films_are_where_things_begin_and_end():
    for film in films(200, None):
        if film.start:
            for place, frame in ((film.start, 0), (film.end, -1)):
                pose = film.actors[0].poses[frame]
                row, column = PLACES[place]
                assert abs(pose.row - row) <= 0.25 and abs(pose.column - column) <= 0.25


def test_verbs_move_as_they_say():
    for film in films(300, None):
        poses = film.actors[0].poses
        first, last = poses[0], poses[-1]
        moved = (round(last.row - first.row, 3), round(last.column - first.column, 3))
        if film.verb == "slides left":
            assert moved[1] <= -0.3 and moved[0] == 0
        if film.verb == "slides down":
            assert moved[0] >= 0.3 and moved[1] == 0
        if film.verb in ("spins", "grows", "shrinks", "shakes", "fades", "orbits"):
            assert moved == (0, 0)
        if film.verb in ("spins", "rolls"):
            assert len({pose.angle for pose in poses}) > 3
        if film.verb == "fades":
            assert last.opacity == 0
        if film.verb in ("grows", "shrinks"):
            assert (last.extent > first.extent) == (film.verb == "grows")


def test_impacts_are_in_the_frame_in_which_something_touches():
    for film in films(200, None, verbs=("bounces", "falls", "collides")):
        assert film.impacts and all(isinstance(impact, Impact) for impact in film.impacts)
        frames = [impact.frame for impact in film.impacts]
        assert frames == sorted(set(frames)) and 0 < frames[0] <= frames[-1] < film.num_frames
        for impact in film.impacts:
            assert 0 < impact.strength <= 1 and impact.material == material_of(film.concept)
            poses = film.actors[0].poses
            if film.verb != "collides":
                floor = max(pose.row for pose in poses)
                assert poses[impact.frame].row == pytest.approx(floor)
                assert poses[impact.frame - 1].row < floor
            else:
                boxes = np.array(film_boxes(film))[:, :, :2].sum(-1)
                apart = np.abs(boxes[0] - boxes[1])
                assert apart.argmin() == impact.frame or apart[impact.frame] <= apart.min() + 2


def test_other_verbs_hit_nothing():
    quiet = [verb for verb in VERBS if verb not in ("bounces", "falls", "collides")]
    assert not any(film.impacts for film in films(60, None, verbs=quiet))


def test_every_thing_has_a_material():
    found = Counter(material_of(name) for name in concepts())
    assert set(found) == set(MATERIALS)


def test_a_held_film_rests_at_its_end():
    for film in films(40, hold=3, num_frames=17, verbs=("slides left", "falls", "grows")):
        frames = render_film(film)
        assert all(np.array_equal(frames[-1], frames[number]) for number in (-2, -3, -4))
        assert not np.array_equal(frames[-1], frames[0])


@pytest.mark.parametrize("num_frames", [1, 5, 17])
def test_clips_have_the_shape_asked_for(num_frames):
    clips = sample_clips(random.Random(0), 3, num_frames, (48, 64))
    assert clips.shape == (3, num_frames, 48, 64, 3) and clips.dtype == np.uint8
    assert np.array_equal(clips, sample_clips(random.Random(0), 3, num_frames, (48, 64)))


def test_parse_reads_every_phrasing_of_a_film_back():
    rng = random.Random(1)
    for film in films(600, None, seed=1):
        assert parse_film(film_caption(film)) == film.slots
        for form in ("third", "gerund"):
            words = describe_film(film, rng, form=form)
            assert parse_film(words) == film.slots, words


def test_parse_reads_back_only_what_was_said():
    rng = random.Random(2)
    for film in films(200, None, seed=2):
        said = {"thing", "verb", "other"} & set(film.slots)
        words = describe_film(film, rng, said, form="third")
        assert parse_film(words) == {slot: film.slots[slot] for slot in said}, words


def test_answers_about_films_hold_their_fact():
    rng = random.Random(3)
    kinds = Counter()
    for film in films(600, None, seed=3):
        question = ask_film(rng, film)
        kinds[question.kind] += 1
        assert read_film_answer(question.kind, question.answer) == question.fact, question
    assert set(kinds) == set(ASK) and min(kinds.values()) > 10
    assert read_film_answer("hits", "hm") is None and read_film_answer("does_it", "hm") is None


def test_film_phrasings_are_many():
    for section, least in (("film", 50), ("film_clause", 20), ("animate", 30), ("caption_film", 30), ("story", 35)):
        assert len(set(phrases(section))) >= least
    assert all(len(line.split(" | ")) == 4 for verb in VERBS for line in phrases(f"verb_{verb.split()[0]}"))


@pytest.mark.parametrize("task", MOTION_TASKS)
def test_the_seed_decides_the_document(task):
    first, again, other = document(task, 5), document(task, 5), document(task, 6)
    assert repr(first.messages) == repr(again.messages) and repr(first.truth) == repr(again.truth)
    assert repr(first.messages) != repr(other.messages)


@pytest.mark.parametrize("task", MOTION_TASKS)
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_documents_keep_held_out_combinations_where_they_belong(task, split):
    for seed in range(SEEDS):
        truth = document(task, seed, split).truth
        assert split_of_all(truth["keys"]) == split
        assert set(truth["held_out"]) == {key for key in truth["keys"] if split_of(*key) != "train"}
        shown = {key for one in (*truth["scenes"], *truth["films"]) for key in one.keys}
        assert shown <= set(truth["keys"])


def items(example, kind):
    return [item for message in example.messages for item in message["content"] if item["type"] == kind]


def check_video(item, size, before):
    frames = item["frames"]
    assert frames.dtype == np.uint8 and frames.shape[1:] == (*size, 3) and item["fps"] == 8
    assert len(frames) % 4 == (0 if item.get("continues") else 1)
    assert not item.get("continues") or before
    assert all(0 <= index < len(frames) for index in item.get("given", []))


@pytest.mark.parametrize("task", MOTION_TASKS)
def test_documents_are_well_formed_conversations(task):
    for seed in range(SEEDS):
        example = document(task, seed)
        roles = [message["role"] for message in example.messages]
        roles = roles[1:] if roles[0] == "system" else roles
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        size = SHAPES[example.truth["shape"]]
        videos, pictures = items(example, "video"), items(example, "image")
        assert len(videos) == len(example.truth["films"]) and len(pictures) == len(example.truth["scenes"])
        for number, item in enumerate(videos):
            check_video(item, size, number)
        assert all(item["image"].shape == (*size, 3) for item in pictures)
        for item in items(example, "text"):
            text = item["text"]
            assert text.strip() == text != "" and "{" not in text and not re.search(r"\s[.,?]", text), text


def num_tokens(example, tokenizer):
    """Tokens of a training row: media of the assistant appear twice, noisy and clean."""
    count = 1
    for message in example.messages:
        count += 2
        copies = 2 if message["role"] == "assistant" else 1
        for item in message["content"]:
            if item["type"] == "text":
                count += len(tokenizer.encode(item["text"]))
            elif item["type"] == "action":
                count += 1
            else:
                frames = item["frames"] if item["type"] == "video" else item["image"][None]
                latents = len(frames) // 4 + (len(frames) % 4 > 0)
                count += 6 + copies * latents * (frames.shape[1] // 16) * (frames.shape[2] // 16)
    return count


@pytest.mark.parametrize("task", MOTION_TASKS)
def test_documents_fit_into_a_row(task):
    tokenizer = TextTokenizer.from_folder(TOKENIZER)
    assert max(num_tokens(document(task, seed), tokenizer) for seed in range(60)) <= DOCUMENT_TOKENS


def test_animating_starts_from_the_picture_that_is_shown():
    for seed in range(SEEDS):
        example = document("image_to_video", seed)
        assert np.array_equal(items(example, "image")[0]["image"], items(example, "video")[0]["frames"][0])


def test_first_and_last_gives_a_last_latent_frame_at_rest():
    for seed in range(SEEDS):
        item = items(document("first_and_last", seed), "video")[0]
        last = len(item["frames"])
        assert item["given"] == [last - 4, last - 3, last - 2, last - 1]
        assert (item["frames"][item["given"]] == item["frames"][-1]).all()


def test_continuations_go_on_with_the_users_film():
    for seed in range(SEEDS):
        example = document("continuation", seed)
        first, rest = items(example, "video")
        whole = np.concatenate([first["frames"], rest["frames"]])
        assert rest["continues"] and np.array_equal(whole, render_film(example.truth["films"][0]))


def test_inpainting_gives_everything_outside_the_box():
    for seed in range(4 * SEEDS):
        example = document("inpaint", seed)
        masked, whole = items(example, "image")
        given, scene = whole["given"], example.truth["scenes"][0]
        assert given.dtype == bool and 0.05 < given.mean() < 0.95
        assert np.array_equal(masked["image"][given], whole["image"][given])
        assert (masked["image"][~given] == 128).all()
        assert np.array_equal(whole["image"], render(scene, *given.shape))


def test_worlds_answer_every_action_with_four_frames():
    for seed in range(SEEDS):
        example = document("world", seed)
        actions, videos = items(example, "action"), items(example, "video")
        assert [item["action"] for item in actions] == example.truth["actions"]
        assert 3 <= len(actions) <= 8 and set(example.truth["actions"]) <= set(ACTIONS)
        assert [len(item["frames"]) for item in videos] == [1, *[FRAMES_PER_ACTION] * len(actions)]
        assert [item.get("continues", False) for item in videos] == [False, *[True] * len(actions)]
    openings = [document("world", seed).messages[0] for seed in range(60)]
    assert {opening["role"] for opening in openings} == {"user", "system"}
    assert all(opening["content"][0]["text"] == PLAY for opening in openings if opening["role"] == "system")


def test_a_world_played_before_shows_its_first_picture_and_its_last_actions():
    for seed in range(SEEDS):
        example = document("played_world", seed)
        film = render_film(example.truth["films"][0])
        first, after, *rest = items(example, "video")
        assert [item["action"] for item in items(example, "action")] == example.truth["actions"]
        assert np.array_equal(first["frames"], film[:1])
        assert after["given"] == [0, 1, 2, 3] and not any("given" in item for item in rest)
        passed = len(after["unseen"])
        assert passed >= FRAMES_PER_ACTION and passed % FRAMES_PER_ACTION == 0
        parts = [first["frames"], after["unseen"], after["frames"], *(item["frames"] for item in rest)]
        assert np.array_equal(np.concatenate(parts), film)


def test_a_character_that_has_lost_its_looks_gets_them_back_from_the_first_picture():
    for seed in range(SEEDS):
        example = document("drifted_world", seed)
        film = render_film(example.truth["films"][0])
        first, *answers = items(example, "video")
        assert np.array_equal(first["frames"], film[:1])
        is_given = ["given" in item for item in answers]
        num_drifted = sum(is_given)
        assert 1 <= num_drifted < len(answers) and all(is_given[:num_drifted])
        passed = 1 + len(answers[0].get("unseen", ()))
        shown = np.concatenate([item["frames"] for item in answers])
        changed = (shown != film[passed:]).any(axis=(1, 2, 3)).reshape(-1, FRAMES_PER_ACTION).all(axis=1)
        assert changed.tolist() == is_given


@pytest.mark.parametrize(("action", "way"), [("left", (0, -1)), ("right", (0, 1)), ("up", (-1, 0)), ("down", (1, 0))])
def test_actions_move_by_one_step_until_the_wall(action, way):
    scene = place_things(random.Random(0), names=("fox",), style="flat", background="grass", size="small")
    boxes = film_boxes(play_film(scene, [action] * 8, 64, 64))[0]
    moved = np.subtract(boxes[FRAMES_PER_ACTION][:2], boxes[0][:2])
    assert np.abs(moved - np.multiply(way, step_pixels(64, 64))).max() <= 1
    assert boxes[-1][:2] == boxes[-5][:2]
    assert all(0 <= top <= 64 - size and 0 <= left <= 64 - size for top, left, size in boxes)


def test_a_player_stands_on_whole_tokens_after_every_action():
    for seed in range(SEEDS):
        film = document("world", seed).truth["films"][0]
        for number, (top, left, _) in enumerate(film_boxes(film)[0][::FRAMES_PER_ACTION]):
            assert top % 16 == left % 16 == 0, (seed, number)


def test_what_slides_stands_on_whole_tokens_between_latents_and_rests_at_its_end():
    slides = tuple(verb for verb in VERBS if verb.startswith("slides"))
    for film in films(60, None, verbs=slides, num_frames=17, size=(64, 64)):
        boxes = film_boxes(film)[0]
        if boxes[0][2] == 32:
            assert all(top % 16 == left % 16 == 0 for top, left, _ in boxes[::4])
            assert boxes[8:] == [boxes[8]] * 9


def test_everything_falls_alike():
    for film in films(60, None, verbs=("falls", "bounces"), num_frames=17):
        tops = [box[0] for box in film_boxes(film)[0]]
        side = min(film.height, film.width)
        if film.impacts[0].frame < 8:  # the first blow ends a fall, not a jump from the ground
            for frame in range(film.impacts[0].frame):
                fallen = (tops[frame] - tops[0]) / side
                # Slower by less than a frame in eight, so that it ends on a whole one.
                assert fallen <= frame**2 / 64 + 1 / side and fallen >= 0.7 * frame**2 / 64 - 1 / side


def test_continuations_have_something_left_to_show():
    for seed in range(SEEDS):
        example = document("continuation", seed)
        film, given = example.truth["films"][0], items(example, "video")[0]["frames"]
        after = render_film(film)[len(given) - 1 :]
        assert (after != after[0]).any(), seed


def test_jumps_come_back_and_staying_changes_nothing():
    scene = place_things(random.Random(0), names=("fox",), style="flat", background="grass", size="small")
    boxes = film_boxes(play_film(scene, ["jump", "stay"], 64, 64))[0]
    assert boxes[2][0] < boxes[0][0] - 8 and boxes[4:] == [boxes[0]] * 5


def test_stories_keep_their_character():
    events = Counter()
    for seed in range(60):
        told = document("story", seed).truth["story"]
        assert 3 <= len(told.beats) <= 5
        for beat in told.beats:
            events[beat.event] += 1
            assert beat.scene.things[0].concept == told.character and beat.scene.style == told.style
            named = told.character in beat.sentence or beat.event == "leave"
            assert named, beat.sentence
            if beat.event in ("go", "begin"):
                assert parse_film(beat.sentence)["background"] == beat.scene.background
            assert isinstance(beat.shown, Film) == (beat.event == "film")
    assert set(events) == set(EVENTS)


def test_what_changed_names_the_new_value():
    for seed in range(120):
        for kind, value in document("film_dialogue", seed).truth["turns"]:
            if kind == "changed" and "background" in value.asked:
                assert str(value.asked["background"]) in what_changed(value)
            if kind == "changed":
                assert "{" not in what_changed(value)


def test_film_tasks_are_tasks():
    assert set(MOTION_TASKS) <= set(TASKS)
