"""Every error a user can meet. Each class says whether trying again can help and what to do about it.

An error's `code` (HG-xxxx) is its page entry in docs/troubleshooting.md. `str(error)` is one line for people:
what is wrong, with which file; `remedy` is what to do.
"""

from __future__ import annotations

from typing import Any, ClassVar


class HeygemdError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "HG-0000"
    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1
    default_remedy: ClassVar[str] = "See the log of the job."

    def __init__(self, message: str, *, remedy: str | None = None, path: str | None = None, **details: Any) -> None:
        """`details`: the numbers and names in the message, units in their keys, for whoever does not read English.
        `case` among them says which of the class's sentences it is (web/texts: error.<code>.<case>)."""
        super().__init__(message)
        self.message = message
        self.remedy = remedy or self.default_remedy
        self.path = path
        self.details = details

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form: crosses the worker's pipe and lands in error.json."""
        return {
            "type": type(self).__name__,
            "code": self.code,
            "message": self.message,
            "remedy": self.remedy,
            "path": self.path,
            "retryable": self.retryable,
            "details": self.details,
        }

    @staticmethod
    def from_dict(data: dict[str, Any]) -> HeygemdError:
        """Rebuild the error that a worker reported. An unknown type becomes a plain HeygemdError."""
        cls = _all_errors().get(data.get("type", ""), HeygemdError)
        return cls(
            data.get("message", "unknown error"),
            remedy=data.get("remedy"),
            path=data.get("path"),
            **data.get("details", {}),
        )


class BadInputError(HeygemdError):
    """The files or the settings that somebody gave are wrong; the same input fails again."""

    code = "HG-1000"
    exit_code = 2
    default_remedy = "Correct the input and drop it again."


class ManifestError(BadInputError):
    """A manifest or preset does not say what it must."""

    code = "HG-1001"
    default_remedy = "Compare the manifest with config/manifest.schema.json."


class UnsafePathError(BadInputError):
    """A path leaves the inbox, is a link, or names something that is not a plain file."""

    code = "HG-1002"
    default_remedy = "Name plain files below the manifest's own folder."


class UnreadableMediaError(BadInputError):
    """ffmpeg cannot read the file as what it claims to be."""

    code = "HG-1003"
    default_remedy = "Check that the file plays in a player, export it again as MP4 (H.264) or WAV, and drop it again."


class NoVideoError(BadInputError):
    """The file that should hold the picture has none."""

    code = "HG-1004"
    default_remedy = "Give a video or a still image with a face."


class NoAudioError(BadInputError):
    """The file that should hold the speech has no sound, or none that lasts."""

    code = "HG-1005"
    default_remedy = "Give a recording with at least a tenth of a second of sound."


class NoFaceError(BadInputError):
    """No face was found in the whole clip."""

    code = "HG-1006"
    default_remedy = "Use a clip where a face looks at the camera, or give its place with `face: x0,y0,x1,y1`."


class LimitError(BadInputError):
    """The input is beyond a limit that the operator set."""

    code = "HG-1007"
    default_remedy = "Shorten or shrink the input, or ask the operator to raise the limit."


class MissingInputError(BadInputError):
    """A file that a manifest names, or the other half of a pair, never came."""

    code = "HG-1008"
    default_remedy = "Drop the missing file beside the manifest, then run `heygemd retry`."


class SpeechError(BadInputError):
    """The text cannot be spoken."""

    code = "HG-1009"
    default_remedy = "Check `language` and `voice`; `espeak-ng --voices` lists what there is."


class ConfigError(BadInputError):
    """The configuration is wrong."""

    code = "HG-1010"
    default_remedy = "Run `heygemd check-config`; config/heygemd.toml documents every key."


class EngineUnavailableError(BadInputError):
    """The engine that was asked for cannot run here."""

    code = "HG-1011"
    default_remedy = "Use `engine: auto`, or give the engine what it needs (`heygemd doctor` says what)."


class CheckpointError(BadInputError):
    """A checkpoint is not what it should be."""

    code = "HG-1012"
    default_remedy = "Run `heygemd checkpoints verify`; download the file again from its source."


class UsageError(BadInputError):
    """The command line is wrong."""

    code = "HG-1013"
    default_remedy = "See `heygemd --help`."


class ConsentMissingError(BadInputError):
    """The folder demands a consent file beside the video, and none came with it."""

    code = "HG-1014"
    default_remedy = "Put the consent beside the video, named as it is (lecture.consent.pdf), and drop all files again."


class TryLaterError(HeygemdError):
    """Nothing is wrong with the input; the machine cannot do it now."""

    code = "HG-2000"
    retryable = True
    exit_code = 75
    default_remedy = "It goes on by itself when the cause is gone."


class DiskFullError(TryLaterError):
    """A disk has no room. The queue pauses and goes on when there is room."""

    code = "HG-2001"
    default_remedy = "Free space on the named disk; the job goes on by itself."


class ShareAwayError(TryLaterError):
    """The share cannot be reached. Nothing is deleted because it cannot be seen."""

    code = "HG-2002"
    default_remedy = "Bring the share back; the daemon goes on by itself."


class InputBusyError(TryLaterError):
    """An input is still being written, or another program holds it."""

    code = "HG-2003"
    default_remedy = "Wait until the copy has ended."


class OutOfMemoryError(TryLaterError):
    """The work did not fit into the device's memory."""

    code = "HG-2004"
    default_remedy = "It is tried again with a smaller batch; `heygemd plan` shows what would fit."


class CannotFitError(TryLaterError):
    """Not even the smallest plan fits any device."""

    code = "HG-2005"
    default_remedy = "Give the daemon a larger device or more memory, or set `resolution_limit`."


class NodeLostError(TryLaterError):
    """A machine of the cluster, or the way to it, was lost while it rendered."""

    code = "HG-2007"
    default_remedy = "It is rendered again elsewhere; `ray status` shows which nodes the cluster still has."


class LeaseLostError(TryLaterError):
    """Another daemon owns the share now."""

    code = "HG-2008"
    default_remedy = "Nothing: the other daemon goes on with the jobs, and this one stands by."


class RenderError(HeygemdError):
    """Rendering failed for a reason that is not the input's fault."""

    code = "HG-3000"
    default_remedy = "Run `heygemd retry JOB`; if it fails again, send error.json and ffmpeg.log with a bug report."


class WorkerDiedError(RenderError):
    """The worker process ended without an answer."""

    code = "HG-3001"
    retryable = True


class FfmpegError(RenderError):
    """ffmpeg failed where it should not; its last lines are in ffmpeg.log."""

    code = "HG-3002"


class VerifyError(RenderError):
    """The finished video is not what was planned (length, size or streams)."""

    code = "HG-3003"


class ProvenanceError(RenderError):
    """The finished video could not be labelled or signed as synthetic, so it was not published."""

    code = "HG-3004"
    default_remedy = "Run `heygemd doctor`, correct what it says of [provenance], then run `heygemd retry JOB`."


class EncoderUnavailableError(RenderError):
    """The card's encoder or decoder (NVENC, NVDEC) cannot be used."""

    code = "HG-3005"
    default_remedy = (
        "`heygemd doctor` tries it and says why; set media.encoder and media.decoder to auto or software to do without."
    )


class CancelledError(HeygemdError):
    """Somebody cancelled the job."""

    code = "HG-4000"
    default_remedy = "Run `heygemd retry JOB` to start it again."


def _all_errors() -> dict[str, type[HeygemdError]]:
    found: dict[str, type[HeygemdError]] = {}
    todo: list[type[HeygemdError]] = [HeygemdError]
    while todo:
        cls = todo.pop()
        found[cls.__name__] = cls
        todo.extend(cls.__subclasses__())
    return found
