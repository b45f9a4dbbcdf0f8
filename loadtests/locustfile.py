"""Users for locust, `locust -f loadtests/locustfile.py -H http://127.0.0.1:8000`. An edge.

In: any OpenAI-compatible address, options. Out: locust's statistics, one row per kind of request
and model, with TTFT and ITL as rows of their own; docs/load.md says what each row means.
Never: sends a request twice, takes a tenant's limit for a failure, shows a key.
"""

import logging
from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import gevent
from gevent.pool import Group
from locust import User, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtests.answers import Outcome
from loadtests.errors import AskedError
from loadtests.locust_client import Client, Heard
from loadtests.private_file import private_text
from loadtests.prompts import Prompts
from loadtests.visits import Guest, Habits, Kind, Tenant, Visit, tenants_in, weights_in

log = logging.getLogger("warmtide.load")

LIMITED = "429 rate_limit_exceeded"
CHATS_NOT = "400 unsupported_task"
BAD_INPUT = 2
TTFT, ITL = "TTFT", "ITL"
LEFT, STOPPED, TENANT_LIMIT, NO_CHAT = "left", "stopped", "limited", "no chat"
"""Types of rows beside the kinds of requests."""


class UnansweredError(Exception):
    """What locust's table of failures shows: an outcome and its code."""


def _options(parser: LocustArgumentParser) -> None:
    """Every option can be set by an environment variable too, as locust's own can."""

    def option(flag: str, default: Any, told: str, **more: Any) -> None:
        name = f"WARMTIDE_LOAD_{flag.strip('-').replace('-', '_').upper()}"
        kind = type(default)
        parser.add_argument(flag, default=default, type=kind, env_var=name, help=told, **more)

    option("--models", "", "a,b=3: names and weights; all that the address lists if not given")
    option("--seed", 0, "of every draw")
    option("--think-s", 1.0, "mean seconds between an answer and the same user's next request")
    option("--prompt-tokens", 200.0, "mean length of prompts, about 4 characters a token")
    option("--output-tokens", 100.0, "mean of max_tokens")
    option("--leave-within-s", 2.0, "clients that leave early do so within these seconds")
    option("--patience-s", 180.0, "seconds without a byte after which a client gives up")
    option("--at-once", 8, "requests that a burst sends at once")
    option("--requests-max", 0, "end the run after so many requests per process; 0: no bound")
    option("--tenants-file", "", "lines of NAME WEIGHT KEY; mode 0600")
    told = "the same lines; set the environment variable, others can read a command line"
    option("--tenants", "", told, include_in_web_ui=False)


class Load:
    """What all users of this process share."""

    def __init__(self, options: Namespace, url: str, worker: int) -> None:
        self.url = url
        self.patience_s: float = options.patience_s
        self.at_once: int = options.at_once
        self.tenants = _tenants(options)
        self.models = weights_in(options.models) or self._listed()
        self._left = options.requests_max or float("inf")
        self._habits = Habits(
            seed=options.seed,
            think_s=options.think_s,
            prompt_tokens=options.prompt_tokens,
            output_tokens=options.output_tokens,
            leave_within_s=options.leave_within_s,
        )
        self._prompts = Prompts(options.seed)
        self._worker = worker
        self._guests: Counter[str] = Counter()

    def _listed(self) -> dict[str, float]:
        listed = self.client(self.tenants[0]).models()
        if not listed:
            raise AskedError(f"{self.url} lists no model")
        return dict.fromkeys(listed, 1.0)

    def client(self, tenant: Tenant, at_once: int = 1) -> Client:
        return Client(self.url, tenant.key, patience_s=self.patience_s, at_once=at_once)

    def guest(self, role: str) -> Guest:
        """The next user of this role; the n-th is the same in every run with this seed."""
        self._guests[role] += 1
        name = f"{self._worker} {role} {self._guests[role]}"
        return Guest(name, self._habits, self._prompts, self.tenants)

    def one_more(self, environment: Environment) -> bool:
        """Whether another request may be sent; the first that may not ends the run."""
        self._left -= 1
        if self._left == -1:
            _end(environment)
        return self._left >= 0


def _tenants(options: Namespace) -> tuple[Tenant, ...]:
    if options.tenants_file:
        return tenants_in(private_text(Path(options.tenants_file), "--tenants-file"))
    return tenants_in(options.tenants)


def _begin(environment: Environment, **_: Any) -> None:
    """Look at the address once; what is wrong is one sentence, and nothing is sent."""
    runner, options = environment.runner, environment.parsed_options
    assert runner is not None, "locust makes its runner before it starts a test"
    assert options is not None, "this file runs under the locust command, which parses options"
    OpenAIUser.load = None
    try:
        worker = getattr(runner, "worker_index", 0)
        OpenAIUser.load = Load(options, _address(environment.host), worker)
    except AskedError as error:
        log.error("%s", error)  # noqa: TRY400 -- for people
        _end(environment, BAD_INPUT)


def _address(host: str | None) -> str:
    if not host or not host.startswith(("http://", "https://")):
        raise AskedError("name the address, as --host http://127.0.0.1:8000")
    return host


def _end(environment: Environment, exit_code: int | None = None) -> None:
    """End the run soon; not from here, which may be one of the greenlets that it ends."""
    if exit_code is not None:
        environment.process_exit_code = exit_code
    assert environment.runner is not None, "only a running test ends"
    gevent.spawn(environment.runner.quit)


class OpenAIUser(User):
    """Asks, waits for the answer, thinks, asks again."""

    abstract = True
    load: ClassVar[Load | None] = None
    kind: ClassVar[Kind] = Kind.STREAM
    leaves: ClassVar[bool] = False

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        if self.load is not None:
            self.guest = self.load.guest(type(self).__name__)
            self.client = self.load.client(self.guest.tenant, self.at_once(self.load))

    def at_once(self, _load: Load) -> int:
        return 1

    def wait_time(self) -> float:
        return self.guest.think_s() if self.load is not None else 1.0

    @task
    def turn(self) -> None:
        self.ask()

    def ask(self) -> None:
        if (visit := self.next_visit()) is not None:
            self.ask_once(visit)

    def next_visit(self) -> Visit | None:
        """Nothing where the run has not begun or is about to end: locust then ends its users."""
        if self.load is None or not self.load.one_more(self.environment):
            return None
        return self.guest.visit(self.kind, self.load.models, leaves=self.leaves)

    def ask_once(self, visit: Visit) -> None:
        heard = self.client.ask(visit)
        self._note(visit, heard)
        if heard.stopped:
            raise gevent.GreenletExit

    def on_stop(self) -> None:
        if self.load is not None:
            self.client.close()

    # --- rows

    def _note(self, visit: Visit, heard: Heard) -> None:
        """One row that tells how it ended, and one each for TTFT and ITL where there was any."""
        answer, wall_ms = heard.answer, heard.wall_us / 1000
        match answer.outcome:
            case Outcome.ANSWERED:
                self._row(visit.kind, visit.model, wall_ms, heard.length_bytes)
            case Outcome.CANCELLED:
                self._row(
                    STOPPED if heard.stopped else LEFT, visit.model, wall_ms, heard.length_bytes
                )
            case Outcome.REFUSED if answer.code == LIMITED:
                self._row(TENANT_LIMIT, self.guest.tenant.name, wall_ms)
            case Outcome.REFUSED if answer.code == CHATS_NOT and self._forget(visit.model):
                self._row(NO_CHAT, visit.model, wall_ms)
            case Outcome.REFUSED | Outcome.CUT | Outcome.LOST:
                error = UnansweredError(f"{answer.outcome} {answer.code}".strip())
                self._row(visit.kind, visit.model, wall_ms, heard.length_bytes, error)
        if answer.ttft_us is not None:
            self._row(TTFT, visit.model, answer.ttft_us / 1000)
        if answer.itl_us is not None:
            self._row(ITL, visit.model, answer.itl_us / 1000)

    def _row(
        self,
        row_type: str,
        name: str,
        wall_ms: float,
        length_bytes: int = 0,
        error: Exception | None = None,
    ) -> None:
        self.environment.events.request.fire(
            request_type=str(row_type),
            name=name,
            response_time=wall_ms,
            response_length=length_bytes,
            exception=error,
            context={"tenant": self.guest.tenant.name},
        )

    def _forget(self, model: str) -> bool:
        """A list of models tells not which of them chat: whoever does not is asked no more."""
        assert self.load is not None, "somebody asked"
        if len(self.load.models) > 1 or model not in self.load.models:
            self.load.models.pop(model, None)
            return True
        return False


class ChatUser(OpenAIUser):
    """Waits for the whole answer."""

    weight = 3
    kind = Kind.CHAT


class StreamUser(OpenAIUser):
    """Reads as it is written."""

    weight = 6


class LeavingUser(OpenAIUser):
    """Loses interest: in mid-stream, or while its request may still be held."""

    weight = 1
    leaves = True


class BurstUser(OpenAIUser):
    """A tenant's batch job: many requests at once, so that limits on them are met."""

    weight = 1

    def at_once(self, load: Load) -> int:
        return load.at_once

    def ask(self) -> None:
        burst = Group()
        for _ in range(self.load.at_once if self.load is not None else 0):
            if (visit := self.next_visit()) is not None:
                burst.spawn(self.ask_once, visit)
        _await_all(burst)


def _await_all(burst: Group) -> None:
    """Who is ended while it waits ends those that it waits for, and they note it."""
    try:
        burst.join()
    except gevent.GreenletExit:
        burst.kill()
        raise


events.init_command_line_parser.add_listener(_options)  # type: ignore[no-untyped-call]
events.test_start.add_listener(_begin)  # type: ignore[no-untyped-call]
