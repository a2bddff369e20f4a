"""The command line's side of the control socket. Standard library only: `sleepyctl status` must answer at once."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

from daemon.errors import DaemonError, NoDaemonError, RefusedError

TIMEOUT_SECONDS = 30.0


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("sleepyd", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket's path."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask(path: Path, method: str, target: str, body: dict[str, Any] | None = None, timeout: float = TIMEOUT_SECONDS) -> Any:
    """What the daemon answers.

    Raises:
        NoDaemonError: if none listens there.
        RefusedError: if it will not do this now; the text says why.
        DaemonError: if it failed, or answers nothing sensible.
    """
    connection = _Connection(path, timeout)
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, target, text, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise NoDaemonError(f"no daemon runs on {path.parent}; `sleepyctl run` starts one") from error
    except PermissionError as error:
        raise DaemonError(f"{path} belongs to somebody else; run as the daemon's user") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DaemonError(f"the daemon on {path} does not answer properly ({error!r}); see `sleepyctl logs`") from error
    finally:
        connection.close()
    if response.status == http.client.CONFLICT:
        raise RefusedError(answer["error"])
    if response.status != http.client.OK:
        raise DaemonError(str(answer.get("error", answer)) if isinstance(answer, dict) else str(answer))
    return answer
