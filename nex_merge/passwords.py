"""Passwords in the URLs of databases, and the hub's tokens: taken out of what is kept, hidden in what is said."""

import re
from collections.abc import Sequence
from urllib.parse import unquote_plus

HIDDEN = "***"
# What is wrong with an ambiguous URL, by what of it may be shown.
AMBIGUOUS = "the password in {} has an @, which ends a password; write %40 for it (and %2F for /, %25 for %)"
# As SQLAlchemy reads a URL; what follows the first `@` is the host.
_URL = re.compile(r"(?P<user>[\w+]+://[^:/@]*)(?::(?P<password>[^@]*))?@(?P<rest>.*)", re.DOTALL)
_OPTION = re.compile(r"(?P<name>[^?&=]+)=(?P<value>[^&]*)")
_SECRET = re.compile(
    r"(?!\w*passfile)\w*(?:pass|pwd|secret|token|credential|api_?key|access_?key)\w*|scram_\w+_key|odbc_connect", re.I
)
# In any text: up to the last `@` of a word, or, if the password has blanks, up to the next.
_IN_TEXT = re.compile(r"(:/{1,2}[^\s/@:'\"]*):(?:[^\s'\"]+|(?:(?!://)[^\n@]){1,80})@")
_SETTING = re.compile(r"\b(\w*(?:password|passwd|pwd|passphrase))(\s?[=:]\s?)('[^']*'|\"[^\"]*\"|[^\s&;,'\")}]+)", re.I)
# A token of the Hugging Face hub, of a user or an organization, which a client's error may quote.
_TOKEN = re.compile(r"\b(hf_|api_org_)[A-Za-z0-9]{16,}")


def masked(text: str) -> str:
    """Any text, with `***` in place of passwords in URLs, values that are called a password, and the hub's tokens."""
    text = _TOKEN.sub(rf"\1{HIDDEN}", text)
    return _SETTING.sub(rf"\1\2{HIDDEN}", _IN_TEXT.sub(rf"\1:{HIDDEN}@", text))


def hidden(text: str, secrets: Sequence[str]) -> str:
    """As `masked`, also where somebody quotes one of these secrets by itself.

    Not those of a single character: what is left of the text would spell them.
    """
    for secret in secrets:
        text = text.replace(secret, HIDDEN) if len(secret) > 1 else text
    return masked(text)


def is_ambiguous(url: str) -> bool:
    """Whether a URL has a password with an `@` that is not spelled %40, which nothing tells from that of the host."""
    found = _URL.fullmatch(url)
    if found is None or found["password"] is None:
        return False
    place, _, options = found["rest"].partition("?")
    return "@" in place or any("@" in option and "=" not in option for option in options.split("&"))


def without_password(url: str, instead: str = "") -> str:
    """A database's URL without its password and secret options such as `sslpassword`, whether it is valid or not.

    `instead`: what stands in the password's place in a valid one.
    """
    found = _URL.fullmatch(url)
    if found is None or is_ambiguous(url):
        return _without_what_may_be_one(url)
    place, _, options = found["rest"].partition("?")
    return f"{found['user']}{instead if found['password'] else ''}@{place}{_kept(options)}"


def masked_setting(setting: str) -> str:
    """A word of a command line such as `study.storage=URL`, without passwords."""
    key, equals, url = setting.partition("=")
    return f"{key}={without_password(url, f':{HIDDEN}')}" if equals and key.endswith("storage") else masked(setting)


def _without_what_may_be_one(url: str) -> str:
    """The same for what is no valid URL: all that stands where a password could."""
    address, _, options = url.partition("?")
    if ":///" in address:  # a path
        return f"{address}{_kept(options)}"
    before, at, after = url.rpartition("@")
    scheme = re.match(r"[\w+.-]*:?/{1,3}", before or after)
    scheme = scheme[0] if scheme else ""
    if at:
        before = scheme + before.removeprefix(scheme).partition(":")[0] + at
    elif ":" in after.removeprefix(scheme):
        host, _, port = after.removeprefix(scheme).partition(":")
        after = after if re.match(r"\d+(?:[/?]|$)", port) or not port.strip(":") else f"{scheme}{host}"
    place, _, options = after.partition("?")
    return f"{before}{place}{_kept(options)}"


def _kept(options: str) -> str:
    """The options of a URL that are not secret, with their `?`."""
    kept = [item for item in options.split("&") if item and not _SECRET.fullmatch(item.partition("=")[0])]
    return f"?{'&'.join(kept)}" if kept else ""


def secrets_of(url: str) -> list[str]:
    """The password and the secret options of a database's URL, as they are written and as they are meant."""
    found = _URL.fullmatch(url)
    written = [found["password"] or ""] if found is not None else []
    options = url.partition("?")[2] if found is None else found["rest"].partition("?")[2]
    written += [item["value"] for item in _OPTION.finditer(options) if _SECRET.fullmatch(item["name"])]
    both = {spelled for item in written for spelled in (item, unquote_plus(item)) if spelled}
    return sorted(both, key=len, reverse=True)
