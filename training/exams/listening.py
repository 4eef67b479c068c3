"""How many words a listener gets wrong, of many short recordings heard one after another.

A recogniser that hears two words alone guesses; heard in a row, with pauses, it knows the voice and is right.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.judges.speech import transcribe, words_of

__all__ = ["errors_in_row", "hear_in_rows", "heard_words"]

RATE = 16000
BEFORE_S, AFTER_S = 0.25, 0.75  # of silence around every recording
ROW_S = 28.0  # the recogniser hears thirty seconds at once
SPELLINGS = {"grey": "gray"}

Samples = NDArray[np.float32]


def heard_words(text: str) -> list[str]:
    """Return the words of a text as a listener tells them apart."""
    return [SPELLINGS.get(word, word) for word in words_of(text)]


def hear_in_rows(recordings: Sequence[Samples]) -> list[tuple[list[int], list[str]]]:
    """Let the recogniser hear recordings in rows, as many as fit into one.

    Args:
        recordings: [T] each, at 16 kHz.

    Returns:
        for each row the numbers of its recordings, and the words heard in it.
    """
    rows: list[list[int]] = []
    left = 0.0
    for number, samples in enumerate(recordings):
        seconds = BEFORE_S + len(samples) / RATE + AFTER_S
        if seconds > left:
            rows.append([])
            left = ROW_S
        rows[-1].append(number)
        left -= seconds
    pauses = (round(BEFORE_S * RATE), round(AFTER_S * RATE))
    joined = [np.concatenate([np.pad(recordings[number], pauses) for number in row]) for row in rows]
    return [(row, heard_words(transcribe(samples))) for row, samples in zip(rows, joined, strict=True)]


def errors_in_row(truths: Sequence[Sequence[str]], heard: Sequence[str]) -> list[int]:
    """Count for every recording of a row the words that are left out, wrong or put in; at most as many as it has.

    Args:
        truths: the words of each recording.
        heard: the words heard in the whole row, aligned with the truth by the fewest errors; a word put in counts
            where the word before it belongs.
    """
    words = [word for truth in truths for word in truth]
    owner = [number for number, truth in enumerate(truths) for _ in truth]
    costs = np.zeros((len(words) + 1, len(heard) + 1), int)
    costs[:, 0], costs[0] = np.arange(len(words) + 1), np.arange(len(heard) + 1)
    for i, word in enumerate(words, 1):
        for j, other in enumerate(heard, 1):
            costs[i, j] = min(costs[i - 1, j - 1] + (word != other), costs[i - 1, j] + 1, costs[i, j - 1] + 1)
    errors = [0] * len(truths)
    i, j = len(words), len(heard)
    while i or j:
        here = owner[min(max(i - 1, 0), len(owner) - 1)]
        if i and j and costs[i, j] == costs[i - 1, j - 1] + (words[i - 1] != heard[j - 1]):
            errors[here] += words[i - 1] != heard[j - 1]
            i, j = i - 1, j - 1
        elif i and costs[i, j] == costs[i - 1, j] + 1:
            errors[here] += 1
            i -= 1
        else:
            errors[here] += 1
            j -= 1
    return [min(count, len(truth)) for count, truth in zip(errors, truths, strict=True)]
