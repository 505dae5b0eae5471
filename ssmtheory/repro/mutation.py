"""Break the code on purpose, as a claim's mutation says, for the length of a `with` block."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

from ssmtheory.errors import ConfigError
from ssmtheory.repro.claims import Mutation

__all__ = ["applied"]


def _owner(target: str) -> tuple[Any, str, Any]:
    """The object that holds the attribute, the attribute's name, and what is stored there."""
    module, _, path = target.partition(":")
    *parents, name = path.split(".")
    try:
        owner: Any = importlib.import_module(module)
        for parent in parents:
            owner = getattr(owner, parent)
        found = inspect.getattr_static(owner, name)
    except (ModuleNotFoundError, AttributeError):
        raise ConfigError(f"a mutation names {target}, which is not there") from None
    return owner, name, found


def _changed(value: Any, mutation: Mutation) -> Any:
    """A result, scaled or shifted: numbers, arrays, systems, and lists, tuples, dicts and functions of them."""
    if mutation.how == "replace":
        return mutation.by
    if isinstance(value, list):
        return [_changed(each, mutation) for each in value]
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(_changed(each, mutation) for each in value)
    if isinstance(value, dict):
        return {key: _changed(each, mutation) for key, each in value.items()}
    if isinstance(value, bool):
        return not value
    if callable(value) and not hasattr(value, "__mul__"):
        return lambda *args, **kwargs: _changed(value(*args, **kwargs), mutation)
    return mutation.by * value if mutation.how == "scale" else value + mutation.by


def _result(value: Any, mutation: Mutation) -> Any:
    """The whole result changed, or one part of it."""
    part = mutation.part
    if part is None:
        return _changed(value, mutation)
    if isinstance(part, int):
        parts = list(value)
        parts[part] = _changed(parts[part], mutation)
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return dataclasses.replace(value, **{part: _changed(getattr(value, part), mutation)})


def _wrapped(function: Callable[..., Any], mutation: Mutation) -> Callable[..., Any]:
    signature, name = inspect.signature(function), mutation.argument

    @functools.wraps(function)
    def changed(*args: Any, **kwargs: Any) -> Any:
        if name is None:
            return _result(function(*args, **kwargs), mutation)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        bound.arguments[name] = mutation.by if mutation.how == "set" else mutation.by * bound.arguments[name]
        return function(*bound.args, **bound.kwargs)

    return changed


def _forget() -> None:
    """Empty every `functools` cache of the package: a remembered result would hide the change, or outlive it."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] != "ssmtheory":
            continue
        for value in list(vars(module).values()):
            clear = getattr(value, "cache_clear", None)
            if callable(clear) and hasattr(value, "cache_info"):
                clear()


@contextlib.contextmanager
def applied(mutation: Mutation) -> Iterator[None]:
    """Within the block, the library is changed as the mutation says, in every module that took the name by import.

    Raises:
        ConfigError: the target is not there.
    """
    owner, name, stored = _owner(mutation.target)
    inner = stored.__func__ if isinstance(stored, staticmethod | classmethod) else stored
    inner = inner.fget if isinstance(inner, property) else inner
    if isinstance(inner, functools.cached_property):
        inner = inner.func
    new: Any
    if not callable(inner):
        new = _changed(stored, mutation)
    elif isinstance(stored, property | functools.cached_property):
        new = property(_wrapped(inner, mutation))
    elif isinstance(stored, staticmethod | classmethod):
        new = type(stored)(_wrapped(inner, mutation))
    else:
        new = _wrapped(inner, mutation)
    places = [(owner, name)]
    if inspect.ismodule(owner) and callable(inner):
        # `from module import name` made further references to the same object
        for key, module in list(sys.modules.items()):
            if key.partition(".")[0] == "ssmtheory" and module is not owner:
                places += [(module, alias) for alias, value in list(vars(module).items()) if value is stored]
    _forget()
    for place, alias in places:
        setattr(place, alias, new)
    try:
        yield
    finally:
        for place, alias in places:
            setattr(place, alias, stored)
        _forget()
