"""What becomes of each Python file: pure, from texts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observer_actors.audit import audit, inventory_page
from observer_actors.audit.facts import Facts, Need, facts_of, is_python
from observer_actors.audit.inventory import Inventory, Kind, Modules, take_inventory
from observer_actors.audit.scripts import includes, settings_of
from tests.conftest import ROOT

GUARD = 'if __name__ == "__main__":\n    pass\n'


def inventory(files: Mapping[str, str]) -> Inventory:
    python = {path: facts_of(text.encode()) for path, text in files.items() if is_python(path, text.encode())}
    return take_inventory(python, {path: text for path, text in files.items() if path not in python})


def kinds(files: Mapping[str, str]) -> dict[str, str]:
    return {path: item.kind.value for path, item in inventory(files).items.items()}


SCRIPT = {"pyproject.toml": '[project.scripts]\nrun = "a.cli:main"\n', "a/__init__.py": ""}


@pytest.mark.parametrize(
    ("files", "reached"),
    [
        ({"a/cli.py": "import a.b", "a/b.py": "from . import c", "a/c.py": ""}, ["a/b.py", "a/c.py"]),
        ({"a/cli.py": "from a.b import c", "a/b/__init__.py": "", "a/b/c.py": ""}, ["a/b/__init__.py", "a/b/c.py"]),
        ({"a/cli.py": "from .b.c import *", "a/b/__init__.py": "", "a/b/c.py": "from ..d import x", "a/d.py": ""},
         ["a/b/__init__.py", "a/b/c.py", "a/d.py"]),
        ({"a/cli.py": "def f():\n    if x:\n        from a import b", "a/b.py": ""}, ["a/b.py"]),
        ({"a/cli.py": "if TYPE_CHECKING:\n    import a.b", "a/b.py": ""}, ["a/b.py"]),
        ({"a/cli.py": 'load("a.b:main")', "a/b.py": ""}, ["a/b.py"]),
        ({"a/cli.py": 'load("a.b.Class")', "a/b.py": ""}, ["a/b.py"]),
        ({"a/cli.py": 'run(["x", "a/b.py"])', "a/b.py": ""}, ["a/b.py"]),
        ({"a/cli.py": 'load(f"a.c.{name}")', "a/c/__init__.py": "", "a/c/d.py": "", "a/c/e.py": "from a.c import d"},
         ["a/c/d.py", "a/c/e.py"]),
        ({"a/cli.py": 'import_module(".b", __package__)', "a/b.py": ""}, ["a/b.py"]),
        ({"a/cli.py": 'importlib.import_module(".c", package="a.b")', "a/b/c.py": ""}, ["a/b/c.py"]),
        ({"a/cli.py": '__import__("b")', "b.py": ""}, ["b.py"]),
        ({"a/cli.py": "import a.b.c", "a/b/c.py": 'import_module(f".{n}", __package__)', "a/b/d.py": ""}, ["a/b/d.py"]),
        ({"a/cli.py": 'import_module(".b." + name, __package__)', "a/b/c.py": ""}, ["a/b/c.py"]),
        ({"a/cli.py": "import a.b", "a/b/__init__.py": "pkgutil.iter_modules(__path__)", "a/b/c.py": ""}, ["a/b/c.py"]),
        ({"a/cli.py": "import \\\n    a.b as c, os", "a/b.py": ""}, ["a/b.py"]),
        ({"a/cli.py": "import a.b.c", "a/b/c.py": ""}, ["a/b/c.py"]),
        ({"a/cli.py": 'run("x/run.py")', "x/run.py": "import b.c", "x/b/c.py": "import b.d", "x/b/d.py": ""},
         ["x/run.py", "x/b/c.py", "x/b/d.py"]),
    ],
)  # fmt: skip
def test_what_an_entry_point_reaches_is_production(files: dict[str, str], reached: list[str]) -> None:
    found = kinds(SCRIPT | files | {"a/never.py": ""})
    assert {path: found[path] for path in ["a/cli.py", *reached]} == dict.fromkeys(["a/cli.py", *reached], "production")
    assert found["a/never.py"] == "dead"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("pyproject.toml", '[project.gui-scripts]\nx = "m"\n'),
        ("pyproject.toml", '[project.entry-points."a.b"]\nx = "m:X"\n'),
        ("pyproject.toml", '[tool.poetry.scripts]\nx = "m:f"\n'),
        ("setup.cfg", "[options.entry_points]\nconsole_scripts =\n    x = m:f\n"),
        ("setup.cfg", "[options]\npy_modules = k, m\n"),
        ("setup.cfg", "[options]\nscripts =\n    ./m.py\n"),
        ("pyproject.toml", '[tool.poetry.plugins.a]\nx = "m:f"\n'),
        ("pyproject.toml", '[tool.setuptools]\npy-modules = ["m"]\n'),
        ("pyproject.toml", '[tool.setuptools]\nscript-files = ["m.py"]\n'),
        ("pyproject.toml", '[tool.hatch.version]\npath = "m.py"\n'),
        ("pyproject.toml", '[tool.setuptools.dynamic]\nversion = {attr = "m.VERSION"}\n'),
        ("systemd/x.service", "[Service]\nExecStart=/usr/bin/python3 -u -m m --flag\n"),
        ("systemd/x.service", "[Service]\nExecStartPre=/opt/app/m.py\n"),
        ("systemd/x.service", "[Service]\nExecStartPre=-/opt/app/m.py\n"),
        ("systemd/x.service", "[Service]\nExecStart = %h/app/m.py\n"),
        ("systemd/x.service", "[Service]\nExecStart=/bin/env ${APP}/m.py\n"),
        ("systemd/x.service", '[Service]\nExecStart="/usr/bin/python3" "-m" "m"\n'),
        ("systemd/x.service", "[Service]\nExecStart=/usr/bin/python3 \\\n# why\n    -u \\\n    m.py\n"),
        ("systemd/x.service", "[Service]\nExecStart=/usr/bin/python3 -mm\n"),
        ("systemd/x.service", "[Service]\nExecStart=/usr/bin/python3 -Im m\n"),
        ("systemd/x.service", "[Service]\nExecStart=/usr/bin/python3 -c 'from m import x; x(\"y\")'\n"),
        ("systemd/x.service", "[Service]\nExecStart=/opt/venv/bin/gunicorn -w 2 m:app\n"),
        ("systemd/x.service", "[Service]\nExecStart=/opt/venv/bin/uvicorn 'm:made()' --factory\n"),
        ("systemd/x.service", "[Service]\nExecStart=/opt/venv/bin/celery -A m worker\n"),
        ("systemd/x.service", "[Service]\nExecStart=/opt/venv/bin/flask --app=m run\n"),
        ("systemd/x.service.d/more.conf", "[Service]\nExecStart=\nExecStart=/opt/app/m.py\n"),
        ("Dockerfile", 'FROM python:3.11\nCMD ["gunicorn", "--bind", ":80", "m:app"]\n'),
        ("web.Dockerfile", "FROM python:3.11\nentrypoint python \\\n    -m m\n"),
        ("Procfile", "web: gunicorn m:app --log-file -\n"),
        ("deploy/crontab", "# m h dom mon dow\n0 4 * * * cd /opt/app && python3 m.py\n"),
        ("docker-compose.yml", "services:\n  web:\n    command: uvicorn m:app --port 80\n"),
        ("compose.prod.yaml", "services:\n  web:\n    command:\n      - python\n      - -m\n      - m\n"),
        ("deploy/supervisord.conf", "[program:web]\ncommand=/opt/venv/bin/gunicorn m:app\n"),
    ],
)
def test_every_kind_of_entry_point(path: str, text: str) -> None:
    assert kinds({path: text, "m.py": "import n", "n.py": ""}) == {"m.py": "production", "n.py": "production"}
    assert kinds({path: "[x", "m.py": ""}) == {"m.py": "dead"}


@pytest.mark.parametrize(
    "command",
    [
        "uvicorn app.a:app",
        "dramatiq app.a",
        "arq app.a.Settings",
        "celery -A app.a worker",
        "python3 -mapp.a",
        'python3 -c "import app.a as a; a.run()"',
        'sh -c "exec gunicorn app.a:app"',
    ],
)
def test_a_module_of_a_package_in_a_command(command: str) -> None:
    files = {"app/__init__.py": "", "app/a.py": "from . import b", "app/b.py": "", "app/c.py": ""}
    served = dict.fromkeys(("app/__init__.py", "app/a.py", "app/b.py"), "production") | {"app/c.py": "dead"}
    for path, text in (("x.service", f"[Service]\nExecStart=/opt/bin/{command}\n"), ("Procfile", f"w: {command}\n")):
        assert kinds(files | {path: text}) == served
    by_make = {path: kind.replace("production", "manual") for path, kind in served.items()}
    assert kinds(files | {"Makefile": f"run:\n\t{command}\n"}) == by_make


def test_what_a_command_does_not_name_is_not_served() -> None:
    files = {"m.py": "", "n.py": "", "tar.py": ""}
    texts = {
        "x.service": "[Unit]\nDescription=m:app\n[Service]\n#ExecStart=python m.py\nExecStart=/bin/tail -f n.tar\n",
        "Dockerfile": "FROM python:3.11\nLABEL x=n:1\nCMD http://n:80/ --m n\n",
    }
    assert set(kinds(files | texts).values()) == {"dead"}


def test_celery_finds_its_module_in_a_package() -> None:
    files = {"p/__init__.py": "", "p/celery.py": "import p.tasks", "p/tasks.py": ""}
    assert set(kinds(files | {"Procfile": "w: celery -A p worker\n"}).values()) == {"production"}


@pytest.mark.parametrize(
    "given",
    [
        'entry_points={"console_scripts": ["x = m:f"]}',
        'entry_points={"console_scripts": ["y = k"] + ["x=m"]}',
        'entry_points="[console_scripts]\\nx = m:f\\n"',
        'entry_points="""\n[gui_scripts]\nx = m:f\n"""',
        'scripts=["bin/k", "./m.py"]',
        'py_modules=["m"]',
    ],
)
def test_what_a_setup_py_installs(given: str) -> None:
    for call in ("from setuptools import setup\nsetup(", "import setuptools\nsetuptools.setup(name='p', "):
        files = {"a/setup.py": f"{call}{given})\n", "a/m.py": "import n", "a/n.py": "", "m/m.py": ""}
        expected = {"a/setup.py": "manual", "a/m.py": "production", "a/n.py": "production", "m/m.py": "dead"}
        assert kinds(files) == expected
        assert (
            kinds(files | {"a/setup.py": "setup(**given, py_modules=found())\nother(py_modules=['m'])"})["a/m.py"]
            == "dead"
        )


def test_a_script_is_python_when_its_first_line_says_so() -> None:
    files = {
        "bin/tool": "#!/usr/bin/env python3\nimport used\n",
        "bin/served": "#!/opt/venv/bin/python -u\nimport of_served\n",
        "bin/new": "#!/usr/bin/env -S uv run --script\n",
        "hand.py": "#! /usr/bin/python3.11\n",
        "x.service": "[Service]\nExecStart=/opt/app/bin/served --now\n",
        "tests/run": "#!/usr/bin/env python3\n",
        "used.py": "",
        "of_served.py": "",
        "bin/shell": "#!/bin/sh\nexec python3 x\n",
        "bin/tool.in": "#!@PYTHON@ python\n",
        "text": "python\n",
    }
    assert kinds(files) == {
        "bin/tool": "manual",
        "bin/served": "production",
        "bin/new": "manual",
        "hand.py": "manual",
        "tests/run": "tests",
        "used.py": "manual",
        "of_served.py": "production",
    }
    assert inventory({"hand.py": "#!/usr/bin/env python\nx = (\n"}).items["hand.py"].kind is Kind.MANUAL
    assert inventory(files).items["bin/tool"].why == "names Python in its first line"


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (">=3.11", True),
        (">=3.11,<3.14", True),
        (">= 3.8.1 , <4.0", True),
        ("~=3.9", True),
        ("^3.10", True),
        ("==3.11.*", True),
        ("3.11", True),
        ("!=3.9.*,>=3", True),
        (">=3.12", False),
        ("<3", False),
        ("<=3.10", False),
        (">=2.7,!=3.11.*", False),
        ("", None),
        (">=3.8 || 2.7", None),
        ("three", None),
    ],
)
def test_which_python_a_project_wants(wanted: str, *, expected: bool | None) -> None:
    assert includes(wanted, (3, 11)) is expected


def test_where_a_project_says_which_python_it_wants() -> None:
    assert settings_of("pyproject.toml", '[project]\nrequires-python = ">=3"').requires_python == ">=3"
    assert settings_of("pyproject.toml", '[tool.poetry.dependencies]\npython = "^3.9"').requires_python == "^3.9"
    assert settings_of("pyproject.toml", "[project]\nrequires-python = 3").requires_python == ""
    assert settings_of("setup.cfg", "[options]\npython_requires = >=3.8\n").requires_python == ">=3.8"
    assert facts_of(b"setup(python_requires='>=3.8')").settings.requires_python == ">=3.8"


def test_a_main_is_production_unless_make_or_ci_run_it() -> None:
    assert kinds({"p/__init__.py": "", "p/__main__.py": "import p.q", "p/q.py": ""})["p/q.py"] == "production"
    files = {"Makefile": "bench:\n\tpython -m p\n", "p/__init__.py": "", "p/__main__.py": "import p.q", "p/q.py": ""}
    assert set(kinds(files).values()) == {"manual"}
    assert kinds({"tests/__main__.py": "", "p.py": ""}) == {"tests/__main__.py": "tests", "p.py": "dead"}


def test_manual_documented_tests_and_dead() -> None:
    files = {
        "tool.py": "import helper\n" + GUARD,
        "helper.py": "",
        "setup.py": "",
        "scripts/__init__.py": "",
        "scripts/by_make.py": "",
        "scripts/by_ci.py": "",
        "scripts/by_shell.py": "",
        "Makefile": "x:\n\tpython scripts/by_make.py\n",
        ".ci/run": "python ./scripts/by_ci.py",
        "deploy.sh": "python3 -m scripts.by_shell",
        "docs/use.md": "Load `examples/shown.py`, or `examples.named`.",
        "docs/PYTHON_INVENTORY.md": "examples/listed.py",
        "examples/shown.py": "",
        "examples/named.py": "",
        "examples/listed.py": "",
        "tests/test_x.py": "import only_tested\n",
        "tests/support.py": "",
        "only_tested.py": "",
        "conftest.py": "",
        "x_test.py": "",
        "shop/tests.py": "",
        "shop/testsuite/basic.py": "",
    }
    del files["docs/PYTHON_INVENTORY.md"]  # `is_read` leaves it out, below
    assert kinds(files) == {
        "tool.py": "manual",
        "helper.py": "manual",
        "setup.py": "manual",
        "scripts/__init__.py": "manual",
        "scripts/by_make.py": "manual",
        "scripts/by_ci.py": "manual",
        "scripts/by_shell.py": "manual",
        "examples/shown.py": "documented",
        "examples/named.py": "documented",
        "examples/listed.py": "dead",
        "tests/test_x.py": "tests",
        "tests/support.py": "tests",
        "only_tested.py": "tests",
        "conftest.py": "tests",
        "shop/tests.py": "tests",
        "shop/testsuite/basic.py": "tests",
        "x_test.py": "tests",
    }
    items = inventory(files).items
    assert items["only_tested.py"].why == "only tests reach it"
    assert items["scripts/by_make.py"].why == "run by Makefile"
    assert items["examples/shown.py"].documented == "docs/use.md"


def test_what_frameworks_find_by_name_or_place_is_not_dead() -> None:
    files = {
        "site/shop/__init__.py": "",
        "site/shop/apps.py": "",
        "site/shop/admin.py": "from . import used",
        "site/shop/used.py": "",
        "site/shop/models.py": "",
        "site/shop/migrations/__init__.py": "",
        "site/shop/migrations/0001_initial.py": "",
        "site/shop/management/commands/refill.py": "",
        "site/shop/templatetags/prices.py": "",
        "api/alembic/env.py": "",
        "api/alembic/versions/1a2b_orders.py": "",
        "hooks/pre_gen_project.py": "",
        "gunicorn.conf.py": "",
        "dags/daily.py": "",
        "site/shop/commands/other.py": "",
        "other/models.py": "",
    }
    found = kinds(files)
    assert [path for path, kind in found.items() if kind == "dead"] == [
        "other/models.py",
        "site/shop/commands/other.py",
    ]
    assert set(found.values()) == {"manual", "dead"}
    assert inventory(files).items["api/alembic/versions/1a2b_orders.py"].why == "run by django or alembic"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("k8s/web.yaml", 'spec:\n  command: ["uvicorn", "app.m:app"]\n'),
        ("Taskfile.yml", "tasks:\n  x:\n    cmds: [python app/m.py]\n"),
        ("logging.yaml", "handlers:\n  x:\n    class: app.m.Handler\n"),
        ("web/package.json", '{"scripts": {"x": "cd .. && python3 -m app.m"}}'),
    ],
)
def test_what_other_programs_are_told_to_run_or_read_is_not_dead(path: str, text: str) -> None:
    files = {"app/__init__.py": "", "app/m.py": "", "app/n.py": ""}
    assert kinds(files | {path: text}) == {"app/__init__.py": "manual", "app/m.py": "manual", "app/n.py": "dead"}


def test_what_a_notebook_imports_is_used_by_hand() -> None:
    cells = [
        {"cell_type": "markdown", "source": ["import never\n"]},
        {"cell_type": "code", "source": ["%matplotlib inline\n", "!pip install x\n", "from lib import a\n"]},
        {"cell_type": "code", "source": "import beside"},
    ]
    files = {
        "notebooks/look.ipynb": json.dumps({"cells": cells, "nbformat": 4}),
        "notebooks/broken.ipynb": '{"cells": [{"cell_type": "code", "source": "import never"}',
        "notebooks/other.ipynb": "[" * 100_000,
        "lib/a.py": "import lib.b",
        "lib/b.py": "",
        "notebooks/beside.py": "",
        "never.py": "",
    }
    assert kinds(files) == {
        "lib/a.py": "manual", "lib/b.py": "manual", "notebooks/beside.py": "manual", "never.py": "dead",
    }  # fmt: skip
    assert inventory(files).items["lib/a.py"].why == "used by notebooks/look.ipynb"


def test_the_standard_library_is_not_taken_for_a_file_of_another_folder() -> None:
    files = {"run.py": "import json, code.ours\nfrom queue import x\n" + GUARD, "tools/json.py": ""}
    files |= {"lib/code/__init__.py": "", "lib/code/ours.py": "", "queue.py": ""}
    found = kinds(files)
    assert [path for path, kind in found.items() if kind == "dead"] == ["tools/json.py"]


def test_names_mean_files_as_python_finds_them() -> None:
    modules = Modules(["src/p/__init__.py", "src/p/m.py", "scripts/m.py", "scripts/run.py", "space/deep/m.py"])
    assert set(modules.imported("p.m", "src/p/__init__.py")) == {"src/p/__init__.py", "src/p/m.py"}
    assert set(modules.imported("m", "scripts/run.py")) == {"scripts/m.py"}, "beside a script"
    assert set(modules.imported("space.deep.m", "scripts/run.py")) == {"space/deep/m.py"}, "a namespace"
    assert set(modules.imported("json.decoder", "scripts/run.py")) == set()
    assert set(modules.imported("....x", "scripts/run.py")) == set()
    assert set(modules.at("m.py")) == set(), "which of them?"
    assert set(modules.at("deep/m.py")) == {"space/deep/m.py"}


def test_facts() -> None:
    facts = facts_of(
        b'"""First line.\n\nMore."""\ntry:\n    import fast\nexcept ImportError:\n    fast = None\n'
        b"from a import b, c as d\nx: int = 1\nclass K: ...\n" + GUARD.encode()
    )
    assert facts == Facts(
        summary="First line.",
        imports={"fast": Need.CAUGHT, "a.b": Need.ALWAYS, "a.c": Need.ALWAYS},
        binds=frozenset({"*", "b", "d", "x", "K"}),
        is_script=True,
    )


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (b"def f(:\n", "invalid syntax"),
        (b"x = 1\x00", "null"),
        (b"# -*- coding: klingon -*-\n", "klingon"),
        (b"# coding: utf-8\nx = '\xff'", "utf-8"),
        (b"\xff\xfex\x00", ""),
        (b"(" * 100_000, ""),
        (b"-" * 200_000 + b"1", ""),
        (b"x = " + b"[" * 3_000 + b"]" * 3_000, ""),
        (b"a" + b".a" * 200_000, ""),
        (b"1" + b"+1" * 200_000, ""),
        (b"x = " + b"9" * 10_000, ""),
        (b"if x:\n" + b"".join(b" " * n + b"if x:\n" for n in range(1, 2_000)), ""),
        (b"f'{" * 500, ""),
    ],
)
def test_what_is_no_python_says_why_and_harms_nobody(source: bytes, error: str) -> None:
    facts = facts_of(source)
    assert error in facts.error
    assert facts.error or not facts.imports
    assert facts.error.isprintable()


def test_every_declared_encoding_is_read() -> None:
    assert facts_of("# coding: latin-1\n'''Stück'''\nimport a.b".encode("latin-1")).summary == "Stück"
    assert facts_of("\ufeff'''Stück'''\nimport a.b".encode()).imports.keys() == {"a.b"}
    assert facts_of(b"'''\\d'''").error == "", "a warning is none of our business"


paths = st.lists(st.sampled_from("ab"), min_size=1, max_size=3).map(lambda parts: "/".join(parts) + ".py")
lines = st.sampled_from(
    ["import a", "import a.b", "from . import a", "from .. import b", "from .a.b import *", "x = 'a.b'"]
)


@given(st.dictionaries(paths, st.lists(lines).map("\n".join), max_size=8))
def test_any_tree_has_an_inventory_of_each_file(files: dict[str, str]) -> None:
    found = inventory(files)
    assert set(found.items) == set(files)
    assert {path: item.kind for path, item in found.items.items() if item.kind is Kind.PRODUCTION} == {}
    assert inventory_page(found) == inventory_page(inventory(dict(sorted(files.items())))), "in any order"


def test_deep_paths_and_long_names_can_be_taken_in() -> None:
    deep = "t/" * 2_000
    imports = dict.fromkeys([*(f"m{n}.x" for n in range(20_000)), *(f"t.x{n}" for n in range(2_000))], Need.ALWAYS)
    files = {f"{deep}a.py": Facts(imports=imports), "b.py": Facts()}
    name = ".".join(["a"] * 200_000)
    texts = {"docs/x.md": name, "Makefile": f"-m {name}", "pyproject.toml": f"[project.scripts]\nx = '{name}'\n"}
    assert take_inventory(files, texts).items
    assert not facts_of(b"!\n" + b"from a import (\n" * 60_000).imports


@given(st.text("abc[]=.,:'\"\n (){}_9\\"), st.sampled_from(["pyproject.toml", "setup.cfg"]))
def test_any_settings_can_be_read(text: str, path: str) -> None:
    headed = {"pyproject.toml": "[project.scripts]\n", "setup.cfg": "[options]\nscripts =\n"}[path]
    for whole in (text, headed + text):
        includes(settings_of(path, whole).requires_python, (3, 11))
    facts_of(f"setup(scripts={text})".encode())


def test_numbers_of_any_length_can_be_read() -> None:
    digits = "9" * 5_000
    assert settings_of("pyproject.toml", f"x = {digits}").entries == ()
    assert includes(f">={digits}", (3, 11)) is None


def test_a_large_tree_can_be_taken_in() -> None:
    imports = dict.fromkeys((f"p.m{n}" for n in range(50)), Need.ALWAYS)
    facts = Facts(imports=imports, names=frozenset({"p.m1", "x/m2.py", "p."}))
    files = {"p/__init__.py": Facts(), **{f"p/m{n}.py": facts for n in range(3_000)}}
    text = "\n".join(f"p/m{n}.py and p.m{n}" for n in range(3_000))
    assert len(take_inventory(files, {"docs/all.md": text, "Makefile": text}).items) == 3_001


# ------------------------------------------------------------------------------------------ this project


@pytest.fixture(scope="module")
def ours() -> Inventory:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    return audit(ROOT, base="HEAD").inventory


def test_this_project_has_no_dead_file_and_what_it_serves_is_production(ours: Inventory) -> None:
    assert [item.path for item in ours.items.values() if item.kind is Kind.DEAD or item.error] == []
    served = [item for item in ours.items.values() if item.path.startswith("observer_actors/")]
    assert {item.kind for item in served} == {Kind.PRODUCTION}
    assert ours.items["observer_actors/cli.py"].why == "script observer-actors"


def test_the_page_of_the_inventory_is_fresh(ours: Inventory) -> None:
    page = (ROOT / "docs" / "PYTHON_INVENTORY.md").read_text(encoding="utf-8")
    assert page == inventory_page(ours), "`make docs` makes it anew"
    assert re.search(r"^\| `librarian\.py` \| The librarian: .* \|", page, re.MULTILINE)
