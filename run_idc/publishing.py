"""Push a run folder to the Hub in one commit: the adapter or the merged model, with card, config, log and scores.

python -m run_idc.publishing runs/mine user/blip2idc-mine --dry_run      # lists what would be pushed
python -m run_idc.publishing runs/mine user/blip2idc-mine --private
python -m run_idc.publishing runs/mine user/blip2idc --merge            # the whole model with its code
"""

import argparse
import json
import logging
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import yaml
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from common_idc.atomic_files import workplace, write_json
from common_idc.commands import run_command
from common_idc.hub_access import (
    HubError,
    check_repo_id,
    check_token,
    describe_error,
    with_retries,
)
from common_idc.redaction import is_local, without_paths

from .card import own_results, read_run, write_card, write_eval_results
from .paths import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CALIBRATION,
    CAPTIONER,
    CURVES,
    EVALUATIONS,
    LOG,
    METRICS,
    PROCESSOR,
    TRAIN_CONFIG,
)

PROCESSOR_FILES = (
    *(PROCESSOR, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "merges.txt", "spiece.model", "chat_template.jinja", "*.py"),
)
# What an earlier push may have left in the repository and this one would contradict.
REPLACED = (
    *("adapter_*", "model*.safetensors", "model.safetensors.index.json", "config.json", "generation_config.json"),
    *(CURVES, f"{EVALUATIONS}/*/{METRICS}"),
)

logger = logging.getLogger(__name__)


def push(run: Path | str, repo: str, private: bool = False, merge: bool = False) -> str:
    """Push a run folder, replace what an earlier push left there, and return the repository's address.

    The client itself repeats uploads but not commits: one answer of 503 would end it. What has been uploaded is not
    uploaded again.

    Args:
        repo: "<user>/<name>", created if it does not exist.
        private: create it as a private one; refused for a repository that is public already.
        merge: push the whole model with its code instead of the adapter.

    Raises: HubError; ValueError or OSError for a folder that is not a run.
    """
    create_repository(Path(run), repo, private, merge)
    with staged_files(Path(run), repo, merge) as folder:
        return upload(folder, repo)


def try_push(run: Path | str, repo: str, private: bool = False, merge: bool = False) -> str:
    """Push the run; return one line that says where to, or why not and what to do. It never raises."""
    try:
        return f"pushed to {push(run, repo, private, merge)}"
    except Exception as error:  # a failed push must not cost hours of training
        return describe_failure(error, run, repo, private, merge)


def describe_failure(error: Exception, run: Path | str, repo: str, private: bool, merge: bool) -> str:
    """Return what went wrong in one line, with the command that repeats the push."""
    command = ["python", "-m", "run_idc.publishing", str(run), repo]
    command += ["--private"] * private + ["--merge"] * merge
    text = str(error) if isinstance(error, HubError) else f"could not push to {repo!r}: {describe_error(error)}"
    return f"{text}. Nothing is lost, all of it is in {str(run)!r}; push it later with: {shlex.join(command)}"


# what is pushed


@contextmanager
def staged_files(run: Path, repo: str, merge: bool) -> Iterator[Path]:
    """Yield a temporary folder with exactly the files to push, without a path of this machine in them.

    Raises: OSError for a folder that is not a run, or if another process pushes it.
    """
    check_run(run)
    with workplace(run / "push", run) as folder:  # on the run's disk, because a merged model may be large
        if merge:
            _save_merged(run, folder)
        else:
            _copy_adapter(run, folder)
        results, others = own_results(run)
        for title in others:
            logger.warning("not pushed: %s/%s has scores of other weights, or no note on what made them", run, title)
        results = [result | {"signature": without_paths(result["signature"])} for result in results]
        for result in results:
            write_json(folder / EVALUATIONS / result["title"] / METRICS, result)
        _copy_records(run, folder)
        write_eval_results(folder, results)
        write_card(folder, name=repo, merged=merge, results=results)
        yield folder


def check_run(run: Path) -> None:
    """Raise OSError unless the folder is a run that has saved an adapter."""
    for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG, PROCESSOR, TRAIN_CONFIG, LOG, CAPTIONER):
        if not (run / name).is_file():
            raise OSError(f"{str(run)!r} contains no {name}: name a run folder of train.py that has saved an adapter")


def _copy_records(run: Path, folder: Path) -> None:
    config = yaml.safe_load((run / TRAIN_CONFIG).read_text(encoding="utf-8"))
    config = {**without_paths(config), "output_dir": Path(config["output_dir"]).resolve().name}
    (folder / TRAIN_CONFIG).write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    lines = (run / LOG).read_text(encoding="utf-8").splitlines()
    lines = [json.dumps(without_paths(json.loads(line))) + "\n" for line in lines if line.strip()]
    (folder / LOG).write_text("".join(lines), encoding="utf-8")
    shutil.copyfile(run / CAPTIONER, folder / CAPTIONER)
    for name in (CURVES, CALIBRATION):
        if (run / name).is_file():
            shutil.copyfile(run / name, folder / name)


def _copy_adapter(run: Path, folder: Path) -> None:
    shutil.copyfile(run / ADAPTER_WEIGHTS, folder / ADAPTER_WEIGHTS)
    config = json.loads((run / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    base = config["base_model_name_or_path"]
    public = without_paths(config)
    write_json(folder / ADAPTER_CONFIG, public)
    if is_local(base):
        logger.warning(
            "warning: the base model is the local folder %r: others can load this adapter only if they have it as "
            "well and pass it themselves; --merge pushes the whole model",
            public["base_model_name_or_path"],
        )
    for pattern in PROCESSOR_FILES:
        for file in run.glob(pattern):
            shutil.copyfile(file, folder / file.name)


def _save_merged(run: Path, folder: Path) -> None:
    """Write the merged model by the command for it: this package knows no models."""
    # In the run's own precision.
    dtype = "float32" if read_run(run)["environment"].get("device") == "cpu" else "bfloat16"
    options = {"--adapter": run, "--output": folder, "--format": "remote-code", "--dtype": dtype}
    command = [sys.executable, "-m", "captioner_idc.exporting"]
    command += [str(word) for option in options.items() for word in option]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise OSError(f"{str(run)!r} could not be merged: {lines[-1].removeprefix('error: ')}")


# the Hub


def create_repository(run: Path, repo: str, private: bool, merge: bool) -> None:
    """Create the repository if it does not exist, before minutes of merging and upload.

    Raises: HubError; OSError for a folder that is not a run.
    """
    check_run(run)
    check_repo_id(repo)
    check_token()

    def create() -> None:
        api = HfApi()
        api.create_repo(repo, private=private or None, exist_ok=True)
        found = api.model_info(repo)
        if private and not found.private:
            raise HubError(f"{repo!r} exists and is public: make it private in its settings, or leave --private out")
        if not merge and any(file.rfilename == "config.json" for file in found.siblings or []):
            raise HubError(
                f"{repo!r} contains a whole model, which this push would remove: add --merge, or use another name"
            )

    with_retries(create, repo)


def upload(folder: Path, repo: str) -> str:
    """Commit the folder's files, remove outdated ones, and return the repository's address.

    Raises: HubError.
    """
    files = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}

    def commit() -> None:
        api = HfApi()
        operations = [CommitOperationAdd(name, file) for name, file in files.items()]
        results = sum(name.endswith(f"/{METRICS}") for name in files)
        operations += [CommitOperationDelete(name) for name in outdated(api.list_repo_files(repo), set(files))]
        title = "Adapter" if ADAPTER_WEIGHTS in files else "Merged model"
        api.create_commit(repo, operations, commit_message=f"{title} with card and {results} result file(s)")

    with_retries(commit, repo)
    return f"{HfApi().endpoint}/{repo}"


def outdated(present: list[str], files: set[str]) -> list[str]:
    """Return the files in a repository that a push of `files` replaces; files of other origin stay."""
    rest = [name for name in present if name not in files]
    old = [name for name in rest if any(fnmatch(name, p) and name.count("/") == p.count("/") for p in REPLACED)]
    evaluated = [PurePosixPath(name).parent.name for name in old if name.startswith(f"{EVALUATIONS}/")]
    for name in rest:  # others may have contributed further ones
        path = PurePosixPath(name)
        if path.parent.name == ".eval_results" and any(title.startswith(f"{path.stem}-") for title in evaluated):
            old.append(name)
    return old


# the command


def listing(folder: Path) -> str:
    """Return the files of a folder with their sizes, one per line, and their sum."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    rows = [f"{file.stat().st_size:>14,} bytes  {file.relative_to(folder).as_posix()}" for file in files]
    return "\n".join([*rows, f"{sum(file.stat().st_size for file in files):>14,} bytes  in {len(files)} files"])


def _parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m run_idc.publishing", description="Push a run folder of train.py to the Hub."
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("repo", metavar="REPO", help="<user>/<name>, created if it does not exist")
    parser.add_argument("--private", action="store_true", help="create the repository as a private one")
    parser.add_argument("--merge", action="store_true", help="push the whole model with its code, not the adapter")
    parser.add_argument("--dry_run", action="store_true", help="list what would be pushed, and push nothing")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    arguments = _parse_arguments(argv)
    run, repo, private, merge = arguments.run, arguments.repo, arguments.private, arguments.merge

    def command() -> None:
        try:
            if not arguments.dry_run:
                create_repository(run, repo, private, merge)
            with staged_files(run, repo, merge) as folder:
                print(f"{repo}:\n{listing(folder)}", flush=True)
                if not arguments.dry_run:
                    print(upload(folder, repo))
        except HubError as error:
            raise HubError(describe_failure(error, run, repo, private, merge)) from error

    return run_command(command, ValueError, OSError, ImportError)


if __name__ == "__main__":
    sys.exit(main())
