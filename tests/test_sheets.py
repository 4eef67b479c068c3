"""The sheets of samples, and the card that shows them."""

from pathlib import Path

import numpy as np
import PIL.Image

from omni.parts import Audio, Image, Text, Video
from scripts import sample_sheets, write_model_card
from training import sheets

NANO = "omni/weights/nano"


def test_words_stand_below_what_they_announce():
    red, film = Image(np.full((8, 8, 3), 200, np.uint8)), Video(np.zeros((9, 8, 8, 3), np.uint8), 8.0)
    sound = Audio(np.zeros((1, 16000), np.float32), 16000)
    cells = sample_sheets.laid_out([Text("A dog."), red, film, Text("It barks."), sound, Text("Nice.")], "-> ")
    words = ["-> A dog.", "", "frame 3 of 9", "frame 6 of 9", "frame 9 of 9", "It barks. (1.0 s of sound)", "Nice."]
    assert [said for _, said in cells] == words
    assert cells[-1][0] is None and not sample_sheets.laid_out([], "")
    asked = sample_sheets.laid_out([red, Text("What is it?")], "")
    assert [said for _, said in asked] == ["What is it?"]


def test_a_row_is_as_high_as_what_stands_in_it():
    picture = np.zeros((16, 16, 3), np.uint8)
    high = sheets.CELL + sheets.GAP
    assert sheets.contact_sheet([picture, None], ["", ""], columns=1).size == (high, 2 * sheets.GAP + sheets.CELL + 4)
    words = sheets.contact_sheet([None], ["one two three four five six seven"], columns=1)
    assert words.size[1] == 2 * sheets.LINE + sheets.GAP + sheets.GAP // 2


def test_films_move_and_sounds_are_heard(tmp_path):
    sample_sheets.films(NANO, tmp_path / "films.webp", count=1)
    with PIL.Image.open(tmp_path / "films.webp") as film:
        assert film.n_frames > sample_sheets.HELD
    sample_sheets.sounds(NANO, tmp_path / "sounds.wav")
    assert Audio.load(tmp_path / "sounds.wav").duration_s > 1.5
    sample_sheets.tasks(NANO, tmp_path / "sheets", rows=1, only="notes", media=True)
    assert [path.name for path in sorted((tmp_path / "sheets").iterdir())] == ["notes-0-0.wav", "notes.jpg"]


def test_the_card_is_what_its_script_writes():
    card = Path(write_model_card.REPOSITORY, "docs", "MODEL_CARD.md")
    assert card.read_text(encoding="utf-8") == write_model_card.card()
