"""The Hugging Face hub: files of a repository are fetched, an export is pushed. The only module that talks to it.

Its client takes the token from where it always does: HF_TOKEN, or what `hf auth login` has stored.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nex_merge.checkpoints.files import INDEX, TOKENIZER_FILES
from nex_merge.errors import InputError, NexMergeError
from nex_merge.wording import listed

# What a checkpoint that nex-merge wrote is known by.
IDENTITY = "nex_merge.json"
CARD = "README.md"
# What a repository may hold before a push without being a model of somebody's.
_NO_MODEL = {".gitattributes", CARD, "LICENSE", "LICENSE.md", "LICENSE.txt"}
# What an earlier export may have left that would be read as part of this one. A file that is pushed isn't removed.
_OF_AN_EXPORT = ["model*.safetensors", INDEX, *TOKENIZER_FILES]
# Small files are those of the repository itself: folders hold copies in other formats (onnx/, original/).
_ELSEWHERE = ["*/*.json", "*/*.txt", "*/*.model"]


class HubError(NexMergeError):
    """The hub can't be reached, or refuses. The message is the reason alone, for a sentence that says what for."""


@dataclass(frozen=True)
class Pushed:
    """Where an export is."""

    repo: str  # owner/name
    url: str  # of the commit
    is_private: bool


def check_repo(name: str, source: str) -> None:
    """Raise InputError unless `name` can be that of a repository: NAME, of the token's owner, or OWNER/NAME."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        raise InputError(
            f"{source}: expected a repository on the Hugging Face hub (OWNER/NAME, or NAME for one of yours), got "
            f"{name!r}"
        ) from None


def is_reachable(seconds: float) -> bool:
    """Whether the hub answers anything within this time."""
    import httpx2
    import huggingface_hub

    try:
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=seconds)
    except (httpx2.HTTPError, OSError):  # being offline by setting is an OSError
        return False
    return True


def fetch(repo: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """The snapshot of a repository in the hub's cache, with those of its files that match a pattern.

    Files that are there already are not fetched again; those in folders of the repository never are, but for chat
    templates. Raises HubError.
    """
    import huggingface_hub

    with _reasons():
        found = huggingface_hub.snapshot_download(
            repo,
            revision=revision,
            allow_patterns=list(patterns),
            ignore_patterns=_ELSEWHERE,
            etag_timeout=5,
            max_workers=4,
        )
    return Path(found)


def fetch_card(repo: str, snapshot: Path) -> None:
    """Add a repository's model card to its snapshot, for the licence that it names; not having one is no error."""
    import huggingface_hub

    if not (snapshot / CARD).exists():
        with suppress(HubError), _reasons():
            huggingface_hub.hf_hub_download(repo, CARD, revision=snapshot.name, etag_timeout=5)


def licence_of(folder: Path) -> str | None:
    """The licence that the model card in a checkpoint's folder names; None where it names none, or there is no card."""
    import yaml
    from huggingface_hub import metadata_load

    try:
        data: Any = metadata_load(folder / CARD) or {}
        found = data.get("license")
    except (OSError, ValueError, AttributeError, RecursionError, yaml.YAMLError):
        return None
    if found == "other":
        found = data.get("license_name") or found
    names = found if isinstance(found, list) else [found]
    return ", ".join(name for name in names if isinstance(name, str)) or None


def cache_folder() -> Path:
    """Where the hub's client keeps what it has fetched."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


@contextmanager
def without_bars() -> Iterator[None]:
    """Until the end, no progress bars while files are fetched; then again if there were any."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    shown = not are_progress_bars_disabled()
    if shown:
        disable_progress_bars()
    try:
        yield
    finally:
        (enable_progress_bars if shown else disable_progress_bars)()


def push(folder: Path, repo: str, public: bool, message: str) -> Pushed:
    """Upload a checkpoint that nex-merge wrote, in one commit; a new repository is private unless `public`.

    One that exists is taken if it holds no model, or an earlier export, whose weights and tokenizer give way. Raises
    HubError, also where that one is public though this export isn't meant to be.
    """
    import huggingface_hub

    if huggingface_hub.get_token() is None:
        raise HubError("there is no token; log in with `hf auth login`, or set HF_TOKEN")
    api = huggingface_hub.HfApi()
    with _reasons():
        name = api.create_repo(repo, private=not public, exist_ok=True).repo_id
        info = api.model_info(name)
        there = {file.rfilename for file in info.siblings or ()}
        if IDENTITY not in there and (others := sorted(there - _NO_MODEL)):
            raise HubError(
                f"it holds something that isn't an export of nex-merge ({listed(others, 3)}), which would be "
                "mixed up with it; name a new repository"
            )
        if not (info.private or public):
            raise HubError("it is public; say --public, or name another repository")
        commit = api.upload_folder(
            repo_id=name, folder_path=folder, commit_message=message, delete_patterns=_OF_AN_EXPORT
        )
    return Pushed(name, str(commit.commit_url), bool(info.private))


@contextmanager
def _reasons() -> Iterator[None]:
    """Let the client's errors be HubErrors, with the reason on one line."""
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except (errors.HFValidationError, errors.EntryNotFoundError, httpx2.HTTPError, OSError) as error:
        is_away = isinstance(error, httpx2.TransportError | errors.OfflineModeIsEnabled)
        reason = _reason(error)
        raise HubError(f"the hub cannot be reached: {reason}" if is_away else reason) from None


def _reason(error: Exception) -> str:
    response = getattr(error, "response", None)
    said = getattr(error, "server_message", None)
    detail = f" ({' '.join(said.split())})" if said else ""
    if response is not None and response.request.method != "GET":
        if response.status_code == 401:
            return f"the hub does not accept the token{detail}; log in with `hf auth login`, or set HF_TOKEN"
        if response.status_code == 403:
            return f"the token may not write there{detail}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and " Client Error." in lines[0]:  # the status alone
        del lines[0]
    return lines[0].rstrip(".") if lines else type(error).__name__
