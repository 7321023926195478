"""Messages that are sent and received while a section of the guide is carried out."""

import json
import signal
import subprocess
import threading
import time

from machines import Machine

# Lines a second: enough to notice any gap, little enough to leave the machine to the servers.
RATE = 200
# Longest wait for the last receipts, and then for the last messages.
PATIENCE_SECONDS = 120


class Failed(Exception):
    """A check did not hold; the text is for the person who has to look into it."""


class Load:
    """`raftmq produce` with a line every few milliseconds, and `raftmq consume` as one member of a group."""

    def __init__(self, machine: Machine, topic: str, name: str):
        self.topic, self.name = topic, name
        self.sent: list[str] = []
        self.receipts: list[dict] = []
        self.times: list[float] = []
        self.received: list[str] = []
        self.over = threading.Event()
        self.producer = machine.start(
            ["raftmq", "produce", topic, "--json"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        self.consumer = machine.start(
            ["raftmq", "consume", topic, "--group", name, "--from", "earliest", "--follow"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self._feed, self._collect, self._receive)]
        for thread in self.threads:
            thread.start()
        self.wait(lambda: len(self.receipts) >= RATE, "the first receipts")

    def _feed(self) -> None:
        begin = time.monotonic()
        try:
            while not self.over.is_set():
                line = f"{self.name}-{len(self.sent)}"
                self.producer.stdin.write(line + "\n")
                self.producer.stdin.flush()
                self.sent.append(line)
                time.sleep(max(0.0, begin + len(self.sent) / RATE - time.monotonic()))
            self.producer.stdin.close()
        except BrokenPipeError:
            pass  # It ended too early: its exit code says so.

    def _collect(self) -> None:
        for line in self.producer.stdout:
            self.times.append(time.monotonic())
            self.receipts.append(json.loads(line))

    def _receive(self) -> None:
        for line in self.consumer.stdout:
            self.received.append(line.rstrip("\n"))

    def wait(self, condition, what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if self.producer.poll() not in (None, 0):
                raise Failed(f"produce ended with {self.producer.returncode}: {self.producer.stderr.read().strip()}")
            if self.consumer.poll() is not None:
                raise Failed(f"consume ended with {self.consumer.returncode}: {self.consumer.stderr.read().strip()}")
            if time.monotonic() > deadline:
                counts = f"sent {len(self.sent)}, stored {len(self.receipts)}, received {len(set(self.received))}"
                raise Failed(f"not within {PATIENCE_SECONDS} s: {what} ({counts})")
            time.sleep(0.05)

    def more(self, seconds: float) -> None:
        """Waits until that much more was stored."""
        wanted = len(self.receipts) + seconds * RATE
        self.wait(lambda: len(self.receipts) >= wanted, "further receipts")

    def finish(self) -> dict:
        """Requires that every line was stored and received; returns the figures."""
        self.over.set()
        self.threads[0].join(PATIENCE_SECONDS)
        self.wait(lambda: self.producer.poll() is not None, "the end of produce")
        self.threads[1].join(PATIENCE_SECONDS)
        if len(self.receipts) != len(self.sent):
            raise Failed(f"{len(self.sent)} lines were sent and {len(self.receipts)} stored")
        sent = set(self.sent)
        self.wait(lambda: sent <= set(self.received), "every stored line received")
        self.consumer.send_signal(signal.SIGINT)
        self.consumer.wait(PATIENCE_SECONDS)
        gaps = [later - earlier for earlier, later in zip(self.times, self.times[1:])]
        return {
            "sent": len(self.sent),
            "stored": len(self.receipts),
            "lost": len(sent - set(self.received)),
            "twice": len([line for line in self.received if line in sent]) - len(sent),
            "longest_gap_ms": round(max(gaps) * 1000),
        }

    def stop(self) -> None:
        """Whatever became of it."""
        for process in (self.producer, self.consumer):
            if process.poll() is None:
                process.kill()
                process.wait(20)
