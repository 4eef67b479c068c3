"""Examine a model: python -m training.evaluate MODEL [--json FILE] [--tasks a,b] [--count N] [--seed S] [--adapter A]

Prints, for seen and unseen combinations, the share of right answers with its 95 % interval and the number of
distinct combinations; beside it the judge's own score on real pictures (after the codec's round trip) and on
shuffled requests. --json writes the same shares as a flat object of task/measure/split.
"""

import json
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from omni.errors import ConfigError, OmniError

if TYPE_CHECKING:
    from omni import Omni
    from training.exams.room import Candidate, Room
    from training.scores import Score

Pixels = NDArray[np.uint8]
Shown = list[tuple[Pixels, str]]

# Questions of each exam: an hour of one core in all for the shipped model, whose card has these.
DEFAULT_COUNTS = {
    "text_to_image": 480, "edit": 400, "caption_image": 400, "question": 200, "modality": 200,
    "long_talk": 160, "recall": 160, "chain": 100,
    "text_to_video": 192, "image_to_video": 192, "first_and_last": 48, "continuation": 48, "caption_video": 192,
    "question_video": 96, "inpaint": 80, "world": 24, "story": 64,
    "speech": 96, "notes": 192, "sound": 192, "caption_audio": 192, "question_audio": 96, "speech_to_text": 96,
    "spoken_request": 96, "video_to_audio": 96, "audio_to_video": 48, "audio_video": 96, "playing_film": 48,
    "speaking_film": 48,
}  # fmt: skip
# What a model must hold beside text and pictures to sit an exam.
NEEDS = {
    "video": (
        "text_to_video", "image_to_video", "first_and_last", "continuation", "caption_video", "question_video", "world",
    ),
    "audio": ("speech", "notes", "sound", "speech_to_text", "caption_audio", "question_audio", "spoken_request"),
    "video and audio": ("video_to_audio", "audio_to_video", "audio_video", "playing_film", "speaking_film"),
}  # fmt: skip
SHEET_SIZE = 48

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def exams() -> Mapping[str, Callable[["Room", int], tuple[list["Score"], Shown]]]:
    """Return the exam of every task."""
    from training.exams import (
        chains,
        filling,
        films,
        pictures,
        sounding_films,
        sounds,
        stories,
        watching,
        words,
        worlds,
    )

    return {
        "text_to_image": pictures.text_to_image,
        "caption_image": words.caption_image,
        "edit": pictures.edit,
        "modality": words.modality,
        "question": words.question,
        "long_talk": words.long_talk,
        "recall": words.recall,
        "chain": chains.chain,
        "text_to_video": films.text_to_video,
        "image_to_video": films.image_to_video,
        "first_and_last": films.first_and_last,
        "continuation": films.continuation,
        "inpaint": filling.inpaint,
        "caption_video": watching.caption_video,
        "question_video": watching.question_video,
        "world": worlds.world,
        "story": stories.story,
        "speech": sounds.speech,
        "notes": sounds.notes,
        "sound": sounds.sound,
        "caption_audio": sounds.caption_audio,
        "question_audio": sounds.question_audio,
        "speech_to_text": sounds.speech_to_text,
        "spoken_request": sounds.spoken_request,
        "video_to_audio": sounding_films.video_to_audio,
        "audio_to_video": sounding_films.audio_to_video,
        "audio_video": sounding_films.audio_video,
        "playing_film": sounding_films.playing_film,
        "speaking_film": sounding_films.speaking_film,
    }


def codec_round_trip(omni: "Omni") -> Callable[[Pixels], Pixels]:
    """Return what passes pictures, uint8 [N, H, W, 3], or films [N, F, H, W, 3], through a model's codec and back."""
    import torch

    codec = omni.codecs[omni.model.config.stream_of["image"]]

    def round_trip(pixels: Pixels) -> Pixels:
        is_picture = pixels.ndim == 4
        frames = torch.from_numpy(pixels[:, None] if is_picture else pixels).to(omni.model.device)
        passed = codec.decode(codec.encode(frames)).cpu().numpy()
        return passed[:, 0] if is_picture else passed

    return round_trip


def sound_round_trip(omni: "Omni") -> Callable[[NDArray[np.float32]], NDArray[np.float32]] | None:
    """Return what passes a recording, float32 [T], through a model's codec and back; None where it has none."""
    import torch

    if "audio" not in omni.model.config.stream_of:
        return None
    codec = omni.studio.audio()

    def round_trip(samples: NDArray[np.float32]) -> NDArray[np.float32]:
        latents = codec.encode(torch.from_numpy(samples)[None])
        passed: NDArray[np.float32] = codec.decode(latents, len(samples))[0].cpu().numpy()
        return passed

    return round_trip


def missing_for(task: str, modalities: Collection[str]) -> str:
    """Return what a model that holds these modalities lacks for a task; nothing where it can sit the exam."""
    for needed, tasks in NEEDS.items():
        if task in tasks and not set(needed.split(" and ")) <= set(modalities):
            return needed
    return ""


def chosen_tasks(names: str, modalities: Collection[str]) -> list[str]:
    """Read a list of tasks, "a,b"; where it is empty, all that a model with these modalities can do.

    Raises:
        ConfigError: a task is unknown, or the model lacks a modality for it.
    """
    tasks = [name.strip() for name in names.split(",") if name.strip()]
    for name in tasks:
        if name not in DEFAULT_COUNTS:
            raise ConfigError(f"--tasks names {name!r}; known are {', '.join(DEFAULT_COUNTS)}")
        if lack := missing_for(name, modalities):
            raise ConfigError(f"--tasks names {name!r}, but the model has no {lack}; leave the task out")
    return tasks or [name for name in DEFAULT_COUNTS if not missing_for(name, modalities)]


def evaluate(
    candidate: "Candidate",
    round_trip: Callable[[Pixels], Pixels],
    *,
    heard_again: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None,
    tasks: Sequence[str] = tuple(DEFAULT_COUNTS),
    modalities: Collection[str] = ("image",),
    count: int | None = None,
    seed: int = 0,
    judge_settings: Mapping[str, Any] | None = None,
) -> tuple[list["Score"], dict[str, Shown]]:
    """Put all questions to a candidate and judge its answers.

    Args:
        candidate: an Omni, or anything that answers like one.
        round_trip: passes pictures through its codec; see `codec_round_trip`.
        heard_again: passes recordings through its codec; see `sound_round_trip`.
        tasks: of DEFAULT_COUNTS.
        modalities: what the candidate can make beside words.
        count: questions a task; as in DEFAULT_COUNTS where left out.
        seed: another one gives other questions and other noise.
        judge_settings: of PictureJudges.

    Returns:
        All scores; and by task the pictures seen in it with their words.

    Raises:
        ConfigError: a judge's package is not installed.
    """
    from training.exams.room import Room
    from training.judges.views import PictureJudges

    room = Room(
        candidate,
        round_trip,
        PictureJudges(**(judge_settings or {})),
        seed=seed,
        modalities=modalities,
        sound_round_trip=heard_again,
    )
    if "text_to_image" in tasks:
        _ = room.judges.identity  # what it lacks is said before anything is drawn
    scores: list[Score] = []
    shown: dict[str, Shown] = {}
    for task in tasks:
        given, shown[task] = exams()[task](room, count or DEFAULT_COUNTS[task])
        scores += given
    return scores, shown


def spread(shown: Shown, count: int) -> Shown:
    """Take pictures evenly from all that were seen, in pairs, so that an edit stays beside its source."""
    pairs = [shown[number : number + 2] for number in range(0, len(shown), 2)]
    step = max(1, 2 * len(pairs) // count)
    return [item for pair in pairs[::step] for item in pair][:count]


@app.command()
def main(
    model: Annotated[str, typer.Argument(help="model folder, or a name on the Hugging Face Hub")],
    json_file: Annotated[Path | None, typer.Option("--json", help="write the figures here")] = None,
    tasks: Annotated[str, typer.Option(help="some of " + ",".join(DEFAULT_COUNTS))] = "",
    count: Annotated[int | None, typer.Option(min=2, help="questions a task")] = None,
    seed: Annotated[int, typer.Option(min=0, help="another one gives other questions and other noise")] = 0,
    sheet: Annotated[Path | None, typer.Option(help="write pictures with their prompts here, as PNG")] = None,
    adapter: Annotated[Path | None, typer.Option(help="folder of a LoRA adapter to load")] = None,
) -> None:
    """Examine a model with judges that it was not trained on."""
    from omni import Omni
    from training.scores import figures, table
    from training.sheets import contact_sheet

    try:
        omni = Omni.from_pretrained(model)
        if adapter:
            omni.load_adapter(adapter, name="examined")
        names = chosen_tasks(tasks, omni.model.config.stream_of)
        scores, shown = evaluate(
            omni,
            codec_round_trip(omni),
            heard_again=sound_round_trip(omni),
            tasks=names,
            modalities=tuple(omni.model.config.stream_of),
            count=count,
            seed=seed,
        )
    except OmniError as error:
        sys.exit(f"error: {error}")
    print(table(scores))
    if json_file:
        json_file.write_text(json.dumps(figures(scores), indent=2) + "\n", encoding="utf-8")
    if sheet:
        drawn = [item for one in shown.values() if one for item in spread(one, SHEET_SIZE // len(names))]
        contact_sheet([picture for picture, _ in drawn], [words for _, words in drawn]).save(sheet)


if __name__ == "__main__":
    app()
