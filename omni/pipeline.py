"""Omni: everything that a model can do, in one object."""

import difflib
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from numbers import Integral
from pathlib import Path
from typing import Any

import torch

from omni.adapters import Adapters
from omni.chat import ChatTemplate, Turn, open_reply, to_document
from omni.checkpoint import Defaults, load_folder, save_folder
from omni.codecs import Codec
from omni.crafts import Crafts
from omni.decode import quantize_text
from omni.errors import ConfigError, InputError
from omni.events import Event
from omni.generate import Forced, Generator, Request
from omni.guidance import GuidanceConfig, require_effect
from omni.limits import Limits
from omni.memory import keep_freed_memory
from omni.messages import newest, parse_messages
from omni.model import OmniModel
from omni.parts import Action, Part, Text
from omni.reply import Finished, Reply, collect
from omni.sequence import Medium, TextRun
from omni.settings import GenerationSettings
from omni.studio import Studio
from omni.text import TextTokenizer

__all__ = ["Finished", "Omni", "Reply"]

SHIPPED = Path(__file__).parent / "weights" / "nano"
MAX_SEED = 2**31
# Settings that say how messages are read, not how the answer is made.
READING = ("allow_urls", "limits")


def _device(name: str) -> torch.device:
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device is {name!r}, which cannot be used here ({reason}); try 'cpu'") from error
    return torch.device(name)


class Omni(Crafts):
    """A model with everything that it needs to be talked to.

    Args:
        model: the transformer.
        tokenizer: of the text.
        codecs: stream -> codec.
        defaults: what the model was made for.
    """

    def __init__(
        self,
        model: OmniModel,
        tokenizer: TextTokenizer,
        codecs: Mapping[str, Codec],
        defaults: Defaults | None = None,
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.codecs = dict(codecs)
        self.defaults = defaults or Defaults()
        self.template = ChatTemplate(tokenizer.control)
        self.adapters = Adapters(self.model)
        self.studio = Studio(
            model.config,
            self.codecs,
            self.template,
            max_block_tokens=self.defaults.max_block_tokens,
            max_video_tokens=self.defaults.max_video_tokens,
            max_audio_tokens=self.defaults.max_audio_tokens,
        )
        self._generator = Generator(self.model, tokenizer, self.studio)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path | None = None,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        quantize: str | None = None,
    ) -> "Omni":
        """Load a model.

        Args:
            path: a folder, or a name on the Hugging Face Hub; the shipped model where left out.
            device: where it runs.
            dtype: of its weights in memory.
            quantize: "int8" writes words with weights of eight bits, on a CPU; media stay as they are.

        Raises:
            CheckpointError: the folder is incomplete or damaged.
            ConfigError: the device is not there, or quantize is unknown or cannot be used on it.
        """
        if quantize not in (None, "int8"):
            raise ConfigError(f"quantize is {quantize!r}; choose 'int8', or leave it out")
        keep_freed_memory()
        place = _device(device)
        model, tokenizer, codecs, defaults = load_folder(SHIPPED if path is None else path, dtype=dtype)
        codecs = {name: codec.to(place) for name, codec in codecs.items()}
        model = model.to(place)
        if quantize is not None:
            quantize_text(model)
        return cls(model, tokenizer, codecs, defaults)

    def save_pretrained(self, path: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Write a self-contained model folder.

        Args:
            path: made where it does not exist.
            dtype: of the weights on disk; as in memory where left out. torch.int8 stores large matrices in 8 bits.

        Raises:
            ConfigError: adapters are loaded: merge or unload them first.
        """
        self.adapters.require_none("saving the model")
        save_folder(
            path,
            model=self.model,
            tokenizer=self.tokenizer,
            codecs=self.codecs,
            defaults=self.defaults,
            dtype=dtype,
        )

    def push_to_hub(self, repo_id: str, *, private: bool = False) -> None:
        """Upload the model folder to the Hugging Face Hub.

        Args:
            repo_id: name/model.
            private: whether others may not see it.
        """
        import tempfile

        from huggingface_hub import HfApi

        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            api = HfApi()
            api.create_repo(repo_id, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo_id, folder_path=folder)

    # Adapters.

    def load_adapter(self, path: str | Path, *, name: str = "default", weight: float = 1.0) -> None:
        """Load a LoRA adapter and let it take part, beside those that do already.

        Args:
            path: its folder, as the training program or peft writes it.
            name: to speak of it by.
            weight: how strongly it takes part.

        Raises:
            CheckpointError: it is damaged, or made for another model.
            ConfigError: the name is taken.
        """
        self.adapters.load(path, name=name, weight=weight)

    def set_adapter(self, names: str | Sequence[str], *, weights: Sequence[float] | None = None) -> None:
        """Choose which adapters take part, and how strongly; an empty list means none.

        Args:
            names: of loaded adapters.
            weights: one each; 1 where left out.

        Raises:
            ConfigError: no such adapter is loaded.
        """
        self.adapters.set(names, weights=weights)

    def unload_adapter(self, name: str | None = None) -> None:
        """Remove an adapter, or all; without any the model is what it was, bit for bit.

        Raises:
            ConfigError: no such adapter is loaded.
        """
        self.adapters.unload(name)

    def merge_adapters(self) -> None:
        """Work the active adapters into the weights; there is no way back."""
        self.adapters.merge()

    # Conversations.

    def chat(self, messages: Any, *, seed: int | None = None, **settings: Any) -> Reply:
        """Answer a conversation.

        Args:
            messages: a str, a message, or a list of messages in the chat form.
            seed: the same one gives the same answer; drawn, and kept in the reply, where left out.
            settings: steps, guidance_scale, image_scale, max_new_tokens, and the other fields of GenerationSettings;
                guidance (a GuidanceConfig) in place of the two scales; size, the (height, width) in pixels of every
                picture and film, which else the model chooses; allow_urls; limits.

        Raises:
            InputError: the messages cannot be used.
            ConfigError: a setting is unknown or impossible.
        """
        return self.generate([messages], seed=None if seed is None else [seed], **settings)[0]

    def stream(
        self,
        messages: Any,
        *,
        seed: int | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        previews: bool = True,
        **settings: Any,
    ) -> Iterator[Event | Finished]:
        """Answer a conversation, event by event; Finished comes last.

        Args:
            messages, seed, settings: as in chat.
            should_stop: asked before every token and every step; a true answer ends the reply as it is.
            previews: whether to yield MediaPreview.
        """
        (number,) = _seeds(None if seed is None else [seed], 1)
        options, reading = self._settings(settings | {"previews": previews})
        requests = [self._request(messages, seed=number, forced=(), reading=reading, options=options)]
        parts: list[Part] = []
        for _, event in self._generator.run(requests, options, should_stop=should_stop):
            collect(parts, event)
            yield event
        yield Finished(Reply(tuple(parts), number))

    def generate(
        self, conversations: Sequence[Any], *, seed: Sequence[int] | int | None = None, **settings: Any
    ) -> list[Reply]:
        """Answer many conversations in one batch; each as it would be answered alone.

        Args:
            conversations: what chat takes, several times.
            seed: one for each, or the first of as many consecutive ones.
            settings: as in chat.
        """
        return self._run(conversations, seed=seed, forced=None, settings=settings)

    def _run(
        self,
        conversations: Sequence[Any],
        *,
        seed: Any,
        forced: Sequence[tuple[Forced, ...]] | None,
        settings: Mapping[str, Any],
    ) -> list[Reply]:
        if not _is_list(conversations):
            raise InputError("generate takes a list of conversations; use chat for a single one")
        seeds = _seeds(seed, len(conversations))
        options, reading = self._settings(settings)
        requests = [
            self._request(messages, seed=one, forced=shape, reading=reading, options=options)
            for messages, one, shape in zip(conversations, seeds, forced or [()] * len(seeds), strict=True)
        ]
        parts: list[list[Part]] = [[] for _ in requests]
        for number, event in self._generator.run(requests, options) if requests else ():
            collect(parts[number], event)
        return [Reply(tuple(mine), one) for mine, one in zip(parts, seeds, strict=True)]

    # From messages to requests.

    def _settings(self, given: Mapping[str, Any]) -> tuple[GenerationSettings, dict[str, Any]]:
        """Split the caller's settings into those of generation and those of reading the messages."""
        known = {*GenerationSettings.__dataclass_fields__, "guidance_scale", "image_scale", "size", *READING}
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
                raise ConfigError(f"{name!r} is no setting; {hint}")
        for one, other in (("guidance", "guidance_scale"), ("guidance", "image_scale"), ("shape", "size")):
            if given.get(one) is not None and given.get(other) is not None:
                raise ConfigError(f"{one} and {other} both set the same thing; give one of them")
        if not isinstance(given.get("limits"), Limits | None):
            raise ConfigError(f"limits is {given['limits']!r}; give an omni.limits.Limits")
        names = ("steps", "max_block_tokens", "max_video_tokens", "max_audio_tokens")
        settings: dict[str, Any] = {name: getattr(self.defaults, name) for name in names}
        settings |= {name: value for name, value in given.items() if name in GenerationSettings.__dataclass_fields__}
        if "guidance" not in given:
            scales = {"guidance_scale": self.defaults.guidance_scale, "image_scale": 1.0}
            settings["guidance"] = _guidance(**{name: given.get(name, usual) for name, usual in scales.items()})
        if given.get("size") is not None:
            settings["shape"] = self.rows_and_columns(given["size"])
        return GenerationSettings(**settings), {name: given[name] for name in READING if name in given}

    def _request(
        self,
        messages: Any,
        *,
        seed: int,
        forced: tuple[Forced, ...],
        reading: Mapping[str, Any],
        options: GenerationSettings,
    ) -> Request:
        parsed = parse_messages(messages, **reading)
        if parsed[-1].role != "user":
            raise InputError(f"the last message is the {parsed[-1].role}'s; end with a user message to be answered")
        kept = newest(parsed, self.defaults.memory)
        turns = [Turn(m.role, tuple(item for part in m.parts for item in self._items(part))) for m in kept]
        document = to_document(turns, tokenizer=self.tokenizer, template=self.template)
        num_tokens = sum(len(part.ids) if isinstance(part, TextRun) else part.num_tokens for part in document)
        if num_tokens > self.defaults.max_context_tokens:
            raise InputError(
                f"The conversation has {num_tokens} tokens; this model reads {self.defaults.max_context_tokens}: "
                "shorten it, or start a new one."
            )
        is_drawn_again = not forced and options.max_media > 1
        has_media = is_drawn_again or any(isinstance(segment, Medium) for segment in document)
        require_effect(options.guidance, has_media=has_media)
        return Request(open_reply(document, self.template), seed, forced)

    def _items(self, part: Part) -> Sequence[str | Medium | TextRun]:
        if isinstance(part, Text):
            return [part.text]
        if isinstance(part, Action):
            return [self.template.action_run(part.name)]
        return self.studio.encode(part)

    def rows_and_columns(self, size: Any, modality: str = "image") -> tuple[int, int]:
        """Return a size in pixels, (height, width), as rows and columns of tokens.

        Raises:
            ConfigError: it is no pair, no multiple of a token's side, or larger than what the model makes.
        """
        side = self.studio.token_side(modality)
        if not _is_list(size) or len(size) != 2 or not all(isinstance(length, int) for length in size):
            raise ConfigError(f"size is {size!r}; give (height, width) in pixels, such as (64, 64)")
        height, width = size
        largest = self.defaults.max_block_tokens
        if height % side or width % side or height < side or width < side:
            raise ConfigError(
                f"size {height}x{width} is not a multiple of {side}; try {max(1, height // side) * side}"
                f"x{max(1, width // side) * side}"
            )
        if height * width > largest * side * side:
            raise ConfigError(
                f"size {height}x{width} is more than this model draws ({largest} squares of {side}x{side} pixels); "
                "choose a smaller one"
            )
        return height // side, width // side

    def describe(self) -> dict[str, Any]:
        """Return what the model is, for `omni inspect`."""
        config = self.model.config
        return {
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "codec_parameters": {n: sum(p.numel() for p in c.parameters()) for n, c in self.codecs.items()},
            "text_ids": config.num_text_ids,
            "layers": config.num_layers,
            "heads": config.num_heads,
            "experts": config.experts,
            "modalities": ["text", *config.stream_of],
            "defaults": asdict(self.defaults),
            "adapters": self.adapters.active,
        }


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _guidance(guidance_scale: Any, image_scale: Any) -> GuidanceConfig:
    for name, scale in (("guidance_scale", guidance_scale), ("image_scale", image_scale)):
        if not isinstance(scale, (int, float)) or isinstance(scale, bool):
            raise ConfigError(f"{name} is {scale!r}; give a number, 1 for none")
    return GuidanceConfig(scale=guidance_scale, image_scale=image_scale)


def _seeds(seed: Any, count: int) -> list[int]:
    """Return a seed for each of several results; one number counts up, and none draws."""
    if seed is None:
        return [secrets.randbelow(MAX_SEED) for _ in range(count)]
    seeds = list(seed) if _is_list(seed) else [seed]
    for one in seeds:
        if not isinstance(one, Integral) or isinstance(one, bool) or one < 0:
            raise ConfigError(f"seed is {one!r}; give a whole number from 0 on")
    if not _is_list(seed):
        return [int(seed) + number for number in range(count)]
    if len(seeds) != count:
        raise InputError(f"{count} results need as many seeds, not {len(seeds)}; give one number to count up from")
    return [int(one) for one in seeds]
