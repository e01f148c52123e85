"""Key files: 64 hex digits and a newline, readable by their owner only."""

import os
import stat
from pathlib import Path

from watt_node.config import ConfigError


def read_secret(path: Path) -> bytes:
    """The 32 bytes of a private key file; ConfigError that never repeats the content."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the key: {error.strerror}") from None
    with os.fdopen(handle, "rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        text = file.read(100)
    # A systemd credential is shared with the service's user by an ACL, which shows as a group bit.
    credentials = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if mode & (0o037 if credentials and path.is_relative_to(credentials) else 0o077):
        raise ConfigError(f"{path}: the key is readable by others (mode {mode:04o}); allowed is 0600 or stricter")
    try:
        secret = bytes.fromhex(text.decode("ascii").rstrip("\n"))
    except (UnicodeDecodeError, ValueError):
        secret = b""
    if len(secret) != 32:
        raise ConfigError(f"{path}: not a key file (64 hex digits and a newline)")
    return secret
