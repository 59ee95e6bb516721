"""What every engine promises to those who use it: the fake, transformers with a family and with a checkpoint, parts."""

import dataclasses

import numpy as np
import pytest

from nex_merge.engines.contracts import Composed
from nex_merge.engines.transformers import CheckpointEngine, FamilyEngine
from nex_merge.records import MergeRecipe, Prompt
from nex_merge.setup.config import ActivationsConfig, GenerationConfig, PromptsConfig, RuntimeConfig
from nex_merge.setup.families import open_family
from nex_merge.study.proposal import passthrough
from tests.engines.fakes import FakeEngine

pytestmark = pytest.mark.quick
PROMPTS = [Prompt(({"role": "user", "content": text},), text) for text in ("a: a1 12", "b: b1 3 b2 4", "a")]
GREEDY = GenerationConfig(max_new_tokens=12)
SAMPLED = GenerationConfig(max_new_tokens=12, samples=3, temperature=0.8, seed=5)
READ = ActivationsConfig(slice_tokens=2, top_k=8)


def family_of(toy):
    return open_family({"base": str(toy["base"]), "models": {"a": str(toy["a"]), "b": str(toy["b"])}}, None)


def variants(toy) -> list[MergeRecipe]:
    members = [passthrough("parent", name, str(toy[name]), "bfloat16") for name in ("a", "b")]
    models = [{"model": str(toy[name]), "parameters": {"weight": 0.5}} for name in ("a", "b")]
    config = {"merge_method": "linear", "models": models, "dtype": "float32", "out_dtype": "bfloat16"}
    return [*members, MergeRecipe("merge", "linear", config, 0)]


def fake(toy):
    engine = FakeEngine()
    engine.load(variants(toy)[0])
    return engine


def of_family(toy):
    engine = FamilyEngine(family_of(toy), RuntimeConfig(device="cpu"))
    engine.load(variants(toy)[0])
    return engine


def of_checkpoint(toy):
    return CheckpointEngine(str(toy["a"]), RuntimeConfig(device="cpu"))


def of_parts(toy):
    """What answers and what reads need not be of one library."""
    whole = of_family(toy)
    return Composed(whole, whole, whole)


ENGINES = {"fake": fake, "family": of_family, "checkpoint": of_checkpoint, "parts": of_parts}
LOADING = [name for name in ENGINES if name != "checkpoint"]


@pytest.fixture(scope="module")
def engines(toy):
    return {name: make(toy) for name, make in ENGINES.items()}


@pytest.fixture(params=ENGINES)
def engine(engines, request):
    return engines[request.param]


@pytest.fixture(params=LOADING)
def loading(engines, request):
    return engines[request.param]


@pytest.fixture
def ids(engine):
    return engine.encode(PROMPTS, PromptsConfig(file=""), 12)


# Resident


def test_a_recipe_has_one_hash_whatever_was_loaded_before(toy, loading):
    hashes = [loading.load(recipe) for recipe in [*variants(toy), *reversed(variants(toy))]]
    assert hashes == hashes[::-1] and len({*hashes}) == 3 and {len(digest) for digest in hashes} == {64}


def test_prompts_have_the_same_tokens_every_time(engine, ids):
    assert ids == engine.encode(PROMPTS, PromptsConfig(file=""), 12)
    assert len(ids) == len(PROMPTS) and all(isinstance(token, int) for tokens in ids for token in tokens)


def test_logits_follow_every_token(engine, ids):
    logits = engine.logits(ids[1])
    assert logits.shape[0] == len(ids[1]) and logits.dtype == np.float32 and np.isfinite(logits).all()
    assert np.allclose(engine.logits(ids[1], last=1), logits[-1:], atol=1e-5)


# Answers


@pytest.mark.parametrize("config", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_a_response_for_every_prompt_and_sample_in_order(engine, ids, config):
    counted = []
    responses = engine.answer(ids, config, notify=counted.append)
    wanted = [(prompt, sample) for prompt in range(len(ids)) for sample in range(config.samples)]
    assert [(one.prompt, one.sample) for one in responses] == wanted
    assert all(one.prompt_ids == tuple(ids[one.prompt]) for one in responses)
    assert all(0 < len(one.token_ids) <= config.max_new_tokens for one in responses)
    assert sum(counted) == sum(len(one.token_ids) for one in responses)
    assert engine.answer(ids, config) == responses


@pytest.mark.parametrize("config", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_some_of_the_prompts_get_what_they_get_among_all(engine, ids, config):
    whole = engine.answer(ids, config)
    for only in ([2], {0, 2}, []):
        assert engine.answer(ids, config, only=only) == [one for one in whole if one.prompt in only]


@pytest.mark.parametrize("config", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_drafts_change_no_token(engine, ids, config):
    whole = engine.answer(ids, config)
    shortened = [dataclasses.replace(one, token_ids=one.token_ids[:5]) for one in whole]
    others = [dataclasses.replace(one, token_ids=one.token_ids[::-1]) for one in whole]
    for drafts in (whole, shortened, others):
        assert engine.answer(ids, config, drafts) == whole


# Reads


def test_what_is_read_of_a_response_does_not_depend_on_the_others(engine, ids):
    responses, done = engine.answer(ids, GREEDY), []
    whole = engine.capture(responses, READ, done.append)
    assert done[-1] == len(responses) == len(whole.stats) == len(whole.rows.sample_row_ptr) - 1
    assert whole.neurons > 0
    parts = [engine.capture([response], READ) for response in responses]
    assert {part.neurons for part in parts} == {whole.neurons}
    for i, part in enumerate(parts):
        assert dataclasses.astuple(part.stats[0]) == pytest.approx(dataclasses.astuple(whole.stats[i]))
        rows = slice(whole.rows.sample_row_ptr[i], whole.rows.sample_row_ptr[i + 1])
        assert part.rows.sample_row_ptr[-1] == rows.stop - rows.start


# Of parts


class Noting:
    """Answers as another does, and says what it was told."""

    def __init__(self, answers):
        self.answers, self.told = answers, []

    def loaded(self):
        self.told.append("loaded")

    def answer(self, *arguments):
        self.told.append("asked")
        return self.answers.answer(*arguments)


def test_what_answers_is_told_of_every_load(toy):
    whole = FakeEngine()
    noting = Noting(whole)
    engine = Composed(whole, noting, whole)
    ids = engine.encode(PROMPTS, PromptsConfig(file=""), 12)
    for recipe in variants(toy)[:2]:
        assert engine.load(recipe) and engine.answer(ids, GREEDY)
    assert noting.told == ["loaded", "asked"] * 2
