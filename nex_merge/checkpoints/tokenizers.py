"""What a checkpoint's tokenizer makes of ids: read from tokenizer.json, without a model library."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nex_merge.checkpoints.files import fetch_again, read_json
from nex_merge.errors import InputError
from nex_merge.wording import counted

FILE = "tokenizer.json"
# Files that broken JSON in them makes unreadable, if they are there.
_BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_SLOW = ("tokenizer.model", "vocab.json", "merges.txt", "vocab.txt", "spiece.model", "tiktoken.model", "tekken.json")

_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class Vocabulary:
    """What a tokenizer reads and writes."""

    tokens: dict[int, str]  # id -> token, added tokens included
    merges: tuple[str, ...] | None  # of BPE, in order; None for other kinds
    rules: dict[str, Any]  # how text is cut before and framed after
    templates: Mapping[str, str]  # chat templates by name; `default` alone for most
    unused: bool  # whether tokenizer_config.json has another default, which a file of its own takes precedence over


def read_vocabulary(folder: Path) -> Vocabulary:
    """The vocabulary of a checkpoint's tokenizer. Raises InputError if a file of it is missing or cannot be read."""
    path = folder / FILE
    if not (path.exists() or path.is_symlink()):
        slow = [name for name in _SLOW if (folder / name).exists()]
        way = (
            f'convert it once: AutoTokenizer.from_pretrained("{folder}").save_pretrained("{folder}")'
            if slow
            else f"copy the tokenizer of its base model, or {fetch_again(folder)}"
        )
        found = f"only {', '.join(slow)}" if slow else "none"
        raise InputError(f"{folder}: expected a fast tokenizer ({FILE}), got {found}; {way}")
    data = read_json(path)
    there = {name for name in _BESIDE if (folder / name).exists() or (folder / name).is_symlink()}
    beside = {name: read_json(folder / name) for name in sorted(there)}
    try:
        tokens = _tokens(data, beside.get("tokenizer_config.json", {}))
        merges = data["model"].get("merges")
        pairs = None if merges is None else tuple(m if isinstance(m, str) else " ".join(m) for m in merges)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        raise InputError(f"{path}: expected a tokenizer of the tokenizers library, got other JSON") from None
    rules: dict[str, Any] = {key: data.get(key) for key in ("normalizer", "pre_tokenizer", "post_processor")}
    rules["added_tokens"] = {
        entry["id"]: [bool(entry.get(key)) for key in ("lstrip", "rstrip", "single_word", "normalized")]
        for entry in data.get("added_tokens") or ()
    }
    templates, unused = _chat_templates(folder, beside.get("tokenizer_config.json", {}).get("chat_template"))
    return Vocabulary(tokens, pairs, rules, templates, unused)


def has_chat_template(folder: Path) -> bool:
    """Whether a checkpoint's tokenizer has a chat template. Raises InputError if a file of it cannot be read."""
    path = folder / "tokenizer_config.json"
    return bool(_chat_templates(folder, read_json(path).get("chat_template") if path.is_file() else None)[0])


def _chat_templates(folder: Path, configured: Any) -> tuple[dict[str, str], bool]:
    """The chat templates of a folder by name, as transformers finds them; and whether its config has another default.

    `configured`: what tokenizer_config.json has, one template or a list of named ones.
    """
    in_config = {"default": configured} if isinstance(configured, str) else {}
    for entry in configured if isinstance(configured, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("name"), str) and isinstance(entry.get("template"), str):
            in_config[entry["name"]] = entry["template"]
    named = sorted((folder / "additional_chat_templates").glob("*.jinja"))
    in_files = {}
    for name, path in {"default": folder / "chat_template.jinja", **{path.stem: path for path in named}}.items():
        try:
            if path.is_file():
                in_files[name] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise InputError(f"{path}: expected UTF-8; {fetch_again(folder)}") from None
    default = in_files.get("default", in_config.get("default"))
    return in_files or in_config, bool(in_files) and in_config.get("default", default) != default


def check_special_tokens(folder: Path) -> None:
    """Raise InputError if a special token in the files beside tokenizer.json is none that transformers reads."""
    for path in (folder / "tokenizer_config.json", folder / "special_tokens_map.json"):
        data = read_json(path) if path.is_file() else {}
        for key in _SPECIAL:
            if data.get(key) is not None and not _is_token(data[key]):
                raise InputError(f"{path}: {key}: expected a token, got {data[key]!r}; correct the file")
        for key in ("additional_special_tokens", "extra_special_tokens"):
            listed = data.get(key) or []
            tokens = listed.values() if isinstance(listed, dict) else listed
            if not isinstance(listed, list | dict) or not all(map(_is_token, tokens)):
                raise InputError(f"{path}: {key}: expected a list of tokens, got {listed!r}; correct the file")


def _is_token(value: Any) -> bool:
    text = value.get("content") if isinstance(value, dict) else value
    return isinstance(text, str)


def _tokens(data: dict[str, Any], config: dict[str, Any]) -> dict[int, str]:
    vocab = data["model"].get("vocab") or {}
    if isinstance(vocab, dict):
        tokens = {int(number): token for token, number in vocab.items()}
    else:  # Unigram: a list of [token, score], in the order of ids
        tokens = {number: entry[0] for number, entry in enumerate(vocab)}
    tokens |= {int(entry["id"]): entry["content"] for entry in data.get("added_tokens") or ()}
    for number, entry in (config.get("added_tokens_decoder") or {}).items():
        tokens[int(number)] = entry["content"] if isinstance(entry, dict) else entry
    return tokens


def check_same_tokens(base: Vocabulary, other: Vocabulary) -> list[str]:
    """Notes on how the tokenizer of a member differs from the base's. Raises InputError if an id is two tokens.

    Tokens that only one of them knows are harmless, since no prompt or response of the other uses their ids.
    """
    if base.tokens != other.tokens:
        for number in sorted(base.tokens.keys() & other.tokens.keys()):
            if (ours := base.tokens[number]) != (theirs := other.tokens[number]):
                raise InputError(
                    f"cannot be merged with base: the vocabularies of their tokenizers differ: id {number} is {ours!r} "
                    f"in base and {theirs!r} here. Weights of that id would be averaged over two tokens; use "
                    "fine-tunes of one base with its tokenizer"
                )
    if base.merges != other.merges:
        raise InputError(
            "cannot be merged with base: the merges of their tokenizers differ, so they cut the same text differently; "
            "use fine-tunes of one base with its tokenizer"
        )
    notes = []
    if other.unused:
        notes.append(
            "tokenizer_config.json has another chat template than chat_template.jinja; transformers uses the latter"
        )
    for owner, more in (("only here", other.tokens.keys() - base.tokens.keys()),
                        ("only in base", base.tokens.keys() - other.tokens.keys())):  # fmt: skip
        if more:
            shown = ", ".join(repr((other.tokens | base.tokens)[number]) for number in sorted(more)[:3])
            notes.append(f"{FILE}: {counted(len(more), 'token')} {owner}, for example {shown}")
    for rule in base.rules:
        ours, theirs = base.rules[rule], other.rules[rule]
        if rule == "added_tokens":
            both = ours.keys() & theirs.keys()
            ours, theirs = [{key: flags[key] for key in both} for flags in (ours, theirs)]
        if ours != theirs:
            notes.append(f"{FILE}: {rule} differs from base's; all variants are asked with the donor's tokenizer")
    names = sorted({*base.templates, *other.templates})
    if differing := [name for name in names if base.templates.get(name) != other.templates.get(name)]:
        which = f" ({', '.join(differing)})" if len(names) > 1 else ""
        notes.append(f"chat template{which} differs from base's; all variants are asked with the donor's")
    return notes


def check_token_ids(prompt_ids: Sequence[Sequence[int]], rows: int, tokenizer: Any) -> None:
    """Raise InputError if a prompt has a token id beyond the embeddings.

    `rows`: rows of the embedding matrix. `tokenizer`: the one that encoded the prompts, which names the token.
    """
    for number, ids in enumerate(prompt_ids, 1):
        if ids and not 0 <= min(ids) <= max(ids) < rows:
            beyond = next(token for token in ids if not 0 <= token < rows)
            raise InputError(
                f"prompt {number}: token {tokenizer.convert_ids_to_tokens(beyond)!r} has id {beyond}, and the "
                f"embeddings have only {rows} rows (ids up to {rows - 1}): the tokenizer at "
                f"{tokenizer.name_or_path} has tokens that the model was never resized for. Use the tokenizer and chat "
                "template that the model was trained with, or resize every member (resize_token_embeddings)"
            )
