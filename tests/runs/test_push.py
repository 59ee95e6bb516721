"""An export that is pushed from the command line, by the real client, to a hub of this machine's own."""

import pytest
from typer.testing import CliRunner

from nex_merge import open_run
from nex_merge.cli import app
from nex_merge.errors import InputError
from tests.standin_hub import READER, SHA, TOKEN, standing_in


@pytest.mark.parametrize("token", [TOKEN, READER])
def test_an_export_is_pushed_once_it_is_proved_and_stays_where_it_is(toy_run, tmp_path, monkeypatch, token):
    out = tmp_path / "out"
    with standing_in(monkeypatch, tmp_path / "cache", token) as standin:
        words = ["export", str(toy_run), "--trial", "a", "--out", str(out), "--max-shard-size", "5KB", "--push", "mine"]
        done = CliRunner().invoke(app, words)
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    assert token not in done.output and "done: " in done.stdout
    assert not any(token.encode() in content for content in files.values())
    if token == TOKEN:
        assert done.exit_code == 0 and f"pushed: me/mine (private), {standin.url}/me/mine/commit/{SHA}\n" in done.stdout
        assert standin.repos == {"me/mine": {".gitattributes": b""} | files} and "me/mine" not in standin.public
        assert len(standin.lfs) == sum(name.endswith(".safetensors") for name in files) > 1
        assert standin.commits == ["Trial a of a search with nex-merge"]
    else:
        said = f"{out}: exported, but not pushed to mine: the token may not write there (not allowed to write). To push"
        assert str(done.exception).startswith(said) and str(done.exception).endswith(f"hf upload mine {out} --private")
        assert "model.safetensors.index.json" in files and standin.repos == {}


def test_python_pushes_as_the_command_does(toy_run, tmp_path, monkeypatch):
    run = open_run(toy_run)
    with pytest.raises(InputError, match="expected together with --push"):
        run.export(tmp_path / "out", "a", public=True)
    with standing_in(monkeypatch, tmp_path / "cache", TOKEN) as standin:
        run.export(tmp_path / "out", "a", push="mine", public=True)
    assert standin.commits == ["Trial a of a search with nex-merge"] and "me/mine" in standin.public
