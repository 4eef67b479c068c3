"""Which combinations the model never sees in training: decided by a hash that nobody can move.

Only combinations are held out, ("style", "fox", "flat") or ("count", "apple", "3"); every single value stays
in training.
"""

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal

__all__ = ["Key", "Split", "split_of", "split_of_all"]

Key = tuple[str, ...]
Split = Literal["train", "validation", "test"]


@lru_cache(maxsize=1 << 17)
def split_of(*key: str) -> Split:
    """Tell the split of one combination: int(sha1("a|b|c"), 16) mod 10 is 0 for test, 1 for validation."""
    remainder = int(hashlib.sha1("|".join(key).encode(), usedforsecurity=False).hexdigest(), 16) % 10
    return "test" if remainder == 0 else "validation" if remainder == 1 else "train"


def split_of_all(keys: Iterable[Key]) -> Split:
    """Tell the split of an example with all of `keys`: one test key makes it test, then validation."""
    splits = {split_of(*key) for key in keys}
    return "test" if "test" in splits else "validation" if "validation" in splits else "train"
