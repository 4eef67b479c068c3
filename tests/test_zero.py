"""Two processes on this CPU, ZeRO 1, 2 and 3 and plain replicas, against one process with twice the accumulation.

All of it is one launch: what takes long is importing DeepSpeed.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import randomise
from tests.test_training import MODEL, encoded

from omni.checkpoint import Defaults, save_folder
from omni.errors import CheckpointError, ConfigError
from omni.model import OmniModel
from training.build import build_model
from training.checkpoint import latest_checkpoint, load_checkpoint
from training.config import TrainConfig
from training.export import export
from training.loop import train
from training.zero import read_settings, refuse_stale_locks

REPOSITORY = Path(__file__).parents[1]
STEPS = 10

pytestmark = pytest.mark.slow


def settings(folder: Path, name: str, *, stage: int | None = None, accumulation: int = 1, **others) -> TrainConfig:
    engine = {}
    if stage is not None:
        engine = {"kind": "deepspeed", "config": str(REPOSITORY / "configs" / "deepspeed" / f"zero{stage}.json")}
    values = {
        "output": str(folder / name),
        "precision": "float32",
        "model": MODEL,
        "tokenizer": str(folder / "tokenizer"),
        "data": {"path": str(folder / "data"), "validation_documents": 8},
        "batch": {"row_length": 96, "num_rows": 2, "num_noisy": 2, "accumulation": accumulation},
        "optimizer": {"kind": "adamw"},
        "schedule": {"steps": STEPS, "warmup": 2},
        "report": {"log_every": 1, "validate_every": 5, "save_every": 5, "keep": 9},
        "engine": engine,
    }
    return TrainConfig.model_validate(values | others)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tokenizer, codec) -> Path:
    """Everything that needs two processes, in one launch; and one process that it is held against."""
    pytest.importorskip("deepspeed")
    folder = tmp_path_factory.mktemp("zero")
    tokenizer.save(folder / "tokenizer")
    encoded(folder / "data", 60)
    train(settings(folder, "plain", accumulation=2))
    config = TrainConfig.model_validate(settings(folder, "x").model_dump())
    base = randomise(build_model(config, tokenizer))
    save_folder(folder / "base", model=base, tokenizer=tokenizer, codecs={"vision": codec}, defaults=Defaults())
    lora = {"model": None, "tokenizer": None, "start": str(folder / "base"), "lora": {"rank": 2}}
    train(settings(folder, "lora", accumulation=2, **lora))
    first_half = {"schedule": {"steps": 5, "warmup": 2, "decay": 0.0}}
    train(settings(folder, "from_one", accumulation=2, **first_half))
    jobs = folder / "jobs"
    jobs.mkdir()
    configs = [
        settings(folder, "replicas"),
        *(settings(folder, f"zero{stage}", stage=stage) for stage in (1, 2, 3)),
        settings(folder, "from_one", stage=3, schedule={"steps": STEPS, "warmup": 2, "decay": 0.0}),
        settings(folder, "lora3", stage=3, **lora),
        settings(folder, "mixed2", stage=2, schedule={"steps": 1, "warmup": 2}),
        settings(folder, "mixed3", stage=3, schedule={"steps": 1, "warmup": 2}),
    ]
    for number, config in enumerate(configs):
        (jobs / f"{number}-{Path(config.output).name}.json").write_text(config.model_dump_json())
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29571"]
    done = subprocess.run(
        [*launch, str(Path(__file__).parent / "zero_worker.py"), str(jobs)],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def figures(folder: Path, name: str, *keys: str) -> torch.Tensor:
    lines = [json.loads(line) for line in (folder / name / "log.jsonl").read_text().splitlines()]
    return torch.tensor([[line[key] for key in keys] for line in lines if keys[0] in line])


@pytest.mark.parametrize("name", ["replicas", "zero1", "zero2", "zero3"])
def test_two_ranks_equal_one_with_twice_the_accumulation(runs, name):
    for keys in (("text_loss", "flow_loss"), ("valid_text", "valid_flow")):  # the second by the averaged weights
        one, two = figures(runs, "plain", *keys), figures(runs, name, *keys)
        assert len(one) == len(two) and len(one) in (STEPS, 2)
        torch.testing.assert_close(two, one, atol=1e-4, rtol=0)


def test_adapters_of_zero_3_equal_those_of_one_process(runs):
    one, two = (load_file(runs / name / "adapter_model.safetensors") for name in ("lora", "lora3"))
    assert one.keys() == two.keys() and any(value.any() for name, value in one.items() if "lora_B" in name)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-4, rtol=0)
    weights = load_checkpoint(runs / "lora3" / f"step-{STEPS:08d}")["engine"]["model"]
    assert weights and all("lora_" in name for name in weights)


@pytest.mark.parametrize("name", ["mixed2", "mixed3"])
def test_ranks_with_different_modalities_finish(runs, name):
    report = json.loads((runs / name / "mixed.txt").read_text())
    assert math.isfinite(report["text_loss"]) and report["flow_loss"] > 0 and not report["skipped"]


def test_run_of_one_process_goes_on_with_two(runs):
    train(settings(runs, "all_one", accumulation=2, schedule={"steps": STEPS, "warmup": 2, "decay": 0.0}))
    one, two = figures(runs, "all_one", "text_loss", "flow_loss"), figures(runs, "from_one", "text_loss", "flow_loss")
    torch.testing.assert_close(two, one, atol=1e-4, rtol=0)


@pytest.mark.parametrize("stage", [1, 3])
def test_run_of_two_processes_goes_on_with_one(runs, tmp_path, stage):
    import shutil

    shutil.copytree(runs / f"zero{stage}", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / f"step-{STEPS:08d}")
    (tmp_path / "run" / "log.jsonl").unlink()
    train(settings(runs, "zero", accumulation=2).model_copy(update={"output": str(tmp_path / "run")}))
    one, two = figures(runs, "plain", "text_loss", "flow_loss")[5:], figures(tmp_path, "run", "text_loss", "flow_loss")
    torch.testing.assert_close(two, one, atol=1e-4, rtol=0)


def test_another_number_of_batches_a_step_is_refused(runs):
    with pytest.raises(CheckpointError, match="set batch.accumulation"):
        train(settings(runs, "zero2", accumulation=1))


def test_every_stage_exports_the_same_model(runs, tmp_path):
    weights = []
    for name in ("plain", "zero1", "zero3"):
        export(
            settings(runs, name).model_copy(update={"codecs": {}}), out=tmp_path / name, source="x", dtype=torch.float32
        )
        state = load_checkpoint(latest_checkpoint(runs / name))  # type: ignore[arg-type]
        assert state["step"] == STEPS
        weights.append(dict(OmniModel.from_pretrained(tmp_path / name).named_parameters()))
    for name, weight in weights[0].items():
        for other in weights[1:]:
            torch.testing.assert_close(other[name], weight, atol=1e-4, rtol=0)


def test_lock_of_a_killed_build_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    lock = tmp_path / "py311_cpu" / "deepspeed_shm_comm" / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    refuse_stale_locks()
    os.utime(lock, (0, 0))
    with pytest.raises(ConfigError, match="deepspeed_shm_comm/lock is left over"):
        refuse_stale_locks()


def test_wrong_deepspeed_files_are_named(tmp_path):
    path = tmp_path / "zero.json"
    for text, message in (
        ("{", "cannot be read"),
        ('{"zero_optimization": {"stage": 0}}', "stage is 0"),
        ('{"zero_optimization": {"stage": 2}, "gradient_clipping": 1}', "optimizer.clip"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_settings(str(path))
