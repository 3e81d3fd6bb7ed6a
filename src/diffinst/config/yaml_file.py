"""Reads YAML files of strangers: plain values in little memory, or an error of one line."""

from __future__ import annotations

from pathlib import Path

import yaml

MAX_VALUES = 1_000_000
"""With every alias written out; few lines of aliases of aliases can stand for billions."""

_MOST_DIGITS = 40


class YamlError(ValueError):
    """A file is no YAML that can be read; says what is wrong and where, but not the file."""


def read_yaml(file: Path) -> object:
    """The content of a YAML or JSON file.

    Args:
        file: UTF-8, with or without a byte order mark.

    Returns:
        Mappings, lists, texts, numbers, dates, true, false and null; None for an empty file.

    Raises:
        YamlError: The file is no YAML, holds tags for anything else, or values that cannot be.
        OSError: It cannot be opened.
    """
    try:
        loader = yaml.SafeLoader(file.read_text(encoding="utf-8-sig"))
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {})
        content: object = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise YamlError(f"{error.problem or error.context}{where}") from error
    except RecursionError as error:
        raise YamlError("lists within lists, too deep to be read") from error
    except YamlError:
        raise
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise YamlError(" ".join(str(error).split())) from error
    except (ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:
        # What makes dates and numbers of texts raises these for texts that are none.
        raise YamlError(f"a value is not what its form or its tag says ({error})") from error
    return content


def _count(node: yaml.Node, counts: dict[int, int]) -> int:
    """How many values a node stands for; `counts` has those known, 0 for those not yet done."""
    known = counts.get(id(node))
    if known is not None:
        if not known:
            raise YamlError(f"a value holds itself, line {node.start_mark.line + 1}")
        return known
    counts[id(node)] = 0
    inner: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        inner = [one for pair in node.value for one in pair]
    elif isinstance(node, yaml.SequenceNode):
        inner = node.value
    elif node.tag == "tag:yaml.org,2002:int" and len(node.value) > _MOST_DIGITS:
        raise YamlError(f"a number of {len(node.value)} digits, line {node.start_mark.line + 1}")
    total = 1 + sum(_count(one, counts) for one in inner)
    if total > MAX_VALUES:
        raise YamlError(
            f"more than {MAX_VALUES} values, aliases written out, from line "
            f"{node.start_mark.line + 1} on"
        )
    counts[id(node)] = total
    return total
