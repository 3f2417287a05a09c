"""A local HTTP server that misbehaves on purpose."""

import os
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONTENT = os.urandom(300_000)


class Server:
    """Gives one answer after another, the last of them for ever; notes what was asked for: the
    ranges in `asked`, the places and who asked in `visits`.

    An answer is a function of the connection and of where the range asked for begins.
    """

    def __init__(self, *answers):
        asked, stopped = self.asked, self.stopped = [], threading.Event()
        visits = self.visits = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                place = self.headers.get("Range")
                visits.append((self.path, self.headers.get("User-Agent")))
                asked.append(place)
                self.stopped, self.close_connection = stopped, True
                with suppress(OSError):  # the other side has gone
                    start = int(place[len("bytes=") : -1]) if place else None
                    answers[min(len(asked), len(answers)) - 1](self, start)

            do_HEAD = do_GET

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.server.server_port}"
        self.url = f"{self.base}/input.txt"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error):
        self.stopped.set()
        self.server.shutdown()
        self.server.server_close()


def head(to, status=200, **headers):
    to.send_response(status)
    for name, value in headers.items():
        to.send_header(name.replace("_", "-"), str(value))
    to.end_headers()


def drip(to, data, pause=0.01):
    for i in range(len(data)):
        to.wfile.write(data[i : i + 1])
        if to.stopped.wait(pause):
            return


def serve(content=CONTENT, sent=None, stalls=False, ranges=True, **headers):
    """A proper answer; `sent` bytes of it, before the connection ends or, if it `stalls`, later."""

    def answer(to, start):
        first = start if start and ranges else 0
        length = {"Content_Length": len(content) - first} | headers
        if first:
            place = f"bytes {first}-{len(content) - 1}/{len(content)}"
            head(to, 206, **{"Content_Range": place} | length)
        else:
            head(to, 200, **length)
        to.wfile.write(content[first:][:sent])
        if stalls:
            to.stopped.wait()

    return answer


def status(code, **headers):
    return lambda to, start: head(to, code, Content_Length=0, **headers)


def library(files: dict[str, bytes], **odd):
    """An answer for each place: a file's content, what `odd` has for the file's name, else 404."""

    def answer(to, start):
        name = to.path.rsplit("/", 1)[-1]
        if name in odd:
            return odd[name](to, start)
        found = files.get(to.path.lstrip("/"))
        return status(404)(to, start) if found is None else serve(found)(to, start)

    return answer
