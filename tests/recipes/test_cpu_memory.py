"""Freed memory stays with the process, where the C library can be told so."""

import subprocess
import sys

import pytest


CODE = """
import sys
from hf_matryoshka.recipes.cpu_memory import keep_freed_memory

def resident():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))

if sys.argv[1] == "keep":
    assert keep_freed_memory()
before = resident()
block = bytearray(b"x") * 100_000_000
assert resident() - before > 90
del block
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_freed_memory_stays_with_the_process():
    kept, given_back = (
        float(subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, text=True, check=True).stdout)
        for how in ("keep", "-")
    )
    assert kept > 90 and given_back < 10
