"""Content Credentials: a signed C2PA manifest in the finished MP4, by the kept library (extra `credentials`).

The library hashes the file, signs with the operator's certificate, writes the manifest behind `ftyp` and moves the
index's offsets; pictures and sound stay as they are. What it wrote is read back before anybody sees the file.
"""

from __future__ import annotations

import datetime
import importlib.util
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heygemd.core.errors import ProvenanceError
from heygemd.core.provenance import SOURCE_TYPE, Provenance
from heygemd.core.settings import ProvenanceSettings

_GOOD_STATES = ("Valid", "Trusted")
_signing = threading.Lock()


@dataclass(frozen=True)
class Credentials:
    """What was signed, for the receipt."""

    manifest: str
    issuer: str
    signer: str
    algorithm: str
    state: str  # Valid: intact; Trusted: and its certificate is on the library's trust list

    def to_dict(self) -> dict[str, str]:
        return dict(vars(self))


def library_is_here() -> bool:
    return importlib.util.find_spec("c2pa") is not None


def require_signing(settings: ProvenanceSettings) -> None:
    """Raise ProvenanceError where a signature is asked for and cannot succeed: before anything is rendered for it."""
    if not settings.certificate:
        return
    if not library_is_here():
        raise ProvenanceError(
            "Content Credentials are asked for, but c2pa-python is not installed",
            remedy="Run install.sh again (or pip install 'heygemd[credentials]'), or empty provenance.certificate.",
        )
    read_pem(settings.private_key, "private_key")
    end = certificate_end(read_pem(settings.certificate, "certificate"))
    if end < datetime.datetime.now(datetime.UTC):
        raise ProvenanceError(f"provenance.certificate: it ended on {end:%Y-%m-%d}", path=settings.certificate)


def certificate_end(chain: bytes) -> datetime.datetime:
    """Until when the first certificate of a PEM chain is good. Raises ProvenanceError."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(chain)[0].not_valid_after_utc
    except ValueError as error:
        raise ProvenanceError(f"provenance.certificate: {_one_line(error)}") from None


def sign(source: Path, target: Path, provenance: Provenance, settings: ProvenanceSettings) -> Credentials:
    """Write `target`: `source` with a signed manifest, read back and found valid. Raises ProvenanceError."""
    require_signing(settings)
    import c2pa

    chain = read_pem(settings.certificate, "certificate")
    key = read_pem(settings.private_key, "private_key")
    with _signing:
        try:
            signer = c2pa.Signer.from_info(
                c2pa.C2paSignerInfo(
                    alg=c2pa.C2paSigningAlg[settings.algorithm.upper()],
                    sign_cert=chain,
                    private_key=key,
                    ta_url=settings.timestamp_url.encode() or None,
                )
            )
            with signer, c2pa.Builder(_manifest(provenance)) as builder:
                builder.sign_file(source, target, signer)
            return read_credentials(target)
        except ProvenanceError:
            target.unlink(missing_ok=True)
            raise
        except c2pa.C2paError as error:
            target.unlink(missing_ok=True)
            raise ProvenanceError(
                f"{source.name}: Content Credentials cannot be made: {_one_line(error)}", path=str(source)
            ) from None


def read_credentials(path: Path) -> Credentials:
    """The manifest of an MP4, validated by the library. Raises ProvenanceError when it is absent or does not hold."""
    import c2pa

    try:
        with c2pa.Reader(path) as reader:
            state, manifest = reader.get_validation_state(), reader.get_active_manifest()
    except c2pa.C2paError as error:
        raise ProvenanceError(f"{path.name}: no Content Credentials: {_one_line(error)}", path=str(path)) from None
    if state not in _GOOD_STATES or not manifest or SOURCE_TYPE not in str(manifest.get("assertions")):
        raise ProvenanceError(f"{path.name}: its Content Credentials are {state or 'empty'}", path=str(path))
    signature: dict[str, Any] = manifest.get("signature_info", {})
    return Credentials(
        manifest=str(manifest.get("label", "")),
        issuer=str(signature.get("issuer", "")),
        signer=str(signature.get("common_name", "")),
        algorithm=str(signature.get("alg", "")),
        state=str(state),
    )


def read_pem(name: str, key: str) -> bytes:
    """The text of a PEM file that the configuration names. Raises ProvenanceError."""
    try:
        data = Path(name).expanduser().read_bytes()
    except OSError as error:
        raise ProvenanceError(
            f"provenance.{key}: {name} cannot be read: {error.strerror}",
            remedy="Correct the path, or let the service's user read the file (chgrp heygemd, chmod 0640).",
            path=name,
        ) from None
    if b"-----BEGIN " not in data:
        raise ProvenanceError(f"provenance.{key}: {name} is no PEM file", path=name)
    return data


def _manifest(provenance: Provenance) -> dict[str, Any]:
    name, _, version = provenance.program.partition(" ")
    return {
        "claim_generator_info": [{"name": name, "version": version}],
        "title": provenance.content_id,
        "format": "video/mp4",
        "assertions": [
            {
                "label": "c2pa.actions",
                "data": {
                    "actions": [
                        {
                            "action": "c2pa.created",
                            "when": provenance.created,
                            "softwareAgent": {"name": provenance.program},
                            "digitalSourceType": SOURCE_TYPE,
                            "description": provenance.sentence,
                        }
                    ]
                },
            }
        ],
    }


def utc_now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
