"""The bound on a trial's time, with an engine whose every step takes a known time."""

import re

import pytest
from typer.testing import CliRunner

from nex_merge.cli import app
from nex_merge.records import MergeRecipe, Response
from nex_merge.setup.config import ActivationsConfig, GenerationConfig
from nex_merge.study import probe

PROMPTS = [[1] * 40, [2] * 20, [3] * 8]


class Clock:
    """Time passes only where it is said."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


class Timed:
    """Reads a token in 0.01 s, a pass over any number of rows takes 1 s, capturing 0.1 s a token, a merge 5 s."""

    def __init__(self, clock, ends_after=99):
        self._clock, self._ends_after = clock, ends_after

    def load(self, recipe):
        self._clock.now += 5

    def answer(self, prompts, config):
        tokens = min(config.max_new_tokens, self._ends_after)
        self._clock.now += 0.01 * sum(map(len, prompts)) * config.samples + tokens
        rows = [(i, sample) for i in range(len(prompts)) for sample in range(config.samples)]
        return [Response(i, sample, tuple(prompts[i]), (7,) * tokens, "", True) for i, sample in rows]

    def capture(self, responses, config):
        self._clock.now += 0.1 * sum(len(one.prompt_ids) + len(one.token_ids) for one in responses)


@pytest.mark.parametrize("ends_after", [99, 2])
@pytest.mark.parametrize(("at_once", "batches"), [(3, 1), (2, 2), (1, 3)])
def test_a_bound_is_above_what_a_trial_takes_and_not_far(monkeypatch, at_once, batches, ends_after):
    clock = Clock()
    monkeypatch.setattr(probe, "time", clock)
    engine = Timed(clock, ends_after)
    config = GenerationConfig(max_new_tokens=100)
    found = probe.probe(engine, MergeRecipe("merge", "ties", {}, 0), PROMPTS, config, at_once, ActivationsConfig())
    exact = 0.01 * 68 + 100 * batches
    assert found.merge == 5 and exact <= found.generate <= 1.2 * exact + 5
    assert found.capture == pytest.approx(0.1 * (68 + 300))
    assert found.seconds == found.merge + found.generate + found.capture
    without = probe.probe(engine, MergeRecipe("merge", "ties", {}, 0), PROMPTS, config, at_once, None)
    assert without.capture == 0


def test_validate_says_it(tmp_path):
    command = ["validate", "configs/qwen3_consensus.yaml", "--out", str(tmp_path / "run"), "--trials", "2"]
    done = CliRunner().invoke(app, command, env={"COLUMNS": "400"})
    found = re.search(
        r"^time +at most about ([\d:]+), as 10 tokens and a merge by ties took now: a trial ", done.stdout, re.M
    )
    assert found and "drafts save nothing; without scores and a final" in done.stdout
