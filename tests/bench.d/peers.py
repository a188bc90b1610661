"""nginx as the peer, with a configuration of its own, on loopback, in a folder of its own."""

import os
import socket
import subprocess
from pathlib import Path

from cairn import wait_for

CONFIGURATION = """\
{user}
daemon off;
worker_processes 2;
worker_rlimit_nofile 8192;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    open_file_cache max=1000 inactive=1h;
    open_file_cache_valid 1h;
    default_type application/octet-stream;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        root {root};
        {dav}
    }}
}}
"""


class Nginx:
    """A running nginx that serves a folder; use as a context."""

    def __init__(self, bench, folder: Path, root: Path, dav=False):
        """With `dav` it takes files by PUT, of any size."""
        self.dav = "dav_methods PUT; client_max_body_size 0;" if dav else ""
        self.program = bench.tool("nginx")
        self.folder = folder / "nginx"
        self.root = root
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.host = "127.0.0.1"

    def __enter__(self):
        self.folder.mkdir()
        configuration = self.folder / "nginx.conf"
        configuration.write_text(
            CONFIGURATION.format(
                user="user root;" if os.geteuid() == 0 else "",
                folder=self.folder,
                port=self.port,
                root=self.root,
                dav=self.dav,
            )
        )
        self.process = subprocess.Popen(
            [self.program, "-p", str(self.folder), "-c", str(configuration)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(self._listens, 10, f"nginx listens; {self._errors()}")
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _listens(self) -> bool:
        assert self.process.poll() is None, f"nginx ended: {self._errors()}"
        try:
            socket.create_connection((self.host, self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def _errors(self) -> str:
        log = self.folder / "error.log"
        return log.read_text() if log.exists() else ""

    @property
    def pid(self) -> int:
        """The master; its workers are its children."""
        return self.process.pid
