"""The laws of training: packed loader, accumulation, resume, overfitting, golden steps, settings."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from omni.errors import CheckpointError, ConfigError
from omni.masks import AttentionIds
from omni.model import OmniModel
from omni.sequence import FlatDocument, PackedBatch, TextRun, flatten, pack
from training.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from training.config import TrainConfig, load_config
from training.data import DocumentMaker, PackedLoader, noisy_batch
from training.engine import PlainEngine, learning_rate
from training.loop import train
from training.shards import EncodedDataset, shard_path, write_shard

REPOSITORY = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden" / "losses.json"

MODEL = {
    "num_layers": 2,
    "num_heads": 2,
    "head_dim": 8,
    "sigma_dim": 16,
    "experts": {"text": {"width": 32, "ffn_dim": 48}, "vision": {"width": 32, "ffn_dim": 48}},
    "streams": {"vision": {"channels": 4, "patch_size": 2, "expert": "vision", "base_tokens": 4}},
}
DENSE = MODEL | {
    "experts": {"shared": {"width": 32, "ffn_dim": 48}},
    "text_expert": "shared",
    "streams": {"vision": {"channels": 4, "patch_size": 2, "expert": "shared", "base_tokens": 4}},
}


def encoded(folder: Path, count: int = 40, broken: int = -1) -> Path:
    """Write documents of every kind: drawn, described, chatted; latents are noise of their own, of one infinite."""
    generator = torch.Generator().manual_seed(0)
    documents, latents = [], []
    for number in range(count):
        height, width = (4, 4) if number % 3 else (4, 6)
        picture = {"type": "image", "latents": len(latents), "shapes": {"latents": [1, height, width, 4]}}
        latents.append(torch.randn(1, height, width, 4, generator=generator))
        latents[-1] = latents[-1] if number != broken else torch.full_like(latents[-1], torch.inf)
        words = {"type": "text", "text": f"a red fox {number % 7}"}
        asked, said = [([words], [words, picture]), ([picture, words], [words]), ([words], [words])][number % 3]
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
        documents.append({"task": "test", "seed": number, "messages": messages})
    folder.mkdir(parents=True, exist_ok=True)
    write_shard(shard_path(folder, 0), documents, latents)
    return folder


@pytest.fixture
def settings(tmp_path, tokenizer) -> TrainConfig:
    tokenizer.save(tmp_path / "tokenizer")
    return TrainConfig(
        output=str(tmp_path / "run"),
        precision="float32",
        model=MODEL,
        tokenizer=str(tmp_path / "tokenizer"),
        codecs={},
        data={"path": str(encoded(tmp_path / "data")), "validation_documents": 8},
        batch={"row_length": 96, "num_rows": 2, "num_noisy": 2},
        schedule={"steps": 6, "warmup": 2},
        report={"log_every": 2, "validate_every": 3, "save_every": 2, "keep": 9},
    )


def loader_of(settings: TrainConfig, model: OmniModel, tokenizer) -> PackedLoader:
    dataset = EncodedDataset(settings.data.path)
    maker = DocumentMaker(dataset, tokenizer, model.config, settings)
    return PackedLoader(maker, len(dataset), settings.batch.row_length, settings.batch.num_rows)


def new_model(settings: TrainConfig, tokenizer) -> OmniModel:
    from training.loop import build_model

    return build_model(settings, tokenizer)


def final_weights(settings: TrainConfig) -> dict:
    path = latest_checkpoint(Path(settings.output))
    assert path is not None
    return load_checkpoint(path)["engine"]


def test_resumed_equals_uninterrupted_bit_for_bit(settings, tmp_path):
    train(settings)
    whole = final_weights(settings)
    broken = settings.model_copy(update={"output": str(tmp_path / "broken")})
    train(broken)
    for step in (4, 6):  # as if killed after step 2, in the middle of writing the next one
        folder = tmp_path / "broken" / f"step-{step:08d}"
        (folder / "state.pt").write_bytes((folder / "state.pt").read_bytes()[:1000])
    train(broken)
    resumed = final_weights(broken)
    for name in whole["model"]:
        assert torch.equal(whole["model"][name], resumed["model"][name]), name
    for mine, theirs in zip(whole["ema"]["shadow_params"], resumed["ema"]["shadow_params"], strict=True):
        assert torch.equal(mine, theirs)


def test_bfloat16_learns_as_float32_does(settings, tokenizer):
    losses = {}
    for precision in ("float32", "bfloat16"):
        config = settings.model_copy(update={"precision": precision})
        torch.manual_seed(0)
        model = new_model(config, tokenizer)
        loader, engine = loader_of(config, model, tokenizer), PlainEngine(model, config, torch.device("cpu"))
        reports = [engine.step([noisy_batch(loader.next_rows(), config, seed=step)], step=step) for step in range(6)]
        losses[precision] = torch.tensor([[report["text_loss"], report["flow_loss"]] for report in reports])
        assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    torch.testing.assert_close(losses["bfloat16"], losses["float32"], rtol=0.02, atol=0.0)
    assert losses["bfloat16"][-1, 0] < losses["bfloat16"][0, 0]


def test_checkpoint_of_one_loader_still_resumes(settings, tmp_path):
    """Before there were lanes, the state of the only loader stood under its own name."""
    train(settings)
    whole = final_weights(settings)
    middle = load_checkpoint(tmp_path / "run" / "step-00000004")
    middle["loader"] = middle.pop("lanes")[0]
    older = settings.model_copy(update={"output": str(tmp_path / "older")})
    save_checkpoint(tmp_path / "older", middle, step=4, keep=2)
    train(older)
    resumed = final_weights(older)
    assert all(torch.equal(weight, resumed["model"][name]) for name, weight in whole["model"].items())


def test_loader_deals_every_document_once_an_epoch_and_resumes(settings, tokenizer):
    model = new_model(settings, tokenizer)
    loader = loader_of(settings, model, tokenizer)
    loader.lookahead = 1.0
    dealt: list[int] = []
    make = loader.make

    def noting(epoch: int, index: int) -> FlatDocument:
        dealt.append(epoch * 1000 + index)
        return make(epoch, index)

    loader.make = noting
    for _ in range(20):
        loader.next_rows()
    first = [key for key in dealt if key < 1000]
    assert sorted(first) == list(range(40))
    other = loader_of(settings, model, tokenizer)
    other.lookahead = loader.lookahead
    other.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    mine, theirs = loader.next_rows(), other.next_rows()
    assert [[flat.ids for flat in row] for row in mine] == [[flat.ids for flat in row] for row in theirs]


def test_rows_are_filled(settings, tokenizer):
    model = new_model(settings, tokenizer)
    loader = loader_of(settings, model, tokenizer)
    loader.row_length, loader.num_rows = 384, 4
    tokens = [sum(len(flat) for row in loader.next_rows() for flat in row) for _ in range(10)]
    assert sum(tokens) / (10 * 384 * 4) >= 0.95


def test_without_its_end_a_document_keeps_what_it_teaches_and_no_readable_copy(settings, tokenizer):
    """A drawn picture needs its readable copy only so that the turn can be ended after it."""
    dataset = EncodedDataset(settings.data.path)
    sure = settings.objective.model_copy(update={"drop_text": 0.0, "drop_both": 0.0})
    config = new_model(settings, tokenizer).config

    def make(share: float, index: int) -> FlatDocument:
        objective = sure.model_copy(update={"drop_end": share})
        return DocumentMaker(dataset, tokenizer, config, settings.model_copy(update={"objective": objective}))(0, index)

    for index in range(len(dataset)):
        whole, short = make(0.0, index), make(1.0, index)
        closes_with_medium = dataset[index][-1]["content"][-1]["type"] != "text"
        assert (len(short) < len(whole)) == closes_with_medium
        assert sum(copy > 0 for copy in short.copy) == sum(copy > 0 for copy in whole.copy)
        assert short.ids[: len(short.ids) // 2] == whole.ids[: len(short.ids) // 2]
        if closes_with_medium:
            assert short.copy[-1] > 0, "a noisy copy stands last"


def test_documents_go_on_with_each_other_as_long_as_a_row_holds_them(settings, tokenizer):
    dataset, config = EncodedDataset(settings.data.path), new_model(settings, tokenizer).config
    objective = settings.objective.model_copy(update={"drop_text": 0.0, "drop_both": 0.0, "chain": 0.7})
    settings = settings.model_copy(update={"objective": objective})
    maker = DocumentMaker(dataset, tokenizer, config, settings)
    flats = [maker(0, index) for index in range(len(dataset))]
    assert max(map(len, flats)) <= settings.batch.row_length
    user = tokenizer.control("<|user|>")
    talks = [sum(token == user for token in flat.ids) for flat in flats]
    assert min(talks) == 1 and max(talks) > 2
    begins = tokenizer.control("<|bos|>")
    for flat, index in zip(flats, range(len(dataset)), strict=True):
        assert flat.ids[0] == begins and begins not in flat.ids[1:]
        alone = maker._flat(maker.document(index))
        first = alone.ids.index(user)
        assert flat.ids[: first + 3] == alone.ids[: first + 3]


def test_documents_begin_anywhere_and_mostly_near_the_beginning(settings, tokenizer):
    dataset, config = EncodedDataset(settings.data.path), new_model(settings, tokenizer).config
    settings = settings.model_copy(update={"objective": settings.objective.model_copy(update={"max_start": 800})})
    maker = DocumentMaker(dataset, tokenizer, config, settings)
    starts = torch.stack([maker(epoch, index).positions[0][0, 0] for epoch in range(20) for index in range(10)])
    assert 0 <= starts.min() < 10 and 600 < starts.max() <= 800
    assert 0.4 < (starts <= 100).float().mean() < 0.6


def test_media_that_are_read_are_noisy_now_and_then_and_never_what_is_trained(settings, tokenizer):
    dataset, config = EncodedDataset(settings.data.path), new_model(settings, tokenizer).config

    def make(largest: float, index: int) -> FlatDocument:
        objective = settings.objective.model_copy(update={"drop_text": 0.0, "drop_both": 0.0, "read_noise": largest})
        return DocumentMaker(dataset, tokenizer, config, settings.model_copy(update={"objective": objective}))(0, index)

    num_noisy = 0
    for index in range(len(dataset)):
        clean, noisy = make(0.0, index), make(0.25, index)
        assert clean.ids == noisy.ids and clean.sigma_slot == noisy.sigma_slot, "the model is not told"
        errors = []
        for before, after in zip(clean.latents, noisy.latents, strict=True):
            is_made = before.sigma_slot.any()
            assert not is_made or torch.equal(before.latents, after.latents)
            errors += [] if is_made else [float((before.latents - after.latents).std())]
        assert all(error < 0.5 for error in errors)
        num_noisy += any(errors)
    assert 0.15 < num_noisy / len(dataset) < 0.45


def split_rows(batch: PackedBatch, rows: int) -> list[PackedBatch]:
    """Cut a batch into batches of one row, noise and all."""
    length, taken, parts = batch.ids.shape[1], 0, []
    for row in range(rows):
        count = int((batch.modality[row] > 0).sum())
        mine = (batch.logit_index >= row * length) & (batch.logit_index < (row + 1) * length)
        place = slice(taken, taken + count)
        attention = AttentionIds(*(getattr(batch.attention, n)[row : row + 1] for n in AttentionIds.__annotations__))
        parts.append(
            replace(
                batch,
                ids=batch.ids[row : row + 1],
                modality=batch.modality[row : row + 1],
                positions=batch.positions[row : row + 1],
                sigma_index=batch.sigma_index[row : row + 1],
                attention=attention,
                logit_index=batch.logit_index[mine] - row * length,
                labels=batch.labels[mine],
                latents={"vision": batch.latents["vision"][place]},
                velocity={"vision": batch.velocity["vision"][place]},
                is_noisy={"vision": batch.is_noisy["vision"][place]},
            )
        )
        taken += count
    return parts


def test_one_batch_of_four_rows_equals_four_batches_of_one(settings, tokenizer):
    settings = settings.model_copy(update={"batch": settings.batch.model_copy(update={"num_rows": 4})})
    results = []
    for is_split in (False, True):
        model = new_model(settings, tokenizer)
        engine = PlainEngine(model, settings, torch.device("cpu"))
        batch = noisy_batch(loader_of(settings, model, tokenizer).next_rows(), settings, seed=1)
        report = engine.step(split_rows(batch, 4) if is_split else [batch], step=3)
        results.append((report, [p.detach().clone() for p in model.parameters()]))
    (one, weights), (four, others) = results
    assert one["text_loss"] == pytest.approx(four["text_loss"], rel=1e-5)
    assert one["flow_loss"] == pytest.approx(four["flow_loss"], rel=1e-5)
    for mine, theirs in zip(weights, others, strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-3)


def test_without_noisy_copies_only_words_are_learnt(settings, tokenizer):
    settings = settings.model_copy(update={"batch": settings.batch.model_copy(update={"num_noisy": 0})})
    model = new_model(settings, tokenizer)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    engine, loader = PlainEngine(model, settings, torch.device("cpu")), loader_of(settings, model, tokenizer)
    rows = loader.next_rows()
    assert not any(copy for row in rows for flat in row for copy in flat.copy)
    report = engine.step([noisy_batch(rows, settings, seed=0)], step=3)
    assert report["text_loss"] > 0 and report["flow_loss"] == 0 and not report["skipped"]
    after = dict(model.named_parameters())
    assert not torch.equal(before["embed_tokens.weight"], after["embed_tokens.weight"])
    heads = "latent_embeddings.vision.out_proj.weight"
    assert torch.equal(before[heads], after[heads])


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_two_documents_are_learnt_by_heart(settings, tokenizer, kind):
    optimizer = settings.optimizer.model_copy(update={"kind": kind, "vector_lr": 5e-3})
    schedule = settings.schedule.model_copy(update={"steps": 150, "warmup": 5})
    settings = settings.model_copy(update={"optimizer": optimizer, "schedule": schedule})
    model = new_model(settings, tokenizer)
    engine = PlainEngine(model, settings, torch.device("cpu"))
    dataset = EncodedDataset(settings.data.path)
    maker = DocumentMaker(dataset, tokenizer, model.config, settings)
    rows = [[maker(0, 0), maker(0, 1)]]
    reports = [engine.step([noisy_batch(rows, settings, seed=s)], step=s) for s in range(150)]
    last = reports[-10:]
    assert sum(r["text_loss"] for r in last) / 10 < 0.1
    assert sum(r["flow_loss"] for r in last) < 0.5 * sum(r["flow_loss"] for r in reports[:10])


@pytest.mark.parametrize("kind", ["experts", "dense"])
def test_ten_golden_steps(settings, tokenizer, kind):
    """A refactoring changes no loss. After a change that should: delete the file's entry and run again."""
    settings = settings.model_copy(update={"model": MODEL if kind == "experts" else DENSE})
    model = new_model(settings, tokenizer)
    engine, loader = PlainEngine(model, settings, torch.device("cpu")), loader_of(settings, model, tokenizer)
    losses = []
    for step in range(10):
        report = engine.step([noisy_batch(loader.next_rows(), settings, seed=step)], step=min(step, 4))
        losses.append([report["text_loss"], report["flow_loss"]])
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if kind not in golden:
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(golden | {kind: losses}, indent=1) + "\n")
        pytest.fail(f"no golden losses of {kind!r}; written now, look at them and run again")
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(golden[kind]), atol=2e-3, rtol=2e-3)


def test_learning_rate_rises_stays_and_falls_to_zero():
    rates = [learning_rate(step, steps=100, warmup=10, decay=0.4) for step in range(101)]
    assert rates[0] == 0.1 and rates[9] == 1.0 and rates[59] == 1.0
    assert rates[80] == pytest.approx(0.5) and rates[100] == 0.0


def test_damaged_checkpoints_are_passed_over(tmp_path):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, {"x": torch.full((4,), step)}, step=step, keep=3)
    (tmp_path / "step-00000003" / "state.pt").write_bytes(b"")
    newest = tmp_path / "step-00000002" / "state.pt"
    data = bytearray(newest.read_bytes())
    data[-5] ^= 1
    newest.write_bytes(data)
    assert latest_checkpoint(tmp_path) == tmp_path / "step-00000001"
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(tmp_path / "step-00000002")


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    for step in range(1, 6):
        save_checkpoint(tmp_path, {"step": step}, step=step, keep=2)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-00000004", "step-00000005"]
    # A run that was begun anew replaces the later checkpoints of the one before.
    save_checkpoint(tmp_path, {"step": 1}, step=1, keep=2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


@pytest.mark.parametrize("name", sorted(p.name for p in (REPOSITORY / "configs" / "train").glob("nano*.yaml")))
def test_shipped_configs_load(name):
    config = load_config(REPOSITORY / "configs" / "train" / name)
    assert config.model["num_layers"] > 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimizer.matrx_lr=1"], "did you mean 'matrix_lr'"),
        (["optimizer.matrix_lr=3e-4x"], "matrix_lr"),
        (["schedule.steps=0"], "schedule.steps"),
        (["batch"], "no '='"),
        (["seed.x=1"], "seed"),
        (["objective.drop_text=2"], "drop_text"),
    ],
)
def test_wrong_settings_are_named(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config(REPOSITORY / "configs" / "train" / "nano.yaml", overrides)


def test_numbers_without_a_point_are_numbers():
    """PyYAML reads 3e-4 as text; a setting that should be a number still becomes one."""
    config = load_config(REPOSITORY / "configs" / "train" / "nano.yaml", ["optimizer.matrix_lr=3e-4"])
    assert config.optimizer.matrix_lr == 3e-4


def test_missing_and_empty_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(ConfigError, match="no settings"):
        load_config(tmp_path / "empty.yaml")


def test_steps_that_are_not_finite_are_skipped_and_their_documents_named(settings, tmp_path):
    """One document of forty has latents beyond all bounds; it is not among those that are looked at before."""
    encoded(tmp_path / "data", broken=37)
    data = settings.data.model_copy(update={"validation_documents": 0})
    schedule = settings.schedule.model_copy(update={"steps": 60, "max_bad_steps": 1})
    settings = settings.model_copy(update={"data": data, "schedule": schedule})
    with pytest.raises(ConfigError, match="not finite.*document 37"):
        train(settings)
    patient = settings.schedule.model_copy(update={"steps": 20, "max_bad_steps": 3})
    settings = settings.model_copy(update={"schedule": patient, "output": str(tmp_path / "patient")})
    train(settings)
    assert all(torch.isfinite(weight).all() for weight in final_weights(settings)["model"].values())
    log = (tmp_path / "patient" / "log.jsonl").read_text()
    assert "loss or gradient is not finite; skipped step" in log and '"skipped": 0.5' in log


def test_log_holds_the_figures_of_a_run(settings, tmp_path):
    train(settings)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    figures = [line for line in lines if "text_loss" in line]
    assert [line["step"] for line in figures] == [2, 4, 6]
    names = {"text_loss", "flow_loss", "grad_norm", "tokens_per_s", "mfu", "memory_mb", "fill", "learning_rate"}
    assert all(names <= line.keys() and line["mfu"] > 0 and line["memory_mb"] > 10 for line in figures)


def test_trackers_are_written_when_named(settings, tmp_path):
    pytest.importorskip("tensorboard")
    report = settings.report.model_copy(update={"trackers": ["tensorboard"]})
    train(settings.model_copy(update={"report": report}))
    assert list((tmp_path / "run").rglob("events.out.tfevents*"))
    with pytest.raises(ConfigError, match="tensorboard"):
        load_config(REPOSITORY / "configs" / "train" / "nano.yaml", ["report.trackers=[tensorbord]"])


def test_gradient_checkpointing_changes_no_loss(settings, tokenizer):
    losses = []
    for is_on in (False, True):
        config = settings.model_copy(
            update={"engine": settings.engine.model_copy(update={"gradient_checkpointing": is_on})}
        )
        model = new_model(config, tokenizer)
        engine, loader = PlainEngine(model, config, torch.device("cpu")), loader_of(config, model, tokenizer)
        reports = [engine.step([noisy_batch(loader.next_rows(), config, seed=s)], step=3) for s in range(3)]
        losses.append([[r["text_loss"], r["flow_loss"], r["grad_norm"]] for r in reports])
    torch.testing.assert_close(torch.tensor(losses[0]), torch.tensor(losses[1]), atol=1e-5, rtol=1e-5)


def test_sigterm_saves_and_leaves(settings, tmp_path):
    import os
    import signal
    import threading
    import time

    long = settings.schedule.model_copy(update={"steps": 100_000})
    settings = settings.model_copy(update={"schedule": long, "report": settings.report.model_copy(update={"keep": 2})})

    def end() -> None:
        while not (tmp_path / "run" / "step-00000004").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    threading.Thread(target=end, daemon=True).start()
    train(settings)
    newest = latest_checkpoint(tmp_path / "run")
    last = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert newest is not None and 4 <= last["step"] < 100_000 and newest.name == f"step-{last['step']:08d}"
    assert signal.getsignal(signal.SIGTERM) == before


def test_checkpoint_of_another_config_is_refused(settings):
    train(settings)
    wider = MODEL | {"sigma_dim": 32}
    with pytest.raises(CheckpointError, match="of another config"):
        train(settings.model_copy(update={"model": wider}))
    other = settings.optimizer.model_copy(update={"kind": "adamw"})
    with pytest.raises(CheckpointError, match="optimizer.kind"):
        train(settings.model_copy(update={"optimizer": other}))


def test_average_follows_its_formula():
    from training.average import Average

    weight, average = torch.zeros(3), None
    average = Average([weight], decay=0.9)
    expected = 0.0
    for step in range(1, 30):
        weight.fill_(float(step))
        average.step([weight])
        decay = min(0.9, 1 - step**-0.8) if step > 1 else 0.0
        expected = decay * expected + (1 - decay) * step
        assert average.shadow_params[0][0] == pytest.approx(expected, rel=1e-5)
    average.swap_in([weight])
    assert weight[0] == pytest.approx(expected, rel=1e-5)
    average.swap_out([weight])
    assert weight[0] == 29


def test_too_few_documents_are_refused(settings):
    data = settings.data.model_copy(update={"validation_documents": 40})
    with pytest.raises(ConfigError, match="validation"):
        train(settings.model_copy(update={"data": data}))


def test_program_says_one_sentence(tmp_path):
    import subprocess
    import sys

    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump({"outptu": "x"}))
    done = subprocess.run(
        [sys.executable, "-m", "training.train", str(path)], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 1 and "did you mean 'output'" in done.stderr and "Traceback" not in done.stderr


def test_the_mean_of_two_models(settings, tokenizer, codec, tmp_path, monkeypatch):
    from omni.checkpoint import Defaults, load_folder, save_folder
    from training.build import build_model
    from training.merge import main as write_mean
    from training.merge import merge

    models = [build_model(settings.model_copy(update={"seed": seed}), tokenizer) for seed in (1, 2)]
    for name, model in zip("ab", models, strict=True):
        save_folder(tmp_path / name, model=model, tokenizer=tokenizer, codecs={"vision": codec}, defaults=Defaults())
    merge([tmp_path / "a", tmp_path / "b"], out=tmp_path / "mean", dtype=torch.float32)
    mean = dict(load_folder(tmp_path / "mean")[0].named_parameters())
    for (name, a), b in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(mean[name], (a + b) / 2)
    streams = {name: stream | {"reads_previous": True} for name, stream in models[0].config.streams.items()}
    larger = build_model(settings.model_copy(update={"model": settings.model | {"streams": streams}}), tokenizer)
    save_folder(tmp_path / "d", model=larger, tokenizer=tokenizer, codecs={"vision": codec}, defaults=Defaults())
    merge([tmp_path / "d", tmp_path / "b"], out=tmp_path / "mean", shares=[0.75, 0.25], dtype=torch.float32)
    mean, theirs = dict(load_folder(tmp_path / "mean")[0].named_parameters()), dict(models[1].named_parameters())
    for name, d in larger.named_parameters():
        torch.testing.assert_close(mean[name], 0.75 * d + 0.25 * theirs[name] if name in theirs else d)
    with pytest.raises(ConfigError, match="different sizes"):
        merge([tmp_path / "b", tmp_path / "d"], out=tmp_path / "mean")

    monkeypatch.setattr("omni.storage.SMALLEST", 512)
    write_mean([tmp_path / "a", tmp_path / "b"], tmp_path / "short", bits=8)
    of_32, of_8 = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("a", "short"))
    assert of_8 < 0.6 * of_32 and load_folder(tmp_path / "short")[0].num_parameters() == models[0].num_parameters()
    with pytest.raises(SystemExit, match="bits is 4; take one of 8, 16, 32"):
        write_mean([tmp_path / "a", tmp_path / "b"], tmp_path / "short", bits=4)

    with pytest.raises(ConfigError, match=r"shares are \[0.5, 0.4\]"):
        merge([tmp_path / "a", tmp_path / "b"], out=tmp_path / "mean", shares=[0.5, 0.4])
    with pytest.raises(ConfigError, match="two models or more"):
        merge([tmp_path / "a"], out=tmp_path / "mean")
    (tmp_path / "b" / "tokenizer" / "more.txt").write_text("another tokenizer")
    with pytest.raises(ConfigError, match="other tokenizers or codecs"):
        merge([tmp_path / "a", tmp_path / "b"], out=tmp_path / "mean")
    sizes = settings.model | {"num_layers": settings.model["num_layers"] + 1}
    deeper = build_model(settings.model_copy(update={"model": sizes}), tokenizer)
    save_folder(tmp_path / "c", model=deeper, tokenizer=tokenizer, codecs={"vision": codec}, defaults=Defaults())
    with pytest.raises(ConfigError, match="different sizes"):
        merge([tmp_path / "a", tmp_path / "c"], out=tmp_path / "mean")


def test_a_larger_model_begins_with_the_weights_of_a_smaller_one(settings, tokenizer, codec, tmp_path):
    """Experts and streams may be added; on what the smaller one knew, both say the same."""
    from omni.checkpoint import Defaults, save_folder
    from training.build import build_model

    small = build_model(settings, tokenizer)
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    save_folder(tmp_path / "small", model=small, tokenizer=tokenizer, codecs={"vision": codec}, defaults=Defaults())
    sizes = dict(settings.model)
    sizes["experts"] = {**sizes["experts"], "audio": {"width": 16, "ffn_dim": 24}}
    sizes["streams"] = {
        **sizes["streams"],
        "audio": {"channels": 6, "patch_size": 1, "expert": "audio", "base_tokens": 8},
    }
    sizes["stream_of"] = {"image": "vision", "audio": "audio"}
    start = settings.model_copy(update={"start": str(tmp_path / "small"), "model": sizes})
    large = build_model(start, tokenizer)
    batch = pack([[flatten([TextRun((1, 2, 3))], small.config)]])
    batch.logit_index = torch.arange(3)
    with torch.no_grad():
        torch.testing.assert_close(large.eval()(batch).logits, small.eval()(batch).logits)
    text = sizes["experts"]["text"]
    sizes["experts"]["text"] = text | {"ffn_dim": text["ffn_dim"] - 8}
    with pytest.raises(ConfigError, match="make it no smaller"):
        build_model(start.model_copy(update={"model": sizes}), tokenizer)
    sizes["experts"]["text"] = text
    sizes["num_heads"] = 2 * large.config.num_heads
    with pytest.raises(ConfigError, match="keep the heads of start"):
        build_model(start.model_copy(update={"model": sizes}), tokenizer)
