"""Omni: chat, draw, edit and caption with one object."""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from PIL import Image as PILImage

from omni.chat import ChatTemplate, Turn, medium_from_latents, open_reply, to_document
from omni.checkpoint import Defaults, load_folder, save_folder
from omni.codecs.vision import VisionCodec
from omni.errors import ConfigError, InputError
from omni.generate import Event, GenerationSettings, Generator, MediaFinished, Request, TextDelta
from omni.guidance import GuidanceConfig
from omni.limits import Limits
from omni.memory import keep_freed_memory
from omni.messages import Message, message_to_dict, parse_messages
from omni.model import OmniModel
from omni.parts import Image, Part, Text
from omni.sequence import Medium
from omni.text import TextTokenizer

__all__ = ["Finished", "Omni", "Reply"]

SHIPPED = Path(__file__).parent / "weights" / "nano"
CAPTION_REQUEST = "Describe this picture."
MAX_SEED = 2**31


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
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
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


def _fit(image: Image, *, step: int, max_tokens: int) -> np.ndarray:
    """Resize a picture to sides that are multiples of step, with at most max_tokens of them; uint8 [H, W, 3]."""
    height, width = image.height, image.width
    shrink = min(1.0, (max_tokens * step * step / (height * width)) ** 0.5)
    rows, columns = max(1, round(height * shrink / step)), max(1, round(width * shrink / step))
    while rows * columns > max_tokens:
        rows, columns = (rows - 1, columns) if rows > columns else (rows, columns - 1)
    rows, columns = max(1, min(rows, max_tokens)), max(1, min(columns, max_tokens))
    if (height, width) == (rows * step, columns * step):
        return image.pixels
    resized = image.to_pil().resize((columns * step, rows * step), PILImage.Resampling.LANCZOS)
    return np.asarray(resized)


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
        """
        keep_freed_memory()
        folder = SHIPPED if path is None else Path(path)
        if path is not None and not folder.exists() and str(path).count("/") == 1:
            from huggingface_hub import snapshot_download

            folder = Path(snapshot_download(str(path), allow_patterns=["*.json", "*.safetensors", "*.model", "*.md"]))
        model, tokenizer, codecs, defaults = load_folder(folder, dtype=dtype)
        return cls(model.to(device), tokenizer, {name: codec.to(device) for name, codec in codecs.items()}, defaults)

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
        seed = secrets.randbelow(MAX_SEED) if seed is None else seed
        options, request_options = self._settings(settings | {"previews": previews})
        requests = [self._request(messages, seed=seed, forced=None, **request_options)]
        parts: list[Part] = []
        for _, event in self._generator.run(requests, options, should_stop=should_stop):
            _collect(parts, event)
            yield event
        yield Finished(Reply(tuple(parts), seed))

    def generate(
        self, conversations: Sequence[Any], *, seed: Sequence[int] | None = None, **settings: Any
    ) -> list[Reply]:
        """Answer many conversations in one batch; each as it would be answered alone.

        Args:
            conversations: what chat takes, several times.
            seed: one for each.
            settings: as in chat.
        """
        return self._run(conversations, seed=seed, forced=None, settings=settings)

    def _run(
        self,
        conversations: Sequence[Any],
        *,
        seed: Sequence[int] | None,
        forced: Sequence[tuple[str, tuple[int, ...]] | None] | None,
        settings: dict[str, Any],
    ) -> list[Reply]:
        if isinstance(conversations, (str, dict)):
            raise InputError("generate takes a list of conversations; use chat for a single one")
        seeds = [secrets.randbelow(MAX_SEED) for _ in conversations] if seed is None else list(seed)
        if len(seeds) != len(conversations):
            raise InputError(f"{len(conversations)} conversations need as many seeds, not {len(seeds)}")
        shapes = forced or [None] * len(conversations)
        options, request_options = self._settings(settings)
        requests = [
            self._request(messages, seed=one, forced=shape, **request_options)
            for messages, one, shape in zip(conversations, seeds, shapes, strict=True)
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
            seed: a number, or one for each prompt.
            settings: as in chat.
        """
        return self._forced([[_user(Text(p))] for p in _as_list(prompt)], prompt, size, seed, settings)

    def edit(self, image: Any, instruction: Any, *, seed: Any = None, **settings: Any) -> Any:
        """Change a picture, or each of a list by its own instruction; the result has the picture's shape.

        Args:
            image: anything Image.load takes, or a list.
            instruction: what to change, or as many.
            seed, settings: as in image.
        """
        images = [Image.load(one) for one in _as_list(image)]
        wishes = _as_list(instruction)
        if len(images) != len(wishes):
            raise InputError(f"{len(images)} pictures need as many instructions, not {len(wishes)}")
        turns = [[_user(one, Text(wish))] for one, wish in zip(images, wishes, strict=True)]
        return self._forced(turns, image, [self._fitted(one).shape[:2] for one in images], seed, settings)

    def caption(self, image: Any, *, seed: Any = None, **settings: Any) -> Any:
        """Describe a picture in words, or each of a list.

        Args:
            image: anything Image.load takes, or a list.
            seed, settings: as in image.
        """
        turns = [[_user(Image.load(one), Text(CAPTION_REQUEST))] for one in _as_list(image)]
        seeds = _seeds(seed, len(turns))
        replies = self._run(turns, seed=seeds, forced=None, settings={"max_media": 0} | settings)
        return [r.text.strip() for r in replies] if _is_list(image) else replies[0].text.strip()

    def _forced(self, turns: list[Any], asked: Any, size: Any, seed: Any, settings: dict[str, Any]) -> Any:
        sizes = size if isinstance(size, list) else [size] * len(turns)
        shapes = [("image", self._shape(one)) for one in sizes]
        replies = self._run(turns, seed=_seeds(seed, len(turns)), forced=shapes, settings=settings)
        images = [
            replace(r.images[0], metadata={"prompt": t[0].text, "seed": r.seed})
            for r, t in zip(replies, turns, strict=True)
        ]
        return images if _is_list(asked) else images[0]

    # From messages to requests.

    def _settings(self, given: dict[str, Any]) -> tuple[GenerationSettings, dict[str, Any]]:
        """Split the caller's settings into those of generation and those of reading the messages."""
        given = dict(given)
        reading = {name: given.pop(name) for name in ("allow_urls", "limits") if name in given}
        if "guidance_scale" in given and "guidance" in given:
            raise ConfigError("guidance and guidance_scale both set the scale; give one of them")
        scale = given.pop("guidance_scale", self.defaults.guidance_scale)
        if given.get("size") is not None:
            given["shape"] = self._shape(given["size"])
        given.pop("size", None)
        defaults = {
            "steps": self.defaults.steps,
            "max_block_tokens": self.defaults.max_block_tokens,
            "guidance": GuidanceConfig(scale=scale),
        }
        known = set(GenerationSettings.__dataclass_fields__)
        for name in given:
            if name not in known:
                raise ConfigError(
                    f"{name!r} is no setting; known are {', '.join(sorted(known | {'guidance_scale', 'size'}))}"
                )
        return GenerationSettings(**(defaults | given)), reading

    def _request(
        self,
        messages: Any,
        *,
        seed: int,
        forced: tuple[str, tuple[int, ...]] | None,
        allow_urls: bool = False,
        limits: Limits | None = None,
    ) -> Request:
        is_parsed = isinstance(messages, list) and all(isinstance(m, Message) for m in messages) and messages
        parsed = messages if is_parsed else parse_messages(messages, limits=limits, allow_urls=allow_urls)
        if parsed[-1].role != "user":
            raise InputError(f"the last message is the {parsed[-1].role}'s; end with a user message to be answered")
        turns = [Turn(m.role, tuple(self._item(part) for part in m.parts)) for m in parsed]
        document = to_document(turns, tokenizer=self.tokenizer, template=self.template)
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise InputError(f"seed is {seed!r}; give a whole number from 0 on")
        return Request(open_reply(document, self.template), seed, forced)

    def _item(self, part: Part) -> str | Medium:
        if isinstance(part, Text):
            return part.text
        stream, patch_size, codec = self._vision()
        pixels = torch.from_numpy(np.ascontiguousarray(self._fitted(part)))
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
        height, width = size
        largest = self.defaults.max_block_tokens
        if height % side or width % side or height < side or width < side:
            raise InputError(
                f"size {height}x{width} is not a multiple of {side}; try {max(1, height // side) * side}"
                f"x{max(1, width // side) * side}"
            )
        if height * width > largest * side * side:
            raise InputError(
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


def _seeds(seed: Any, count: int) -> list[int] | None:
    """Return a seed for each of several results; one number counts up."""
    if seed is None or _is_list(seed):
        return seed
    return [seed + number for number in range(count)]
