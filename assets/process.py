"""Which process executes a run: a tag of the run, by which the runs of dead processes are found."""

import os
import socket

PROCESS_TAG = "latentlake/process"


def this_process(run: str) -> str:
    """Names this process among those of all machines, as the one that executes a run."""
    return f"{run}:{socket.gethostname()}:{os.getpid()}"


def is_dead(run: str, process: str | None) -> bool:
    """Whether the process of a run is gone; of other machines nothing is known, nor of a tag taken over from another run,
    as retries take over theirs."""
    owner, _, place = (process or "").partition(":")
    host, _, pid = place.rpartition(":")
    if owner != run or host != socket.gethostname():
        return False
    try:
        os.kill(int(pid), 0)  # signal 0 asks whether there is such a process
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
