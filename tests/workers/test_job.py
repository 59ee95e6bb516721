"""The work of a trial is a function of what can be sent to another process, whole or block by block."""

import pickle
from dataclasses import replace

import pytest

from nex_merge.engines.observe import ObserveSettings
from nex_merge.engines.transformers import FamilyEngine
from nex_merge.errors import TrialError
from nex_merge.records import MergeRecipe
from nex_merge.setup.config import ActivationsConfig, GenerationConfig, PhasesConfig, RuntimeConfig
from nex_merge.setup.families import open_family
from nex_merge.workers.job import Job, perform
from tests.engines.fakes import FakeEngine

pytestmark = pytest.mark.quick
SETTINGS = ObserveSettings(
    GenerationConfig(max_new_tokens=12), ActivationsConfig(slice_tokens=2, top_k=8), PhasesConfig()
)
WITHOUT = replace(SETTINGS, activations=None)
PROMPTS = [[11, 12, 13], [14, 15], [16, 17, 18, 19], [20]]


def made(toy) -> Job:
    models = [{"model": str(toy[name]), "parameters": {"weight": 0.5}} for name in ("a", "b")]
    config = {"merge_method": "linear", "models": models, "dtype": "float32", "out_dtype": "bfloat16"}
    return Job("0000", MergeRecipe("merge", "linear", config, 0), PROMPTS, SETTINGS, [0, 1, 2, 3])


@pytest.fixture(scope="module")
def engine(toy):
    family = open_family({"base": str(toy["base"]), "models": {"a": str(toy["a"]), "b": str(toy["b"])}}, None)
    return FamilyEngine(family, RuntimeConfig(device="cpu"))


def same(one, other) -> bool:
    """Whether two jobs gave the same, to the bit."""
    rows = [answered.observation.rows for answered in (one, other)]
    return (
        one.weights_sha256 == other.weights_sha256
        and one.observation.responses == other.observation.responses
        and one.observation.stats == other.observation.stats
        and rows[0].rows.masses.tobytes() == rows[1].rows.masses.tobytes()
        and rows[0].rows.keys.tobytes() == rows[1].rows.keys.tobytes()
    )


def test_a_job_and_what_it_gives_can_be_sent(toy, engine):
    job = made(toy)
    answered = perform(job, engine)
    assert same(perform(pickle.loads(pickle.dumps(job)), engine), answered)
    assert same(pickle.loads(pickle.dumps(answered)), answered)
    assert set(answered.seconds) == {"merge", "generate", "capture", "score"}


def test_block_by_block_gives_what_all_at_once_gives(toy, engine):
    job = made(toy)
    whole = perform(job, engine)
    loaded = perform(replace(job, settings=WITHOUT, asked=()), engine)
    assert (loaded.observation.responses, set(loaded.seconds)) == ([], {"merge"})
    blocks = replace(job, settings=WITHOUT, weights_sha256=loaded.weights_sha256)
    first = perform(replace(blocks, asked=[3, 1]), engine)
    assert [response.prompt for response in first.observation.responses] == [1, 3] and first.observation.rows is None
    second = perform(replace(blocks, asked=[0, 2], answered=first.observation.responses), engine)
    read = perform(
        replace(job, asked=(), answered=second.observation.responses, weights_sha256=second.weights_sha256), engine
    )
    assert same(read, whole)


def test_what_is_loaded_is_not_merged_again(toy):
    engine, stages = FakeEngine(), []
    job = made(toy)
    loaded = perform(replace(job, settings=WITHOUT, asked=()), engine)
    perform(replace(job, weights_sha256=loaded.weights_sha256), engine, lambda stage, amount: stages.append(stage))
    assert len(engine.loaded) == 1 and list(dict.fromkeys(stages)) == ["generate", "capture", "score"]


def test_tokens_are_counted_on_from_block_to_block(toy):
    told = []
    first = perform(replace(made(toy), asked=[0, 1]), FakeEngine())
    job = replace(made(toy), asked=[2, 3], answered=first.observation.responses, weights_sha256="as before")
    perform(job, FakeEngine(), lambda stage, amount: told.append(amount) if stage == "generate" else None)
    assert told == [12, 24]


def test_what_a_recipe_causes_is_raised(toy):
    class Refuses(FakeEngine):
        def load(self, recipe):
            raise TrialError("not finite")

    with pytest.raises(TrialError, match="not finite"):
        perform(made(toy), Refuses())
