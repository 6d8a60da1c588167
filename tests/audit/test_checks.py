"""A planted fault each, in a real repository: what the auditor says of it, and what it makes of the whole."""

from __future__ import annotations

import codecs
import hashlib
import shutil
import sys
from pathlib import Path

import pytest

from observer_actors.audit import AuditFailed, audit, inventory_of, inventory_page, judge
from observer_actors.audit import tree as tree_module
from observer_actors.audit.checks import overall_of
from observer_actors.kb import AuditRow, FindingCounts
from observer_actors.kb.history import history_of
from observer_actors.kb.rows import Finding
from tests.audit.repository import Repository

KEY = "AKIA" + "Q3EGRIWXF5ZCT7LM"
TESTED = {"tests/test_orders.py": "from shop import orders\n\n\ndef test_more():\n    orders.place()\n"}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "shop")
    made.branch()
    return made


def said(repository: Repository, **options: str) -> list[tuple[str, str, str]]:
    """Give what is worth a warning, and more than that."""
    findings = audit(repository.root, environment={}, **options).findings
    return [(one.severity, one.title, one.file) for one in findings if one.severity != "info"]


def test_a_change_without_a_fault_is_approved(repository: Repository) -> None:
    assert said(repository) == []
    repository.commit({"shop/orders.py": '"""Orders."""\n\n\ndef place():\n    return 1\n'} | TESTED)
    audited = audit(repository.root, environment={})
    assert (audited.findings, audited.changed, audited.uncommitted) == ([], 2, False)
    assert judge(audited, history_of([], "x", newest=5, complete=True)).verdict.overall == "approve"


def test_a_new_file_that_nothing_imports(repository: Repository) -> None:
    new = {"shop/forgotten.py": "x = 1\n", "shop/used.py": "", "shop/orders.py": "from shop import used\n"}
    repository.commit(new | TESTED)
    assert said(repository) == [("warn", "a new file that nothing imports", "shop/forgotten.py")]


def test_a_new_file_that_a_unit_starts(tmp_path: Path) -> None:
    repository = Repository(tmp_path, {"README": "x"})
    repository.branch()
    unit = "[Service]\nExecStart=/opt/venv/bin/gunicorn \\\n    -w 2 sub.new:app\n"
    repository.commit({"sub/new.py": "app = 1\n", "deploy/web.service": unit, "sub/other.py": ""})
    assert said(repository) == [("warn", "a new file that nothing imports", "sub/other.py")]


def test_a_deleted_file_that_is_imported_by_its_name(repository: Repository) -> None:
    load = "import importlib\n\nimportlib.import_module('.orders', __package__)\n"
    caught = "try:\n    importlib.import_module('shop.orders')\nexcept ImportError:\n    pass\n"
    repository.commit({"shop/cli.py": load, "tests/test_orders.py": caught}, without=("shop/orders.py",))
    assert said(repository) == [("block", "shop/cli.py still imports it", "shop/orders.py")]


def test_what_was_loaded_from_a_folder_is_not_all_that_lies_at_the_root(tmp_path: Path) -> None:
    load = "import_module(f'.{name}', __package__)\n"
    repository = Repository(tmp_path, {"a/load.py": load, "a/x.py": "", "b/x.py": "", "root.py": ""})
    repository.branch()
    repository.commit({"a/load.py": ""})
    assert said(repository) == [("warn", "nothing imports it any more: a/load.py did", "a/x.py")]


def test_a_file_that_the_change_leaves_without_an_importer(repository: Repository) -> None:
    repository.commit(
        {"shop/cli.py": '"""The command line."""\n\n\ndef main():\n    pass\n', "tests/test_orders.py": ""}
    )
    titles = [title for _, title, file in said(repository) if file == "shop/orders.py"]
    assert titles == [f"nothing imports it any more: {by} did" for by in ("shop/cli.py", "tests/test_orders.py")]


@pytest.mark.parametrize("replaced", [{}, {"shop/orders/__init__.py": "def place(): ...\n"}])
def test_a_deleted_file_that_is_still_imported(repository: Repository, replaced: dict[str, str]) -> None:
    repository.commit(without=("shop/orders.py",))
    repository.commit(replaced | TESTED)
    expected = [("block", f"{by} still imports it", "shop/orders.py") for by in ("shop/cli.py", "tests/test_orders.py")]
    assert said(repository) == ([] if replaced else expected)


@pytest.mark.parametrize(
    "text",
    [
        "try:\n    from shop import orders\nexcept ImportError:\n    orders = None\n",
        "import os\n",
    ],
)
def test_a_deleted_file_that_nobody_needs(repository: Repository, text: str) -> None:
    repository.commit({"shop/cli.py": text, "tests/test_orders.py": text}, without=("shop/orders.py",))
    assert said(repository) == []


@pytest.mark.parametrize(
    ("text", "severity"),
    [
        # A missing module is caught.
        ("import contextlib\nwith contextlib.suppress(ValueError, ImportError):\n    from shop import orders\n", ""),
        ("with pytest.raises(ModuleNotFoundError):\n    from shop import orders\n", ""),
        ("try:\n    from shop import orders\nexcept builtins.ImportError:\n    pass\n", ""),
        ("try:\n    from shop import orders\nexcept* (ValueError, ImportError):\n    pass\n", ""),
        # It may not be wanted at all.
        ("if importlib.util.find_spec('shop.orders'):\n    from shop import orders\n", "warn"),
        ("if TYPE_CHECKING:\n    from shop import orders\nelse:\n    orders = None\n", "warn"),
        ("try:\n    import tomllib\nexcept ImportError:\n    from shop import orders\n", "warn"),
        ("x = import_module('shop.orders') if find_spec('shop.orders') else None\n", "warn"),
        ("try:\n    import fast\nexcept ImportError:\n    pass\nelse:\n    from shop import orders\n", "warn"),
        ("match sys.platform:\n    case 'win32':\n        from shop import orders\n", "warn"),
        ("match x:\n    case 1 if import_module('shop.orders'):\n        pass\n", "warn"),
        ("x = HAS_ORDERS and __import__('shop.orders')\n", "warn"),
        ("for name in wanted:\n    from shop import orders\n", "warn"),
        ("while is_wanted():\n    from shop import orders\n", "warn"),
        ("async def f():\n    async for x in y:\n        break\n    else:\n        from shop import orders\n", "warn"),
        # Something else stands for it.
        ("sys.modules['shop.orders'] = x\nfrom shop.orders import place\n", "warn"),
        ("monkeypatch.setitem(sys.modules, 'shop.orders', x)\nimport shop.orders\n", "warn"),
        ("with patch.dict('sys.modules', {'shop.orders': x}):\n    import shop.orders\n", "warn"),
        # It is wanted, here or elsewhere in the same file.
        ("with suppress(ValueError):\n    from shop import orders\n", "block"),
        ("x = __import__('shop.orders') or None\n", "block"),
        ("match import_module('shop.orders'):\n    case _:\n        pass\n", "block"),
        ("for x in import_module('shop.orders').all():\n    pass\n", "block"),
        ("try:\n    pass\nexcept OSError:\n    pass\nelse:\n    from shop import orders\n", "block"),
        ("try:\n    from shop import orders\nexcept shop.Error:\n    pass\n", "block"),
        ("try:\n    from shop import orders\nexcept ImportError:\n    pass\nfrom shop import orders\n", "block"),
        ("if TYPE_CHECKING:\n    from shop import orders\n\n\ndef main():\n    from shop import orders\n", "block"),
        ("if __name__ == '__main__':\n    from shop import orders\n", "block"),
        ("sys.modules['shop.others'] = x\nfrom shop import orders\n", "block"),
        ("sys.modules[f'{__name__}.orders'] = x\nfrom shop import orders\n", "block"),
    ],
)
def test_a_deleted_file_that_nobody_may_need(repository: Repository, text: str, severity: str) -> None:
    repository.commit({"shop/cli.py": text, "tests/test_orders.py": ""}, without=("shop/orders.py",))
    title = f"shop/cli.py {'still imports' if severity == 'block' else 'may still import'} it"
    assert said(repository) == ([(severity, title, "shop/orders.py")] if severity else [])


@pytest.mark.parametrize("name", ["'shop.orders'", "f'{__name__}.orders'", "__name__ + '.orders'"])
def test_what_one_file_puts_in_the_place_of_another_may_be_imported_by_a_third(
    repository: Repository, name: str
) -> None:
    package = f"import sys\nfrom shop import sales\n\nsys.modules[{name}] = sales\n"
    new = {"shop/__init__.py": package, "shop/sales.py": "", "shop/cli.py": "from shop.orders import place\n"}
    repository.commit(new | {"tests/test_orders.py": ""}, without=("shop/orders.py",))
    assert said(repository) == [("warn", "shop/cli.py may still import it", "shop/orders.py")]


def test_a_deleted_file_whose_name_its_package_defines(repository: Repository) -> None:
    repository.commit({"shop/__init__.py": "class orders:\n    place = print\n"} | TESTED, without=("shop/orders.py",))
    assert said(repository) == []


@pytest.mark.parametrize("text", ["from shop.orders import place\n", "import shop.orders.x\n"])
def test_no_package_defines_a_module_that_is_imported_from(repository: Repository, text: str) -> None:
    package = "if True:\n    orders = 1\n\n\ndef __getattr__(name): ...\n"
    repository.commit({"shop/__init__.py": package, "shop/cli.py": text} | TESTED, without=("shop/orders.py",))
    assert said(repository) == [("block", "shop/cli.py still imports it", "shop/orders.py")]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        # The standard library's, and what only looks like it.
        ({"tools/json.py": "", "shop/a.py": "import json\nfrom json.decoder import x\n"}, {}, []),
        ({"scripts/logging.py": "", "scripts/run.py": "import logging\n"}, {}, []),
        ({"logging.py": "", "run.py": "import logging.handlers\n"}, {}, []),
        ({"shop/json.py": "", "shop/a.py": "import json\n"}, {}, []),
        ({"shop/json.py": "", "shop/a.py": "from . import json\n"}, {}, [("block", "shop/a.py still imports it")]),
        ({"shop/json.py": "", "shop/a.py": "import shop.json\n"}, {}, [("block", "shop/a.py still imports it")]),
        ({"code/a.py": "", "code/__init__.py": "", "b.py": "from code import a\n"}, {},
         [("warn", "b.py may still import it")]),
        # A bare name, from where it is found and from elsewhere.
        ({"scripts/helper.py": "", "scripts/run.py": "import helper\n"}, {},
         [("block", "scripts/run.py still imports it")]),
        ({"scripts/helper.py": "", "other/run.py": "import helper\n"}, {},
         [("warn", "other/run.py may still import it")]),
        ({"src/p/a.py": "", "src/p/__init__.py": "", "c/t.py": "from p.a import x, y\n"}, {},
         [("block", "c/t.py still imports it")]),
        ({"b/p/a.py": "", "b/p/__init__.py": "", "b/p/c.py": "from p import a\n"}, {},
         [("block", "b/p/c.py still imports it")]),
        # What the change says that takes its place.
        ({"yaml.py": "", "run.py": "import yaml\n"}, {"requirements/dev.txt": "PyYAML>=6\n"},
         [("warn", "run.py may still import it")]),
        ({"a.py": "", "run.py": "import a\n"}, {"requirements.txt": "extra\n"}, [("block", "run.py still imports it")]),
        ({"p/_version.py": "", "p/__init__.py": "", "p/c.py": "from p import _version\n"},
         {".gitignore": "_version.py"}, [("warn", "p/c.py may still import it")]),
        # Namespace packages.
        ({"b.py": "", "a.py": "import b.c\nfrom b.c import x\nimport b\n"}, {"b/c.py": ""}, []),
        ({"x/b.py": "", "x/a.py": "import b.c\n"}, {"x/b/c.py": ""}, []),
        ({"p/b.py": "", "p/__init__.py": "", "p/a.py": "from .b.c import x\n"}, {"p/b/c.py": ""}, []),
        ({"b.py": "", "a.py": "from b import place\n"}, {"b/c.py": ""}, [("block", "a.py still imports it")]),
        ({"p/__init__.py": "", "p/b.py": "", "a.py": "from p import b\nimport p\n"}, {}, []),
        ({"p/__init__.py": "", "p/b.py": "", "a.py": "from p import name\n"}, {}, [("block", "a.py still imports it")]),
        # Another language.
        ({"p/b.py": "", "p/__init__.py": "", "a.py": "import p.b\n"}, {"p/b.pyx": ""}, []),
        ({"p/b.py": "", "p/__init__.py": "", "a.py": "import p.b\n"}, {"p/b.cpython-311-x86_64-linux-gnu.so": ""}, []),
        ({"p/b.py": "", "p/__init__.py": "", "p/b.c": "", "a.py": "import p.b\n"}, {}, []),
        ({"p/b.py": "", "p/__init__.py": "", "a.py": "import p.b\n"}, {"p/b.pyi": ""},
         [("warn", "a.py may still import it")]),
    ],
)  # fmt: skip
def test_only_what_is_certain_blocks_a_deletion(
    tmp_path: Path, before: dict[str, str], after: dict[str, str], expected: list[tuple[str, str]]
) -> None:
    """The first file is the one that is deleted."""
    repository = Repository(tmp_path, before | {"README": "x"})
    repository.branch()
    repository.commit(without=(next(iter(before)),))
    repository.commit(after)
    found = [(severity, title) for severity, title, _ in said(repository) if "still import" in title]
    assert found == expected


def test_a_new_file_that_an_older_one_imports_is_not_called_unimported(tmp_path: Path) -> None:
    repository = Repository(tmp_path, {"a.py": "", "x/a.py": ""})
    repository.branch()
    repository.commit({"a.py": "import b.c\n", "b/c.py": "", "x/a.py": "import b.d\n", "x/b/d.py": "", "x/e.py": ""})
    assert said(repository) == [("warn", "a new file that nothing imports", "x/e.py")]


def test_production_without_a_test(repository: Repository) -> None:
    repository.commit({"shop/orders.py": "def place():\n    return 2\n"})
    assert said(repository) == [("warn", "production code was changed, and no test: shop/orders.py", "")]


def test_a_project_without_tests_is_not_asked_for_them(tmp_path: Path) -> None:
    repository = Repository(tmp_path, {"m/__main__.py": "x = 1\n"})
    repository.branch()
    repository.commit({"m/__main__.py": "x = 2\n"})
    assert said(repository) == []


def test_what_is_no_python_any_more(repository: Repository) -> None:
    repository.commit({"shop/orders.py": "def place(:\n"} | TESTED)
    (finding,) = [one for one in audit(repository.root, environment={}).findings if one.severity == "block"]
    assert finding == Finding("block", "no Python: invalid syntax", "shop/orders.py", 1)


NOW = f"{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.mark.parametrize(
    ("before", "path", "severity"),
    [
        ({"setup.py": f"setup(python_requires='>={NOW}')"}, "a.py", "block"),
        ({"setup.cfg": "[options]\npython_requires = >=3\n"}, "bin/tool", "block"),
        ({"pyproject.toml": "[project]\nname = 'x'\n"}, "a.py", "warn"),
        ({"pyproject.toml": "[project]\nrequires-python = '>=3.99'\n"}, "a.py", "warn"),
        ({"pyproject.toml": "[project]\nrequires-python = '<3'\n"}, "a.py", "warn"),
        ({"a/setup.py": "setup(python_requires='>=3')", "pyproject.toml": "[project]\nrequires-python = '<3'\n"},
         "a/b/c.py", "block"),
        ({"setup.py": "setup(python_requires='>=3')"}, "a_py399.py", "warn"),
        ({"setup.py": "setup(python_requires='>=3')", "a.py": "kind X = int\n"}, "a.py", "warn"),
        ({"setup.py": "setup(python_requires='>=3')", "a.py": "X = int\n"}, "a.py", "block"),
        ({"setup.py": "setup(python_requires='>=3')"}, "tests/data/a.py", ""),
        ({"setup.py": "setup(python_requires='>=3')"}, "test_data/a.py", ""),
        ({"setup.py": "setup(python_requires='>=3')"}, "{{cookiecutter.name}}/a.py", ""),
        ({"setup.py": "setup(python_requires='>=3')"}, "tests/test_a.py", "block"),
    ],
)  # fmt: skip
def test_syntax_may_be_newer_than_the_auditor(tmp_path: Path, before: dict[str, str], path: str, severity: str) -> None:
    repository = Repository(tmp_path, before)
    repository.branch()
    repository.commit({path: "#!/usr/bin/env python3\ntype X = = int\n"})
    titles = {
        "block": "no Python: invalid syntax",
        "warn": f"not parsed by Python {NOW}, with which the auditor runs: invalid syntax",
    }
    assert said(repository) == ([(severity, titles[severity], path)] if severity else [])


def test_what_a_file_in_newer_syntax_imports_is_not_dead(repository: Repository) -> None:
    new = {"shop/orders.py": "from . import (\n    a,\n    b,\n)\nimport shop.c as x, os\nkind X = int\n"}
    repository.commit(new | {f"shop/{name}.py": "" for name in "abcd"} | TESTED)
    assert [file for _, title, file in said(repository) if "nothing imports" in title] == ["shop/d.py"]
    repository.git("branch", "--force", "main")
    repository.commit(without=("shop/a.py",))
    assert ("warn", "shop/orders.py may still import it", "shop/a.py") in said(repository)


def test_a_merge_conflict_and_imports_in_test_data(repository: Repository) -> None:
    conflict = "<<<<<<< HEAD\nb\n=======\nc\n>>>>>>> work\n"
    data = {"tests/fixtures/x.txt": conflict, "tests/fixtures/y.py": "from shop.orders import place\n"}
    others = {"shop/cli.py": "def main(): ...\n", "tests/test_orders.py": ""}
    repository.commit(data | others, without=("shop/orders.py",))
    assert said(repository) == [("warn", "tests/fixtures/y.py may still import it", "shop/orders.py")]


@pytest.mark.parametrize("with_git", [True, False])
def test_a_tree_that_has_not_changed_is_looked_at_itself(tmp_path: Path, *, with_git: bool) -> None:
    repository = Repository(tmp_path, {"old.py": "print 'x'\n", "tests/data/bad.py": "print 'x'\n"})
    if not with_git:
        shutil.rmtree(tmp_path / ".git")
    assert said(repository) == [("warn", f"not parsed by Python {NOW}: old.py", "")]
    page = inventory_page(audit(tmp_path, environment={}).inventory)
    assert f"\nPython {NOW} cannot read 2 of them: `old.py`, `tests/data/bad.py`.\n" in page


def test_what_was_no_python_before_is_only_told(tmp_path: Path) -> None:
    repository = Repository(tmp_path, {"old.py": "print 'x'\n", "docs/x.md": "old.py"})
    repository.branch()
    repository.commit({"README": "x"})
    findings = audit(tmp_path, environment={}).findings
    assert [(one.severity, one.title) for one in findings] == [
        ("info", f"not parsed by Python {NOW}, and not of this change: old.py")
    ]


def test_a_merge_conflict_in_any_text(repository: Repository) -> None:
    conflict = "a\n<<<<<<< HEAD\nb\n=======\nc\n>>>>>>> work\n"
    shown = "    <<<<<<< HEAD\n>>>>>>> work\n"
    repository.commit({"notes.md": conflict, "requirements.txt": conflict, "docs/x.rst": f"Title\n=======\n{shown}"})
    assert said(repository) == [
        ("block", "a merge conflict was left", "requirements.txt"),
        ("warn", "what looks like a merge conflict", "notes.md"),
    ]


def test_what_is_left_of_a_merge_conflict_is_no_certain_one(repository: Repository) -> None:
    half = "a: 1\n<<<<<<< HEAD\nb: 2\n>>>>>>> topic\n"
    begun = half.replace(">>>>>>> topic\n", "=======\n")
    repository.commit({"values.yaml": half, "docs/x.rst": half, "other.yaml": begun, "tests/data/x.yaml": half})
    assert said(repository) == [
        ("warn", "what looks like a merge conflict", "docs/x.rst"),
        ("warn", "what looks like a merge conflict", "values.yaml"),
    ]


def test_a_secret_in_a_list_of_requirements_is_in_no_document(repository: Repository) -> None:
    repository.commit({"requirements.txt": "--index-url https://me:" + "s3cret-9@pypi.example.org/simple\n"})
    assert said(repository) == [("block", "a secret: url_password", "requirements.txt")]


def test_secrets_in_added_lines_are_found_and_not_repeated(repository: Repository) -> None:
    repository.commit(
        {
            "deploy.env": f"REGION=eu\nKEY={KEY}\n",
            "shop/orders.py": 'password = "correct-horse-7"\ntoken = get_token()\npassword = os.environ["P"]\n',
            "tests/test_orders.py": f'KEY = "{KEY}"\npassword = "hunter2-x"\n',
            "docs/x.md": "http://me:" + "secret@127.0.0.1\n",
        }
    )
    audited = audit(repository.root, environment={})
    found = [(one.severity, one.title, one.file, one.line) for one in audited.findings if one.severity != "info"]
    assert found == [
        ("block", "a secret: api_key", "deploy.env", 2),
        ("warn", "a secret: url_password", "docs/x.md", 1),
        ("warn", "what may be a password or a token", "shop/orders.py", 1),
        ("warn", "a secret: api_key", "tests/test_orders.py", 1),
    ]
    outcome = judge(audited, history_of([], "x", newest=5, complete=True))
    assert KEY not in outcome.markdown + outcome.verdict.one_liner
    assert outcome.verdict.overall == "block"


PEM = "-----{} {}PRIVATE KEY-----"
LINES = [letter * 4 + "MIIEvAIBADANBgkqhkiG9w0BAQEFAASCBKYwggSiAgEAAoIBAQC5nX" for letter in "abc"]


def key_of(*lines: str, kind: str = "", joint: str = "\n") -> str:
    return joint.join([PEM.format("BEGIN", kind), *lines, PEM.format("END", kind)]) + joint


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (key_of(*LINES), 1),
        ("a\r\n\r\n" + key_of(*LINES, kind="OPENSSH ", joint="\r\n"), 3),
        ("stringData:\n  key: |\n" + key_of(*(f"    {line}" for line in LINES), kind="RSA "), 3),
        ('{\n  "kty": "OKP",\n  "crv": "Ed25519",\n  "d": "' + "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZ" + '"\n}\n', 1),
        ("cert = 1\n" + repr(key_of(*LINES)), 2),
    ],
)
def test_a_private_key_of_many_lines(repository: Repository, text: str, line: int) -> None:
    repository.commit({"shop/key.pem": text, "tests/key.pem": text})
    findings = [one for one in audit(repository.root, environment={}).findings if one.severity != "info"]
    title = "a secret: private_key"
    assert findings == [
        Finding("block", title, "shop/key.pem", line),
        Finding("warn", title, "tests/key.pem", line),
    ]


def test_a_private_key_in_place_of_another(tmp_path: Path) -> None:
    repository = Repository(tmp_path, {"key.pem": f"# web\n{key_of(*LINES[:2])}", "a.py": ""})
    repository.branch()
    repository.commit({"key.pem": f"# the web's\n{key_of(*LINES[:2])}"})
    assert said(repository) == []
    repository.commit({"key.pem": f"# web\n{key_of(*LINES[1:])}"})
    found = audit(repository.root, environment={}).findings[0]
    assert found == Finding("block", "a secret: private_key", "key.pem", 4)


def test_how_a_private_key_begins_and_ends_is_none(repository: Repository) -> None:
    begins, ends = key_of().splitlines()
    code = f'BEGINS = "{begins}"\nENDS = "{ends}"\n\n\ndef key(lines): ...\nEXAMPLE = "{begins}…{ends}"\n'
    repository.commit({"shop/orders.py": code} | TESTED)
    assert said(repository) == []


def test_a_line_that_is_full_of_secrets_ends_no_audit(repository: Repository) -> None:
    line = 'password="correct-horse-7" ' * 3_000
    repository.commit({"shop/x.js": f"{line}\n", "tests/x.js": f"{line}\n"})
    assert said(repository) == [("warn", "a line holds too much that looks like a secret", "shop/x.js")]


def test_code_that_only_talks_of_secrets_is_let_be(repository: Repository) -> None:
    lines = (
        "self._authorization = authorization",
        "headers = {'Authorization': f'Bearer {token}'}",
        "def login(password: str, token: str = ''): ...",
        "password = getpass('password: ')",
        "api_key=settings.api_key_file,",
        "token = hashlib.sha256(b'x').hexdigest()",
    )
    repository.commit({"shop/orders.py": "\n".join(lines)} | TESTED)
    assert [one for one in said(repository) if "no Python" not in one[1]] == []


@pytest.mark.parametrize(
    "line",
    [
        'url = f"postgresql://{user}:{quote(password)}@{host}/shop"',
        "template = '{scheme}://{}:{password}@{hostname}:{port}'",
        "url = 'amqp://%s:%s@%s' % (user, password, host)",
        "url = 'redis://:%(password)s@cache'",
        "DATABASE_URL=postgres://shop:${DB_PASSWORD}@db/shop",
        "CACHE=redis://:$REDIS_PASSWORD@cache",
        "clone: https://<user>:<token>@example.org",
        "Outputs `scheme://user:pass@host:port`.",
        "https://username:password@example.org, https://u:***@example.org",
    ],
)
def test_the_place_of_a_password_in_a_url_is_no_password(repository: Repository, line: str) -> None:
    repository.commit({"deploy.env": f"{line}\n", "tests/x.txt": f"{line}\n"})
    assert said(repository) == []
    repository.commit({"deploy.env": f"{line} https://me:{{x}}hunter2@example.org\n"})
    assert said(repository) == [("block", "a secret: url_password", "deploy.env")]
    repository.commit({"deploy.env": f"https://{KEY}:password@example.org\n"})
    assert [found[0] for found in said(repository)] == ["block"]


def test_what_was_there_before_is_not_of_the_change(tmp_path: Path) -> None:
    repository = Repository(tmp_path, {"deploy.env": f"KEY={KEY}\nA=1\n", "a.py": ""})
    repository.branch()
    repository.commit({"deploy.env": f"A=1\nKEY={KEY}\nB=2\n"})
    assert said(repository) == []


def lying_so(repository: Repository, attributes: str, **files: bytes) -> None:
    """Let git keep files in one way, and lay them out in another."""
    repository.write({".gitattributes": attributes})
    for name, data in files.items():
        (repository.root / name).write_bytes(data)
    repository.commit()
    repository.git("branch", "--force", "main")


def test_what_git_lays_out_in_another_way_is_not_of_the_change(repository: Repository) -> None:
    attributes = "* text=auto eol=crlf\nwide text working-tree-encoding=UTF-16\n"
    lying_so(repository, attributes, wide="é\r\nb\r\n".encode("utf-16"), crlf=b"a\r\nb\r\n", lf=b"a\nb\n")
    for path in ("shop/orders.py", "tests/test_orders.py"):
        (repository.root / path).unlink()
        repository.git("checkout", "-q", path)
    assert b"\r\n" in (repository.root / "shop/orders.py").read_bytes()
    assert repository.git("status", "--short") == ""
    audited = audit(repository.root, environment={})
    assert (audited.changed, audited.uncommitted, audited.findings) == (0, False, [])
    with (repository.root / "shop/orders.py").open("ab") as file:
        file.write(b"x = 1\r\n")
    assert said(repository) == [("warn", "production code was changed, and no test: shop/orders.py", "")]


@pytest.mark.parametrize("is_large", [True, False])
def test_what_git_keeps_elsewhere_is_of_the_change_where_it_differs(tmp_path: Path, *, is_large: bool) -> None:
    data = b"x" * (tree_module.FILE_BYTES_MAX + 1 if is_large else 1_000)
    digest = hashlib.sha256(data).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(data)}\n"
    repository = Repository(tmp_path, {"a.py": "", "tests/model": pointer})
    repository.branch()
    (tmp_path / "tests/model").write_bytes(data)
    assert audit(tmp_path, environment={}).changed == 0
    (tmp_path / "tests/model").write_bytes(data + b"x")
    assert audit(tmp_path, environment={}).changed == 1


def test_what_is_not_committed_is_of_the_change(repository: Repository) -> None:
    repository.write({".gitignore": "ignored.py\n", "ignored.py": "", "shop/new.py": "", "shop/orders.py": "x = 1\n"})
    audited = audit(repository.root, environment={})
    assert audited.uncommitted
    assert audited.signature.endswith("-dirty")
    assert "ignored.py" not in audited.inventory.items
    assert ("warn", "a new file that nothing imports", "shop/new.py") in said(repository)


def test_what_was_changed_and_not_looked_into_is_told(repository: Repository) -> None:
    large = b"x" * (tree_module.FILE_BYTES_MAX + 1)
    repository.write({"same.sql": large.decode(), "same.bin": "\0"})
    repository.commit()
    repository.git("branch", "--force", "main")
    (repository.root / "dump.sql").write_bytes(large)
    (repository.root / "logo.png").write_bytes(b"\x89PNG\0")
    (repository.root / "same.sql").write_bytes(large + b"x")
    findings = audit(repository.root, environment={}).findings
    assert findings == [Finding("info", "changed, and not looked into (too large, or no text): "
                                "dump.sql, logo.png, same.sql")]  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_a_text_in_two_bytes_a_letter_is_looked_into(repository: Repository, encoding: str) -> None:
    mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
    (repository.root / "deploy.env").write_bytes(mark + "REGION=é\r\n".encode(encoding))
    repository.commit()
    repository.git("branch", "--force", "main")
    (repository.root / "deploy.env").write_bytes(mark + f"REGION=é\r\nKEY={KEY}\r\n".encode(encoding))
    assert audit(repository.root, environment={}).findings == [Finding("block", "a secret: api_key", "deploy.env", 2)]


def test_the_change_is_what_the_branch_did_and_not_what_happened_on_main_meanwhile(repository: Repository) -> None:
    repository.git("switch", "-q", "main")
    repository.commit({"shop/of_main.py": ""})
    repository.git("switch", "-q", "work")
    repository.commit(TESTED)
    assert audit(repository.root, environment={}).changed == 1
    assert audit(repository.root, base="main", environment={}).changed == 1


def test_a_folder_of_a_repository_is_audited_by_itself(repository: Repository) -> None:
    repository.commit({"part/a.py": "", "part/b.py": "import a\n", "other/x.py": ""})
    audited = audit(repository.root / "part", base="main", environment={})
    assert (sorted(audited.inventory.items), audited.changed) == (["a.py", "b.py"], 2)


def test_the_folder_that_one_is_in_may_be_such_a_folder(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository.root / "shop")
    assert audit(Path(), environment={}).head


def test_where_there_is_no_git_there_is_an_inventory(tmp_path: Path) -> None:
    for path in ("a.py", ".hidden/b.py", "env/pyvenv.cfg", "env/lib/c.py", "node_modules/d.py", ".ci/e.py"):
        (tmp_path / path).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / path).write_text("")
    audited = audit(tmp_path, environment={})
    assert sorted(audited.inventory.items) == [".ci/e.py", "a.py"]
    assert (audited.base, audited.changed) == ("", 0)
    assert audited.signature == audit(tmp_path, environment={}).signature
    assert audited.signature.startswith(tmp_path.name.replace("[", "_").replace("]", "_")[:20])
    with pytest.raises(AuditFailed, match="no git repository"):
        audit(tmp_path, base="main", environment={})


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, "work"),
        ({"GITHUB_REF": "refs/pull/6/merge", "GITHUB_HEAD_REF": "x"}, "pr6"),
        ({"CI_MERGE_REQUEST_IID": "12"}, "pr12"),
        ({"CHANGE_ID": "3"}, "pr3"),
        ({"GITHUB_HEAD_REF": "feature/a b"}, "feature/a_b"),
    ],
)
def test_the_signature_says_what_was_audited(repository: Repository, environment: dict[str, str], name: str) -> None:
    commit = repository.commit(TESTED)
    assert audit(repository.root, environment=environment).signature == f"{name}-{commit[:8]}"
    assert audit(repository.root, signature="mine", environment=environment).signature == "mine"


@pytest.mark.parametrize("base", ["nowhere", "--output=x", "-h", "main:shop", "", "$(touch x)"])
def test_a_base_that_is_no_commit_is_an_error(repository: Repository, base: str) -> None:
    if not base:
        assert audit(repository.root, base=base, environment={}).base
        return
    with pytest.raises(AuditFailed, match="is no commit here"):
        audit(repository.root, base=base, environment={})
    assert sorted(path.name for path in repository.root.iterdir()) == [".git", "pyproject.toml", "shop", "tests"]


def test_histories_without_a_common_commit(repository: Repository) -> None:
    repository.git("switch", "-q", "--orphan", "other")
    repository.commit({"a.py": ""})
    assert audit(repository.root, environment={}).base == ""
    with pytest.raises(AuditFailed, match="nothing in common"):
        audit(repository.root, base="main", environment={})


@pytest.fixture
def shallow(repository: Repository, tmp_path: Path) -> Repository:
    """A clone of one commit, as CI makes it: of a branch that deletes what is still imported."""
    repository.commit(without=("shop/orders.py",))
    repository.git("switch", "-q", "main")
    made = Repository.__new__(Repository)
    made.root = tmp_path / "shallow"
    made.root.mkdir()
    made.git("clone", "-q", "--depth", "1", "-b", "work", f"file://{repository.root}", ".")
    return made


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (
            {"GITHUB_BASE_REF": "main", "GITHUB_REF": "refs/pull/6/merge"},
            "CI's base 'main' is no commit",
        ),
        ({"CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main"}, "CI's base 'main' is no commit"),
        ({"CHANGE_TARGET": "main"}, "CI's base 'main' is no commit"),
        ({}, "the main branch is no commit"),
    ],
)
@pytest.mark.parametrize("is_detached", [True, False])
def test_what_has_no_base_because_it_was_not_fetched_is_not_judged(
    shallow: Repository, environment: dict[str, str], said: str, *, is_detached: bool
) -> None:
    if is_detached:
        shallow.git("checkout", "-q", "--detach")
        shallow.git("branch", "-q", "-D", "work")
    with pytest.raises(AuditFailed, match=said) as caught:
        audit(shallow.root, environment=environment)
    assert "fetch-depth: 0" in caught.value.hint
    shallow.git("fetch", "-q", "--depth", "1", "origin", "main:refs/remotes/origin/main")
    with pytest.raises(AuditFailed, match="has nothing in common with HEAD"):
        audit(shallow.root, environment=environment)
    assert inventory_of(shallow.root).items, "it needs no base"
    assert audit(shallow.root, base="HEAD", environment=environment).changed == 0
    shallow.git("fetch", "-q", "--unshallow")
    findings = audit(shallow.root, environment=environment).findings
    assert ("block", "shop/orders.py") in {(one.severity, one.file) for one in findings}


def test_a_shallow_clone_of_the_main_branch_is_looked_at_itself(repository: Repository, tmp_path: Path) -> None:
    repository.git("switch", "-q", "main")
    repository.git("clone", "-q", "--depth", "1", f"file://{repository.root}", str(tmp_path / "clone"))
    assert audit(tmp_path / "clone", environment={}).changed == 0


def test_a_base_that_ci_names_is_not_exchanged_for_another(repository: Repository) -> None:
    with pytest.raises(AuditFailed, match="'release/2' is no commit"):
        audit(repository.root, environment={"GITHUB_BASE_REF": "release/2"})
    repository.git("branch", "release/2")
    assert audit(repository.root, environment={"GITHUB_BASE_REF": "release/2"}).base


def test_a_repository_without_a_commit(tmp_path: Path) -> None:
    made = Repository.__new__(Repository)
    made.root = tmp_path
    made.git("init", "-q")
    made.write({"a.py": ""})
    assert sorted(audit(tmp_path, environment={}).inventory.items) == ["a.py"]


def test_what_earlier_audits_said_is_named(repository: Repository) -> None:
    audited = audit(repository.root, signature="pr6-7fe47bab", environment={})
    rows = [
        AuditRow(kind="audit", signature="pr6-7fe47bab", overall="block", one_liner="a key in deploy.env", id=str(n),
                 findings=FindingCounts(0, 0, 1))
        for n in range(2)
    ]  # fmt: skip
    outcome = judge(audited, history_of(rows, audited.signature, newest=5, complete=True))
    expected = "pr6-7fe47bab was refused twice in 2 earlier audits; last for: a key in deploy.env"
    assert outcome.verdict.findings == (Finding("info", expected),)
    assert expected in outcome.markdown
    assert outcome.verdict.one_liner == "nothing against 0 changed files"
    assert outcome.verdict.overall == "approve", "history alone condemns nobody"


@pytest.mark.parametrize(
    ("severities", "overall"),
    [("", "approve"), ("i", "approve"), ("iw", "request_changes"), ("wb", "block"), ("b", "block")],
)
def test_the_gravest_finding_decides(severities: str, overall: str) -> None:
    names = {"i": "info", "w": "warn", "b": "block"}
    assert overall_of([Finding(names[letter], "t") for letter in severities]) == overall  # type: ignore[arg-type]
