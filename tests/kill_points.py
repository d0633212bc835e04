"""Kill a command just before each of its file operations, repeat it, and list what it leaves.

    listings = after_kills("def command(folder): ...", tmp_path)   # for each kill: path -> content
    assert all(listing == listings[-1] for listing in listings)    # the last run was not killed

The command runs in forked children of one process that has imported everything, so that each run takes little time.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

SERVER = """
import hashlib, os, signal, sys
from pathlib import Path

OPERATIONS = {operations!r}

def run(folder, kill_at=None):
    sys.stdout.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    seen = 0
    def audit(event, arguments):
        nonlocal seen
        opened = event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        if event in OPERATIONS or opened and "open" in OPERATIONS:
            if seen == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1
    sys.addaudithook(audit)
    command(folder)
    sys.stdout.flush()
    os._exit(0)

def listing(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    content = {{path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}}
    return content | {{path.relative_to(folder).as_posix(): "folder" for path in folder.rglob("*") if path.is_dir()}}

{code}

import json
root, status, kills, listings = Path(sys.argv[1]), -signal.SIGKILL, 0, []
(root / "first").mkdir()
command(root / "first")  # imports what it needs
while status == -signal.SIGKILL:
    folder = root / "work"  # one name for all, because some files contain it
    folder.mkdir()
    status = run(folder, kills)
    if status == -signal.SIGKILL and run(folder):
        sys.exit(f"the run after kill {{kills}} failed")
    listings.append(listing(folder))
    folder.rename(root / f"{{kills}}")
    kills += 1
if status:
    sys.exit(f"the run without a kill returned {{status}}")
print(json.dumps(listings))
"""
ALL = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")


def after_kills(
    code: str, root: Path, operations: tuple[str, ...] = ALL, environment: dict[str, str] | None = None
) -> list[dict[str, str]]:
    """Return path -> hash of all files after a kill at each file operation and a second run; last, without a kill.

    Args:
        code: defines `command(folder)` and imports what it needs.
        operations: audit events of Python; "open" counts where a file is opened for writing.
        environment: of the process; by default this one's.
    """
    done = subprocess.run(
        [sys.executable, "-c", SERVER.format(code=code, operations=operations), str(root)],
        env=dict(environment or os.environ) | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
