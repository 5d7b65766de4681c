"""Renders conversations with chat templates as Transformers does.

Reads {"directory", "cases": [{"name", "messages", "tools", "kwargs", "add_generation_prompt"}], "bos", "eos"} and writes
{template: {case: {"text"} or {"error", "raised": whether the template raised it}}}. The settings are those of `_compile_jinja_template` of transformers 5.24.0.
"""

import json
import pathlib
import sys
from datetime import datetime

import jinja2
import jinja2.ext
import jinja2.sandbox

NOW = datetime(2026, 3, 9, 14, 5, 6)


class AssistantTracker(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_tracked"), [], [], body).set_lineno(line)

    def _tracked(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class Namespace(jinja2.utils.Namespace):
    """Refuses attributes that begin with an underscore."""

    def __setitem__(self, name, value):
        if name.startswith("_"):
            raise jinja2.exceptions.SecurityError(name)
        super().__setitem__(name, value)


environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[AssistantTracker, jinja2.ext.loopcontrols]
)
environment.filters["tojson"] = tojson
environment.globals["raise_exception"] = raise_exception
environment.globals["strftime_now"] = NOW.strftime
environment.globals["namespace"] = Namespace


def compiled(source):
    try:
        return environment.from_string(source)
    except jinja2.exceptions.TemplateError as error:
        return error


def rendered(template, case, wanted):
    try:
        if isinstance(template, Exception):
            raise template
        text = template.render(
            messages=case["messages"],
            tools=case["tools"],
            documents=None,
            add_generation_prompt=case["add_generation_prompt"],
            bos_token=wanted["bos"],
            eos_token=wanted["eos"],
            **case["kwargs"],
        )
        return {"text": text}
    except Exception as error:
        raised = type(error) is jinja2.exceptions.TemplateError
        return {"error": str(error) or type(error).__name__, "raised": raised}


def main():
    wanted = json.load(sys.stdin)
    templates = sorted(pathlib.Path(wanted["directory"]).glob("*.jinja"))
    found = {}
    for path in templates:
        template = compiled(path.read_text(encoding="utf-8"))
        found[path.stem] = {case["name"]: rendered(template, case, wanted) for case in wanted["cases"]}
    json.dump(found, sys.stdout)


main()
