"""A keystored within the test's own process, and calls to it."""

import contextlib
import os

import trio

from fusecrypt.daemon.keystored.client import Keystore
from fusecrypt.daemon.keystored.place import take_place
from fusecrypt.daemon.keystored.server import serve


@contextlib.asynccontextmanager
async def running_keystore(settings, methods):
    with take_place(settings.keystore_socket) as place:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_at, place, methods)
            yield Keystore(settings)
            nursery.cancel_scope.cancel()


async def serve_at(place, methods, *, is_on_demand=False, task_status):
    await serve(
        place.listener,
        methods,
        is_shared=False,
        is_on_demand=is_on_demand,
        place=place,
        task_status=task_status,
    )


@contextlib.contextmanager
def pipe(data: bytes):
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    try:
        yield reader
    finally:
        os.close(reader)


async def call(function, *args, **kwargs):
    return await trio.to_thread.run_sync(lambda: function(*args, **kwargs))
