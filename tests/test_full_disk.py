"""A disk that is full ends a run in words; what was written before stands, and is not asked again."""

import json
import subprocess
import sys
from pathlib import Path

from latentlake.lake import Lake
from latentlake.reading.view import View

# In a process of its own, whose files may grow to so many bytes: another error than a full disk's, on the same way.
_ASK = """
import json, resource, sys
from latentlake.errors import LakeError
from latentlake.fakes import FakeLLM
from latentlake.lake import Lake
from latentlake.calls.ledger import Asker, Ledger
from latentlake.protocols import Asked, Call, Generate

uri, most = sys.argv[1], int(sys.argv[2])
llm = FakeLLM(batch=64)
if most:
    llm = FakeLLM(batch=64, before=lambda n: n >= 128 and resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)))
calls = [Asked(n, Call("shared\\n", f"own {n} " + "x" * 50, Generate(8))) for n in range(512)]
said = ""
try:
    Ledger(Lake(uri, "tiny")).ask(lambda: llm, Asker("judge", "r", "fake", "a", "one"), calls, lambda *_: None)
except LakeError as error:
    said = str(error)
print(json.dumps([len(llm.made), said]))
"""


def ask(uri: str, most: int) -> tuple[int, str]:
    command = [sys.executable, "-c", _ASK, uri, str(most)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    made, said = json.loads(done.stdout)
    return made, said


def test_a_full_disk_is_an_error_and_loses_nothing_that_was_written(tmp_path: Path) -> None:
    uri = str(tmp_path / "lake")
    made, said = ask(uri, 2000)
    assert "cannot write to the table" in said
    assert "see to the room" in said
    kept = Lake(uri, "tiny").scan("calls").collect().height
    assert 64 <= kept < made < 512
    again, said = ask(uri, 0)
    assert (again, said) == (512 - kept, "")
    assert View(Lake(uri, "tiny")).calls.collect().height == 512
