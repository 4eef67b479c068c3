"""How good an audio codec is on held-out recordings, by judges: words, naturalness, notes, named sounds, speed."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from omni.codecs.audio import AudioCodec
from training.codecs.audio_material import Recording, played, recordings, spoken
from training.judges.doubt import NUM_NOISES, beside_noise
from training.judges.notes import notes_of, share_found
from training.judges.speech import naturalness, transcribe, word_error, words_of
from training.world.sound_pack import SAMPLE_RATE, Samples

__all__ = ["measure_codec", "measure_latents", "measure_notes", "measure_speech", "round_trip"]

LINES = 4  # in one recording of speech: recognisers are bad at single short lines


def round_trip(codec: AudioCodec, samples: Samples) -> Samples:
    """Send a recording through the codec."""
    assert codec.sample_rate == SAMPLE_RATE, f"the world sounds at {SAMPLE_RATE} Hz, the codec at {codec.sample_rate}"
    return codec.decode(codec.encode(torch.from_numpy(samples)[None]), len(samples))[0].numpy()


def measure_speech(codec: AudioCodec, material: Sequence[Recording]) -> dict[str, float]:
    """Count the recogniser's wrong words, and guess the naturalness, before and after."""
    errors, natural, total = [0, 0], [0.0, 0.0], 0
    for each in material:
        words = words_of(each.text)
        total += len(words)
        for place, samples in enumerate((each.samples, round_trip(codec, each.samples))):
            errors[place] += word_error(words, words_of(transcribe(samples)))
            natural[place] += naturalness(samples) / len(material)
    return {
        "speech/words": float(total),
        "speech/wer_original": errors[0] / total,
        "speech/wer": errors[1] / total,
        "speech/wer_added": (errors[1] - errors[0]) / total,
        "speech/dnsmos_original": natural[0],
        "speech/dnsmos": natural[1],
        "speech/dnsmos_lost": natural[0] - natural[1],
    }


def measure_notes(codec: AudioCodec, material: Sequence[Recording]) -> dict[str, float]:
    """Count true notes that are found in the originals, and the share of these that are found afterwards.

    Beside it stands what the judge makes of next to nothing: the share that it finds again in the originals beside
    noise of -60 dB; and, of those that it finds beside each of NUM_NOISES such noises, the share that is kept.
    """
    total, found, kept, repeated, sure, sure_kept = 0, 0, 0, 0, 0, 0
    for each in material:
        before, after = notes_of(each.samples), notes_of(round_trip(codec, each.samples))
        again = [notes_of(samples) for samples in beside_noise(each.samples)]
        for note in each.notes:
            is_found, is_kept = share_found([note], before) == 1, share_found([note], after) == 1
            repeats = [is_found and share_found([note], those) == 1 for those in again]
            total += 1
            found += is_found
            kept += is_found and is_kept
            repeated += sum(repeats)
            sure += all(repeats)
            sure_kept += all(repeats) and is_kept
    return {
        "notes/total": float(total),
        "notes/originals": found / total,
        "notes/kept": kept / max(found, 1),
        "notes/kept_beside_noise": repeated / max(NUM_NOISES * found, 1),
        "notes/sure": sure / total,
        "notes/kept_of_sure": sure_kept / max(sure, 1),
    }


def measure_latents(codec: AudioCodec, material: Sequence[Recording]) -> dict[str, float]:
    """Measure the spread of normalised latents, and what encoding once more changes in them."""
    latents = [codec.encode(torch.from_numpy(each.samples)[None]) for each in material]
    again = [codec.encode(codec.decode(each)) for each in latents]
    together, later = torch.cat(latents, 1)[0], torch.cat(again, 1)[0]
    return {
        "latents/std_lowest": together.std(0).min().item(),
        "latents/std_highest": together.std(0).max().item(),
        "latents/largest": together.abs().max().item(),
        "latents/changed_by_round_trip": ((later - together).square().mean() / together.square().mean()).item(),
    }


def _seconds(work: object) -> float:
    assert callable(work)
    work()
    times = []
    for _ in range(5):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def measure_speed(codec: AudioCodec) -> dict[str, float]:
    """Time three seconds of sound, in ms."""
    samples = 0.1 * torch.randn(1, 3 * codec.sample_rate, generator=torch.Generator().manual_seed(0))
    latents = codec.encode(samples)
    return {
        "speed/encode_3s_ms": 1000 * _seconds(lambda: codec.encode(samples)),
        "speed/decode_3s_ms": 1000 * _seconds(lambda: codec.decode(latents)),
    }


def measure_codec(codec: AudioCodec, *, num_speech: int, num_notes: int) -> dict[str, float]:
    """Measure all of it on test recordings of the omni world.

    Args:
        codec: to be measured.
        num_speech: recordings of the voice "joe", of LINES lines each.
        num_notes: pieces of music.
    """
    speech = spoken("test", num_speech, lines=LINES, voice="joe")
    figures = {"rate/numbers_per_s": codec.latents_per_second * codec.channels, "rate/channels": float(codec.channels)}
    figures |= measure_speech(codec, speech) | measure_notes(codec, played("test", num_notes))
    return figures | measure_latents(codec, list(recordings("test", 48))) | measure_speed(codec)
