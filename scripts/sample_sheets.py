"""Sheets of samples, none of them chosen, of the test split: combinations that training never saw.

python scripts/sample_sheets.py pictures MODEL FILE.png    drawn pictures, as many as --count
python scripts/sample_sheets.py tasks MODEL FOLDER         a sheet for every task that the model can do

A row of a task's sheet is a conversation up to the first answer: what the user says and shows, then, behind the arrow,
what the model answers. Films are four of their frames, sounds are spectrograms (0 to 8 kHz, upwards).
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

# A script is started by its path, and would find the project's packages only where they are installed.
sys.path.insert(0, str(Path(__file__).parents[1]))

from omni import Omni, OmniError  # noqa: E402
from omni.errors import ConfigError  # noqa: E402
from omni.parts import Audio, Image, Part, Text, Video  # noqa: E402

PICTURES = ("text_to_image", "edit", "caption_image", "question", "chat")
FILMS = ("text_to_video", "image_to_video", "caption_video", "world", "story")
SOUNDS = ("speech", "notes", "sound", "speech_to_text", "caption_audio")
BOTH = ("audio_video", "video_to_audio", "audio_to_video")
COLUMNS, SIDE, NUM_FRAMES = 8, 64, 4
Pixels = NDArray[np.uint8]
Cell = tuple[Pixels, str]

Model = Annotated[str, typer.Argument(help="model folder")]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def tasks_of(omni: Omni, named: str) -> list[str]:
    """Return the tasks of a model's modalities, or those that are named, a,b."""
    from training.world.tasks import TASKS

    if named:
        for task in named.split(","):
            if task not in TASKS:
                raise ConfigError(f"--only: {task!r} is no task; choose of {', '.join(sorted(TASKS))}")
        return named.split(",")
    held = set(omni.model.config.stream_of)
    found = [*PICTURES, *(FILMS if "video" in held else ()), *(SOUNDS if "audio" in held else ())]
    return [*found, *(BOTH if {"video", "audio"} <= held else ())]


def spectrogram(sound: Audio) -> Pixels:
    """Draw the loudness of a recording's first channel over time and frequency, [128, 128, 3]."""
    size = 2 * SIDE * 2
    samples = np.pad(sound.samples[0], (0, max(0, size - sound.samples.shape[1])))
    starts = np.linspace(0, len(samples) - size, 2 * SIDE).astype(int)
    frames = np.stack([samples[start : start + size] * np.hanning(size) for start in starts])
    loudness = np.log10(np.abs(np.fft.rfft(frames))[:, 1:] + 1e-3).T[::-1]  # [frequencies, frames]
    shades = np.clip((loudness + 3) / 5 * 255, 0, 255).astype(np.uint8)
    return np.repeat(shades[..., None], 3, axis=-1)


def cells(part: Part, words: str) -> Iterator[Cell]:
    """Yield the cells of a part, with words below the first."""
    blank = np.full((SIDE, SIDE, 3), 255, np.uint8)
    match part:
        case Text():
            yield blank, words + part.text
        case Image():
            yield part.pixels, words
        case Video():
            for place in np.linspace(0, len(part.frames) - 1, NUM_FRAMES).astype(int):
                yield part.frames[place], words if place == 0 else f"frame {place + 1} of {len(part.frames)}"
        case Audio():
            yield spectrogram(part), f"{words}{part.samples.shape[1] / part.sample_rate:.1f} s of sound"


def row(omni: Omni, task: str, number: int) -> tuple[list[Cell], list[Part]]:
    """Have one conversation; return its cells and the parts of the answer."""
    from training.exams.room import FIRST_FRESH_SEED, as_given
    from training.world.tasks import document

    messages = document(task, FIRST_FRESH_SEED + number, "test").messages
    count = next(n for n, message in enumerate(messages) if message["role"] == "assistant")
    asked = [{**message, "content": [as_given(item) for item in message["content"]]} for message in messages[:count]]
    reply = omni.chat(asked, seed=number)
    found: list[Cell] = []
    for message in asked:
        for item in message["content"]:
            part = Text(item["text"]) if item["type"] == "text" else item.get("video") or item.get("audio")
            found += cells(part if part is not None else Image(item["image"]), "")
    for part in reply.parts:
        found += cells(part, "-> ")
    return found, list(reply.parts)


def save_media(parts: Sequence[Part], path: Path) -> None:
    """Write the films and recordings of an answer."""
    for number, part in enumerate(parts):
        if isinstance(part, Video):
            part.save(path.with_name(f"{path.name}-{number}.mp4"))
        elif isinstance(part, Audio):
            part.save(path.with_name(f"{path.name}-{number}.wav"))


@app.command()
def pictures(
    model: Model,
    file: Annotated[Path, typer.Argument(help="PNG to write")],
    count: Annotated[int, typer.Option(help="pictures")] = 48,
    seed: Annotated[int, typer.Option(help="of requests and noise")] = 0,
) -> None:
    """Have fresh requests drawn, on one sheet."""
    from training.exams.room import FIRST_FRESH_SEED, shape_of, words_of
    from training.sheets import contact_sheet
    from training.world.tasks import document

    omni = Omni.from_pretrained(model)
    examples = [document("text_to_image", FIRST_FRESH_SEED + seed + number, "test") for number in range(count)]
    prompts, drawn = [words_of(example.messages[0]) for example in examples], {}
    for size in dict.fromkeys(map(shape_of, examples)):
        numbers = [number for number, example in enumerate(examples) if shape_of(example) == size]
        images = omni.image([prompts[number] for number in numbers], size=size, seed=[seed + n for n in numbers])
        drawn |= {number: image.pixels for number, image in zip(numbers, images, strict=True)}
    contact_sheet([drawn[number] for number in range(count)], prompts).save(file)


@app.command()
def tasks(
    model: Model,
    folder: Annotated[Path, typer.Argument(help="where the sheets go")],
    rows: Annotated[int, typer.Option(help="conversations of each task")] = 6,
    only: Annotated[str, typer.Option(help="these tasks, a,b; all that the model can do where left out")] = "",
    media: Annotated[bool, typer.Option(help="also write films and recordings as files")] = False,
) -> None:
    """Hold conversations of every task and write a sheet of each."""
    from training.sheets import contact_sheet

    folder.mkdir(parents=True, exist_ok=True)
    blank = np.full((SIDE, SIDE, 3), 255, np.uint8)
    omni = Omni.from_pretrained(model)
    for task in tasks_of(omni, only):
        sheet: list[Cell] = []
        for number in range(rows):
            found, parts = row(omni, task, number)
            sheet += [*found, *[(blank, "")] * (-len(found) % COLUMNS)]
            if media:
                save_media(parts, folder / f"{task}-{number}")
        images, words = zip(*sheet, strict=True)
        contact_sheet(images, words, columns=COLUMNS).save(folder / f"{task}.png")
        typer.echo(folder / f"{task}.png")


if __name__ == "__main__":
    try:
        app()
    except OmniError as error:
        sys.exit(f"error: {error}")
