"""A process that has imported everything, from which processes that run `l0prune` are forked and so start at once.

On standard input a line of JSON starts one, and is answered by its number; a number waits for it, and is answered by
its exit status.
"""

import json
import os
import sys
import traceback

import l0prune_speech.task  # noqa: F401
import matplotlib.backends.backend_agg
import matplotlib.figure  # noqa: F401
import torch
from l0prune_cli.main import main

import l0prune.adapters.terminal
import l0prune.workflows.pipeline  # noqa: F401


def serve() -> None:
    """Answer orders until standard input ends."""
    # A process with threads of its own must not be forked.
    torch.set_num_threads(1)
    for line in sys.stdin:
        if line.strip().isdigit():
            print(os.waitstatus_to_exitcode(os.waitpid(int(line), 0)[1]), flush=True)
            continue
        order = json.loads(line)
        number = os.fork()
        if number:
            print(number, flush=True)
            continue
        os.environ.update(order["environ"])
        if order["alone"]:
            os.setsid()
        for stream, place in ((1, order["log"]), (2, order["errors"])):
            os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), stream)
        sys.argv = ["l0prune", *order["arguments"]]
        code = 1
        try:
            main()
        except SystemExit as error:
            code = int(error.code or 0)
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
