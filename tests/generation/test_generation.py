"""Responses do not depend on batches; noise belongs to its position; truncation; out of memory."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from nex_merge.errors import TrialError
from nex_merge.generation import batches, generate, sampling
from nex_merge.generation.sampling import Job, choose, choose_all
from nex_merge.setup.config import GenerationConfig

PROMPTS = [[1, 20, 30], [1, 40], [1, 50, 60, 70, 80], [1, 11, 12, 13], [1, 90], [1, 25, 35, 45]]
GREEDY = GenerationConfig(max_new_tokens=40)
SAMPLED = GenerationConfig(max_new_tokens=40, temperature=0.8, top_p=0.9, top_k=20, samples=2, seed=3)


def tokens(responses):
    return [(r.prompt, r.sample, r.token_ids) for r in responses]


def greedy_by_transformers(model, tokenizer, prompt_ids):
    ids = torch.tensor([prompt_ids])
    return model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=0,
    )[0, ids.shape[1] :].tolist()  # fmt: skip


@pytest.mark.parametrize("config", [GREEDY, SAMPLED])
@pytest.mark.parametrize("batch_tokens", [1, 100, 200])
def test_responses_do_not_depend_on_the_batch(model, tokenizer, config, batch_tokens):
    together = generate(model, tokenizer, PROMPTS, config)
    apart = generate(model, tokenizer, PROMPTS, config.model_copy(update={"batch_tokens": batch_tokens}))
    assert tokens(together) == tokens(apart)


def test_a_response_does_not_depend_on_other_prompts(model, tokenizer):
    whole = generate(model, tokenizer, PROMPTS, SAMPLED)
    first = generate(model, tokenizer, PROMPTS[:2], SAMPLED)
    assert tokens(whole)[:4] == tokens(first)


@pytest.mark.parametrize("config", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_some_of_the_prompts_get_the_tokens_that_they_get_among_all(model, tokenizer, config):
    whole = generate(model, tokenizer, PROMPTS, config)
    some = generate(model, tokenizer, PROMPTS, config, only=[2, 0])
    assert some == [response for response in whole if response.prompt in (0, 2)]


def test_greedy_is_what_transformers_generates(model, tokenizer):
    for response in generate(model, tokenizer, PROMPTS, GREEDY):
        assert list(response.token_ids) == greedy_by_transformers(model, tokenizer, response.prompt_ids)


def test_samples_differ_and_the_seed_decides(model, tokenizer):
    first = generate(model, tokenizer, PROMPTS, SAMPLED)
    assert first[0].token_ids != first[1].token_ids
    assert tokens(first) == tokens(generate(model, tokenizer, PROMPTS, SAMPLED))
    other = generate(model, tokenizer, PROMPTS, SAMPLED.model_copy(update={"seed": 4}))
    assert tokens(first) != tokens(other)


def test_truncated_responses_are_marked(model, tokenizer):
    for response in generate(model, tokenizer, PROMPTS, GREEDY):
        assert response.truncated == (response.token_ids[-1] != tokenizer.eos_token_id)
        assert response.truncated == (len(response.token_ids) == 40) or not response.truncated


def test_out_of_memory_halves_the_batch_and_goes_on(model, tokenizer, monkeypatch, caplog):
    expected = tokens(generate(model, tokenizer, PROMPTS, GREEDY))
    forward, sizes = type(model).forward, []

    def small(self, input_ids=None, **kwargs):
        sizes.append(len(input_ids))
        if len(input_ids) > 2:
            raise torch.OutOfMemoryError("too large")
        return forward(self, input_ids=input_ids, **kwargs)

    assert not caplog.records
    monkeypatch.setattr(type(model), "forward", small)
    assert tokens(generate(model, tokenizer, PROMPTS, GREEDY)) == expected
    assert sizes[:3] == [6, 3, 1]
    (record,) = caplog.records
    assert record.name.startswith("nex_merge.") and record.levelname == "WARNING"
    assert "batches were reduced from 6 responses to 1" in record.getMessage()
    assert "generation.batch_tokens" in record.getMessage()


def test_out_of_memory_in_the_middle_restarts_those_responses(model, tokenizer, monkeypatch):
    expected = tokens(generate(model, tokenizer, PROMPTS, SAMPLED))
    forward, calls = type(model).forward, []

    def failing(self, input_ids=None, **kwargs):
        calls.append(len(input_ids))
        if len(calls) in (7, 15):
            raise torch.OutOfMemoryError("too large")
        return forward(self, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(type(model), "forward", failing)
    assert tokens(generate(model, tokenizer, PROMPTS, SAMPLED)) == expected
    assert max(calls[15:]) < max(calls[:7])


def test_out_of_memory_with_one_response_fails(model, tokenizer, monkeypatch):
    def none(self, **kwargs):
        raise torch.OutOfMemoryError("too large")

    monkeypatch.setattr(type(model), "forward", none)
    with pytest.raises(
        TrialError, match=r"single response of up to 40 tokens; lower generation\.max_new_tokens \(--set"
    ):
        generate(model, tokenizer, PROMPTS, GREEDY)


def test_near_ties_are_not_sure():
    logits = torch.tensor([[1.0, 5.0, 5.0 - 1e-6, 0.0], [1.0, 5.0, 3.0, 0.0]])
    chosen, sure = choose(logits, None, GREEDY)
    assert chosen.tolist() == [1, 1] and sure.tolist() == [False, True]


def test_sampling_follows_the_filtered_distribution():
    """Frequencies of Gumbel-max draws against the probabilities they stand for, top_k and top_p applied."""
    logits = torch.tensor([2.0, 1.0, 0.5, -1.0, -3.0])
    config = GenerationConfig(temperature=1.0, top_p=0.8, top_k=3)
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(rng.gumbel(size=(20_000, 5)).astype(np.float32))
    chosen, _ = choose(logits.expand(20_000, 5), noise, config)
    p = logits.softmax(0)
    assert p[0] < 0.8 <= p[0] + p[1], "the nucleus is the first two tokens"
    found = np.bincount(chosen.numpy(), minlength=5) / 20_000
    np.testing.assert_allclose(found, [p[0] / (p[0] + p[1]), p[1] / (p[0] + p[1]), 0, 0, 0], atol=0.01)


def test_noise_is_drawn_on_all_cores_and_belongs_to_its_position(monkeypatch):
    jobs = [Job(prompt, sample, (1,)) for prompt in range(3) for sample in range(2)]
    positions = [(job, 7 + i) for i, job in enumerate(jobs)]
    workers = []

    def on_cores(work, items):
        with ThreadPoolExecutor(2) as pool:
            for result in pool.map(work, items):
                workers.append(1)
                yield result

    monkeypatch.setattr(sampling, "on_cores", on_cores)
    found = sampling.gumbel_noise(5, positions, 1000)
    assert found.dtype == torch.float32 and found.shape == (6, 1000) and len(workers) == 6
    for row, (job, position) in zip(found.numpy(), positions, strict=True):
        bits = np.random.Philox(key=5, counter=[0, job.prompt, job.sample, position])
        assert np.array_equal(row, np.random.Generator(bits).gumbel(size=1000).astype(np.float32))


def test_logits_that_are_not_finite_fail(model):
    job = Job(0, 0, (1, 2))
    logits = torch.tensor([[[1.0, 2.0, 0.0], [float("nan"), 1.0, 0.0]]])
    # Logits after a rejected draft are not used.
    assert choose_all(model, logits, [job], [[0]], {job: []}, GREEDY) == [[1]]
    with pytest.raises(TrialError, match="not finite"):
        choose_all(model, logits, [job], [[1]], {job: []}, GREEDY)


@pytest.mark.parametrize("config", [GREEDY, GenerationConfig(temperature=0.8, seed=3)], ids=["greedy", "sampled"])
def test_places_are_chosen_alike_however_many_at_once(model, monkeypatch, config):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 7, generator=generator)
    rows = [Job(0, 0, (1,)), None, Job(1, 0, (2,))]
    done = {job: [5] for job in rows if job is not None}
    first = choose_all(model, logits, rows, [[], [], []], done, config)
    assert [len(tokens) for tokens in first] == [1, 0, 1]
    # Drafts that begin with what is chosen are accepted up to their first wrong token.
    drafts = [[first[0][0], 6, 6], [], [(first[2][0] + 1) % 7]]
    found = choose_all(model, logits, rows, drafts, done, config)
    assert found[0][:1] == first[0] and len(found[0]) >= 2 and found[1:] == [[], first[2]]
    monkeypatch.setattr(sampling, "LOGITS_AT_ONCE", 1)
    assert choose_all(model, logits, rows, drafts, done, config) == found


def test_waiting_prompts_replace_finished_ones(model, tokenizer, monkeypatch):
    """Two rows, six responses of different lengths: as many passes as there are tokens to generate, not more."""
    forward, rows = type(model).forward, []

    def counted(self, input_ids=None, **kwargs):
        rows.append(len(input_ids))
        return forward(self, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(type(model), "forward", counted)
    lengths = [len(r.token_ids) for r in generate(model, tokenizer, PROMPTS, GREEDY)]
    assert len(set(lengths)) > 2, "otherwise the test shows nothing"
    rows.clear()
    generate(model, tokenizer, PROMPTS, GREEDY.model_copy(update={"batch_tokens": 2 * (5 + 40)}))
    assert max(rows) == 2
    prefills = len(PROMPTS)
    # Both rows are in use until the last prompt has started; then one response may continue alone.
    assert len(rows) <= sum(lengths) / 2 + max(lengths) / 2 + prefills


@pytest.mark.parametrize("batch_tokens", [350, "auto"])
@pytest.mark.parametrize("config", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_a_shared_prefix_is_prefilled_once(model, tokenizer, monkeypatch, config, batch_tokens):
    config = config.model_copy(update={"batch_tokens": batch_tokens})
    head = [1, *range(20, 60)]
    prompts = [[*head, *prompt[1:]] for prompt in PROMPTS]
    forward, read = type(model.model).forward, []

    def counted(self, input_ids=None, **kwargs):
        read.append(tuple(input_ids.shape))
        return forward(self, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(type(model.model), "forward", counted)
    with monkeypatch.context() as patch:
        patch.setattr(batches, "PASS_TOKENS", 10**6)
        expected = generate(model, tokenizer, prompts, config)
    apart = sum(rows * columns for rows, columns in read)
    read.clear()
    assert generate(model, tokenizer, prompts, config) == expected
    assert sum(rows * columns for rows, columns in read) < apart
    rows = 4 if batch_tokens == 350 else len(PROMPTS) * config.samples
    assert read[:2] == [(1, len(head)), (rows, 4)], "the head once, then of every row what is left of its prompt"


@pytest.mark.parametrize("batch_tokens", [100, "auto"])
def test_layers_with_a_sliding_window(sliding, tokenizer, batch_tokens):
    settings = GREEDY.model_copy(update={"batch_tokens": batch_tokens})
    for response in generate(sliding, tokenizer, PROMPTS, settings):
        assert list(response.token_ids) == greedy_by_transformers(sliding, tokenizer, response.prompt_ids)


def test_caches_with_fixed_rows_still_work(model, tokenizer, monkeypatch):
    expected = tokens(generate(model, tokenizer, PROMPTS, GREEDY))
    monkeypatch.setattr(batches, "DynamicLayer", type(None))  # as if the layers were of an unknown kind
    assert tokens(generate(model, tokenizer, PROMPTS, GREEDY.model_copy(update={"batch_tokens": 100}))) == expected
