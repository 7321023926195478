"""The guide as something that can be run: blocks of commands, where each is run, and what it must print.

A block of commands begins with a line `# on host1 and host2` or `# on host1, then host2`. The `text` block after it
holds lines of what it prints: each must be found, in this order; `…` stands for anything, any white space is alike.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Block:
    """Commands, the machines that they are run on, and lines that they must print there."""

    line: int
    machines: list[str]
    commands: str
    expected: list[str] = field(default_factory=list)

    def missing(self, output: str) -> str | None:
        """The first expected line that the output lacks."""
        lines = iter(output.splitlines())
        for expected in self.expected:
            parts = [r"\s+".join(map(re.escape, part.split())) for part in expected.split("…")]
            pattern = re.compile(r".*".join(rf"\s*{part}\s*" if part else "" for part in parts))
            if not any(pattern.fullmatch(line.strip()) for line in lines):
                return expected
        return None


def read(path: Path) -> dict[str, list[Block]]:
    """The blocks of each section, by its title, in order."""
    sections: dict[str, list[Block]] = {}
    title, language, body, begin = "", None, [], 0
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if language is None and line.startswith("## "):
            title = line[3:]
            sections[title] = []
        elif language is None and line.startswith("```"):
            language, body, begin = line[3:].strip(), [], number
        elif line == "```":
            add(sections[title], language, body, begin)
            language = None
        elif language is not None:
            body.append(line)
    return sections


def add(blocks: list[Block], language: str, body: list[str], line: int) -> None:
    if language == "sh":
        where = re.fullmatch(r"# on (.+)", body[0])
        if not where:
            raise ValueError(f"line {line + 1} of the guide does not say where the block is run")
        machines = re.split(r",? then |,? and |, ", where[1])
        blocks.append(Block(line, machines, "\n".join(body[1:])))
    elif language == "text":
        blocks[-1].expected += body
    else:
        raise ValueError(f"line {line} of the guide: a block of {language!r} is neither run nor compared")
