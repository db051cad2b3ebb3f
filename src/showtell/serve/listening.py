"""Opens the sockets that the service listens on. This precedes loading the model, so that a taken address fails early."""

import errno
import socket
from pathlib import Path

from showtell.errors import ListenError

_BACKLOG = 2048  # connections that the system accepts before the service does
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # this machine lacks the address family


def listen(host: str, port: int) -> list[socket.socket]:
    """Opens a socket for each address of `host`, all with the same port; port 0 is any free one. Raises ListenError."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ListenError(f"host {host!r} is no name or address of this machine ({error.strerror})") from None
    sockets: list[socket.socket] = []
    failed: OSError | None = None
    for family, _, _, _, (address, _, *_) in dict.fromkeys(addresses):
        try:
            sockets.append(socket.create_server((str(address), port), family=family, backlog=_BACKLOG))
            port = sockets[-1].getsockname()[1]
            # Its connections inherit this, which asyncio sets only where the socket names its protocol. Without it the body of
            # an answer waits 40 ms for the client to confirm the head.
            sockets[-1].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            failed = error
            if error.errno not in _ABSENT:
                break
    if failed and (failed.errno not in _ABSENT or not sockets):
        for opened in sockets:
            opened.close()
        raise ListenError(f"{host}:{port}: {_reason(failed)}") from None
    return sockets


def _reason(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "another program already listens there; give another --port (0 is any free one), or stop that program"
        case errno.EACCES:
            return "ports below 1024 are for root alone; give another --port, and use a proxy for port 80 or 443"
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address; give another --host"
    return f"cannot be listened on ({error.strerror or error})"


def listen_unix(path: Path) -> list[socket.socket]:
    """Opens a Unix domain socket at `path`, for every user of the machine who may enter its folder. Raises ListenError.

    The socket of a service that was killed is replaced.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise ListenError(f"{path}: this system has no Unix domain sockets; give --host and --port")
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():
            if _answers(path):
                raise ListenError(f"{path}: another program already listens there; give another path, or stop that program")
            path.unlink()
        opened.bind(str(path))
        path.chmod(0o666)
        opened.listen(_BACKLOG)
    except OSError as error:
        opened.close()
        if isinstance(error, ListenError):
            raise
        reason = "already exists and is no socket" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        raise ListenError(f"{path}: cannot be listened on ({reason}); give another path") from None
    return [opened]


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except TimeoutError:  # the program is too busy to accept
            pass
    return True


def address(opened: socket.socket) -> str:
    """The address that clients connect to, such as http://127.0.0.1:8000 or unix:/run/showtell.sock."""
    name = opened.getsockname()
    if isinstance(name, str):
        return f"unix:{name}"
    host, port = name[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
