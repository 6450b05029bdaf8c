"""Objects of an S3 bucket, or of a server that speaks its protocol -> files of this machine.

pyarrow's client, as pyarrow is there already. The AWS SDK's own environment variables say where and how, in a pod as
in a user's shell: AWS_SHARED_CREDENTIALS_FILE (or whatever else the SDK looks for), AWS_REGION, AWS_ENDPOINT_URL.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pyarrow import fs

from evaljob.fields import S3_SCHEME
from evaljob.names import Reason
from evaljob_runner.errors import Fatal, Retry

_REFUSED = frozenset(
    {"ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "INVALID_CLIENT_TOKEN_ID"}
)
_ERROR = re.compile(r"AWS Error (?P<code>[A-Z_]+)")


class Bucket:
    """A bucket, as far as one URI is concerned.

    Args:
        uri: `s3://<bucket>/<key>`, for messages.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._path = uri.removeprefix(S3_SCHEME)
        # Without this the SDK asks the cloud's metadata server first, and waits for it.
        os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
        self._client = fs.S3FileSystem(endpoint_override=os.environ.get("AWS_ENDPOINT_URL"))

    def names(self) -> tuple[str, list[str]]:
        """The folder that the URI names or, if it is none, the one that it would be in; and the objects in it."""
        above, _, name = self._path.rpartition("/")
        with self._asking():
            kind = self._client.get_file_info(self._path).type
            if kind == fs.FileType.File:
                return above, [name]
            there = kind == fs.FileType.Directory
            folder = self._path if there else above
            found = self._client.get_file_info(fs.FileSelector(folder, recursive=there, allow_not_found=True))
        names = [info.path.removeprefix(f"{folder}/") for info in found if info.type == fs.FileType.File]
        return folder, sorted(names)

    def copy(self, folder: str, names: Sequence[str], to: Path) -> None:
        """Copy objects of a folder of the bucket, under the same names."""
        with self._asking():
            for name in names:
                target = to / name
                target.parent.mkdir(parents=True, exist_ok=True)
                fs.copy_files(
                    f"{folder}/{name}",
                    str(target),
                    source_filesystem=self._client,
                    destination_filesystem=fs.LocalFileSystem(),
                )

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Errors by what can be done about them.

        Raises:
            Fatal: Unauthorized.
            Retry: DependencyUnavailable.
        """
        try:
            yield
        except OSError as error:
            said = str(error)
            code = found["code"] if (found := _ERROR.search(said)) else ""
            if code in _REFUSED:
                raise Fatal(
                    Reason.UNAUTHORIZED, f"{self._uri}: {code}: check spec.s3.credentialsSecretRef"
                ) from error
            raise Retry(Reason.DEPENDENCY_UNAVAILABLE, f"{self._uri}: {said[:300]}") from error
