"""What is wrong with a profile by its schema, in lines that a reader of the file understands."""

from __future__ import annotations

import types
from collections.abc import Collection, Mapping
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from realign_utils.errors import unknown, unknown_estimator
from realign_utils.parameters import FILE_NAME, SOURCES, ImageSource, Parameters

MANY = 3
"""With more keys missing a profile was meant to extend another."""


def lines_of(error: ValidationError, where: str) -> str:
    """Say what pydantic found fault with.

    Parameters
    ----------
    error : pydantic.ValidationError
        Of `parameters.Parameters`.
    where : str
        What the lines call the profile.

    Returns
    -------
    str
        One line for each key, but for many missing ones a single line.
    """
    faults = error.errors()
    absent = [fault for fault in faults if fault["type"] == "missing" and len(fault["loc"]) == 1]
    lines: dict[str, str] = {}
    if len(absent) > MANY:
        hint = "'extends: demo' takes what is not given from the demo"
        names = ", ".join(str(fault["loc"][0]) for fault in absent)
        lines[""] = f"{where}: {names} are missing; {hint}"
        faults = [fault for fault in faults if fault not in absent]
    for fault in faults:
        key, schema, annotation = _place([str(part) for part in fault["loc"]])
        if _is_union(annotation):
            told = _line_of_forms(fault, key, annotation)
            if isinstance(fault["loc"][-1], int):  # says more than that it is no other form either
                lines[key] = f"{where}: {told}"
        else:
            told = _line(fault, key, schema)
        lines.setdefault(key, f"{where}: {told}")
    return "\n".join(lines.values())


def parts_of(location: list[str]) -> Collection[str]:
    """The parameters that a section of a profile may have; none of what is no such section."""
    *_, annotation = _place(location)
    return annotation.model_fields if _is_section(annotation) else ()


def _line_of_forms(fault: Mapping[str, Any], key: str, union: Any) -> str:
    """Line for a value in none of the forms of a union: 'all' | list of names, or such."""
    if isinstance(fault["loc"][-1], int):
        return f"{key}: a name in the list should be a string, not {fault['input']!r}"
    words = [choice for form in get_args(union) for choice in get_args(form)]
    words = [word for word in words if isinstance(word, str)]
    if words:
        return f"{key}: {unknown('value', fault['input'], words)}, or a list of names"
    return f"{key}: should be a string, or a list of names, not {fault['input']!r}"


def _line(fault: Mapping[str, Any], key: str, schema: type[BaseModel]) -> str:
    kind, given = fault["type"], fault["input"]
    if kind == "extra_forbidden":
        return f"{key}: {unknown('parameter', key.rpartition('.')[2], schema.model_fields)}"
    if kind == "missing":
        return f"{key}: is missing"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        named = given.get("kind") if isinstance(given, Mapping) else given
        return f"{key}.kind: {unknown('kind of images', named, SOURCES)}"
    if kind == "literal_error":
        expected = fault["ctx"]["expected"].replace(" or ", ", ").split(", ")
        choices = [choice.strip("'") for choice in expected]
        if key == "estimator":
            return f"{key}: {unknown_estimator(given, choices)}"
        return f"{key}: {unknown('value', given, choices)}"
    if kind == "string_pattern_mismatch":
        if fault["loc"][-1] == "[key]":
            return f"{key.partition('.')[0]}: the name {given!r} is not allowed: {FILE_NAME}"
        if key == "profile":
            whose = "of the file, where it gives none"
            return f"profile: the name {given!r} ({whose}) is not allowed: {FILE_NAME}"
        description = schema.model_fields[key.rpartition(".")[2]].description
        return f"{key}: {given!r} is not allowed: {description}"
    return f"{key}: {fault['msg'].replace('Input should', 'should')}, not {given!r}"


def _place(location: list[str]) -> tuple[str, type[BaseModel], Any]:
    """Dotted key of one of pydantic's locations, the section that it belongs to, and its type.

    Pydantic names the chosen member of a union in the location; a reader's file does not.
    """
    key, schema, annotation = [], Parameters, Parameters
    for part in location:
        if part in SOURCES and annotation is ImageSource:
            schema = annotation = SOURCES[part]
            continue
        if _is_section(annotation):
            schema = annotation
            field = schema.model_fields.get(part)
            annotation = _without_none(field) if field else None
        elif get_origin(annotation) is dict:
            annotation = get_args(annotation)[1]
        else:
            break  # the members of a union such as 'all' | list of names
        key.append(part)
    return ".".join(key), schema, annotation


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def _without_none(field: FieldInfo) -> Any:
    if field.discriminator:
        return ImageSource
    if _is_union(field.annotation):
        members = [part for part in get_args(field.annotation) if part is not type(None)]
        return members[0] if len(members) == 1 else field.annotation
    return field.annotation
