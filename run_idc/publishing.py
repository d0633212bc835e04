"""A run folder to the Hub, in one commit: the adapter or the merged model, with card, config, log and scores.

python -m run_idc.publishing runs/toy user/blip2idc-toy --dry_run     # lists what would be pushed
python -m run_idc.publishing runs/toy user/blip2idc-toy --private
python -m run_idc.publishing runs/toy user/blip2idc --merge           # the whole model with its code
"""

import argparse
import json
import logging
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import torch
import yaml
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled  # HTTPError: of the HTTP library

from captioner_idc.adapters import merge as merge_adapter
from captioner_idc.captioning import load

from .card import read_run, write_card, write_eval_results

DELAYS = (2.0, 8.0)  # seconds before the second and the third attempt
TRANSIENT = (408, 409, 412, 429, 500, 502, 503, 504)  # 409 and 412: somebody else commits at the same time
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")
PROCESSOR_FILES = (
    *("processor_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "merges.txt", "spiece.model", "chat_template.jinja", "*.py"),
)
# What an earlier push may have left in the repository and would contradict this one.
REPLACED = (
    *("adapter_*", "model*.safetensors", "model.safetensors.index.json", "config.json", "generation_config.json"),
    *("curves.png", "eval/*/metrics.json"),
)
EMBEDDED_PATH = re.compile(r"(?<![\w:/.~-])~?(?:/[^\s\"'/:,]+)+/([^\s\"'/:,]+)/?")

logger = logging.getLogger(__name__)
T = TypeVar("T")


class PushError(OSError):
    """A push that did not happen; the message says why and what to do."""


def push(run: Path | str, repo: str, private: bool = False, merge: bool = False) -> str:
    """Pushes a run folder, and replaces what an earlier push left there. Returns the repository's address.

    The client itself repeats uploads but not commits: one answer of 503 would end it. What has been uploaded is not
    uploaded again.

    Args:
        repo: "<user>/<name>", created where it does not exist.
        private: create it as a private one; refused for a repository that is public already.
        merge: the whole model with its code instead of the adapter.

    Raises: PushError; ValueError or OSError for a folder that is no run.
    """
    make_place(Path(run), repo, private, merge)
    with staged(Path(run), repo, merge) as folder:
        return upload(folder, repo)


def try_push(run: Path | str, repo: str, private: bool = False, merge: bool = False) -> str:
    """`push` for programs that must go on: one line that says where it was pushed to, or why not and what to do."""
    try:
        return f"pushed to {push(run, repo, private, merge)}"
    except Exception as error:  # hours of training are worth more than whatever can go wrong in here
        return told_failure(error, run, repo, private, merge)


def told_failure(error: Exception, run: Path | str, repo: str, private: bool, merge: bool) -> str:
    command = ["python", "-m", "run_idc.publishing", str(run), repo]
    command += ["--private"] * private + ["--merge"] * merge
    said = str(error) if isinstance(error, PushError) else f"{repo!r} could not be pushed: {reason(error)}"
    return f"{said}. Nothing is lost, all of it is in {str(run)!r}; push it later with: {shlex.join(command)}"


# what is pushed


@contextmanager
def staged(run: Path, repo: str, merge: bool) -> Iterator[Path]:
    """A temporary folder with exactly the files to push, without a path of this machine in them."""
    check_run(run)
    with tempfile.TemporaryDirectory(prefix="blip2idc-push-") as place:
        folder = Path(place)
        _copy_records(run, folder)
        if merge:
            _save_merged(run, folder)
        else:
            _copy_adapter(run, folder)
        write_eval_results(folder)
        write_card(folder, name=repo, merged=merge)
        yield folder


def check_run(run: Path) -> None:
    for name in (*ADAPTER_FILES, "processor_config.json", "train_config.yaml", "log.jsonl"):
        if not (run / name).is_file():
            raise OSError(f"{str(run)!r} holds no {name}: name a run folder of train.py that has saved an adapter")


def _copy_records(run: Path, folder: Path) -> None:
    config = yaml.safe_load((run / "train_config.yaml").read_text(encoding="utf-8"))
    config = {**without_paths(config), "output_dir": Path(config["output_dir"]).resolve().name}
    (folder / "train_config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    lines = [json.dumps(without_paths(json.loads(line))) + "\n" for line in lines if line.strip()]
    (folder / "log.jsonl").write_text("".join(lines), encoding="utf-8")
    if (run / "curves.png").is_file():
        shutil.copyfile(run / "curves.png", folder / "curves.png")
    for file in sorted(run.glob("eval/*/metrics.json")):
        result = json.loads(file.read_text(encoding="utf-8"))
        result["signature"] = without_paths(result["signature"])  # the rest are numbers and sentences
        target = folder / file.relative_to(run)
        target.parent.mkdir(parents=True)
        _write_json(target, result)


def _copy_adapter(run: Path, folder: Path) -> None:
    shutil.copyfile(run / "adapter_model.safetensors", folder / "adapter_model.safetensors")
    config = json.loads((run / "adapter_config.json").read_text(encoding="utf-8"))
    base = config["base_model_name_or_path"]
    public = without_paths(config)
    _write_json(folder / "adapter_config.json", public)
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
    # In the run's own precision, and not on a GPU, which may be full of the model in training.
    dtype = torch.float32 if read_run(run)["environment"].get("device") == "cpu" else torch.bfloat16
    model, processor = load(run, device="cpu", dtype=dtype)
    model = merge_adapter(model)
    model.save_pretrained(folder, max_shard_size="5GB")  # with the code that `auto_map` names
    processor.save_pretrained(folder)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def is_local(name: str) -> bool:
    """Whether a model's name is a folder of this machine, not a Hub id."""
    return os.path.isabs(name) or name.startswith((".", "~")) or os.path.isdir(name)


def without_paths(value: Any) -> Any:
    """The same with every path of this machine cut down to its last component, and without the token."""
    if isinstance(value, dict):
        return {key: without_paths(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [without_paths(entry) for entry in value]
    if not isinstance(value, str):
        return value
    if value.startswith(("./", "../", "~/")) or "/" in value and (os.path.isabs(value) or os.path.exists(value)):
        return Path(value).expanduser().resolve().name
    return EMBEDDED_PATH.sub(r"\1", without_token(value))


def without_token(text: str) -> str:
    text = re.sub("Bearer .*", "(token)", text)  # the HTTP library quotes a header that it cannot send
    token = get_token()
    return text.replace(token, "(token)") if token else text


# the Hub


def make_place(run: Path, repo: str, private: bool, merge: bool) -> None:
    """The repository, before minutes of merging and upload. Raises: PushError."""
    check_run(run)
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise PushError(f"{repo!r} is no place on the Hub to push to: write <user>/<name>")
    token = get_token()
    if token is None:
        raise PushError("there is no token for the Hub: run `hf auth login` or set HF_TOKEN, with the right to write")
    if not (token.isascii() and token.isprintable()):
        raise PushError("the token for the Hub holds a character that no token has: correct HF_TOKEN")

    def make() -> None:
        api = HfApi()
        api.create_repo(repo, private=private or None, exist_ok=True)
        there = api.model_info(repo)
        if private and not there.private:
            raise PushError(f"{repo!r} is there and public: make it private in its settings, or leave --private out")
        if not merge and any(file.rfilename == "config.json" for file in there.siblings or []):
            raise PushError(
                f"{repo!r} holds a whole model, which this push would remove: add --merge, or another name"
            )

    persistently(make, repo)


def upload(folder: Path, repo: str) -> str:
    """One commit that makes the repository hold the folder's files. Raises: PushError."""
    files = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}

    def commit() -> None:
        api = HfApi()
        operations = [CommitOperationAdd(name, file) for name, file in files.items()]
        operations += [CommitOperationDelete(name) for name in outdated(api.list_repo_files(repo), set(files))]
        title = "Adapter" if ADAPTER_FILES[0] in files else "Merged model"
        api.create_commit(repo, operations, commit_message=f"{title} with card and {_count(files)} result file(s)")

    persistently(commit, repo)
    return f"{HfApi().endpoint}/{repo}"


def _count(files: dict[str, Path]) -> int:
    return sum(name.endswith("/metrics.json") for name in files)


def outdated(there: list[str], files: set[str]) -> list[str]:
    """What this push replaces; files of other origin stay."""
    rest = [name for name in there if name not in files]
    old = [name for name in rest if any(fnmatch(name, p) and name.count("/") == p.count("/") for p in REPLACED)]
    evaluated = [PurePosixPath(name).parent.name for name in old if name.startswith("eval/")]
    for name in rest:  # others may have contributed further ones
        path = PurePosixPath(name)
        if path.parent.name == ".eval_results" and any(title.startswith(f"{path.stem}-") for title in evaluated):
            old.append(name)
    return old


def persistently(action: Callable[[], T], repo: str) -> T:
    """The action, again after each of DELAYS where the fault may go away by itself. Raises: PushError."""
    for attempt in range(len(DELAYS) + 1):
        began = time.monotonic()
        try:
            return action()
        except PushError:
            raise
        except (HTTPError, OSError, RuntimeError, ValueError) as error:
            # RuntimeError: the client's, around a failed upload, which it may have repeated for long by itself
            vain = isinstance(error, RuntimeError) and time.monotonic() - began > sum(DELAYS)
            if vain or not is_transient(error) or attempt == len(DELAYS):
                tries = f" after {attempt + 1} attempts" if attempt else ""
                raise PushError(f"{repo!r} could not be pushed{tries}: {reason(error)}") from error
            logger.warning("push to %s failed (%s), again in %g s", repo, reason(error), DELAYS[attempt])
            time.sleep(DELAYS[attempt])
    raise AssertionError("the last attempt returns or raises")


def is_transient(error: BaseException | None) -> bool:
    """Whether it may go away by itself: a server in trouble or a broken connection, not a refusal."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in TRANSIENT
    if isinstance(error, OfflineModeIsEnabled):
        return False
    if isinstance(error, (HTTPError, json.JSONDecodeError)):  # no JSON: a proxy's error page
        return True
    return error is not None and is_transient(error.__cause__)


def reason(error: BaseException) -> str:
    """In one line, whatever the client's message looks like, and without a token."""
    if isinstance(error, HfHubHTTPError):
        said = f"HTTP {error.response.status_code}, {error.server_message or type(error).__name__}"
        if error.response.status_code == 401:
            said += "; the Hub refuses the token: run `hf auth login`, or correct HF_TOKEN"
        elif error.response.status_code == 403:
            said += "; the token has no right to write there: use one that has, or another <user>"
    elif error.__cause__ is not None:
        return reason(error.__cause__)
    else:
        said = str(error) or type(error).__name__
    return without_token(" ".join(said.split())).rstrip(".")


# the command


def listing(folder: Path) -> str:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    rows = [f"{file.stat().st_size:>14,} bytes  {file.relative_to(folder).as_posix()}" for file in files]
    return "\n".join([*rows, f"{sum(file.stat().st_size for file in files):>14,} bytes  in {len(files)} files"])


def _parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m run_idc.publishing", description="Push a run folder of train.py to the Hub."
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("repo", metavar="REPO", help="<user>/<name>, created where it does not exist")
    parser.add_argument("--private", action="store_true", help="create the repository as a private one")
    parser.add_argument("--merge", action="store_true", help="push the whole model with its code, not the adapter")
    parser.add_argument("--dry_run", action="store_true", help="list what would be pushed, and push nothing")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    arguments = _parse_arguments(argv)
    run, repo = arguments.run, arguments.repo
    try:
        if not arguments.dry_run:
            make_place(run, repo, arguments.private, arguments.merge)
        with staged(run, repo, arguments.merge) as folder:
            print(f"{repo}:\n{listing(folder)}", flush=True)
            if not arguments.dry_run:
                print(upload(folder, repo))
    except PushError as error:
        print(f"error: {told_failure(error, run, repo, arguments.private, arguments.merge)}", file=sys.stderr)
        return 2
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {reason(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
