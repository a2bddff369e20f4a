"""The judge's script; see the package. It is run by its path, with nothing but this folder to be found beside it."""

import os
import sys

if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib costs a quarter of the start
    __package__ = os.path.basename(here)  # noqa: PTH119
    sys.path.append(os.path.dirname(here))  # noqa: PTH120
    from .court import main

    sys.path.pop()
    for _name in [name for name in sys.modules if name.partition(".")[0] == __package__]:
        del sys.modules[_name]  # the repository may have modules of these names
    raise SystemExit(main(sys.argv))
