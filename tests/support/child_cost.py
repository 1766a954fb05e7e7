"""The cost of reading a file, measured in a forked child, so that a crash or a leak there is seen and no more."""

import gc
import os
import re
import select
import signal
import time
from pathlib import Path


def cost(look, path, limit=60):
    """The value that `look(path)` returned as text, seconds of the processor, and megabytes at the worst moment.

    A child that was ended by a signal, or by this function after `limit` seconds, gives "signal N".
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _answer(look, path, writer)
    os.close(writer)
    text = b""
    with os.fdopen(reader, "rb") as pipe:
        if select.select([pipe], [], [], limit)[0]:
            text = pipe.read()
        else:
            os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status) or not text:
        return f"signal {os.WTERMSIG(status)}", float(limit), 0.0
    seconds, megabytes, outcome = text.decode(errors="surrogateescape").split(" ", 2)
    return outcome, float(seconds), float(megabytes)


def _answer(look, path, writer):
    gc.freeze()  # what other tests have left in this process is not to be searched for garbage on our time
    before, start = _memory("VmRSS"), time.process_time()
    try:
        outcome = look(path)
    except BaseException as error:
        outcome = repr(error)
    seconds = time.process_time() - start  # the machine may be busy with other things
    os.write(writer, f"{seconds} {_memory('VmHWM') - before} {outcome}".encode(errors="surrogateescape"))
    os._exit(0)


def _memory(field):
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) / 1024
