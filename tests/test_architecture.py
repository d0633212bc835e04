"""Layout of the repository: allowed imports, no side effects on import, and a README tree that matches the disk."""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

# Packages and those that each may import. Everything else (train.py, evaluate.py, measurements, pretraining, docs) is
# a program.
PACKAGES: dict[str, set[str]] = {
    "common_idc": set(),
    "modeling_blip2idc": set(),
    "metric_idc": set(),
    "captioner_idc": {"modeling_blip2idc", "common_idc"},
    "dataset_syned": {"common_idc"},
    "run_idc": {"common_idc"},
}
# The only image decoder; it needs torch, so it is imported inside functions.
DECODER = ("dataset_syned/pairs.py", "from modeling_blip2idc.image_fusion import load_image")
# `python -m dataset_syned` is a program, too: it gives the synthesis the parser that compares paraphrases.
JOINED = ("dataset_syned/__main__.py", "from metric_idc import stated_units")
PROGRAMS = ("train", "evaluate", "app", "train_photo_captioner")
# Heavy or replaceable libraries, and the only files that may import each.
ONE_PLACE = {
    "peft": ("captioner_idc/", "measurements/training_step.py"),  # the baseline of the measurement
    "accelerate": ("train.py", "evaluate.py", "captioner_idc/bulk.py"),
    "pycocoevalcap": ("metric_idc/", "measurements/scoring.py"),  # the baseline of the measurement
    "diffusers": "dataset_syned/synthesis/diffusion_editor.py",
    "gradio": ("app.py", "metric_idc/app.py"),
}
# Names of files in a run folder, and the files that may spell them: metric_idc is independent and has its own.
RUN_FILES = {
    "train_config.yaml": ("run_idc/paths.py",),
    "log.jsonl": ("run_idc/paths.py",),
    "captioner.json": ("run_idc/paths.py",),
    "progress.json": ("run_idc/paths.py",),
    "predictions.jsonl": ("run_idc/paths.py", "metric_idc/results.py"),
    "pairs.jsonl": ("run_idc/paths.py", "metric_idc/results.py"),
    "metrics.json": ("run_idc/paths.py", "metric_idc/results.py"),
    "chat_answers.jsonl": ("run_idc/paths.py", "metric_idc/results.py"),
    "report.html": ("run_idc/paths.py", "run_idc/report.py", "metric_idc/results.py"),  # the template too
}
# Files that may rename unfinished files: the common functions, metric_idc's own, and downloads with their archives.
RENAMES = ("common_idc/atomic_files.py", "metric_idc/results.py", "dataset_syned/fetching.py")
# A metric for the library `evaluate` subclasses its class, and the app of its Space loads the metric.
MAY_IMPORT_EVALUATE = ("metric_idc/metric_idc.py", "metric_idc/app.py")
BOILERPLATE = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)


def tracked(root: Path, *patterns: str) -> list[str]:
    """Return the project's files; without git (an unpacked archive), all files that git would not ignore."""
    if shutil.which("git") and (root / ".git").exists():
        command = ["git", "-C", root, "ls-files", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    else:
        ignored = {line.strip("/") for line in (root / ".gitignore").read_text().splitlines()}
        names = [path.relative_to(root).as_posix() for path in root.rglob("*")]
        names = [name for name in names if not any(fnmatch(p, i) for p in name.split("/") for i in ignored)]
    wanted = [name for name in names if not patterns or any(fnmatch(name, pattern) for pattern in patterns)]
    return [name for name in wanted if (root / name).is_file()]


def sources(root: Path) -> list[str]:
    return [name for name in tracked(root, "*.py") if not name.startswith("tests/")]


def imported(root: Path, name: str) -> Iterator[str]:
    """Return the top-level names of all absolute imports of a file, at any depth."""
    for node in ast.walk(ast.parse((root / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


def package_of(name: str) -> str | None:
    first = name.split("/")[0]
    return first if first in PACKAGES else None


def test_packages_import_only_allowed_packages(root: Path) -> None:
    ours = {*PACKAGES, *PROGRAMS}
    for name in sources(root):
        package = package_of(name)
        found = {other for other in imported(root, name) if other in ours}
        if package is None:  # programs do not import each other, and get models from captioner_idc
            assert not found & set(PROGRAMS), name
            allowed = (
                {*PACKAGES}
                if name.startswith(("measurements/", "pretraining/", "docs/"))
                else {*PACKAGES} - {"modeling_blip2idc"}
            )
            assert found <= allowed, name
            continue
        library = {"evaluate"} if name in MAY_IMPORT_EVALUATE else set()
        decoder = {"modeling_blip2idc"} if name == DECODER[0] else set()
        joined = {"metric_idc"} if name == JOINED[0] else set()
        assert found <= {package} | PACKAGES[package] | library | decoder | joined, name
    for (name, line), package in ((DECODER, "modeling_blip2idc"), (JOINED, "metric_idc")):
        lines = [text.strip() for text in (root / name).read_text().splitlines() if package in text]
        assert len(lines) == 1 and lines[0].startswith(line)


def module_imports(root: Path, name: str) -> set[str]:
    """Return the files of the same package that a file imports at its top level."""
    package = name.split("/")[0]
    found: set[str] = set()
    for node in ast.parse((root / name).read_text(encoding="utf-8")).body:
        nodes = node.body if isinstance(node, ast.Try) else [node]
        for statement in nodes:
            if not isinstance(statement, ast.ImportFrom):
                continue
            base = name.split("/")[: -statement.level] if statement.level else []
            module = [*base, *(statement.module or "").split(".")] if statement.level else statement.module.split(".")
            if module[0] != package:
                continue
            module = [part for part in module if part]
            for candidate in (module, *([*module, alias.name] for alias in statement.names)):
                file = "/".join(candidate) + ".py"
                if (root / file).is_file():
                    found.add(file)
    return found


def test_no_imports_are_circular(root: Path) -> None:
    graph = {name: module_imports(root, name) for name in sources(root) if package_of(name)}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for other in graph.get(name, ()):
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def literals(root: Path, name: str) -> set[str]:
    """Return all strings of a file that are not docstrings."""
    tree = ast.parse((root / name).read_text(encoding="utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    }


@pytest.mark.parametrize("file", RUN_FILES)
def test_names_of_run_files_are_spelled_only_where_they_are_defined(root: Path, file: str) -> None:
    checked = ("run_idc/", "captioner_idc/", "metric_idc/", "common_idc/", "train.py", "evaluate.py")
    spelled = {name for name in sources(root) if name.startswith(checked) and file in literals(root, name)}
    assert spelled <= set(RUN_FILES[file])


def test_names_of_families_are_spelled_only_in_their_table(root: Path) -> None:
    from captioner_idc.families import FAMILIES

    names = {model_type for family in FAMILIES.values() for model_type in family.model_types} | set(FAMILIES)
    remote = ("modeling_blip2idc/", "pretraining/", "measurements/")  # of one family
    own = {"blip2": "dataset_syned/", "blip2idc": ""}  # the package and its programs have this name
    for name in sources(root):
        if name == "captioner_idc/families.py" or name.startswith(remote):
            continue
        spelled = names & literals(root, name)
        assert all(own.get(found) is not None and name.startswith(own[found]) for found in spelled), (name, spelled)


def test_the_names_that_the_metric_writes_are_those_of_the_run_folder() -> None:
    from metric_idc import results
    from run_idc import paths

    for name in ("PREDICTIONS", "PAIRS", "METRICS", "REPORT", "CHAT_ANSWERS"):
        assert getattr(results, name) == getattr(paths, name)
    assert results.control_predictions("x") == paths.control_predictions("x")


def test_only_the_common_functions_rename_unfinished_files(root: Path) -> None:
    for name in sources(root):
        text = (root / name).read_text(encoding="utf-8")
        if not name.startswith(("measurements/", "pretraining/")):
            assert "os.replace(" not in text or name in RENAMES, name
            assert "mkdtemp(" not in text or name in RENAMES, name


def test_no_test_has_a_time_limit(root: Path) -> None:
    """A busy machine must not fail a test, so launched programs have no timeout."""
    for name in tracked(root, "tests/test_*.py"):
        tree = ast.parse((root / name).read_text(encoding="utf-8"))
        limits = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "timeout"]
        assert not limits, f"{name}, lines {limits}"


@pytest.mark.parametrize("library", ONE_PLACE)
def test_each_heavy_library_is_imported_in_one_place(root: Path, library: str) -> None:
    for name in sources(root):
        if library in imported(root, name):
            assert name.startswith(ONE_PLACE[library]), name


def test_only_the_metric_for_it_imports_the_evaluate_library(root: Path) -> None:
    for name in sources(root):
        assert name in MAY_IMPORT_EVALUATE or "evaluate" not in set(imported(root, name)), name


def test_the_model_folder_is_flat_with_sibling_imports(root: Path) -> None:
    assert not [name for name in tracked(root, "modeling_blip2idc/**") if name.count("/") > 1]
    for name in tracked(root, "modeling_blip2idc/*.py"):
        for node in ast.walk(ast.parse((root / name).read_text(encoding="utf-8"))):
            assert not isinstance(node, ast.ImportFrom) or node.level < 2 and (node.level == 0 or node.module), name


def test_no_file_is_named_like_its_folder_or_utils(root: Path) -> None:
    for name in sources(root):
        path = Path(name)
        assert path.stem not in ("utils", "helpers", "misc", "common"), name
        # transformers and evaluate look for such a file; load_dataset trips over one in dataset_syned
        allowed = name.startswith(("modeling_blip2idc/", "metric_idc/"))
        assert allowed or path.stem != path.parent.name, name


def test_every_file_has_a_docstring(root: Path) -> None:
    for name in tracked(root, "*.py"):
        assert ast.get_docstring(ast.parse((root / name).read_text(encoding="utf-8"))), name


def test_no_statement_has_side_effects_on_import(root: Path) -> None:
    """Model registration, the guard in evaluate.py and `if __name__ == "__main__"` are the exceptions."""
    for name in sources(root):
        if name in ("setup.py", "dataset_syned/__main__.py"):  # the latter reports a missing package in one line
            continue
        for node in ast.parse((root / name).read_text(encoding="utf-8")).body:
            text = ast.unparse(node)
            allowed = (
                isinstance(node, BOILERPLATE)
                or isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                or isinstance(node, ast.If)
                and text.startswith("if __name__ ")
                or re.fullmatch(r"(Auto\w+\.register|PIPELINE_REGISTRY\.register_pipeline)\(.*\)", text)
            )
            assert allowed, f"{name}: {text}"


IMPORTS = """
import os, random, sys
# side effects of libraries are not checked
import accelerate, datasets, huggingface_hub, jinja2, peft, tokenizers, torch, transformers, yaml
import matplotlib.figure, torch.utils.tensorboard
try:
    import gradio
except ImportError:
    pass
seen = []
def audit(event, arguments):
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if writes and "__pycache__" not in str(arguments[0]):
        seen.append((event, arguments))
    elif event in ("socket.connect", "subprocess.Popen", "os.mkdir", "os.putenv"):
        seen.append((event, arguments))
before = random.getstate(), torch.get_rng_state().tolist(), torch.get_default_dtype()
sys.argv = ["nothing", "--may", "read", "this"]
sys.addaudithook(audit)
import captioner_idc.command, run_idc.publishing, dataset_syned.benchmarks.toy, metric_idc, train
import importlib.util
for number, path in enumerate(sys.stdin.read().split()):
    sys.path.insert(0, os.path.dirname(path))
    spec = importlib.util.spec_from_file_location(f"program_{number}", path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
assert not seen, seen
assert before == (random.getstate(), torch.get_rng_state().tolist(), torch.get_default_dtype())
assert not torch.cuda.is_initialized()
"""


def test_import_prints_writes_connects_and_seeds_nothing(root: Path) -> None:
    programs = [root / "pretraining" / "train_photo_captioner.py"]
    if importlib.util.find_spec("gradio"):
        programs.append(root / "app.py")
    done = subprocess.run(
        [sys.executable, "-B", "-W", "ignore", "-c", IMPORTS],
        input="\n".join(map(str, programs)),
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


# sitecustomize.py of a process: it imports the library at exit, when the program's folder comes first in sys.path.
IMPORT_AT_EXIT = """
import atexit
import concurrent.futures.thread  # cannot be imported for the first time that late
def import_evaluate():
    import evaluate
    print("library:", callable(getattr(evaluate, "load", None)), callable(getattr(evaluate, "combine", None)))
atexit.register(import_evaluate)
"""
COMMANDS = {
    "python train.py": [sys.executable, "train.py", "--help"],
    "python evaluate.py": [sys.executable, "evaluate.py", "--help"],
    "accelerate launch": [
        *(
            sys.executable,
            "-m",
            "accelerate.commands.launch",
            "--num_processes",
            "1",
            "--cpu",
            "--mixed_precision",
            "no",
        ),
        *("--num_machines", "1", "--dynamo_backend", "no", "train.py", "--help"),
    ],
    "python -m pytest": [sys.executable, "-m", "pytest", "--version"],
    "pytest": [str(Path(sys.executable).with_name("pytest")), "--version"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_evaluate_library_is_still_found(root: Path, tmp_path: Path, command: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(IMPORT_AT_EXIT)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(COMMANDS[command], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed = re.findall(r"library: .*", done.stdout)
    assert printed and set(printed) == {"library: True True"}, done.stdout + done.stderr


def readme_tree(root: Path) -> list[str]:
    """Return the paths of the README's tree by its indentation; a line may list several, separated by one space."""
    block = re.search(r"## The tree\n.*?```\n(.*?)```", (root / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    paths, folders = [], {}
    for line in block.group(1).splitlines():
        indent, names = re.match(r"( *)(\S+(?: \S+)*)", line).groups()
        depth = len(indent) // 2
        for name in names.split(" "):
            if name.endswith("/"):
                folders[depth] = name.rstrip("/")
            paths.append("/".join([*(folders[d] for d in range(depth)), name.rstrip("/")]))
    return paths


def test_the_tree_of_the_readme_is_the_tree_on_disk(root: Path) -> None:
    tree = readme_tree(root)
    assert len(tree) == len(set(tree))
    files = tracked(root)
    folders = {"/".join(name.split("/")[:depth]) for name in files for depth in range(1, name.count("/") + 1)}
    assert set(tree) <= {*files, *folders}, "the README lists files that do not exist"
    # Other files may be covered by their folder, but the top level and the sources of packages must all be listed.
    shipped = "captioner_idc/tiny_captioner/"
    required = {
        name for name in files if "/" not in name or name.split("/")[0] in PACKAGES and not name.startswith(shipped)
    } | {n for n in folders if "/" not in n}
    hidden = {name for name in required if name.startswith(".") or name.endswith("__init__.py")}
    assert required - hidden <= set(tree), "the README omits files that exist"


def test_repository_contains_no_large_files_and_no_leftovers(root: Path) -> None:
    for name in tracked(root):
        size = (root / name).stat().st_size
        assert size <= 2**20 or name.startswith("captioner_idc/tiny_captioner/") and size < 12e6, name
        assert not re.search(r"\.(pyc|bak|orig|old|jar)$", name), name


def test_requirements_stay_lean(root: Path) -> None:
    text = (root / "setup.py").read_text(encoding="utf-8")
    core = re.search(r"install_requires=\[(.*?)\]", text, re.DOTALL).group(1)
    names = sorted(re.findall(r'"([a-z0-9-]+)', core))
    assert names == ["filelock", "huggingface-hub", "numpy", "pillow", "safetensors", "torch", "transformers"]
    for extra in ("data", "chat", "train", "metrics", "judge", "synthesis", "demo", "dev", "all"):
        assert f'"{extra}":' in text
    assert not re.search(r"py_modules\s*=", text)


def test_shell_of_ci_is_valid(root: Path) -> None:
    assert shutil.which("bash")
    subprocess.run(["bash", "-n", root / ".ci" / "run"], check=True)
