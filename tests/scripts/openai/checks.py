"""Checks of a client against a daemon: each prints one line, `ok NAME` or `FAIL NAME: why`, and one that fails makes the exit status 1.

The environment says where the daemon is and how to ask it about a task:

BASE_URL         its front, such as http://127.0.0.1:7430/v1
API_KEY          a token that may submit and read
LIMITED_API_KEY  a token that may call once a minute
ARTEL_PROGRAM    the program `artel`, which finds the same daemon by ARTEL_ADDRESS and ARTEL_DATA

Arguments of a script are the names of checks; without any, all run. The catalog is `tests/fixtures/openai/clients.yaml`.
"""
import inspect
import json
import os
import subprocess
import sys
import traceback

BASE_URL = os.environ["BASE_URL"]
API_KEY = os.environ["API_KEY"]

# What the scripted role `agent` calls, the result that it expects, and its answer.
AGENT_QUESTION = "How is the weather in Oslo?"
AGENT_ARGUMENTS = {"city": "Oslo"}
AGENT_RESULT = "sunny, 18 degrees"
AGENT_ANSWER = "It is sunny in Oslo, at 18 degrees."

# A tool whose arguments a model of any size can give, as it is held to them.
WEATHER_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Oslo", "Lima"]}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather of a city.",
        "parameters": WEATHER_SCHEMA,
    },
}

_checks = []


def check(function):
    """Makes a function a check of its name."""
    _checks.append(function)
    return function


def expect(condition, *seen):
    """Fails the check unless the condition holds; what was seen is told."""
    if not condition:
        line = inspect.stack()[1]
        code = (line.code_context or ["?"])[0].strip()
        raise AssertionError(f"{code} at line {line.lineno}, seen: {', '.join(repr(item) for item in seen)}")


def equal(seen, expected):
    """Fails the check unless both are equal."""
    if seen != expected:
        line = inspect.stack()[1]
        raise AssertionError(f"line {line.lineno}: seen {seen!r}, expected {expected!r}")


def refused(kind, call):
    """The error of a call that must be refused with an exception of this kind."""
    try:
        answer = call()
    except kind as error:
        return error
    raise AssertionError(f"the call was not refused with {kind.__name__}, its answer is {answer!r}")


def state_at_end(task):
    """The state of a task, once it has ended."""
    return end_of_task(task)["state"]


def end_of_task(task):
    """A task, once it has ended, as the program prints it."""
    program = os.environ["ARTEL_PROGRAM"]
    subprocess.run([program, "task", "watch", "--no-tokens", task], capture_output=True, check=False)
    got = subprocess.run([program, "--json", "task", "get", task], capture_output=True, text=True, check=True)
    return json.loads(got.stdout)


def _one_line(error):
    text = " ".join(str(error).split())
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == sys.argv[0]]
    place = f" (line {frames[-1].lineno})" if frames else ""
    # The package says `Connection error.` of whatever it could not reach or read.
    cause = f", from {error.__cause__!r}" if error.__cause__ else ""
    return f"{type(error).__name__}: {text}{cause}{place}"


def main():
    """Runs the checks and ends the process."""
    wanted = sys.argv[1:]
    unknown = set(wanted) - {function.__name__ for function in _checks}
    if unknown:
        sys.exit(f"no such check: {', '.join(sorted(unknown))}")
    failed = 0
    for function in _checks:
        name = function.__name__
        if wanted and name not in wanted:
            continue
        try:
            function()
        except Exception as error:  # a client fails in ways of its own, and the other checks are to run
            failed += 1
            print(f"FAIL {name}: {_one_line(error)}", flush=True)
        else:
            print(f"ok {name}", flush=True)
    sys.exit(1 if failed else 0)
