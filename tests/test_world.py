"""The laws of the omni world: seeds decide, held-out combinations stay out, truth can be read back."""

import random
from collections import Counter

import numpy as np
import pytest

from training.world.edits import OPERATIONS, edit_scene, sample_edit, thought
from training.world.held_out import split_of, split_of_all
from training.world.language import INVERSE, canonical, caption, describe, parse, place_phrase
from training.world.pack import FURTHER_STYLES, JUDGE_STYLE, STYLES, concepts, extras, further_drawings, load_pack
from training.world.phrases import phrases
from training.world.pictures import PICTURE_TASKS
from training.world.questions import ask, read_answer
from training.world.recall import is_recalled
from training.world.scene import (
    BACKGROUNDS,
    CELL,
    COUNTS,
    PICTURE_SIZES,
    PLACES,
    PLAIN_BACKGROUNDS,
    RELATIONS,
    SIZES,
    USUAL_SPOTS,
    boxes,
    on_cells,
    place_things,
    render,
    sample_scene,
)
from training.world.tasks import SHAPES, corpus, document


def scenes(num, split="train", seed=0, **options):
    rng = random.Random(seed)
    return [sample_scene(rng, split, **options) for _ in range(num)]


def test_pack_has_every_concept_in_every_style():
    pack = load_pack()
    assert len(pack.concepts) == 120
    for style in (*STYLES, JUDGE_STYLE):
        alpha = pack.sprites[style][..., 3]
        assert pack.sprites[style].shape == (120, 64, 64, 4)
        assert (alpha > 128).mean((1, 2)).min() > 0.1


def test_what_is_only_shown_is_there_and_is_no_concept():
    pack, codes = load_pack(), {concept.code for concept in concepts().values()}
    assert not {extra.code for extra in extras().values()} & codes
    assert not any(word in concepts() for name in extras() for word in (name, *name.split()))
    assert all((pack.extra_sprites[style][..., 3] > 128).mean((1, 2)).min() > 0.05 for style in STYLES)
    assert Counter(style for _, style in further_drawings()).keys() == set(FURTHER_STYLES)
    assert all((pack.sprite(name, style)[..., 3] > 128).mean() > 0.05 for name, style in further_drawings())


def test_names_are_unambiguous():
    words = [name for c in concepts().values() for name in {c.name, c.plural, *c.aliases}]
    assert len(words) == len(set(words))
    assert all(len(concept.name.split()) <= 2 for concept in concepts().values())


def test_split_of_is_the_published_hash():
    assert split_of("style", "fox", "flat") == "train"
    assert split_of("style", "carrot", "flat") == "test"
    shares = Counter(split_of("any", str(number)) for number in range(5000))
    assert shares["test"] / 5000 == pytest.approx(0.1, abs=0.02)
    assert shares["validation"] / 5000 == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_scenes_belong_to_their_split(split):
    assert {scene.split for scene in scenes(200, split)} == {split}


def test_every_single_value_occurs_in_training():
    seen = Counter(slot for scene in scenes(6000) for slot in scene.slots.items())
    wanted = [("thing", name) for name in concepts()]
    wanted += [("style", style) for style in STYLES] + [("background", ground) for ground in BACKGROUNDS]
    wanted += [("place", place) for place in PLACES] + [("size", size) for size in SIZES]
    wanted += [("count", count) for count in COUNTS] + [("relation", relation) for relation in RELATIONS]
    assert not [value for value in wanted if not seen[value]]


def test_a_scene_always_renders_to_the_same_pixels():
    for scene in scenes(50):
        for height, width in PICTURE_SIZES:
            picture = render(scene, height, width)
            assert picture.shape == (height, width, 3) and picture.dtype == np.uint8
            assert np.array_equal(picture, render(scene, height, width))


def test_things_stay_inside_the_picture_and_off_the_plain_background():
    for scene in scenes(300, None):
        if scene.background not in PLAIN_BACKGROUNDS:
            continue
        for height, width in PICTURE_SIZES:
            picture = render(scene, height, width)
            outside = np.ones((height, width), bool)
            for top, left, size in boxes(scene, height, width):
                assert 0 <= top <= height - size and 0 <= left <= width - size
                outside[top : top + size, left : left + size] = False
            assert (picture[outside] == PLAIN_BACKGROUNDS[scene.background]).all()


def test_things_stand_on_whole_cells_of_the_codec():
    for scene in scenes(200, None):
        for height, width in ((64, 64), (64, 96), (96, 64)):
            found = boxes(scene, height, width)
            assert all(top % CELL == left % CELL == 0 for top, left, _ in found)
            exact = on_cells(scene, height, width)
            assert boxes(exact, height, width) == found
            for thing, (top, left, size) in zip(exact.things, found, strict=True):
                shares = thing.row * (height - size), thing.column * (width - size)
                assert shares == pytest.approx((top, left))


def test_places_are_where_their_words_say():
    for scene in scenes(300, layout="single"):
        top, left, size = boxes(scene, 64, 64)[0]
        row, column = (top + size / 2) / 64, (left + size / 2) / 64
        assert ("left" in scene.place) == (column < 0.42) and ("right" in scene.place) == (column > 0.58)
        assert ("top" in scene.place) == (row < 0.42) and ("bottom" in scene.place) == (row > 0.58)


def test_things_of_one_picture_hardly_overlap():
    for scene in scenes(400):
        for height, width in PICTURE_SIZES:
            found = boxes(scene, height, width)
            for index, (top, left, size) in enumerate(found):
                for other_top, other_left, _ in found[:index]:
                    down, across = size - abs(top - other_top), size - abs(left - other_left)
                    assert max(0, down) * max(0, across) <= size * size / 8, scene


def test_parse_reads_captions_back():
    for scene in scenes(1000, None):
        assert parse(caption(scene)) == scene.slots


def test_a_relation_is_one_fact_from_either_side():
    told = [parse("A flat fox to the left of a dog on red."), parse("A flat dog to the right of a fox on red.")]
    assert canonical(told[0]) == canonical(told[1]) == told[0] != told[1]
    assert canonical(parse("A flat fox above a dog.")) != canonical(parse("A flat fox below a dog."))
    assert canonical({"relation": "below"}) == {"relation": "below"}


@pytest.mark.parametrize("ground_first", [False, True])
def test_parse_reads_every_phrasing_back(ground_first):
    rng = random.Random(1)
    for scene in scenes(1500, None, seed=1):
        words = describe(scene, rng, ground_first=ground_first)
        assert parse(words) == scene.slots, words


def test_parse_reads_back_only_what_was_said():
    rng = random.Random(2)
    for scene in scenes(600, None, seed=2, layout="single"):
        said = {"thing"} | {slot for slot in ("style", "background") if rng.random() < 0.5}
        words = describe(scene, rng, said)
        assert parse(words) == {slot: scene.slots[slot] for slot in said}, words


def test_parse_of_anything_else_finds_nothing():
    for text in ("", "hello", "\ud800\x00", "the quick brown", "<|image|>" * 1000):
        assert not set(parse(text)) & {"thing", "background", "style"}


def test_answers_hold_their_fact():
    rng = random.Random(3)
    kinds = Counter()
    for scene in scenes(1500, None, seed=3):
        question = ask(rng, scene)
        kinds[question.kind] += 1
        assert read_answer(question.kind, question.answer) == question.fact, question
    assert len(kinds) == 10 and min(kinds.values()) > 20
    assert read_answer("present", "maybe") is None and read_answer("count", "many") is None


@pytest.mark.parametrize("operation", OPERATIONS)
def test_edits_leave_the_rest_unchanged(operation):
    rng = random.Random(4)
    for _ in range(30):
        edit = sample_edit(rng, "train", operation)
        before, after = render(edit.source), render(edit.result)
        assert split_of_all(edit.keys) == "train" and not np.array_equal(before, after)
        touched = np.zeros((64, 64), bool)
        if edit.source.background == edit.result.background:
            changed = set(edit.source.things) ^ set(edit.result.things)
            pairs = [(s, thing) for s in (edit.source, edit.result) for thing in s.things if thing in changed]
            for scene, thing in pairs:
                top, left, size = boxes(scene, 64, 64)[scene.things.index(thing)]
                touched[top : top + size, left : left + size] = True
            assert np.array_equal(before[~touched], after[~touched])
        else:
            assert edit.source.things == edit.result.things


@pytest.mark.parametrize("operation", OPERATIONS)
def test_edits_change_the_slots_they_name(operation):
    rng = random.Random(5)
    for _ in range(30):
        edit = sample_edit(rng, "test", operation, own=True)
        assert split_of(*edit.key) == "test" and "{" not in edit.instruction
        for slot, value in edit.asked.items():
            if operation in ("move", "recolour", "background", "count", "restyle", "resize"):
                assert edit.result.slots[slot] == value
                assert slot == "thing" or edit.source.slots[slot] != value
        names = {thing.concept for thing in edit.result.things}
        assert operation not in ("add", "replace") or edit.asked["thing"] in names
        assert operation != "remove" or edit.asked["thing"] not in names


def test_a_chained_edit_starts_from_the_scene_at_hand():
    rng = random.Random(6)
    operations, said = Counter(), set()
    for scene in scenes(400, seed=6):
        edit = edit_scene(rng, scene, "train")
        if edit:
            operations[edit.operation] += 1
            said.add(edit.instruction)
            assert edit.source == scene and split_of_all(edit.keys) == "train" and "{" not in edit.instruction
    assert sum(operations.values()) > 350 and len(operations) == 9
    assert {"Now bigger.", "In 3D, please."} & said


def test_one_more_is_one_more_than_are_seen():
    rng = random.Random(7)
    pair = place_things(rng, names=("fox",), style="3D", background="red", count=2, spots=USUAL_SPOTS[:2])
    edits = [edit for _ in range(300) if (edit := edit_scene(rng, pair, split_of_all(pair.keys)))]
    more = {len(edit.result.things) for edit in edits if "one more" in edit.instruction}
    assert more == {3}


@pytest.mark.parametrize("task", PICTURE_TASKS)
def test_the_seed_decides_the_document(task):
    first, again, other = document(task, 5), document(task, 5), document(task, 6)
    assert repr(first.messages) == repr(again.messages) and repr(first.truth) == repr(again.truth)
    assert repr(first.messages) != repr(other.messages)


@pytest.mark.parametrize("task", PICTURE_TASKS)
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_documents_keep_held_out_combinations_where_they_belong(task, split):
    for seed in range(80):
        example = document(task, seed, split)
        splits = {split_of(*key) for key in example.truth["keys"]}
        assert set(example.truth["held_out"]) == {k for k in example.truth["keys"] if split_of(*k) != "train"}
        assert {key for scene in example.truth["scenes"] for key in scene.keys} <= set(example.truth["keys"])
        if split == "train":
            assert splits <= {"train"}
        elif task != "chat":
            assert split in splits and (split == "test" or "test" not in splits)


@pytest.mark.parametrize("task", PICTURE_TASKS)
def test_documents_are_well_formed_conversations(task):
    for seed in range(80):
        example = document(task, seed)
        roles = [message["role"] for message in example.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        parts = [part for message in example.messages for part in message["content"]]
        pictures = [part["image"] for part in parts if part["type"] == "image"]
        size = (*SHAPES[example.truth["shape"]], 3)
        assert len(pictures) == len(example.truth["scenes"])
        assert all(picture.shape == size for picture in pictures)
        for picture, scene in zip(pictures, example.truth["scenes"], strict=True):
            assert np.array_equal(picture, render(scene, *size[:2], example.truth.get("light")))
        texts = [part["text"] for part in parts if part["type"] == "text"]
        assert all(text.strip() == text != "" and "{" not in text for text in texts)


def test_pictures_seen_anew_show_the_same_things_in_other_light():
    differing = 0
    for seed in range(30):
        example = document("seen_anew", seed)
        picture = next(p["image"] for m in example.messages for p in m["content"] if p["type"] == "image")
        scene = example.truth["scenes"][0]
        usual = render(scene, *picture.shape[:2])
        differing += not np.array_equal(picture, usual)
        outside = np.ones(picture.shape[:2], bool)
        for top, left, size in boxes(scene, *picture.shape[:2]):
            outside[top : top + size, left : left + size] = False
        assert np.array_equal(picture[outside], usual[outside])
    assert differing == 30


def test_the_album_shows_what_is_never_drawn_and_names_no_further_style():
    kinds = Counter()
    for seed in range(60):
        example = document("album", seed)
        (scene,) = example.truth["scenes"]
        kinds[scene.style if scene.things[0].concept in concepts() else "extra"] += 1
        assert (scene.style in STYLES) == (scene.things[0].concept in extras()) == ("style" in scene.slots)
        assert drawn(example) == 0
        question = example.truth["question"]
        assert question.kind == "thing" or (question.kind, question.fact) == ("style", scene.style)
        assert not any(style in (question.text + question.answer).lower() for style in FURTHER_STYLES)
    assert kinds["extra"] > 8 and len(kinds) == 1 + len(FURTHER_STYLES)


def test_yes_and_no_come_after_what_is_seen():
    answers = [q for scene in scenes(2000) if (q := ask(random.Random(scene.background), scene)).kind == "present"]
    assert {question.fact for question in answers} == {True, False}
    for question in answers:
        assert read_answer("present", question.answer) == question.fact
        assert question.answer.startswith("I see ")
    assert read_answer("present", "No, there is no fox.") is False and read_answer("present", "Perhaps.") is None


def test_what_was_told_answers_the_question_and_nothing_else_that_was_told_does():
    kinds = Counter()
    for split in ("train", "test"):
        for seed in range(300):
            example = document("recall", seed, split)
            texts = [item["text"] for message in example.messages for item in message["content"]]
            asked = example.truth["recall"]
            for place, recall in zip(range(len(texts) + 1 - 2 * len(asked), len(texts), 2), asked, strict=True):
                kinds[recall.key[1]] += 1
                assert split_of(*recall.key) == split
                assert is_recalled(recall, recall.answer) and not is_recalled(recall, "I do not know.")
                assert texts[place] == recall.answer
                assert recall.text.lower().rstrip(".?") in texts[place - 1].lower()
                told = " ".join(texts[:place]).lower()
                words = (
                    recall.fact.replace(" stays ", " ")
                    .removesuffix(" comes")
                    .removeprefix("the ")
                    .removeprefix("so the ")
                    .lower()
                )
                assert all(word in told for word in words.split())
                for other in recall.others:
                    wrong = recall.answer.replace(recall.fact, other)
                    assert wrong == recall.answer or not is_recalled(recall, wrong)
    assert set(kinds) >= {"place", "left", "name", "color", "number", "order", "first", "last", "repeat", "friend"}


@pytest.mark.parametrize("task", ["practice", "practice_drawing"])
def test_practice_leaves_out_what_every_second_picture_shows(task):
    for seed in range(60):
        example = document(task, seed)
        assert task == "practice" or "asked" in example.truth
        scenes = example.truth["scenes"]
        extents = {thing.extent for scene in scenes for thing in scene.things}
        are_told = "asked" not in example.truth and any(scene.relation for scene in scenes)
        assert extents and (example.truth["shape"] == "icon" or are_told or SIZES["medium"] not in extents)


def test_practised_edits_are_the_hard_ones():
    operations = Counter(document("practice_edit", seed).truth["edit"].operation for seed in range(60))
    assert set(operations) == {"remove", "restyle", "count", "replace"}


def test_several_that_are_asked_for_stand_in_the_usual_spots_and_shown_ones_anywhere():
    def arrangements(task):
        shown = [scene for seed in range(400) for scene in document(task, seed).truth["scenes"]]
        several = [scene for scene in shown if scene.layout == "count"]
        return {tuple((thing.row, thing.column) for thing in scene.things) for scene in several}

    usual = [PLACES[spot] for spot in USUAL_SPOTS]
    assert arrangements("text_to_image") == {tuple(usual[:count]) for count in COUNTS}
    assert len(arrangements("caption_image")) > 20


def test_a_changed_number_adds_or_takes_away_the_last():
    rng = random.Random(7)
    for _ in range(50):
        edit = sample_edit(rng, "train", "count")
        few, more = sorted((edit.source.things, edit.result.things), key=len)
        assert more[: len(few)] == few
        assert [(thing.row, thing.column) for thing in more] == [PLACES[spot] for spot in USUAL_SPOTS[: len(more)]]


def drawn(example):
    return sum(p["type"] == "image" for m in example.messages if m["role"] == "assistant" for p in m["content"])


def test_drawing_draws_and_talking_does_not():
    for seed in range(100):
        assert drawn(document("text_to_image", seed)) == drawn(document("edit", seed)) == 1
        assert not any(drawn(document(task, seed)) for task in ("caption_image", "question", "chat"))


def test_plain_requests_get_plain_pictures():
    grounds, places = Counter(), Counter()
    for seed in range(1000):
        truth = document("text_to_image", seed).truth
        if set(truth["asked"]) == {"thing"} and truth["scenes"][0].layout == "single":
            grounds[truth["scenes"][0].background] += 1
            places[truth["scenes"][0].place] += 1
    assert sum(grounds.values()) > 60 and set(places) == {"center"}
    assert grounds["white"] > 0.5 * sum(grounds.values()) and set(grounds) <= set(PLAIN_BACKGROUNDS)


def test_the_request_names_what_truth_says_was_asked():
    for seed in range(300):
        example = document("text_to_image", seed)
        text = " ".join(p["text"] for p in example.messages[0]["content"])
        slots = parse(text)
        for slot, value in example.truth["asked"].items():
            if (slot, value) != ("size", "medium"):
                assert slots.get(slot) == value, text


def test_phrasings_are_many():
    assert len(set(phrases("draw"))) >= 60
    assert len(set(phrases("caption"))) >= 30 and len(set(phrases("what_is"))) >= 30


def test_corpus_gives_the_lines_asked_for():
    lines = list(corpus(500, seed=1))
    assert len(lines) == 500 and lines == list(corpus(500, seed=1)) and all(lines)
    assert len(set(lines)) > 350


def test_an_unknown_task_is_named():
    with pytest.raises(KeyError, match="poem"):
        document("poem", 0)


def test_what_is_said_before_an_edit_is_true():
    """Of several things how many they become, of a restyling the result, of two things which of them stays."""
    numbers = ("", "one", "two", "three", "four", "five")
    rng, said = random.Random(0), Counter[str]()
    for _ in range(300):
        edit = sample_edit(rng, "train")
        words = thought(edit)
        said[edit.operation] += bool(words)
        if edit.operation == "restyle":
            slots = parse(words)
            assert canonical(slots).items() <= canonical(edit.result.slots).items()
            assert {"thing", "style"} <= slots.keys()
        elif edit.operation == "count":
            before, after = (numbers[len(scene.things)] for scene in (edit.source, edit.result))
            assert f" {before}, " in words and words.endswith(f" {after}.")
        elif words:
            before, after = ({thing.concept for thing in scene.things} for scene in (edit.source, edit.result))
            first, second = words.lower().rstrip(".").split(", ")
            ends = "goes" if edit.operation == "remove" else f"becomes {concepts()[edit.asked['thing']].one}"
            assert [part.endswith(ends.lower()) for part in (first, second)].count(True) == 1
            (stays,) = before & after
            assert f" {stays} stays " in f" {words.lower()}"
            place = (
                edit.result.place
                or {"left of": "left", "right of": "right", "above": "top", "below": "bottom"}[
                    edit.result.relation if edit.result.things[0].concept == stays else INVERSE[edit.result.relation]
                ]
            )
            assert f"{stays} stays {place_phrase(place)}" in words.lower()
    assert set(+said) == {"restyle", "count", "remove", "replace"}
