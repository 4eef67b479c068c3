"""The laws of the cache and of the state machine."""

import pytest
import torch
from tests.test_model import documents, packed, picture

from omni.chat import Turn, medium_from_latents, open_reply, to_document, to_latents
from omni.events import MediaFinished, MediaPreview, MediaStarted, TextDelta
from omni.generate import Forced, Generator, Request
from omni.guidance import GuidanceConfig
from omni.parts import Image
from omni.reader import Reader, to_items
from omni.sequence import FlatDocument, Medium, TextRun, flatten, pack
from omni.settings import GenerationSettings

SETTINGS = GenerationSettings(steps=3, max_new_tokens=24, max_block_tokens=6, guidance=GuidanceConfig(scale=2.0))


def test_cached_equals_uncached(config, model):
    document = documents(config)[2]
    given = [type(s)(*[getattr(s, f) for f in s.__dataclass_fields__ if f != "is_target"]) for s in document]
    batch = packed([[flatten(given, config)]])
    batch.logit_index = torch.tensor([batch.ids.shape[1] - 1])
    whole = model(batch).logits
    items = to_items(given)
    for cut in (1, 3, 8, len(items) - 1):
        reader = Reader(model, num_rows=1)
        if isinstance(items[cut - 1], int):
            reader.append([0], [items[:cut]])
            said = reader.append([0], [items[cut:]])
            torch.testing.assert_close(said, whole, atol=1e-5, rtol=1e-4)


def test_one_by_one_equals_at_once(config, model):
    ids = [1, 2, 3, 4, 5, 6]
    at_once = Reader(model, num_rows=1).append([0], [ids])
    reader = Reader(model, num_rows=1)
    for token in ids:
        said = reader.append([0], [[token]])
    torch.testing.assert_close(said, at_once, atol=1e-5, rtol=1e-4)


def test_sync_reads_only_what_is_new_and_forgets_what_changed(config, model):
    first = [TextRun((1, 2, 3)), picture(config, 1), TextRun((4,))]
    reader = Reader(model, num_rows=2)
    reader.sync([0], [first])
    held = reader.cache.lengths[0]
    longer = [*first, TextRun((5, 6))]
    said = reader.sync([0], [longer])
    assert reader.cache.lengths[0] == held + 2
    fresh = Reader(model, num_rows=1).sync([0], [longer])
    torch.testing.assert_close(said, fresh, atol=1e-5, rtol=1e-4)
    changed = [TextRun((1, 9))]
    torch.testing.assert_close(
        reader.sync([0], [changed]), Reader(model, num_rows=1).sync([0], [changed]), atol=1e-5, rtol=1e-4
    )


def test_block_through_the_cache_equals_the_training_row(config, model):
    """The velocity of a noisy block behind a cached context is that of the same block in a packed row."""
    context, made = [TextRun((1, 2)), picture(config, 1), TextRun((3,))], picture(config, 2, is_target=True)
    flat = flatten([*context, made], config)
    batch = pack([[flat]], sample_sigma=lambda s: torch.full_like(s, 0.6), generator=torch.Generator().manual_seed(0))
    noisy = batch.is_noisy["vision"]
    expected = model(batch).velocity["vision"][noisy]
    reader = Reader(model, num_rows=1)
    reader.sync([0], [[*context, TextRun(made.header)]])
    field = reader.velocity_field([0], [made])
    said = field(batch.latents["vision"][noisy].unsqueeze(0), 0.6)[0]
    torch.testing.assert_close(said, expected, atol=1e-4, rtol=1e-4)


def test_noisy_steps_leave_the_cache_as_it_was(config, model):
    reader = Reader(model, num_rows=1)
    reader.sync([0], [[TextRun((1, 2, 3))]])
    lengths, keys = list(reader.cache.lengths), reader.cache.keys[:, :, :, :3].clone()
    field = reader.velocity_field([0], [picture(config, 1)])
    field(torch.randn(1, 6, config.token_dim("vision")), 0.9)
    assert reader.cache.lengths == lengths
    assert torch.equal(reader.cache.keys[:, :, :, :3], keys)


def request(omni, text, *, seed, forced=(), image=None):
    items = (text,) if image is None else (image, text)
    document = to_document([Turn("user", items)], tokenizer=omni.tokenizer, template=omni.template)
    return Request(open_reply(document, omni.template), seed, forced)


def run(omni, requests, settings=SETTINGS):
    """Return for each request the ids-independent outcome: text, and pictures."""
    out = [("", []) for _ in requests]
    for number, event in omni._generator.run(requests, settings):
        text, images = out[number]
        if isinstance(event, TextDelta):
            out[number] = (text + event.text, images)
        elif isinstance(event, MediaFinished):
            images.append(event.part)
    return out


def test_batch_equals_single(omni, config):
    given = picture(config, 5)
    requests = [
        request(omni, "Draw a fox.", seed=1, forced=(Forced("image", (2, 3)),)),
        request(omni, "hello there! hello", seed=2),
        request(omni, "fox", seed=3, forced=(Forced("image", (2, 3)),), image=given),
        request(omni, "Draw a small red fox", seed=4, forced=(Forced("image", (1, 2)),)),
        request(omni, "Redraw the fox", seed=5, forced=(Forced("image", (2, 3), max_words=4),), image=given),
    ]
    together = run(omni, requests)
    for one, expected in zip(requests, together, strict=True):
        text, images = run(omni, [one])[0]
        assert text == expected[0]
        assert len(images) == len(expected[1])
        for mine, theirs in zip(images, expected[1], strict=True):
            assert abs(mine.pixels.astype(int) - theirs.pixels).max() <= 1


def test_batch_latents_equal_single_to_1e4(omni, config, model):
    """Float latents, not only pixels, and with guidance branches of different lengths."""
    documents_ = [[TextRun((1, 2, 3))], [TextRun((4, 5, 6, 7, 8))]]
    block = picture(config, 1)
    noise = torch.randn(2, 6, config.token_dim("vision"), generator=torch.Generator().manual_seed(1))
    both = Reader(model, num_rows=2)
    both.sync([0, 1], documents_)
    together = both.velocity_field([0, 1], [block] * 2)(noise, 0.7)
    for row in range(2):
        alone = Reader(model, num_rows=1)
        alone.sync([0], [documents_[row]])
        torch.testing.assert_close(
            alone.velocity_field([0], [block])(noise[row : row + 1], 0.7)[0],
            together[row],
            atol=1e-4,
            rtol=1e-4,
        )


def test_same_seed_same_picture_other_seed_another(omni):
    requests = [request(omni, "a fox", seed=s, forced=(Forced("image", (2, 2)),)) for s in (7, 7, 8)]
    (_, [a]), (_, [b]), (_, [c]) = run(omni, requests)
    assert (a.pixels == b.pixels).all() and (a.pixels != c.pixels).any()


def test_guidance_changes_the_picture(omni):
    one = [request(omni, "a fox", seed=7, forced=(Forced("image", (2, 2)),))]
    plain = run(omni, one, GenerationSettings(steps=3, guidance=GuidanceConfig(scale=1.0)))
    strong = run(omni, one, GenerationSettings(steps=3, guidance=GuidanceConfig(scale=6.0)))
    assert (plain[0][1][0].pixels != strong[0][1][0].pixels).any()


def test_a_block_whose_header_was_written_equals_the_forced_one(omni, monkeypatch):
    """A block sees its whole header, to the last number, whoever wrote it."""
    choose = Generator._choose

    def draw_at_once(self, logits, talk, settings):
        is_begun = talk.header or talk.num_media
        return choose(self, logits, talk, settings) if is_begun else self.template.kinds["image"]

    monkeypatch.setattr(Generator, "_choose", draw_at_once)
    written, forced = dict[int, list](), dict[int, list]()
    settings = GenerationSettings(steps=3, max_new_tokens=8, max_media=1, max_block_tokens=6)
    talk = request(omni, "Draw a fox", seed=3)
    list(omni._generator.run([talk], settings, on_document=lambda n, document: written.update({n: list(document)})))
    place, made = next((n, segment) for n, segment in enumerate(written[0]) if isinstance(segment, Medium))
    shape = tuple(token - omni.template.first_number for token in made.header[1:])
    again = Request(written[0][:place], 3, (Forced("image", shape),))
    list(omni._generator.run([again], settings, on_document=lambda n, document: forced.update({n: list(document)})))
    torch.testing.assert_close(forced[0][place].grids[0].latents, made.grids[0].latents, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("is_talkative", [True, False])
def test_the_model_may_say_some_words_before_a_forced_medium(omni, monkeypatch, is_talkative):
    """It says as many as are allowed at most, and whatever else it wants to write, the medium comes."""
    wanted = 7 if is_talkative else omni.template.end
    monkeypatch.setattr(Generator, "_choose", lambda self, logits, talk, settings: wanted)
    talk = request(omni, "Remove the fox", seed=3, forced=(Forced("image", (2, 3), max_words=3),))
    begun, written = len(talk.document), list[list]()
    events = [event for _, event in omni._generator.run([talk], SETTINGS, on_document=lambda n, d: written.append(d))]
    *words, made = written[-1][begun:]
    assert [word.ids for word in words] == ([(7, 7, 7)] if is_talkative else [])
    assert made.header == omni.template.header("image", (2, 3))
    assert [event.shape for event in events if isinstance(event, MediaStarted)] == [(32, 48)]


def test_headers_are_legal_and_within_the_limit(omni):
    """Whatever the weights want, a picture has at least one token and at most max_block_tokens."""
    template = omni.template
    talks = [request(omni, text, seed=s) for s, text in enumerate(["Draw", "a fox", "x", "hello"])]
    shapes = []
    settings = GenerationSettings(steps=1, max_new_tokens=40, max_block_tokens=6, temperature=5.0)
    for _, event in omni._generator.run(talks, settings):
        if isinstance(event, MediaStarted):
            shapes.append(event.shape)
    side = 16
    assert all(h >= side and w >= side and (h // side) * (w // side) <= 6 for h, w in shapes)
    assert template.kind_of(template.kinds["image"]) == "image"


def test_no_media_where_they_are_forbidden(omni):
    settings = GenerationSettings(steps=1, max_new_tokens=30, max_media=0, temperature=3.0)
    assert all(not images for _, images in run(omni, [request(omni, "Draw a fox", seed=s) for s in range(4)], settings))


def test_events_come_in_order_with_previews(omni):
    events = list(
        omni._generator.run(
            [request(omni, "a fox", seed=1, forced=(Forced("image", (2, 3)),))],
            GenerationSettings(steps=4, previews=True),
        )
    )
    kinds = [type(event) for _, event in events]
    assert kinds == [MediaStarted, MediaPreview, MediaPreview, MediaPreview, MediaFinished]
    assert events[0][1].shape == (32, 48)
    assert events[-1][1].part.pixels.shape == (32, 48, 3)


def test_stop_ends_inside_a_picture(omni):
    steps = []
    generator = omni._generator.run(
        [request(omni, "a fox", seed=1, forced=(Forced("image", (2, 3)),))],
        GenerationSettings(steps=50, previews=True),
        should_stop=lambda: len(steps) >= 3,
    )
    for _, event in generator:
        if isinstance(event, MediaPreview):
            steps.append(event.step)
    assert len(steps) == 3


def test_latent_tokens_round_trip(omni):
    latents = torch.randn(1, 4, 6, 4)
    medium = medium_from_latents(latents, template=omni.template, modality="image", patch_size=2)
    assert medium.grids[0].latents.shape == (1, 2, 3, 16)
    assert torch.equal(to_latents(medium.grids[0].latents, patch_size=2), latents)


def test_position_of_a_cached_row_equals_that_of_the_document(config, model):
    document = [TextRun((1, 2)), picture(config, 1, shape=(1, 5, 3)), TextRun((3,))]
    reader = Reader(model, num_rows=1)
    reader.sync([0], [document])
    assert reader.rows[0].state.position == flatten(document, config).next_position
    assert FlatDocument().next_position == 0.0


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"top_p": 0.0}, {"max_media": -1}])
def test_impossible_settings_are_refused(wrong):
    from omni.errors import ConfigError

    with pytest.raises(ConfigError):
        GenerationSettings(**wrong)


def test_image_part_is_what_comes_out(omni):
    out = run(omni, [request(omni, "a fox", seed=1, forced=(Forced("image", (2, 2)),))])
    assert isinstance(out[0][1][0], Image)
