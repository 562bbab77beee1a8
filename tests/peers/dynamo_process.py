"""Dynamo's own selection service behind a pipe: one JSON operation a line in, one JSON answer a line out.

Runs in the peer's environment, by itself; it imports nothing of ours. KV events go as engines send them: by a ZMQ
publisher for each worker. An operation that changes what the router knows answers when the router knows it.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import time
from typing import Any

BLOCK_STORED, BLOCK_REMOVED = "BlockStored", "BlockRemoved"
PATIENCE_S = 20.0


class Service:
    """The service, and a publisher of events for each of its workers."""

    def __init__(self, block_tokens: int) -> None:
        import zmq
        from dynamo._core import SelectionService, SelectionServiceError

        self.block_tokens = block_tokens
        self.unknown = SelectionServiceError
        self.zmq = zmq
        self.context = zmq.Context()
        self.service = SelectionService(indexer_threads=1)
        self.publishers: dict[int, Any] = {}
        self.sent_events: dict[int, int] = {}
        self.marks = 0

    async def join(self, worker: int) -> None:
        """Register a worker, and wait until its events arrive."""
        publisher = self.context.socket(self.zmq.PUB)
        publisher.setsockopt(self.zmq.LINGER, 0)
        port = publisher.bind_to_random_port("tcp://127.0.0.1")
        self.publishers[worker], self.sent_events[worker] = publisher, 0
        description = {
            "worker_id": worker,
            "endpoint": f"http://127.0.0.1:{port}",
            "block_size": self.block_tokens,
            "kv_events_endpoints": {0: f"tcp://127.0.0.1:{port}"},
        }
        await self.service.upsert_worker(description)
        await self.events(worker, [])

    async def leave(self, worker: int) -> None:
        """Take a worker off the catalog, and wait until the router has forgotten it: the call returns before that."""
        await self.service.delete_worker(worker)
        self.publishers.pop(worker).close()
        limit = time.monotonic() + PATIENCE_S
        while worker in self.loads():
            if time.monotonic() > limit:
                raise TimeoutError(f"worker {worker}: the router still counts it after {PATIENCE_S:g} s")
            await asyncio.sleep(0.0001)

    async def select(self, request_id: str, tokens: list[int]) -> dict[str, Any]:
        """Tell what the router believes and counts before it decides, let it decide, and book the request."""
        answer = {"overlap_blocks": await self._overlap_blocks(tokens), "loads": self.loads()}
        prompt = {"selection_id": request_id, "token_ids": tokens}
        chosen = await self.service.select_and_reserve(prompt)
        return {**answer, "worker": chosen["worker_id"], "prefill_tokens": chosen["effective_prefill_tokens"]}

    def loads(self) -> dict[int, list[int]]:
        """Tell the loads of every worker: prefill tokens, blocks, requests."""
        rows = [row for model in self.service.loads() for row in model["loads"]]
        names = ("potential_prefill_tokens", "potential_decode_blocks", "active_requests")
        return {row["worker_id"]: [row[name] for name in names] for row in rows}

    async def prefill_complete(self, request_id: str) -> bool:
        """Tell of the first token; answer whether the router knows the request."""
        return await self._known(self.service.prefill_complete(request_id))

    async def free(self, request_id: str) -> bool:
        """Tell of the end; answer whether the router knows the request."""
        return await self._known(self.service.free_reservation(request_id))

    async def events(self, worker: int, events: list[list[Any]]) -> None:
        """Publish events of a worker's cache, in order, and wait until a mark that follows them is in the index.

        A subscriber that has only just connected misses what is published before, so the mark is sent again.
        """
        if events:
            self._publish(worker, events)
        limit = time.monotonic() + PATIENCE_S
        while time.monotonic() < limit:
            self.marks += 1
            tokens = [2**31 - 1] * (self.block_tokens - 1) + [self.marks]
            self._publish(worker, [[BLOCK_STORED, [2**40 + self.marks], None, tokens, self.block_tokens, None]])
            for _ in range(200):
                if (await self._overlap_blocks(tokens))[worker]:
                    return
                await asyncio.sleep(0.0001)
        raise TimeoutError(f"worker {worker}: its events did not arrive in {PATIENCE_S:g} s")

    def _publish(self, worker: int, events: list[list[Any]]) -> None:
        import msgspec

        number = self.sent_events[worker]
        self.sent_events[worker] = number + 1
        frames = [b"", struct.pack(">q", number), msgspec.msgpack.encode([time.time(), events, 0])]
        self.publishers[worker].send_multipart(frames)

    async def _overlap_blocks(self, tokens: list[int]) -> dict[int, int]:
        scores = await self.service.overlap_scores({"token_ids": tokens})
        return {row["worker_id"]: row["device_blocks"] for row in scores["workers"]}

    async def _known(self, operation: Any) -> bool:
        try:
            await operation
        except self.unknown as error:
            if error.kind != "not_found":
                raise
            return False
        return True


async def serve() -> None:
    """Answer one operation after the other until the input ends."""
    service = Service(int(sys.argv[1]))
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        answer = getattr(service, name)(*arguments)
        answer = await answer if asyncio.iscoroutine(answer) else answer
        print(json.dumps(answer), flush=True)
    service.service.shutdown()


if __name__ == "__main__":
    asyncio.run(serve())
