"""What agents keep in a store besides KV."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .. import Identity, Namespace, Store
from ..closing import Closing
from . import context
from .blocks import KIND_JSON, Blocks, Entry, encoded
from .canonical import digest
from .claims import Claims
from .histories import Histories
from .metrics import Metrics
from .pieces import Recent
from .policies import Policies
from .prices import Prices
from .rolling import RollingList
from .run import Run
from .scope import Level, Scope, seconds

_USERS_MAX = 1024


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run, as the register of its user has it."""

    id: str
    user: str | None
    session: str | None
    created: float
    origin: dict[str, Any] | None
    """Of a fork: of which run, and at which step."""


class AgentStore(Closing):
    """Runs, tool results, answers and embeddings in a store. Threads may share it; processes open it each for themselves.

    store: one that is open, or the path of one, which is closed with this. secret: goes into the salt of each user, so that who knows
    a user's name but not this finds nothing. quota: what each user's records may take. policies: a TOML file, see `Policies`.
    prices: a list of prices, for what answers saved (`kvstore lint --print-prices`). claim_seconds: how long to wait for another thread or process that does the same.
    """

    def __init__(
        self,
        store: Store | str | os.PathLike[str],
        *,
        secret: bytes = b"",
        quota: int | str | None = None,
        policies: Policies | str | os.PathLike[str] | None = None,
        prices: Prices | str | os.PathLike[str] | None = None,
        claim_seconds: float = 60,
    ) -> None:
        self.policies = policies if isinstance(policies, Policies) else Policies(policies)
        self._prices = prices if isinstance(prices, Prices) or prices is None else Prices(prices)
        self._owned = not isinstance(store, Store)
        self.store = store if isinstance(store, Store) else Store(store)
        self.claims = Claims(self.store.path)
        self.claim_seconds = claim_seconds
        self.metrics = Metrics()
        self.histories = Histories(self)
        self._secret, self._quota = secret, quota
        self._lock = threading.Lock()
        self._recent = Recent()
        self._users: OrderedDict[str | None, Blocks] = OrderedDict()

    def salt(self, user: str | None) -> bytes:
        """The salt of a user's namespaces, for an engine to give his KV as well; empty for nobody's."""
        return b"" if user is None else hashlib.sha256(digest({"kvstore.agent": "user", "user": user}) + self._secret).digest()

    def blocks(self, user: str | None) -> Blocks:
        """The records of a user, or those of nobody in particular."""
        with self._lock:
            found = self._users.get(user)
            if found is None:
                found = self._users[user] = Blocks(self.store, self.salt(user), quota=self._quota, recent=self._recent)
                if len(self._users) > _USERS_MAX:
                    # Closed by the last one who uses it.
                    self._users.popitem(last=False)
            else:
                self._users.move_to_end(user)
            return found

    def money(self, model: str, tokens_in: int, tokens_out: int) -> float:
        """What so many tokens cost, by the price list; 0 where the model is not in it."""
        return self._prices.money(model, tokens_in, tokens_out) if self._prices is not None else 0.0

    # ------------------------------------------------------------ values

    def put(
        self,
        key: Any,
        value: Any,
        *,
        scope: Scope = Scope(),
        level: Level = "global",
        ttl: float | str | None = None,
        meta: dict[str, Any] | None = None,
        durable: bool = False,
    ) -> bool:
        """Stores a value (JSON, bytes or an array) under a key, which is any JSON; what was there is replaced.

        False: the store has no place for it. ttl: seconds or "30m", from now; None until it is evicted. durable: synced on return.
        """
        blocks, path = self._value(key, scope, level)
        content, kind = encoded(value)
        if blocks.peek(path):
            blocks.forget(path)
        stored = blocks.put(path, Entry(content, kind, meta or {}, stored=time.time()), ttl_seconds=seconds(ttl))
        if stored and durable:
            blocks.flush(path)
        return stored

    def get(self, key: Any, *, scope: Scope = Scope(), level: Level = "global") -> Entry | None:
        """What is stored under a key."""
        blocks, path = self._value(key, scope, level)
        return blocks.get(path)

    def delete(self, key: Any, *, scope: Scope = Scope(), level: Level = "global") -> bool:
        """Removes it, durably; False: it was not there."""
        blocks, path = self._value(key, scope, level)
        return blocks.forget(path) > 0

    def _value(self, key: Any, scope: Scope, level: Level) -> tuple[Blocks, bytes]:
        return self.blocks(scope.owner(level)), digest({"kvstore.agent": "value", "scope": scope.key(level), "key": key})

    # ------------------------------------------------------------ runs

    def run(
        self,
        name: str,
        *,
        user: str | None = None,
        session: str | None = None,
        ttl: float | str | None = None,
        lost: str = "raise",
    ) -> Run:
        """Opens a run, making it where there is none. ttl: all of a new run ends so long from now.

        lost: what to do where steps that were confirmed have left the store: "raise" a LostStepError, or do them "again".
        """
        return Run(self, Scope(user, session, name), ttl_seconds=seconds(ttl), lost=lost)

    def replay(self, name: str, *, user: str | None = None, session: str | None = None, opening: int = -1) -> Run:
        """A run whose calls are all answered from its record, in order, by the same program; nothing is called, stored or sent.

        What differs raises a DivergenceError that names the call and the field. opening: which record, the last by default.
        """
        return Run(self, Scope(user, session, name), replay=opening)

    def existing_run(self, name: str, *, user: str | None = None, session: str | None = None) -> Run:
        """A run to look at; raises LookupError where there is none."""
        return Run(self, Scope(user, session, name), existing=True, lost="again")

    @contextlib.contextmanager
    def scope(self, *, user: str | None = None, session: str | None = None) -> Iterator[Scope]:
        """Tools and answers within belong to this user and session, without a run."""
        scope = Scope(user, session)
        token = context.current.set(context.Context(self, scope))
        try:
            yield scope
        finally:
            context.current.reset(token)

    @contextlib.contextmanager
    def fresh(self) -> Iterator[None]:
        """Within, nothing is answered from the store, and what is computed replaces what is there."""
        now = context.current.get()
        if now is None:
            now = context.Context(self, Scope())
        token = context.current.set(context.Context(now.agents, now.scope, now.run, fresh=True))
        try:
            yield
        finally:
            context.current.reset(token)

    def _register(self, user: str | None, what: str, is_kept: Callable[[Entry], bool]) -> RollingList:
        return RollingList(
            self.blocks(user),
            self.claims,
            digest({"kvstore.agent": "register", "of": what}),
            is_kept=is_kept,
            claim_seconds=self.claim_seconds,
        )

    def _runs(self, user: str | None) -> RollingList:
        # One that was removed and imported again is entered twice.
        seen: set[tuple[str | None, str]] = set()

        def is_kept(entry: Entry) -> bool:
            value = entry.value
            is_first = (value["session"], value["run"]) not in seen and self._has_run(user, value)
            if is_first:
                seen.add((value["session"], value["run"]))
            return is_first

        return self._register(user, "runs", is_kept)

    def _has_run(self, user: str | None, value: dict[str, Any]) -> bool:
        path = digest({"kvstore.agent": "run", "session": value["session"], "run": value["run"], "record": 1})
        record = self.blocks(user).get(path)
        # Another one of that name may have been made since.
        return record is not None and record.value["created"] == value["created"]

    def _kv(self, user: str) -> RollingList:
        def is_kept(entry: Entry) -> bool:
            namespace = self.store.existing_namespace(self._identity_of(user, entry.value))
            if namespace is not None:
                namespace.close()
                return True
            # It is entered again when it is opened again.
            self.blocks(user).forget(digest({"kvstore.agent": "kv", "identity": entry.value}))
            return False

        return self._register(user, "kv", is_kept)

    def register_run(self, scope: Scope, record: dict[str, Any]) -> None:
        """Notes a run that was made, for `runs`."""
        content, kind = encoded({name: record[name] for name in ("run", "session", "created", "origin")})
        self._runs(scope.user).append(Entry(content, kind, stored=record["created"]))

    def runs(self, user: str | None = None) -> list[RunRecord]:
        """The runs of a user (or of nobody in particular) that are in the store, oldest first."""
        found: dict[tuple[str | None, str], RunRecord] = {}
        for entry in self._runs(user).entries():
            value = entry.value
            if self._has_run(user, value):
                record = RunRecord(value["run"], user, value["session"], value["created"], value["origin"])
                found.setdefault((value["session"], value["run"]), record)
        return list(found.values())

    # ------------------------------------------------------------ KV, purge

    def kv_namespace(self, identity: Identity, *, user: str, **options: Any) -> Namespace:
        """Opens the namespace of a user's KV: the identity with his salt. `purge(user=…)` takes what is in it as well."""
        identity = dataclasses.replace(identity, salt=self.salt(user))
        fields = {
            field.name: getattr(identity, field.name) for field in dataclasses.fields(identity) if field.name not in ("salt", "groups")
        }
        fields = {name: {"bytes": value.hex()} if isinstance(value, bytes) else value for name, value in fields.items()}
        fields["groups"] = [[group.first_region, group.region_count, group.window_tokens] for group in identity.groups]
        register = self._kv(user)
        known = self.blocks(user).peek(digest({"kvstore.agent": "kv", "identity": fields}))
        if not known:
            content, kind = encoded(fields)
            register.append(Entry(content, kind))
            self.blocks(user).put(digest({"kvstore.agent": "kv", "identity": fields}), Entry(b"", KIND_JSON), priority=100)
        return self.store.namespace(identity, **options)

    def _kv_identities(self, user: str) -> Iterator[Identity]:
        for entry in self._kv(user).entries():
            yield self._identity_of(user, entry.value)

    def _identity_of(self, user: str, value: dict[str, Any]) -> Identity:
        from .. import Group

        fields: dict[str, Any] = {
            name: bytes.fromhex(item["bytes"]) if isinstance(item, dict) else item for name, item in value.items()
        }
        fields["groups"] = tuple(Group(*group) for group in fields["groups"])
        fields["region_bytes"] = tuple(fields["region_bytes"])
        return Identity(**fields, salt=self.salt(user))

    def purge(self, *, user: str, kv: Sequence[Identity | Namespace] = ()) -> int:
        """Removes all that is a user's, durably: runs, states, tool results, answers, embeddings, logs, and the KV of the namespaces
        that `kv_namespace` opened for him, in whichever process, and of those given (with his salt). Returns how many blocks went.

        Slots are overwritten in the background: `slots_erase_pending` of the store's `stats` says when that is done.
        """
        identities: dict[Identity, None] = dict.fromkeys(self._kv_identities(user))
        for given in kv:
            identity = given.identity if isinstance(given, Namespace) else given
            if identity.salt != self.salt(user):
                raise ValueError("a namespace that is not this user's: its salt is another")
            identities[identity] = None
        count = 0
        for identity in identities:
            namespace = self.store.existing_namespace(identity)
            if namespace is not None:
                with namespace:
                    count += namespace.purge()
        # The register of namespaces goes last: who is interrupted can purge again.
        return count + self.blocks(user).purge()

    def close(self) -> None:
        """Closes what this opened; what is stored stays."""
        with self._lock:
            users, self._users = list(self._users.values()), OrderedDict()
        for blocks in users:
            blocks.close()
        if self._owned:
            self.store.close()
