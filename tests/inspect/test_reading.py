"""Positions of tokens in a response's text."""

from itertools import pairwise

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from nex_merge.inspect.reading import token_starts
from nex_merge.records import Response
from toy.tokenizer import make_tokenizer


def response(ids, tokenizer):
    return Response(0, 0, (1,), tuple(ids), str(tokenizer.decode(list(ids), skip_special_tokens=True)), False)


def pieces(ids, tokenizer):
    made = response(ids, tokenizer)
    starts = token_starts(made, tokenizer)
    assert len(starts) == len(ids) + 1 and starts[0] == 0 and starts[-1] == len(made.text)
    assert all(a <= b for a, b in pairwise(starts))
    return [made.text[a:b] for a, b in pairwise(starts)]


def bytewise():
    """A byte-level BPE tokenizer without merges: every token is a byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


@pytest.mark.parametrize("seed", range(5))
def test_every_token_covers_its_word(seed):
    tokenizer = make_tokenizer()
    ids = np.random.default_rng(seed).integers(3, len(tokenizer), 60).tolist()
    shown = [piece.strip(" ") for piece in pieces(ids, tokenizer)]
    assert shown == [str(tokenizer.decode([i])) for i in ids]


def test_a_special_token_is_empty():
    tokenizer = make_tokenizer()
    ids = [*tokenizer("yes no")["input_ids"], tokenizer.eos_token_id]
    assert [piece.strip() for piece in pieces(ids, tokenizer)] == ["yes", "no", ""]


def test_a_character_belongs_to_the_token_that_completes_it():
    tokenizer = bytewise()
    ids = tokenizer("aé😀 b")["input_ids"]
    assert pieces(ids, tokenizer) == ["a", "", "é", "", "", "", "😀", " ", "b"]
    broken = ids[:-4] + ids[-2:]  # the face lacks its last byte
    assert "".join(pieces(broken, tokenizer)) == "aé\ufffd b" and pieces(broken, tokenizer)[-1] == "b"
    assert pieces([*ids[:1], *ids[3:5], tokenizer.eos_token_id], tokenizer)[0] == "a"
