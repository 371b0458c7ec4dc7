"""Start one of the SDK's own scripts (mpcom, mpsup, mpcli) with the
compatibility patches in place:  peer_launch.py SCRIPT [ARGS...]"""
import os
import runpy
import sys
import warnings

here = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [here, os.path.join(os.path.dirname(here), "modules")]
warnings.simplefilter("ignore")

import peer_compat


peer_compat.apply()



def self_test():
    import mplane.client, mplane.component, mplane.model, mplane.supervisor
    mplane.model.initialize_registry()
    for name in ("test_tscope", "test_primitives", "test_constraints"):
        getattr(mplane.model, name)()
    mplane.client.CrawlParser(strict=False)
    print("reference peer ready: python %s" % sys.version.split()[0])


if __name__ == "__main__":
    if sys.argv[1:] == ["--self-test"]:
        self_test()
    else:
        script = sys.argv[1]
        if os.sep not in script:
            script = os.path.join(sys.prefix, "bin", script)
        sys.stdout.reconfigure(line_buffering=True)
        sys.argv = sys.argv[1:]
        runpy.run_path(script, run_name="__main__")
