"""--help: every default is told, is the one that is used, and fits a terminal of 80 columns."""

import inspect
import re

import pytest

from gammabeta import RunSpec, sweep, train
from gammabeta.bench.rounds import measure
from gammabeta.cli import _parser
from gammabeta.commands.tune import _DEFAULTS
from gammabeta.field_help import field_help
from gammabeta.reproduce import reproduce
from gammabeta.small import SMALL
from gammabeta.spec import CHOICES, RESOLVED_BY

SUBPARSERS = next(each for each in _parser()._actions if each.choices and each.dest != "help")
COMMANDS = dict(SUBPARSERS.choices)


def helps(command):
    return {action.dest: action.help % {"default": action.default}
            for action in COMMANDS[command]._actions if action.dest != "help"}  # fmt: skip


def flag(command, name):
    """What is told as the default of one flag."""
    return re.search(r"\(default: (.*)\)$", helps(command)[name])[1]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_flag_with_a_value_tells_its_default_once(command):
    for action in COMMANDS[command]._actions:
        if action.option_strings and action.nargs != 0 and action.dest != "help":
            assert helps(command)[action.dest].count("(default: ") == 1, action.option_strings


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_no_wider_than_a_terminal(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = COMMANDS[command].format_help().splitlines()
    assert max(map(len, lines)) <= 80


def test_a_field_that_follows_from_another_is_told_for_every_choice():
    for decider, table in RESOLVED_BY.items():
        for name in {name for row in table.values() for name in row}:
            told = dict(_parts(re.search(r"\(default: (.*)\)$", field_help(name, {}))[1]))
            for choice in CHOICES[decider]:
                value = getattr(RunSpec(**{decider: choice}), name)
                if value != ():
                    assert told.get(choice, told.get("else")) == _plain(value), (name, choice)


def _parts(told):
    """("0.1", of "sgd"), ("0.001", of "else"): the choice first."""
    for part in re.split(r", (?=\S+ with |else )", told):
        value, _, choices = part.partition(" with ")
        if not choices:
            yield "else", part.removeprefix("else ")
        for choice in choices.split(", ") if choices else []:
            yield choice, value


def _plain(value):
    if value is None:
        return "the whole run"
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(_plain, value)) if isinstance(value, tuple) else f"{value:g}"


def test_the_other_fields_tell_what_runspec_has():
    assert flag("train", "batch_size") == str(RunSpec().batch_size) == "128"
    assert flag("train", "weight_decay") == "0.0001"
    assert (flag("train", "nesterov"), flag("train", "weights")) == ("off", "none")
    assert flag("train", "subsample") == "all"
    for name, value in _DEFAULTS.items():
        assert flag("tune", name) == str(value)
        assert flag("train", name) != str(value)


def test_defaults_of_functions_are_told_as_they_are():
    for function in (train, sweep):
        own = inspect.signature(function).parameters
        for name in ("runs", "engine", "device"):
            assert flag("train", name) == own[name].default
    assert flag("sweep", "in_step") == str(inspect.signature(sweep).parameters["in_step"].default)
    assert flag("reproduce", "jobs") == str(inspect.signature(reproduce).parameters["jobs"].default)
    assert flag("bench", "repeats") == str(inspect.signature(measure).parameters["repeats"].default)
    assert flag("export", "threshold") == flag("compact", "threshold") == str(SMALL)
    assert flag("reproduce", "scale") == "paper"
