"""Command line: omni chat | generate | inspect."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omni.errors import ConfigError, OmniError

if TYPE_CHECKING:
    from omni.parts import Audio, Image, Video
    from omni.pipeline import Omni

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Chat, draw, film and sound with a model.",
)

ModelOption = Annotated[str | None, typer.Option(help="model folder or Hub name; the shipped one if left out")]
SeedOption = Annotated[int | None, typer.Option(help="the same seed gives the same answer")]
StepsOption = Annotated[int | None, typer.Option(help="solver steps of a picture, film or sound")]
AdapterOption = Annotated[
    list[str] | None, typer.Option(help="LoRA adapter, FOLDER or FOLDER=WEIGHT; may be given more than once")
]


def _load(model: str | None) -> "Omni":
    from transformers.utils.logging import disable_progress_bar

    from omni.pipeline import Omni

    disable_progress_bar()
    return Omni.from_pretrained(model)


def _load_adapters(omni: "Omni", adapters: list[str]) -> None:
    for number, adapter in enumerate(adapters, start=1):
        path, equals, weight = adapter.rpartition("=")
        if not equals or Path(adapter).exists():
            path, weight = adapter, "1"
        try:
            omni.load_adapter(path, name=f"adapter-{number}", weight=float(weight))
        except ValueError as error:
            if isinstance(error, OmniError):
                raise
            raise ConfigError(
                f"--adapter {adapter}: the weight is {weight!r}; give a number, as in {path}=0.8"
            ) from error


def _described(part: "Image | Video | Audio") -> str:
    from omni.parts import Audio, Video

    if isinstance(part, Video):
        sound = ", with sound" if part.audio is not None else ""
        return f"[{part.width}x{part.height} film of {part.num_frames} frames, {part.duration_s:.2f} s{sound}]"
    if isinstance(part, Audio):
        return f"[{part.duration_s:.2f} s of sound]"
    return f"[{part.width}x{part.height} picture]"


def _given(**settings: Any) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


@app.command()
def chat(
    text: Annotated[str, typer.Argument(help="what to say")],
    image: Annotated[list[Path] | None, typer.Option(help="a picture to send along")] = None,
    audio: Annotated[list[Path] | None, typer.Option(help="a recording to send along")] = None,
    video: Annotated[list[Path] | None, typer.Option(help="a clip to send along")] = None,
    out: Annotated[Path | None, typer.Option(help="folder for reply.md with pictures, films and sound")] = None,
    seed: SeedOption = None,
    steps: StepsOption = None,
    guidance_scale: Annotated[float | None, typer.Option(help="how closely media follow the words")] = None,
    model: ModelOption = None,
    adapter: AdapterOption = None,
) -> None:
    """Say something, print the answer, and save its pictures, films and sound."""
    from omni.events import MediaFinished, TextDelta
    from omni.parts import Audio, Image, Video
    from omni.reply import Finished

    media: list[Image | Video | Audio] = [Image.load(path) for path in image or []]
    media += [Video.load(path) for path in video or []]
    media += [Audio.load(path) for path in audio or []]
    omni = _load(model)
    _load_adapters(omni, adapter or [])
    content = [*media, {"type": "text", "text": text}]
    settings = _given(steps=steps, guidance_scale=guidance_scale)
    for event in omni.stream({"role": "user", "content": content}, seed=seed, previews=False, **settings):
        if isinstance(event, TextDelta):
            typer.echo(event.text.encode("utf-8", "replace").decode(), nl=False)
        elif isinstance(event, MediaFinished):
            typer.echo(_described(event.part))
        elif isinstance(event, Finished):
            typer.echo(f"\n(seed {event.reply.seed})")
            reply = event.reply
            if out is not None or reply.images or reply.videos or reply.audios:
                folder = out or Path("omni-reply")
                reply.save(folder)
                typer.echo(f"saved in {folder}/")


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="what to draw")],
    out: Annotated[Path, typer.Option(help="file to write")] = Path("picture.png"),
    height: Annotated[int, typer.Option(help="pixels")] = 64,
    width: Annotated[int, typer.Option(help="pixels")] = 64,
    seed: SeedOption = None,
    steps: StepsOption = None,
    model: ModelOption = None,
) -> None:
    """Draw one picture of a given size."""
    picture = _load(model).image(prompt, size=(height, width), seed=seed, **_given(steps=steps))
    picture.save(out)
    typer.echo(f"{out} ({picture.width}x{picture.height}, seed {picture.metadata['seed']})")


@app.command()
def inspect(model: Annotated[str | None, typer.Argument(help="model folder or Hub name")] = None) -> None:
    """Print what a model is; its files are checked on the way."""
    typer.echo(json.dumps(_load(model).describe(), indent=1))


def main() -> None:
    """Run the command line; a user's mistake is one sentence, without a traceback."""
    try:
        app()
    except OmniError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
