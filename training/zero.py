"""DeepSpeed's ZeRO 1, 2 and 3, through Accelerate, behind the same seam as plain torch.

Its state is that of the plain engine: whole tensors under their own names. So a run goes on with any number of
ranks, at any stage, or without DeepSpeed, and no pickles of DeepSpeed's are read.
"""

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omni.errors import CheckpointError, ConfigError
from omni.layers import Layer
from omni.model import OmniModel
from omni.sequence import PackedBatch
from training.average import Average
from training.config import TrainConfig
from training.engine import Engine, Losses
from training.ranks import Ranks

__all__ = ["ZeroEngine", "read_settings", "start_deepspeed"]

MOMENTS = ("exp_avg", "exp_avg_sq")
LONGEST_BUILD_S = 900.0
# What the run's own config says; a second word in DeepSpeed's file would contradict it or be without effect.
OURS = {
    "train_batch_size": "batch.num_rows",
    "train_micro_batch_size_per_gpu": "batch.num_rows",
    "gradient_accumulation_steps": "batch.accumulation",
    "gradient_clipping": "optimizer.clip",
    "optimizer": "optimizer",
    "scheduler": "schedule",
}


def read_settings(path: str) -> dict[str, Any]:
    """Read DeepSpeed's own settings.

    Args:
        path: a JSON file, such as configs/deepspeed/zero2.json.

    Raises:
        ConfigError: it cannot be read, or settles what the run's config settles.
    """
    try:
        settings = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"engine.config {path} cannot be read ({error}); give a DeepSpeed JSON file") from error
    for key, ours in OURS.items():
        if settings.get(key, "auto") != "auto":
            raise ConfigError(f"{path}: {key} is set here, and {ours} in the run's config; leave it out here")
    stage = settings.get("zero_optimization", {}).get("stage")
    if stage not in (1, 2, 3):
        raise ConfigError(f"{path}: zero_optimization.stage is {stage!r}; give 1, 2 or 3, or use engine.kind plain")
    return settings


def refuse_stale_locks() -> None:
    """Refuse to wait for ever on a lock that a build of DeepSpeed's own operators left behind when it was killed.

    Raises:
        ConfigError: there is one.
    """
    folder = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or Path.home() / ".cache" / "torch_extensions")
    for lock in folder.rglob("lock"):
        if time.time() - lock.stat().st_mtime > LONGEST_BUILD_S:
            raise ConfigError(f"{lock} is left over from a build that was killed, and would be waited for; delete it")


def start_deepspeed(config: TrainConfig, precision: str) -> Any:
    """Join the other processes through Accelerate, with DeepSpeed's settings; return the accelerator.

    Raises:
        ConfigError: DeepSpeed is not installed, or its settings cannot be used.
    """
    assert config.engine.config is not None
    settings = read_settings(config.engine.config)
    refuse_stale_locks()
    is_cpu = not torch.cuda.is_available()
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"), ("MASTER_ADDR", "127.0.0.1")):
        os.environ.setdefault(name, value)
    os.environ.setdefault("MASTER_PORT", "29531")
    if is_cpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
    try:
        import deepspeed
        from accelerate import Accelerator, DeepSpeedPlugin
        from accelerate.utils import InitProcessGroupKwargs
    except ImportError as error:
        raise ConfigError("engine.kind deepspeed needs deepspeed and accelerate; pip install deepspeed") from error
    if is_cpu:
        # Or it would compile, for minutes, an operator that only its inference uses.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    settings |= {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": config.batch.accumulation,
        "gradient_clipping": config.optimizer.clip,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": precision == "bfloat16", "check_grad_overflow": True},
        "steps_per_print": 10**9,
    }
    plugin = DeepSpeedPlugin(hf_ds_config=settings, zero3_init_flag=False)
    handlers = [InitProcessGroupKwargs(backend="gloo")] if is_cpu else []
    return Accelerator(deepspeed_plugin=plugin, kwargs_handlers=handlers)


class ZeroEngine(Engine):
    """DeepSpeed: optimizer states (stage 1), gradients (2) and weights (3) are spread over the ranks.

    Args:
        model: trained in place.
        config: with engine.config.
        accelerator: of start_deepspeed.
        precision: "float32" or "bfloat16".
    """

    def __init__(self, model: OmniModel, config: TrainConfig, accelerator: Any, precision: str) -> None:
        config = config.model_copy(update={"precision": precision})
        super().__init__(model, config, accelerator.device, Ranks())
        self.accelerator = accelerator
        self.shapes = {name: p.shape for name, p in self.trained}
        losses = Losses(self.model, sigma_floor=config.objective.sigma_floor)
        settings = accelerator.deepspeed_plugin.deepspeed_config
        self.stage = settings["zero_optimization"]["stage"]
        if self.stage == 3:
            _prepare_stage_3(losses)
        choice = config.optimizer
        optimizer = torch.optim.AdamW(
            [p for _, p in self.trained], lr=choice.vector_lr, betas=choice.betas, weight_decay=choice.weight_decay
        )
        self.engine, _ = accelerator.prepare(losses, optimizer)
        self.zero = self.engine.optimizer
        self.flats = self._find_flats()
        self.ema = Average(self.flats, decay=choice.ema_decay)

    def _find_flats(self) -> list[Tensor]:
        """Return this rank's share of the float32 weights, as flat tensors."""
        for name in ("fp32_partitioned_groups_flat", "single_partition_of_fp32_groups", "fp32_groups_flat_partition"):
            if hasattr(self.zero, name):
                return list(getattr(self.zero, name))
        raise AssertionError(f"{type(self.zero).__name__} holds its weights in a way unknown here")

    def _losses(self, batch: PackedBatch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.engine(batch)

    def _backward(self, loss: Tensor, *, is_last: bool) -> None:
        # It divides by accumulation and averages over ranks; the loss is meant to be summed over both.
        factor = self.ranks.size * self.config.batch.accumulation
        self.engine.set_gradient_accumulation_boundary(is_last)
        self.engine.backward(loss * factor)

    def _update(self, share: float) -> float:
        for group in self.zero.param_groups:
            group["lr"] = self.config.optimizer.vector_lr * share
        if self.stage == 3 and self.device.type == "cpu":
            # Its gradients are in buffers by now; clearing these, ZeRO-3 would look for a stream of the CPU.
            for _, parameter in self.trained:
                parameter.grad = None
        self.engine.step()
        if self.zero.overflow:
            return math.nan
        self.ema.step(self.flats)
        return float(self.engine.get_global_grad_norm())

    def _discard(self) -> None:
        self.engine.zero_grad()
        self.zero.zero_grad(set_to_none=True)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averaged weights in place for the length of a with block."""
        self.ema.swap_in(self.flats)
        self._push()
        try:
            yield
        finally:
            self.ema.swap_out(self.flats)
            self._push()

    @torch.no_grad()
    def _push(self) -> None:
        """Bring the float32 weights into those that the model computes with."""
        if self.stage < 3:
            self.zero.update_lp_params()
            return
        self.zero._partition_all_parameters()
        for number in range(len(self.zero.fp16_groups)):
            self.zero._reassign_or_swap_out_partitioned_parameters(number)
        if self.zero.persistent_parameters:
            self.zero.persistent_parameters[0].all_gather(self.zero.persistent_parameters)

    def _gather(self, key: str | None = None) -> list[Tensor]:
        """Collect all float32 weights, or a moment of Adam's for each, whole, on the first rank; all must call."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        out = []
        for name, parameter in self.trained:
            if key is None:
                value = safe_get_full_fp32_param(parameter)
            else:
                value = safe_get_full_optimizer_state(parameter, key)
            if self.ranks.is_first:
                out.append(value.detach().float().cpu().view(self.shapes[name]).clone())
        return out

    def state_dict(self) -> dict[str, Any]:
        """Return the state in the plain engine's form, on the first rank; all must call."""
        names = [name for name, _ in self.trained]
        weights = dict(zip(names, self._gather(), strict=False))
        self.ema.swap_in(self.flats)
        averaged = self._gather()
        self.ema.swap_out(self.flats)
        moments = {key: self._gather(key) for key in MOMENTS} if self._has_moments() else {}
        if not self.ranks.is_first:
            return {}
        count = torch.tensor(float(self.ema.optimization_step))
        states = {
            index: {"step": count.clone(), **{key: moments[key][index] for key in moments}}
            for index in range(len(names))
        }
        groups = [{k: v for k, v in g.items() if k != "params"} for g in self.zero.param_groups[:1]]
        groups[0]["params"] = list(range(len(names)))
        ema = self.ema.state_dict() | {"shadow_params": averaged}
        if not self.is_partial and self.model.config.tie_word_embeddings:
            weights["lm_head.weight"] = weights["embed_tokens.weight"]
        return {
            "model": weights,
            "ema": ema,
            "optimizers": [{"state": states if moments else {}, "param_groups": groups}],
        }

    def _has_moments(self) -> bool:
        return any(MOMENTS[0] in state for state in self.zero.optimizer.state.values())

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a state_dict was taken, by any engine with AdamW on any number of ranks.

        Raises:
            CheckpointError: it is of another config.
        """
        from deepspeed.utils import safe_set_full_optimizer_state

        if len(state["optimizers"]) != 1:
            raise CheckpointError("the checkpoint is of another optimizer.kind; start with --fresh, or keep the kind")
        for name, shape in self.shapes.items():
            if name not in state["model"] or state["model"][name].shape != shape:
                raise CheckpointError(f"the checkpoint is of another config: {name} differs; start with --fresh")
        self._set(state["ema"]["shadow_params"])
        shadows = [flat.detach().clone() for flat in self.flats]
        self._set([state["model"][name] for name, _ in self.trained])
        self.ema.load_state_dict(state["ema"] | {"shadow_params": shadows})
        self._push()
        held = state["optimizers"][0]["state"]
        if not held:
            return
        count = torch.as_tensor(held[0]["step"]).float()
        for flat in self.flats:
            moments = {key: torch.zeros_like(flat) for key in MOMENTS}
            self.zero.optimizer.state[flat] = {"step": count.clone(), **moments}
        if self.stage < 3:
            self.zero._lazy_init_hp_params_optimizer_state()
        for index, (_, parameter) in enumerate(self.trained):
            for key in MOMENTS:
                safe_set_full_optimizer_state(parameter, held[index][key].to(self.device), key)

    def _set(self, values: list[Tensor]) -> None:
        from deepspeed.utils import safe_set_full_fp32_param

        for (_, parameter), value in zip(self.trained, values, strict=True):
            safe_set_full_fp32_param(parameter, value.float().to(self.device))


def _prepare_stage_3(losses: Losses) -> None:
    """Tell ZeRO-3 which weights are used outside the forward pass of the module that owns them.

    A layer calls methods of its experts; the text head and the tables of the latent heads are used by the model.
    """
    from deepspeed.runtime.zero import register_external_parameter

    register_external_parameter(losses, losses.model.lm_head.weight)
    for embedding in losses.model.latent_embeddings.values():
        register_external_parameter(losses, embedding.modulation_table)
    for module in losses.modules():
        for expert in module.experts.values() if isinstance(module, Layer) else ():
            if expert.modulation_table is not None:
                register_external_parameter(module, expert.modulation_table)
