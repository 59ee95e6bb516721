"""Ctrl-C and SIGTERM, in processes of their own."""

import os
import signal
import subprocess
import sys
import time

import pytest

from nex_merge import interrupts

pytestmark = pytest.mark.quick

# As `cli.main`, without what takes long to import. `{}` is the work; `hit` sends the signal.
PROGRAM = """
import os, signal, sqlite3, sys, time, weakref
from nex_merge import interrupts

def hit():
    os.kill(os.getpid(), signal.{signal})

sys.argv = ["nex-merge", "search", "a b.yaml"]
interrupts.install()
try:
    interrupts.begin()
{work}
    interrupts.end()
except KeyboardInterrupt:
    interrupts.stopped()
    sys.exit(interrupts.finish())
"""
LINE = "nex-merge: interrupted; what is done is kept. To go on: nex-merge search 'a b.yaml'\n"


def started(work, number="SIGINT", default=signal.SIG_DFL):
    """The program at work in a process of its own."""
    indented = "\n".join(f"    {line}" for line in work.strip().splitlines())
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(work=indented, signal=number)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, default),
    )  # fmt: skip


def ended(process):
    """Exit code, output, errors and how long it took."""
    began = time.monotonic()
    output, errors = process.communicate(timeout=30)
    return process.returncode, output, errors, time.monotonic() - began


SWALLOWED = {
    "a finalizer": "class Item:\n    def __del__(self): hit()\nItem()\ntime.sleep(30)",
    "a weak reference": "class Item: pass\nitem = Item()\nkept = weakref.ref(item, lambda ref: hit())\ndel item\n"
    "time.sleep(30)",
    "a callback from C": "database = sqlite3.connect(':memory:')\ndatabase.create_function('f', 0, hit)\ntry:\n"
    "    database.execute('select f()')\nexcept sqlite3.OperationalError:\n    pass\ntime.sleep(30)",
    "whatever catches all": "try:\n    hit()\nexcept BaseException:\n    pass\ntime.sleep(30)",
    "an error that it was turned into": "try:\n    hit()\nexcept BaseException:\n    pass\ninterrupts.check()\n"
    "time.sleep(30)",
    "the last thing that is done": "try:\n    hit()\nexcept BaseException:\n    pass",
}


@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.parametrize("where", SWALLOWED)
def test_what_is_swallowed_is_raised_again(where, number, code):
    assert ended(started(SWALLOWED[where], number))[:3] == (code, "", LINE)


def test_unwinding_is_not_disturbed():
    work = f"try:\n    hit()\nfinally:\n    time.sleep({3 * interrupts.AGAIN})\n    print('unwound')"
    assert ended(started(work))[:3] == (130, "unwound\n", LINE)


@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_what_is_held_is_whole(number, code):
    work = f"""
try:
    with interrupts.held():
        with interrupts.held():
            hit()
        time.sleep({2 * interrupts.AGAIN})
        print("whole")
        raise ValueError("of the step itself")
except ValueError:
    print("never here")
"""
    assert ended(started(work, number))[:3] == (code, "whole\n", LINE)


STUCK = """
while True:
    try:
        print("at work", flush=True)
        time.sleep(30)
    except BaseException:
        pass
"""
# As C code that does not return: the handler never runs.
DEAF = "signal.signal(signal.SIGTERM, lambda number, frame: None)\n" + STUCK


def test_a_second_ctrl_c_ends_it_at_once_and_the_same_one_twice_does_not():
    # Longer than in earnest, so that a busy machine doesn't make two signals of one.
    process = started(f"interrupts.AGAIN, interrupts.LIMIT, interrupts.SAME = 30, 60, 2\n{STUCK}")
    process.stdout.readline()
    for pause in (0.1, 5, 0):
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        time.sleep(pause)
    code, _, errors, seconds = ended(process)
    assert (code, errors) == (130, LINE) and seconds < 1


@pytest.mark.parametrize("stuck", [STUCK, DEAF])
def test_work_that_does_not_stop_is_ended(stuck):
    process = started(f"interrupts.LIMIT = 0.3\ninterrupts.AGAIN = 30\n{stuck}")
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    code, _, errors, seconds = ended(process)
    assert (code, errors) == (143, LINE) and seconds < 2


def test_what_was_ignored_at_the_start_stays_ignored():
    process = started("print('at work', flush=True)\ntime.sleep(30)", default=signal.SIG_IGN)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 143


def test_it_is_there_before_anything_that_takes_long_to_import(tmp_path):
    (tmp_path / "typer.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(30)\n")
    done = subprocess.run(
        [sys.executable, "-m", "nex_merge", "score", "nowhere"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True, text=True, timeout=30,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, "nex-merge: interrupted; nothing of it is kept\n")


def test_python_itself_handles_signals_for_those_who_call_from_python():
    before = [signal.getsignal(number) for number in interrupts.SIGNALS]
    import nex_merge.api
    import nex_merge.cli

    assert nex_merge.api and nex_merge.cli
    assert [signal.getsignal(number) for number in interrupts.SIGNALS] == before
    interrupts.check()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("search", "x.yaml", "--fresh", "--trials", "3"), "To go on: nex-merge search x.yaml --trials 3"),
        (("benchmark", "a\x1b[2J"), "To go on: nex-merge benchmark $'a\\x1b[2J'"),
        (("search", "x", "--set", "study.storage=postgresql://me:se@cr/et@host/db"),
         "To go on: nex-merge search x --set study.storage=postgresql://me@host/db"),
        (("export", "run", "--out", "x"), "nothing of it is kept"),
        (("search", "x", "--dry-run"), "nothing of it is kept"),
        ((), "nothing of it is kept"),
    ],
)  # fmt: skip
def test_the_line_has_the_command_that_goes_on(monkeypatch, words, said):
    monkeypatch.setattr(interrupts._now, "words", words)
    interrupts.forget_option("--fresh")
    assert interrupts._line().endswith(f"; {'what is done is kept. ' if 'go on' in said else ''}{said}")
