"""Runs the commands of README.md, so that what a newcomer copies works.

Every fenced block marked `sh`, `python` or `js` is run, block after block, with a home and data folder of
its own: lines of cargo in the repository's root, all others in a folder that holds `path/to/folder`, a small
model, and `path/to/data`, a small data set. What does not end with 0 is a failure. What cannot run here (a
machine's service manager, an address that is not this machine's) stands in blocks marked `console`.

A line that starts a service (`cairn up`, `cairn demo`, by whatever way `cairn` is called) is left
running until the end, then stopped with Ctrl-C; the commands that `demo` prints are run as well.
`tests/run` itself is only looked at.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "clients"))

from cairn import CommandFailed, binary  # noqa: E402
from samples import write_csv, write_tiny_bert  # noqa: E402

BLOCK = re.compile(r"^```(sh|python|js)\n(.*?)^```$", re.M | re.S)
# How a block of each language is run, from its standard input.
INTERPRETERS = {
    "sh": ["bash", "-euo", "pipefail", "-s"],
    "python": ["python", "-"],
    "js": ["node", "--input-type=module", "-"],
}
SERVICE = re.compile(r"^(?:\S+=\S+ )*(?:cairn|\S*/cairn|cargo run --release --) (up|demo)\b")
IN_ROOT = re.compile(r"^(?:\S+=\S+ )*cargo\b")
# What a reader exports in one block holds for the next ones.
EXPORT = re.compile(r"^export (\w+)=(\S+)$")
OWN_COMMAND = re.compile(r"^(?:\./)?(tests/run|tests/bench|\.ci/run)\b")
# What a newcomer meets first, in this order.
FIRST_COMMANDS = ["cargo run --release -- demo", "tests/run"]
DEMO_COMMANDS = re.compile(r"^Try .*?:\n(.*?)^Ctrl-C ", re.M | re.S)

READY_SECONDS = 600
COMMAND_SECONDS = 900
STOP_SECONDS = 15


class Service:
    """A command that runs until it is stopped."""

    def __init__(
        self, command: str, folder: Path, environment: dict[str, str], output: Path
    ) -> None:
        self.command = command
        self.output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                ["bash", "-c", f"exec env {command}"],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_ready(self) -> str:
        """Waits until the gateway's URL is printed, and the last line after it; returns all."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            text = self.output.read_text(errors="replace")
            last = "Ctrl-C" if " demo" in self.command else "http://"
            if last in text and text.endswith("\n"):
                return text
            if self.process.poll() is not None:
                raise CommandFailed(f"ended with {self.process.returncode}:\n{text}")
            time.sleep(0.1)
        raise CommandFailed(f"printed no URL in {READY_SECONDS} s:\n{self.output.read_text()}")

    def stop(self) -> None:
        """Presses Ctrl-C."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise CommandFailed(f"still ran {STOP_SECONDS} s after Ctrl-C") from None
        if code not in (0, -signal.SIGINT, 128 + signal.SIGINT):
            raise CommandFailed(f"ended with {code}:\n{self.output.read_text(errors='replace')}")


class Checker:
    """Runs one README in a home of its own and counts."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.passed = 0
        self.failed = 0
        self.services: list[Service] = []
        self.work = scratch / "work"
        write_tiny_bert(self.work / "path/to/folder")
        write_csv(self.work / "path/to/data")
        # Where node looks for modules that a script of this folder imports.
        (self.work / "node_modules").symlink_to(f"{os.environ['CAIRN_TEST_NODE']}/node_modules")
        home = scratch / "home"
        home.mkdir()
        path = f"{binary().parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("CAIRN_")
        } | {
            "CAIRN_DATA": str(scratch / "data"),
            "CARGO_INSTALL_ROOT": str(scratch / "installed"),
            "HF_HOME": str(scratch / "hf"),
            "HOME": str(home),
            "PATH": path,
        }
        for name in ("CARGO_HOME", "RUSTUP_HOME"):
            # Of the real home, where the toolchain is.
            default = Path.home() / f".{name.split('_')[0].lower()}"
            self.environment.setdefault(name, str(default))

    def check(self, what: str, action) -> None:
        try:
            action()
        except (CommandFailed, subprocess.TimeoutExpired) as failed:
            self.failed += 1
            print(f"FAILED {what}\n  {failed}", flush=True)
        else:
            self.passed += 1
            print(f"ok     {what}", flush=True)

    def run_block(self, language: str, block: str) -> None:
        """Runs a block in order: services and lines of cargo apart, the rest together."""
        script: list[str] = []
        for line in block.splitlines():
            apart = language == "sh" and any(
                kind.match(line) for kind in (SERVICE, OWN_COMMAND, IN_ROOT)
            )
            if apart:
                self.run_script(language, script)
                script = []
                self.check(line, lambda line=line: self.run_apart(line))
            else:
                script.append(line)
        self.run_script(language, script)

    def run_apart(self, line: str) -> None:
        if SERVICE.match(line):
            self.start(line)
        elif OWN_COMMAND.match(line):
            self.look_at(line)
        else:
            self.run(line)

    def run_script(self, language: str, lines: list[str]) -> None:
        script = "\n".join(lines).strip()
        if script:
            self.check(script.replace("\n", "\n       "), lambda: self.run(script, language))
        if language == "sh":
            for line in lines:
                if found := EXPORT.match(line):
                    self.environment[found[1]] = found[2]

    def folder(self, command: str) -> Path:
        return ROOT if IN_ROOT.match(command) else self.work

    def run(self, script: str, language: str = "sh") -> None:
        done = subprocess.run(
            INTERPRETERS[language],
            cwd=self.folder(script),
            env=self.environment,
            input=f"{script}\n",
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise CommandFailed(f"ended with {done.returncode}:\n{done.stdout}{done.stderr}")

    def start(self, command: str) -> None:
        command = re.sub(r"\s*(&|#.*)$", "", command)
        output = self.scratch / f"service-{len(self.services)}.log"
        service = Service(command, self.folder(command), self.environment, output)
        self.services.append(service)
        text = service.wait_until_ready()
        if " demo" in command:
            found = DEMO_COMMANDS.search(text)
            if not found:
                raise CommandFailed(f"names no commands to try:\n{text}")
            # The folder that holds everything is shown, and so is what to type in another terminal.
            self.run("\n".join(line.removeprefix("  ") for line in found[1].splitlines()))

    def look_at(self, command: str) -> None:
        program = ROOT / OWN_COMMAND.match(command)[1]
        if not os.access(program, os.X_OK):
            raise CommandFailed(f"{program} is not there to be run")

    def end(self) -> None:
        for service in reversed(self.services):
            self.check(f"Ctrl-C ends: {service.command}", service.stop)


def first_commands(blocks: list[tuple[str, str]]) -> list[str]:
    """The first commands without their comments."""
    shell = [block for language, block in blocks if language == "sh"]
    lines = [re.sub(r"\s+#.*$", "", line) for block in shell for line in block.splitlines()]
    return [line for line in lines if line][: len(FIRST_COMMANDS)]


def main() -> int:
    readme = ROOT / "README.md"
    blocks = BLOCK.findall(readme.read_text()) if readme.is_file() else []
    scratch = Path(tempfile.mkdtemp(prefix="cairn-readme."))
    try:
        checker = Checker(scratch)

        def begins_well() -> None:
            if (first := first_commands(blocks)) != FIRST_COMMANDS:
                raise CommandFailed(f"README.md begins with {first}, not {FIRST_COMMANDS}")

        checker.check("README.md's first two commands", begins_well)
        for language, block in blocks:
            checker.run_block(language, block)
        checker.end()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"{checker.passed} passed, {checker.failed} failed")
    return 1 if checker.failed else 0


if __name__ == "__main__":
    sys.exit(main())
