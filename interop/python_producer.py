#!/usr/bin/env python3
"""Sends messages with the official Python client, as an application would.

    python_producer.py ACCESS_POINT TOPIC COUNT [--patience-seconds N] [--interval-ms N] [--tls]

Writes `acked <message id> <body>` for each message that the client was told is stored, and at the
end one line that begins with `summary`. What fails is sent again until it succeeds or patience
ends, by the same producer: replacing a leader is for the broker and the client to sort out.
"""

import argparse
import os
import sys
import time

from rocketmq import ClientConfiguration, Credentials, Message, Producer


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("access_point", help="HOST:PORT, or several joined by ';'")
    parser.add_argument("topic")
    parser.add_argument("count", type=int)
    parser.add_argument("--patience-seconds", type=float, default=90)
    parser.add_argument("--interval-ms", type=float, default=0)
    parser.add_argument("--tls", action="store_true", help="trusts what gRPC is told to trust")
    return parser.parse_args()


def started(arguments: argparse.Namespace) -> Producer:
    configuration = ClientConfiguration(arguments.access_point, Credentials())
    producer = Producer(configuration, (arguments.topic,), tls_enable=arguments.tls)
    producer.startup()
    return producer


def message(topic: str, number: int) -> Message:
    made = Message()
    made.topic = topic
    made.body = f"{topic}-{number}".encode()
    made.tag = "interop"
    made.keys = f"key-{number}"
    made.add_property("language", "python")
    return made


def main() -> int:
    arguments = parse()
    producer = started(arguments)
    acked = failures = 0
    longest_gap = 0.0
    last = time.monotonic()
    for number in range(arguments.count):
        while True:
            # The client names a message when it sends it: one that was not acked may well be stored.
            wanted = message(arguments.topic, number)
            try:
                receipt = producer.send(wanted)
                break
            except Exception as error:  # whatever an application would have to survive
                failures += 1
                print(f"failed {wanted.message_id} {error!r}", file=sys.stderr, flush=True)
                if time.monotonic() - last > arguments.patience_seconds:
                    print(f"summary acked={acked} failures={failures} gave_up_at={number}", flush=True)
                    return 1
                time.sleep(0.1)
        now = time.monotonic()
        longest_gap = max(longest_gap, now - last)
        last = now
        acked += 1
        print(f"acked {receipt.message_id} {wanted.body.decode()}", flush=True)
        time.sleep(arguments.interval_ms / 1000)
    print(f"summary acked={acked} failures={failures} longest_gap_ms={longest_gap * 1000:.0f}", flush=True)
    producer.shutdown()
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # The client's threads outlive a producer that could not shut down.
    os._exit(code)
