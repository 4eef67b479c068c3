"""A world that is played: each action is answered by the next frames of one film."""

import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from omni.chat import ACTIONS, Turn, open_reply, to_document
from omni.errors import ConfigError, InputError
from omni.generate import Forced, Request
from omni.guidance import Branch
from omni.parts import Video
from omni.reader import Reader
from omni.reply import collect
from omni.sequence import Medium, Segment, TextRun
from omni.settings import GenerationSettings
from omni.studio import DEFAULT_FPS

if TYPE_CHECKING:
    from omni.parts import Part
    from omni.pipeline import Omni

__all__ = ["World", "without_first_answer"]

PLAY_REQUEST = "Let me play with {prompt}."
MAX_SEED = 2**31


def without_first_answer(document: Sequence[Segment]) -> list[Segment]:
    """Leave out a world's first action and the frames that answered it; what follows is that much earlier.

    Args:
        document: the wish, the first picture, then two answered actions or more.
    """
    first, dropped, after = [n for n, segment in enumerate(document) if isinstance(segment, Medium)][:3]
    shift = document[after].grids[0].seconds[0] - document[dropped].grids[0].seconds[0]  # type: ignore[union-attr]

    def earlier(segment: Segment) -> Segment:
        if not isinstance(segment, Medium):
            return segment
        grids = (replace(grid, seconds=tuple(second - shift for second in grid.seconds)) for grid in segment.grids)
        return replace(segment, grids=tuple(grids))

    return [*document[: first + 1], *map(earlier, document[dropped + 1 :])]


class World:
    """A world that goes on as long as actions are sent.

    Args:
        omni: whose world it is.
        prompt: who is played, and where.
        shape: (rows, columns) of a latent frame, in tokens.
        memory: answered actions, behind the first picture, by which the next frames go; 0 for all.
        seed: of the noise; drawn where left out.
        settings: of generation.

    Attributes:
        actions: what can be sent.
        first: the first picture, a film of one frame.
        memory: as given.
        seed: with which the same actions give the same world.
    """

    actions = ACTIONS

    def __init__(
        self,
        omni: "Omni",
        prompt: str,
        *,
        shape: tuple[int, int],
        memory: int,
        seed: int | None,
        settings: GenerationSettings,
    ) -> None:
        if not isinstance(prompt, str) or not prompt.strip():
            raise InputError(f"prompt is {prompt!r}; say who is played, and where, such as 'a fox on grass'")
        if not isinstance(memory, int) or isinstance(memory, bool) or memory < 0:
            raise ConfigError(f"memory is {memory!r}; give a whole number of actions, 0 for all")
        self.memory = memory
        self._num_answered = 0
        self.seed = secrets.randbelow(MAX_SEED) if seed is None else seed
        self._omni = omni
        self._settings = settings
        self._num_blocks = 0
        self._reader = Reader(omni.model, num_rows=len(Branch))
        turns = [Turn("user", (PLAY_REQUEST.format(prompt=prompt),))]
        document = to_document(turns, tokenizer=omni.tokenizer, template=omni.template)
        self._document: list[Segment] = open_reply(document, omni.template)
        self.first = self._go_on(Forced("video", (1, *shape, DEFAULT_FPS, 0)))

    def send(self, action: str) -> Video:
        """Do something, and return the next frames.

        Args:
            action: one of `actions`.

        Raises:
            InputError: there is no such action, or the world has become too long to remember.
        """
        template = self._omni.template
        run = template.action_run(action)
        if self._reader.cache.lengths[0] > self._omni.defaults.max_context_tokens:
            raise InputError("this world has become too long to remember; open a new one with omni.play")
        end, user, assistant = template.end, template.roles["user"], template.roles["assistant"]
        self._document += [TextRun((end, user)), run, TextRun((end, assistant))]
        video = self._go_on(Forced("continue", (1, 0)))
        self._num_answered += 1
        if self.memory and self._num_answered > self.memory:
            self._document = without_first_answer(self._document)
            self._num_answered -= 1
        return video

    def _go_on(self, forced: Forced) -> Video:
        request = Request(self._document, self.seed, (forced,), num_blocks=self._num_blocks)
        parts: list[Part] = []

        def remember(number: int, document: list[Segment]) -> None:
            self._document = document

        generator = self._omni._generator
        for _, event in generator.run([request], self._settings, reader=self._reader, on_document=remember):
            collect(parts, event)
        self._num_blocks += 1
        (video,) = parts
        assert isinstance(video, Video)
        return video
