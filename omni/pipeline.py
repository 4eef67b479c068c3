"""Omni: chat, draw, edit and caption with one object."""

import difflib
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from PIL import Image as PILImage

from omni.chat import LARGEST_NUMBER, ChatTemplate, Turn, medium_from_latents, open_reply, to_document
from omni.checkpoint import Defaults, load_folder, save_folder
from omni.codecs.vision import VisionCodec
from omni.errors import ConfigError, InputError
from omni.generate import Event, GenerationSettings, Generator, MediaFinished, Request, TextDelta
from omni.guidance import GuidanceConfig, require_effect
from omni.limits import Limits
from omni.memory import keep_freed_memory
from omni.messages import Message, message_to_dict, parse_messages
from omni.model import OmniModel
from omni.parts import Image, Part, Text
from omni.sequence import Medium, TextRun
from omni.text import TextTokenizer

__all__ = ["Finished", "Omni", "Reply"]

SHIPPED = Path(__file__).parent / "weights" / "nano"
CAPTION_REQUEST = "Describe this picture."
MAX_SEED = 2**31
# Settings that say how messages are read, not how the answer is made.
READING = ("allow_urls", "limits")

# The modality and the shape of a picture that a reply consists of; None where the model chooses.
Forced = tuple[str, tuple[int, ...]] | None


@dataclass(frozen=True)
class Reply:
    """What the model answered.

    Attributes:
        parts: text and media, in the order in which they were written.
        seed: with which the same answer comes again.
    """

    parts: tuple[Part, ...]
    seed: int

    @property
    def text(self) -> str:
        """All text parts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def images(self) -> list[Image]:
        """The pictures."""
        return [part for part in self.parts if isinstance(part, Image)]

    @property
    def message(self) -> dict[str, Any]:
        """The reply as a message, to go on with the conversation."""
        return message_to_dict(Message("assistant", self.parts))

    def save(self, folder: str | Path) -> None:
        """Write reply.md, with the media beside it.

        Args:
            folder: made where it does not exist.

        Raises:
            InputError: it cannot be made.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"Cannot make the folder {folder} ({error.strerror}); choose another place.") from error
        lines = []
        for number, part in enumerate(self.parts, start=1):
            if isinstance(part, Text):
                lines.append(part.text.strip())
            else:
                part.save(folder / f"{number}.png")
                lines.append(f"![picture {number}]({number}.png)")
        text = "\n\n".join(lines) + "\n"
        (folder / "reply.md").write_text(text, encoding="utf-8", errors="surrogatepass")


@dataclass(frozen=True)
class Finished:
    """The reply is complete, or was stopped; what was done by then is in it."""

    reply: Reply


def _device(name: str) -> torch.device:
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device is {name!r}, which cannot be used here ({reason}); try 'cpu'") from error
    return torch.device(name)


def _fit(image: Image, *, step: int, max_tokens: int) -> np.ndarray:
    """Resize a picture to sides that are multiples of step, with at most max_tokens of them; uint8 [H, W, 3]."""
    height, width = image.height, image.width
    shrink = min(1.0, (max_tokens * step * step / (height * width)) ** 0.5)
    rows, columns = round(height * shrink / step), round(width * shrink / step)
    if rows * columns > max_tokens:  # rounded up; a little smaller keeps the proportions
        rows, columns = int(height * shrink / step), int(width * shrink / step)
    largest = min(max_tokens, LARGEST_NUMBER)
    rows, columns = min(max(rows, 1), largest), min(max(columns, 1), largest)
    if (height, width) == (rows * step, columns * step):
        return image.pixels
    return np.array(image.to_pil().resize((columns * step, rows * step), PILImage.Resampling.LANCZOS))


class Omni:
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
        codecs: Mapping[str, VisionCodec],
        defaults: Defaults | None = None,
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.codecs = dict(codecs)
        self.defaults = defaults or Defaults()
        self.template = ChatTemplate(tokenizer.control)
        self._generator = Generator(self.model, tokenizer, self.codecs)

    @classmethod
    def from_pretrained(
        cls, path: str | Path | None = None, *, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> "Omni":
        """Load a model.

        Args:
            path: a folder, or a name on the Hugging Face Hub; the shipped model where left out.
            device: where it runs.
            dtype: of its weights in memory.

        Raises:
            CheckpointError: the folder is incomplete or damaged.
            ConfigError: the device is not there.
        """
        keep_freed_memory()
        place = _device(device)
        model, tokenizer, codecs, defaults = load_folder(SHIPPED if path is None else path, dtype=dtype)
        codecs = {name: codec.to(place) for name, codec in codecs.items()}
        return cls(model.to(place), tokenizer, codecs, defaults)

    def save_pretrained(self, path: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Write a self-contained model folder.

        Args:
            path: made where it does not exist.
            dtype: of the weights on disk; as in memory where left out.
        """
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

    # Conversations.

    def chat(self, messages: Any, *, seed: int | None = None, **settings: Any) -> Reply:
        """Answer a conversation.

        Args:
            messages: a str, a message, or a list of messages in the chat form.
            seed: the same one gives the same answer; drawn, and kept in the reply, where left out.
            settings: steps, guidance_scale, max_new_tokens, and the other fields of GenerationSettings;
                guidance (a GuidanceConfig) in place of guidance_scale; size, the (height, width) in pixels of every
                picture, which else the model chooses; allow_urls; limits.

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
        requests = [self._request(messages, seed=number, forced=None, reading=reading, options=options)]
        parts: list[Part] = []
        for _, event in self._generator.run(requests, options, should_stop=should_stop):
            _collect(parts, event)
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
        forced: Sequence[Forced] | None,
        settings: Mapping[str, Any],
    ) -> list[Reply]:
        if not _is_list(conversations):
            raise InputError("generate takes a list of conversations; use chat for a single one")
        seeds = _seeds(seed, len(conversations))
        options, reading = self._settings(settings)
        requests = [
            self._request(messages, seed=one, forced=shape, reading=reading, options=options)
            for messages, one, shape in zip(conversations, seeds, forced or [None] * len(seeds), strict=True)
        ]
        parts: list[list[Part]] = [[] for _ in requests]
        for number, event in self._generator.run(requests, options) if requests else ():
            _collect(parts[number], event)
        return [Reply(tuple(mine), one) for mine, one in zip(parts, seeds, strict=True)]

    # One thing at a time.

    @overload
    def image(self, prompt: str, *, size: tuple[int, int] = ..., seed: Any = None, **settings: Any) -> Image: ...
    @overload
    def image(
        self, prompt: Sequence[str], *, size: tuple[int, int] = ..., seed: Any = None, **settings: Any
    ) -> list[Image]: ...
    def image(self, prompt: Any, *, size: tuple[int, int] = (64, 64), seed: Any = None, **settings: Any) -> Any:
        """Draw a picture, or one for each prompt of a list.

        Args:
            prompt: what to draw.
            size: (height, width) in pixels, multiples of 16.
            seed: one for each prompt, or the first of as many consecutive ones.
            settings: as in chat.
        """
        turns = [[_user(Text(one))] for one in _as_list(prompt)]
        images = self._forced(turns, [self._shape(size)] * len(turns), seed, settings)
        return images if _is_list(prompt) else images[0]

    def edit(self, image: Any, instruction: Any, *, seed: Any = None, **settings: Any) -> Any:
        """Change a picture, or each of a list by its own instruction; the result has the picture's shape.

        Args:
            image: anything Image.load takes, or a list.
            instruction: what to change, or as many.
            seed, settings: as in image.
        """
        images = self._load(image, settings)
        wishes = _as_list(instruction)
        if len(images) != len(wishes):
            raise InputError(f"{len(images)} pictures need as many instructions, not {len(wishes)}")
        turns = [[_user(one, Text(wish))] for one, wish in zip(images, wishes, strict=True)]
        shapes = [self._shape(self._fitted(one).shape[:2]) for one in images]
        edited = self._forced(turns, shapes, seed, settings)
        return edited if _is_list(image) else edited[0]

    def caption(self, image: Any, *, seed: Any = None, **settings: Any) -> Any:
        """Describe a picture in words, or each of a list.

        Args:
            image: anything Image.load takes, or a list.
            seed, settings: as in image.
        """
        turns = [[_user(one, Text(CAPTION_REQUEST))] for one in self._load(image, settings)]
        replies = self._run(turns, seed=seed, forced=None, settings={"max_media": 0} | settings)
        captions = [reply.text.strip() for reply in replies]
        return captions if _is_list(image) else captions[0]

    def _load(self, image: Any, settings: Mapping[str, Any]) -> list[Image]:
        _, reading = self._settings(settings)
        return [Image.load(one, **reading) for one in _as_list(image)]

    def _forced(self, turns: list[Any], shapes: list[Any], seed: Any, settings: Mapping[str, Any]) -> list[Image]:
        """Draw one picture of a given shape, in tokens, for each conversation."""
        if "shape" in settings or "size" in settings:
            raise ConfigError("the size of the picture is settled already; leave out shape and size")
        forced = [("image", shape) for shape in shapes]
        replies = self._run(turns, seed=seed, forced=forced, settings=settings)
        return [
            replace(reply.images[0], metadata={"prompt": turn[0].text, "seed": reply.seed})
            for reply, turn in zip(replies, turns, strict=True)
        ]

    # From messages to requests.

    def _settings(self, given: Mapping[str, Any]) -> tuple[GenerationSettings, dict[str, Any]]:
        """Split the caller's settings into those of generation and those of reading the messages."""
        known = {*GenerationSettings.__dataclass_fields__, "guidance_scale", "size", *READING}
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
                raise ConfigError(f"{name!r} is no setting; {hint}")
        for one, other in (("guidance", "guidance_scale"), ("shape", "size")):
            if given.get(one) is not None and given.get(other) is not None:
                raise ConfigError(f"{one} and {other} both set the same thing; give one of them")
        if not isinstance(given.get("limits"), Limits | None):
            raise ConfigError(f"limits is {given['limits']!r}; give an omni.limits.Limits")
        settings: dict[str, Any] = {"steps": self.defaults.steps, "max_block_tokens": self.defaults.max_block_tokens}
        settings |= {name: value for name, value in given.items() if name in GenerationSettings.__dataclass_fields__}
        if "guidance" not in given:
            settings["guidance"] = _guidance(given.get("guidance_scale", self.defaults.guidance_scale))
        if given.get("size") is not None:
            settings["shape"] = self._shape(given["size"])
        return GenerationSettings(**settings), {name: given[name] for name in READING if name in given}

    def _request(
        self,
        messages: Any,
        *,
        seed: int,
        forced: Forced,
        reading: Mapping[str, Any],
        options: GenerationSettings,
    ) -> Request:
        parsed = parse_messages(messages, **reading)
        if parsed[-1].role != "user":
            raise InputError(f"the last message is the {parsed[-1].role}'s; end with a user message to be answered")
        turns = [Turn(m.role, tuple(self._item(part) for part in m.parts)) for m in parsed]
        document = to_document(turns, tokenizer=self.tokenizer, template=self.template)
        num_tokens = sum(len(part.ids) if isinstance(part, TextRun) else part.num_tokens for part in document)
        if num_tokens > self.defaults.max_context_tokens:
            raise InputError(
                f"The conversation has {num_tokens} tokens; this model reads {self.defaults.max_context_tokens}: "
                "shorten it, or start a new one."
            )
        is_drawn_again = forced is None and options.max_media > 1
        has_media = is_drawn_again or any(isinstance(segment, Medium) for segment in document)
        require_effect(options.guidance, has_media=has_media)
        return Request(open_reply(document, self.template), seed, forced)

    def _item(self, part: Part) -> str | Medium:
        if isinstance(part, Text):
            return part.text
        stream, patch_size, codec = self._vision()
        pixels = torch.tensor(self._fitted(part))
        latents = codec.encode(pixels[None, None])[0]
        return medium_from_latents(latents, template=self.template, modality="image", patch_size=patch_size)

    def _vision(self) -> tuple[str, int, VisionCodec]:
        stream = self.model.config.stream_of.get("image")
        if stream is None:
            raise InputError("this model has no pictures; choose another model")
        return stream, self.model.config.streams[stream]["patch_size"], self.codecs[stream]

    def _token_side(self) -> int:
        _, patch_size, codec = self._vision()
        return patch_size * codec.spatial_factor

    def _fitted(self, image: Image) -> np.ndarray:
        return _fit(image, step=self._token_side(), max_tokens=self.defaults.max_block_tokens)

    def _shape(self, size: Any) -> tuple[int, int]:
        """Return a picture size in pixels as rows and columns of tokens."""
        side = self._token_side()
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
        }


def _collect(parts: list[Part], event: Event) -> None:
    """Add an event to the parts of a reply."""
    if isinstance(event, TextDelta):
        if parts and isinstance(parts[-1], Text):
            parts[-1] = Text(parts[-1].text + event.text)
        else:
            parts.append(Text(event.text))
    elif isinstance(event, MediaFinished):
        parts.append(event.part)


def _user(*parts: Part) -> Message:
    return Message("user", parts)


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _as_list(value: Any) -> list[Any]:
    return list(value) if _is_list(value) else [value]


def _guidance(scale: Any) -> GuidanceConfig:
    if not isinstance(scale, (int, float)) or isinstance(scale, bool):
        raise ConfigError(f"guidance_scale is {scale!r}; give a number, 1 for none")
    return GuidanceConfig(scale=scale)


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
