"""How responses end, and what counts as collapsed, on responses made by hand."""

import numpy as np
import pytest

from nex_merge.measures.concluding import conclusions_of, is_empty
from nex_merge.measures.estimates import Objective, score_pool
from nex_merge.measures.finishing import Ending, endings
from nex_merge.measures.guard import blind_spot, collapse
from nex_merge.measures.measure import Pool, Rules
from nex_merge.measures.registry import MEASURES
from nex_merge.measures.text import text_figures
from nex_merge.records import Observation, Response, Variant
from nex_merge.setup.config import ConsensusConfig

pytestmark = pytest.mark.quick

SOUND, LOOP = tuple(range(20)), (1, 2, *[7, 8] * 9)
# Each kind of response: tokens, text, and whether it was cut.
KINDS = {
    "finished": (SOUND, "<think>6 x 2</think> It is 12.", False),
    "loops": (LOOP, "It is 12.", False),
    "loops until cut": (LOOP, "6 6 6 6 6 6 6 6 6", True),
    "cut": (SOUND, "It is 12 or", True),
    "unclosed": (SOUND, "<think>It is 12.", False),
    "inconclusive": (SOUND, "I like it.", False),
    "empty": ((0,), "", False),
    "garbled": (SOUND, "It is 12.\x00\x01�", False),
}


def variant(kind, trial="", **counts):
    """A variant with so many responses of each kind (underscores for blanks), one to a prompt."""
    made = [KINDS[name.replace("_", " ")] for name, count in counts.items() for _ in range(count)]
    responses = [Response(i, 0, (1,), tokens, text, cut) for i, (tokens, text, cut) in enumerate(made)]
    return Variant(trial or kind, kind, True, Observation(responses))


def pool(*variants):
    return Pool(variants, Rules(consensus=ConsensusConfig(match="number")))


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("finished", Ending.FINISHED), ("loops", Ending.LOOPS), ("loops until cut", Ending.LOOPS),
        ("cut", Ending.CUT), ("unclosed", Ending.UNCLOSED), ("inconclusive", Ending.INCONCLUSIVE),
        ("empty", Ending.EMPTY), ("garbled", Ending.FINISHED),
    ],
)  # fmt: skip
def test_how_a_response_ends(name, ending):
    only = pool(variant("merge", **{name.replace(" ", "_"): 1}))
    (found,) = MEASURES["finished"].values(only)
    assert found.value == (ending is Ending.FINISHED)
    if not found.value:
        reason = collapse(only)[1]
        assert reason is not None and reason.endswith(f"; 100 % {ending.value}")


def test_a_loop_is_more_than_half_of_a_response():
    responses = [Response(0, k, (1,), SOUND, "12", False) for k in range(2)]
    assert endings(responses, np.array([0.5, 0.55]), ["12", "12"]) == [Ending.FINISHED, Ending.LOOPS]


def test_the_measure_is_a_mean_over_responses_with_parts_by_prompt():
    responses = [
        Response(prompt, sample, (1,), *KINDS[name])
        for prompt, sample, name in ((0, 0, "finished"), (0, 1, "cut"), (1, 0, "finished"), (1, 1, "finished"))
    ]
    (found,) = MEASURES["finished"].values(pool(Variant("a", "parent", True, Observation(responses))))
    assert (found.value, found.parts.tolist(), found.weights.tolist()) == (0.75, [1, 2], [2, 2])


def test_no_reading_no_conclusion():
    """What a response concludes is read as in the whole pool."""
    words = variant("merge", inconclusive=4)
    everyone = Pool([variant("parent", finished=4), words], Rules(consensus=ConsensusConfig(match="text")))
    assert MEASURES["finished"].values(everyone)[1].value == 1 and collapse(everyone) == (-1, None)
    assert MEASURES["finished"].values(pool(words))[0].value == 0


def test_beside_a_base_that_never_stops_a_merge_that_is_always_cut_has_collapsed():
    base = variant("base", loops_until_cut=10)
    parents = [variant("parent", "a", finished=8, cut=2), variant("parent", "b", finished=9, cut=1)]
    cut = variant("merge", loops_until_cut=7, cut=3)
    violation, reason = collapse(pool(base, *parents, cut))
    assert violation == pytest.approx(0.8 / 0.25 - 1)
    assert reason == "finishes 0 % of its responses, the worst fine-tune 80 %; 70 % loop"
    assert collapse(pool(*parents, cut)) == (violation, reason), "such a base is no reference"
    sound = variant("merge", finished=6, cut=4)
    assert collapse(pool(base, *parents, sound)) == (pytest.approx(-0.2), None)


def test_a_base_that_finishes_is_a_reference():
    parent, merge = variant("parent", finished=9, cut=1), variant("merge", finished=4, unclosed=6)
    assert collapse(pool(variant("base", finished=5, cut=5), parent, merge))[1] is None
    reason = collapse(pool(variant("base", finished=4, cut=6), parent, merge))[1]
    assert reason == "finishes 40 % of its responses, the worst fine-tune 90 %; 60 % don't close their thinking"
    ruined = variant("merge", finished=2, inconclusive=8)
    reason = collapse(pool(variant("base", finished=6, cut=4), parent, ruined))[1]
    assert reason == "finishes 20 % of its responses, base 60 %; 80 % conclude nothing"


def test_the_worst_of_the_fine_tunes_is_the_measure():
    good, bad = variant("parent", "a", finished=10), variant("parent", "b", finished=5, cut=5)
    merge = variant("merge", finished=3, cut=7)
    assert collapse(pool(good, bad, merge))[1] is None and collapse(pool(good, merge))[1] is not None
    earlier = variant("merge", "0000", cut=10)
    assert collapse(pool(good, earlier, merge))[1] is not None, "other merges are no reference"


def test_garbled_text_that_ends_by_itself_has_collapsed():
    violation, reason = collapse(pool(variant("parent", finished=4), variant("merge", finished=2, garbled=2)))
    assert violation == pytest.approx(0.125 / 0.02 - 1)  # 3 of 12 characters in half of the responses
    assert reason == "12.5 % of its characters are no text, the worst fine-tune 0 %"
    assert collapse(pool(variant("parent", garbled=4), variant("merge", garbled=4))) == (-1, None)


def test_no_parent_excuses_silence():
    silent = variant("parent", empty=8)
    assert collapse(pool(silent, variant("merge", empty=3, finished=5))) == (
        0.5,
        "37.5 % of its responses are empty",
    )
    assert collapse(pool(silent, variant("merge", empty=2, finished=6)))[1] is None
    scoring = score_pool(pool(variant("base", finished=8), silent), Objective("mean_tokens", -1))
    verdict = scoring.reliability.of("mean_tokens")
    assert verdict.level != "sound" and verdict.reasons[-1].startswith("it ranks what parent gives among answers")


@pytest.mark.parametrize(
    ("text", "says_nothing"),
    [
        ("", True), (" \n\t", True), ("\u200b\ufeff", True), ("</s>", True), ("<|im_end|>\n", True),
        ("<think>", True), ("<think>\n</think>\n", True), ("<think>6 x 2</think>\n\n", True),
        ("<think>6 x 2", False), ("<think>6 x 2</think> 12", False), (".", False), ("12</s>", False),
    ],
)  # fmt: skip
def test_what_says_nothing_concludes_nothing(text, says_nothing):
    response = Response(0, 0, (1,), SOUND, text, False)
    assert is_empty(response) == says_nothing
    for match in ("text", "number", "regex:[^ ]*"):
        if says_nothing:
            assert conclusions_of(Observation([response]), match) == {0: [None]}
    assert text_figures([response]).empty[0] == says_nothing


def test_where_nothing_is_scored_faultless_text_stands_in():
    assert collapse(pool(variant("merge", finished=8, cut=2)))[1] is None
    reason = collapse(pool(variant("base", cut=10), variant("merge", finished=1, cut=9)))[1]
    assert reason == "finishes 10 % of its responses, faultless text 100 %; 90 % are cut at max_new_tokens"


def test_where_a_fine_tune_hardly_finishes_the_guard_says_that_it_is_blind():
    base, cut = variant("base", cut=8), variant("parent", finished=1, cut=7)
    assert collapse(pool(base, cut, variant("merge", loops=8)))[1] is None
    assert blind_spot(pool(base, cut)) == (
        "the worst fine-tune finishes 12.5 % of its responses (87.5 % are cut at max_new_tokens), so a merge that "
        "collapsed can't be told from it; raise generation.max_new_tokens"
    )
    assert blind_spot(pool(variant("parent", inconclusive=4))).endswith("conclusions are read, consensus.match")
    assert blind_spot(pool(base, variant("parent", finished=3, cut=5))) is None
    assert blind_spot(pool(base)) is None and blind_spot(pool()) is None, "faultless text is the reference"
