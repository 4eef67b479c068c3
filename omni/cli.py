"""Command line: omni chat | generate | inspect."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omni.errors import OmniError

if TYPE_CHECKING:
    from omni.pipeline import Omni

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Chat and draw with a model.",
)

ModelOption = Annotated[str | None, typer.Option(help="model folder or Hub name; the shipped one if left out")]
SeedOption = Annotated[int | None, typer.Option(help="the same seed gives the same answer")]
StepsOption = Annotated[int | None, typer.Option(help="solver steps of a picture")]


def _load(model: str | None) -> "Omni":
    from transformers.utils.logging import disable_progress_bar

    from omni.pipeline import Omni

    disable_progress_bar()
    return Omni.from_pretrained(model)


def _given(**settings: Any) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not None}


@app.command()
def chat(
    text: Annotated[str, typer.Argument(help="what to say")],
    image: Annotated[list[Path] | None, typer.Option(help="a picture to send along")] = None,
    out: Annotated[Path | None, typer.Option(help="folder for reply.md and pictures")] = None,
    seed: SeedOption = None,
    steps: StepsOption = None,
    guidance_scale: Annotated[float | None, typer.Option(help="how closely pictures follow the words")] = None,
    model: ModelOption = None,
) -> None:
    """Say something, print the answer, and save its pictures."""
    from omni.events import MediaFinished, TextDelta
    from omni.parts import Image
    from omni.pipeline import Finished

    pictures = [{"type": "image", "image": Image.load(path)} for path in image or []]
    omni = _load(model)
    content = [*pictures, {"type": "text", "text": text}]
    settings = _given(steps=steps, guidance_scale=guidance_scale)
    for event in omni.stream({"role": "user", "content": content}, seed=seed, previews=False, **settings):
        if isinstance(event, TextDelta):
            typer.echo(event.text.encode("utf-8", "replace").decode(), nl=False)
        elif isinstance(event, MediaFinished):
            typer.echo(f"[{event.part.width}x{event.part.height} picture]")
        elif isinstance(event, Finished):
            typer.echo(f"\n(seed {event.reply.seed})")
            if out is not None or event.reply.images:
                folder = out or Path("omni-reply")
                event.reply.save(folder)
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
