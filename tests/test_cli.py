"""The command line: answers, and errors of one line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage

from omni.cli import main
from omni.parts import Audio, Video
from omni.pipeline import Omni


@pytest.fixture(scope="module")
def folder(small: Omni, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    small.save_pretrained(path)
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Run the command line in an empty folder; return its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run_(*arguments: Any) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["omni", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        said = capsys.readouterr()
        # With a str, Python prints it to stderr and exits with 1.
        return (1, said.out, code) if isinstance(code, str) else (int(code or 0), said.out, said.err)

    return run_


def test_inspect_prints_what_a_model_is(run: Any, folder: Path, small: Omni) -> None:
    code, out, _ = run("inspect", folder)
    assert code == 0 and json.loads(out) == json.loads(json.dumps(small.describe()))


def test_chat_prints_the_answer_and_saves_it(run: Any, folder: Path, small: Omni, tmp_path: Path) -> None:
    code, out, _ = run("chat", "hello", "--model", folder, "--seed", 3, "--steps", 2, "--out", "kept")
    reply = small.chat("hello", seed=3, steps=2)
    assert code == 0 and "(seed 3)" in out and "saved in kept/" in out
    assert out.count("picture]") == len(reply.images)
    assert len(list((tmp_path / "kept").glob("*.png"))) == len(reply.images)
    assert (tmp_path / "kept" / "reply.md").is_file()


def test_chat_takes_a_picture_along(run: Any, folder: Path, tmp_path: Path) -> None:
    PILImage.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "photo.png")
    code, out, _ = run("chat", "What is this?", "--image", "photo.png", "--model", folder, "--steps", 1, "--seed", 0)
    assert code == 0 and "(seed 0)" in out


def test_chat_takes_a_film_and_a_recording_along(run: Any, every: Omni, tmp_path: Path) -> None:
    every.save_pretrained(tmp_path / "model")
    wave = np.sin(np.arange(4_000) / 9).astype(np.float32)[None]
    film = Video(np.full((5, 32, 32, 3), 90, np.uint8), 8.0, Audio(wave, 16_000))
    film.save(tmp_path / "film.mp4")
    film.audio.save(tmp_path / "sound.wav")
    options = ("--model", "model", "--steps", 1, "--seed", 2, "--out", "kept")
    code, out, _ = run("chat", "go on", "--video", "film.mp4", "--audio", "sound.wav", *options)
    items = [{"type": "video", "video": "film.mp4"}, {"type": "audio", "audio": "sound.wav"}]
    said = {"role": "user", "content": [*items, {"type": "text", "text": "go on"}]}
    reply = Omni.from_pretrained("model").chat(said, steps=1, seed=2)
    assert code == 0 and "saved in kept/" in out
    for words, suffix, parts in (
        ("picture]", "png", reply.images), ("film of", "mp4", reply.videos), ("s of sound]", "wav", reply.audios)
    ):  # fmt: skip
        assert len(list((tmp_path / "kept").glob(f"*.{suffix}"))) == len(parts), suffix
        assert out.count(words) >= len(parts), suffix  # a film may come in several blocks


def test_generate_writes_a_picture(run: Any, folder: Path, tmp_path: Path) -> None:
    options = ("--model", folder, "--height", 32, "--width", 48, "--seed", 5, "--steps", 2)
    code, out, _ = run("generate", "a fox", "--out", "fox.png", *options)
    assert code == 0 and out.strip() == "fox.png (48x32, seed 5)"
    with PILImage.open(tmp_path / "fox.png") as picture:
        assert picture.size == (48, 32)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("inspect", "/nowhere/at/all"), "no folder"),
        (("chat", "hello", "--model", "/nowhere/at/all"), "no folder"),
        (("chat", "", "--model", None), "empty"),
        (("chat", "hello", "--image", "nothing.png", "--model", None), "nothing.png"),
        (("chat", "hello", "--video", "nothing.mp4", "--model", None), "nothing.mp4"),
        (("chat", "hello", "--audio", "nothing.wav", "--model", None), "nothing.wav"),
        (("chat", "hello", "--adapter", "nothing", "--model", None), "nothing"),
        (("chat", "hello", "--adapter", "nothing=much", "--model", None), "'much'"),
        (("chat", "hello", "--seed", "-1", "--model", None), "seed is -1"),
        (("chat", "hello", "--steps", "0", "--model", None), "steps is 0"),
        (("generate", "a fox", "--height", "30", "--model", None), "multiple of 16"),
        (("generate", "a fox", "--out", "fox.gif", "--steps", "1", "--model", None), ".png"),
    ],
)
def test_a_mistake_is_one_line(run: Any, folder: Path, arguments: tuple[Any, ...], said: str) -> None:
    code, _, err = run(*(folder if argument is None else argument for argument in arguments))
    assert code == 1 and said in err and err.startswith("error: ") and "\n" not in err.strip()


def test_a_damaged_model_is_one_line(run: Any, folder: Path, tmp_path: Path) -> None:
    import shutil

    damaged = shutil.copytree(folder, tmp_path / "damaged")
    (damaged / "config.json").write_text("{}")
    code, _, err = run("inspect", damaged)
    assert code == 1 and "config.json" in err and "\n" not in err.strip()


def test_the_program_itself_ends_with_one_line_and_code_1() -> None:
    command = [sys.executable, "-m", "omni.cli", "inspect", "/nowhere/at/all"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False)
    assert ended.returncode == 1 and ended.stdout == ""
    assert ended.stderr.startswith("error: ") and ended.stderr.count("\n") == 1
