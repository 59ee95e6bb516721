"""The family's tokenizer: one token per word, with Qwen3's chat markers and a chat template of the same shape."""

from collections.abc import Sequence

from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import PreTrainedTokenizerFast

from nex_merge.families.qwen3_tiny.problems import KINDS, vocabulary

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MARKERS = ["<think>", "</think>"]

# As in Qwen3: roles between markers, and an empty thought where thinking is switched off.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- if enable_thinking is defined and enable_thinking is false -%}
{{- '<think>\\n\\n</think>\\n\\n' -}}
{%- endif -%}
{%- endif -%}
"""


def make_tokenizer(kinds: Sequence[str] = KINDS) -> PreTrainedTokenizerFast:
    """The tokenizer, built from the problems' vocabulary; words outside it become `<unk>`."""
    words = [*SPECIAL, *MARKERS, "<unk>", "system", "user", "assistant", *vocabulary(kinds)]
    model = WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    # Line breaks are words; blanks only separate.
    tokenizer.pre_tokenizer = Split(Regex(r"\n|[^\s]+"), behavior="removed", invert=True)  # type: ignore[assignment]
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens(MARKERS)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<unk>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )
