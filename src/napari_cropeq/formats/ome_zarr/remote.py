"""A Zarr store of objects at an address (http, https, s3 or gs), read by obstore."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import zarr
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import ObjectStore, WrapperStore

from napari_cropeq.errors import AccessError, ArgumentError, MissingPackageError
from napari_cropeq.formats.check.blosc import check_not_cut, is_blosc
from napari_cropeq.formats.watch.chunks import METADATA
from napari_cropeq.formats.watch.files import Watch

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Objects

__all__ = ["RemoteStore", "RemoteWatch"]

logger = logging.getLogger(__name__)

PAUSES = 0.2, 0.5, 1.0, 2.0, 5.0  # s, before each further attempt
TIMEOUT = {"timeout": "60s", "connect_timeout": "10s"}  # for a whole object, and for a connection
RECHECK = 15.0  # s between two looks at the metadata while voxels are read
KEPT = 2**29  # bytes of the last objects that are kept, as they come from the server

Identity = tuple[str, int, float] | None
"""ETag, size in bytes and time of the last change of an object; None if there is no such object."""


class RemoteStore(WrapperStore[ObjectStore[Any]]):
    """The objects at an address, read only; an object that changes, appears or disappears while it is read is an error.

    An object that does not exist is fill value to Zarr; any other failure is an error, after several attempts. What an
    object is when it is first read counts; its ETag, size and time come with its content, so nothing is asked twice
    but the metadata, from time to time. The last objects are kept in memory: the window, a preview and each new model
    read the same ones.

    Parameters
    ----------
    url : str
        Address of the Zarr group.

    Attributes
    ----------
    url : str
        As given, without a slash at its end.

    Raises
    ------
    MissingPackageError
        If obstore is not installed.
    ArgumentError
        If it is not such an address.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        super().__init__(ObjectStore(_objects(self.url), read_only=True))
        self._seen: dict[str, Identity] = {}
        self._kept: dict[str, bytes] = {}  # metadata, which several parts of Zarr read again and again
        self._last: OrderedDict[tuple[str, ByteRequest | None], bytes] = OrderedDict()
        self._size = 0  # of the last objects
        self._blosc: set[str] = set()  # paths of arrays
        self._gives_parts = True  # whether the server gives parts of objects, not only whole ones
        self._checked = time.monotonic()
        logging.getLogger("asyncio").addFilter(_is_news)

    def __str__(self) -> str:
        return self.url

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteStore, (self.url,)

    def with_read_only(self, read_only: bool = True) -> RemoteStore:
        """Return the store itself: it cannot be written to."""
        return self

    def read(self, key: str) -> bytes:
        """Return metadata: those of consolidated arrays have not been read by themselves.

        Raises
        ------
        FileNotFoundError
            If there are none.
        AccessError, SourceChangedError
            As :meth:`get`.
        """
        key = key.lstrip("/")
        if key not in self._kept and sync(self.get(key, default_buffer_prototype())) is None:
            raise FileNotFoundError(f"no {key}")
        return self._kept[key]

    def checked(self, array: zarr.Array[Any]) -> zarr.Array[Any]:
        """Return an array of this store; from now on, chunks of it that are cut short are errors."""
        if is_blosc(array):
            self._blosc.add(array.path)
        return array

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return an object, or a part of it; None if there is no such object.

        Raises
        ------
        AccessError
            If the server does not answer, or refuses.
        SourceChangedError
            If the object has changed since it was first read.
        """
        metadata, asked = key.rsplit("/", 1)[-1] in METADATA, (key, byte_range)
        content = self._kept.get(key) if metadata else self._last.get(asked)
        if content is None and byte_range is not None and (key, None) in self._last:
            content = _part(self._last[key, None], byte_range)
        if content is None:
            if self._seen.get(key, ()) is None and metadata:
                return None
            content = await self._fetch_part(key, byte_range)
        if content is None:
            return None
        if metadata:
            self._kept[key] = content
        else:
            if any(key.startswith(f"{path}/") for path in self._blosc):
                check_not_cut(key, content, len(content))
            self._keep(asked, content)
        return prototype.buffer.from_bytes(content)

    def _keep(self, key: tuple[str, ByteRequest | None], content: bytes) -> None:
        """Keep an object; Zarr reads all of them in one thread."""
        self._size += 0 if key in self._last else len(content)
        self._last[key] = content
        self._last.move_to_end(key)
        while self._size > KEPT:
            self._size -= len(self._last.popitem(last=False)[1])

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return several objects, or parts of them, as :meth:`get` does."""
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Return whether there is an object."""
        if key not in self._seen:
            await self._fetch_part(key, RangeByteRequest(0, 1))
        return self._seen[key] is not None

    def check(self) -> None:
        """Compare the metadata with what they were, unless that was done a moment ago.

        Raises
        ------
        SourceChangedError
            If they have changed or disappeared.
        AccessError
            If the server does not answer.
        """
        if time.monotonic() - self._checked < RECHECK:
            return
        self._checked = time.monotonic()  # before the answer: other threads need not ask as well
        sync(self._check())

    async def _check(self) -> None:
        await asyncio.gather(*(self._fetch(key) for key in list(self._kept)))

    async def _fetch_part(self, key: str, part: ByteRequest | None) -> bytes | None:
        """Read a part of an object, or cut it from the whole one where the server gives no parts."""
        from obstore.exceptions import NotSupportedError

        if part is not None and self._gives_parts:
            try:
                return await self._fetch(key, part)
            except NotSupportedError:
                self._gives_parts = False
        whole = await self._fetch(key)
        if whole is None or part is None:
            return whole
        self._keep((key, None), whole)
        return _part(whole, part)

    async def _fetch(self, key: str, part: ByteRequest | None = None) -> bytes | None:
        """Read an object, with several attempts, and compare it with what it was."""
        import obstore
        from obstore.exceptions import BaseError, NotSupportedError, PermissionDeniedError, UnauthenticatedError

        options = _options(part)
        for number, pause in enumerate((*PAUSES, None), 1):
            try:
                answer = await obstore.get_async(self._store.store, key, options=options)
                content = bytes(await answer.bytes_async())
            except FileNotFoundError:
                self._compare(key, None)
                return None
            except NotSupportedError:
                raise
            except (PermissionDeniedError, UnauthenticatedError) as error:
                raise AccessError(
                    f"{self.url} refuses to give {key} ({_reason(error)}).",
                    "Check the address, and for a private store its keys in the environment.",
                    setting="remote",
                ) from error
            except BaseError as error:
                if pause is None:
                    raise AccessError(
                        f"{self.url} did not give {key} in {number} attempts ({_reason(error)}).",
                        "Check the connection, then continue.",
                        setting="remote",
                    ) from error
                logger.warning("%s did not give %s (%s); trying again in %g s", self.url, key, _reason(error), pause)
                await asyncio.sleep(pause)
                continue
            meta = answer.meta
            self._compare(key, (str(meta["e_tag"] or ""), int(meta["size"]), meta["last_modified"].timestamp()))
            return content
        raise AssertionError

    def _compare(self, key: str, now: Identity) -> None:
        seen = self._seen.setdefault(key, now)
        if now != seen:
            happened = "was removed" if now is None else "was added" if seen is None else "was replaced or changed"
            raise Watch(self.url, ()).changed(f"{key} {happened}")


class RemoteWatch(Watch):
    """The metadata at an address as they were when the image was opened.

    Parameters
    ----------
    name : str
        Name of the image for messages.
    store : RemoteStore
        Its objects.
    """

    def __init__(self, name: str, store: RemoteStore) -> None:
        super().__init__(name, ())
        self._store = store

    def check(self) -> None:
        """Compare the metadata with what they were, see :meth:`RemoteStore.check`."""
        self._store.check()

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteWatch, (self.name, self._store)


def _objects(url: str) -> Objects:
    """Return the objects at an address; one attempt each, since this module repeats and reports them."""
    try:
        from obstore.store import GCSStore, HTTPStore, S3Store
    except ImportError as error:
        raise MissingPackageError(
            f"{url} is an address, and the package that reads those is not installed.",
            'Install it with: pip install "napari-cropeq[remote]"',
        ) from error
    if "?" in url or "#" in url:
        raise ArgumentError(
            f"The address {url} has a query (?...) or a fragment (#...), which its objects would not get.",
            "Give the plain address; keys of a private store come from the environment.",
        )
    options: Any = {
        "client_options": {"allow_http": True, **TIMEOUT},
        "retry_config": {"max_retries": 0},
    }
    try:
        if url.startswith("s3://"):
            return S3Store.from_url(url, skip_signature=not _has_keys("AWS_"), **options)
        if url.startswith("gs://"):
            return GCSStore.from_url(url, skip_signature=not _has_keys("GOOGLE_"), **options)
        return HTTPStore.from_url(url, **options)
    except Exception as error:
        raise ArgumentError(f"{url} is not an address ({_reason(error)}).", "Check its spelling.") from error


def _part(content: bytes, part: ByteRequest) -> bytes:
    """Return a part of an object."""
    match part:
        case RangeByteRequest(start, end):
            return content[start:end]
        case OffsetByteRequest(offset):
            return content[offset:]
        case SuffixByteRequest(suffix):
            return content[-suffix:]
    raise TypeError(part)


def _is_news(record: logging.LogRecord) -> bool:
    """Return whether to log what asyncio says: of several requests that fail, Zarr looks only at the first."""
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, AccessError) or type(error).__module__.startswith("obstore"))


def _has_keys(prefix: str) -> bool:
    """Return whether the environment has keys for a store; without them, it is read as a public one."""
    words = "ACCESS_KEY", "SERVICE_ACCOUNT", "CREDENTIALS", "TOKEN"
    return any(name.startswith(prefix) and any(word in name for word in words) for name in os.environ)


def _options(part: ByteRequest | None) -> Any:
    match part:
        case None:
            return None
        case RangeByteRequest(start, end):
            return {"range": (start, end)}
        case OffsetByteRequest(offset):
            return {"range": {"offset": offset}}
        case SuffixByteRequest(suffix):
            return {"range": {"suffix": suffix}}
    raise TypeError(part)


def _reason(error: Exception) -> str:
    """Return what an error of obstore says, without the address and the trace."""
    text = str(error).split("\n", 1)[0]
    status = re.search(r"status code: (\d+[^:]*)", text)
    if status:
        return status.group(1).strip()
    return "no answer" if "HTTP error" in text else text.rsplit(" - ", 1)[-1].strip(" .")[:120]
