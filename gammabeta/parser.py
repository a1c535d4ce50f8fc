"""argparse with one line for every wrong use, which says what to write instead."""

import argparse
import contextlib
from typing import Any, NoReturn

from gammabeta import language
from gammabeta.errors import InputError, suggest
from gammabeta.names import parse_name

# What one command calls so is another word in the next: the flag there, and what to write.
_SAME = {
    "--seeds": ("--replicates", "--replicates N, how many seeds a point has"),
    "--seed": ("--replicates", "--replicates N, how many seeds a point has"),
    "--replicates": ("--seeds", "--seeds 0-4 for five"),
    "--model": ("--networks", "--networks A,B"),
    "--networks": ("--model", "--model NETWORK"),
    "--trainable": ("--subsets", "--subsets A,B"),
    "--subsets": ("--trainable", "--trainable SUBSET"),
    "--lr": ("--lrs", "--lrs A,B"),
}


def as_flag(name: str) -> str:
    return "--" + name.replace("_", "-")


class _Once(argparse.Action):
    """Refuses an option that is given twice: which of the two is meant, nobody knows."""

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        given = vars(namespace).setdefault("given", set())
        if option_string is not None and self.dest in given:
            raise InputError(f"{as_flag(self.dest)} is given twice: write it once")
        given.add(self.dest)
        super().__call__(parser, namespace, values, option_string)


class _Store(_Once, argparse._StoreAction):
    pass


class OnOff(_Once, argparse.BooleanOptionalAction):
    pass


class Parser(argparse.ArgumentParser):
    """Errors are InputErrors of one line, with the nearest right word."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.register("action", None, _Store)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            what = str(action.metavar or action.dest).lower()
            self.error(f"unknown {what} '{value}': {suggest(value, action.choices)}")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, unknown = self.parse_known_args(args, namespace)
        while "ids" in options and unknown and not unknown[0].startswith("-"):
            options.ids.append(unknown.pop(0))  # argparse gives up on `runs show --runs DIR ID`
        if "--dry-run" in unknown and "print_spec" in options:
            instead = "gammabeta sweep" if "seeds" in options else "--print-spec"
            raise InputError(f"--dry-run belongs to gammabeta sweep: write {instead} instead")
        if unknown:
            known = options.known_flags if "known_flags" in options else []
            raise InputError(_unknown(unknown[0], known, self._commands_with(unknown[0])))
        return options

    def _commands_with(self, word: str) -> list[str]:
        """The names of the commands that have this flag."""
        choices = [each.choices for each in self._actions if isinstance(each.choices, dict)]
        return [
            name
            for commands in choices
            for name, parser in commands.items()
            if word.split("=")[0] in parser.get_default("known_flags")
        ]


def _unknown(word: str, known: list[str], commands: list[str]) -> str:
    """What to write instead of an argument that no option wants. commands: others that have it."""
    if word.startswith("-"):
        flag = word.split("=")[0]
        same, instead = _SAME.get(flag, ("", ""))
        if same in known:
            return f"unknown argument '{flag}': write {instead}"
        if commands:
            named = " and ".join([", ".join(commands[:-1])] * (len(commands) > 1) + commands[-1:])
            return f"unknown argument '{flag}': it belongs to gammabeta {named}: leave it out"
        return f"unknown argument '{flag}': {suggest(flag, known)}"
    for name, parse in (("trainable", language.parse), ("model", parse_name)):
        if as_flag(name) in known:
            with contextlib.suppress(InputError):
                parse(word)
                return f"unknown argument '{word}': write {as_flag(name)} {word}"
    return f"unknown argument '{word}': leave it out, or write its flag before it (see --help)"
