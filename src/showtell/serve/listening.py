"""Where the service listens. It does so before the model is loaded: an address that is taken is said at once."""

import errno
import socket
from pathlib import Path

from showtell.errors import ListenError

_BACKLOG = 2048  # connections that the system takes before the service does
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # an address family that this machine does without


def listen(host: str, port: int) -> list[socket.socket]:
    """A socket for each address that `host` stands for; port 0 is any that is free. Raises ListenError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ListenError(f"host {host!r} is no name or address of this machine ({error.strerror})") from None
    sockets: list[socket.socket] = []
    failed: OSError | None = None
    for family, _, _, _, (address, _, *_) in dict.fromkeys(found):
        try:
            sockets.append(socket.create_server((str(address), port), family=family, backlog=_BACKLOG))
        except OSError as error:
            failed = error
            if error.errno not in _ABSENT:
                break
            continue
        port = sockets[-1].getsockname()[1]  # the same one for all
    if failed and (failed.errno not in _ABSENT or not sockets):
        for opened in sockets:
            opened.close()
        raise ListenError(f"{host}:{port}: {_reason(failed)}") from None
    return sockets


def _reason(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "another program listens there already; give another --port (0 is any that is free), or stop that program"
        case errno.EACCES:
            return "ports below 1024 are for root alone; give another --port, and put a proxy in front for port 80 or 443"
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address; give another --host"
    return f"cannot be listened on ({error.strerror or error})"


def listen_unix(path: Path) -> list[socket.socket]:
    """A Unix domain socket at `path`, open to every user of the machine who may enter its folder. Raises ListenError.

    What a service that was killed left there is replaced.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise ListenError(f"{path}: this system has no Unix domain sockets; give --host and --port")
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():
            if _answers(path):
                raise ListenError(f"{path}: another program listens there already; give another path, or stop that program")
            path.unlink()
        opened.bind(str(path))
        path.chmod(0o666)
        opened.listen(_BACKLOG)
    except OSError as error:
        opened.close()
        if isinstance(error, ListenError):
            raise
        reason = "is there and is no socket" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        raise ListenError(f"{path}: cannot be listened on ({reason}); give another path") from None
    return [opened]


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except TimeoutError:  # a program that is too busy to take it
            pass
    return True


def address(opened: socket.socket) -> str:
    """What clients connect to: http://127.0.0.1:8000, or unix:/run/showtell.sock."""
    name = opened.getsockname()
    if isinstance(name, str):
        return f"unix:{name}"
    host, port = name[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
