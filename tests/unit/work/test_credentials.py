"""Content Credentials with a certificate chain of the tests' own: signed, read back, told when tampered with."""

from __future__ import annotations

from pathlib import Path

import pytest

from heygemd.core.errors import ProvenanceError
from heygemd.core.provenance import SOURCE_TYPE
from heygemd.core.settings import ProvenanceSettings
from heygemd.media.stamp import append_xmp, check_labels, top_boxes
from heygemd.work.credentials import read_credentials, require_signing, sign
from tests.certificates import Chain, make_chain
from tests.unit.media.test_stamp import ABOUT, make_mp4, stream_hashes

c2pa = pytest.importorskip("c2pa")


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return make_chain(tmp_path_factory.mktemp("chain"))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_mp4(tmp_path_factory.mktemp("credentials") / "video.mp4", ABOUT)
    append_xmp(path, ABOUT.xmp())
    return path


def settings(chain: Chain, **more: str) -> ProvenanceSettings:
    files = {"certificate": str(chain.certificate), "private_key": str(chain.private_key)}
    return ProvenanceSettings(**{**files, **more})


def test_a_signed_video_is_valid_and_keeps_its_packets_and_labels(video: Path, chain: Chain, tmp_path: Path) -> None:
    target = tmp_path / "signed.mp4"
    told = sign(video, target, ABOUT, settings(chain))
    assert told.state == "Valid"  # by a root that nobody's trust list knows
    assert (told.issuer, told.signer, told.algorithm) == ("heygemd tests", "Test signer", "Es256")
    assert read_credentials(target) == told
    assert stream_hashes(target) == stream_hashes(video)
    check_labels(target, ABOUT)
    kinds = [box.kind for box in top_boxes(target)]
    assert kinds.index(b"moov") < kinds.index(b"mdat"), "it could no longer be streamed"


def test_another_program_that_trusts_the_root_trusts_the_video(video: Path, chain: Chain, tmp_path: Path) -> None:
    target = tmp_path / "signed.mp4"
    sign(video, target, ABOUT, settings(chain))
    context = c2pa.Context.from_dict({"trust": {"trust_anchors": chain.root.read_text()}})
    with c2pa.Reader(target, context=context) as reader:
        assert reader.get_validation_state() == "Trusted"
        manifest = reader.get_active_manifest()
    (action,) = next(a for a in manifest["assertions"] if a["label"].startswith("c2pa.actions"))["data"]["actions"]
    assert action["digitalSourceType"] == SOURCE_TYPE
    assert manifest["claim_generator_info"][0]["name"] == "heygemd"


def test_a_changed_picture_is_told(video: Path, chain: Chain, tmp_path: Path) -> None:
    target = tmp_path / "signed.mp4"
    sign(video, target, ABOUT, settings(chain))
    data = bytearray(target.read_bytes())
    place = next(box for box in top_boxes(target) if box.kind == b"mdat").start + 500
    data[place] ^= 1
    target.write_bytes(data)
    with pytest.raises(ProvenanceError, match="Content Credentials are Invalid"):
        read_credentials(target)


def test_an_unsigned_video_has_none(video: Path) -> None:
    with pytest.raises(ProvenanceError, match="no Content Credentials"):
        read_credentials(video)


def test_what_cannot_sign_says_so_and_leaves_nothing(video: Path, chain: Chain, tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    cases = {
        "private_key": ({"private_key": str(tmp_path / "none.pem")}, "cannot be read: No such file"),
        "no pem": ({"certificate": str(video)}, "is no PEM file"),
        "other algorithm": ({"algorithm": "ps256"}, "cannot be made"),
        "other key": ({"private_key": str(make_chain(tmp_path).private_key)}, "Content Credentials"),
    }
    for name, (more, complaint) in cases.items():
        with pytest.raises(ProvenanceError, match=complaint):
            sign(video, target, ABOUT, settings(chain, **more))
        assert not target.exists(), name


def test_an_expired_certificate_signs_nothing(video: Path, tmp_path: Path) -> None:
    with pytest.raises(ProvenanceError):
        sign(video, tmp_path / "out.mp4", ABOUT, settings(make_chain(tmp_path, valid_days=-1)))
    assert not (tmp_path / "out.mp4").exists()


def test_certificate_and_key_go_together() -> None:
    with pytest.raises(ValueError, match="go together"):
        ProvenanceSettings(certificate="/etc/heygemd/chain.pem")


def test_what_cannot_succeed_is_noticed_before_the_render(chain: Chain, tmp_path: Path) -> None:
    require_signing(ProvenanceSettings())
    require_signing(settings(chain))
    with pytest.raises(ProvenanceError, match="it ended on"):
        require_signing(settings(make_chain(tmp_path, valid_days=-1)))
    with pytest.raises(ProvenanceError, match="cannot be read"):
        require_signing(settings(chain, certificate=str(tmp_path / "none.pem")))
    (tmp_path / "odd.pem").write_text("-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n")
    with pytest.raises(ProvenanceError, match=r"provenance\.certificate"):
        require_signing(settings(chain, certificate=str(tmp_path / "odd.pem")))
