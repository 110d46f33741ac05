"""Providers among the installed distributions: found by name, imported one by one."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from llb_core.config import parse
from llb_core.errors import ConfigurationError
from llb_core.installed import Found, available
from llb_core.plugins import load_provider, load_providers, provider_class

GOOD = """
from pathlib import Path
from llb_core import Provider, ProviderOptions, hookimpl

class Options(ProviderOptions):
    region: str
    size: int = 3
    file: Path | None = None

class Good(Provider):
    name = "good"
    Options = Options
    def gather_backends(self):
        return []

@hookimpl
def llb_provider():
    return Good
"""
BROKEN = "import a_module_that_is_not_there\n"
EMPTY = "from llb_core import hookimpl\n@hookimpl\ndef llb_provider():\n    return 7\n"
NONE = "x = 1\n"
EXITS = "raise SystemExit(7)\n"
HOOK = "from llb_core import hookimpl\n@hookimpl\ndef llb_provider({}):\n    {}\n"
NO_OPTIONS = GOOD.replace("    Options = Options", "    Options = int")
FUSSY = GOOD.replace(
    "    region: str",
    "    region: str\n    def model_post_init(self, context):\n        raise KeyError(self.region)",
)
BROKEN_PLUGINS = {
    "exits": EXITS,
    "raises": HOOK.format("", "raise RuntimeError('no')"),
    "asks": HOOK.format("more", "return 7"),
    "optionless": NO_OPTIONS,
    "fussy": FUSSY,
}


@pytest.fixture
def entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Found:
    """Plugins as modules on the path, with their entry points."""
    monkeypatch.syspath_prepend(str(tmp_path))
    names = []
    for name, text in {"good": GOOD, "broken": BROKEN, "empty": EMPTY, "none": NONE}.items():
        names.append(_write_plugin(tmp_path, monkeypatch, name, text))
    return Found(tuple(names))


@pytest.fixture
def more_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Found:
    """Plugins that are broken in ways of their own."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return Found(
        tuple(_write_plugin(tmp_path, monkeypatch, *each) for each in BROKEN_PLUGINS.items())
    )


def _write_plugin(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> EntryPoint:
    (folder / f"plugin_of_test_{name}.py").write_text(text)
    monkeypatch.delitem(sys.modules, f"plugin_of_test_{name}", raising=False)
    return EntryPoint(name, f"plugin_of_test_{name}", "llb")


def test_imports_only_the_provider_that_is_asked_for(entries: Found) -> None:
    assert provider_class("good", lambda: entries).__name__ == "Good"
    assert "plugin_of_test_good" in sys.modules
    assert "plugin_of_test_empty" not in sys.modules


def test_lists_what_is_installed_without_importing_it(entries: Found) -> None:
    assert [each.name for each in available(lambda: entries)] == [
        "broken",
        "empty",
        "good",
        "none",
    ]
    assert not [name for name in sys.modules if name.startswith("plugin_of_test_")]


def test_one_whose_own_module_is_not_there_may_be_newer_than_this_process(entries: Found) -> None:
    missing = EntryPoint("later", "plugin_of_test_later.inner", "llb")
    for find, hints in ((Found((missing,)), True), (entries, False)):
        with pytest.raises(ConfigurationError, match="No module named") as caught:
            provider_class("later" if hints else "broken", lambda found=find: found)
        hint = ": restart the daemon if it was installed in editable mode meanwhile, or install"
        assert (hint in str(caught.value)) is hints


def test_a_provider_that_is_not_installed_names_the_remedy(entries: Found) -> None:
    with pytest.raises(ConfigurationError) as caught:
        provider_class("etcd", lambda: Found(()))
    assert str(caught.value) == 'provider "etcd" is not installed: pip install llb-provider-etcd'
    with pytest.raises(ConfigurationError, match=r"\(installed: broken, empty, good, none\)$"):
        provider_class("etcd", lambda: entries)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "can't be imported from .*: ModuleNotFoundError: No module named 'a_module"),
        ("empty", r"brings no provider: llb_provider\(\) of .* must return a subclass of"),
        ("none", "brings no provider"),
    ],
)
def test_a_broken_plugin_is_named(entries: Found, name: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f'provider "{name}" {message}'):
        provider_class(name, lambda: entries)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("exits", "can't be imported from .*: SystemExit: 7$"),
        ("raises", r"brings no provider: llb_provider\(\) of .*: RuntimeError: no$"),
        ("asks", r"brings no provider: llb_provider\(\) of .*: PluginValidationError: "),
        ("optionless", "has no options that can be read: Options of .* must be a subclass of"),
    ],
)
def test_a_plugin_that_raises_or_exits_ends_nobody_else(
    more_entries: Found, name: str, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=f'provider "{name}" {message}'):
        provider_class(name, lambda: more_entries)


def test_of_two_plugins_of_one_name_neither_is_chosen(entries: Found) -> None:
    twice = Found((*entries.entries, EntryPoint("good", "plugin_of_test_empty", "llb")))
    with pytest.raises(ConfigurationError) as caught:
        provider_class("good", lambda: twice)
    assert str(caught.value) == (
        'provider "good" is brought by plugin_of_test_empty and plugin_of_test_good: '
        "pip uninstall all but one of them"
    )
    assert "plugin_of_test_good" not in sys.modules


def test_options_that_fail_are_named_and_not_shown(more_entries: Found) -> None:
    config = parse(_config('name = "fussy"\nregion = "eu"'), Path("llb.toml"))
    with pytest.raises(ConfigurationError) as caught:
        load_providers(config, lambda: more_entries)
    assert str(caught.value) == (
        "llb.toml: services.web.provider[0]: provider fussy fails over its options: KeyError"
    )


def _config(*tables: str) -> str:
    text = """
        [loadbalancer]
        public_interface = "eth0"
        backend_cidrs = ["10.0.0.0/24"]
        snat_addresses = ["10.0.0.1"]
        [services.web]
        address = "203.0.113.10"
        port = 80
    """
    return text + "".join(f"[[services.web.provider]]\n{table}\n" for table in tables)


def test_reads_the_options_of_a_provider(entries: Found) -> None:
    config = parse(_config('name = "good"\nregion = "eu"'), Path("llb.toml"))
    (provider,) = config.services[0].providers
    _, options = load_provider(config, provider, lambda: entries)
    assert options.model_dump() == {"region": "eu", "size": 3, "file": None}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('name = "good"', "region: is missing"),
        ('name = "good"\nregion = 7', "region: 7 is not a string"),
        ('name = "good"\nregion = "eu"\nfile = 5', "file: 5 is not a path"),
        (
            'name = "good"\nregion = "eu"\nsiez = 7',
            "siez: unknown key (did you mean size?)",
        ),
    ],
)
def test_a_wrong_option_names_file_key_and_provider(
    entries: Found, table: str, message: str
) -> None:
    config = parse(_config(table), Path("llb.toml"))
    with pytest.raises(ConfigurationError) as caught:
        load_providers(config, lambda: entries)
    assert str(caught.value) == (
        f"llb.toml: services.web.provider[0].{message} (an option of provider good)"
    )


def test_every_provider_that_is_wrong_gets_a_line(entries: Found) -> None:
    config = parse(_config('name = "good"', 'name = "etcd"'), Path("llb.toml"))
    with pytest.raises(ConfigurationError) as caught:
        load_providers(config, lambda: entries)
    first, second = str(caught.value).splitlines()
    assert first.startswith("llb.toml: services.web.provider[0].region: is missing")
    assert second.startswith(
        'llb.toml: services.web.provider[1].name: provider "etcd" is not installed'
    )


HANGS = "import threading\nthreading.Event().wait()\n"
INTERRUPTS = "raise KeyboardInterrupt\n"


def test_a_plugin_that_hangs_where_it_is_imported_is_named_and_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("llb_core.plugins.LOAD_LIMIT", 2)
    entry = _write_plugin(tmp_path, monkeypatch, "hangs_at_import", HANGS)
    config = parse(_config('name = "hangs_at_import"'), Path("llb.toml"))
    for _ in range(3):
        with pytest.raises(ConfigurationError) as caught:
            load_providers(config, lambda: Found((entry,)))
        assert str(caught.value) == (
            'llb.toml: services.web.provider[0].name: importing provider "hangs_at_import" takes '
            "more than 2 s: mend what it waits for, or do without it"
        )
    with pytest.raises(ConfigurationError, match="hangs since 3 tries: mend it, and restart"):
        load_providers(config, lambda: Found((entry,)))


def test_options_that_hang_are_named_and_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    text = FUSSY.replace("raise KeyError(self.region)", "__import__('threading').Event().wait()")
    entry = _write_plugin(tmp_path, monkeypatch, "hangs_over_options", text)
    monkeypatch.setattr("llb_core.plugins.LOAD_LIMIT", 2)
    config = parse(_config('name = "hangs_over_options"\nregion = "eu"'), Path("llb.toml"))
    with pytest.raises(ConfigurationError) as caught:
        load_providers(config, lambda: Found((entry,)))
    assert str(caught.value).startswith(
        "llb.toml: services.web.provider[0]: reading the options of provider hangs_over_options "
        "takes more than 2 s: "
    )


def test_a_plugin_that_raises_an_interrupt_interrupts_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = _write_plugin(tmp_path, monkeypatch, "interrupts", INTERRUPTS)
    with pytest.raises(ConfigurationError, match=r"can't be imported from .*: KeyboardInterrupt$"):
        provider_class("interrupts", lambda: Found((entry,)))
