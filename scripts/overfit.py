"""Whether the model can learn all of it: 32 documents of every task by heart, given back from every prefix.

python -m training.encode configs/train/overfit_encode.yaml
python -m training.train configs/train/overfit.yaml
python -m training.export configs/train/overfit.yaml --out runs/overfit
python scripts/overfit.py runs/overfit
"""

import json
import sys
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

from omni import Omni, OmniError  # noqa: E402
from omni.chat import continued_film  # noqa: E402
from omni.generate import Forced, Generator, Request  # noqa: E402
from omni.guidance import GuidanceConfig  # noqa: E402
from omni.parts import Audio, Image, Video  # noqa: E402
from omni.sequence import Medium, Segment, TextRun  # noqa: E402
from omni.settings import GenerationSettings  # noqa: E402

CLOSE = 0.1  # mean squared distance of latents, whose variance is 1
NOTES_SHARE = 0.9
# A judge is asked only where it is right about the true picture, for notes only where notes are played, and for those
# and for classes that it still hears in the true sound beside noise of -60 dB: what it is wrong or in doubt about by
# itself says nothing of the answer.
Verdicts = Iterator[tuple[str, bool]]


@dataclass(frozen=True)
class Content:
    """What a document of the world holds: the things that it shows, and whether notes are played in it."""

    things: frozenset[str]
    plays_notes: bool


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def replies(document: Sequence[Segment], omni: Omni) -> Iterator[tuple[list[Segment], list[Segment]]]:
    """Yield what stands before each turn of the assistant, its role included, and the turn up to its end."""
    role, end = TextRun((omni.template.roles["assistant"],)), omni.template.end
    for place, segment in enumerate(document):
        if isinstance(segment, TextRun) and segment.ids == role.ids:
            rest = document[place + 1 :]
            stop = next(n for n, later in enumerate(rest) if isinstance(later, TextRun) and later.ids == (end,))
            yield list(document[: place + 1]), list(rest[:stop])


def forced_by(truth: Sequence[Segment], omni: Omni) -> tuple[Forced, ...]:
    """Return the media that cannot be made from the words alone, because a part of them is given."""
    found = [s for s in truth if isinstance(s, Medium) and s.grids[0].given is not None]
    first = omni.template.first_number
    return tuple(
        Forced(
            omni.template.kind_of(medium.header[0]) or "",
            tuple(number - first for number in medium.header[1:]),
            (medium.grids[0].latents[:1], medium.grids[0].given[:1])
            if medium.modality == "image"
            else (medium.grids[0].latents, medium.grids[0].given),
        )
        for medium in found
    )


def words(segments: Sequence[Segment], omni: Omni) -> str:
    """Return the words of segments."""
    ids = [number for segment in segments if isinstance(segment, TextRun) for number in segment.ids]
    return omni.tokenizer.decode([number for number in ids if number < omni.tokenizer.num_text_ids])


def judge_media(made: Medium, true: Medium, film: Sequence[Medium], omni: Omni, content: Content) -> Verdicts:
    """Compare a block with the true one: latents, and what the judges find in both after the way back."""
    distance = max(
        float((mine.latents - theirs.latents).square().mean())
        for mine, theirs in zip(made.grids, true.grids, strict=True)
    )
    yield f"{made.modality}/latents", distance < CLOSE
    mine, theirs = (omni.studio.decode([medium], [film])[0] for medium in (made, true))
    if isinstance(mine, Image) and isinstance(theirs, Image):
        yield from judge_sight("image/template", [mine.pixels], [theirs.pixels], content.things)
    elif isinstance(mine, Video) and isinstance(theirs, Video):
        places = (0, len(mine.frames) // 2, len(mine.frames) - 1)
        seen, true_frames = ([clip.frames[n] for n in places] for clip in (mine, theirs))
        yield from judge_sight("video/template", seen, true_frames, content.things)
        if mine.audio is not None and theirs.audio is not None:
            yield from judge_sound(mine.audio, theirs.audio, content)
    elif isinstance(mine, Audio) and isinstance(theirs, Audio):
        yield from judge_sound(mine, theirs, content)


def sight(pixels: np.ndarray) -> tuple[Any, ...]:
    """Return what template match finds in a picture: the ground, and each thing with its place."""
    from training.judges.templates import TemplateJudge

    seen = TemplateJudge().look(pixels)
    return (seen.background, *sorted((thing.concept, thing.place) for thing in seen.things))


def judge_sight(
    measure: str, mine: Sequence[np.ndarray], theirs: Sequence[np.ndarray], things: Collection[str]
) -> Verdicts:
    """Compare what is seen in pictures, uint8 [H, W, 3], where the true one shows nothing but the document's things."""
    pairs = [(sight(picture), sight(true)) for picture, true in zip(mine, theirs, strict=True)]
    if known := [pair for pair in pairs if all(name in things for name, _ in pair[1][1:])]:
        yield measure, all(made == true for made, true in known)


def content_of(about: dict[str, Any]) -> Content:
    """Tell what a document of the world holds, from its task and seed."""
    from training.world.tasks import document

    truth = document(about["task"], about["seed"]).truth
    shown = {thing.concept for scene in truth["scenes"] for thing in scene.things}
    shown |= {actor.concept for film in truth["films"] for actor in film.actors}
    return Content(frozenset(shown), any(one["kind"] == "notes" for one in truth.get("recordings", ())))


def judge_sound(mine: Audio, theirs: Audio, content: Content) -> Verdicts:
    """Compare the recogniser's words, the notes, and the likeliest class of sound."""
    from training.judges.doubt import beside_noise
    from training.judges.notes import notes_of, share_found
    from training.judges.sounds import classify
    from training.judges.speech import transcribe, words_of

    heard, meant = mine.samples[0], theirs.samples[0]
    if said := words_of(transcribe(meant)):
        yield "audio/words", words_of(transcribe(heard)) == said
    again = beside_noise(meant)
    if content.plays_notes:
        repeated = [notes_of(samples) for samples in again]
        notes = [note for note in notes_of(meant) if all(share_found([note], them) == 1.0 for them in repeated)]
        if notes:
            yield "audio/notes", share_found(notes, notes_of(heard)) >= NOTES_SHARE
    first = [name for name, _ in classify(meant)[:3]]
    if all(classify(samples)[0][0] in first for samples in again):
        yield "audio/class", classify(heard)[0][0] in first


def judge_reply(
    prefix: list[Segment], truth: list[Segment], omni: Omni, settings: GenerationSettings, content: Content
) -> Verdicts:
    """Let the model answer, and compare its answer with the true one."""
    generator = Generator(omni.model, omni.tokenizer, omni.studio)
    forced = forced_by(truth, omni)
    kept: list[Segment] = []
    request = Request(prefix, 0, forced)

    def keep(_: int, document: list[Segment]) -> None:
        kept[:] = document[len(prefix) :]  # said again after every block

    for _ in generator.run([request], settings, on_document=keep):
        pass
    made, true = ([s for s in segments if isinstance(s, Medium)] for segments in (kept, truth))
    if forced:
        true = [medium for medium in true if medium.grids[0].given is not None]
    else:
        yield "text", words(kept, omni) == words(truth, omni)
        yield "headers", [medium.header for medium in made] == [medium.header for medium in true]
    if [medium.header for medium in made] == [medium.header for medium in true]:
        before = list(prefix)
        for mine, theirs in zip(made, true, strict=True):
            film = continued_film(before) if theirs.continues else []
            yield from judge_media(mine, theirs, film, omni, content)
            before.append(theirs)


@app.command()
def judge(
    model: Annotated[Path, typer.Argument(help="folder of the model that learnt them")],
    config: Annotated[Path, typer.Option(help="of the training")] = REPOSITORY / "configs/train/overfit.yaml",
    steps: Annotated[int, typer.Option(help="of the solver")] = 24,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the shares here")] = None,
) -> None:
    """Print by measure how often the answer was the true one."""
    from training.config import load_config
    from training.data import DocumentMaker
    from training.shards import EncodedDataset

    verdicts: dict[str, list[bool]] = defaultdict(list)
    try:
        omni, run = Omni.from_pretrained(model), load_config(config)
        dataset = EncodedDataset(Path(str(run.data.path)).expanduser())
        maker = DocumentMaker(dataset, omni.tokenizer, omni.model.config, run)
        settings = GenerationSettings(steps=steps, guidance=GuidanceConfig(scale=1.0), max_media=16)
        abouts = [shard.about(place) for shard in dataset.shards for place in range(len(shard))]
        for number, about in enumerate(abouts):
            content = content_of(about)
            for prefix, truth in replies(maker.document(number), omni):
                found = list(judge_reply(prefix, truth, omni, settings, content))
                for measure, is_right in found:
                    verdicts[measure].append(is_right)
                print(number, " ".join(name if is_right else f"NOT:{name}" for name, is_right in found), flush=True)
    except OmniError as error:
        sys.exit(f"error: {error}")
    shares = {measure: sum(them) / len(them) for measure, them in sorted(verdicts.items())}
    for measure, share in shares.items():
        print(f"{measure:20s} {100 * share:5.1f} %  of {len(verdicts[measure])}")
    if json_file:
        json_file.write_text(json.dumps(shares, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app()
