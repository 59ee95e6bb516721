"""What a model card says, and what is not exported."""

from dataclasses import replace

import pytest
import yaml

from nex_merge.errors import InputError
from nex_merge.records import TrialResult
from nex_merge.runs.export import export_trial
from nex_merge.runs.leaderboard import best_merge, latest_results
from nex_merge.runs.proof import checkpoint_digest
from nex_merge.runs.results import read_reliability
from nex_merge.runs.run import RunFolder


@pytest.mark.quick
def test_a_card_holds_members_recipe_seed_checksum_and_figures(toy, toy_run, tmp_path):
    run = RunFolder(toy_run)
    trial = best_merge(run).trial
    assert len(list(export_trial(run, None, tmp_path / "best"))) >= 4
    card = (tmp_path / "best" / "README.md").read_text()
    _, head, body = card.split("---\n", 2)
    assert yaml.safe_load(head) == {"library_name": "transformers", "tags": ["mergekit", "merge", "nex-merge"]}
    assert body.startswith("# Merge of a, b (ties)\n") and f"Trial {trial} of a search with nex-merge" in body
    assert "Weights are stored in bfloat16; they were scored computing in float32." in body
    # The recipe is the trial's, with names in place of this machine's folders.
    recipe = (run.folder(trial) / "recipe.yaml").read_text()
    for name, folder in toy.items():
        recipe = recipe.replace(str(folder), name)
        assert str(folder) not in card
    recipe = recipe.replace("recipe.yaml OUT", "mergekit_config.yml OUT").replace("\n", " --no-write-model-card\n", 1)
    assert recipe.strip() in body and "--random-seed" in recipe
    result = next(item for item in latest_results(run) if item.trial == trial)
    assert checkpoint_digest(tmp_path / "best") == result.weights_sha256
    assert f"Seed of the merge: {result.seed}. sha256 of the tensors: `{result.weights_sha256}`." in body
    score, nex = result.score, result.estimates["nex"]
    tokens = [len(response.token_ids) for response in run.responses(trial)]
    cut = [response.truncated for response in run.responses(trial)]
    verdict = read_reliability(run.path).of("nex")
    told = "nothing is recommended: the verdict on NEX is insufficient"
    table = body.partition("|---|---|\n")[2].partition("\n\n")[0]
    rows = dict(line.strip("| ").split(" | ") for line in table.splitlines())
    assert rows == {
        "consensus: agreement with what all variants conclude": "-",
        "NEX (arXiv 2602.05805), calibration self": f"{nex.value:.6f} ({nex.low:.6f} to {nex.high:.6f})",
        "responses scored": f"{score.scored} of 4",
        "responses that earned credit": str(score.credited),
        "cycles": str(score.cycles),
        "mean tokens of a response": f"{sum(tokens) / 4:.1f}",
        "truncated": f"{sum(cut) / 4:.3f}",
        "mean token entropy, nats": f"{result.value('entropy'):.6f}",
        "verdict on the ranking by NEX": "; ".join([verdict.level, *verdict.reasons, told]),
    }
    assert verdict.reasons, "four prompts are too few"


def test_a_failed_trial_has_nothing_to_export(toy_run_copy, tmp_path):
    run = RunFolder(toy_run_copy)
    run.write(TrialResult("0009", "merge", "ties", "ties", 0, "failed", reason="not finite"))
    with pytest.raises(InputError, match=r"trial 9 failed \(not finite\); there is nothing to export"):
        next(export_trial(run, "9", tmp_path / "out"))
    with pytest.raises(InputError, match="trial '77': not in this run"):
        next(export_trial(run, "77", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_without_a_complete_merge_one_has_to_be_named(toy_run_copy, tmp_path):
    run = RunFolder(toy_run_copy)
    for result in run.results():
        if result.kind == "merge":
            run.write(replace(result, state="collapsed", reason="planted"))
    with pytest.raises(InputError, match=r"expected a complete merge, got none\. To use another trial, name it$"):
        next(export_trial(run, None, tmp_path / "out"))
