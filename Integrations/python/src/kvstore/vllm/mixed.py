"""Models with several kinds of layers: attention over windows, or recurrent layers, beside full attention.

What differs from one table of full attention, whose blocks stay as long as their request does:

* vLLM frees what has left a window, and old states, while the request goes on. So blocks are saved with the step that computes
  them, and held by a reference of our own until all workers have read them. (Loads come between steps only: nothing that is
  computed can turn out to be spoiled by one that failed.)
* A prefix is loaded whole or not at all: vLLM knows a failed load by its request, not by blocks.
* Tables have null blocks where the window has moved on, and a prefix of recurrent layers ends where a state is stored.
"""

from __future__ import annotations

import logging
import queue
from collections import OrderedDict
from concurrent.futures import Future
from typing import Any

import numpy as np

from ..namespace import Namespace
from ..prompt import Prompt
from ..results import Match
from .groups import CacheGroups
from .layout import NULL_BLOCK
from .metadata import Ending, Rank, StepMetadata, Tenant, Transfer, WorkerNews
from .options import Options
from .scheduler import NAMESPACES_MAX, SchedulerSide, _Tracked
from .states import SECTION, StateMemory
from .worker import WorkerSide, _Load, _Request

logger = logging.getLogger("vllm.kvstore")


class MixedSchedulerSide(SchedulerSide):
    """Answers vLLM's scheduler for a model with several kinds of layers."""

    def __init__(self, options: Options, groups: CacheGroups) -> None:
        super().__init__(options, groups.tokens_per_block)
        self._groups = groups
        self._sections: OrderedDict[Tenant, dict[Rank, Namespace]] = OrderedDict()
        self._pool: Any = None
        self._pins: dict[int, tuple[list[int], int]] = {}
        """By the number of a save: the blocks that we hold for it, and on how many ranks it has not ended."""
        self._saves_made = 0

    def hold_blocks_of(self, pool: Any) -> None:
        """vLLM's pool of blocks, in which blocks are held until they are saved."""
        self._pool = pool

    @property
    def is_saving(self) -> bool:
        return bool(self._pins)

    def hear(self, news: WorkerNews) -> None:
        super().hear(news)
        for number, ranks in news.saved.items():
            if number not in self._pins:
                continue
            blocks, waiting = self._pins.pop(number)
            if waiting > ranks:
                self._pins[number] = (blocks, waiting - ranks)
            else:
                # The last one first: what a prefix begins with is evicted last.
                self._pool.free_blocks([self._pool.blocks[block] for block in reversed(blocks)])

    def step(self, output: Any) -> StepMetadata:
        """The work of the step that vLLM has just scheduled; saves read what this step computes, once it is done."""
        cached = output.scheduled_cached_reqs
        computed = {new.req_id: new.num_computed_tokens for new in output.scheduled_new_reqs}
        fresh = computed.keys() | cached.resumed_req_ids
        computed |= zip(cached.req_ids, cached.num_computed_tokens, strict=True)
        for request_id, before in computed.items():
            tracked = self._tracked.get(request_id)
            if tracked is None:
                continue
            if request_id in fresh:
                tracked.loading = None
                tracked.blocks_saved = tracked.blocks_brought = before // self._tokens_per_block
                begun = tracked.blocks_begun
                tracked.blocks_begun = tracked.blocks_brought if begun is None else min(begun, tracked.blocks_brought)
            tracked.blocks_saved = min(tracked.blocks_saved, before // self._tokens_per_block)
            self._save_step(tracked, before + output.num_scheduled_tokens[request_id], output.kv_connector_block_state)
        step, self._step = self._step, StepMetadata()
        step.idle = not output.total_num_scheduled_tokens
        return step

    def finished(self, request: Any, tables: tuple[list[int], ...]) -> bool:
        """The request is over. What is being saved is held without it."""
        tracked = self._forget(request.request_id)
        if tracked is not None and tracked.tokens_sent:
            self._step.forgotten.add(request.request_id)
        return False

    # ------------------------------------------------------------ private

    def _match(
        self, tenant: Tenant, namespaces: dict[Rank, Namespace], prompt: Prompt, **how: Any
    ) -> tuple[int, dict[Rank, tuple[int, ...]]]:
        if not self._groups.states:
            return super()._match(tenant, namespaces, prompt, **how)
        sections = self._sections_of(tenant, namespaces)
        while True:
            lengths: set[int] = set()
            leases: dict[Rank, tuple[int, ...]] = {}
            for rank, namespace in namespaces.items():
                if rank in sections:
                    found = namespace.match_sections([sections[rank]], prompt, **how)
                else:
                    found = [namespace.match(prompt, **how)]
                lengths.add(found[0].tokens)
                leases[rank] = tuple(match.lease for match in found if match.lease)
            if len(lengths) == 1 or not min(lengths):
                return min(lengths), leases
            # One rank has less than others: how much do all have up to there?
            self._release(Transfer("", 0, 0, leases=leases))
            prompt = prompt.prefix(tokens=min(lengths))
            how["leave_one_token"] = False

    def _look_there(self, tenant: Tenant, namespaces: dict[Rank, Namespace], prompt: Prompt) -> list[Match]:
        if not self._groups.states:
            return super()._look_there(tenant, namespaces, prompt)
        sections = self._sections_of(tenant, namespaces)
        how = {"peek": True, "leave_one_token": True, "remote": True}
        return [
            namespace.match_sections([sections[rank]], prompt, **how)[0] if rank in sections else namespace.match(prompt, **how)
            for rank, namespace in namespaces.items()
        ]

    def _sections_of(self, tenant: Tenant, namespaces: dict[Rank, Namespace]) -> dict[Rank, Namespace]:
        """The namespaces of states; those of ranks with recurrent layers."""
        found = self._sections.get(tenant)
        if found is None:
            found = self._sections[tenant] = {
                rank: namespace.section(SECTION, self._state_bytes[rank])
                for rank, namespace in namespaces.items()
                if self._state_bytes.get(rank)
            }
            if len(self._sections) > NAMESPACES_MAX:
                for section in self._sections.popitem(last=False)[1].values():
                    section.close()
        self._sections.move_to_end(tenant)
        return found

    def _place(self, tracked: _Tracked, load: Transfer, tables: tuple[list[int], ...]) -> None:
        first, end = load.first_block, load.first_block + load.block_count
        load.tables = [
            tables[table.group][first * table.parts : end * table.parts] for table in self._groups.tables
        ]
        if self._groups.states:
            load.states = {
                end: {states.group: tables[states.group][end * states.parts - 1] for states in self._groups.states}
            }

    def _save_step(self, tracked: _Tracked, computed_tokens: int, state: Any) -> None:
        """Hands out the blocks that are full with `computed_tokens`, and the states that vLLM has at ends of blocks."""
        request = tracked.request
        if self._options.offload == "none" or self._options.read_only or self._stopped or not tracked.savable:
            return
        known = request.num_prompt_tokens if self._options.offload == "prompt" else request.num_tokens
        full = min(computed_tokens, known) // self._tokens_per_block
        first = tracked.blocks_saved
        offered = state.boundary_state_offloads.get(request.request_id, ())
        states = self._states_at(offered, tracked.blocks_brought, full)
        save = Transfer(request.request_id, first, max(0, full - first), states=states)
        if save.block_count:
            tracked.blocks_saved = full
            tables = state.get_block_ids(request.request_id)
            save.tables = [
                tables[table.group][first * table.parts : full * table.parts] for table in self._groups.tables
            ]
            complete = all(
                len(blocks) == save.block_count * table.parts and NULL_BLOCK not in blocks
                for blocks, table in zip(save.tables, self._groups.tables, strict=True)
            )
            if not complete:
                logger.warning("kvstore: blocks of request %s had left their window before they were saved", request.request_id)
                return
        elif not states:
            return
        self._saves_made += 1
        save.number = self._saves_made
        self._update(tracked, first_new=0, tokens=max([full, *states]) * self._tokens_per_block)
        self._step.saves.append(save)
        self._hold(save)

    def _states_at(self, offered: Any, brought: int, full: int) -> dict[int, dict[int, int]]:
        """Of what vLLM offers, what all recurrent layers have: by the blocks before it, more than `brought`, up to `full`."""
        found: dict[int, dict[int, int]] = {}
        for group, block, tokens in offered:
            blocks, rest = divmod(tokens, self._tokens_per_block)
            if not rest and brought < blocks <= full and block != NULL_BLOCK:
                found.setdefault(blocks, {})[group] = block
        wanted = {states.group for states in self._groups.states}
        return {blocks: places for blocks, places in found.items() if places.keys() == wanted}

    def _hold(self, save: Transfer) -> None:
        blocks = [block for table in save.tables for block in table]
        blocks += [block for places in save.states.values() for block in places.values()]
        blocks = list(dict.fromkeys(blocks))
        self._pool.touch([self._pool.blocks[block] for block in blocks])
        self._pins[save.number] = (blocks, len(self._identities))


class MixedWorkerSide(WorkerSide):
    """Loads and saves blocks of several tables, and states."""

    def __init__(self, *arguments: Any, states: StateMemory) -> None:
        self._states = states
        self._sections: OrderedDict[Tenant, Namespace] = OrderedDict()
        self._saved: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._failed_requests: set[str] = set()
        super().__init__(*arguments, state_bytes=states.byte_count)

    def failed_requests(self) -> set[str]:
        failed, self._failed_requests = self._failed_requests, set()
        return failed

    def news(self) -> WorkerNews | None:
        news = super().news()
        while True:
            try:
                number = self._saved.get_nowait()
            except queue.Empty:
                return news
            news = news or WorkerNews()
            news.saved[number] = 1

    # ------------------------------------------------------------ private

    def _note_loaded(self, request_id: str, failed: set[int], block_ids: list[int]) -> None:
        if failed or self._stopped:
            self._failed_requests.add(request_id)

    def _prepare(self, transfer: Transfer) -> _Load:
        load = super()._prepare(transfer)
        # Not empty, so that what failed shows.
        load.block_ids = [NULL_BLOCK] + [block for table in transfer.tables for block in table]
        return load

    def _load_all(self, load: _Load) -> set[int]:
        failed = set(load.block_ids)
        transfer = load.transfer

        def restore(namespace: Namespace) -> None:
            good = self._memory.restore(namespace, load.prompt, transfer.tables, transfer.first_block, 0, 0)
            if good < transfer.block_count:
                return
            for blocks, places in transfer.states.items() if self._states.byte_count else ():
                section = self._section(load.tenant, namespace)
                content = np.empty(self._states.byte_count, dtype=np.uint8)
                place = Prompt(digests=[section.section_digest(load.prompt, blocks)])
                moved = section.restore(place, [content], timeout_seconds=self._options.load_timeout_seconds)
                if moved.blocks_done != 1:
                    return
                self._states.write(places, content)
            failed.clear()

        self._attempt("load", load.tenant, restore)
        self._release(transfer)
        return failed

    def _save(self, request: _Request | None, transfer: Transfer) -> None:
        """Saves it, and tells the scheduler when that has ended, however it has."""
        if request is None or self._stopped or not self._has_adapter(request):
            self._saved.put(transfer.number)
            return
        end = max([transfer.first_block + transfer.block_count, *transfer.states])
        prompt = Prompt(request.tokens[: end * self.identity.tokens_per_block], extra=request.extra[:end])
        future = self._saves.submit(self._save_all, request, prompt, transfer, self._memory.ready())

        def ended(_: Future[None]) -> None:
            self._saved.put(transfer.number)

        future.add_done_callback(ended)

    def _save_all(self, request: _Request, prompt: Prompt, transfer: Transfer, ready: Any) -> None:
        tenant, hints = request.tenant, request.hints.of_blocks

        def offload(namespace: Namespace) -> None:
            if transfer.block_count:
                end = (transfer.first_block + transfer.block_count) * self.identity.tokens_per_block
                status = self._memory.offload(
                    namespace, prompt.prefix(tokens=end), transfer.tables, transfer.first_block, ready, **hints
                )
                self._note_save(status)
            for blocks, places in transfer.states.items() if self._states.byte_count else ():
                section = self._section(tenant, namespace)
                place = Prompt(digests=[section.section_digest(prompt, blocks)])
                self._note_save(section.offload(place, [self._states.read(places, ready)], **hints).status)

        self._attempt("save", tenant, offload)
        self._attempt("save", tenant, lambda _: self._notice_drops())

    def _pin(self, ending: Ending, namespace: Namespace, prompt: Prompt) -> None:
        """The blocks, and the states without which they cannot be used: the request's own, and the one that it began with."""
        super()._pin(ending, namespace, prompt)
        if not self._states.byte_count:
            return
        section, size = self._section(ending.tenant, namespace), self.identity.tokens_per_block
        while prompt.token_count >= size:
            blocks = namespace.match_sections([section], prompt, peek=True)[0].tokens // size
            if blocks:
                place = Prompt(digests=[section.section_digest(prompt, blocks)])
                section.pin(place, ending.pin_seconds)
            if blocks <= ending.blocks_begun:
                return
            prompt = prompt.prefix(tokens=(blocks - 1) * size)

    def _section(self, tenant: Tenant, namespace: Namespace) -> Namespace:
        with self._namespaces_lock:
            found = self._sections.get(tenant)
            if found is None:
                found = self._sections[tenant] = namespace.section(SECTION, self._states.byte_count)
                if len(self._sections) > NAMESPACES_MAX:
                    self._sections.popitem(last=False)[1].close()
            self._sections.move_to_end(tenant)
            return found

