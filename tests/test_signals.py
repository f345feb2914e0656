"""Signals in real processes, in which only the work is made up."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from tests.conftest import SECONDS

WORK = """
import signal, sys, time
from sumrnn import signals

def rescue():
    print("rescue begins", flush=True)
    time.sleep(1)
    print("rescue ends", flush=True)

def work(stop):
    stop.rescue = rescue
    print("at work", flush=True)
    while stop.number is None or "endless" in sys.argv:
        time.sleep(0.01)
    print("work ends", flush=True)
    return stop.number

def say(line):
    print(line, file=sys.stderr, flush=True)

if "ignore" in sys.argv:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
print("returned", signals.attend(work, say), signal.getsignal(signal.SIGTERM).name, flush=True)
"""


def start(*options: str, errors: int = subprocess.PIPE) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", WORK, *options], stdout=subprocess.PIPE, stderr=errors, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_one_lets_the_work_end(number: signal.Signals) -> None:
    process = start()
    process.send_signal(number)
    shown, errors = process.communicate(timeout=SECONDS)
    assert shown == f"work ends\nreturned {number.value} SIG_DFL\n"
    assert errors == "ends after this epoch; once more ends it now\n"
    assert process.returncode == 0


def test_any_more_do_not_disturb_the_rescue() -> None:
    process = start("endless")
    assert process.stdout is not None
    assert process.stderr is not None
    process.send_signal(signal.SIGINT)
    process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "rescue begins\n"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        process.send_signal(number)
    shown, errors = process.communicate(timeout=SECONDS)
    assert (shown, errors) == ("rescue ends\n", "error: terminated\n")
    assert process.returncode == 143


def test_it_does_not_matter_whether_anybody_hears_of_it(tmp_path: pathlib.Path) -> None:
    reader, writer = os.pipe()
    process = start("endless", errors=writer)
    os.close(reader)
    os.close(writer)
    assert process.stdout is not None
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    shown, _ = process.communicate(timeout=SECONDS)
    assert shown == "rescue begins\nrescue ends\n"
    assert process.returncode in (130, 143)  # Whichever came second.


def test_one_that_is_ignored_stays_so() -> None:
    process = start("ignore")
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    shown, _ = process.communicate(timeout=SECONDS)
    assert shown == "work ends\nreturned 15 SIG_DFL\n"
