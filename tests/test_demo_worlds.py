"""Worlds of the demo on a tiny model with films: opened, played, overfilled, followed and forgotten."""

import threading
import time
from io import BytesIO

import pytest
from PIL import Image as PILImage

from demo.host import Host
from demo.worlds import MAX_PENDING, World
from omni import InputError


@pytest.fixture
def host(every, tmp_path):
    host = Host(every, tmp_path)
    yield host
    host.close()


def opened(every, prompt: str = "a fox on the grass") -> World:
    world = World(prompt, seed=3, steps=2)
    world.go_on(every)
    return world


def frames_of(png: bytes) -> int:
    return PILImage.open(BytesIO(png)).n_frames


def test_world_opens_with_a_picture_and_answers_with_frames(every):
    world = World("a fox", seed=3, steps=2)
    assert world.is_running and world.view().clip is None and "Opening" in world.view().status
    world.go_on(every)
    assert not world.is_running and frames_of(world.view().clip.png) == 1
    assert world.act("left")
    world.go_on(every)
    view = world.view()
    assert frames_of(view.clip.png) > 1 and view.clip.seconds == pytest.approx(0.5)
    assert view.status == "Step 1, seed 3" and world.num_steps == 1


def test_same_seed_and_actions_give_the_same_world(every):
    shown = []
    for _ in range(2):
        world = opened(every)
        world.act("jump")
        world.go_on(every)
        shown.append(world.view().clip.png)
    assert shown[0] == shown[1]


@pytest.mark.parametrize("prompt", ["", " \n", "x" * 201])
def test_world_needs_a_short_prompt(prompt):
    with pytest.raises(InputError):
        World(prompt, seed=0, steps=2)


def test_too_many_actions_are_dropped(every):
    world = opened(every)
    accepted = [world.act("left") for _ in range(MAX_PENDING + 2)]
    assert accepted == [True] * MAX_PENDING + [False] * 2
    assert "next: left, left" in world.view().status
    for _ in range(MAX_PENDING + 1):  # one too many finds nothing to do
        world.go_on(every)
    assert world.num_steps == MAX_PENDING and not world.is_running


def test_unknown_action_and_closed_world_are_refused(every):
    world = opened(every)
    with pytest.raises(InputError, match="jump"):
        world.act("fly")
    world.close()
    with pytest.raises(InputError, match="start a new one"):
        world.act("left")
    world.go_on(every)
    assert list(world.follow("page")) == []


def test_world_that_became_too_long_says_so(every, monkeypatch):
    world = opened(every)
    picture = world.view().clip
    monkeypatch.setattr(every, "defaults", every.defaults.__class__(**vars(every.defaults) | {"max_context_tokens": 1}))
    world.act("left")
    world.go_on(every)
    assert "too long" in world.view().status and world.view().clip == picture and not world.is_running


def test_model_without_films_cannot_be_played(omni):
    world = World("a fox", seed=0, steps=2)
    world.go_on(omni)
    assert "no video" in world.view().status and not world.is_running
    with pytest.raises(InputError, match="start a new one"):
        world.act("left")


def test_every_clip_is_followed_for_as_long_as_it_plays(every):
    world = opened(every)
    for action in ("left", "up", "jump"):
        world.act(action)
    started_s = time.monotonic()
    worker = threading.Thread(target=lambda: [world.go_on(every) for _ in range(3)])
    worker.start()
    views = list(world.follow("page"))
    worker.join()
    numbers = [view.clip.number for view in views]
    assert sorted(set(numbers)) == [1, 2, 3, 4] and numbers == sorted(numbers)
    assert time.monotonic() - started_s > 1.4
    assert [view.is_running for view in views][-1] is False and all(view.is_running for view in views[:-1])


def test_one_page_follows_once(every):
    world = opened(every)
    world.act("left")
    first = world.follow("page")
    next(first)
    assert list(world.follow("page")) == []
    assert next(world.follow("another page"))
    first.close()
    assert next(world.follow("page"))


def test_host_plays_worlds_beside_conversations(host):
    names = [host.new_id(), host.new_id()]
    worlds = [World("a fox", seed=seed, steps=2) for seed in (1, 2)]
    for name, world in zip(names, worlds, strict=True):
        host.open_world(name, world)
    for world in worlds:
        *_, last = world.follow("page")
        assert last.clip.number == 1
    assert [host.world(name) for name in names] == worlds


def test_host_forgets_idle_worlds_and_keeps_those_that_run(host, every, monkeypatch):
    monkeypatch.setattr("demo.host.MAX_WORLDS", 2)
    monkeypatch.setattr(host, "start", lambda work: None)  # the model never gets there
    names = [host.new_id() for _ in range(3)]
    idle = opened(every)
    host.open_world(names[0], idle)
    host.open_world(names[1], World("a cat", seed=0, steps=2))
    host.open_world(names[2], World("a dog", seed=0, steps=2))
    assert host.world(names[0]) is None and host.world(names[1]) and host.world(names[2])
    with pytest.raises(InputError, match="try again"):
        host.open_world(host.new_id(), World("a pig", seed=0, steps=2))
    host.open_world(names[2], World("a bee", seed=0, steps=2))  # one's own is replaced
    assert host.world(names[2]).prompt == "a bee"


def test_host_takes_its_own_names_only(host):
    with pytest.raises(InputError, match="load it again"):
        host.open_world("../../etc", World("a fox", seed=0, steps=2))
