"""Settings of a training run: one YAML file, and section.key=value from the command line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from training.settings import Section, load_settings

__all__ = ["LORA_TARGETS", "Lora", "Optimizer", "Section", "Source", "TrainConfig", "load_config"]

LORA_TARGETS = ("text", "vision", "audio", "all")


class Source(Section):
    """One data set of a mixture: where it is, and how often its documents come, against the others."""

    path: str
    weight: float = Field(1.0, gt=0)


class Data(Section):
    """What is trained on.

    path: a data set: encoded shards (training.encode), a folder with train.jsonl or metadata.jsonl, a folder of
        tar shards, or hf:NAME for a data set of Hugging Face.
    sources: several of them with weights, in place of path.
    validation_documents: how many of the last documents are held back for the validation loss.
    bad_lines: skip documents that cannot be used, or stop at the first.
    cache_mb: memory for latents that were encoded on the fly.
    max_block_tokens, max_video_tokens, max_audio_tokens: of media that are encoded on the fly, the latent tokens of
        a picture, to which larger ones are scaled down; of one block of a film; of a recording.
    """

    path: str | None = None
    sources: list[Source] = []
    validation_documents: int = Field(256, ge=0)
    bad_lines: Literal["skip", "stop"] = "skip"
    cache_mb: int = Field(1024, ge=0)
    max_block_tokens: int = Field(24, gt=0)
    max_video_tokens: int = Field(80, gt=0)
    max_audio_tokens: int = Field(100, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.path is None) == (not self.sources):
            raise ValueError("give either path or sources, a data set or several")
        return self


class Batch(Section):
    """The shape of a step.

    row_length, num_rows: tokens of a packed row, rows of a batch.
    num_noisy: noisy copies of each trained medium; they share the text and the readable copy. With 0 only words and
        headers are learnt.
    accumulation: batches of a step on each rank.
    """

    row_length: int = Field(384, gt=0)
    num_rows: int = Field(8, gt=0)
    num_noisy: int = Field(4, ge=0)
    accumulation: int = Field(1, gt=0)


class Objective(Section):
    """What is learnt.

    text_weight, flow_weight: of the two losses.
    sigma_mean, sigma_std: of the logit-normal of training sigmas.
    sigma_floor: below it the error of a clean prediction weighs no more; see omni.losses.loss_sums.
    drop_text, drop_media, drop_both: probability that a document's conditions are dropped.
    drop_end: probability that a document which closes with a medium stops there. Learning that the turn is over
        takes a readable copy of the medium, a fifth of the tokens of a drawn picture.
    chain: probability that another document, drawn by chance, goes on with the conversation, and again after that, as
        long as a row holds them; so that longer talks are learnt.
    read_noise: in three of ten documents media that are read have noise of a sigma up to this, drawn for each. What the
        model made itself is never quite clean, and long roll-outs drift where training knows the truth alone.
    max_start: documents begin at positions up to this, half of them in its first eighth, so that what stands far down
        a long conversation is nothing new: rows and columns of media do not count from there.
    """

    text_weight: float = Field(1.0, ge=0)
    flow_weight: float = Field(1.0, ge=0)
    sigma_mean: float = 0.0
    sigma_std: float = Field(1.0, gt=0)
    sigma_floor: float = Field(0.05, gt=0, le=1)
    drop_text: float = Field(0.05, ge=0, le=1)
    drop_media: float = Field(0.0, ge=0, le=1)
    drop_both: float = Field(0.05, ge=0, le=1)
    drop_end: float = Field(0.0, ge=0, le=1)
    chain: float = Field(0.0, ge=0, lt=1)
    read_noise: float = Field(0.0, ge=0, lt=1)
    max_start: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.drop_text + self.drop_media + self.drop_both > 1:
            raise ValueError("drop_text, drop_media and drop_both are shares of the documents; their sum is above 1")
        return self


class Optimizer(Section):
    """How it is learnt: Muon for the matrices of the layers, AdamW for the rest; or AdamW for all."""

    kind: Literal["muon", "adamw"] = "muon"
    matrix_lr: float = Field(0.02, gt=0)
    vector_lr: float = Field(2e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    momentum: float = 0.95
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(1.0, gt=0)
    ema_decay: float = Field(0.999, ge=0, lt=1)


class Schedule(Section):
    """How long: a linear warm-up, a plateau, and a linear decay to zero over the last share of the steps."""

    steps: int = Field(..., gt=0)
    warmup: int = Field(50, ge=0)
    decay: float = Field(0.3, ge=0, le=1)
    max_bad_steps: int = Field(5, gt=0)


class Report(Section):
    """What is written down, each every so many steps; trackers are Accelerate's, by name, beside the JSONL log."""

    log_every: int = Field(10, gt=0)
    validate_every: int = Field(250, gt=0)
    sample_every: int = Field(0, ge=0)
    save_every: int = Field(100, gt=0)
    keep: int = Field(2, gt=0)
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = []
    project: str = "omni"


class Engine(Section):
    """What carries the weights.

    kind: plain torch (with several processes, replicas), or DeepSpeed through Accelerate.
    config: file of DeepSpeed's own settings, such as configs/deepspeed/zero2.json.
    gradient_checkpointing: compute activations again in the backward pass, to save memory.
    """

    kind: Literal["plain", "deepspeed"] = "plain"
    config: str | None = None
    gradient_checkpointing: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.kind == "deepspeed") != (self.config is not None):
            raise ValueError("kind deepspeed goes with config (such as configs/deepspeed/zero2.json), plain without")
        return self


class Lora(Section):
    """An adapter in place of the whole model.

    rank, alpha, dropout: of the low-rank changes; alpha is the rank where left out.
    targets: whose experts it changes: text, vision, audio, or all.
    heads: whether it also changes the projections of latents into and out of the model.
    tokens: words and control tokens whose own rows of the embedding are trained.
    """

    rank: int = Field(16, gt=0)
    alpha: float | None = Field(None, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: list[Literal["text", "vision", "audio", "all"]] = ["all"]
    heads: bool = False
    tokens: list[str] = []


class TrainConfig(Section):
    """A training run.

    output: folder of checkpoints, log and sheets; of the adapter, where there is one.
    model: arguments of OmniConfig, or the path of a YAML file with them, relative to this one; or {llm: ...}, a
        language model to build on, with the arguments of omni.llm.from_language_model.
    start: a model folder whose weights to start from; new weights where left out. With model, which may then have
        more experts and streams, what start lacks begins new.
    text: whether a language model's own weights are trained, frozen, or changed by `lora`.
    experts: those that are trained, with what belongs to them alone; all weights where left out.
    tokenizer, codecs: folders; codecs by stream. Where left out, those of `start`.
    lora: train an adapter.
    """

    output: str
    seed: int = Field(0, ge=0)
    threads: int = Field(0, ge=0)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    model: dict[str, Any] | None = None
    start: str | None = None
    text: Literal["trained", "frozen", "lora"] = "trained"
    experts: list[str] | None = Field(None, min_length=1)
    tokenizer: str | None = None
    codecs: dict[str, str] = {}
    data: Data
    batch: Batch = Batch()
    objective: Objective = Objective()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule
    report: Report = Report()
    engine: Engine = Engine()
    lora: Lora | None = None

    @property
    def llm(self) -> str | None:
        """Return the language model that the run builds on, if any."""
        return (self.model or {}).get("llm")

    @property
    def is_adapter(self) -> bool:
        """Return whether the run makes an adapter, and leaves every weight of its base alone."""
        return self.lora is not None and self.text != "lora"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.start is None and self.model is None:
            raise ValueError("give model (sizes of a new one) or start (a model folder)")
        if self.start is not None and self.llm is not None:
            raise ValueError("start and model.llm both say what to start from; give one")
        if self.start is None and self.llm is None and self.tokenizer is None:
            raise ValueError("tokenizer is missing; a new model needs the folder of one")
        if self.text != "trained" and self.llm is None:
            raise ValueError(f"text is {self.text!r}, which is for runs with model.llm; leave it out")
        if self.experts is not None and (self.lora is not None or self.text != "trained"):
            raise ValueError("experts, lora and text all say what is trained; give one")
        if (self.text == "lora") and (self.lora is None or self.lora.targets != ["text"]):
            raise ValueError("text is 'lora': add a lora section with targets [text]")
        if self.is_adapter and self.start is None:
            raise ValueError("lora needs start, the folder of the model that it adapts")
        if self.engine.kind == "deepspeed" and self.optimizer.kind != "adamw":
            raise ValueError("optimizer.kind muon needs whole matrices, which DeepSpeed cuts up; set it to adamw")
        return self


def load_config(path: str | Path, overrides: Sequence[str] | None = None) -> TrainConfig:
    """Read a YAML file, then apply `section.key=value` settings.

    Args:
        path: of the YAML file.
        overrides: settings from the command line.

    Raises:
        ConfigError: the file cannot be read, a key is unknown (with the nearest name), a value is wrong.
    """
    return load_settings(TrainConfig, path, overrides or [], files=["model"])
