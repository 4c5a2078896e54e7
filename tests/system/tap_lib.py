# SPDX-License-Identifier: Apache-2.0
# TAP for tests in Python, and waiting for what comes.
import http.client, os, sys, time


class Tap:
    count = failed = 0


tap = Tap()


def ok(good, name, more=""):
    tap.count += 1
    print(f"{'' if good else 'not '}ok {tap.count} - {name}", flush=True)
    if not good:
        tap.failed += 1
        print("# " + repr(more)[:2000], flush=True)
    return bool(good)


def skip(name, why):
    """what could not be tried; with REQUIRE_ALL=1 that is a failure"""
    strict = os.environ.get("REQUIRE_ALL") == "1"
    tap.count += 1
    tap.failed += strict
    print(f"{'not ' if strict else ''}ok {tap.count} - {name} # SKIP {why}", flush=True)


def until(what, seconds=30):
    """waits for it; how long it takes is nobody's business here"""
    end = time.monotonic() + seconds
    while True:
        try:
            if what():
                return True
        except (OSError, ValueError, http.client.HTTPException, KeyError):
            pass
        if time.monotonic() >= end:
            return False
        time.sleep(0.01)


def done():
    print(f"1..{tap.count}")
    sys.exit(1 if tap.failed else 0)
