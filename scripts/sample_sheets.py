"""Sheets of samples, none of them chosen, of the test split: combinations that training never saw.

python scripts/sample_sheets.py pictures MODEL FILE.png    drawn pictures, as many as --count
python scripts/sample_sheets.py films MODEL FILE.webp      films side by side, moving
python scripts/sample_sheets.py sounds MODEL FILE.mp3      a sentence, a tune and a sound, one after another
python scripts/sample_sheets.py tasks MODEL FOLDER         a sheet for every task that the model can do

A row of a task's sheet is a conversation up to the first answer: what the user says and shows, then, behind the arrow,
what the model answers; words stand below what is shown with them. Films are four of their frames, sounds are
spectrograms (0 to 8 kHz, upwards).
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

# A script is started by its path, and would find the project's packages only where they are installed.
sys.path.insert(0, str(Path(__file__).parents[1]))

from omni import Omni, OmniError  # noqa: E402
from omni.errors import ConfigError  # noqa: E402
from omni.parts import Audio, Image, Part, Text, Video  # noqa: E402

# What is asked for in a chat; a region or a last frame is given to `Omni.inpaint` and `Omni.animate` alone.
PICTURES = ("text_to_image", "edit", "caption_image", "question", "chat", "recall")
FILMS = ("text_to_video", "image_to_video", "continuation", "caption_video", "question_video", "world", "story")
SOUNDS = ("speech", "notes", "sound", "speech_to_text", "caption_audio", "question_audio", "spoken_request")
BOTH = ("audio_video", "video_to_audio", "audio_to_video", "speaking_film", "playing_film")
COLUMNS, SIDE, NUM_FRAMES = 8, 64, 4
FRAMES_A_SECOND, HELD = 8, 8  # of films side by side; HELD: frames for which the last one stays
RATE = 16000
Pixels = NDArray[np.uint8]
Cell = tuple[Pixels | None, str]

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
    """Yield the cells of a picture, film or recording, with words below the first."""
    match part:
        case Image():
            yield part.pixels, words
        case Video():
            for place in np.linspace(0, len(part.frames) - 1, NUM_FRAMES).astype(int):
                yield part.frames[place], words if place == 0 else f"frame {place + 1} of {len(part.frames)}"
        case Audio():
            yield spectrogram(part), f"{words} ({part.duration_s:.1f} s of sound)".lstrip()


def laid_out(parts: Iterable[Part], words: str) -> list[Cell]:
    """Return the cells of what somebody says: words stand below what is then shown, or what was shown before them."""
    found: list[Cell] = []
    for part in parts:
        if isinstance(part, Text):
            words += part.text
            continue
        found += cells(part, words)
        words = ""
    if words.strip():
        if found and not found[0][1]:
            found[0] = (found[0][0], words)
        else:
            found.append((None, words))
    return found


def first_turn(omni: Omni, task: str, number: int) -> tuple[list[dict[str, Any]], list[Part]]:
    """Have one conversation up to the first answer; return what was said to the model, and the answer's parts."""
    from training.exams.room import FIRST_FRESH_SEED, as_given
    from training.world.tasks import document

    messages = document(task, FIRST_FRESH_SEED + number, "test").messages
    count = next(n for n, message in enumerate(messages) if message["role"] == "assistant")
    asked = [{**message, "content": [as_given(item) for item in message["content"]]} for message in messages[:count]]
    return asked, list(omni.chat(asked, seed=number).parts)


def row(omni: Omni, task: str, number: int) -> tuple[list[Cell], list[Part]]:
    """Have one conversation; return its cells and the parts of the answer."""
    asked, parts = first_turn(omni, task, number)
    items = [item for message in asked for item in message["content"]]
    shown = [Text(item["text"]) if item["type"] == "text" else _shown(item) for item in items]
    return [*laid_out(shown, ""), *laid_out(parts, "-> ")], parts


def _shown(item: dict[str, Any]) -> Part:
    return item.get("video") or item.get("audio") or Image(item["image"])


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
def films(
    model: Model,
    file: Annotated[Path, typer.Argument(help="WebP or GIF to write")],
    count: Annotated[int, typer.Option(help="films")] = 8,
) -> None:
    """Have fresh requests filmed, on one sheet that moves; a film that is over stands still."""
    from training.exams.room import words_of
    from training.sheets import contact_sheet

    omni = Omni.from_pretrained(model)
    made, prompts = [], []
    for number in range(count):
        asked, parts = first_turn(omni, "text_to_video", number)
        found = [part for part in parts if isinstance(part, Video)]
        made.append(found[0].frames if found else np.full((1, SIDE, SIDE, 3), 255, np.uint8))
        prompts.append(words_of(asked[-1]) + ("" if found else " (answered without a film)"))
    length = max(map(len, made))
    sheets = [
        contact_sheet([frames[min(n, len(frames) - 1)] for frames in made], prompts, columns=COLUMNS // 2)
        for n in range(length + HELD)
    ]
    sheets[0].save(file, save_all=True, append_images=sheets[1:], duration=1000 // FRAMES_A_SECOND, loop=0, quality=80)


@app.command()
def sounds(model: Model, file: Annotated[Path, typer.Argument(help="file to write, .wav or .mp3")]) -> None:
    """Have fresh requests spoken, played and sounded, in one recording; print what was asked."""
    from training.exams.room import words_of

    omni = Omni.from_pretrained(model)
    pieces = []
    for task in ("speech", "notes", "sound"):
        asked, parts = first_turn(omni, task, 0)
        found = [part.resampled(RATE) for part in parts if isinstance(part, Audio)]
        typer.echo(words_of(asked[-1]) + ("" if found else " (answered without a sound)"))
        pieces += [*(audio.samples[0] for audio in found), np.zeros(RATE // 2, np.float32)]
    Audio(np.concatenate(pieces)[None], RATE).save(file)


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
    omni = Omni.from_pretrained(model)
    for task in tasks_of(omni, only):
        lines: list[list[Cell]] = []
        for number in range(rows):
            found, parts = row(omni, task, number)
            lines.append(found)
            if media:
                save_media(parts, folder / f"{task}-{number}")
        columns = min(COLUMNS, max(map(len, lines)))
        sheet = [cell for line in lines for cell in (*line, *[(None, "")] * (-len(line) % columns))]
        images, words = zip(*sheet, strict=True)
        contact_sheet(images, words, columns=columns).save(folder / f"{task}.jpg", quality=85)
        typer.echo(folder / f"{task}.jpg")


if __name__ == "__main__":
    try:
        app()
    except OmniError as error:
        sys.exit(f"error: {error}")
