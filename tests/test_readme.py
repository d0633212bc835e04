"""The documentation: what it names exists, and the excerpt in the README equals the code."""

import ast
import re
import shlex
from pathlib import Path

import pytest

PAGES = (
    *("README.md", "docs/first_caption.md", "docs/training.md", "docs/data.md", "docs/evaluation.md"),
    *("docs/synthesis.md", "docs/other_trainers.md", "docs/add_a_model_family.md", "docs/serving.md"),
)


def text_of(root: Path) -> str:
    return "\n".join((root / page).read_text(encoding="utf-8") for page in PAGES)


def test_the_readme_is_short(root: Path) -> None:
    assert len((root / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_the_excerpt_in_the_readme_equals_the_code(root: Path) -> None:
    readme = (root / "README.md").read_text(encoding="utf-8")
    shown = ast.parse(re.search(r"```python\n(def fuse.*?)```", readme, re.DOTALL)[1]).body[0]
    source = ast.parse((root / "modeling_blip2idc" / "image_fusion.py").read_text(encoding="utf-8"))
    real = next(node for node in source.body if isinstance(node, ast.FunctionDef) and node.name == "fuse")
    statements = [ast.unparse(node) for node in real.body if not isinstance(node, ast.Expr)]  # docstring, check
    assert [ast.unparse(node) for node in shown.body] == statements
    assert [argument.arg for argument in shown.args.args] == [argument.arg for argument in real.args.args]


def test_named_modules_files_and_targets_exist(root: Path) -> None:
    text = text_of(root)
    for module in set(re.findall(r"python -m (\w+(?:\.\w+)*)", text)) - {"venv"}:
        path = root / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module
    targets = re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)$", text, re.MULTILINE):
        assert "".join(target) in targets, target
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)\)", (root / page).read_text(encoding="utf-8")):
            assert ((root / page).parent / link).exists(), f"{page}: {link}"
    for config in re.findall(r"configs/[\w/]+\.yaml", text):
        assert (root / config).is_file(), config


def commands(root: Path) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", text_of(root), re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def test_options_in_commands_exist(root: Path) -> None:
    import train
    from captioner_idc.__main__ import _parse_arguments as captioner
    from captioner_idc.exporting import parse_arguments as exporting
    from dataset_syned.__main__ import parse_arguments as data
    from metric_idc.__main__ import parse_arguments as metric

    parsers = {
        "train.py": lambda words: train.parse_config(words),
        "dataset_syned": data,
        "metric_idc": metric,
        ".venv/bin/blip2idc": captioner,
        "captioner_idc.exporting": exporting,
    }
    seen = set()
    for line in commands(root):
        words = shlex.split(line)
        name = next((word for word in words if word in parsers), None)
        if name:
            parsers[name](words[words.index(name) + 1 :])
            seen.add(name)
    assert seen == set(parsers)


def test_the_published_calls_stay_documented(root: Path) -> None:
    text = text_of(root)
    for use in (
        'AutoModel.from_pretrained("gautierevn/blip2idc"',
        'load_dataset("syned")',
        "accelerate launch train.py",
    ):
        assert use in text


@pytest.mark.parametrize(
    "picture", ["canvas.jpg", "pair.jpg", "page.jpg", "photo_edits.jpg", "toy.png", "synthetic_pairs.png"]
)
def test_the_pictures_exist(root: Path, picture: str) -> None:
    assert (root / "docs" / picture).stat().st_size > 1000
