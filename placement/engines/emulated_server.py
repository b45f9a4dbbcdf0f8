"""One emulated replica behind its port: vLLM's routes over the pure core. ✎

In: requests of its port, the clock, events of its node. Out: OpenAI answers, streams of at most 50
chunks a wall second, `/metrics`. Never: decides times or memory.
"""

import asyncio

from uvicorn.server import ServerState

from placement.clock import monotonic_us
from placement.engines.asgi import Request, abort_all, run_later
from placement.engines.emulated_batch import Progress, Sequence
from placement.engines.emulated_controls import Controls, Host
from placement.engines.emulated_metrics import EngineMetrics
from placement.engines.emulated_replica import EmulatedReplica, Fate
from placement.engines.emulated_requests import (
    Job,
    Limits,
    Refused,
    error_body,
    parse,
)
from placement.engines.emulated_text import Voice, embeddings_body
from placement.engines.emulated_tokens import TOKEN_ROUTES, answer
from placement.engines.translated import TRANSLATED, translate
from placement.service_time import longest_tokens

_CHUNK_GAP_WALL_US = 20_000
_INFERENCE = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", *TRANSLATED)
_OPEN = (*_INFERENCE, *TOKEN_ROUTES, "/v1/models", "/health", "/metrics")


class _Stream:
    """A request in the engine, between the pump and the task that answers it."""

    __slots__ = ("cut", "ended", "event", "fate", "garbage", "job", "last_us", "sent", "sent_us")

    def __init__(self, job: Job, fate: Fate, garbage: bool) -> None:
        self.job = job
        self.fate = fate
        self.garbage = garbage
        self.event = asyncio.Event()
        self.ended = ""
        self.cut = False
        self.sent = 0
        self.sent_us = 0
        self.last_us = 0


class EngineServer:
    """Answers the port of one replica."""

    def __init__(self, host: Host, replica: EmulatedReplica, port: int) -> None:
        self.replica = replica
        self.port = port
        self.server: asyncio.Server | None = None
        self.host = host
        self._batch = replica.batch
        self._metrics = EngineMetrics()
        self._streams: dict[int, tuple[Sequence, _Stream]] = {}
        self._streaming = 0
        self._next_id = 0
        self._timer: asyncio.TimerHandle | None = None
        self.connections = ServerState()
        self.controls = Controls(self)

    # Time.

    def pump(self) -> int:
        """Bring the batch to now, wake the tasks that have something to send; the trace time."""
        now_us = self.host.clock.now_us()
        for progress in self._batch.advance(now_us):
            self._gained(progress)
        if self._batch.drained:
            self.controls.drained.set()
        if self._streaming:
            self._wake_due()
        self._arm(now_us)
        return now_us

    def _arm(self, now_us: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        next_us = self._batch.next_us()
        if next_us is None:
            return
        clock = self.host.clock
        if self._streaming:
            chunk_us = clock.trace_us(_CHUNK_GAP_WALL_US / 1_000_000)
            next_us = min(next_us, self._batch.step_end_us(now_us + chunk_us) or next_us)
        self._timer = run_later(clock.wall_s(next_us - now_us), self._tick)

    def _tick(self) -> None:
        self.pump()

    def _gained(self, progress: Progress) -> None:
        found = self._streams.get(progress.seq_id)
        if found is None:
            return
        seq, stream = found
        if stream.fate.kind == "crash" and seq.done_tokens > stream.fate.at_token:
            now_us = self.host.clock.now_us()
            message = "EngineDeadError: EngineCore encountered an issue (injected crash)"
            self.host.node.crash(self.replica.replica_id, now_us, message)
            asyncio.get_running_loop().call_soon(self.host.settle)
            return
        self._metrics.generation_tokens += progress.tokens
        if progress.first:
            self._metrics.prompt_tokens += seq.prompt_tokens
            self._metrics.observe("time_to_first_token_seconds", progress.at_us - seq.arrived_us)
        else:
            gap_us = (progress.at_us - stream.last_us) // progress.tokens
            self._metrics.observe("inter_token_latency_seconds", gap_us, progress.tokens)
        stream.last_us = progress.at_us
        if progress.finished:
            self._finish(seq, stream)

    def _finish(self, seq: Sequence, stream: _Stream) -> None:
        cut_short = seq.done_tokens < stream.job.output_tokens
        stream.ended = "length" if cut_short else stream.job.finish_reason
        self._metrics.finished["stop" if stream.ended == "tool_calls" else stream.ended] += 1
        first_us = seq.first_token_us or seq.arrived_us
        admitted_us = seq.admitted_us or seq.arrived_us
        last_us = stream.last_us
        self._metrics.ended(seq.arrived_us, admitted_us, first_us, last_us, seq.done_tokens)
        stream.event.set()

    def _wake_due(self) -> None:
        due_us = monotonic_us() - _CHUNK_GAP_WALL_US
        for seq, stream in self._streams.values():
            fresh = stream.job.stream and seq.done_tokens > stream.sent
            if fresh and stream.sent_us <= due_us:
                stream.event.set()

    def _leave(self, seq_id: int) -> None:
        """The client left: free what the sequence holds, at once."""
        found = self._streams.get(seq_id)
        if found is None:
            return
        self.pump()
        if self._batch.cancel(seq_id) is not None:
            self._metrics.finished["abort"] += 1
        found[1].cut = True
        found[1].event.set()
        self.pump()

    # Events of the node.

    def died(self) -> None:
        """The process is gone: nobody answers, every stream is cut."""
        if self.server is not None:
            self.server.close()
            self.server = None
        if self._timer is not None:
            self._timer.cancel()
        for _, stream in self._streams.values():
            stream.cut = True
            stream.event.set()
        self.controls.died()
        abort_all(self.connections)

    def aborted(self, seq_ids: list[int]) -> None:
        """The scheduler aborted these sequences: their answers end here."""
        for seq_id in seq_ids:
            found = self._streams.get(seq_id)
            if found is not None:
                found[1].ended = "abort"
                self._metrics.finished["abort"] += 1
                found[1].event.set()

    # Requests.

    async def handle(self, request: Request) -> None:
        if request.path not in _OPEN and not request.may(self.host.token):
            await request.reply(401, error_body(401, "this path needs the node agent's token"))
        elif request.path in _INFERENCE:
            await self._inference(request)
        elif request.path in TOKEN_ROUTES and request.method == "POST":
            told = answer(request.path, request.body, self._limits())
            await request.reply(told.status, told.body)
        elif request.method == "GET":
            await self._get(request)
        elif request.method == "POST":
            await self.controls.handle(request)
        else:
            await request.reply_json(405, {"detail": "Method Not Allowed"})

    async def _get(self, request: Request) -> None:
        match request.path:
            case "/health":
                await request.reply(200, b"", b"text/plain")
            case "/metrics":
                now_us = self.pump()
                text = self._metrics.render(self.replica, now_us).encode()
                await request.reply(200, text, b"text/plain; version=0.0.4; charset=utf-8")
            case "/v1/models":
                await request.reply_json(200, {"object": "list", "data": self._models()})
            case "/is_sleeping":
                await request.reply_json(200, {"is_sleeping": self.replica.is_sleeping})
            case "/version":
                await request.reply_json(200, {"version": "0.32.0+emulated"})
            case _:
                await request.reply_json(404, {"detail": "Not Found"})

    def _models(self) -> list[dict[str, object]]:
        spec = self.replica.spec
        created_s = self.host.clock.now_us() // 1_000_000
        return [
            {
                "id": name,
                "object": "model",
                "created": created_s,
                "owned_by": "vllm",
                "root": self.replica.loras.get(name, spec.source or spec.id),
                "parent": spec.id if name in self.replica.loras else None,
                "max_model_len": longest_tokens(spec),
            }
            for name in self.replica.names
        ]

    async def _inference(self, request: Request) -> None:
        if request.method != "POST":
            await request.reply_json(405, {"detail": "Method Not Allowed"})
            return
        translated = await translate(request)
        if translated is None:
            return
        request = translated
        job = parse(request.path, request.body, self._limits())
        if isinstance(job, Refused):
            await request.reply(job.status, job.body)
            return
        now_us = self.pump()
        self._next_id += 1
        stream = _Stream(job, self.replica.fate(job.output_tokens), self.replica.garbage)
        seq = Sequence(
            self._next_id,
            min(job.prompt_tokens, self._batch.kv_tokens - 1),
            job.output_tokens,
            now_us,
            job.blocks,
            stream.fate.at_token if stream.fate.kind == "hang" else None,
        )
        await self._run(request, seq, stream)

    def _limits(self) -> Limits:
        spec = self.replica.spec
        dimensions = 1024 if spec.weights_bytes >= 500_000_000 else 384
        return Limits(self.replica.names, longest_tokens(spec), dimensions)

    async def _run(self, request: Request, seq: Sequence, stream: _Stream) -> None:
        self._streams[seq.seq_id] = seq, stream
        self._streaming += stream.job.stream
        self._batch.add(seq)
        self._arm(self.host.clock.now_us())
        request.connection.on_gone = lambda: self._leave(seq.seq_id)
        try:
            await (self._stream if stream.job.stream else self._whole)(request, seq, stream)
        finally:
            request.connection.on_gone = None
            self._streaming -= stream.job.stream
            del self._streams[seq.seq_id]

    def _voice(self, request: Request, seq: Sequence, job: Job) -> Voice:
        kind = {"chat": "chatcmpl", "completions": "cmpl", "embeddings": "embd"}[job.kind]
        asked = request.header(b"x-request-id").decode("latin-1")
        own = f"{job.key:08x}{self.port:04x}{seq.seq_id:08x}"
        return Voice(
            chat=job.kind == "chat",
            request_id=f"{kind}-{asked or own}",
            model=job.model,
            created_s=seq.arrived_us // 1_000_000,
            key=job.key,
            tool=job.tool,
            arguments=job.tool_arguments,
        )

    async def _stream(self, request: Request, seq: Sequence, stream: _Stream) -> None:
        voice, job = self._voice(request, seq, stream.job), stream.job
        await request.begin_events()
        head = voice.opening()
        while True:
            await stream.event.wait()
            stream.event.clear()
            if stream.cut:
                request.cut()
                return
            tokens = seq.done_tokens
            if tokens == stream.sent and not stream.ended:
                continue
            chunk = head + voice.piece(stream.sent, tokens, stream.ended or None, stream.garbage)
            if stream.fate.kind == "half_stream" and tokens >= stream.fate.at_token:
                request.half_write(chunk)
                return
            head, stream.sent, stream.sent_us = b"", tokens, monotonic_us()
            if stream.ended:
                chunk += voice.closing(job.prompt_tokens, tokens, job.include_usage)
                await request.write(chunk, more=False)
                return
            await request.write(chunk)

    async def _whole(self, request: Request, seq: Sequence, stream: _Stream) -> None:
        await stream.event.wait()
        if stream.cut:
            request.cut()
            return
        job = stream.job
        voice = self._voice(request, seq, job)
        if job.kind == "embeddings":
            body = embeddings_body(
                voice.request_id,
                job.model,
                voice.created_s,
                list(job.inputs),
                job.dimensions,
                job.base64,
            )
        else:
            body = voice.whole(job.prompt_tokens, seq.done_tokens, stream.ended, stream.garbage)
        if stream.fate.kind == "half_stream":
            await request.begin_events()
            request.half_write(body)
            return
        await request.reply(200, body)
