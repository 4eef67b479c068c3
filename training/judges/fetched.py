"""The files of judges: where they lie, and the digests they must have.

Some come inside packages that pip installs with the extra `eval`; the others, whose packages want versions that do
not go together, are put into JUDGES by `python scripts/fetch_judges.py`.
"""

import hashlib
import importlib.util
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni.errors import ConfigError, InputError

__all__ = ["FETCHED", "Samples", "fetched", "installed", "judges_folder", "mono", "resample", "session"]

Samples = NDArray[np.float32]

# Name of the file in the folder of judges -> SHA-256.
FETCHED = {
    "basic_pitch.onnx": "2c3c1d144bfa61ad236e92e169c13535c880469a12a047d4e73451f2c059a0ec",
    "model.onnx": "6033a308ddfc9e0d8a23d4340bb7cb8fa455a339f3b3497b0585cfaf2bac88ef",
    "model.data": "c6faf7f7dba0d179293fdcc3468a9a10f54ab8fbc1547218880bae79ff9f8126",
    "yamnet_class_map.csv": "cdf24d193e196d9e95912a2667051ae203e92a2ba09449218ccb40ef787c6df2",
}


def judges_folder() -> Path:
    """Return the folder of fetched judges: OMNI_JUDGES, or ~/.cache/omni/judges."""
    return Path(os.environ.get("OMNI_JUDGES", "~/.cache/omni/judges")).expanduser()


def _checked(path: Path, sha256: str, remedy: str) -> Path:
    if not path.is_file():
        raise ConfigError(f"the judge's file {path} is missing: {remedy}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise ConfigError(f"the judge's file {path} has the SHA-256 {found}, not {sha256}: {remedy}")
    return path


def fetched(name: str) -> Path:
    """Find a file of FETCHED.

    Raises:
        ConfigError: it has not been fetched, or is damaged.
    """
    return _checked(judges_folder() / name, FETCHED[name], "run `python scripts/fetch_judges.py`")


def installed(package: str, file: str, sha256: str) -> Path:
    """Find a file inside an installed package.

    Args:
        package: by which it is imported; it is not run.
        file: path inside it.
        sha256: of the file.

    Raises:
        ConfigError: the package is not installed, or its file is another one.
    """
    remedy = f"install {package.replace('_', '-')} with the extra `eval` (pip install -e '.[eval]')"
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(f"a judge needs the package {package}, which is not there: {remedy}")
    return _checked(Path(spec.origin).parent / file, sha256, remedy)


@cache
def session(path: Path) -> Any:
    """Open an ONNX file for the CPU, once.

    A network of bytes is worked out in float32: products of bytes overflow on CPUs without VNNI, where the judge of
    sounds named a third fewer real ones.

    Raises:
        ConfigError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError("judges of sound need onnxruntime: install the extra `eval`") from error
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def mono(samples: NDArray[np.floating]) -> Samples:
    """Check samples, and mix [channels, T] down to float32 [T].

    Raises:
        InputError: no samples, more axes than two, or a value that is not finite.
    """
    mixed = np.asarray(samples, np.float32)
    mixed = mixed.mean(0) if mixed.ndim == 2 else mixed
    if mixed.ndim != 1 or not mixed.size or not np.isfinite(mixed).all():
        raise InputError(f"samples of shape {np.shape(samples)} cannot be judged: give finite [T] or [channels, T]")
    return mixed


def resample(samples: Samples, rate: int, wanted: int) -> Samples:
    """Change the sample rate of [T] by cutting or padding its Fourier transform; [ceil(T * wanted / rate)].

    Args:
        samples: to be resampled; silence is thought around them.
        rate: theirs, in Hz.
        wanted: the new one, in Hz.
    """
    if rate == wanted:
        return samples
    step = rate // np.gcd(rate, wanted)
    padded = np.pad(samples, (0, step - len(samples) % step + 32 * step))
    length = len(padded) // step * (wanted // np.gcd(rate, wanted))
    changed = np.fft.irfft(np.fft.rfft(padded)[: length // 2 + 1], n=length) * (length / len(padded))
    return changed[: -(-len(samples) * wanted // rate)].astype(np.float32)
