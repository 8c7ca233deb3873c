"""Resident memory of the processes that tests start.

Linux begins the peak that `getrusage` tells (`ru_maxrss`) with the size of the process that started this one: of a test
run that holds 2 GB every process has "taken" 2 GB, whatever it does. What the kernel keeps by address space does not.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

RESIDENT = '''
from pathlib import Path

def resident(field):
    """Return in MiB what this process holds now (VmRSS), or has held at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024

def forget_peak():
    """Have VmHWM start anew."""
    Path("/proc/self/clear_refs").write_text("5")

'''
"""Stands before code for `python -c`."""

SMALL = """
import json, os, sys
process = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(process, 0)
with open(sys.argv[1], "w") as file:
    json.dump([os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, 1024 * usage.ru_maxrss], file)
"""
"""Starts a command, and is as small as a process of Python can be."""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What a command took: its exit code, seconds of the processor, the bytes it held at most."""

    code: int
    seconds: float
    peak: int


def run(words: Sequence[str], *, cwd: Path, environment: Mapping[str, str], said: Path) -> Taken:
    """Run the command WORDS, what it says going into the file `said`, and return what it took."""
    told = cwd / "taken.json"
    command = [sys.executable, "-S", "-c", SMALL, str(told), *words]
    with said.open("w") as file:
        subprocess.run(command, env=environment, cwd=cwd, stdout=file, stderr=file, check=True)
    code, seconds, peak = json.loads(told.read_text())
    told.unlink()
    return Taken(code=code, seconds=seconds, peak=peak)
