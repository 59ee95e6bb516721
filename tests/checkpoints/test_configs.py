"""config.json: mended where transformers and mergekit would stumble, refused where it is no decoder of text."""

import pytest
import torch

from nex_merge.checkpoints.configs import mended_config
from nex_merge.checkpoints.weights import stored_tensors
from nex_merge.errors import InputError
from nex_merge.merging import make_model
from tests.checkpoints.conftest import edit

pytestmark = pytest.mark.quick
OURS = "Qwen3ForCausalLM"


def mended(folder):
    return mended_config(folder, stored_tensors(folder))


def test_a_sound_config_stays_as_it_is(folder):
    config, notes = mended(folder)
    assert notes == [] and config.architectures == [OURS] and config.rms_norm_eps == 1e-6


@pytest.mark.parametrize(
    ("listed", "note"),
    [
        (..., f"config.json: architectures missing: {OURS} taken from model_type"),
        ([], f"config.json: architectures missing: {OURS} taken from model_type"),
        (None, f"config.json: architectures missing: {OURS} taken from model_type"),
        (["Qwen3Model"], f"config.json: architectures: [{OURS}] used instead of ['Qwen3Model']"),
        (["PeftModelForCausalLM"], f"config.json: architectures: [{OURS}] used instead of ['PeftModelForCausalLM']"),
        ([OURS, "Qwen3Model"], f"config.json: architectures: [{OURS}] used instead of ['{OURS}', 'Qwen3Model']"),
        (OURS, f"config.json: architectures: [{OURS}] used instead of '{OURS}'"),
        (12, f"config.json: architectures: [{OURS}] used instead of 12"),
    ],
)
def test_architectures_are_taken_from_the_model_type(folder, tmp_path, listed, note):
    edit(folder / "config.json", architectures=listed)
    config, notes = mended(folder)
    assert config.architectures == [OURS] and notes == [note]
    config.save_pretrained(tmp_path / "saved")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"architectures": ["Qwen3ForSequenceClassification"]},
            "a classifier or reward model, which answers no prompts",
        ),
        ({"architectures": ["Qwen3ForTokenClassification"]}, "a classifier or reward model"),
        ({"architectures": ["LlamaForCausalLM"]}, f"LlamaForCausalLM is not the model of model_type 'qwen3'.+{OURS}"),
        ({"model_type": "qwen2"}, f"{OURS} is not the model of model_type 'qwen2', which is Qwen2ForCausalLM"),
        ({"model_type": "qwen33"}, r"'qwen33' is unknown to transformers [\d.]+\. Did you mean 'qwen3'\?.+newer"),
        ({"model_type": ...}, 'model_type: missing.+add "model_type": "qwen3"'),
        ({"model_type": ..., "architectures": ...}, "model_type: missing.+add that of its base model"),
        ({"model_type": "t5"}, "no causal language model"),
        ({"model_type": "clip"}, "no causal language model"),
        ({"model_type": "whisper"}, r"an encoder-decoder \(whisper\)"),
        ({"is_encoder_decoder": True}, "an encoder-decoder"),
        ({"model_type": "xq", "auto_map": {"AutoConfig": "x.X"}}, r"needs the checkpoint's own code \(auto_map\)"),
        ({"vision_config": {"depth": 1}}, r"a model of more than text \(qwen3, with vision_config\)"),
        ({"text_config": {"depth": 1}}, "a model of more than text"),
        ({"model_type": "gemma3"}, "a model of more than text"),
        ({"hidden_size": "16"}, "cannot read this config: .+'hidden_size' expected int, got str"),
        ({"num_hidden_layers": 3}, "cannot read this config"),
        ({"quantization_config": "int8"}, "quantization_config: expected a mapping, got 'int8'; remove the key"),
        ({"transformers_weights": "other.safetensors"}, "transformers would read other.safetensors, and mergekit"),
    ],
)
def test_what_is_no_decoder_of_text_is_refused(folder, changes, message):
    edit(folder / "config.json", **changes)
    with pytest.raises(InputError, match=rf"config\.json: .*{message}") as error:
        mended(folder)
    assert len(str(error.value)) < 600, "no list of all models"


def test_custom_code_of_a_known_model_is_not_run_and_said(folder):
    edit(folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling_x.X"})
    config, notes = mended(folder)
    assert notes == [f"config.json: auto_map dropped: its code is not run; transformers' own {OURS} is used"]
    assert "auto_map" not in config.to_dict()


@pytest.mark.parametrize("value", ["flash_attention_2", "eager", {"": "flex_attention"}, ["x"], 3])
@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "_experts_implementation"])
def test_kernels_that_a_member_asks_for_are_ignored_and_said(folder, tmp_path, key, value):
    edit(folder / "config.json", **{key: value})
    config, notes = mended(folder)
    assert notes == [f"config.json: {key}: {value!r} ignored: members and merges run with transformers' default"]
    make_model(config, torch.float32)
    config.save_pretrained(tmp_path / "saved")
    assert key not in (tmp_path / "saved" / "config.json").read_text()


def test_a_vision_language_model_is_refused_in_words(tmp_path, toy):
    from transformers import Qwen2VLConfig

    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    Qwen2VLConfig(text_config={"vocab_size": 190, "rope_parameters": rope}).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"a model of more than text \(qwen2_vl, .+only language models can be merged"):
        mended_config(tmp_path, stored_tensors(toy["a"]))
