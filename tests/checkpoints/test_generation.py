"""generation_config.json: what transformers refuses to save and what changes greedy decoding is dropped and said."""

import json

import pytest
from transformers import GenerationConfig

from nex_merge.checkpoints.generation import mended_generation_config
from nex_merge.errors import InputError
from tests.checkpoints.conftest import edit

pytestmark = pytest.mark.quick


def mended(folder, settings):
    (folder / "generation_config.json").write_text(settings if isinstance(settings, str) else json.dumps(settings))
    return mended_generation_config(folder)


@pytest.mark.parametrize(
    ("settings", "dropped"),
    [
        ({"do_sample": False, "temperature": 0.9, "top_p": 0.6}, ["temperature", "top_p"]),
        ({"temperature": 0.6, "min_p": 0.1, "typical_p": 0.9, "top_k": 20, "epsilon_cutoff": 0.1}, [
            "temperature", "min_p", "typical_p", "top_k", "epsilon_cutoff"]),
        ({"temperature": 0}, ["temperature"]),
        ({"do_sample": True, "temperature": 0.0, "top_p": 0.9}, ["temperature"]),
        ({"do_sample": True, "top_k": -1, "top_p": 1.5, "temperature": "0.6"}, ["top_k", "top_p", "temperature"]),
        ({"do_sample": "true", "temperature": 0.6}, ["do_sample", "temperature"]),
        ({"do_sample": True, "repetition_penalty": 1.05, "no_repeat_ngram_size": 3}, [
            "repetition_penalty", "no_repeat_ngram_size"]),
        ({"num_beams": 4, "length_penalty": 2.0, "early_stopping": True}, [
            "num_beams", "length_penalty", "early_stopping"]),
        ({"forced_eos_token_id": 2, "suppress_tokens": [2], "begin_suppress_tokens": [3]}, [
            "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens"]),
        ({"min_length": 5, "min_new_tokens": 5, "max_new_tokens": 0}, [
            "min_length", "min_new_tokens", "max_new_tokens"]),
        ({"bad_words_ids": [[1]], "sequence_bias": [[[1], 2.0]]}, ["bad_words_ids", "sequence_bias"]),
        ({"exponential_decay_length_penalty": [3, 1.1]}, ["exponential_decay_length_penalty"]),
        ({"penalty_alpha": 0.6, "guidance_scale": 1.5}, ["penalty_alpha", "guidance_scale"]),
        ({"prompt_lookup_num_tokens": 3, "watermarking_config": {"bias": 2.0}}, [
            "prompt_lookup_num_tokens", "watermarking_config"]),
        ({"stop_strings": ["x"], "max_time": 3.0}, ["stop_strings", "max_time"]),
        ({"num_return_sequences": 4, "return_dict_in_generate": True, "output_scores": True}, [
            "num_return_sequences", "return_dict_in_generate", "output_scores"]),
        ({"cache_implementation": "weird", "compile_config": {"a": 1}}, ["cache_implementation", "compile_config"]),
        ({"streamer": 1, "pad_token_id": -1}, ["streamer", "pad_token_id"]),
    ],
)  # fmt: skip
def test_what_is_dropped_is_said_and_the_rest_can_be_saved(folder, tmp_path, settings, dropped):
    config, notes = mended(folder, {**settings, "eos_token_id": [2, 5], "bos_token_id": None})
    assert [note.split(": ")[1] for note in notes] == dropped
    assert all(note.startswith("generation_config.json: ") and " dropped: " in note for note in notes)
    config.save_pretrained(tmp_path / "saved")
    read = GenerationConfig.from_pretrained(tmp_path / "saved")
    assert read.eos_token_id == [2, 5]
    assert all(getattr(read, key, None) is None for key in dropped)


def test_sound_sampling_and_limits_of_length_stay(folder, tmp_path):
    qwen = {
        "do_sample": True,
        "temperature": 0.6,
        "top_k": 20,
        "top_p": 0.95,
        "eos_token_id": [2, 5],
        "pad_token_id": 0,
    }
    config, notes = mended(folder, {**qwen, "max_new_tokens": 2048, "chat_format": "chatml", "repetition_penalty": 1.0})
    assert notes == [] and config.max_new_tokens == 2048
    config.save_pretrained(tmp_path / "saved")
    read = GenerationConfig.from_pretrained(tmp_path / "saved")
    assert {key: getattr(read, key) for key in qwen} == qwen


def test_neutral_values_need_no_words(folder):
    neutral = {
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 50,
        "num_beams": 1,
        "output_scores": False,
        "suppress_tokens": [],
    }
    assert mended(folder, neutral)[1] == []


def test_greedy_decoding_is_that_of_the_bare_logits(folder, model):
    """Under what was dropped, transformers would have decoded otherwise."""
    import torch

    settings = {"repetition_penalty": 3.0, "suppress_tokens": list(range(6, 120)), "eos_token_id": 2}
    kept, _ = mended(folder, settings)
    ids = torch.tensor([[7, 8, 9]])
    chosen = []
    for config in (GenerationConfig(eos_token_id=2), kept, GenerationConfig(**settings)):
        config.max_new_tokens = 8
        chosen.append(model.generate(ids, generation_config=config)[0].tolist())
    assert chosen[0] == chosen[1] != chosen[2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"generation_config\.json: not valid JSON \(line 1"),
        ("[]", "expected a JSON object"),
        ('{"eos_token_id": "2"}', "eos_token_id: expected token ids, got '2'"),
        ('{"eos_token_id": [2, null]}', "eos_token_id: expected token ids"),
    ],
)
def test_what_cannot_be_read_is_refused(folder, text, message):
    with pytest.raises(InputError, match=message):
        mended(folder, text)


def test_settings_that_older_versions_kept_in_the_config(folder):
    (folder / "generation_config.json").unlink(missing_ok=True)
    edit(folder / "config.json", do_sample=True, temperature=0.7, repetition_penalty=1.2)
    config, notes = mended_generation_config(folder)
    assert config == GenerationConfig(do_sample=True, temperature=0.7)
    assert [note.partition(" dropped")[0] for note in notes] == ["config.json: repetition_penalty: 1.2"]


def test_without_a_file_it_is_transformers_default(folder):
    (folder / "generation_config.json").unlink(missing_ok=True)
    assert mended_generation_config(folder) == (GenerationConfig(), [])
