"""What a plotting library wrote as SVG, made small, told to those who cannot see it, and fit to stand beside others."""

from __future__ import annotations

import re
import xml.etree.ElementTree as Tree

from eval.report.text import plain

_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_FONT = "font-family: 'DejaVu Sans', Verdana, sans-serif; stroke-linejoin: round"
_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_POINTED = re.compile(r"url\(#([\w-]+)\)")


def tidied(text: str, name: str, title: str, description: str) -> str:
    """The document, with a title and a description that assistive technology reads, and ids that begin with `name`.

    Left out is what is never seen: comments, metadata, groups of nothing, digits beyond hundredths of a point.
    """
    Tree.register_namespace("", _SVG)
    Tree.register_namespace("xlink", _LINK)
    root = Tree.fromstring(text)  # comments are dropped here
    _named_apart(root, name)
    _lighter(root)
    root.attrib.update({"role": "img", "aria-labelledby": f"{name}-title {name}-desc", "style": _FONT})
    for place, (tag, told) in enumerate((("title", title), ("desc", description))):
        child = Tree.Element(f"{{{_SVG}}}{tag}", {"id": f"{name}-{tag}"})
        child.text = plain(told)
        root.insert(place, child)
    for child in root:
        child.tail = "\n"
    return Tree.tostring(root, encoding="unicode") + "\n"


def _named_apart(root: Tree.Element, name: str) -> None:
    """Ids only where something points at them, and such as only this document has."""
    href = f"{{{_LINK}}}href"
    used = {element.get(href, "")[1:] for element in root.iter()}
    used |= {found for element in root.iter() for value in element.attrib.values() for found in _POINTED.findall(value)}
    for element in root.iter():
        if (own := element.attrib.pop("id", None)) in used:
            element.set("id", f"{name}-{own}")
        if href in element.attrib:
            element.set(href, f"#{name}-{element.attrib[href][1:]}")
        for key, value in element.attrib.items():
            element.set(key, _POINTED.sub(rf"url(#{name}-\1)", value))


def _lighter(parent: Tree.Element) -> None:
    children: list[Tree.Element] = []
    for child in list(parent):
        _lighter(child)
        tag = child.tag.removeprefix(f"{{{_SVG}}}")
        if tag in {"metadata", "style"} or (tag in {"g", "defs"} and len(child) == 0):
            continue
        children += list(child) if tag == "g" and not child.attrib else [child]
    parent[:] = children
    if parent.tag != f"{{{_SVG}}}text":
        parent.text = None
    for child in children:
        child.tail = None
    for key, value in list(parent.attrib.items()):
        parent.set(key, _short(key, value))
    if parent.get("transform", "-").startswith("rotate(-0 "):
        del parent.attrib["transform"]


def _short(key: str, value: str) -> str:
    if key == "style":
        value = re.sub(r"font-family:[^;]*;\s*", "", re.sub(r"font: ([\d.]+px) [^;]*", r"font-size: \1", value))
    if key in {"d", "x", "y", "points", "transform", "width", "height", "style"}:
        value = _NUMBER.sub(lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), value)
    return " ".join(value.split())
