"""Repeated measurements in the reference's scheduler, written against its public API: how
late each starts. One line of JSON on standard output, as the benchmark reads it."""
import json
import os
import resource
import sys
import threading
import time
from datetime import datetime, timedelta, timezone

import peer_compat

peer_compat.apply()

import mplane.model as model
import mplane.scheduler

WINDOWS, WINDOW_S = 3, 2
ACCEPTING_S = 8
lock, starts = threading.Lock(), []


class Nothing(mplane.scheduler.Service):
    def run(self, spec, check_interrupt):
        now = datetime.utcnow()
        due = spec.when().datetimes()[0]
        with lock:
            starts.append((due, (now - due) / timedelta(microseconds=1)))
        result = model.Result(specification=spec)
        result.set_result_value("time", now)
        result.set_when(model.When(a=now, b=now))
        return result


def resident_mb():
    for line in open("/proc/self/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6


def used_s():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main():
    told, sys.stdout = sys.stdout, open(os.devnull, "w")
    repeats = int(sys.argv[1])
    model.initialize_registry()
    capability = model.Capability(label="nothing", when="now ... future")
    capability.add_parameter("destination.ip4", "*")
    capability.add_result_column("time")
    scheduler = mplane.scheduler.Scheduler()
    scheduler.add_service(Nothing(capability))
    accepting = time.monotonic()
    refused = None
    accepted = 0
    for number in range(repeats):
        if time.monotonic() - accepting > ACCEPTING_S:
            refused = "accepting them took longer than %d s" % ACCEPTING_S
            break
        specification = model.Specification(capability=capability)
        specification.set_parameter_value(
            "destination.ip4", "127.0.%d.%d" % (number // 256, number % 256))
        specification.set_when("repeat now + 1h / 1s { now + 0s }")
        specification.retoken(True)
        try:
            scheduler.process_message("bench", specification)
            accepted += 1
        except Exception as error:
            refused = str(error)
            break
    accepting = time.monotonic() - accepting
    first_mb = resident_mb()
    time.sleep(1)
    first, used, clock = datetime.utcnow(), used_s(), time.monotonic()
    time.sleep(WINDOWS * WINDOW_S)
    used, clock = used_s() - used, time.monotonic() - clock
    time.sleep(0.5)
    windows = [[] for _ in range(WINDOWS)]
    with lock:
        for due, late_us in starts:
            window = (due - first) // timedelta(seconds=WINDOW_S)
            if 0 <= window < WINDOWS:
                windows[window].append(late_us)
    print(json.dumps({
        "accepted": accepted, "accepting_s": accepting, "windows": windows,
        "cpu_percent": used * 100 / clock, "first_mb": first_mb,
        "last_mb": resident_mb(), "threads": threading.active_count(),
        "refused": refused}), file=told, flush=True)
    # Its timers would hold the process for an hour.
    os._exit(0)


main()
