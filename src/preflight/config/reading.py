"""TOML -> msgspec structs, where every fault is one `ConfigError` that says where it is."""

import difflib
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import msgspec

from preflight.errors import ConfigError

MAX_FILE_BYTES = 4 * 1024 * 1024
"""A cluster of 500 nodes is written in about 100 KB."""

T = TypeVar("T", bound=msgspec.Struct)

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_FAULT = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<field>.*)`")
_TOML_WORDS = {
    "object": "a table",
    "array": "a list",
    "str": "a string",
    "int": "an integer",
    "bool": "true or false",
    "float": "a decimal number",
    "datetime": "a date",
    "date": "a date",
    "time": "a time",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where in which file: `Place("cluster.toml") / "nodes" / "m1"`."""

    file: str
    path: str = ""

    def __truediv__(self, key: str) -> "Place":
        """One key deeper; a key that TOML would quote is quoted here too."""
        written = key if _BARE_KEY.fullmatch(key) else f'"{key}"'
        return Place(self.file, f"{self.path}.{written}" if self.path else written)

    def error(self, message: str) -> ConfigError:
        """The error to raise for what stands here."""
        return ConfigError(message, file=self.file, path=self.path)


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean "worker"?`, or nothing where no known word is near."""
    found = difflib.get_close_matches(word, list(known), n=1)
    return f'; did you mean "{found[0]}"?' if found else ""


def listing(words: Iterable[str]) -> str:
    """The words for a sentence: `client, control-plane, worker`."""
    return ", ".join(words)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a whole TOML file. Raises `ConfigError`, with line and column of a syntax error."""
    place = Place(str(path))
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise place.error("there is no such file") from None
    except OSError as error:
        raise place.error(f"cannot be read: {error.strerror}") from error
    if len(content) > MAX_FILE_BYTES:
        raise place.error(f"is larger than {MAX_FILE_BYTES // 1024 // 1024} MiB")
    try:
        return tomllib.loads(content.decode("utf-8-sig"))  # some editors begin a file with a BOM
    except UnicodeDecodeError as error:
        raise place.error(f"is not UTF-8 text (byte {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        raise place.error(f"is not valid TOML: {error}") from error


def convert(value: object, kind: type[T], place: Place) -> T:
    """Check a parsed table against a struct. Raises `ConfigError` at the offending key.

    Unknown keys are looked for first: a misspelt key is the cause of the missing one.
    """
    if isinstance(value, dict):
        known = [field.encode_name for field in msgspec.structs.fields(kind)]
        for key in value:
            if key not in known:
                raise (place / key).error(f"unknown key{nearest(key, known)}")
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _translate(error, kind, place) from None


def _translate(error: msgspec.ValidationError, kind: type[T], place: Place) -> ConfigError:
    """Say in TOML's words and with our path what msgspec says in its own."""
    fault = _FAULT.fullmatch(str(error))
    what, below = (fault["what"], fault["path"] or "") if fault else (str(error), "")
    key = below.lstrip(".")
    if missing := _MISSING.fullmatch(what):
        return (place / missing["field"]).error("is missing")
    if key:
        place = Place(place.file, f"{place.path}.{key}" if place.path else key)
    if what.startswith("Invalid enum value"):
        allowed = _allowed(kind, key)
        return place.error(f"is not one of {listing(allowed)}")
    return place.error(re.sub(r"`([^`]*)`", _in_words, what[:1].lower() + what[1:]))


def _allowed(kind: type[T], key: str) -> tuple[str, ...]:
    for field in msgspec.structs.fields(kind):
        if field.encode_name == key and get_origin(field.type) is Literal:
            return get_args(field.type)
    return ()


def _in_words(match: re.Match[str]) -> str:
    names = [name for name in match[1].split(" | ") if name != "null"]
    return " or ".join(_TOML_WORDS.get(name, name) for name in names)
