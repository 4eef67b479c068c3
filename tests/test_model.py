"""The laws of the attention rule, the packing and the model."""

import itertools

import pytest
import torch

from omni.config import OmniConfig
from omni.errors import ConfigError
from omni.flow import sample_sigma
from omni.masks import AttentionIds, dense_mask, document_masks, flex_mask
from omni.model import OmniModel
from omni.sequence import (
    FlatDocument,
    Grid,
    Medium,
    PackedBatch,
    TextRun,
    drop_conditions,
    flatten,
    pack,
    pack_rows,
)


def picture(config: OmniConfig, seed: int, *, shape=(1, 2, 3), is_target=False) -> Medium:
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(*shape, config.token_dim("vision"), generator=generator)
    first = config.num_text_ids
    header = (first + 6, first + 11 + shape[1], first + 11 + shape[2])
    return Medium(header, first + 10, (Grid("image", latents),), is_target)


def documents(config: OmniConfig) -> list[list]:
    """Text alone; a picture that is given; two that are made, with words between and after."""
    return [
        [TextRun((1, 2, 3)), TextRun((4, 5), is_target=True)],
        [TextRun((7,)), picture(config, 1), TextRun((8, 9), is_target=True)],
        [
            TextRun((2, 3)),
            picture(config, 2, is_target=True),
            TextRun((4,), is_target=True),
            picture(config, 3, shape=(1, 1, 2), is_target=True),
            TextRun((5, 6), is_target=True),
        ],
    ]


def packed(rows: list[list[FlatDocument]], seed: int = 0, length: int | None = None) -> PackedBatch:
    generator = torch.Generator().manual_seed(seed)
    return pack(rows, length=length, sample_sigma=lambda s: sample_sigma(s, generator=generator), generator=generator)


def test_dense_mask_is_the_rule_as_a_double_loop(config):
    flats = [flatten(document, config, num_noisy=2) for document in documents(config)]
    ids = packed([flats, flats[:1]], length=64).attention
    mask = dense_mask(ids)
    for row, q, k in itertools.product(range(2), range(64), range(64)):
        same = ids.document[row, q] == ids.document[row, k]
        earlier = ids.readable[row, k] and ids.block[row, k] < ids.block[row, q]
        own = ids.block[row, k] == ids.block[row, q] and ids.copy[row, k] == ids.copy[row, q]
        assert bool(mask[row, 0, q, k]) == bool(same and (earlier or own)), (row, q, k)


def test_flex_mask_equals_dense_mask(config):
    from torch.nn.attention.flex_attention import create_mask

    flats = [flatten(document, config, num_noisy=2) for document in documents(config)]
    ids = packed([flats], length=64).attention
    block_mask = flex_mask(ids)
    dense = create_mask(block_mask.mask_mod, 1, 1, 64, 64, device="cpu")
    assert torch.equal(dense, dense_mask(ids))


def test_document_masks_are_the_dense_mask_without_other_documents(config, model):
    flats = [flatten(document, config, num_noisy=2) for document in documents(config)]
    batch = packed([flats, flats[:1]], length=64)
    dense, single = dense_mask(batch.attention), document_masks(batch.attention)
    assert sum(single.lengths) == 2 * 64 and len(single.lengths) == 6  # the rows' padding counts as one each
    joined = torch.block_diag(*(mask[0, 0] for mask in single.masks))
    assert torch.equal(joined, torch.block_diag(*dense[:, 0]))
    by_document, at_once = model(batch), model(batch, mask=dense)
    torch.testing.assert_close(by_document.logits, at_once.logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(by_document.velocity["vision"], at_once.velocity["vision"], atol=1e-5, rtol=1e-4)


def test_packed_equals_separate(config, model):
    flats = [flatten(document, config) for document in documents(config)]
    together = packed([flats])
    start, tokens = 0, 0
    said = model(together)
    for flat in flats:
        alone = packed([[flat]])
        count = sum(len(grid.latents) for grid in flat.latents)
        if count:  # the same noise and sigmas as in the row
            place = slice(tokens, tokens + count)
            alone.latents = {"vision": together.latents["vision"][place]}
            places = together.sigma_index[0, start : start + len(flat)]
            alone.sigmas, alone.sigma_index = together.sigmas, places.unsqueeze(0)
        tokens += count
        separate = model(alone)
        labels = (together.logit_index >= start) & (together.logit_index < start + len(flat))
        torch.testing.assert_close(said.logits[labels], separate.logits, atol=1e-5, rtol=1e-4)
        if count:
            torch.testing.assert_close(
                said.velocity["vision"][place], separate.velocity["vision"], atol=1e-4, rtol=1e-4
            )
        start += len(flat)


def test_nothing_leaks_from_the_future_and_a_block_sees_itself(config, model):
    flat = flatten([TextRun((1, 2)), picture(config, 1), TextRun((3, 4, 5))], config)
    batch = packed([[flat]])
    batch.logit_index = torch.arange(len(flat))[(batch.modality == 0).flatten()]
    before = model(batch).logits
    batch.ids[0, -2] = 9  # the token before the last
    after = model(batch).logits
    changed = (before - after).abs().amax(-1) > 1e-6
    assert changed.tolist() == [False] * (len(changed) - 2) + [True, True]
    latents = batch.latents["vision"].clone()
    said = model(batch).velocity["vision"]
    batch.latents["vision"] = latents.clone()
    batch.latents["vision"][-1] += 1  # the last token of the picture
    moved = (model(batch).velocity["vision"] - said).abs().amax(-1)
    assert (moved > 1e-6).all()
    assert torch.equal(model(batch).logits[:5], after[:5])  # words and header before the picture


def test_noisy_copies_are_seen_by_themselves_alone(config, model):
    flat = flatten(documents(config)[2], config, num_noisy=3)
    batch = packed([[flat]])
    clean = model(batch)
    first = slice(0, 6)  # the first noisy copy of the first picture
    batch.latents["vision"] = batch.latents["vision"].clone()
    batch.latents["vision"][first] += 1
    other = model(batch)
    assert torch.equal(clean.logits, other.logits)
    assert torch.equal(clean.velocity["vision"][6:], other.velocity["vision"][6:])
    assert not torch.equal(clean.velocity["vision"][first], other.velocity["vision"][first])


def test_readable_copies_share_positions_with_noisy_ones(config):
    flat = flatten(documents(config)[2], config, num_noisy=2)
    places = torch.cat(flat.positions)
    copies = torch.tensor(flat.copy)
    blocks = torch.tensor(flat.block)
    media = torch.tensor(flat.modality) > 0
    for block in blocks[media].unique():
        mine = media & (blocks == block)
        per_copy = [places[mine & (copies == copy)] for copy in copies[mine].unique()]
        assert len(per_copy) == 3
        assert all(torch.equal(per_copy[0], one) for one in per_copy)


def test_last_medium_without_anything_after_has_no_readable_copy(config):
    flat = flatten([TextRun((1,)), picture(config, 1, is_target=True)], config)
    assert flat.copy.count(1) == 6 and not any(m and c == 0 for m, c in zip(flat.modality, flat.copy, strict=True))


def test_positions_of_text_are_ordinary_and_media_are_centred(config):
    flat = flatten([TextRun((1, 2)), picture(config, 1, shape=(1, 3, 3)), TextRun((3,))], config)
    places = torch.cat(flat.positions)
    assert torch.equal(places[:5], torch.arange(5.0).unsqueeze(1).expand(5, 3))
    block = places[5:14]
    assert block[:, 0].unique().tolist() == [5.0]
    assert block[:, 1].unique().tolist() == [-1.0, 0.0, 1.0]
    assert block.mean(0).tolist() == [5.0, 0.0, 0.0]
    assert places[14].tolist() == [7.0] * 3  # the end token: ceil(6) + 1
    later = flatten([TextRun((1,) * 9), picture(config, 1, shape=(1, 3, 3)), TextRun((3,))], config, start=100)
    moved = torch.cat(later.positions)
    assert torch.equal(moved[12:21, 1:], block[:, 1:]), "the same place, however many words stand before"
    assert moved[0].tolist() == [100.0] * 3 and moved[12, 0] == 112.0


def test_labels_are_assistant_words_headers_and_nothing_else(config):
    document = documents(config)[2]
    batch = packed([[flatten(document, config)]])
    expected = [*document[1].header, 4, *document[3].header, 5, 6]
    assert batch.labels.tolist() == expected


def test_dropped_conditions_keep_headers_and_learn_no_text(config):
    first = config.num_text_ids
    document = [
        TextRun((first + 1, 5, 6, first + 5)),
        picture(config, 1),
        TextRun((7, first + 5)),
        picture(config, 2, is_target=True),
        TextRun((8,), is_target=True),
    ]
    kept = drop_conditions(document, text=True, media=True, num_text_ids=first)
    ids = [token for segment in kept if isinstance(segment, TextRun) for token in segment.ids]
    assert ids == [first + 1, first + 5, first + 5]
    assert [segment.is_target for segment in kept if isinstance(segment, Medium)] == [True]
    assert len(packed([[flatten(kept, config)]]).labels) == 0


def test_pack_rows_fills_and_overflows_nothing():
    lengths = [30, 70, 20, 50, 50, 10, 90]
    rows = pack_rows(lengths, 100, 3)
    assert all(sum(lengths[i] for i in row) <= 100 for row in rows)
    assert sum(lengths[i] for row in rows for i in row) >= 295


def test_padding_changes_nothing(config, model):
    flat = flatten(documents(config)[1], config)
    short, long = model(packed([[flat]])), model(packed([[flat]], length=50))
    torch.testing.assert_close(short.logits, long.logits, atol=1e-5, rtol=1e-4)
    assert torch.isfinite(long.velocity["vision"]).all()


def test_saved_equals_loaded_bit_for_bit(config, model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = OmniModel.from_pretrained(tmp_path, dtype=torch.float32)
    mine, theirs = model.state_dict(), loaded.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    batch = packed([[flatten(documents(config)[2], config)]])
    assert torch.equal(model(batch).logits, loaded.eval()(batch).logits)


def test_velocity_starts_where_the_head_is_zero(config):
    fresh = OmniModel(config)
    batch = packed([[flatten(documents(config)[2], config)]])
    noisy = batch.is_noisy["vision"]
    said = fresh.eval()(batch).velocity["vision"][noisy]
    sigma = batch.sigmas[batch.sigma_index[batch.modality > 0]][noisy].clamp(min=0.05).unsqueeze(-1)
    torch.testing.assert_close(said, batch.latents["vision"][noisy] / sigma)  # a clean prediction of zero


def test_changes_by_sigma_start_at_nothing(config):
    model = OmniModel(config)
    for modulation in model.modulations.values():
        assert not modulation.proj.weight.any() and not modulation.proj.bias.any()


def test_every_weight_gets_a_gradient_even_from_text_alone(config):
    from omni.losses import loss_sums

    model = OmniModel(config).train()
    batch = packed([[flatten(documents(config)[0], config)]])
    sums = loss_sums(model, batch)
    (sums.text + sum(sums.flow.values())).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    "wrong",
    [{"num_heads": 4, "num_kv_heads": 3}, {"head_dim": 7}, {"prediction": "noise"}, {"text_expert": "words"}],
)
def test_impossible_configs_are_refused(wrong):
    with pytest.raises(ConfigError):
        OmniConfig(**wrong)


def test_attention_ids_have_one_shape(config):
    ids = packed([[flatten(documents(config)[0], config)]]).attention
    assert isinstance(ids, AttentionIds) and ids.document.shape == ids.readable.shape
