#!/usr/bin/env python3
"""Official clients, unmodified, against real brokers, while the leader is killed.

Starts `raftmq dev` (three brokers and a name server) on free ports, lets the official Python and
Node.js producers send with a broker and with a name server as access point, in plaintext and in TLS,
kills the leader with SIGKILL in the middle, then consumes everything and requires: each acknowledged message was received
exactly once under its id with what was sent, and nothing was received that nobody sent.

    run.py [--raftmq PATH] [--count N] [--interval-ms N] [--keep]

Builds nothing. Exit code 0 only if all of it held.
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

sys.dont_write_bytecode = True  # the checkout stays as it is
import environment  # noqa: E402

PORTS = 10  # of `raftmq dev --base-port`: the name server's, three each for clients, peers and operators
BROKERS = 3
START_SECONDS = 60
PATIENCE_SECONDS = 90
QUEUES = 8
HOST = "127.0.0.1"


class Failed(Exception):
    """A check did not hold; the text is for the person who has to look into it."""


def free_ports() -> int:
    """First of some ports in a row that nobody uses, outside the range of outgoing connections."""
    for base in range(21000 + os.getpid() % 500 * 10, 31000, 10):
        sockets = []
        try:
            for port in range(base, base + PORTS):
                probe = socket.socket()
                sockets.append(probe)
                probe.bind((HOST, port))
            return base
        except OSError:
            continue
        finally:
            for probe in sockets:
                probe.close()
    raise Failed("no free ports")


def wait_until(what: str, seconds: float, condition):
    """The condition's first true value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise Failed(f"not within {seconds:.0f} s: {what}")


class Cluster:
    """`raftmq dev`, and the questions that the test asks it."""

    def __init__(self, raftmq: Path, directory: Path):
        self.raftmq = raftmq
        self.base = free_ports()
        self.name_server = f"{HOST}:{self.base}"
        self.brokers = [f"{HOST}:{self.base + 1 + place}" for place in range(BROKERS)]
        self.certificate = directory / "data" / "tls" / "certificate.pem"
        admin = ",".join(f"{HOST}:{self.base + 1 + 2 * BROKERS + place}" for place in range(BROKERS))
        self.operator = {"RAFTMQ_ADMIN": admin, "RAFTMQ_SECRET_FILE": str(directory / "data" / "secret")}
        self.log = open(directory / "dev.log", "wb")
        command = [raftmq, "dev", "--data", directory / "data", "--base-port", str(self.base)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT
        )

    def ask(self, *words: str, seconds: float = 30) -> subprocess.CompletedProcess:
        seeds = ",".join([self.name_server, *self.brokers])
        return subprocess.run(
            [self.raftmq, *words, "--seeds", seeds],
            env=os.environ | self.operator,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
        )

    def status(self) -> list[dict]:
        """What the brokers say of themselves; empty if that cannot be found out now."""
        if self.process.poll() is not None:
            raise Failed(f"raftmq dev ended with {self.process.returncode}")
        try:
            answer = self.ask("cluster", "status", "--json", seconds=10).stdout
            return json.JSONDecoder().raw_decode(answer)[0]
        except (subprocess.TimeoutExpired, ValueError):
            return []

    def leader(self) -> dict | None:
        """The broker that leads and serves, once its followers know it."""
        brokers = self.status()
        serving = [broker for broker in brokers if broker.get("serving")]
        knowing = [broker for broker in brokers if broker.get("leader")]
        return serving[0] if len(serving) == 1 and len(knowing) == BROKERS else None

    def kill(self, address: str) -> int:
        """SIGKILL to the process that listens there; only ever a child of our own `raftmq dev`."""
        port = int(address.rpartition(":")[2])
        sockets = listening_sockets(port)
        for child in children(self.process.pid):
            if sockets & open_sockets(child):
                os.kill(child, signal.SIGKILL)
                return child
        raise Failed(f"no broker process listens at {address}")

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                # Its children end with it: they wait for the end of their standard input.
                self.process.kill()
                self.process.wait()
        self.log.close()


def children(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # pid (name, which may hold anything) state parent …
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(stat.parent.name))
        except (OSError, IndexError, ValueError):
            continue  # it ended meanwhile
    return found


def listening_sockets(port: int) -> set[str]:
    listening = "0A"
    inodes = set()
    for table in ["tcp", "tcp6"]:
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == listening and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(fields[9])
    return inodes


def open_sockets(process: int) -> set[str]:
    inodes = set()
    try:
        for descriptor in Path(f"/proc/{process}/fd").iterdir():
            match = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(descriptor))
            if match:
                inodes.add(match[1])
    except OSError:
        pass  # it ended meanwhile
    return inodes


class Producer:
    """One of the producer scripts at work; its acknowledgements are read as they come."""

    def __init__(self, name: str, command: list, topic: str, directory: Path, trusted: Path):
        self.name = name
        self.topic = topic
        self.acked: list[tuple[str, str]] = []
        self.summary = ""
        self.errors = directory / f"{name}.stderr"
        # The clients write logs below HOME.
        home = directory / f"{name}-home"
        home.mkdir()
        with open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={
                    **os.environ,
                    "HOME": str(home),
                    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(trusted),
                },
            )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            word, _, rest = line.rstrip("\n").partition(" ")
            if word == "acked":
                message_id, _, body = rest.partition(" ")
                self.acked.append((message_id, body))
            elif word == "summary":
                self.summary = rest

    def ended(self) -> bool:
        return self.process.poll() is not None and not self.reader.is_alive()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def start_producers(cluster: Cluster, follower: str, arguments, directory: Path) -> list[Producer]:
    scripts = {
        "python": lambda words, tls: [
            environment.python(), environment.HERE / "python_producer.py", *words,
            "--patience-seconds", str(PATIENCE_SECONDS), "--interval-ms", str(arguments.interval_ms),
            *(["--tls"] if tls else []),
        ],
        "node": lambda words, tls: [
            "node", environment.node() / "node_producer.mjs", *words,
            str(PATIENCE_SECONDS), str(arguments.interval_ms), "tls" if tls else "plaintext",
        ],
    }  # fmt: skip
    # The leader is about to die: a client that knows one address needs one that survives.
    access_points = {"broker": follower, "nameserver": cluster.name_server}
    planned = [
        (f"{language}-via-{access}{'-tls' if tls else ''}", language, access_points[access], tls)
        for access in access_points
        for language in scripts
        for tls in [False, True]
    ]
    for name, *_ in planned:
        topic = f"interop-{name}"
        created = cluster.ask("topic", "create", topic, "--queues", str(QUEUES))
        if created.returncode != 0:
            raise Failed(f"creating {topic}: {created.stderr or created.stdout}")
    producers = []
    for name, language, access_point, tls in planned:
        topic = f"interop-{name}"
        command = scripts[language]([access_point, topic, str(arguments.count)], tls)
        producers.append(Producer(name, command, topic, directory, cluster.certificate))
    return producers


def consume(cluster: Cluster, topic: str) -> list[dict]:
    answer = cluster.ask(
        "consume", topic, "--group", "interop-readers", "--from", "earliest",
        "--idle-timeout-ms", "3000", "--format", "json", seconds=120,
    )  # fmt: skip
    if answer.returncode != 0:
        raise Failed(f"consuming {topic}: {answer.stderr}")
    return [json.loads(line) for line in answer.stdout.splitlines() if line.startswith("{")]


def check(producer: Producer, received: list[dict], count: int) -> None:
    """Every promise kept, and nothing invented."""
    troubles = []
    if len(producer.acked) != count or producer.process.returncode != 0:
        troubles.append(f"{len(producer.acked)} of {count} acknowledged; {producer.summary}")
    deliveries = Counter(message["message_id"] for message in received)
    by_id = {message["message_id"]: message for message in received}
    for message_id, body in producer.acked:
        message = by_id.get(message_id)
        if message is None:
            troubles.append(f"LOST: {message_id} {body} was acknowledged and never received")
            continue
        if message["body"] != body:
            troubles.append(f"{message_id}: sent {body!r}, received {message['body']!r}")
        number = body.rpartition("-")[2]
        sent = ("interop", [f"key-{number}"], producer.name.partition("-")[0])
        seen = (message["tag"], message["keys"], message["properties"].get("language"))
        if seen != sent:
            troubles.append(f"{message_id}: sent {sent}, received {seen}")
    # A client repeats a send under the same id: the broker has to see that.
    troubles += [f"{name} is stored {times} times" for name, times in deliveries.items() if times > 1]
    sent_bodies = {f"{producer.topic}-{number}" for number in range(count)}
    for message in received:
        if message["body"] not in sent_bodies:
            troubles.append(f"nobody sent {message['message_id']} {message['body']!r}")
    if troubles:
        more = f"\n  … and {len(troubles) - 20} more" if len(troubles) > 20 else ""
        raise Failed(f"{producer.name}:\n  " + "\n  ".join(troubles[:20]) + more)


def scenario(cluster: Cluster, arguments, directory: Path, producers: list[Producer]) -> None:
    led = wait_until("a leader that serves", START_SECONDS, cluster.leader)
    leader = led["client_address"]
    follower = next(broker for broker in cluster.brokers if broker != leader)
    print(f"leader {leader} (term {led['term']}); access points {follower}, {cluster.name_server}")
    producers += start_producers(cluster, follower, arguments, directory)

    def all_sending() -> bool:
        for producer in producers:
            if producer.ended():
                raise Failed(f"{producer.name} ended before the others had begun")
        return all(len(producer.acked) >= arguments.count // 10 for producer in producers)

    wait_until("every producer had a tenth acknowledged", START_SECONDS, all_sending)
    before = {producer.name: len(producer.acked) for producer in producers}
    pid = cluster.kill(leader)
    print(f"killed the leader {leader} (pid {pid}) after {before}")
    patience = 2 * PATIENCE_SECONDS
    wait_until("the producers ended", patience, lambda: all(p.ended() for p in producers))

    new = wait_until("a leader after the kill", START_SECONDS, cluster.leader)
    if new["term"] <= led["term"]:
        raise Failed(f"term {new['term']} after the kill, {led['term']} before: nobody was replaced")
    print(f"leader {new['client_address']} (term {new['term']})")
    for producer in producers:
        received = consume(cluster, producer.topic)
        check(producer, received, arguments.count)
        print(
            f"  {producer.name:<26} {len(producer.acked)} acknowledged, all received exactly once"
            f" ({len(received)} stored); {producer.summary}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(os.environ.get("CARGO_TARGET_DIR", environment.ROOT / "target")) / "release/raftmq"
    parser.add_argument("--raftmq", type=Path, default=default, help=f"the binary ({default})")
    parser.add_argument("--count", type=int, default=1000, help="messages from each producer")
    parser.add_argument("--interval-ms", type=float, default=10, help="pause between two sends")
    parser.add_argument("--keep", action="store_true", help="keep data and logs also on success")
    arguments = parser.parse_args()
    if not arguments.raftmq.is_file():
        parser.error(f"{arguments.raftmq} is not there: build it first")
    arguments.raftmq = arguments.raftmq.resolve()
    environment.python()
    environment.node()

    directory = Path(tempfile.mkdtemp(prefix="raftmq-interop-"))
    producers: list[Producer] = []
    cluster = Cluster(arguments.raftmq, directory)
    try:
        scenario(cluster, arguments, directory, producers)
        held = True
    except (Failed, subprocess.TimeoutExpired) as failure:
        print(f"FAILED: {failure}")
        for path in [producer.errors for producer in producers] + [directory / "dev.log"]:
            tail = path.read_text(errors="replace").splitlines()[-5:]
            print(f"--- the end of {path}", *tail, sep="\n")
        held = False
    finally:
        for producer in producers:
            producer.stop()
        cluster.stop()
    if held and not arguments.keep:
        shutil.rmtree(directory, ignore_errors=True)
    else:
        print(f"data and logs are in {directory}")
    print("interop: all held" if held else "interop: FAILED")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
