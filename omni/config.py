"""The shape of a model: widths, heads, experts, latent streams."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

from omni.errors import ConfigError

__all__ = ["MODALITIES", "OmniConfig"]

# A token's modality is its index here; the order is part of the checkpoint format.
MODALITIES = ("text", "image", "video", "audio")

DEFAULT_EXPERTS = {"text": {"width": 256, "ffn_dim": 768}, "vision": {"width": 256, "ffn_dim": 768}}
DEFAULT_STREAMS = {"vision": {"channels": 16, "patch_size": 2, "expert": "vision", "base_tokens": 16}}


class OmniConfig(PreTrainedConfig):
    """Describe an OmniModel.

    Args:
        num_text_ids: ids that text can become; the first ones of the vocabulary.
        num_control_ids: control ids, which follow the text ids.
        num_layers: transformer layers.
        num_heads: query heads of every expert.
        num_kv_heads: key and value heads of every expert; a divisor of num_heads.
        head_dim: width of one head; even.
        experts: name -> {"width", "ffn_dim"}: the weights a layer holds side by side. One expert for
            everything is the dense Transfusion (arXiv:2408.11039), several are Mixture of Transformers
            (arXiv:2411.04996).
        text_expert: the expert of text tokens.
        streams: name -> {"channels", "patch_size", "expert", "base_tokens"}: the kinds of latents. A token holds
            patch_size x patch_size positions of `channels` latents; base_tokens is the number of tokens of a
            block that is trained with unshifted noise (see flow.shift_for_tokens).
        stream_of: modality -> stream, for every modality the model can hold.
        prediction: what the latent head predicts, "clean" or "velocity".
        hidden_act: of the gated feed-forward; "silu".
        norm_eps: of all RMSNorms.
        rope_parameters: as in transformers, {"rope_type", "rope_theta", ...}.
        attention_bias: whether q, k and v have biases (Qwen2).
        qk_norm: whether queries and keys are normalised (Qwen3).
        tie_word_embeddings: whether the text head is the embedding.
        sigma_dim: width of the sinusoidal embedding of sigma.

    Raises:
        ConfigError: a value is impossible or names something that does not exist.
    """

    model_type = "omni"

    def __init__(
        self,
        *,
        num_text_ids: int = 2048,
        num_control_ids: int = 267,
        num_layers: int = 6,
        num_heads: int = 4,
        num_kv_heads: int | None = None,
        head_dim: int = 64,
        experts: Mapping[str, Mapping[str, int]] | None = None,
        text_expert: str = "text",
        streams: Mapping[str, Mapping[str, Any]] | None = None,
        stream_of: Mapping[str, str] | None = None,
        prediction: str = "clean",
        hidden_act: str = "silu",
        norm_eps: float = 1e-6,
        rope_parameters: Mapping[str, Any] | None = None,
        attention_bias: bool = False,
        qk_norm: bool = True,
        tie_word_embeddings: bool = True,
        sigma_dim: int = 256,
        **kwargs: Any,
    ) -> None:
        self.num_text_ids = num_text_ids
        self.num_control_ids = num_control_ids
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads or num_heads
        self.head_dim = head_dim
        self.experts = {name: dict(sizes) for name, sizes in (experts or DEFAULT_EXPERTS).items()}
        self.text_expert = text_expert
        self.streams = {
            name: dict(stream) for name, stream in (DEFAULT_STREAMS if streams is None else streams).items()
        }
        self.stream_of = dict(stream_of if stream_of is not None else {"image": "vision"} if self.streams else {})
        self.prediction = prediction
        self.hidden_act = hidden_act
        self.norm_eps = norm_eps
        self.rope_parameters = dict(rope_parameters or {"rope_type": "default", "rope_theta": 10000.0})
        self.attention_bias = attention_bias
        self.qk_norm = qk_norm
        self.sigma_dim = sigma_dim
        self._check()
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)

    def _check(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(f"num_kv_heads is {self.num_kv_heads}; it must divide num_heads {self.num_heads}")
        if self.head_dim % 2:
            raise ConfigError(f"head_dim is {self.head_dim}; rotary positions need an even one")
        if self.prediction not in ("clean", "velocity"):
            raise ConfigError(f"prediction is {self.prediction!r}; choose 'clean' or 'velocity'")
        wanted = {"text_expert": self.text_expert}
        wanted |= {f"streams.{name}.expert": stream["expert"] for name, stream in self.streams.items()}
        for field, expert in wanted.items():
            if expert not in self.experts:
                raise ConfigError(f"{field} is {expert!r}; the experts are {', '.join(self.experts)}")
        for modality, stream in self.stream_of.items():
            if modality not in MODALITIES[1:] or stream not in self.streams:
                raise ConfigError(
                    f"stream_of {modality!r}: {stream!r} is impossible; modalities are "
                    f"{', '.join(MODALITIES[1:])}, streams {', '.join(self.streams)}"
                )

    @property
    def vocab_size(self) -> int:
        """Return the number of ids, text and control together."""
        return self.num_text_ids + self.num_control_ids

    def token_dim(self, stream: str) -> int:
        """Return how many latent numbers a token of the stream holds."""
        return self.streams[stream]["channels"] * self.streams[stream]["patch_size"] ** 2

    def sources(self) -> dict[str, list[str]]:
        """List what each expert reads, "text" or a stream, in the order in which its tokens lie."""
        pairs = [("text", self.text_expert)] + [(name, s["expert"]) for name, s in self.streams.items()]
        return {expert: [source for source, chosen in pairs if chosen == expert] for expert in self.experts}
