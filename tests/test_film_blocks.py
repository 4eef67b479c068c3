"""The laws of blocks with several streams, of films in several blocks, and of tokens that are given."""

import math

import pytest
import torch
from tests.conftest import SIZES, randomise

from omni.chat import ChatTemplate, FilmClock, continued_film, medium_from_latents
from omni.config import OmniConfig
from omni.errors import InputError
from omni.grammar import Grammar, ShapeLimits
from omni.model import OmniModel
from omni.reader import Reader, join_grids, split_grids
from omni.sequence import Medium, TextRun, drop_conditions, flatten, pack

CLOCK = FilmClock(fps=8, frames_per_latent=4, latents_per_second=20)
LIMITS = ShapeLimits(max_block_tokens=6, max_video_tokens=12, max_audio_tokens=40)


@pytest.fixture(scope="module")
def config(tokenizer) -> OmniConfig:
    return OmniConfig(
        num_text_ids=tokenizer.num_text_ids,
        num_control_ids=tokenizer.vocab_size - tokenizer.num_text_ids,
        experts={
            "text": {"width": 32, "ffn_dim": 48},
            "vision": {"width": 24, "ffn_dim": 40},
            "audio": {"width": 16, "ffn_dim": 24},
        },
        streams={
            "vision": {"channels": 4, "patch_size": 2, "expert": "vision", "base_tokens": 4, "reads_previous": True},
            "audio": {"channels": 6, "patch_size": 1, "expert": "audio", "base_tokens": 8},
        },
        stream_of={"image": "vision", "video": "vision", "audio": "audio"},
        **SIZES,
    )


@pytest.fixture(scope="module")
def model(config) -> OmniModel:
    torch.manual_seed(0)
    return randomise(OmniModel(config))


@pytest.fixture(scope="module")
def template(tokenizer) -> ChatTemplate:
    return ChatTemplate(tokenizer.control)


def film(template, seed: int, *, frames=2, sound=True, after=(), given=None, is_target=False) -> Medium:
    generator = torch.Generator().manual_seed(seed)
    before = sum(medium.grids[0].latents.shape[0] for medium in after)
    count = CLOCK.sound_latents(frames, before=before)
    medium = medium_from_latents(
        torch.randn(frames, 2, 4, 4, generator=generator),
        template=template,
        modality="video",
        patch_size=2,
        sound=torch.randn(count, 6, generator=generator) if sound else None,
        clock=CLOCK,
        given=given,
        after=after,
    )
    return Medium(medium.header, medium.end, medium.grids, is_target, medium.continues)


def packed(document, config, *, sigma=0.6, num_noisy=1, seed=0):
    flat = flatten(document, config, num_noisy=num_noisy)
    generator = torch.Generator().manual_seed(seed)
    return pack([[flat]], sample_sigma=lambda s: torch.full_like(s, sigma), generator=generator)


def test_clock_counts_one_picture_and_then_four_a_latent():
    assert [CLOCK.num_frames(n) for n in (0, 1, 2, 5)] == [0, 1, 5, 17]
    assert CLOCK.frame_seconds(3) == (0.0, 2.5 / 8, 6.5 / 8)
    assert CLOCK.frame_seconds(1, before=2) == (6.5 / 8,)


@pytest.mark.parametrize("cuts", [(5,), (1, 4), (2, 2, 1), (1, 1, 1, 1, 1)])
def test_sound_of_blocks_adds_up_to_that_of_the_film(cuts):
    starts = [sum(cuts[:index]) for index in range(len(cuts))]
    counts = [CLOCK.sound_latents(cut, before=start) for cut, start in zip(cuts, starts, strict=True)]
    assert sum(counts) == CLOCK.sound_latents(5) == math.ceil(17 / 8 * 20)


def test_film_and_sound_of_a_block_share_seconds(config, template):
    """A latent of each that stands for the same moment has the same time coordinate."""
    medium = film(template, 0, frames=3)
    batch = packed([TextRun((1, 2)), medium], config)
    time = batch.positions[0, :, 0]
    kinds = batch.modality[0]
    start = 2 + len(medium.header)
    frames = time[kinds == 2].view(3, 2)[:, 0]
    sounds = time[kinds == 3]
    assert torch.equal(frames, start + 25 * torch.tensor(CLOCK.frame_seconds(3)))
    torch.testing.assert_close(sounds, start + 25 * (torch.arange(len(sounds)) + 0.5) / 20)
    assert torch.equal(batch.attention.block[0, kinds == 2].unique(), batch.attention.block[0, kinds == 3].unique())


def test_blocks_of_a_film_go_on_with_one_clock_past_actions(config, template):
    first = film(template, 0, sound=False)
    second = film(template, 1, frames=1, sound=False, after=[first])
    plain = packed([first, second], config)
    played = packed([first, template.action_run("left"), second], config)
    for batch in (plain, played):
        times = batch.positions[0, batch.modality[0] == 2, 0]
        expected = len(first.header) + 25 * torch.tensor(CLOCK.frame_seconds(3))
        assert torch.equal(times.view(3, 2)[:, 0], expected)


def test_text_after_a_film_stands_behind_all_of_it(config, template):
    first = film(template, 0, sound=False)
    second = film(template, 1, frames=1, sound=False, after=[first])
    flat = flatten([first, second, TextRun((1,))], config)
    batch = pack([[flat]])
    assert batch.positions[0, -1, 0] > batch.positions[0, batch.modality[0] == 2, 0].max()


def test_blocks_through_the_cache_equal_the_training_row(config, model, template):
    """Block after block with the cache: the velocity of each noisy block is that of the training row."""
    first = film(template, 0, is_target=True)
    second = film(template, 1, frames=1, after=[first], is_target=True)
    document = [TextRun((1, 2)), first, template.action_run("left"), second, TextRun((3,), is_target=True)]
    batch = packed(document, config)
    with torch.no_grad():
        whole = model(batch).velocity
    reader = Reader(model, num_rows=1)
    place = {"vision": 0, "audio": 0}
    for number, block in ((1, first), (3, second)):
        with torch.no_grad():
            reader.sync([0], [[*document[:number], TextRun(block.header)]])
            noisy, expected = [], []
            for grid in block.grids:
                stream = config.stream_of[grid.modality]
                own = slice(place[stream], place[stream] + grid.num_tokens)
                noisy.append(batch.latents[stream][own].unsqueeze(0))
                expected.append(whole[stream][own].unsqueeze(0))
                place[stream] += 2 * grid.num_tokens  # past the readable copy
            said = reader.velocity_field([0], [block])(join_grids(noisy), 0.6)
        for mine, theirs in zip(split_grids(said, block), expected, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_given_tokens_are_clean_and_not_learnt(config, template):
    given = torch.zeros(2, 2, 4, dtype=torch.bool)
    given[1] = True
    medium = film(template, 0, given=given, sound=False, is_target=True)
    batch = packed([TextRun((1,)), medium], config)
    is_given = medium.grids[0].is_given
    assert is_given.tolist() == [False, False, True, True]
    assert torch.equal(batch.is_noisy["vision"], ~is_given)
    clean = medium.grids[0].latents.reshape(4, -1)
    assert torch.equal(batch.latents["vision"][is_given], clean[is_given])
    assert not torch.equal(batch.latents["vision"][~is_given], clean[~is_given])
    tokens = batch.modality[0] == 2
    assert torch.equal(batch.sigmas[batch.sigma_index[0, tokens]] == 0, is_given)


def test_nothing_of_a_noisy_copy_reaches_another_block(config, model, template):
    """Neither its noise nor the frames that are given inside it."""
    given = torch.zeros(2, 2, 4, dtype=torch.bool)
    given[1] = True
    document = [
        TextRun((1, 2)),
        film(template, 0, given=given, is_target=True),
        TextRun((3, 4), is_target=True),
        film(template, 1, frames=1, is_target=True),
        TextRun((5,), is_target=True),
    ]
    batch = packed(document, config, num_noisy=2)
    with torch.no_grad():
        before = model(batch)
    tokens = document[1].grids[0].num_tokens
    sounds = document[1].grids[1].num_tokens
    changed = {name: latents.clone() for name, latents in batch.latents.items()}
    changed["vision"][:tokens] += 3  # the first noisy copy, its given frame included
    changed["audio"][:sounds] -= 3
    batch.latents = changed
    with torch.no_grad():
        after = model(batch)
    assert torch.equal(before.logits, after.logits)
    for stream, count in (("vision", tokens), ("audio", sounds)):
        assert not torch.equal(before.velocity[stream][:count], after.velocity[stream][:count])
        assert torch.equal(before.velocity[stream][count:], after.velocity[stream][count:])


def test_given_tokens_stay_in_the_field(config, model, template):
    given = torch.zeros(2, 2, 4, dtype=torch.bool)
    given[1] = True
    block = film(template, 0, given=given)
    reader = Reader(model, num_rows=1)
    with torch.no_grad():
        reader.sync([0], [[TextRun((1, 2, *block.header))]])
        grids = [grid.latents.reshape(1, grid.num_tokens, -1) for grid in block.grids]
        said = split_grids(reader.velocity_field([0], [block])(join_grids(grids), 0.7), block)
    assert torch.equal(said[0][0, 2:], torch.zeros_like(said[0][0, 2:]))
    assert said[0][0, :2].abs().min() > 0 and said[1].abs().min() > 0


def test_dropping_media_keeps_what_is_made(config, template):
    first = film(template, 0)
    second = film(template, 1, frames=1, after=[first], is_target=True)
    kept = drop_conditions([TextRun((1,)), first, second], text=False, media=True, num_text_ids=config.num_text_ids)
    flat = flatten(kept, config)  # the clock goes on although the film before is gone
    assert len(flat) and [segment for segment in kept if isinstance(segment, Medium)] == [second]


def test_continued_film_looks_past_words_and_stops_at_other_media(config, template):
    first = film(template, 0)
    second = film(template, 1, frames=1, after=[first])
    assert continued_film([TextRun((1,)), first, TextRun((2,)), second, TextRun((3,))]) == [first, second]
    picture = medium_from_latents(torch.zeros(1, 2, 2, 4), template=template, modality="image", patch_size=2)
    assert continued_film([first, picture]) == []


def numbers(grammar, *header, after=(), limits=LIMITS):
    kind, *rest = header
    ids = [grammar.template.kinds[kind], *map(grammar.template.number, rest)]
    return grammar.legal_numbers(ids, after, limits)


def test_grammar_admits_only_legal_headers(config, template):
    grammar = Grammar(config, template, frames_per_latent=4, latents_per_second=20)
    assert numbers(grammar, "image") == [1, 2, 3, 4, 5, 6]
    assert numbers(grammar, "image", 4) == [1]
    assert numbers(grammar, "video")[-1] == 12
    assert numbers(grammar, "video", 3)[-1] == 4
    assert numbers(grammar, "video", 3, 2)[-1] == 2
    assert numbers(grammar, "video", 2, 1, 2, 8) == [0, CLOCK.sound_latents(2)]
    assert numbers(grammar, "video", 12, 1, 1, 1) == [0]  # more sound than the limit
    assert numbers(grammar, "audio") == list(range(1, 41))
    heard, silent = film(template, 0), film(template, 0, sound=False)
    assert numbers(grammar, "continue", after=[heard])[-1] == 6
    assert numbers(grammar, "continue", 1, after=[heard]) == [CLOCK.sound_latents(1, before=2)]
    assert numbers(grammar, "continue", 1, after=[silent]) == [0]


def test_grammar_makes_the_block_that_the_header_says(config, template):
    grammar = Grammar(config, template, frames_per_latent=4, latents_per_second=20)
    for medium, after in [(film(template, 0), []), (film(template, 0, sound=False), [])]:
        block = grammar.block(medium.header, after)
        assert [(g.modality, g.latents.shape, g.seconds) for g in block.grids] == [
            (g.modality, g.latents.shape, g.seconds) for g in medium.grids
        ]
    first = film(template, 0)
    second = film(template, 1, frames=2, after=[first])
    block = grammar.block(second.header, [first])
    assert block.continues and [g.seconds for g in block.grids] == [g.seconds for g in second.grids]


def test_unknown_actions_are_refused(template):
    with pytest.raises(InputError, match="fly"):
        template.action_run("fly")
