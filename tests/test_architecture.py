"""The lines between the modules: who may import whom, and who may write an eBPF map.

Read from the source, so that an import inside a function counts too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = ROOT / "llb_core"

# From the bottom to the top: a module imports from its own layer's package, and from lower layers.
LAYERS = [
    {"errors", "init_system", "durable", "undisturbed", "forks", "heap", "pauses"},
    {"capabilities", "installed", "rules", "strangers"},
    {"logs"},
    {"meters"},
    {"model", "validation", "recent", "regular_file"},
    {"planning", "health.state", "provider", "answer", "guard", "orders", "run_folder"},
    {"hookspecs", "durations", "known_routes"},
    {"config_file", "option_docs"},
    {"prefix_lists"},
    {"config", ""},
    {"plugins", "source", "health", "datapath", "room", "tables"},
    {"load_counts", "past_connections"},
    {"collection", "verdict_words", "drafts"},
    {"samples", "sources", "health.checker", "map_image", "rules_image", "report", "trial"},
    {"map_records", "taking_over"},
    {"map_sync"},
    {"migration", "settled"},
    {"balancer"},
    {"core_loop"},
    {"event_hub"},
    {"running", "testing"},
    {"ending"},
    {"api", "preview", "drains", "tracing", "installing"},
    {"upkeep", "self_repair", "connection_events", "page_ear"},
    {"observer"},
    {"control"},
    {"reloading"},
    {"daemon"},
    {"demo"},
    {"doctor"},
    {"cli"},
    {"__main__"},
]
LAYER_OF = {module: place for place, layer in enumerate(LAYERS) for module in layer}

PURE = {"planning", "rules", "health.state", "model", "guard", "answer"}
ALLOWED_IN_PURE = {"errors", "model", "planning", "rules"}
PURE_LIBRARIES = {
    "__future__", "array", "collections", "dataclasses", "enum", "functools", "hashlib",
    "ipaddress", "itertools", "math", "numpy", "operator", "typing",
}  # fmt: skip


def module_name(path: Path) -> str:
    """Return a module's name below llb_core: `health.state`, or nothing for the package itself."""
    parts = list(path.relative_to(CORE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part_of(module: str) -> str:
    """Return the part of the house that a module belongs to."""
    return module if module in LAYER_OF else module.split(".")[0]


def imports(path: Path) -> Iterator[str]:
    """Yield the full name of everything that a file imports: modules, and names from them."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def core_imports(path: Path) -> Iterator[str]:
    """Yield the modules of llb_core that a file imports, named as by `module_name`."""
    for name in imports(path):
        if name.split(".")[0] != "llb_core":
            continue
        parts = name.split(".")[1:]
        while parts and not _is_module(parts):
            parts.pop()
        yield ".".join(parts)


def _is_module(parts: list[str]) -> bool:
    there = CORE.joinpath(*parts)
    return there.with_suffix(".py").is_file() or (there / "__init__.py").is_file()


FILES = sorted(path for path in CORE.rglob("*.py") if "_bpf" not in path.parts)
PROVIDER_FILES = sorted(ROOT.glob("llb_providers/*/src/**/*.py"))


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_one_way(path: Path) -> None:
    part = part_of(module_name(path))
    for imported in core_imports(path):
        other = part_of(imported)
        for each in (part, other):
            assert each in LAYER_OF, f"{each} has no place in the house: give it one in LAYERS"
        is_at_home = other.split(".")[0] == part.split(".")[0] and LAYER_OF[other] <= LAYER_OF[part]
        assert is_at_home or LAYER_OF[other] < LAYER_OF[part], f"{part} imports {imported}"


@pytest.mark.parametrize(
    "path", [path for path in FILES if part_of(module_name(path)) in PURE], ids=module_name
)
def test_what_is_pure_imports_values_alone(path: Path) -> None:
    for name in imports(path):
        if name.split(".")[0] != "llb_core":
            assert name.split(".")[0] in PURE_LIBRARIES, f"{path.name} imports {name}"
    for imported in core_imports(path):
        assert part_of(imported) in ALLOWED_IN_PURE, f"{path.name} imports {imported}"


def test_bcc_and_pyroute2_are_imported_by_the_datapath_alone() -> None:
    for path in [*FILES, *PROVIDER_FILES]:
        libraries = {name.split(".")[0] for name in imports(path)} & {"bcc", "pyroute2"}
        is_entitled = CORE / "datapath" in path.parents or CORE / "demo" in path.parents
        assert is_entitled or not libraries, f"{path} imports {libraries}"


def test_map_sync_alone_writes_maps() -> None:
    """`MapWriter` has all that writes, and only map sync and the class's own file name it; what
    writes below it, the calls of bpf(2), are for that file and for making and pinning maps. A dry
    run fills a copy of its own, which no packet meets."""
    bpf_map = CORE / "datapath" / "bpf_map.py"
    dry_run = CORE / "datapath" / "dry_run.py"
    for path in FILES:
        named = {
            node.id if isinstance(node, ast.Name) else node.attr
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Name | ast.Attribute)
        } | {name.split(".")[-1] for name in imports(path)}
        if path not in (bpf_map, dry_run, CORE / "map_sync.py"):
            assert "MapWriter" not in named, f"{path} writes maps"
        if path not in (bpf_map, CORE / "datapath" / "bpf_syscall.py"):
            calls = {"map_update", "map_delete", "MAP_UPDATE_BATCH", "MAP_DELETE_BATCH"}
            assert not named & calls, f"{path} writes maps"


def test_readers_have_nothing_that_writes() -> None:
    tree = ast.parse((CORE / "datapath" / "bpf_map.py").read_text())
    (reader,) = (
        node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "MapReader"
    )
    methods = {node.name for node in reader.body if isinstance(node, ast.FunctionDef)}
    assert not {name for name in methods if name.startswith(("update", "delete", "put", "write"))}


def test_the_core_imports_no_provider() -> None:
    for path in FILES:
        assert not [name for name in imports(path) if name.startswith("llb_provider")], path


@pytest.mark.parametrize("path", PROVIDER_FILES, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_a_provider_imports_public_names_alone(path: Path) -> None:
    public = {
        f"llb_core.{name.value}"
        for node in ast.walk(ast.parse((CORE / "__init__.py").read_text()))
        if isinstance(node, ast.List)
        for name in node.elts
        if isinstance(name, ast.Constant)
    }
    assert public
    used = {name for name in imports(path) if name.split(".")[0] == "llb_core"}
    assert used <= public, f"{used - public} is not for providers"


@pytest.mark.parametrize(
    "path", [*FILES, *PROVIDER_FILES], ids=lambda p: f"{p.parent.name}.{p.stem}"
)
def test_a_module_begins_by_saying_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))
