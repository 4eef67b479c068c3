"""Adapters: equal to the base at their start, merged equal to loaded, unloaded without a trace, readable by peft."""

import json
from pathlib import Path

import peft
import pytest
import torch
from tests.conftest import DENSE, EXPERTS, SIZES, randomise

from omni.adapters import Adapters, check_base, fingerprint
from omni.config import OmniConfig
from omni.errors import CheckpointError, ConfigError
from omni.model import OmniModel
from omni.sequence import PackedBatch
from omni.text import TextTokenizer
from training.config import Lora
from training.lora import add_lora, check_effect, save_adapter, target_pattern, token_ids


def new_model(tokenizer: TextTokenizer, kind: dict, seed: int = 0, **sizes: int) -> OmniModel:
    num_control = tokenizer.vocab_size - tokenizer.num_text_ids
    config = OmniConfig(num_text_ids=tokenizer.num_text_ids, num_control_ids=num_control, **(SIZES | kind | sizes))
    torch.manual_seed(seed)
    return randomise(OmniModel(config), seed)


@pytest.fixture
def batch(tokenizer: TextTokenizer) -> PackedBatch:
    from omni.chat import ChatTemplate, Turn, medium_from_latents, to_document
    from omni.sequence import flatten, pack

    template = ChatTemplate(tokenizer.control)
    latents = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    medium = medium_from_latents(latents, template=template, modality="image", patch_size=2)
    turns = [Turn("user", ("Draw a fox.",)), Turn("assistant", ("Here: ", medium, "done"))]
    document = to_document(turns, tokenizer=tokenizer, template=template, is_training=True)
    config = new_model(tokenizer, EXPERTS).config
    return pack(
        [[flatten(document, config)]],
        sample_sigma=lambda shifts: torch.full_like(shifts, 0.5),
        generator=torch.Generator().manual_seed(0),
    )


@torch.no_grad()
def answers(model: OmniModel, batch: PackedBatch) -> tuple[torch.Tensor, torch.Tensor]:
    output = model(batch)
    assert output.logits is not None
    return output.logits, output.velocity["vision"]


def trained(tokenizer: TextTokenizer, folder: Path, *, kind: dict = EXPERTS, seed: int = 0, **settings) -> OmniModel:
    """Save an adapter with changes at random for the model of seed 0; return the model that it sits on."""
    model = new_model(tokenizer, kind)
    base = fingerprint(model)
    wrapper = add_lora(model, tokenizer, Lora(rank=2, **settings), base="base")
    generator = torch.Generator().manual_seed(seed + 7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    save_adapter(wrapper, folder, weights, base=base)
    return model.eval()


@pytest.mark.parametrize("kind", [EXPERTS, DENSE], ids=["experts", "dense"])
def test_new_adapter_equals_base(tokenizer, batch, kind):
    model = new_model(tokenizer, kind)
    before = answers(model, batch)
    add_lora(model, tokenizer, Lora(rank=2, heads=True, tokens=["fox", "<|image|>"]), base="base")
    for mine, theirs in zip(before, answers(model, batch), strict=True):
        assert torch.equal(mine, theirs)
    assert not any(p.requires_grad for name, p in model.named_parameters() if "base_layer" in name)
    with pytest.raises(ConfigError, match="changes nothing"):
        check_effect(dict(model.named_parameters()))


@pytest.mark.parametrize("tokens", [[], ["fox"]], ids=["projections", "tokens"])
def test_loaded_equals_trained_and_unloaded_equals_base_bit_for_bit(tokenizer, batch, tmp_path, tokens):
    expected = answers(trained(tokenizer, tmp_path, heads=True, tokens=tokens), batch)
    base = new_model(tokenizer, EXPERTS)
    before, weights = answers(base, batch), {name: p.clone() for name, p in base.named_parameters()}
    adapters = Adapters(base)
    adapters.load(tmp_path)
    for mine, theirs in zip(expected, answers(base, batch), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    assert (answers(base, batch)[1] - before[1]).abs().max() > 1e-3
    adapters.unload()
    assert {name for name, _ in base.named_parameters()} == set(weights)
    for name, parameter in base.named_parameters():
        assert torch.equal(parameter, weights[name]) and parameter.requires_grad, name
    assert base.lm_head.weight is base.embed_tokens.weight
    for mine, theirs in zip(before, answers(base, batch), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("tokens", [[], ["fox"]], ids=["projections", "tokens"])
def test_merged_equals_loaded(tokenizer, batch, tmp_path, tokens):
    trained(tokenizer, tmp_path, tokens=tokens)
    base = new_model(tokenizer, EXPERTS)
    adapters = Adapters(base)
    adapters.load(tmp_path, weight=0.5)
    loaded = answers(base, batch)
    adapters.merge()
    assert adapters.names == [] and not any("lora" in name for name, _ in base.named_parameters())
    for mine, theirs in zip(loaded, answers(base, batch), strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-5)


def test_several_adapters_add_up_by_weight_and_switch(tokenizer, batch, tmp_path):
    for number in (0, 1):
        trained(tokenizer, tmp_path / str(number), seed=number, targets=["vision"])
    base = new_model(tokenizer, EXPERTS)
    plain = {name: p.clone() for name, p in base.named_parameters()}
    adapters = Adapters(base)
    adapters.load(tmp_path / "0", name="one", weight=0.8)
    alone = answers(base, batch)
    adapters.load(tmp_path / "1", name="two")
    adapters.set(["one", "two"], weights=[0.8, 0.5])
    both = answers(base, batch)
    merged = new_model(tokenizer, EXPERTS)
    for number, weight in (("0", 0.8), ("1", 0.5)):
        other = Adapters(merged)
        other.load(tmp_path / number, weight=weight) if number == "0" else _load_unchecked(
            other, tmp_path / "1", weight
        )
        other.merge()
    for mine, theirs in zip(both, answers(merged, batch), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)
    adapters.set("one")
    for mine, theirs in zip(alone, answers(base, batch), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-6)
    adapters.unload("one")
    assert adapters.names == ["two"] and adapters.active == {}
    adapters.unload("two")
    assert all(torch.equal(p, plain[name]) for name, p in base.named_parameters())


def _load_unchecked(adapters: Adapters, folder: Path, weight: float) -> None:
    (folder / "base.json").unlink()  # a merged model is another base, rightly
    adapters.load(folder, weight=weight)


def test_weight_zero_is_the_base(tokenizer, batch, tmp_path):
    trained(tokenizer, tmp_path, tokens=["fox"])
    base = new_model(tokenizer, EXPERTS)
    before = answers(base, batch)
    Adapters(base).load(tmp_path, weight=0)
    for mine, theirs in zip(before, answers(base, batch), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-6)


def test_peft_itself_loads_an_adapter(tokenizer, batch, tmp_path):
    expected = answers(trained(tokenizer, tmp_path, tokens=["fox"]), batch)
    model = new_model(tokenizer, EXPERTS)
    peft.PeftModel.from_pretrained(model, str(tmp_path))
    for mine, theirs in zip(expected, answers(model, batch), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-6)


def test_targets_choose_experts(tokenizer):
    config = new_model(tokenizer, EXPERTS).config
    assert "(vision)" in target_pattern(config, Lora(targets=["vision"]))
    assert "(text|vision)" in target_pattern(config, Lora(targets=["all"]))
    with pytest.raises(ConfigError, match="'audio', which this model lacks"):
        target_pattern(config, Lora(targets=["audio"]))
    with pytest.raises(ConfigError, match="heads"):
        target_pattern(config, Lora(targets=["text"], heads=True))


def test_words_become_rows(tokenizer):
    ids = token_ids(tokenizer, ["fox", "<|image|>"])
    assert set(tokenizer.encode("fox")) < set(ids) and tokenizer.control("<|image|>") in ids
    with pytest.raises(ConfigError, match="no control token"):
        token_ids(tokenizer, ["<|zorp|>"])


def test_adapter_of_another_base_is_refused(tokenizer, tmp_path):
    trained(tokenizer, tmp_path)
    with pytest.raises(CheckpointError, match="another base"):
        Adapters(new_model(tokenizer, EXPERTS, seed=3)).load(tmp_path)
    with pytest.raises(CheckpointError, match="which this one lacks"):
        Adapters(new_model(tokenizer, DENSE)).load(tmp_path)
    (tmp_path / "base.json").unlink()
    other = new_model(tokenizer, EXPERTS, num_layers=3)
    names = {name for name, _ in other.named_parameters()}
    with pytest.raises(CheckpointError, match="lacks .*layers.2"):
        Adapters(other).load(tmp_path)
    assert {name for name, _ in other.named_parameters()} == names


def test_fingerprint_survives_half_precision(tokenizer):
    model = new_model(tokenizer, EXPERTS)
    marks = json.loads(json.dumps(fingerprint(model)))
    check_base(model.to(torch.bfloat16), marks, source="it")


def break_kind(folder: Path) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "IA3"}))


def break_rank(folder: Path) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"r": 3}))


def break_weights(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:500])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (break_kind, "only LORA"),
        (break_rank, "this model takes"),
        (break_weights, "damaged"),
        (lambda folder: (folder / "adapter_config.json").unlink(), "cannot be read"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "missing"),
    ],
    ids=["kind", "rank", "weights", "config", "no weights"],
)
def test_damaged_adapters_are_refused_and_leave_no_trace(tokenizer, tmp_path, spoil, message):
    trained(tokenizer, tmp_path)
    spoil(tmp_path)
    base = new_model(tokenizer, EXPERTS)
    names = {name for name, _ in base.named_parameters()}
    adapters = Adapters(base)
    with pytest.raises(CheckpointError, match=message):
        adapters.load(tmp_path)
    assert {name for name, _ in base.named_parameters()} == names and adapters.names == []


def test_wrong_names_and_weights_are_refused(tokenizer, tmp_path):
    trained(tokenizer, tmp_path)
    adapters = Adapters(new_model(tokenizer, EXPERTS))
    for name, weight, message in (("a.b", 1.0, "no name"), ("a", float("nan"), "weight"), ("a", "1", "weight")):
        with pytest.raises(ConfigError, match=message):
            adapters.load(tmp_path, name=name, weight=weight)
    adapters.load(tmp_path, name="mine")
    with pytest.raises(ConfigError, match="taken"):
        adapters.load(tmp_path, name="mine")
    with pytest.raises(ConfigError, match="no adapter is called 'other'; loaded are mine"):
        adapters.set("other")
    with pytest.raises(ConfigError, match="as many weights"):
        adapters.set(["mine"], weights=[1, 2])
    with pytest.raises(ConfigError, match="would mix them in"):
        adapters.require_none("saving the model")
    with pytest.raises(ConfigError, match="no adapter is called"):
        adapters.unload("other")
    adapters.set([])
    with pytest.raises(ConfigError, match="no adapter is active"):
        adapters.merge()
