"""How good a vision codec is on held-out scenes: PSNR by style and size, sprites still recognised, and films."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from omni.codecs import VisionCodec
from training.codecs.trainer import flicker, psnr, to_float
from training.world.scene import PICTURE_SIZES, Scene, boxes, render, sample_scene
from training.world.verbs import render_film, sample_film

__all__ = ["RoundTrip", "measure_films", "measure_names", "measure_psnr", "measure_speed", "round_trips"]


@dataclass(frozen=True)
class RoundTrip:
    """A held-out scene before and after the codec, uint8 [H, W, 3] each."""

    scene: Scene
    original: NDArray[np.uint8]
    rebuilt: NDArray[np.uint8]

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns in pixels."""
        return self.original.shape[0], self.original.shape[1]

    @property
    def psnr(self) -> float:
        """Peak signal-to-noise ratio in dB."""
        error = np.square(self.original.astype(np.float64) - self.rebuilt).mean()
        return float(10 * np.log10(255**2 / max(error, 1e-6)))


def round_trips(codec: VisionCodec, *, count: int, seed: int = 0) -> list[RoundTrip]:
    """Send test scenes through the codec.

    Args:
        codec: to be measured.
        count: scenes of each picture size.
        seed: of the scenes.
    """
    trips = []
    for size in PICTURE_SIZES:
        rng = random.Random(f"codec/{seed}/{size}")
        scenes = [sample_scene(rng, "test") for _ in range(count)]
        originals = np.stack([render(scene, *size) for scene in scenes])
        for start in range(0, count, 64):
            batch = torch.from_numpy(originals[start : start + 64])[:, None]
            rebuilt = codec.decode(codec.encode(batch))[:, 0].cpu().numpy()
            part = zip(scenes[start : start + 64], originals[start : start + 64], rebuilt, strict=True)
            trips += [RoundTrip(scene, before, after) for scene, before, after in part]
    return trips


def measure_psnr(trips: Iterable[RoundTrip]) -> dict[str, float]:
    """Average the PSNR in dB by style, by size, over all, and of the error of all pixels together."""
    groups: dict[str, list[float]] = defaultdict(list)
    errors = []
    for trip in trips:
        for name in ("all", trip.scene.style, "{}x{}".format(*trip.size)):
            groups[f"psnr/{name}"].append(trip.psnr)
        errors.append(10 ** (-trip.psnr / 10))
    figures = {name: float(np.mean(values)) for name, values in groups.items()}
    figures["psnr/lowest"] = min(groups["psnr/all"])
    return figures | {"psnr/pooled": float(-10 * np.log10(np.mean(errors)))}


def measure_names(trips: Iterable[RoundTrip]) -> dict[str, float]:
    """Count the things that template match names rightly, and the share of them it still names afterwards."""
    from training.judges.templates import TemplateJudge

    judge = TemplateJudge()
    named, kept, total = 0, 0, 0
    for trip in trips:
        truth = [
            (thing.concept, box) for thing, box in zip(trip.scene.things, boxes(trip.scene, *trip.size), strict=True)
        ]
        before, after = (
            [(found.concept, found.box) for found in judge.look(pixels).things]
            for pixels in (trip.original, trip.rebuilt)
        )
        for thing in truth:
            total += 1
            if _is_named(thing, before):
                named += 1
                kept += _is_named(thing, after)
    return {
        "named/originals": named / total,
        "named/kept": kept / max(named, 1),
        "named/things": float(total),
    }


def _is_named(thing: tuple[str, Sequence[int]], found: Iterable[tuple[str, Sequence[int]]]) -> bool:
    name, (top, left, side) = thing
    return any(
        concept == name
        and max(abs(box[0] + box[2] / 2 - top - side / 2), abs(box[1] + box[2] / 2 - left - side / 2)) < 4
        for concept, box in found
    )


def measure_films(codec: VisionCodec, *, count: int, num_frames: int = 17, seed: int = 0) -> dict[str, float]:
    """Send test films of 64x64 through the codec.

    Returns:
        PSNR in dB of all frames and of the first, flicker (see `trainer.flicker`) of films, of a still, and of the
        same films coded frame by frame, of 255; and by how much decoding piece by piece differs at most, of 255.
    """
    rng = random.Random(f"codec/films/{seed}")
    films = [render_film(sample_film(rng, "test", num_frames=num_frames, size=(64, 64))) for _ in range(count)]
    frames = torch.from_numpy(np.stack(films))  # [B, T, H, W, 3]
    rebuilt = torch.cat([codec.decode(codec.encode(part)) for part in frames.split(4)])
    single = torch.cat([codec.decode(codec.encode(film[:, None]))[:, 0][None] for film in frames])
    still = frames[:4, :1].expand(-1, num_frames, -1, -1, -1)
    latents, decoder = codec.encode(frames[:1]), codec.film_decoder()
    pieces = torch.cat([decoder.decode(piece) for piece in latents.split(1, dim=1)], dim=1)
    before, after, alone = (to_float(clips.numpy()) for clips in (frames, rebuilt, single))
    return {
        "film/psnr": psnr(after.flatten(0, 1), before.flatten(0, 1)).mean().item(),
        "film/psnr_first_frame": psnr(after[:, 0], before[:, 0]).mean().item(),
        "film/flicker": flicker(after, before).item(),
        "film/flicker_of_stills": flicker(
            *(to_float(clips.numpy()) for clips in (codec.decode(codec.encode(still)), still))
        ).item(),
        "film/flicker_frame_by_frame": flicker(alone, before).item(),
        "film/psnr_frame_by_frame": psnr(alone.flatten(0, 1), before.flatten(0, 1)).mean().item(),
        "film/piecewise_difference": float((pieces.int() - rebuilt[:1].int()).abs().max()),
    }


def measure_speed(codec: VisionCodec, *, seconds: float = 1.0) -> dict[str, float]:
    """Time 64x64 pictures: encoded and decoded a second in batches of 32, and one decoded alone in ms."""
    pixels = torch.zeros(32, 1, 64, 64, 3, dtype=torch.uint8)
    latents = codec.encode(pixels)

    def rate(work: object, count: int) -> float:
        assert callable(work)
        work()
        started, rounds = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            work()
            rounds += 1
        return rounds * count / (time.perf_counter() - started)

    return {
        "speed/encode_per_s": rate(lambda: codec.encode(pixels), 32),
        "speed/decode_per_s": rate(lambda: codec.decode(latents), 32),
        "speed/decode_one_ms": 1000 / rate(lambda: codec.decode(latents[:1]), 1),
    }
