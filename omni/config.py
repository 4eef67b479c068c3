"""The shape of a model: widths, heads, experts, latent streams."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

from omni.errors import ConfigError

__all__ = ["MODALITIES", "OmniConfig"]

# A token's modality is its index here; the order is part of the checkpoint format.
MODALITIES = ("text", "image", "video", "audio")

# Their frequencies are fixed; those of "dynamic" and "longrope" change with the length of the text.
ROPE_TYPES = ("default", "linear", "llama3", "yarn")

EXPERT_SIZES = ("width", "ffn_dim")
STREAM_SIZES = ("channels", "patch_size", "base_tokens")
STREAM_OTHERS = ("expert", "reads_previous")

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
            block that is trained with unshifted noise (see flow.shift_for_tokens). With "reads_previous": true, a
            noisy token reads what was last known at its place, and may keep it: the same place of the picture that
            is changed, of the given first frame, of the film that goes on.
        stream_of: modality -> stream, for every modality the model can hold.
        prediction: what the latent head predicts, "clean" or "velocity".
        hidden_act: of the gated feed-forward; "silu".
        norm_eps: of all RMSNorms.
        rope_parameters: as in transformers, {"rope_type", "rope_theta", ...}; the types are "default", "linear",
            "llama3" and "yarn".
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

    def _check_sizes(self) -> None:
        names = ("num_text_ids", "num_control_ids", "num_layers", "num_heads", "num_kv_heads", "head_dim", "sigma_dim")
        sizes = {name: getattr(self, name) for name in names}
        groups = (("experts", self.experts, EXPERT_SIZES, ()), ("streams", self.streams, STREAM_SIZES, STREAM_OTHERS))
        for group, given, keys, others in groups:
            for name, values in given.items():
                for key in values.keys() - {*keys, *others}:
                    raise ConfigError(f"{group}.{name}.{key} is unknown; known are {', '.join((*keys, *others))}")
                sizes |= {f"{group}.{name}.{key}": values.get(key) for key in keys}
        for name, stream in self.streams.items():
            if not isinstance(stream.get("reads_previous", False), bool):
                raise ConfigError(f"streams.{name}.reads_previous is {stream['reads_previous']!r}; give true or false")
        for name, value in sizes.items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{name} is {value!r}; give a whole number above 0")

    def _check(self) -> None:
        self._check_sizes()
        if self.num_heads % self.num_kv_heads:
            raise ConfigError(f"num_kv_heads is {self.num_kv_heads}; it must divide num_heads {self.num_heads}")
        if self.head_dim % 2:
            raise ConfigError(f"head_dim is {self.head_dim}; rotary positions need an even one")
        if self.sigma_dim % 2:
            raise ConfigError(f"sigma_dim is {self.sigma_dim}; it holds pairs of a sine and a cosine: make it even")
        if self.prediction not in ("clean", "velocity"):
            raise ConfigError(f"prediction is {self.prediction!r}; choose 'clean' or 'velocity'")
        if self.hidden_act != "silu":
            raise ConfigError(f"hidden_act is {self.hidden_act!r}; the feed-forward is a SwiGLU: leave it at 'silu'")
        rope_type = self.rope_parameters.get("rope_type", "default")
        if rope_type not in ROPE_TYPES:
            raise ConfigError(f"rope_parameters.rope_type is {rope_type!r}; choose one of {', '.join(ROPE_TYPES)}")
        wanted: dict[str, Any] = {"text_expert": self.text_expert}
        wanted |= {f"streams.{name}.expert": stream.get("expert") for name, stream in self.streams.items()}
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

    # The names under which transformers' rotary functions look for sizes of ours.

    @property
    def hidden_size(self) -> int:
        """Return the width of the text expert."""
        return self.experts[self.text_expert]["width"]

    @property
    def num_attention_heads(self) -> int:
        """Return the number of query heads."""
        return self.num_heads

    @property
    def max_position_embeddings(self) -> int:
        """Return the length of text to which scaled rotary positions are stretched; 0 where they are not scaled."""
        scaling = self.rope_parameters
        return int(scaling.get("original_max_position_embeddings", 0) * scaling.get("factor", 1))

    def token_dim(self, stream: str) -> int:
        """Return how many latent numbers a token of the stream holds."""
        return self.streams[stream]["channels"] * self.streams[stream]["patch_size"] ** 2

    def sources(self) -> dict[str, list[str]]:
        """List what each expert reads, "text" or a stream, in the order in which its tokens lie."""
        pairs = [("text", self.text_expert)] + [(name, s["expert"]) for name, s in self.streams.items()]
        return {expert: [source for source, chosen in pairs if chosen == expert] for expert in self.experts}
