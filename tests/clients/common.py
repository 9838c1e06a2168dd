# -*- coding: utf-8 -*-
"""What the client scripts share: where the cloud is, how to wait, what must be equal.

Runs on Python 2.7 and 3.  Every setting comes from a variable:

CUMULET_TEST_HOST, CUMULET_TEST_PORT             where the cloud answers, plain HTTP
CUMULET_TEST_ACCESS_KEY, CUMULET_TEST_SECRET_KEY the user
CUMULET_TEST_REGION                              default us-east-1
CUMULET_TEST_BUCKET                              a bucket that does not exist; it is gone afterwards
CUMULET_TEST_BUNDLE                              folder with one *.manifest.xml and the bundle's parts
CUMULET_TEST_INSTANCE_TYPE                       default: what the client or the cloud chooses
CUMULET_TEST_GUEST                               real (default), or simulated: the console must say so
CUMULET_TEST_PATIENCE                            seconds to wait for one state; default 300

A guest of the bundle's image prints, once it has its metadata, the line
    CUMULET-PROOF <hex SHA-256 of the user data followed by the instance id>
on its console, so that only a machine that really ran can have written it.
"""

from __future__ import print_function

import binascii
import hashlib
import os
import sys
import time
import traceback

# Longer than the smallest part of a multipart upload, and not a multiple of anything.
LARGE_BYTES = 9 * 1024 * 1024 + 17


class Mismatch(Exception):
    """The cloud answered otherwise than it should."""


def setting(name, default=None):
    value = os.environ.get("CUMULET_TEST_" + name, default)
    if value is None:
        print("error: the variable CUMULET_TEST_%s is not set" % name, file=sys.stderr)
        sys.exit(2)
    return value


HOST = setting("HOST")
PORT = int(setting("PORT"))
ENDPOINT = "http://%s:%d" % (HOST, PORT)
ACCESS_KEY = setting("ACCESS_KEY")
SECRET_KEY = setting("SECRET_KEY")
REGION = setting("REGION", "us-east-1")
BUCKET = setting("BUCKET")
BUNDLE = setting("BUNDLE")
INSTANCE_TYPE = setting("INSTANCE_TYPE", "")
IS_SIMULATED = setting("GUEST", "real") == "simulated"
PATIENCE = int(setting("PATIENCE", "300"))


def isolate():
    """Takes away what else on the machine could decide where a client goes and who it is."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy") or name == "BOTO_CONFIG":
            del os.environ[name]
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = HOST
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    os.environ["BOTO_CONFIG"] = os.devnull
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    os.environ["AWS_PAGER"] = ""


def say(text):
    print("%s: %s" % (os.path.basename(sys.argv[0]), text), file=sys.stderr)
    sys.stderr.flush()


def same(what, found, expected):
    if found != expected:
        raise Mismatch("%s is %s and should be %s" % (what, short(found), short(expected)))


def holds(what, truth):
    if not truth:
        raise Mismatch("this does not hold: " + what)


def short(value):
    text = repr(value)
    return text if len(text) < 300 else text[:300] + "..."


def refused(what, code, call, code_of):
    """Calls, and wants the refusal `code` (or one of several, in a tuple)."""
    codes = code if isinstance(code, tuple) else (code,)
    try:
        answer = call()
    except Exception as error:
        found = code_of(error)
        if found is None:
            raise
        holds("%s is refused with %s, not %s" % (what, " or ".join(codes), found), found in codes)
        return
    raise Mismatch("%s is refused; the answer was %s" % (what, short(answer)))


def wait_until(what, look):
    """Asks until `look` gives something true; an exception of its own ends it."""
    end = time.time() + PATIENCE
    pause = 0.2
    while True:
        found = look()
        if found:
            return found
        if time.time() > end:
            raise Mismatch("%s did not happen within %d s" % (what, PATIENCE))
        time.sleep(pause)
        pause = min(pause * 1.5, 2.0)


def sample(length, seed):
    """Bytes that follow from the seed and look random."""
    pieces = []
    count = 0
    while 32 * count < length:
        pieces.append(hashlib.sha256(("%s %d" % (seed, count)).encode("ascii")).digest())
        count += 1
    return b"".join(pieces)[:length]


def md5_hex(data):
    return hashlib.md5(data).hexdigest()


def fresh_nonce():
    return binascii.hexlify(os.urandom(16)).decode("ascii")


def proof(nonce, instance_id):
    digest = hashlib.sha256((nonce + instance_id).encode("ascii")).hexdigest()
    return "CUMULET-PROOF " + digest


def shows_proof(console, nonce, instance_id):
    """Whether the console has the line; what a terminal adds around it does not count."""
    if isinstance(console, bytes) and not isinstance(console, str):
        console = console.decode("utf-8", "replace")
    if IS_SIMULATED:
        return "no machine was started" in (console or "")
    wanted = proof(nonce, instance_id)
    return any(line.strip().endswith(wanted) for line in (console or "").splitlines())


def wait_for_proof(read_console, nonce, instance_id, state):
    """Waits for the line; gives up early, with the reason and the console, when the instance ends."""
    seen = {"console": ""}

    def look():
        seen["console"] = read_console()
        if shows_proof(seen["console"], nonce, instance_id):
            return True
        now = state()
        if now not in ("pending", "running"):
            raise Mismatch("the instance is %s before its console shows the proof; console: %r"
                           % (now, (seen["console"] or "")[-2000:]))
        return False

    try:
        wait_until("the console's line %r" % proof(nonce, instance_id), look)
    except Mismatch as mismatch:
        if "console:" in str(mismatch):
            raise
        raise Mismatch("%s; console: %r" % (mismatch, (seen["console"] or "")[-2000:]))


def bundle_files():
    """The manifest's name and, manifest last, the names and paths of all files of the bundle."""
    names = sorted(name for name in os.listdir(BUNDLE) if os.path.isfile(os.path.join(BUNDLE, name)))
    manifests = [name for name in names if name.endswith(".manifest.xml")]
    holds("the folder %s holds exactly one manifest" % BUNDLE, len(manifests) == 1)
    ordered = [name for name in names if name != manifests[0]] + manifests
    return manifests[0], [(name, os.path.join(BUNDLE, name)) for name in ordered]


def read_file(path):
    with open(path, "rb") as file:
        return file.read()


def main(*steps):
    """Runs the steps, each with the answers of those before it; exits 1 with what was wrong."""
    carried = []
    try:
        for step in steps:
            say(step.__name__.replace("_", " "))
            carried.append(step(*carried))
    except Exception as error:
        if not isinstance(error, Mismatch):
            traceback.print_exc()
        text = "%s: %s" % (type(error).__name__, error)
        print("FAILED at %s: %s" % (step.__name__.replace("_", " "), text), file=sys.stderr)
        sys.exit(1)
    say("all of it works")
