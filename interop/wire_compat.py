#!/usr/bin/env python3
"""Holds our .proto files against the descriptors that the official Python client ships.

Every message, field, oneof, map, enum value and RPC of the client must be in ours, equal in all
that the wire shows. Ours may know more: what is newer than the client is counted, not compared.

    wire_compat.py [--descriptor-set FILE]   without a file, asks cargo for ours
    wire_compat.py --self-test               damages ours in every place, and requires to see it
"""

import argparse
import importlib
import importlib.metadata
import os
import subprocess
import sys
from collections import Counter

sys.dont_write_bytecode = True  # the checkout stays as it is
import environment  # noqa: E402

PACKAGE = "apache.rocketmq.v2"
CLIENT = "rocketmq-python-client"
CLIENT_MODULES = ["definition_pb2", "service_pb2", "admin_pb2"]
KINDS = ["message", "field", "optional field", "oneof", "map", "enum", "enum value", "service", "rpc"]


def plural(kind: str) -> str:
    return kind.upper() + "s" if kind == "rpc" else kind + "s"


def facts(files) -> dict:
    """All that the wire shows of these files: (kind, name) -> what has to be equal."""
    found = {}
    for file in files:
        if file.package != PACKAGE:
            continue
        found["syntax", file.syntax] = True
        for message in file.message_type:
            _message_facts(found, file.package, message)
        for enum in file.enum_type:
            _enum_facts(found, file.package, enum)
        for service in file.service:
            name = f"{file.package}.{service.name}"
            found["service", name] = True
            for rpc in service.method:
                found["rpc", f"{name}/{rpc.name}"] = {
                    "request": rpc.input_type,
                    "response": rpc.output_type,
                    "client streams": rpc.client_streaming,
                    "server streams": rpc.server_streaming,
                }
    return found


def _message_facts(found: dict, scope: str, message) -> None:
    name = f"{scope}.{message.name}"
    found["message", name] = {"map entry": message.options.map_entry}
    entries = {f".{name}.{nested.name}" for nested in message.nested_type if nested.options.map_entry}
    for field in message.field:
        real_oneof = field.HasField("oneof_index") and not field.proto3_optional
        found["field", f"{name}.{field.name}"] = {
            "number": field.number,
            "type": field.Type.Name(field.type),
            "type name": field.type_name,
            "label": field.Label.Name(field.label),
            "optional": field.proto3_optional,
            "oneof": message.oneof_decl[field.oneof_index].name if real_oneof else None,
            "packed": field.options.packed if field.options.HasField("packed") else None,
        }
        # Counted on their own: a reading of the descriptors that misses them all must not pass.
        if field.proto3_optional:
            found["optional field", f"{name}.{field.name}"] = True
        if real_oneof:
            found["oneof", f"{name}.{message.oneof_decl[field.oneof_index].name}"] = True
        if field.type_name in entries:
            found["map", f"{name}.{field.name}"] = True
    for nested in message.nested_type:
        _message_facts(found, name, nested)
    for enum in message.enum_type:
        _enum_facts(found, name, enum)


def _enum_facts(found: dict, scope: str, enum) -> None:
    found["enum", f"{scope}.{enum.name}"] = True
    for value in enum.value:
        found["enum value", f"{scope}.{enum.name}.{value.name}"] = value.number


def differences(theirs: dict, ours: dict) -> list[str]:
    """What the client has and we have not, or have otherwise."""
    lines = []
    for (kind, name), wanted in sorted(theirs.items(), key=lambda item: item[0]):
        if (kind, name) not in ours:
            lines.append(f"{kind} {name}: missing")
            continue
        actual = ours[kind, name]
        if isinstance(wanted, dict):
            for aspect in wanted:
                if wanted[aspect] != actual[aspect]:
                    lines.append(
                        f"{kind} {name}: {aspect} is {actual[aspect]!r}, the client has {wanted[aspect]!r}"
                    )
        elif wanted != actual:
            lines.append(f"{kind} {name}: is {actual!r}, the client has {wanted!r}")
    return lines


def verdict(theirs: dict, ours: dict) -> tuple[list[str], Counter]:
    """Differences, and the number of equal facts of each kind; finding none of a kind is wrong."""
    lines = differences(theirs, ours)
    counts = Counter(kind for kind, _ in theirs)
    lines += [f"the client's descriptors hold no {kind}" for kind in KINDS if not counts[kind]]
    return lines, counts


def client_files():
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    # The package makes folders for its logs below HOME when it is imported.
    home = os.environ.get("HOME")
    os.environ["HOME"] = str(environment.cache())
    files = []
    for module in CLIENT_MODULES:
        descriptor = importlib.import_module(f"rocketmq.grpc_protocol.{module}").DESCRIPTOR
        files.append(FileDescriptorProto.FromString(descriptor.serialized_pb))
    if home is None:
        del os.environ["HOME"]
    else:
        os.environ["HOME"] = home
    return files


def our_files(path: str | None):
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    if path is None:
        command = ["cargo", "run", "--release", "-q", "-p", "raftmq-proto", "--example", "descriptor_set"]
        encoded = subprocess.run(
            command, cwd=environment.ROOT, check=True, stdout=subprocess.PIPE
        ).stdout
    else:
        with open(path, "rb") as file:
            encoded = file.read()
    return list(FileDescriptorSet.FromString(encoded).file)


def _messages(scope: str, messages):
    for message in messages:
        name = f"{scope}.{message.name}"
        yield name, message
        yield from _messages(name, message.nested_type)


def damages(files):
    """Every way and every place: yields (what the report must name, a change and its undoing).

    Each change is one that a slip in a .proto file could make. A removal is undone by a copy, so it
    comes last: what was held before no longer belongs to the file.
    """

    def change(target, attribute, value):
        """Sets, and returns how to set back."""
        present = target.HasField(attribute)
        before = getattr(target, attribute)
        if value is None:
            target.ClearField(attribute)
        else:
            setattr(target, attribute, value)
        return lambda: setattr(target, attribute, before) if present else target.ClearField(attribute)

    def remove(container, index):
        kept = type(container[index])()
        kept.CopyFrom(container[index])
        del container[index]
        return lambda: container.insert(index, kept)

    def altered(target, attribute, value):
        return lambda: change(target, attribute, value)

    for file in files:
        if file.package != PACKAGE:
            continue
        for name, message in _messages(file.package, file.message_type):
            if message.options.map_entry:
                yield name, altered(message.options, "map_entry", None)
            for index, field in enumerate(message.field):
                place = f"{name}.{field.name}"
                yield place, altered(field, "number", field.number + 100)
                yield place, altered(field, "name", field.name + "_")
                yield place, altered(field, "type", 9 if field.type != 9 else 12)
                if field.type_name:
                    yield place, altered(field, "type_name", f".{PACKAGE}.Nothing")
                repeated = field.label == field.LABEL_REPEATED
                yield place, altered(field, "label", 1 if repeated else 3)
                if field.proto3_optional:
                    yield place, altered(field, "proto3_optional", None)
                elif field.HasField("oneof_index"):
                    yield place, altered(field, "oneof_index", None)
                yield place, lambda message=message, index=index: remove(message.field, index)
        for name, message in [(file.package, file), *_messages(file.package, file.message_type)]:
            for enum in message.enum_type:
                for index, value in enumerate(enum.value):
                    place = f"{name}.{enum.name}.{value.name}"
                    yield place, altered(value, "number", value.number + 7)
                    yield place, lambda enum=enum, index=index: remove(enum.value, index)
        for service in file.service:
            for index, rpc in enumerate(service.method):
                place = f"{file.package}.{service.name}/{rpc.name}"
                yield place, altered(rpc, "client_streaming", not rpc.client_streaming)
                yield place, altered(rpc, "server_streaming", not rpc.server_streaming)
                yield place, altered(rpc, "input_type", f".{PACKAGE}.Status")
                yield place, altered(rpc, "output_type", f".{PACKAGE}.Resource")
                yield place, lambda service=service, index=index: remove(service.method, index)
        for index, message in enumerate(file.message_type):
            place = f"{file.package}.{message.name}"
            yield place, lambda file=file, index=index: remove(file.message_type, index)


def self_test(theirs: dict, files) -> list[str]:
    """Reasons why the check is not to be trusted."""
    unseen = []
    if not verdict({}, facts(files))[0]:
        unseen.append("an empty client contract passes")
    compared = {name for _, name in theirs}
    tried = 0
    for place, damage in damages(files):
        if place not in compared:
            continue
        undo = damage()
        report = differences(theirs, facts(files))
        undo()
        tried += 1
        if not any(f" {place}:" in line for line in report):
            unseen.append(f"damage {tried} to {place} is not seen")
    if differences(theirs, facts(files)):
        unseen.append("the damage was not undone")
    # Each field is damaged in four ways at the least.
    if tried < 4 * sum(kind == "field" for kind, _ in theirs):
        unseen.append(f"only {tried} damages were tried")
    if not unseen:
        print(f"self-test: all of {tried} damages to our descriptors were seen")
    return unseen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--descriptor-set", help="encoded FileDescriptorSet of our .proto files")
    parser.add_argument("--self-test", action="store_true", help="check that the check can fail")
    arguments = parser.parse_args()

    theirs = facts(client_files())
    files = our_files(arguments.descriptor_set)
    ours = facts(files)
    lines, counts = verdict(theirs, ours)
    if arguments.self_test and not lines:
        lines = self_test(theirs, files)
    for line in lines:
        print(line)
    client = f"{CLIENT} {importlib.metadata.version(CLIENT)}"
    if lines:
        print(f"NOT compatible with {client}: {len(lines)} differences")
        return 1
    equal = ", ".join(f"{counts[kind]} {plural(kind)}" for kind in KINDS)
    newer = Counter(kind for kind, name in ours if (kind, name) not in theirs)
    more = ", ".join(f"{newer[kind]} {plural(kind)}" for kind in KINDS if newer[kind]) or "nothing"
    print(f"{client}: {equal} equal; ours alone: {more}")
    return 0


if __name__ == "__main__":
    environment.run_inside_python()
    sys.exit(main())
