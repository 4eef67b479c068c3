"""The corpus of damaged clips and recordings: each gets a part or a sentence, quickly and within bounded memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import make_malformed, malformed_media, media_files

REPOSITORY = Path(__file__).parents[1]
MEMORY_MB = 400

# Runs in a process of its own, so that the most memory it ever held can be asked for.
READ_ALL = """
import json, resource, sys, time
from pathlib import Path
import av, soundfile
from omni import errors, parts
answers = {}
start_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sorted(Path(sys.argv[1]).iterdir()):
    start = time.process_time()
    try:
        answer = repr(getattr(parts, sys.argv[2]).load(path))
    except errors.InputError as error:
        answer = "InputError: " + str(error)
    answers[path.name] = [answer, time.process_time() - start]
peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start_kb
print(json.dumps({"answers": answers, "peak_mb": peak_kb / 1024}))
"""


@pytest.fixture(scope="module", params=["Video", "Audio"])
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def run(kind, tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp(kind)
    cases = malformed_media.clips() if kind == "Video" else malformed_media.recordings()
    assert make_malformed.write(folder, cases) >= 200
    command = [sys.executable, "-c", READ_ALL, str(folder), kind]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=True)
    return {**json.loads(ended.stdout), "said": ended.stderr}


def test_each_gets_a_part_or_a_sentence(run, kind):
    called = {"Video": "InputError: The clip", "Audio": "InputError: The recording"}[kind]
    for name, (answer, _) in run["answers"].items():
        refused = answer.startswith(called)
        assert refused or answer.startswith(f"{kind}("), (name, answer)
        assert not (name.startswith("good_") and refused), (name, answer)
        assert not (name.startswith("bad_") and not refused), (name, answer)
        if refused:
            assert name in answer, answer
            assert answer.endswith(".") and "; " in answer and "\n" not in answer, answer


def test_each_is_answered_within_a_second(run):
    assert not {name: seconds for name, (_, seconds) in run["answers"].items() if seconds > 1}


def test_all_take_bounded_memory(run):
    assert run["peak_mb"] < MEMORY_MB


def test_nothing_is_said_besides(run):
    assert run["said"] == ""


def test_damage_is_always_the_same():
    for files in (media_files.base_clips, media_files.base_recordings):
        assert list(malformed_media.damaged(files())) == list(malformed_media.damaged(files()))
    names = [
        name
        for name, _ in (
            *malformed_media.damaged(media_files.base_clips()),
            *malformed_media.damaged(media_files.base_recordings()),
        )
    ]
    assert sum("_of_20." in name for name in names) == 19 * 11
