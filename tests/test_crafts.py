"""Films, sound and worlds through the public object: shapes, seeds, blocks, what is given, what is refused."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from omni import Audio, ConfigError, Image, InputError, Omni, Text, Video
from omni.chat import ACTIONS, to_tokens
from omni.events import MediaFinished, MediaPreview, MediaStarted
from omni.generate import Generator
from omni.pipeline import Finished
from omni.sequence import TextRun


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def clip(frames: int = 5, *, sound: bool = False) -> Video:
    audio = None
    if sound:
        audio = Audio(np.sin(np.arange(round(frames / 8 * 16000)) / 20).astype(np.float32)[None] * 0.3, 16000)
    return Video(noise(frames, 32, 32, 3), 8.0, audio)


def hum(seconds: float = 0.5) -> Audio:
    return Audio(np.sin(np.arange(round(seconds * 16000)) / 20).astype(np.float32)[None] * 0.3, 16000)


def test_video_has_the_length_and_size_asked_for(every: Omni) -> None:
    video = every.video("a fox jumps", seconds=1.1, size=(32, 64), sound=False, seed=0)
    assert video.frames.shape == (9, 32, 64, 3) and video.fps == 8 and video.audio is None
    assert video.metadata["seed"] == 0


def test_video_with_sound_lasts_as_long_as_its_pictures(every: Omni) -> None:
    video = every.video("a ball falls", seconds=0.6, size=(32, 32), sound=True, seed=1)
    assert video.audio is not None and video.audio.samples.shape == (1, round(video.num_frames / 8 * 16000))


def test_long_video_is_made_in_blocks_and_comes_as_one_part(every: Omni) -> None:
    whole = every.video("a fox", seconds=2.1, size=(32, 32), sound=True, block_frames=2, seed=0)
    assert whole.frames.shape == (17, 32, 32, 3)
    assert whole.audio is not None
    assert abs(whole.audio.duration_s - 17 / 8) < 1 / 8


def test_shape_is_the_models_choice_where_it_is_left_open(every: Omni) -> None:
    video = every.video("a fox", size=(32, 32), seed=0, max_new_tokens=20)
    assert video.frames.shape[1:] == (32, 32, 3) and video.num_frames % 4 == 1
    assert isinstance(every.audio("hello", seed=0), Audio)


def test_sound_can_be_asked_for_without_a_length(every: Omni) -> None:
    assert every.video("a fox", sound=True, size=(32, 32), seed=0, max_new_tokens=20).audio is not None
    assert every.video("a fox", sound=False, size=(32, 32), seed=0, max_new_tokens=20).audio is None


@pytest.mark.parametrize("ids", [0, 3])
def test_film_comes_even_where_no_ids_are_left_for_its_length(every: Omni, ids: int) -> None:
    for sound in (True, False):
        assert every.video("a fox", sound=sound, size=(32, 32), seed=0, max_new_tokens=ids).num_frames % 4 == 1


def test_batch_equals_single_for_films_with_sound(every: Omni) -> None:
    prompts, settings = ["a fox", "a small red fox jumps"], {"seconds": 0.6, "size": (32, 32), "sound": True}
    together = every.video(prompts, seed=[3, 4], **settings)
    for prompt, seed, mine in zip(prompts, (3, 4), together, strict=True):
        alone = every.video(prompt, seed=seed, **settings)
        assert np.abs(mine.frames.astype(int) - alone.frames).max() <= 1
        np.testing.assert_allclose(mine.audio.samples, alone.audio.samples, atol=2e-2)


def test_audio_lasts_as_asked(every: Omni) -> None:
    audio = every.audio("a bell", seconds=1.0, seed=0)
    assert audio.samples.shape[0] == 1 and abs(audio.duration_s - 1.0) < 0.05
    assert np.abs(audio.samples).max() <= 1


def test_animate_and_continue_keep_the_size(every: Omni) -> None:
    film = every.animate(Image(noise(32, 64, 3)), "it jumps", seconds=0.6, seed=0)
    assert film.frames.shape == (5, 32, 64, 3)
    more = every.continue_(clip(), seconds=1.0, seed=0)
    assert more.frames.shape == (8, 32, 32, 3)


def test_a_film_begins_with_the_picture_itself(every: Omni) -> None:
    picture, codec = Image(noise(32, 64, 3)), every.studio.vision()
    films = [every.animate(picture, "it jumps", seconds=0.6, seed=seed).frames for seed in (0, 1)]
    kept = codec.decode(codec.encode(torch.from_numpy(picture.pixels)[None, None]))[0, 0].numpy()
    for film in films:
        assert np.abs(film[0].astype(int) - kept).max() <= 1
    assert not np.array_equal(films[0][1:], films[1][1:])
    with pytest.raises(ConfigError, match="seconds is None"):
        every.animate(picture, "it jumps", seconds=None)


def test_a_film_goes_on_behind_words(every: Omni, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model may say what happens, and then go on with the film that it was given."""
    choose, going_on = Generator._choose, every.template.kinds["continue"]

    def say_it_and_go_on(self: Generator, logits: torch.Tensor, talk: Any, settings: Any) -> int:
        wanted = 7 if talk.num_written == 0 else going_on if talk.num_written == 1 else every.template.end
        logits = logits.clone()
        logits[wanted] += 0.0 if talk.header else 1e6
        return choose(self, logits, talk, settings)

    monkeypatch.setattr(Generator, "_choose", say_it_and_go_on)
    asked = {"role": "user", "content": [{"type": "video", "video": clip()}, {"type": "text", "text": "Go on."}]}
    words, film = every.chat([asked], seed=0, temperature=0, steps=2, max_video_tokens=8).parts
    assert isinstance(words, Text) and isinstance(film, Video)
    assert film.frames.shape[1:] == (32, 32, 3) and film.num_frames % 4 == 0  # of the first latent there is a frame


@pytest.mark.parametrize("most", [4096, 8])
def test_a_film_comes_to_rest_as_the_last_picture(every: Omni, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Its last latent frame is given, wherever its block begins, and is that of a film of the picture at rest."""
    monkeypatch.setattr(every.studio, "max_video_tokens", most)
    first, last = Image(noise(32, 32, 3)), Image(255 - noise(32, 32, 3))
    blocks = every._between(first, last, 1.1)
    assert [block.shape[0] for block in blocks] == ([3] if most > 8 else [2, 1])
    tokens, given = (torch.cat(parts) for parts in zip(*(b.given for b in blocks if b.given), strict=True))
    assert given.flatten(1).tolist() == [[True] * 4, [False] * 4, [True] * 4]
    still = every.studio.encode(Video(np.repeat(last.pixels[None], 9, 0), 8.0))[-1].grids[0].latents
    torch.testing.assert_close(tokens[-1], still[-1], atol=1e-4, rtol=1e-4)
    film = every.animate([first], ["it changes"], last_image=[last], seconds=1.1, seed=0)[0]
    assert film.frames.shape == (9, 32, 32, 3)


def test_a_last_picture_that_does_not_fit_is_refused(every: Omni) -> None:
    first = Image(noise(32, 64, 3))
    with pytest.raises(InputError, match=r"\(32, 32\).*\(32, 64\)"):
        every.animate(first, "it jumps", last_image=Image(noise(32, 32, 3)))
    with pytest.raises(InputError, match="2 pictures need as many last ones, not 1"):
        every.animate([first, first], ["a", "b"], last_image=first)
    with pytest.raises(ConfigError, match="more seconds"):
        every.animate(first, "it jumps", last_image=first, seconds=0.2)


def test_films_go_on_with_media_as_strongly_as_the_model_says(every: Omni, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller's own scale goes before; edits, and what is drawn of words alone, stay as they are."""
    picture = Image(noise(32, 32, 3))
    crafts: list[Callable[..., np.ndarray]] = [
        lambda **how: every.animate(picture, "it jumps", seconds=0.6, seed=0, **how).frames,
        lambda **how: every.continue_(clip(), seconds=0.5, seed=0, **how).frames,
    ]
    plain = [craft() for craft in crafts]
    others = every.edit(picture, "make it red", seed=0), every.image("a fox", size=(32, 32), seed=0)
    monkeypatch.setattr(every, "defaults", replace(every.defaults, image_scale=4.0))
    for craft, before in zip(crafts, plain, strict=True):
        assert not np.array_equal(craft(), before)
        np.testing.assert_array_equal(craft(), craft(image_scale=4.0))
        np.testing.assert_array_equal(craft(image_scale=1.0), before)
    np.testing.assert_array_equal(every.edit(picture, "make it red", seed=0).pixels, others[0].pixels)
    np.testing.assert_array_equal(every.image("a fox", size=(32, 32), seed=0).pixels, others[1].pixels)


def test_inpainting_leaves_what_is_given(every: Omni) -> None:
    """The latents outside the mask are those of the picture; the seed changes what is inside alone."""
    picture, mask = Image(noise(32, 64, 3)), np.zeros((32, 64), bool)
    mask[:, 40:] = True
    made = []
    for seed in (0, 1):
        for _, event in every._generator.run(
            [_inpainting(every, picture, mask, seed)], every._settings({})[0], on_document=lambda n, d: made.append(d)
        ):
            assert isinstance(event, (MediaStarted, MediaFinished))
    first, second = (document[-1].grids[0].latents for document in made)
    studio = every.studio
    clean = to_tokens(studio.vision().encode(torch.from_numpy(picture.pixels)[None, None])[0], patch_size=2)
    assert torch.allclose(first[:, :, :2], clean[:, :, :2], atol=1e-6)
    assert torch.equal(first[:, :, :2], second[:, :, :2]) and not torch.equal(first[:, :, 2:], second[:, :, 2:])
    assert every.inpaint(picture, mask, "a star", seed=0).pixels.shape == (32, 64, 3)


def _inpainting(omni: Omni, picture: Image, mask: np.ndarray, seed: int):
    seen = []
    run = omni._generator.run

    def spy(requests, *rest, **more):
        seen.extend(requests)
        return run(requests, *rest, **more)

    omni._generator.run = spy
    try:
        omni.inpaint(picture, mask, "a star", seed=seed)
    finally:
        del omni._generator.run
    return seen[0]


def test_inpainting_refuses_masks_that_do_not_fit(every: Omni) -> None:
    picture = Image(noise(32, 32, 3))
    for mask, said in (
        (np.ones((16, 32), bool), "booleans"),
        (np.ones((32, 32)), "booleans"),
        (np.zeros((32, 32), bool), "False everywhere"),
    ):
        with pytest.raises(InputError, match=said):
            every.inpaint(picture, mask, "a star")


def test_captions_of_every_modality(every: Omni) -> None:
    assert isinstance(every.caption(clip(), seed=0, max_new_tokens=4), str)
    assert len(every.caption([hum(), Image(noise(32, 32, 3))], seed=0, max_new_tokens=4)) == 2


def test_a_world_answers_actions_with_frames(every: Omni) -> None:
    world = every.play("a fox on grass", size=(32, 32), seed=0)
    assert world.first.frames.shape == (1, 32, 32, 3) and world.actions == ACTIONS
    frames = [world.send(action) for action in ("left", "jump")]
    assert [part.frames.shape for part in frames] == [(4, 32, 32, 3)] * 2
    again = every.play("a fox on grass", size=(32, 32), seed=0)
    for action, part in zip(("left", "jump"), frames, strict=True):
        assert np.array_equal(again.send(action).frames, part.frames)
    with pytest.raises(InputError, match="fly"):
        world.send("fly")
    assert world.send("stay").num_frames == 4  # the world goes on after a mistake


def test_a_world_reads_its_past_once(every: Omni) -> None:
    world = every.play("a fox", size=(32, 32), seed=0)
    world.send("left")
    held = world._reader.cache.lengths[0]
    world.send("left")
    assert world._reader.cache.lengths[0] - held < 30


def test_a_world_goes_by_its_last_actions_on_the_clock_of_a_young_one(every: Omni) -> None:
    def media(world) -> list:
        return [segment for segment in world._document if not isinstance(segment, TextRun)]

    whole, short = (every.play("a fox", size=(32, 32), seed=0, memory=memory) for memory in (0, 2))
    for number, action in enumerate(("left", "jump", "stay", "up")):
        films = [world.send(action).frames for world in (whole, short)]
        assert np.array_equal(*films) == (number <= 2), "the third action is still answered with two before it"
    assert len(media(whole)) == 5 and len(media(short)) == 3
    seconds = [[medium.grids[0].seconds for medium in media(world)] for world in (whole, short)]
    assert seconds[1] == seconds[0][:3]
    with pytest.raises(ConfigError, match="memory"):
        every.play("a fox", size=(32, 32), seed=0, memory=-1)


def test_stream_of_a_film_tells_of_its_steps(every: Omni) -> None:
    from omni.generate import Forced, Request

    options = every._settings({"previews": True, "steps": 3})[0]
    request = Request(every.play("a fox", size=(32, 32), seed=0)._document, 0, (Forced("video", (2, 2, 2, 8, 0)),))
    events = [event for _, event in every._generator.run([request], options)]
    assert isinstance(events[0], MediaStarted) and events[0].shape == (5, 32, 32)
    assert [event.step for event in events if isinstance(event, MediaPreview)] == [1, 2]
    assert isinstance(events[-1], MediaFinished) and isinstance(events[-1].part, Video)


def test_films_and_sounds_are_understood_in_messages(every: Omni) -> None:
    content = [
        {"type": "video", "video": clip(sound=True)},
        {"type": "audio", "audio": hum()},
        {"type": "action", "action": "left"},
        {"type": "text", "text": "What is this?"},
    ]
    reply = every.chat([{"role": "user", "content": content}], seed=0, max_new_tokens=5, max_media=0)
    assert isinstance(reply.text, str)


def test_saved_equals_loaded(every: Omni, tmp_path) -> None:
    every.save_pretrained(tmp_path)
    again = Omni.from_pretrained(tmp_path)
    mine, theirs = (o.video("a fox", seconds=0.6, size=(32, 32), sound=True, seed=0) for o in (every, again))
    assert np.array_equal(mine.frames, theirs.frames) and np.allclose(mine.audio.samples, theirs.audio.samples)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda omni: omni.video("a fox", seconds=0, size=(32, 32)), "seconds"),
        (lambda omni: omni.video("a fox", seconds=1, size=(30, 32)), "multiple of 16"),
        (lambda omni: omni.video("a fox", seconds=1, block_frames=9, size=(32, 32)), "block_frames"),
        (lambda omni: omni.video("a fox", block_frames=1, size=(32, 32)), "give seconds"),
        (lambda omni: omni.audio("a fox", seconds=60), "at most"),
    ],
)
def test_impossible_lengths_are_refused(every: Omni, call, said) -> None:
    with pytest.raises(ConfigError, match=said):
        call(every)


def test_models_without_film_or_sound_say_so(small: Omni) -> None:
    with pytest.raises(InputError, match="no video"):
        small.video("a fox", seconds=1)
    with pytest.raises(InputError, match="no sound"):
        small.audio("a bell", seconds=1)
    with pytest.raises(InputError, match="no video"):
        small.chat([{"role": "user", "content": [{"type": "video", "video": clip()}]}])


def test_finished_comes_last(every: Omni) -> None:
    events = list(every.stream("hello", seed=0, max_new_tokens=3, max_media=0))
    assert isinstance(events[-1], Finished)
