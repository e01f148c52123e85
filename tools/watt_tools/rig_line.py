"""The line to a running bench: one JSON request and one JSON answer over the socket in the bench's folder."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

ANSWER_S = 10
CHUNK = 65_536


def ask(folder: Path, request: dict[str, object]) -> dict[str, Any]:
    """Send one request to the bench in `folder`; OSError or ValueError when there is none."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(ANSWER_S)
        line.connect(str(folder / "rig.sock"))
        line.sendall(json.dumps(request).encode() + b"\n")
        data = b""
        while not data.endswith(b"\n"):
            part = line.recv(CHUNK)
            if not part:
                break
            data += part
    answer = json.loads(data)
    assert isinstance(answer, dict)
    return answer
