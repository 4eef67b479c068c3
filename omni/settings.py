"""How to generate: every dial of a reply, checked as it is set."""

import math
from dataclasses import dataclass

from omni.chat import LARGEST_NUMBER
from omni.errors import ConfigError
from omni.guidance import GuidanceConfig
from omni.solvers import SOLVERS

__all__ = ["GenerationSettings"]


@dataclass(frozen=True)
class GenerationSettings:
    """How to generate.

    Attributes:
        steps: of the solver, for each medium.
        solver: a key of solvers.SOLVERS.
        guidance: how strongly conditions are enforced.
        temperature: of text; 0 takes the likeliest id.
        top_p: share of probability kept when sampling text (arXiv:1904.09751).
        max_new_tokens: ids written at most, headers included; a header that has begun is finished.
        max_media: media made at most, blocks that go on with a film not counted; 0 forbids them.
        max_block_tokens: latent tokens of one picture, or of one latent frame of a film, at most.
        max_video_tokens: latent tokens of one block of a film at most.
        max_audio_tokens: latents of one recording, or of one block's sound, at most.
        shape: the only (rows, columns) allowed of pictures and films; the model's choice where None.
        sound: whether films have sound; the model's choice where None.
        previews: whether to yield MediaPreview.

    Raises:
        ConfigError: a value is of the wrong kind or out of range.
    """

    steps: int = 24
    solver: str = "euler"
    guidance: GuidanceConfig = GuidanceConfig()
    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 256
    max_media: int = 8
    max_block_tokens: int = 64
    max_video_tokens: int = 256
    max_audio_tokens: int = 128
    shape: tuple[int, int] | None = None
    sound: bool | None = None
    previews: bool = False

    def __post_init__(self) -> None:
        least_of = {"steps": 1, "max_new_tokens": 0, "max_media": 0}
        least_of |= {"max_block_tokens": 1, "max_video_tokens": 1, "max_audio_tokens": 1}
        for name, least in least_of.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"{name} is {value!r}; give a whole number from {least} on")
        for name, is_legal, legal in (
            ("temperature", lambda value: 0 <= value < math.inf, "0 or more"),
            ("top_p", lambda value: 0 < value <= 1, "above 0 and at most 1"),
        ):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not is_legal(value):
                raise ConfigError(f"{name} is {value!r}; give a number, {legal}")
        shape = self.shape if self.shape is not None else (1, 1)
        if len(shape) != 2 or not all(isinstance(number, int) and 1 <= number <= LARGEST_NUMBER for number in shape):
            raise ConfigError(f"shape is {shape!r}; give (rows, columns) of a picture, each from 1 to {LARGEST_NUMBER}")
        if self.sound not in (None, True, False):
            raise ConfigError(f"sound is {self.sound!r}; give True, False, or None for the model's choice")
        if self.solver not in SOLVERS:
            raise ConfigError(f"solver is {self.solver!r}; choose one of {', '.join(SOLVERS)}")
        if not isinstance(self.guidance, GuidanceConfig):
            raise ConfigError(f"guidance is {self.guidance!r}; give a GuidanceConfig, or guidance_scale, a number")
