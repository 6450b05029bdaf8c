"""What an answer of the API server means: its errors and its warnings."""

import json
import re

from evaljob_operator.api import (
    AlreadyExistsError,
    ApiError,
    ConflictError,
    ForbiddenError,
    GoneError,
    InvalidError,
    NotFoundError,
    TooManyRequestsError,
)

_KINDS: dict[int, type[ApiError]] = {
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
    422: InvalidError,
    429: TooManyRequestsError,
}
RETRY_AFTER_MAX = 60.0
"""Seconds. All requests wait for so long, and a proxy on the way may name an hour."""


def error_of(status: int, text: bytes | str, retry_after: str | None = None) -> ApiError:
    """The error that an answer stands for; also for the Status of an ERROR event."""
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        document = {"message": str(text[:300])}
    reason = str(document.get("reason") or "")
    causes = (document.get("details") or {}).get("causes") or [{}]
    kind = AlreadyExistsError if reason == "AlreadyExists" else _KINDS.get(status, ApiError)
    error = kind(status, reason, str(document.get("message") or ""), str(causes[0].get("reason") or ""))
    if isinstance(error, TooManyRequestsError) and (retry_after or "").isdecimal():
        error.retry_after = min(float(retry_after or 0), RETRY_AFTER_MAX)
    return error


def warnings_of(header: str | None) -> tuple[str, ...]:
    """The texts of Warning headers, `299 - "text"`, joined by commas (RFC 7234, 5.5)."""
    texts = re.findall(r'299 \S+ "((?:[^"\\]|\\.)*)"', header or "")
    return tuple(re.sub(r"\\(.)", r"\1", text) for text in texts)
