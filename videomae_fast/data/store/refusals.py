"""What the errors of an object store mean: whether it is worth asking again."""

from __future__ import annotations

import errno
import re
from typing import Final

from videomae_fast.data.errors import StoreRefusedError, StoreUnreachableError, sentence

# By what obstore says, which has a class of its own for few of them
_DENIED: Final = re.compile(
    r"status code: (401|403)|<Code>(ExpiredToken|InvalidToken|TokenRefreshRequired)</Code>"
)
_MOVED: Final = re.compile(
    r"Received redirect without|error following redirect"
    r"|<Code>(PermanentRedirect|AuthorizationHeaderMalformed)</Code>"
)
_NO_RANGES: Final = re.compile(
    r"non-partial response|Range request not supported|Requested \S+, got|Content-Range header"
)
_BEHIND_END: Final = re.compile(r"status code: 416|<Code>InvalidRange</Code>")


def understood(object_url: str, error: Exception) -> OSError | StoreUnreachableError:
    """What is to be raised for an error of obstore.

    Args:
        object_url: what was asked for, for messages.
        error: of the network, of the server, of the credentials.

    Returns:
        FileNotFoundError: there is no such object.
        StoreRefusedError: the same would be answered again.
        StoreUnreachableError: anything else.
    """
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, "no such object", object_url)
    text, said = str(error), sentence(error).split("Debug source")[0].strip()
    if _DENIED.search(text):
        return StoreRefusedError(
            f"{object_url}: access is refused: {said}. Are the credentials of the environment "
            "(AWS_ACCESS_KEY_ID and so on) right, not expired, and allowed to read there? Without "
            "the right to list, an object that is missing is refused as well"
        )
    if _MOVED.search(text):
        return StoreRefusedError(
            f"{object_url}: the server says that it is elsewhere, and not where: {said}. Are "
            "AWS_REGION and AWS_ENDPOINT_URL those of the bucket?"
        )
    if _NO_RANGES.search(text):
        return StoreRefusedError(
            f"{object_url}: the server does not give the part of a file that it is asked for (HTTP "
            f"Range): {said}. Take the store from a server that does, or copy it to a disk"
        )
    return StoreUnreachableError(f"{object_url} can't be reached: {said}")


def is_behind_end(error: Exception) -> bool:
    """Whether a range was asked for that begins where an object has ended already."""
    return _BEHIND_END.search(str(error)) is not None
