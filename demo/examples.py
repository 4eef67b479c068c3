"""What can be asked at one click: an example of every ability, in words that the model has learnt."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Example", "examples_for"]

SAMPLES = Path(__file__).with_name("samples")


@dataclass(frozen=True)
class Example:
    """A message to send.

    Attributes:
        text: what it says; no other example says the same.
        needs: the modalities without which no model can answer it.
        file: what comes with it, a name in demo/samples.
    """

    text: str
    needs: tuple[str, ...] = ()
    file: str = ""

    @property
    def files(self) -> list[str]:
        """The paths of what comes with it."""
        return [str(SAMPLES / self.file)] if self.file else []


EXAMPLES = (
    Example("Draw a fox to the left of a house.", ("image",)),
    Example("Draw three apples on a blue background.", ("image",)),
    Example("Make the background blue.", ("image",), "fox.png"),
    Example("Describe this picture.", ("image",), "fox.png"),
    Example("Where is the fox?", ("image",), "fox.png"),
    Example("Make a film of a ball rolling from the left to the right.", ("video",)),
    Example("Make the fox spin around.", ("image", "video"), "fox.png"),
    Example("Go on with this film.", ("video",), "car.mp4"),
    Example("What happens in this video?", ("video",), "car.mp4"),
    Example("Say: Here is a fox.", ("audio",)),
    Example("Play C E G on a piano.", ("audio",)),
    Example("Make the sound of a bell.", ("audio",)),
    Example("What do you hear?", ("audio",), "violin.wav"),
    Example("Make a film of a ball bouncing, with sound.", ("video", "audio")),
    Example('Film a happy face on blue saying "here is a fox", with sound.', ("video", "audio")),
    Example("Tell me a story about a fox, with pictures.", ("image", "video")),
    Example("What can you do?"),
    Example("What is a penguin?"),
)


def examples_for(modalities: Collection[str]) -> list[Example]:
    """Return the examples that a model of these modalities can answer."""
    return [example for example in EXAMPLES if set(example.needs) <= set(modalities)]
