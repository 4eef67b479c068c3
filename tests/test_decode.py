"""The text phase's own pass: the model's numbers, and never a stale copy."""

import pytest
import torch
from tests.conftest import EXPERTS, SIZES
from tests.test_model import picture

from omni.config import OmniConfig
from omni.decode import quantize_text, text_step
from omni.errors import ConfigError
from omni.reader import Reader
from omni.sequence import TextRun

LIKE_QWEN2 = {"attention_bias": True, "qk_norm": False, "tie_word_embeddings": True}
LIKE_QWEN3 = {"tie_word_embeddings": False}
LIKE_LLAMA = {"qk_norm": False, "num_kv_heads": 4, "tie_word_embeddings": False}


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def config_of(**changes) -> OmniConfig:
    return OmniConfig(**SIZES | EXPERTS | {"num_text_ids": 90, "num_control_ids": 267} | changes)


def read(model, *, own_pass: bool, rows=(0, 1)) -> torch.Tensor:
    """Read a few ids one by one behind two documents, one of which holds a picture; return all logits."""
    config = model.config
    documents = [[TextRun((1, 2, 3))], [TextRun((4,)), picture(config, 1), TextRun((5,))]]
    reader = Reader(model, num_rows=2)
    reader.sync(rows, documents)
    assert (reader._text_step is not None) is own_pass
    said = [reader.append(rows, [[token], [token + 1]]) for token in (7, 8, 300)]
    return torch.stack([*said, reader.sync(rows[:1], [[*documents[0], TextRun((7, 8, 300, 9))]]).expand_as(said[0])])


def without_own_pass(monkeypatch, model, **settings) -> torch.Tensor:
    with monkeypatch.context() as patch:
        patch.setattr("omni.reader.text_step", lambda model: None)
        return read(model, own_pass=False, **settings)


@pytest.mark.parametrize("changes", [{}, LIKE_QWEN2, LIKE_QWEN3, LIKE_LLAMA])
@pytest.mark.parametrize("rows", [(0, 1), (1, 0)])
def test_text_step_equals_the_general_pass(changes, rows, make_model, monkeypatch):
    model = make_model(config_of(**changes))
    expected = without_own_pass(monkeypatch, model, rows=rows)
    torch.testing.assert_close(read(model, own_pass=True, rows=rows), expected, atol=1e-5, rtol=1e-4)


def test_text_step_equals_the_general_pass_in_a_dense_model(model, monkeypatch):
    torch.testing.assert_close(read(model, own_pass=True), without_own_pass(monkeypatch, model), atol=1e-5, rtol=1e-4)


def test_text_step_reads_past_the_end_of_its_tables(make_model, monkeypatch):
    model = make_model(config_of())
    reader = Reader(model, num_rows=1)
    reader.sync([0], [[TextRun((1,) * 300)]])
    said = reader.append([0], [[2]])
    expected = Reader(model, num_rows=1).append([0], [[1] * 300 + [2]])
    torch.testing.assert_close(said, expected, atol=1e-5, rtol=1e-4)


def step_in_place(weight):
    weight.add_(0.5)


def write_through_data(weight):
    weight.data.copy_(weight.data + 0.5)


def replace_data(weight):
    weight.data = weight.data + 0.5


@pytest.mark.parametrize("change", [step_in_place, write_through_data, replace_data])
@pytest.mark.parametrize("name", ["q_proj", "down_proj", "ffn_norm", "q_norm"])
def test_changed_weights_are_never_served_stale(change, name, make_model, monkeypatch):
    model = make_model(config_of())
    before = read(model, own_pass=True)
    change(getattr(model.layers[1].experts["text"], name).weight)
    after = read(model, own_pass=True)
    torch.testing.assert_close(after, without_own_pass(monkeypatch, model), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(before, after, atol=1e-3)


def test_weights_changed_between_two_ids_count_at_once(make_model):
    model = make_model(config_of())
    reader = Reader(model, num_rows=1)
    reader.sync([0], [[TextRun((1, 2))]])
    before = reader.append([0], [[3]])
    model.lm_head.weight.mul_(2)
    reader.cache.truncate(0, 2)
    for column in (reader.rows[0].items, reader.rows[0].lengths, reader.rows[0].after):
        del column[2:]
    assert not torch.allclose(reader.append([0], [[3]]), before, atol=1e-3)


def test_adapters_and_hooks_go_the_general_way(make_model):
    peft = pytest.importorskip("peft")
    model = make_model(config_of())
    assert text_step(model) is not None
    handle = model.layers[0].experts["text"].o_proj.register_forward_hook(lambda *_: None)
    assert text_step(model) is None
    handle.remove()
    wrapped = peft.PeftModel(model, peft.LoraConfig(r=2, target_modules=r".*experts\.text\.q_proj"))
    assert text_step(model) is None
    wrapped.base_model.unload()
    assert text_step(model) is not None


def test_training_and_gradients_go_the_general_way(make_model):
    model = make_model(config_of())
    with torch.enable_grad():
        assert text_step(model) is None
    assert text_step(model.train()) is None


def test_int8_text_is_near_and_can_be_taken_back(make_model):
    model = make_model(config_of())
    exact = read(model, own_pass=True)
    quantize_text(model)
    near = read(model, own_pass=True)
    assert not torch.equal(near, exact)
    error = (near - exact).norm() / exact.norm()
    assert error < 0.05
    quantize_text(model, is_on=False)
    assert torch.equal(read(model, own_pass=True), exact)


def test_int8_text_needs_a_cpu(make_model):
    with pytest.raises(ConfigError, match="int8"):
        quantize_text(make_model(config_of()).to("meta"))
