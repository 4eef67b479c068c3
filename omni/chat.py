"""Messages <-> documents: the chat template, as data.

A document is <|bos|>, then for each message its role, its parts and <|end|>. A medium is written as its kind and
its shape (image: rows, columns, counted in latent tokens), its block, and <|media_end|>.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from einops import rearrange
from torch import Tensor

from omni.errors import InputError
from omni.sequence import Medium, Segment, TextRun
from omni.text import TextTokenizer

__all__ = ["Turn", "ChatTemplate", "medium_from_latents", "open_reply", "to_document", "to_latents"]

ROLES = ("system", "user", "assistant")
LARGEST_NUMBER = 255
# What a header says after its kind, each as one number.
HEADER_FIELDS: Mapping[str, tuple[str, ...]] = {"image": ("rows", "columns")}


@dataclass(frozen=True)
class Turn:
    """One message, ready for the model.

    Attributes:
        role: "system", "user" or "assistant".
        items: its parts in order; text as str, media as blocks.
    """

    role: str
    items: tuple[str | Medium, ...]


class ChatTemplate:
    """The control ids that the template uses.

    Args:
        control: maps a control token's name to its id.
    """

    def __init__(self, control: Callable[[str], int]) -> None:
        self.bos = control("<|bos|>")
        self.end = control("<|end|>")
        self.media_end = control("<|media_end|>")
        self.roles = {role: control(f"<|{role}|>") for role in ROLES}
        self.kinds = {kind: control(f"<|{kind}|>") for kind in HEADER_FIELDS}
        self.first_number = control("<|0|>")

    def kind_of(self, token: int) -> str | None:
        """Return the modality that an id announces, or None."""
        return next((kind for kind, known in self.kinds.items() if known == token), None)

    def number(self, value: int) -> int:
        """Return the id that writes a number.

        Raises:
            InputError: no id writes it.
        """
        if not 0 <= value <= LARGEST_NUMBER:
            raise InputError(f"a shape of {value} tokens cannot be written; at most {LARGEST_NUMBER} along an axis")
        return self.first_number + value

    def header(self, kind: str, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the ids that announce a medium of a shape, numbers in the order of HEADER_FIELDS."""
        return (self.kinds[kind], *(self.number(value) for value in shape))


def medium_from_latents(
    latents: Tensor, *, template: ChatTemplate, modality: str, patch_size: int, is_target: bool = False
) -> Medium:
    """Cut codec latents into tokens.

    Args:
        latents: normalised, [frames, height, width, channels]; height and width multiples of patch_size.
        template: control ids.
        modality: what the latents are of.
        patch_size: latent positions along each side of a token.
        is_target: whether the model is trained to make them.
    """
    tokens = rearrange(latents, "f (r p) (c q) d -> f r c (p q d)", p=patch_size, q=patch_size)
    header = template.header(modality, tokens.shape[1:3])
    return Medium(modality, header, template.media_end, tokens, is_target)


def to_latents(tokens: Tensor, *, patch_size: int) -> Tensor:
    """Undo the cutting of medium_from_latents: [frames, rows, columns, C] -> [frames, height, width, channels]."""
    return rearrange(tokens, "f r c (p q d) -> f (r p) (c q) d", p=patch_size, q=patch_size)


def to_document(
    turns: Sequence[Turn], *, tokenizer: TextTokenizer, template: ChatTemplate, is_training: bool = False
) -> list[Segment]:
    """Write messages as a document.

    Args:
        turns: the conversation.
        tokenizer: of the text.
        template: control ids.
        is_training: whether what the assistant wrote is to be learnt: its words, headers, media and ends.
    """
    document: list[Segment] = [TextRun((template.bos,))]
    for turn in turns:
        learns = is_training and turn.role == "assistant"
        document.append(TextRun((template.roles[turn.role],)))
        for item in turn.items:
            if isinstance(item, Medium):
                document.append(replace(item, is_target=learns))
            elif item:
                document.append(TextRun(tuple(tokenizer.encode(item)), is_target=learns))
        document.append(TextRun((template.end,), is_target=learns))
    return document


def open_reply(document: Sequence[Segment], template: ChatTemplate) -> list[Segment]:
    """Return the document with the assistant's turn begun."""
    return [*document, TextRun((template.roles["assistant"],))]
