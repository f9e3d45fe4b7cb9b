"""Whether results can be signed as the configuration says: certificate, key, library."""

from __future__ import annotations

import datetime
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from heygemd.cli.checks import Finding
from heygemd.core.errors import ProvenanceError
from heygemd.core.provenance import Provenance
from heygemd.core.settings import ProvenanceSettings
from heygemd.work.credentials import certificate_end, library_is_here, read_pem, sign, utc_now

_WARN_DAYS = 30
_TIMEOUT_SECONDS = 30


def check_signing(settings: ProvenanceSettings) -> Iterator[Finding]:
    """Nothing without a certificate; else a short video is signed and read back, without asking for a time stamp."""
    if not settings.certificate:
        return
    try:
        read_pem(settings.private_key, "private_key")
        chain = read_pem(settings.certificate, "certificate")
    except ProvenanceError as error:
        yield Finding("signing", "fail", error.message, error.remedy)
        return
    if not library_is_here():
        yield Finding(
            "signing",
            "fail",
            "c2pa-python is not installed: nothing can be signed",
            "sudo ./install.sh brings it now.",
        )
        return
    yield _days(chain)
    try:
        with tempfile.TemporaryDirectory(prefix="heygemd-doctor-") as folder:
            told = sign(
                _sample(Path(folder) / "sample.mp4"),
                Path(folder) / "signed.mp4",
                Provenance("0" * 32, settings.producer or "heygemd", "none", "heygemd doctor", utc_now()),
                settings.model_copy(update={"timestamp_url": ""}),
            )
    except ProvenanceError as error:
        remedy = "Correct provenance.certificate, private_key or algorithm; docs/provenance.md says what is needed."
        yield Finding("signing", "fail", error.message, remedy)
    else:
        yield Finding(
            "signing", "ok", f"results can be signed as {told.signer} of {told.issuer} ({told.state.lower()})"
        )


def _days(chain: bytes) -> Finding:
    try:
        end = certificate_end(chain)
    except ProvenanceError as error:
        return Finding("signing", "fail", error.message, "Give a PEM file, own certificate first.")
    days = (end - datetime.datetime.now(datetime.UTC)).days
    if days < 0:
        return Finding("signing", "fail", f"the certificate ended on {end:%Y-%m-%d}", "Get a new one.")
    if days < _WARN_DAYS:
        return Finding("signing", "warn", f"the certificate ends in {days} days, on {end:%Y-%m-%d}", "Renew it.")
    return Finding("signing", "ok", f"the certificate is good for {days} days")


def _sample(path: Path) -> Path:
    """A tenth of a second of nothing. Raises ProvenanceError where ffmpeg cannot."""
    command = ["ffmpeg", "-v", "error", "-nostdin", "-f", "lavfi", "-i", "color=s=64x64:d=0.1", f"file:{path}"]
    try:
        subprocess.run(command, capture_output=True, timeout=_TIMEOUT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise ProvenanceError(
            f"no video to try a signature on: {error}", remedy="See what is said of ffmpeg."
        ) from None
    return path
