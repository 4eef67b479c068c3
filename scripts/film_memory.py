"""Memory and time of films made in blocks of one latent frame: what grows with the film should be the cache alone.

python scripts/film_memory.py table [omni/weights/nano] [--frames 5,17,65] [--out docs/long_films.md]

Each film is made by a process of its own, whose peak memory is read at its end.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

PROMPT = "a fox walks from the left to the right on the grass"
STEPS, REPEATS = 4, 3

TABLE = """# Long films

A film of 64x64 pixels in blocks of one latent frame (4 frames) each, {steps} steps and guidance, threads: {threads};
each made {repeats} times, always in a process of its own. Written by `python scripts/film_memory.py table`. *peak* is
the memory of the whole process, which differs from run to run, since freed memory is kept (`omni.memory`); *above one
frame* what is more than the least for a film of one latent frame; *cache* is what keys and values of all rows take,
which is doubled whenever it is full. *last 4*: seconds of one of the last four latent frames.

| latent frames | frames | cache, MiB | peak, MiB | above one frame, MiB | seconds a latent frame | last 4 |
|---|---|---|---|---|---|---|
{rows}
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(hidden=True)
def one(model: str, num_latents: int) -> None:
    """Make one film; print its figures as JSON."""
    import torch

    from omni import Omni
    from omni.chat import Turn, open_reply, to_document
    from omni.events import MediaFinished
    from omni.generate import Request
    from omni.guidance import Branch
    from omni.reader import Reader

    omni = Omni.from_pretrained(model)
    clock = omni.studio.clock(8)
    forced = omni._film_headers(clock.num_frames(num_latents) / 8, (64, 64), 1)
    settings, _ = omni._settings({"steps": STEPS})

    document = to_document([Turn("user", (PROMPT,))], tokenizer=omni.tokenizer, template=omni.template)
    request = Request(open_reply(document, omni.template), 0, forced)
    reader, times, frames = Reader(omni.model, num_rows=len(Branch)), [time.perf_counter()], 0
    for _, event in omni._generator.run([request], settings, reader=reader):
        if isinstance(event, MediaFinished):
            times.append(time.perf_counter())
            frames += len(event.part.frames)  # type: ignore[union-attr]
    cache = 2 * reader.cache.keys.numel() * reader.cache.keys.element_size()
    took = [after - before for before, after in zip(times, times[1:], strict=False)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps(
            {
                "frames": frames,
                "cache": cache / 2**20,
                "peak": peak,
                "seconds": took,
                "threads": torch.get_num_threads(),
            }
        )
    )


@app.command()
def table(
    model: Annotated[Path, typer.Argument(help="model folder")] = REPOSITORY / "omni" / "weights" / "nano",
    frames: Annotated[str, typer.Option(help="latent frames of each film")] = "5,17,65",
    out: Annotated[Path, typer.Option(help="where the table goes")] = REPOSITORY / "docs" / "long_films.md",
) -> None:
    """Make the films, print and write the table."""
    lines, base = [], 0.0
    for count in (1, *map(int, frames.split(","))):
        command = [sys.executable, __file__, "one", str(model), str(count)]
        runs = [
            json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
            for _ in range(REPEATS)
        ]
        peaks, found = sorted(run["peak"] for run in runs), runs[0]
        base, seconds = base or peaks[0], found["seconds"]
        mean, last = sum(seconds) / len(seconds), sum(seconds[-4:]) / len(seconds[-4:])
        above = f"{peaks[0]:.0f} to {peaks[-1]:.0f} | {peaks[0] - base:.0f} to {peaks[-1] - base:.0f}"
        lines.append(f"| {count} | {found['frames']} | {found['cache']:.1f} | {above} | {mean:.2f} | {last:.2f} |")
        print(lines[-1], flush=True)
    out.write_text(
        TABLE.format(steps=STEPS, repeats=REPEATS, threads=found["threads"], rows="\n".join(lines)), encoding="utf-8"
    )


if __name__ == "__main__":
    app()
