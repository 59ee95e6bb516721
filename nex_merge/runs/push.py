"""Push an export to the Hugging Face hub: what is refused before any work, and what is said where it fails."""

from pathlib import Path

from nex_merge.checkpoints import hub
from nex_merge.errors import InputError, RunError
from nex_merge.inert import shell_word
from nex_merge.runs.files import trial_label


def check_push(repo: str | None, public: bool) -> None:
    """Raise InputError for a name that no repository can have, and for `public` without one. Asks nobody."""
    if repo is not None:
        hub.check_repo(repo, "--push")
    elif public:
        raise InputError("--public: expected together with --push REPO, got it alone")


def push_export(out: Path, repo: str, public: bool, trial: str) -> str:
    """Push an export to a repository on the hub; what was done, in a line.

    Raises RunError, naming the export and the command that pushes it, where it can't be pushed.
    """
    try:
        pushed = hub.push(out, repo, public, f"Trial {trial_label(trial)} of a search with nex-merge")
    except hub.HubError as error:
        again = f"hf upload {shell_word(repo)} {shell_word(str(out))}{'' if public else ' --private'}"
        raise RunError(f"{out}: exported, but not pushed to {repo}: {error}. To push it later: {again}") from None
    return f"pushed: {pushed.repo} ({'private' if pushed.is_private else 'public'}), {pushed.url}"
