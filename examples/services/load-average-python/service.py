"""Load of the processors, once each period: the kernel's average over a minute.

It divides by the number of processors, and is cut at 1: a fraction of their capacity.
"""

import json
import os
import signal
import sys
import threading
import time
from datetime import datetime, timezone


def say(**line):
    """Writes a line of the contract, at once: Python keeps what goes into a pipe."""
    print(json.dumps(line), flush=True)


def main():
    told_to_stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told_to_stop.set())

    try:
        json.loads(sys.stdin.readline())["specification"]
    except (ValueError, KeyError, TypeError):
        say(failed="the first line is no specification")
        return 1

    # How long, and how often, in seconds; without a duration until told to stop.
    duration = float(os.environ.get("MPLANE_DURATION_S", "inf"))
    period = float(os.environ.get("MPLANE_PERIOD_S", "1"))
    processors = os.cpu_count() or 1
    say(metadata={"measurement.algorithm": "average over one minute, of the kernel"})

    started = time.monotonic()
    sample = 0
    while True:
        now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f")
        with open("/proc/loadavg", encoding="ascii") as file:
            load = float(file.read().split()[0])
        say(row={"time": now, "cpuload": min(load / processors, 1.0)})
        # Counted from the start, so that samples do not drift.
        sample += 1
        if sample * period > duration:
            break
        if told_to_stop.wait(max(0, started + sample * period - time.monotonic())):
            break
    say(done=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
