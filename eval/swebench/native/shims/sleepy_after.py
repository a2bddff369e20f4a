"""Does something to a module as soon as it is imported, and again if it is imported afresh; nothing is imported for that."""

import sys
from importlib.machinery import PathFinder

_what = {}


def after(name, change):
    """Call `change` with the module `name`, now or when it comes."""
    if not _what:
        sys.meta_path.insert(0, _Finder())
    _what.setdefault(name, []).append(change)
    if name in sys.modules:
        change(sys.modules[name])


class _Finder:
    def find_spec(self, fullname, path=None, target=None):
        if fullname not in _what:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            for change in _what[fullname]:
                change(module)

        spec.loader.exec_module = exec_module
        return spec
