"""Tests of the patch registry."""

from __future__ import annotations

import inspect
import pickle
import types

import pytest
from distilabel.pipeline.base import BasePipeline
from distilabel.pipeline.local import Pipeline
from distilabel.pipeline.step_wrapper import _StepWrapper
from distilabel.steps import Step
from distilabel.steps.tasks.base import _Task

from distilabel_openai_batch.hooks import registry

TARGETS = [patch for patch in registry._registered if patch.replacement]


def static(patch: registry.Patch) -> object:
    return inspect.getattr_static(patch.owner, patch.name)


class Base:
    def greet(self, name):
        return f"Base greets {name}."


class Derived(Base):
    @property
    def size(self):
        return 1


@pytest.fixture
def only_test_patches(unpatched, monkeypatch):
    """An empty registry, so that a test patches its own classes alone."""
    monkeypatch.setattr(registry, "_registered", [])
    yield
    registry.uninstall()


def test_replacement_is_given_the_original_first(only_test_patches):
    @registry.patch(Base, "greet", parameters=["self", "name"])
    def greet(original, self, name):
        return original(self, name).upper()

    registry.install()

    assert Base().greet("Ada") == Derived().greet("Ada") == "BASE GREETS ADA."


def test_property_is_replaced(only_test_patches):
    @registry.patch_property(Derived, "size")
    def size(original, self):
        return original(self) + 1

    registry.install()
    assert Derived().size == 2

    registry.uninstall()
    assert Derived().size == 1


def test_inherited_method_reaches_a_patch_of_the_base_class(only_test_patches):
    """The order in which both patches are registered does not matter."""

    @registry.patch(Derived, "greet", parameters=["self", "name"])
    def greet_derived(original, self, name):
        return f"<{original(self, name)}>"

    @registry.patch(Base, "greet", parameters=["self", "name"])
    def greet_base(original, self, name):
        return original(self, name).upper()

    registry.install()
    assert Derived().greet("Ada") == "<BASE GREETS ADA.>"

    registry.uninstall()
    assert "greet" not in vars(Derived)
    assert Derived().greet("Ada") == "Base greets Ada."


def test_function_of_a_module_is_replaced(only_test_patches):
    module = types.ModuleType("module")
    module.double = lambda number: 2 * number
    registry.patch(module, "double", parameters=["number"])(lambda original, number: original(number) + 1)

    registry.install()
    assert module.double(number=3) == 7

    registry.uninstall()
    assert module.double(3) == 6


def test_original_of_returns_the_original_with_and_without_patches():
    patched, original = Step.process_applying_mappings, registry.original_of(Step, "process_applying_mappings")
    assert patched.__wrapped__ is original
    registry.uninstall()
    try:
        assert registry.original_of(Step, "process_applying_mappings") is original is Step.process_applying_mappings
    finally:
        registry.install()


def test_install_is_idempotent():
    before = {(each.owner, each.name): static(each) for each in TARGETS}

    registry.install()

    assert all(static(each) is before[each.owner, each.name] for each in TARGETS)


def test_uninstall_restores_each_original(unpatched):
    """Each target is the original object again, and an inherited target is no attribute of its owner."""
    originals = {(each.owner, each.name): static(each) for each in TARGETS}
    inherited = [each for each in TARGETS if each.name not in vars(each.owner)]

    registry.install()
    assert all(static(each) is not originals[each.owner, each.name] for each in TARGETS)
    registry.uninstall()

    assert all(static(each) is originals[each.owner, each.name] for each in TARGETS)
    assert all(each.name not in vars(each.owner) for each in inherited)
    assert not any(hasattr(original, "__wrapped__") for original in originals.values())


def test_no_target_is_patched_twice():
    assert len({(each.owner, each.name) for each in TARGETS}) == len(TARGETS)


def test_another_distilabel_is_refused(unpatched, monkeypatch):
    """The error names each difference and the release to install, and distilabel stays unpatched."""
    monkeypatch.setattr(BasePipeline, "_get_steps_load_stages", lambda self, groups: None)
    monkeypatch.delattr(Pipeline, "_error_callback")
    monkeypatch.setattr(_Task, "is_global", False)
    run = _StepWrapper.run

    with pytest.raises(ImportError) as raised:
        registry.install()
    monkeypatch.undo()

    message = str(raised.value)
    differing = ("BasePipeline._get_steps_load_stages", "Pipeline._error_callback", "_Task.is_global")
    assert all(name in message for name in differing)
    assert "pip install 'distilabel==1.5.3'" in message
    assert _StepWrapper.run is run


def test_required_function_is_checked(only_test_patches):
    """`require` is for functions that the hooks call and leave as they are."""
    registry.require(Base, "greet", parameters=["self"])
    with pytest.raises(ImportError, match=r"Base\.greet"):
        registry.install()


def test_patched_methods_are_pickled_by_name():
    """multiprocessing sends the bound method `_StepWrapper.run` to a step's process."""
    wrapper = object.__new__(_StepWrapper)

    method = pickle.loads(pickle.dumps(wrapper.run))

    assert method.__func__ is _StepWrapper.run
