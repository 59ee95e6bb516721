"""Files and folders appear whole, side by side with whatever else is there, and what a killed process left goes."""

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nex_merge import atomic
from nex_merge.atomic import is_being_written, new_folder
from nex_merge.errors import InputError, RunError
from nex_merge.runs.files import write_atomically
from nex_merge.setup.paths import check_new_folder


def listed(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_appears_whole_where_folders_can_not_be_opened(tmp_path, monkeypatch):
    """As on Windows, where a folder can't be opened to make a rename in it last."""
    tried, really = [], os.open

    def refuses(path, *args, **kwargs):
        if Path(path).is_dir() and kwargs.get("dir_fd") is None:
            tried.append(path)
            raise PermissionError(13, "Permission denied", str(path))
        return really(path, *args, **kwargs)

    monkeypatch.setattr(atomic.os, "open", refuses)
    write_atomically(tmp_path / "new" / "a.json", "[1]")
    write_atomically(tmp_path / "new" / "a.json", "[2]")
    monkeypatch.undo()
    assert tried.count(tmp_path / "new") == 2
    assert (tmp_path / "new" / "a.json").read_text() == "[2]"


def test_what_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    write_atomically(tmp_path / "a.json", "[1]")
    monkeypatch.setattr(atomic.os, "fsync", lambda handle: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_atomically(tmp_path / "a.json", "[2]")
    assert (tmp_path / "a.json").read_text() == "[1]" and listed(tmp_path) == ["a.json"]


def test_many_write_one_file_at_once(tmp_path):
    texts, failed = [str(i) * 1000 for i in range(4)], []

    def write(text):
        try:
            for _ in range(10):
                write_atomically(tmp_path / "a.json", text)
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and (tmp_path / "a.json").read_text() in texts and listed(tmp_path) == ["a.json"]


def test_files_of_similar_names_are_left_alone_and_a_link_stays_one(tmp_path):
    for name in ("a.json.partial", "a.json.nex-merge-mine.partial", "kept.json"):
        (tmp_path / name).write_text("mine")
    (tmp_path / "a.json").symlink_to("kept.json")
    write_atomically(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").is_symlink() and (tmp_path / "kept.json").read_text() == "new"
    assert (
        (tmp_path / "a.json.partial").read_text() == (tmp_path / "a.json.nex-merge-mine.partial").read_text() == "mine"
    )


def test_a_folder_appears_whole_with_the_permissions_that_the_umask_gives(tmp_path):
    before = os.umask(0o027)
    try:
        with new_folder(tmp_path / "out") as folder:
            (folder / "more").mkdir(mode=0o700)
            for name in ("weights", "more/template"):
                (folder / name).write_text("x")
                (folder / name).chmod(0o600)
            assert not (tmp_path / "out").exists() and is_being_written(tmp_path / "out")
    finally:
        os.umask(before)
    modes = {str(path.relative_to(tmp_path)): stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes == {"out": 0o750, "out/more": 0o750, "out/weights": 0o640, "out/more/template": 0o640}
    assert not is_being_written(tmp_path / "out")


def test_an_empty_folder_or_a_link_to_one_is_taken_with_its_permissions(tmp_path):
    (tmp_path / "out").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("out")
    with new_folder(tmp_path / "link") as folder:
        (folder / "a").write_text("x")
    assert listed(tmp_path) == ["link", "out", "out/a"] and (tmp_path / "link").is_symlink()
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700
    (tmp_path / "dangling").symlink_to("there")
    with new_folder(tmp_path / "dangling") as folder:
        (folder / "b").write_text("x")
    assert (tmp_path / "there" / "b").read_text() == "x"


@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_somebody_puts_there_meanwhile_is_left_alone(tmp_path, what):
    out = tmp_path / "out"
    with pytest.raises(RunError, match="out: something else was put there meanwhile"), new_folder(out) as folder:
        (folder / "a").write_text("x")
        if what == "folder":
            out.mkdir()
        (out if what == "file" else out / "mine").write_text("mine")
    assert listed(tmp_path) == (["out"] if what == "file" else ["out", "out/mine"])


def test_only_a_failed_check_leaves_something_for_inspection_and_it_stays(tmp_path):
    for error in (InputError("x"), OSError(errno.ENOSPC, "full"), KeyboardInterrupt()):
        with pytest.raises(type(error)), new_folder(tmp_path / "out") as folder:
            (folder / "a").write_text("x")
            raise error
        assert listed(tmp_path) == []
    with pytest.raises(RunError, match="not the same"), new_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("x")
        raise RunError("not the same")
    with new_folder(tmp_path / "out"):
        pass
    assert (folder / "a").read_text() == "x"


@pytest.fixture
def killed():
    """Kill a process while it writes a folder or file; with `alive`, let it write until the test is over."""
    processes = []

    def start(kind, path, alive=False):
        code = (
            "import sys, time; from pathlib import Path; from nex_merge import atomic\n"
            f"with atomic.{kind}(Path(sys.argv[1])) as new:\n"
            "    print(new, flush=True); (new / 'a' if new.is_dir() else new).write_text('x'); time.sleep(60)"
        )
        process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
        processes.append(process)
        new = Path(process.stdout.readline().strip())
        if not alive:
            process.send_signal(signal.SIGKILL)
            process.wait()
        return new

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path, killed):
    for name in ("out.partial", "out.nex-merge-mine.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("mine")
    before = listed(tmp_path)
    left, written = killed("new_folder", tmp_path / "out"), killed("new_file", tmp_path / "a.json")
    assert left.parent.is_dir() and written.parent.is_dir()
    check_new_folder(tmp_path / "out", "--out")
    write_atomically(tmp_path / "a.json", "[]")
    assert listed(tmp_path) == sorted([*before, "a.json"])
    other = killed("new_folder", tmp_path / "out", alive=True)
    with pytest.raises(
        RunError, match=r"^--out: another process is writing .+out; wait for it, or choose another name"
    ):
        check_new_folder(tmp_path / "out", "--out")
    with new_folder(tmp_path / "out") as folder:  # whoever is there first is not overwritten
        (folder / "b").write_text("x")
    assert other.parent.is_dir() and listed(tmp_path / "out") == ["b"]


def test_folders_that_nothing_can_replace_are_refused_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^--out: .+ got the working directory; name one in it: NAME$"):
        check_new_folder(Path("."), "--out")
    with pytest.raises(InputError, match=r"^--out: .+ got the working directory"):
        check_new_folder(tmp_path, "--out")
    (tmp_path / "mounted").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "mounted")
    with pytest.raises(InputError, match=r"^--out: .+ got a mount point; name one in it: mounted/NAME"):
        check_new_folder(Path("mounted/"), "--out")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="--out: expected a folder, got the file 'file'"):
        check_new_folder(Path("file"), "--out")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine").write_text("mine")
    with pytest.raises(InputError, match="--out: expected a new or empty folder, got used, which is not empty"):
        check_new_folder(Path("used/"), "--out")
