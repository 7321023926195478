"""Machines made of Linux namespaces: each has an address, a name, processes and a few directories of its own.

All of them, and the bridge between them, live in namespaces of their own and end with this process, however it ends:
nothing of the machine that runs the test is changed, but for empty directories that are mounted over.
"""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

ADDRESS = "10.99.0.{}"
PREFIX = 24
# Directories that each machine has for itself; `/var/backups` is one file system for all.
OWN = ["/etc/raftmq", "/etc/systemd/system", "/usr/local/bin", "/var/lib/raftmq"]
SHARED = ["/var/backups"]
USER = "raftmq"
USER_ID = 10001


class NoNamespaces(Exception):
    """A step of making a machine was refused; the text says which. While the network is made: this machine makes none."""


class Network:
    """The machines and the bridge between them."""

    def __init__(self, directory: Path, names: list[str]):
        self.directory = directory
        self.made: list[Path] = []
        self.machines: dict[str, Machine] = {}
        hosts = ["127.0.0.1 localhost"]
        hosts += [f"{ADDRESS.format(place)} {name}" for place, name in enumerate(names, 1)]
        (directory / "hosts").write_text("\n".join(hosts) + "\n")
        for name, line in [("passwd", f"{USER}:x:{USER_ID}:{USER_ID}::/var/lib/{USER}:/usr/sbin/nologin"), ("group", f"{USER}:x:{USER_ID}:")]:
            (directory / name).write_text(Path("/etc", name).read_text().rstrip("\n") + f"\n{line}\n")
        for path in OWN + SHARED:
            if not os.path.exists(path):
                os.makedirs(path)
                self.made.append(Path(path))
        self.switch = Holder(["unshare", "--net", "--fork", "--kill-child", "cat"])
        try:
            self.switch.wait()
            on_switch(self.switch, "ip link add br0 type bridge && ip link set br0 up")
            for place, name in enumerate(names, 1):
                self.machines[name] = Machine(self, name, ADDRESS.format(place))
                self.machines[name].power_on()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends every process, and with them the namespaces."""
        for machine in self.machines.values():
            machine.power_off()
        self.switch.end()
        for path in self.made:
            path.rmdir()


class Holder:
    """A process that keeps namespaces alive; it ends when its standard input does."""

    def __init__(self, command: list[str]):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.pid = 0

    def wait(self) -> None:
        """Until the process inside, `cat`, runs."""
        deadline = time.monotonic() + 20
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise NoNamespaces(self.process.stderr.read().decode().strip() or "unshare failed")
            found = children.read_text().split() if children.exists() else []
            if found and Path(f"/proc/{found[0]}/comm").read_text().strip() == "cat":
                self.pid = int(found[0])
                return
            time.sleep(0.02)
        raise NoNamespaces("a namespace was not ready within 20 s")

    def end(self) -> None:
        if self.pid:
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.stdin.close()
        self.process.wait(20)


def on_switch(switch: Holder, script: str) -> None:
    done = subprocess.run(["nsenter", "-t", str(switch.pid), "-n", "sh", "-c", script], capture_output=True, text=True)
    if done.returncode:
        raise NoNamespaces(f"{script}: {done.stderr.strip()}")


class Machine:
    """One of them. Its directories survive a loss of power."""

    def __init__(self, network: Network, name: str, address: str):
        self.network, self.name, self.address = network, name, address
        self.directory = network.directory / name
        self.holder: Holder | None = None
        for path in OWN:
            self.own(path).mkdir(parents=True, exist_ok=True)
        for path in SHARED:
            network.directory.joinpath("shared" + path).mkdir(parents=True, exist_ok=True)
        (self.directory / "home").mkdir()
        shutil.copy(Path(__file__).with_name("systemctl"), self.own("/usr/local/bin/systemctl"))

    def own(self, path: str) -> Path:
        """Where a path of the machine lies outside of it."""
        return self.directory / ("root" + path)

    def power_on(self) -> None:
        binds = [(self.own(path), path) for path in OWN]
        binds += [(self.network.directory / ("shared" + path), path) for path in SHARED]
        binds += [(self.network.directory / name, f"/etc/{name}") for name in ("hosts", "passwd", "group")]
        script = "set -e\n" + "".join(f"mount --bind '{source}' {target}\n" for source, target in binds)
        script += f"hostname {self.name}\nexec cat"
        self.holder = Holder(
            ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script]
        )
        self.holder.wait()
        # The network card is the same after a new installation: nobody has to forget its number.
        card = f"02:00:00:00:00:{int(self.address.rsplit('.')[-1]):02x}"
        on_switch(
            self.network.switch,
            f"ip link add {self.name} type veth peer name eth0 address {card} netns {self.holder.pid}"
            f" && ip link set {self.name} master br0 up",
        )
        up = f"ip address add {self.address}/{PREFIX} dev eth0; ip link set eth0 up; ip link set lo up"
        self.run(up, seconds=20)

    def power_off(self) -> None:
        """Every process ends at once; its cable is gone too."""
        if self.holder:
            self.holder.end()
            self.holder = None

    def lose_disk(self) -> None:
        for path in ("/var/lib/raftmq", "/etc/raftmq"):
            for entry in self.own(path).iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def plug(self, state: str) -> None:
        """Its cable `up` or `down`."""
        on_switch(self.network.switch, f"ip link set {self.name} {state}")

    def command(self, arguments: list[str], *, fork: bool) -> list[str]:
        """What runs `arguments` there. With `fork` it sees the machine's processes, but signals do not reach it."""
        spaces = ["-n", "-m", "-u"] + (["-p"] if fork else [])
        return ["nsenter", "-t", str(self.holder.pid), *spaces, f"--wd={self.network.directory / 'release'}", *arguments]

    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RAFTMQ_")}
        path = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
        home = str(self.directory / "home")
        return kept | {"PATH": path, "HOME": home, "XDG_CONFIG_HOME": home, "MACHINE_DIR": str(self.directory), "NO_COLOR": "1"}

    def run(self, script: str, seconds: float) -> tuple[int, str]:
        """Exit code and output, both streams together."""
        command = self.command(["bash", "-euo", "pipefail", "-c", script], fork=True)
        done = subprocess.run(
            command, env=self.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", timeout=seconds,
        )
        return done.returncode, done.stdout

    def start(self, arguments: list[str], **options) -> subprocess.Popen:
        """A command that goes on, with pipes as in `subprocess`."""
        return subprocess.Popen(self.command(arguments, fork=False), env=self.environment(), text=True, **options)

    def last_words(self) -> str:
        """The ends of what its servers logged."""
        logs = sorted(self.directory.glob("*.log"))
        ends = [f"--- {self.name} {log.stem}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-8:]) for log in logs]
        return "\n".join(ends)
