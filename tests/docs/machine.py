"""A machine of its own for the commands of one page: `unshare … python -m tests.docs.machine docs/console.md`.

It has the ports, names and folders that the pages speak of (5432, 6432, 8080, db.example, /run/pgweir), because it has a
network, a mount table and process numbers of its own: so commands run as they are written. On it are a PostgreSQL with
the user `app`, and a pooler in front of it, unless the page starts one. Every command must end with 0, but for those of
EXPECTED. Started by test_commands_here.py alone.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.docs.blocks import ROOT, Command, Where, blocks, commands, differs, files
from tests.postgres.server import PostgresServer, find_installation

PASSWORD = "app-password"
NAMES = "127.0.0.1 pooler-example-rw db.example db pg"
BIN = Path(sys.executable).parent

INI = """\
[databases]
* = host=127.0.0.1 port=5432
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = 6432
unix_socket_dir = /run/pgweir
auth_type = scram-sha-256
auth_file = userlist.txt
stats_users = stats
pool_mode = transaction
"""
USERLIST = "".join(f'"{user}" "{PASSWORD}"\n' for user in ("app", "stats"))

# Commands that fail here for a reason, and what they say then.
EXPECTED: dict[str, str] = {
    'pgweir console -c "KILL_CLIENT 17"': "client not found",  # nobody has that number
}
# What is typed is what is written, but for this: what only its reader has, and how long a load takes.
INSTEAD: tuple[tuple[str, str], ...] = (
    ("…", PASSWORD),
    (r'"host=pg user=postgres"', '"host=pg user=postgres password=change-me"'),
    (r"(bench .*)--seconds \d+", r"\1--seconds 1"),
    (r"--burst \d+", "--burst 1"),
)
# Those that go on until they are stopped are watched for a moment.
ENDLESS = re.compile(r" --watch | -f$")
STARTS = re.compile(r"pgweir run |pgweir-pooler ")
OWN_POOLER = {"docs/quick-start.md", "docs/how-to/from-pgbouncer.md"}
"""Pages whose own pooler serves the commands behind it. Elsewhere one is started, seen to listen, and stopped."""


ALTERNATIVES = {"docs/cli.md"}
"""Pages whose commands are examples that stand for themselves: none begins where the last one ended."""


class Failed(Exception):
    """A command did not do what the page says."""


class Machine:
    def __init__(self, page: Path) -> None:
        self.page = page
        self.name = str(page.relative_to(ROOT))
        self.folder = Path(tempfile.mkdtemp(prefix="pgwd-"))
        self.folder.chmod(0o755)
        self.pooler: subprocess.Popen[bytes] | None = None
        self.own = self.name in OWN_POOLER

    def furnish(self) -> None:
        """The network, the folders and the names."""
        run("ip link set lo up")
        run(
            "mount -t tmpfs tmpfs /run && mkdir -p /run/pgweir /run/postgresql && chmod 777 /run/pgweir /run/postgresql"
        )
        etc = self.folder / "etc"
        # Not all of it may be read by everybody.
        subprocess.run(["cp", "-a", "/etc", etc], stderr=subprocess.DEVNULL, check=False)
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n{NAMES}\n")
        (etc / "pgpool2").mkdir(exist_ok=True)
        (etc / "pgpool2" / "pgpool.conf").write_text(files(ROOT / "docs/how-to/from-pgpool.md")["pgpool.conf"])
        run(f"mount --bind {etc} /etc")
        for name in ("manifests", "charts", "crds", "Makefile"):
            (self.folder / name).symlink_to(ROOT / name)
        shims = self.folder / "bin"
        shims.mkdir()
        # The pooler refuses to be root unless root is named; tests may be.
        as_whom = " -u root" if os.geteuid() == 0 else ""
        (shims / "pgweir-pooler").write_text(f'#!/bin/sh\nexec "{BIN}/pgweir-pooler"{as_whom} "$@"\n')
        (shims / "pgweir-pooler").chmod(0o755)
        os.environ |= {"PATH": f"{shims}:{BIN}:{os.environ['PATH']}", "PGPASSWORD": PASSWORD, "PGCONNECT_TIMEOUT": "10"}
        self.write_files()

    def write_files(self) -> None:
        given = {
            "pgbouncer.ini": INI,
            "userlist.txt": USERLIST,
            "pooler.yaml": files(ROOT / "docs/quick-start.md")["local.yaml"],
        }
        for name, text in (given | files(self.page)).items():
            (self.folder / name).write_text(text)

    def tell(self) -> None:
        """The whole page."""
        if not self.own and any(self.here(command) for block in blocks(self.page) for command in commands(block)):
            self.start_pooler()
        for block in blocks(self.page):
            if block.language == "sql":
                (self.folder / "block.sql").write_text(block.text)
                self.do(
                    Command(
                        block.page,
                        block.line,
                        "psql -v ON_ERROR_STOP=1 -U postgres -h localhost -f block.sql",
                        Where.HERE,
                    )
                )
            for command in commands(block):
                if self.here(command):
                    begun = time.monotonic()
                    self.do(command)
                    print(f"{time.monotonic() - begun:5.1f} s  {command}", flush=True)

    def here(self, command: Command) -> bool:
        return command.where in {Where.HERE, Where.FILES}

    def do(self, command: Command) -> None:
        text = command.text
        for written, typed in INSTEAD:
            text = re.sub(written, typed, text)
        if STARTS.match(text):
            return self.start(text)
        if self.name in ALTERNATIVES and (found := re.match(r"pgweir (pause|resume)\b", text)):
            before = {"pause": "RESUME", "resume": "PAUSE"}[found[1]]
            subprocess.run(["pgweir", "console", "-c", before], capture_output=True, check=False)
        if ENDLESS.search(f"{text} "):
            text = f"timeout --signal=INT 3 {text}"
        if "-U postgres" in text:
            text = f"PGPASSWORD=change-me {text}"
        done = subprocess.run(
            ["bash", "-c", text],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        said = done.stdout + done.stderr
        print(said, end="", flush=True)
        words = next((words for head, words in EXPECTED.items() if text.startswith(head)), None)
        if words is not None:
            if done.returncode == 0 or words not in said:
                raise Failed(f"{command}: expected to fail with {words!r}; {done.returncode}\n{said}")
        elif done.returncode not in ((0, 124, 130) if text.startswith("timeout ") else (0,)):
            raise Failed(f"{command}: exit code {done.returncode}\n{said}")
        elif fault := differs(command.shown, said):
            raise Failed(f"{command}: {fault}")
        return None

    def start(self, text: str) -> None:
        """A pooler of the page's own."""
        if not self.own:
            self.write_files()
            self.stop_pooler()
        log = self.folder / "said"
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {text}"], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        until(lambda: answers() or process.poll() is not None)
        if process.poll() is not None:
            raise Failed(f"{text}: it ended\n{log.read_text()}")
        if self.own:
            self.pooler = process
            return
        process.send_signal(signal.SIGINT)
        if process.wait(120) != 0:
            raise Failed(f"{text}: it did not end well\n{log.read_text()}")
        self.start_pooler()

    def start_pooler(self) -> None:
        words = "pgweir-pooler --http-listen 127.0.0.1:8080 --metrics-listen 127.0.0.1:9127 pgbouncer.ini"
        with (self.folder / "log").open("ab") as log:
            self.pooler = subprocess.Popen(
                ["bash", "-c", f"exec {words}"], cwd=self.folder, stdin=subprocess.DEVNULL, stderr=log
            )
        until(answers)

    def stop_pooler(self) -> None:
        if self.pooler is not None:
            self.pooler.send_signal(signal.SIGQUIT)
            self.pooler.wait(120)
            self.pooler = None


def run(text: str) -> None:
    subprocess.run(["sh", "-c", text], check=True)


def answers() -> bool:
    probe = "host=127.0.0.1 port=6432 user=app dbname=app connect_timeout=2"
    return subprocess.run(["psql", probe, "-c", "SELECT 1"], capture_output=True, check=False).returncode == 0


def until(reached: Callable[[], bool], seconds: float = 600.0) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            raise Failed("nothing listens on port 6432")
        time.sleep(0.1)


def main(page: Path) -> None:
    machine = Machine(page)
    machine.furnish()
    server = PostgresServer(find_installation())
    server.port = 5432
    with server:
        server.execute("ALTER ROLE postgres PASSWORD 'change-me'")
        server.execute(f"CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'")
        server.execute("ALTER DATABASE app OWNER TO app")
        server.execute("DROP SCHEMA pgweir CASCADE")  # `pgweir run` makes its own
        try:
            machine.tell()
        finally:
            machine.stop_pooler()
            shutil.rmtree(machine.folder, ignore_errors=True)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]).resolve())
    except Failed as failure:
        sys.exit(str(failure))
