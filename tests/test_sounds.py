"""The laws of the world's sound: seeds decide, held-out combinations stay out, truth is heard where it is told."""

import random
import re
from collections import Counter

import numpy as np
import pytest

from training.judges.onsets import matched, onsets_of
from training.judges.tracks import impact_frames
from training.world.materials import MATERIALS
from training.world.motion import FPS, render_film
from training.world.notes import INSTRUMENTS, NAMED_TUNES, Music, midi_of, name_of, play, sample_music
from training.world.scene import ground_of
from training.world.sound_classes import CALLED, SHORT, SOUNDS, Noise, make_noise, sample_noise, takes
from training.world.sound_films import (
    SHOWN_INSTRUMENTS,
    impact_onsets,
    loudness,
    moments,
    playing_film,
    soundtrack,
    speaking_film,
)
from training.world.sound_impacts import impact
from training.world.sound_language import describe_music, describe_noise, hear, heard_caption, heard_slots
from training.world.sound_pack import GRID_S, MAX_SECONDS, SAMPLE_RATE, members, mix, to_grid
from training.world.sound_questions import ask_heard, read_heard_answer
from training.world.sounds import SOUND_TASKS, SOUNDING_VERBS
from training.world.speech import VOICES, Saying, lines_of, sample_saying, speak
from training.world.spoken_lines import lines, phrases_spoken
from training.world.tasks import TASKS, document
from training.world.verbs import sample_film

PLUCKED = ("piano", "guitar", "xylophone")


def items(example, kind):
    return [item for message in example.messages for item in message["content"] if item["type"] == kind]


def sounds_of(example):
    """Every sound of an example: recordings, and those of films."""
    found = [item["samples"] for item in items(example, "audio")]
    return found + [item["audio"] for item in items(example, "video") if "audio" in item]


def heard(seed, split="train"):
    rng = random.Random(seed)
    return rng.choice((sample_saying, sample_music, sample_noise))(rng, split)


def films(count, split="train"):
    rng = random.Random(1)
    found = []
    while len(found) < count:
        film = sample_film(rng, split, verbs=SOUNDING_VERBS)
        found += [film] if film.impacts else []
    return found


def test_sound_tasks_are_part_of_the_world():
    assert set(SOUND_TASKS) <= set(TASKS)


@pytest.mark.parametrize("task", SOUND_TASKS)
def test_sound_documents_are_the_same_for_the_same_seed(task):
    first, second = (document(task, 3, "train") for _ in range(2))
    assert first.truth["recordings"] == second.truth["recordings"]
    assert sounds_of(first) or items(first, "image")
    for one, other in zip(sounds_of(first), sounds_of(second), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("task", SOUND_TASKS)
def test_sound_documents_belong_to_their_split(task):
    for seed in range(6):
        assert not document(task, seed, "train").truth["held_out"]
        assert document(task, seed, "test").truth["held_out"]


@pytest.mark.parametrize("task", SOUND_TASKS)
def test_sound_documents_fit_their_budget(task):
    for seed in range(10):
        example = document(task, seed, "train")
        for samples in sounds_of(example):
            assert samples.dtype == np.float32 and samples.ndim == 1
            assert np.abs(samples).max() <= 1.0 and len(samples) <= MAX_SECONDS * SAMPLE_RATE
        for item in items(example, "video"):
            assert (len(item["frames"]) - 1) % 4 == 0
            assert "audio" not in item or len(item["audio"]) == len(item["frames"]) * SAMPLE_RATE // FPS
        text = sum(len(item["text"]) for item in items(example, "text"))
        sound = sum(-(-len(samples) * 25 // SAMPLE_RATE) for samples in sounds_of(example))
        video = sum((len(item["frames"]) // 4 + 1) * item["frames"][0].size // 768 for item in items(example, "video"))
        assert text // 3 + sound + video <= 384


def test_every_phrase_is_spoken_by_every_voice():
    assert len(lines()) >= 6000
    for voice in VOICES:
        assert len(members(voice)) == len(phrases_spoken())
        lengths = [len(speak(random.Random(0), Saying(voice, line))) for line in lines_of(voice)[::40]]
        assert 0.3 * SAMPLE_RATE < min(lengths) and max(lengths) <= 3.6 * SAMPLE_RATE
        assert all(length % 1280 == 0 for length in lengths)


def test_a_phrase_sounds_the_same_wherever_it_stands():
    alone = speak(random.Random(0), Saying("joe", "a fox"))
    after = speak(random.Random(0), Saying("joe", "draw a fox"))
    assert np.array_equal(after[-len(alone) :], alone)


def test_every_phrase_is_spoken_in_training():
    for voice in VOICES:
        trained = {phrase for line in lines_of(voice, "train") for phrase in lines()[line]}
        assert trained == set(phrases_spoken())
        assert all(len(lines()[line]) > 1 for line in lines_of(voice, "test"))
        assert 0.05 < len(lines_of(voice, "test")) / len(lines_of(voice)) < 0.16


def test_every_instrument_has_its_two_octaves():
    counts = Counter(name.partition("/")[0] for name in members("notes"))
    assert counts == dict.fromkeys(INSTRUMENTS, 25)


def fundamental(samples, candidates):
    """The candidate whose overtones are the strongest, all weighted alike for octaves above it."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 1 << 14))
    hertz = np.fft.rfftfreq(1 << 14, 1 / SAMPLE_RATE)

    def strength(midi):
        lowest = 440 * 2 ** ((midi - 69) / 12)
        near = (np.abs(12 * np.log2(hertz[1:] / (lowest * k))) < 0.4 for k in range(1, 9) if lowest * k < 7500)
        return sum(np.sqrt(spectrum[1:][place].max()) * 0.8**k for k, place in enumerate(near))

    return max(candidates, key=strength)


@pytest.mark.parametrize("instrument", INSTRUMENTS)
def test_notes_have_their_pitch(instrument):
    lowest = INSTRUMENTS[instrument]
    music = Music(instrument, (lowest + 4, lowest + 12, lowest + 7, lowest + 19), "slow")
    samples = play(random.Random(0), music)
    assert len(samples) == round(music.seconds * SAMPLE_RATE)
    for midi, onset in zip(music.notes, music.onsets, strict=True):
        start = round((onset + 0.08) * SAMPLE_RATE)
        found = fundamental(samples[start : start + 6000], range(lowest, lowest + 25))
        assert found % 12 == midi % 12


@pytest.mark.parametrize("instrument", PLUCKED)
def test_notes_begin_where_the_truth_says(instrument):
    for seed in range(6):
        music = sample_music(random.Random(seed), None, instrument)
        found = onsets_of(play(random.Random(seed), music))
        assert all(min(abs(onset - other) for other in found) < 0.02 for onset in music.onsets)


def test_what_sounds_begins_with_a_latent():
    rng = random.Random(0)
    for _ in range(100):
        for onset in (*sample_music(rng).onsets, *make_noise(rng, sample_noise(rng))[1]):
            assert abs(onset / GRID_S - round(onset / GRID_S)) < 1e-6


def test_note_names_are_read_back():
    for instrument, lowest in INSTRUMENTS.items():
        for midi in range(lowest, lowest + 25):
            for octave in (False, True):
                assert midi_of(name_of(midi, instrument, octave=octave), instrument) == midi
    assert midi_of("Bb", "piano") == midi_of("A sharp", "piano") == 70
    assert midi_of("H", "piano") is None


def test_known_tunes_are_in_both_octaves():
    titles = {sample_music(random.Random(seed), None).title for seed in range(900)}
    assert set(NAMED_TUNES) <= titles


def test_every_sound_has_recordings_and_a_name():
    assert set(CALLED) == {name.partition("/")[0] for name in members("sounds")}
    assert all(takes(name) for name in SOUNDS) and set(SHORT) <= set(SOUNDS)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_repeated_sounds_begin_where_the_truth_says(count):
    for name in ("drum", "snare drum", "bell", "clap"):
        samples, onsets = make_noise(random.Random(0), Noise(name, count))
        found = onsets_of(samples)
        assert all(min(abs(onset - other) for other in found) < 0.03 for onset in onsets)


@pytest.mark.parametrize("seed", range(0, 300, 10))
def test_captions_and_answers_are_read_back(seed):
    for number in range(seed, seed + 10):
        one, rng = heard(number), random.Random(number)
        assert hear(heard_caption(one)) == heard_slots(one)
        question = ask_heard(rng, one)
        assert read_heard_answer(question, question.answer) == question.fact
        assert read_heard_answer(question, "Well.") is None


def test_requests_name_what_is_asked_for():
    for seed in range(100):
        rng = random.Random(seed)
        noise, music = sample_noise(rng, None), sample_music(rng, None)
        slots = hear(f"the sound of {describe_noise(rng, noise)}")
        assert slots == noise.slots
        words = describe_music(rng, music)
        wanted = {name_of(midi, music.instrument)[0] for midi in music.notes}
        assert all(letter in words for letter in wanted)


@pytest.mark.parametrize("material", MATERIALS)
def test_impacts_begin_at_once_and_grow_with_strength(material):
    soft, hard = (impact(material, strength, take=1) for strength in (0.1, 0.9))
    assert np.abs(hard[:800]).max() == pytest.approx(np.abs(hard).max())
    assert np.abs(hard).max() > 1.5 * np.abs(soft).max()
    assert not np.array_equal(impact(material, 0.5, take=0), impact(material, 0.5, take=1))


def test_materials_sound_different():
    spectra = [np.abs(np.fft.rfft(impact(material, 1.0))) for material in MATERIALS]
    for number, one in enumerate(spectra):
        for other in spectra[:number]:
            assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) < 0.9


def test_films_sound_when_something_hits():
    for film in films(60):
        sound = soundtrack(film)
        assert len(sound) == film.num_frames * SAMPLE_RATE // FPS
        assert matched(impact_onsets(film), onsets_of(sound), within_s=1 / FPS)


def test_impacts_are_seen_where_the_truth_says():
    right = []
    for film in films(60):
        ground = ground_of(film.background, film.height, film.width)
        seen = impact_frames(render_film(film), ground, is_collision=film.verb == "collides")
        frames = [blow.frame for blow in film.impacts]
        right.append(matched(frames, seen, within_s=1))
    assert np.mean(right) > 0.9


def test_when_something_hits_is_said_before_a_film_with_sound():
    """To a tenth of a second, so that every frame has a moment of its own."""
    for seed in range(60):
        example = document("audio_video", seed)
        film, (said, shown) = example.truth["films"][0], example.messages[1]["content"]
        assert said["text"].endswith(moments(film)) and "audio" in shown
        frames = [round(FPS * float(second)) for second in re.findall(r"\d+\.\d", said["text"])]
        assert frames == [blow.frame for blow in film.impacts]
        assert (" lands " in moments(film)) == (len(film.actors) == 1)


def test_a_film_without_impacts_is_silent():
    film = sample_film(random.Random(0), verbs=("slides left",))
    assert not soundtrack(film).any() and onsets_of(soundtrack(film)) == []


@pytest.mark.parametrize("instrument", SHOWN_INSTRUMENTS)
def test_instruments_swell_on_their_notes(instrument):
    lowest = INSTRUMENTS[instrument]
    film, sound, onsets = playing_film(random.Random(0), Music(instrument, (lowest, lowest + 4, lowest + 7)))
    sizes = [pose.extent for pose in film.actors[0].poses]
    for onset in onsets:
        frame = round(onset * FPS)
        assert sizes[frame] > sizes[frame - 1] and sizes[frame] > sizes[frame + 1]
    assert len(sound) == film.num_frames * SAMPLE_RATE // FPS


def test_faces_move_as_they_speak():
    film, sound = speaking_film(random.Random(0), Saying("joe", "good morning"))
    sizes = np.array([pose.extent for pose in film.actors[0].poses])
    assert np.corrcoef(sizes, loudness(sound, film.num_frames))[0, 1] > 0.99


def test_mix_cuts_what_does_not_fit_and_never_clips():
    loud = np.ones(1000, np.float32)
    track = mix([(0.0, loud), (0.03, loud), (0.0, loud)], 0.05)
    assert len(track) == 800 and np.abs(track).max() <= 0.95 + 1e-6


def test_to_grid_is_a_whole_number_of_latents():
    assert to_grid(0.08) == 1280 and to_grid(0.081) == 2560


def test_practised_sounds_are_several_or_two_in_turn():
    noises = [document("practice_sound", seed, "train").truth["heard"][0] for seed in range(40)]
    assert all(noise.then or noise.count > 1 for noise in noises)
    assert any(noise.then for noise in noises) and any(noise.count > 1 for noise in noises)
