"""Who decodes and encodes an item: chosen while it is prepared, by trials on every card that may render it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from heygemd.core.clip import VideoInfo
from heygemd.core.coding import NVDEC, NVENC, SOFTWARE, Card, Coding
from heygemd.core.errors import EncoderUnavailableError
from heygemd.core.options import Options
from heygemd.core.settings import MediaSettings
from heygemd.media.encode import nvenc_takes
from heygemd.media.hardware import Trial, card_takes, try_decoder, try_encoder


def require_coding(media: MediaSettings, cards: Sequence[Card]) -> None:
    """Raise EncoderUnavailableError where the configuration insists on NVENC and it does not work: before anything is
    rendered. What a single job's picture is too small or too large for is no reason."""
    if media.encoder == NVENC and (failed := _first_failure([try_encoder(card) for card in cards or (Card(),)])):
        raise EncoderUnavailableError(f"media.encoder is nvenc, but {failed.reason}")


def choose_coding(
    media: MediaSettings, path: Path, video: VideoInfo, options: Options, cards: Sequence[Card], *, on_card: bool
) -> Coding:
    """`cards`: of this machine, that may render the item; `on_card`: whether its engine renders on cards at all."""
    where = None
    if not on_card:
        where = "it renders on the CPU"
    elif not cards:
        where = "its cards are not of this machine, and could not be tried"
    encoder, why = _choose(
        media.encoder,
        where or nvenc_takes(video, lossless=options.lossless),
        NVENC,
        lambda: [try_encoder(card, video) for card in cards],
    )
    decoder, because = _choose(
        media.decoder, where or card_takes(video), NVDEC, lambda: [try_decoder(path, video, card) for card in cards]
    )
    return Coding(encoder, why, decoder, because)


def _choose(setting: str, against: str | None, hardware: str, trials: Callable[[], list[Trial]]) -> tuple[str, str]:
    if setting == SOFTWARE:
        return SOFTWARE, "the configuration asks for it"
    if against is not None:
        return SOFTWARE, against
    tried = trials()
    failed = _first_failure(tried)
    return (hardware, tried[0].reason) if failed is None else (SOFTWARE, failed.reason)


def _first_failure(trials: Sequence[Trial]) -> Trial | None:
    return next((trial for trial in trials if not trial.ok), None)
