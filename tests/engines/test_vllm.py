"""What the engine with vLLM does around vLLM, which a stand-in takes the part of: it need not be installed.

The stand-in has weights of its own, as vLLM has, and decodes by transformers. tests/vllm/ has vLLM itself.
"""

import copy
import math

import numpy as np
import pytest
import torch
import yaml
from transformers import Qwen3ForCausalLM

from nex_merge.engines import vllm_engine
from nex_merge.engines.transformers import FamilyEngine
from nex_merge.engines.vllm_drafts import Drafter, Sources
from nex_merge.engines.vllm_model import Continued
from nex_merge.errors import InputError, RunError, TrialError
from nex_merge.runs import custody
from nex_merge.setup.config import GenerationConfig, PromptsConfig, RuntimeConfig
from nex_merge.setup.families import open_family
from nex_merge.setup.resolve import resolve_config
from nex_merge.study import preflight
from tests.conftest import make_toy, without_hashes
from tests.engines.test_contracts import GREEDY, PROMPTS, family_of, variants
from tests.searches import Steady, search


class StandIn:
    """A model beside the resident one."""

    def __init__(self, model, size):
        self.size, self.handed, self.forgotten, self.is_closed = size, 0, 0, False
        config = copy.deepcopy(model.config)
        config.tie_word_embeddings = False
        self.model = Qwen3ForCausalLM(config).to(model.dtype).eval()
        made.append(self)

    def close(self):
        self.is_closed = True

    def replace_weights(self, weights):
        self.handed += 1
        self.model.load_state_dict(dict(weights))

    def unlike(self, weights):
        return [name for name, weight in weights if "norm" in name and not torch.equal(self.found(name), weight)]

    def found(self, name):
        return self.model.get_parameter(name)

    def forget_prefixes(self):
        self.forgotten += 1

    @torch.inference_mode()
    def logits(self, ids):
        return self.model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0].float().numpy()

    def next_logits(self, ids):
        return self.logits(ids)[np.arange(len(ids) - 1), ids[1:]]

    def continued(self, requests, ends, notify):
        found = {name: Continued() for name in requests}
        for name, request in requests.items():
            one, ids = found[name], list(request.ids)
            assert len(ids) + request.tokens <= self.size.length
            while len(one.token_ids) < request.tokens and not {*one.token_ids} & {*ends}:
                logits = self.logits(ids)[-1]
                second, first = np.sort(logits)[-2:]
                self.chosen(one, logits)
                one.largest.append(float(first))
                one.leads.append(float(first - second))
                ids.append(one.token_ids[-1])
                notify(1)
        return found

    def chosen(self, one, logits):
        one.token_ids.append(int(logits.argmax()))


made: list[StandIn] = []


@pytest.fixture
def engine(toy, monkeypatch):
    made.clear()
    monkeypatch.setattr(vllm_engine, "find_spec", lambda name: object())
    monkeypatch.setattr(vllm_engine, "VllmModel", StandIn)
    return vllm_engine.VllmEngine(family_of(toy), RuntimeConfig(engine="vllm", device="cpu"))


@pytest.fixture
def ids(engine):
    return engine.encode(PROMPTS, PromptsConfig(file=""), GREEDY.max_new_tokens)


@pytest.fixture(scope="module")
def expected(toy):
    """What transformers answers, by variant."""
    engine = FamilyEngine(family_of(toy), RuntimeConfig(device="cpu"))
    ids = engine.encode(PROMPTS, PromptsConfig(file=""), GREEDY.max_new_tokens)
    found = []
    for recipe in variants(toy):
        engine.load(recipe)
        found.append(engine.answer(ids, GREEDY))
    return found


def test_weights_are_handed_over_when_an_answer_is_asked_for(toy, engine, ids, expected):
    for recipe, responses in zip(variants(toy), expected, strict=True):
        engine.load(variants(toy)[0])  # nothing is asked of it
        engine.load(recipe)
        assert engine.answer(ids, GREEDY) == responses == engine.answer(ids, GREEDY)
    assert [model.handed for model in made] == [3] and made[0].forgotten == 6


def test_it_is_built_for_the_longest_prompt_and_again_for_a_longer_one(toy, engine, ids):
    engine.load(variants(toy)[0])
    engine.answer(ids[2:], replace_tokens(2))
    engine.answer(ids, GREEDY)
    engine.answer(ids, replace_tokens(256))
    assert [model.size.length for model in made] == [256, 512] and [model.is_closed for model in made] == [True, False]
    assert made[1].handed == 1


def replace_tokens(count):
    return GenerationConfig(max_new_tokens=count)


def test_weights_that_were_not_taken_end_the_search(toy, engine, ids, monkeypatch):
    engine.load(variants(toy)[0])
    engine.answer(ids, GREEDY)
    taken = StandIn.replace_weights

    def without_the_output_layer(self, weights):
        taken(self, {**dict(weights), "lm_head.weight": self.model.lm_head.weight}.items())

    monkeypatch.setattr(StandIn, "replace_weights", without_the_output_layer)
    engine.load(variants(toy)[1])
    with pytest.raises(RunError, match="does not hold the weights that it was given: its logits of a fixed text"):
        engine.answer(ids, GREEDY)
    assert made[0].is_closed  # nothing asks it again


def test_a_tensor_that_vllm_has_otherwise_ends_the_search(toy, engine, ids, monkeypatch):
    monkeypatch.setattr(StandIn, "found", lambda self, name: torch.zeros(1))
    engine.load(variants(toy)[0])
    with pytest.raises(RunError, match=r"does not hold the weights.*: model\.\S*norm\.weight is another tensor there"):
        engine.answer(ids, GREEDY)


def test_a_tensor_without_a_name_in_the_model_ends_the_search(toy, engine, ids):
    engine.resident.tensors = {**engine.resident.tensors, "model.extra.weight": ("BF16", [1])}
    engine.load(variants(toy)[0])
    with pytest.raises(RunError, match=r"earlier weights of 1 tensor, for example model\.extra\.weight"):
        engine.answer(ids, GREEDY)


def test_a_token_that_rounding_may_have_decided_is_the_resident_models(toy, engine, ids, expected, monkeypatch):
    def by_another_rounding(self, one, logits):
        second, first = np.argsort(logits)[-2:]
        is_third = len(one.token_ids) == 2
        one.token_ids.append(int(second if is_third else first))

    def as_if_tied(found):
        return [place for place in range(len(found.leads)) if place == 2]

    monkeypatch.setattr(StandIn, "chosen", by_another_rounding)
    engine.load(variants(toy)[0])
    assert engine.answer(ids, GREEDY) != expected[0]
    monkeypatch.setattr(vllm_engine, "_unsure", as_if_tied)
    counted = []
    # A second time round, the third of the further tokens is wrong again, until none is left.
    assert engine.answer(ids, GREEDY, notify=counted.append) == expected[0]
    assert sum(counted) == sum(len(one.token_ids) for one in expected[0]) and min(counted) < 0


def test_close_logits_are_unsure_and_infinite_ones_a_fault_of_the_trial():
    assert vllm_engine._unsure(Continued([5, 6, 7], [20.0, 0.1, -9.0], [0.0019, 0.0021, 0.0009])) == [0, 2]
    for value in (math.nan, math.inf):
        with pytest.raises(TrialError, match="not finite"):
            vllm_engine._unsure(Continued([5, 6], [20.0, value], [1.0, 1.0]))


def test_logits_that_are_not_finite_are_a_fault_of_the_trial(toy, engine, ids):
    engine.load(variants(toy)[0])
    with torch.no_grad():
        engine.resident.model.get_input_embeddings().weight[5] = torch.inf
    with pytest.raises(TrialError, match="not finite"):
        engine.answer(ids, GREEDY)


def test_a_family_whose_rotary_frequencies_depend_on_the_length_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(vllm_engine, "find_spec", lambda name: object())
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    folders = {name: str(make_toy(tmp_path / name, seed, rope_parameters=rope)) for seed, name in enumerate("xyz")}
    family = open_family({"base": folders.pop("x"), "models": folders}, None)
    with pytest.raises(InputError, match=r"runtime\.engine: vllm can't answer for this family"):
        vllm_engine.VllmEngine(family, RuntimeConfig(engine="vllm", device="cpu"))


# Drafts


def test_drafts_follow_the_prompt_that_the_row_begins_with():
    sources = Sources()
    sources.replace({(1, 2): [[7, 8, 9, 10]], (1, 2, 3): [[4, 5, 6]]})
    assert sources.propose([1, 2]) == [7, 8, 9, 10] and sources.propose([1, 2, 7]) == [8, 9, 10]
    assert sources.propose([1, 2, 3]) == [4, 5, 6]
    assert sources.propose([9, 9]) == []


def test_a_row_that_still_reads_its_prompt_has_no_draft(monkeypatch):
    sources = Sources()
    sources.replace({(1, 2): [[7, 8, 9]]})
    monkeypatch.setattr("nex_merge.engines.vllm_drafts.SOURCES", sources)
    table = np.array([[1, 2, 7, 0], [1, 2, 0, 0]])
    assert Drafter(None).propose([[7], []], np.array([3, 2]), table, slot_mappings=None) == [[8, 9], []]


# The setting


def test_without_vllm_nothing_is_loaded_and_the_page_is_named(toy_config, monkeypatch):
    monkeypatch.setattr(vllm_engine, "find_spec", lambda name: None)
    monkeypatch.setattr(preflight, "engine_for", lambda *given: pytest.fail("the family was loaded"))
    with pytest.raises(InputError, match=r"^runtime\.engine: vllm needs vLLM, which is not installed.*docs/vllm\.md"):
        preflight.check(resolve_config(str(toy_config), {"runtime": {"engine": "vllm"}}))


def test_another_gpu_than_the_first_is_refused(monkeypatch):
    monkeypatch.setattr(vllm_engine, "find_spec", lambda name: object())
    with pytest.raises(InputError, match=r"runtime\.device: .* got cuda:1; set CUDA_VISIBLE_DEVICES"):
        vllm_engine.check_vllm(RuntimeConfig(engine="vllm", device="cuda:1"))
    vllm_engine.check_vllm(RuntimeConfig(engine="vllm", device="cuda:0"))


def test_a_run_keeps_its_engine(toy_config, tmp_path):
    search(toy_config, engine=Steady(), study={"trials": 1})
    kept = without_hashes(tmp_path / "run") / "config.yaml"
    with pytest.raises(InputError, match=r"runtime\.engine: was 'transformers', is 'vllm'"):
        custody.compare(resolve_config(str(toy_config), {"runtime": {"engine": "vllm"}, "study": {"trials": 1}}))
    # Runs from before there was a choice were answered by transformers.
    older = yaml.safe_load(kept.read_text())
    del older["runtime"]["engine"]
    kept.write_text(yaml.safe_dump(older))
    again = resolve_config(str(toy_config), {"study": {"trials": 1}})
    assert custody.compare(again) == []
