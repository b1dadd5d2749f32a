"""Replace functions of distilabel, check each target first, and restore the originals.

distilabel 1.5.3 has no extension points for a Task that waits for batch jobs for hours. The modules of this folder
therefore replace functions of distilabel, most of them private: `@patch` stands above each replacement.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import distilabel

Replacement = TypeVar("Replacement", bound=Callable[..., Any])


@dataclass(frozen=True)
class Patch:
    """A function or property of distilabel, and its replacement.

    Attributes:
        owner: the class or module that holds the target.
        name: the target's attribute name.
        parameters: the target's parameter names in distilabel 1.5.3; `None` for a property.
        replacement: the function to install, which is given the original as its first argument; `None` for a target
            that the hooks only call.
    """

    owner: Any
    name: str
    parameters: Sequence[str] | None
    replacement: Callable[..., Any] | None

    def differs(self) -> bool:
        """Return whether this distilabel has no such target, or a target with other parameters."""
        target = inspect.getattr_static(self.owner, self.name, None)
        if self.parameters is None:
            return not isinstance(target, property)
        return not callable(target) or list(inspect.signature(target).parameters) != list(self.parameters)


_registered: list[Patch] = []
_installed: list[tuple[Patch, object | None]] = []
"""Patches in place, each with its original; `None` for a target that the owner inherits."""


def patch(owner: Any, name: str, parameters: Sequence[str]) -> Callable[[Replacement], Replacement]:
    """Register the decorated function as the replacement of a function of distilabel.

    The replacement is called as `replacement(original, *arguments)`. Several `@patch` may stand above one replacement.

    Args:
        owner: the class or module that holds the function.
        name: the function's name there.
        parameters: the parameter names that the function has in distilabel 1.5.3.
    """
    return functools.partial(_register, owner, name, parameters)


def patch_property(owner: Any, name: str) -> Callable[[Replacement], Replacement]:
    """Register the decorated function as the replacement of a property's getter, see `patch`."""
    return functools.partial(_register, owner, name, None)


def require(owner: Any, name: str, parameters: Sequence[str]) -> None:
    """Have `install` check a function of distilabel that the hooks call and do not replace, see `patch`."""
    _registered.append(Patch(owner, name, parameters, None))


def _register(owner: Any, name: str, parameters: Sequence[str] | None, replacement: Replacement) -> Replacement:
    _registered.append(Patch(owner, name, parameters, replacement))
    return replacement


def install() -> None:
    """Install all registered patches, unless they are installed already.

    Raises:
        ImportError: a target is missing or has other parameters; then no patch is installed.
    """
    if _installed:
        return
    differing = sorted({f"{each.owner.__name__}.{each.name}" for each in _registered if each.differs()})
    if differing:
        raise ImportError(
            f"distilabel-openai-batch works with distilabel 1.5.3; distilabel {distilabel.__version__} differs in"
            f" {', '.join(differing)}. Install that release: pip install 'distilabel==1.5.3'."
        )
    for each in _registered:
        if each.replacement is None:
            continue
        target = inspect.getattr_static(each.owner, each.name)
        is_inherited = each.name not in vars(each.owner)
        _installed.append((each, None if is_inherited else target))
        if isinstance(target, property):
            setattr(each.owner, each.name, property(_bind(each.replacement, target.fget)))
        else:
            original = _inherited(each.owner, target) if is_inherited else target
            setattr(each.owner, each.name, _bind(each.replacement, original))


def uninstall() -> None:
    """Restore the original of each target, so that a test can compare with distilabel as released."""
    while _installed:
        each, original = _installed.pop()
        if original is None:
            delattr(each.owner, each.name)
        else:
            setattr(each.owner, each.name, original)


def original_of(owner: Any, name: str) -> Any:
    """Return the original of a target that the owner itself defines, for code that must bypass the replacement."""
    for each, original in _installed:
        if each.owner is owner and each.name == name:
            return original
    return inspect.getattr_static(owner, name)


def _bind(replacement: Callable[..., Any], original: Any) -> Callable[..., Any]:
    # multiprocessing pickles the bound method `_StepWrapper.run` by name, so the wrapper needs the original's name.
    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        return replacement(original, *args, **kwargs)

    return call


def _inherited(owner: type, target: Any) -> Callable[..., Any]:
    # Look the method up at each call: another patch may replace the base class's.
    @functools.wraps(target)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(super(owner, self), target.__name__)(*args, **kwargs)

    return call
