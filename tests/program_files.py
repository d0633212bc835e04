"""Programs as modules, loaded by their path: they are in no package."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def load_program(path: Path, name: str | None = None) -> ModuleType:
    """Return a program's file as a module; it finds the modules next to it, as when Python runs it.

    Args:
        name: of the module; default: that of the file.
    """
    spec = importlib.util.spec_from_file_location(name or path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module
