"""Which earlier merges are nearest to a new one."""

from nex_merge.study.neighbours import nearest
from nex_merge.study.trial import NEIGHBOURS
from tests.searches import search


def test_numbers_count_by_their_share_of_the_range():
    others = {"wide": {"w": 0.0, "k": 10}, "near": {"w": 0.5, "k": 60}, "far": {"w": 1.0, "k": 110}}
    assert nearest({"w": 0.4, "k": 60}, others, 3) == ["far", "wide", "near"]
    # 40 of a range of 100 are nearer than 0.6 of a range of 1.
    others = {"a": {"w": 0.6, "k": 50}, "b": {"w": 0.0, "k": 90}, "c": {"w": 1, "k": 0}}
    assert nearest({"w": 0.0, "k": 50}, others, 2) == ["a", "b"]


def test_another_method_is_farther_than_any_one_number():
    others = {"other": {"method": "slerp", "w": 0.5}, "same": {"method": "ties", "w": 1.0}}
    assert nearest({"method": "ties", "w": 0.6}, others, 1) == ["same"]
    assert nearest({"method": "ties", "w": 0.6, "density": 0.5}, others, 1) == ["same"]


def test_equal_recipes_and_none_at_all():
    assert nearest({"w": 0.5}, {"0": {"w": 0.5}, "1": {"w": 0.5}}, 2) == ["0", "1"], "the later one is the nearer"
    assert nearest({"w": 0.5}, {}, 4) == [] and nearest({}, {"0": {}}, 1) == ["0"] and nearest({}, {"0": {}}, 0) == []
    assert nearest({"flag": True}, {"0": {"flag": False}, "1": {"flag": True}}, 1) == ["1"]


def test_a_search_never_drafts_from_more_merges_than_that(toy_config, monkeypatch):
    from nex_merge.engines.transformers import FamilyEngine

    seen = []
    answer = FamilyEngine.answer

    def counted(self, prompts, config, drafts=(), notify=lambda tokens: None, only=None):
        seen.append(len(drafts) // len(prompts))
        return answer(self, prompts, config, drafts, notify, only)

    monkeypatch.setattr(FamilyEngine, "answer", counted)
    search(toy_config, study={"trials": NEIGHBOURS + 3})
    assert max(seen) == 3 + NEIGHBOURS and seen[-2:] == [3 + NEIGHBOURS] * 2
