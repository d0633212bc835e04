"""The layout holds: who imports whom, nothing happens on import, the README's tree is the tree on disk."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

# Who may import whom. Everything else (train.py, evaluate.py, measurements, pretraining, docs) is a program.
PACKAGES: dict[str, set[str]] = {
    "common_idc": set(),
    "modeling_blip2idc": set(),
    "metric_idc": set(),
    "captioner_idc": {"modeling_blip2idc", "common_idc"},
    "dataset_syned": {"common_idc"},
    "run_idc": {"common_idc"},
}
# The one decoder of images, imported inside functions: it needs torch.
DECODER = ("dataset_syned/pairs.py", "from modeling_blip2idc.image_fusion import load_image")
PROGRAMS = ("train", "evaluate", "train_tiny_captioner")
# Heavy or replaceable libraries, and the places that know each.
ONE_PLACE = {
    "peft": "captioner_idc/",
    "accelerate": ("train.py", "evaluate.py"),
    "pycocoevalcap": ("metric_idc/", "measurements/scoring.py"),  # the baseline of the measurement
    "diffusers": "dataset_syned/synthesis/diffusion_editor.py",
    "gradio": "metric_idc/app.py",
}
# Names of files in a run folder, and who may spell them: metric_idc stands alone and writes three of them.
RUN_FILES = {
    "train_config.yaml": ("run_idc/paths.py",),
    "log.jsonl": ("run_idc/paths.py",),
    "captioner.json": ("run_idc/paths.py",),
    "progress.json": ("run_idc/paths.py",),
    "predictions.jsonl": ("run_idc/paths.py", "metric_idc/results.py"),
    "pairs.jsonl": ("run_idc/paths.py", "metric_idc/results.py"),
    "metrics.json": ("run_idc/paths.py", "metric_idc/results.py"),
    "report.html": ("run_idc/paths.py", "run_idc/report.py", "metric_idc/results.py"),  # the template too
}
# Who renames unfinished files: the common way, metric_idc's own, a download, and files of an unpacked archive.
RENAMES = ("common_idc/atomic_files.py", "metric_idc/results.py", "dataset_syned/fetching.py")
# A metric of the library `evaluate` subclasses its class, and the page of its Space loads it.
FOR_THE_LIBRARY = ("metric_idc/metric_idc.py", "metric_idc/app.py")
BOILERPLATE = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)


def tracked(root: Path, *patterns: str) -> list[str]:
    """Return the project's files; without git (an unpacked archive) all that git would not ignore."""
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


def test_imports_go_down_only(root: Path) -> None:
    ours = {*PACKAGES, *PROGRAMS}
    for name in sources(root):
        package = package_of(name)
        found = {other for other in imported(root, name) if other in ours}
        if package is None:  # programs join packages, and do not import each other; models they get from captioner_idc
            assert not found & set(PROGRAMS), name
            allowed = (
                {*PACKAGES}
                if name.startswith(("measurements/", "pretraining/", "docs/"))
                else {*PACKAGES} - {"modeling_blip2idc"}
            )
            assert found <= allowed, name
            continue
        library = {"evaluate"} if name in FOR_THE_LIBRARY else set()
        decoder = {"modeling_blip2idc"} if name == DECODER[0] else set()
        assert found <= {package} | PACKAGES[package] | library | decoder, name
    lines = [line.strip() for line in (root / DECODER[0]).read_text().splitlines() if "modeling_blip2idc" in line]
    assert len(lines) == 1 and lines[0].startswith(DECODER[1])


def module_imports(root: Path, name: str) -> set[str]:
    """Return files of the same package that a file imports when it is imported itself."""
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


def test_no_imports_go_in_a_circle(root: Path) -> None:
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
    """Return all texts of a file that are not docstrings."""
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
def test_the_name_of_a_run_file_is_spelled_once(root: Path, file: str) -> None:
    checked = ("run_idc/", "captioner_idc/", "metric_idc/", "common_idc/", "train.py", "evaluate.py")
    spelled = {name for name in sources(root) if name.startswith(checked) and file in literals(root, name)}
    assert spelled <= set(RUN_FILES[file])


def test_the_names_that_the_metric_writes_are_those_of_the_run_folder() -> None:
    from metric_idc import results
    from run_idc import paths

    for name in ("PREDICTIONS", "PAIRS", "METRICS", "REPORT"):
        assert getattr(results, name) == getattr(paths, name)
    assert results.control_predictions("x") == paths.control_predictions("x")


def test_unfinished_files_are_renamed_in_one_way(root: Path) -> None:
    for name in sources(root):
        text = (root / name).read_text(encoding="utf-8")
        if not name.startswith(("measurements/", "pretraining/")):
            assert "os.replace(" not in text or name in RENAMES, name
            assert "mkdtemp(" not in text or name in RENAMES, name


def test_no_test_waits_for_a_clock(root: Path) -> None:
    """A busy machine must not fail a test: no time limits of launched programs."""
    for name in tracked(root, "tests/test_*.py"):
        tree = ast.parse((root / name).read_text(encoding="utf-8"))
        limits = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "timeout"]
        assert not limits, f"{name}, lines {limits}"


@pytest.mark.parametrize("library", ONE_PLACE)
def test_each_heavy_library_appears_in_one_place(root: Path, library: str) -> None:
    for name in sources(root):
        if library in imported(root, name):
            assert name.startswith(ONE_PLACE[library]), name


def test_only_the_guard_and_the_metric_for_it_name_the_evaluate_library(root: Path) -> None:
    for name in sources(root):
        assert name in FOR_THE_LIBRARY or "evaluate" not in set(imported(root, name)), name


def test_the_model_folder_is_flat_with_sibling_imports(root: Path) -> None:
    assert not [name for name in tracked(root, "modeling_blip2idc/**") if name.count("/") > 1]
    for name in tracked(root, "modeling_blip2idc/*.py"):
        for node in ast.walk(ast.parse((root / name).read_text(encoding="utf-8"))):
            assert not isinstance(node, ast.ImportFrom) or node.level < 2 and (node.level == 0 or node.module), name


def test_no_file_is_called_like_its_folder_or_like_a_drawer(root: Path) -> None:
    for name in sources(root):
        path = Path(name)
        assert path.stem not in ("utils", "helpers", "misc", "common"), name
        # transformers and evaluate look for such a file; load_dataset trips over one in dataset_syned
        allowed = name.startswith(("modeling_blip2idc/", "metric_idc/"))
        assert allowed or path.stem != path.parent.name, name


def test_files_open_with_their_purpose(root: Path) -> None:
    for name in tracked(root, "*.py"):
        assert ast.get_docstring(ast.parse((root / name).read_text(encoding="utf-8"))), name


def test_no_statement_does_something_at_import(root: Path) -> None:
    """Apart from the registration of the model, the guard in evaluate.py and `if __name__ == "__main__"`."""
    for name in sources(root):
        if name in ("setup.py", "dataset_syned/__main__.py"):  # the latter says in one line that a package is missing
            continue
        for node in ast.parse((root / name).read_text(encoding="utf-8")).body:
            text = ast.unparse(node)
            allowed = (
                isinstance(node, BOILERPLATE)
                or isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                or isinstance(node, ast.If)
                and text.startswith("if __name__ ")
                or re.fullmatch(r"Auto\w+\.register\(.*\)", text)
            )
            assert allowed, f"{name}: {text}"


IMPORTS = """
import random, sys
# libraries may do what they do
import accelerate, datasets, huggingface_hub, jinja2, peft, tokenizers, torch, transformers, yaml
import matplotlib.figure, torch.utils.tensorboard
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
import captioner_idc.__main__, run_idc.publishing, dataset_syned.benchmarks.toy, metric_idc, train
import importlib.util
for number, path in enumerate(sys.stdin.read().split()):
    spec = importlib.util.spec_from_file_location(f"program_{number}", path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
assert not seen, seen
assert before == (random.getstate(), torch.get_rng_state().tolist(), torch.get_default_dtype())
assert not torch.cuda.is_initialized()
"""


def test_import_prints_writes_connects_and_seeds_nothing(root: Path) -> None:
    program = root / "pretraining" / "train_tiny_captioner.py"
    done = subprocess.run(
        [sys.executable, "-B", "-W", "ignore", "-c", IMPORTS],
        input=str(program),
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


# A start-up file of a process: at its end it asks for the library, when the program's folder leads sys.path.
ASKS_AT_EXIT = """
import atexit
import concurrent.futures.thread  # cannot be imported for the first time that late
def ask():
    import evaluate
    print("library:", callable(getattr(evaluate, "load", None)), callable(getattr(evaluate, "combine", None)))
atexit.register(ask)
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
    (tmp_path / "sitecustomize.py").write_text(ASKS_AT_EXIT)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(COMMANDS[command], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answers = re.findall(r"library: .*", done.stdout)
    assert answers and set(answers) == {"library: True True"}, done.stdout + done.stderr


def readme_tree(root: Path) -> list[str]:
    """Return paths of the README's tree, from its indentation; a line may name several, one blank apart."""
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
    assert set(tree) <= {*files, *folders}, "the README names what is not there"
    # Files may be told by their folder, but the top level and the sources of packages must all be named.
    shipped = "captioner_idc/tiny_captioner/"
    must = {
        name for name in files if "/" not in name or name.split("/")[0] in PACKAGES and not name.startswith(shipped)
    } | {n for n in folders if "/" not in n}
    hidden = {name for name in must if name.startswith(".") or name.endswith("__init__.py")}
    assert must - hidden <= set(tree), "the README leaves out what is there"


def test_repository_holds_no_large_files_and_no_leftovers(root: Path) -> None:
    for name in tracked(root):
        size = (root / name).stat().st_size
        assert size <= 2**20 or name.startswith("captioner_idc/tiny_captioner/") and size < 12e6, name
        assert not re.search(r"\.(pyc|bak|orig|old|jar)$", name), name


def test_requirements_stay_lean(root: Path) -> None:
    """The core of the package, by the file that pip reads."""
    text = (root / "setup.py").read_text(encoding="utf-8")
    core = re.search(r"install_requires=\[(.*?)\]", text, re.DOTALL).group(1)
    names = sorted(re.findall(r'"([a-z0-9-]+)', core))
    assert names == ["huggingface-hub", "numpy", "pillow", "safetensors", "torch", "transformers"]
    for extra in ("data", "train", "metrics", "synthesis", "demo", "dev", "all"):
        assert f'"{extra}":' in text
    assert not re.search(r"py_modules\s*=", text)


def test_shell_of_ci_is_valid(root: Path) -> None:
    assert shutil.which("bash")
    subprocess.run(["bash", "-n", root / ".ci" / "run"], check=True)
