"""The sections of the configuration. `heygemd.config` reads them from file, environment and command line."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Section(BaseModel):
    """One table of the TOML file. Unknown keys are errors: a typo must not pass for a setting."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class InboxSettings(Section):
    """When a dropped file counts as complete, and how the inbox is watched."""

    scan_seconds: Annotated[
        float, Field(gt=0, description="seconds between two full scans; events make one sooner")
    ] = 5.0
    settle_scans: Annotated[int, Field(ge=1, description="a file must look the same over this many scans")] = 2
    settle_seconds: Annotated[float, Field(ge=0, description="and nobody may have written to it for this long")] = 5.0
    partner_timeout_seconds: Annotated[
        float,
        Field(ge=0, description="a pair or manifest that still misses a file after this fails; 0 = waits forever"),
    ] = 86400.0
    watch: Annotated[
        Literal["auto", "events", "polling"],
        Field(description="auto: inotify on local disks, polling on network filesystems"),
    ] = "auto"
    ignore: Annotated[tuple[str, ...], Field(description="more globs to ignore, matched against the file's name")] = ()
    max_manifest_bytes: Annotated[int, Field(ge=100, description="a larger manifest is refused unread")] = 1_000_000
    max_pending_per_folder: Annotated[
        int, Field(ge=1, description="jobs of one folder that may wait; more stay in the inbox until there is room")
    ] = 10_000
    max_pending_bytes_per_folder: Annotated[
        int,
        Field(ge=0, description="bytes of one folder's waiting jobs; a single drop beyond is refused; 0 = no limit"),
    ] = 0
    max_active_seconds_per_folder: Annotated[
        float,
        Field(ge=0, description="seconds of video of one folder in work at once; its other jobs wait; 0 = no limit"),
    ] = 0.0


class LimitSettings(Section):
    """What one job may ask of the machine. Beyond a limit the job fails with HG-1007."""

    max_frame_pixels: Annotated[int, Field(ge=4096, description="width x height of a video or picture")] = 8192 * 8192
    max_video_seconds: Annotated[float, Field(gt=0, description="longest video")] = 6 * 3600.0
    max_speech_seconds: Annotated[float, Field(gt=0, description="longest recording, so also longest result")] = (
        6 * 3600.0
    )
    max_file_bytes: Annotated[int, Field(ge=1000, description="largest single input")] = 200 * 10**9
    max_text_characters: Annotated[int, Field(ge=1, description="longest text of a text job")] = 100_000
    max_batch_items: Annotated[int, Field(ge=1, description="results of one manifest")] = 500


class SchedulerSettings(Section):
    """Devices, memory and how jobs are cut and ordered."""

    executor: Annotated[
        Literal["local", "ray"], Field(description="who renders: this machine, or the Ray cluster of [ray]")
    ] = "local"
    devices: Annotated[
        tuple[str, ...],
        Field(description='"auto": every GPU, or the CPU where there is none; else "cpu", "cuda:0", …'),
    ] = ("auto",)
    cpu_slots: Annotated[int, Field(ge=0, description="workers on the CPU at once; 0 = one for every two cores")] = 0
    cpu_memory_mib: Annotated[int, Field(ge=0, description="RAM for renders; 0 = 80 % of what the machine offers")] = 0
    gpu_memory_fraction: Annotated[
        float, Field(gt=0, le=1, description="share of a GPU's memory that renders may reserve")
    ] = 0.9
    simulated_gpus_mib: Annotated[
        tuple[Annotated[int, Field(gt=0)], ...],
        Field(description="place as if there were GPUs of these sizes, render on the CPU; for tests and dry runs"),
    ] = ()
    cpu_fallback: Annotated[
        bool, Field(description="render on the CPU when every GPU is away; otherwise jobs wait for one to come back")
    ] = False
    calibrate: Annotated[
        Literal["auto", "always", "never"],
        Field(description="measure memory with a made-up clip at first use. auto: GPUs; always: the CPU too"),
    ] = "auto"
    segment_seconds: Annotated[float, Field(gt=0, description="longest segment")] = 30.0
    max_segment_frames: Annotated[int, Field(ge=1, description="and the longest in frames")] = 3000
    max_segment_megapixels: Annotated[
        int, Field(ge=1, description="and the longest in pixels of all its frames: 4K and 8K are cut shorter")
    ] = 6200
    attempts: Annotated[int, Field(ge=1, description="how often a segment is tried before its job fails")] = 3
    aging_seconds: Annotated[
        float, Field(gt=0, description="a waiting job gains one priority step for each such time")
    ] = 600.0
    worker_idle_seconds: Annotated[
        float, Field(ge=0, description="an idle worker ends after this and frees its memory")
    ] = 300.0
    heartbeat_timeout_seconds: Annotated[
        float, Field(gt=1, description="a worker that says nothing for this long is killed and its segment tried again")
    ] = 120.0

    @field_validator("devices")
    @classmethod
    def _known_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value == ("auto",):
            return value
        if not value or len(set(value)) != len(value):
            raise ValueError('must name each device once, or be ["auto"]')
        wrong = [name for name in value if not re.fullmatch(r"cpu|cuda:\d{1,4}", name)]
        if wrong:
            raise ValueError(f'{wrong[0]!r} is no device: "cpu", "cuda:0", "cuda:1", …; "auto" stands alone')
        return value


class RaySettings(Section):
    """The Ray cluster that renders where scheduler.executor is "ray" (docs/scaling.md)."""

    address: Annotated[
        str,
        Field(min_length=1, description='HOST:PORT of the head, or "auto": the cluster that this machine has joined'),
    ] = "auto"
    when_lost: Annotated[
        Literal["wait", "local"], Field(description="while the cluster is away: wait for it, or render on this machine")
    ] = "wait"
    share: Annotated[
        Literal["auto", "never"],
        Field(description="auto: files travel over the share to nodes that prove to have it mounted; never: over Ray"),
    ] = "auto"
    share_on_nodes: Annotated[str, Field(description="where the nodes mount the share; empty = where it is here")] = ""
    node_folder: Annotated[str, Field(min_length=1, description="work files of a node, on a local disk of it")] = (
        "/var/tmp/heygemd"  # noqa: S108 - survives a reboot, and each node makes a folder of its own below it
    )
    node_cache_mib: Annotated[
        int, Field(ge=100, description="inputs that a node keeps for its next segments; the oldest go first")
    ] = 20_480
    chunk_mib: Annotated[
        int, Field(ge=1, le=64, description="size of the pieces that files travel in over Ray, four at once")
    ] = 4
    start_seconds: Annotated[
        float, Field(gt=0, description="a worker that has not started on its node after this counts as lost")
    ] = 120.0

    @field_validator("address")
    @classmethod
    def _no_client(cls, value: str) -> str:
        if value.startswith("ray://"):
            raise ValueError("Ray Client (ray://) cannot follow segments; let this machine join the cluster instead")
        return value


class MediaSettings(Section):
    """How results are encoded."""

    preset: Annotated[
        Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow"],
        Field(description="x264/x265 preset"),
    ] = "veryfast"
    audio_bitrate_kbps: Annotated[int, Field(ge=32, le=512, description="AAC, kilobits a second")] = 192
    encoder: Annotated[
        Literal["auto", "software", "nvenc"],
        Field(
            description="auto: the card's encoder where a card renders and a trial of it passes, else x264/x265; "
            "nvenc: jobs fail where the trial does"
        ),
    ] = "auto"
    decoder: Annotated[
        Literal["auto", "software", "nvdec"],
        Field(
            description="of the second pass, like encoder; the card's runs without the limit on a decoder's address "
            "space"
        ),
    ] = "auto"


class ProvenanceSettings(Section):
    """How results say that they are synthetic; docs/provenance.md explains it."""

    metadata: Annotated[
        bool, Field(description="label every result: China's AIGC label and the IPTC digital source type")
    ] = True
    producer: Annotated[
        str, Field(max_length=200, description="who makes the results: name or code for the label; empty = heygemd")
    ] = ""
    mark: Annotated[
        Literal["off", "en", "zh", "both"],
        Field(description="words in the picture's corner, in English, Chinese or both; a job may ask for it too"),
    ] = "off"
    certificate: Annotated[
        str, Field(description="PEM file, own certificate first, to sign Content Credentials with; empty = unsigned")
    ] = ""
    private_key: Annotated[str, Field(description="PEM file of the certificate's key, readable by the service")] = ""
    algorithm: Annotated[
        Literal["es256", "es384", "es512", "ps256", "ps384", "ps512", "ed25519"],
        Field(description="signature algorithm, as the key allows"),
    ] = "es256"
    timestamp_url: Annotated[
        str,
        Field(max_length=2000, description="time-stamping authority (RFC 3161) asked at each signature; empty = none"),
    ] = ""

    @model_validator(mode="after")
    def _both_or_none(self) -> ProvenanceSettings:
        if bool(self.certificate) != bool(self.private_key):
            raise ValueError("certificate and private_key go together")
        return self


class EngineSettings(Section):
    """Which engine renders when a job says `auto`, and where checkpoints lie."""

    default: Annotated[str, Field(description="auto: wav2lip when a verified checkpoint is there, else rewrite")] = (
        "auto"
    )
    cpu_only: Annotated[
        tuple[str, ...],
        Field(description="engines that render on the CPU whatever is there; rewrite on a GPU was never measured"),
    ] = ("rewrite",)
    checkpoint_dir: Annotated[
        str, Field(description="folder of the operator's checkpoints; empty = STATE/checkpoints")
    ] = ""
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "int8"],
        Field(
            description="what networks compute in. auto: the fastest that is close enough; "
            "int8: on CPUs, where a network takes it"
        ),
    ] = "auto"
    face_detector: Annotated[
        Literal["cascade", "s3fd", "retinaface", "scrfd", "blazeface", "blazeface_back", "yunet"],
        Field(description="cascade is always there; the others find harder faces, slower, with the operator's weights"),
    ] = "cascade"
    face_detector_file: Annotated[
        str, Field(description="weights of the detector; empty = the registry's file for it in checkpoint_dir")
    ] = ""
    landmarks: Annotated[
        Literal["auto", "off"],
        Field(description="auto: rewrite measures the source's mouth with face-alignment's landmarks where they are"),
    ] = "auto"
    landmarks_file: Annotated[
        str, Field(description="weights of the landmarks' network; empty = the one in checkpoint_dir, if any")
    ] = ""


class RetentionSettings(Section):
    """Clean-up of what the daemon made. 0 = no limit."""

    outbox_days: Annotated[float, Field(ge=0, description="results: kept this many days")] = 0.0
    failed_days: Annotated[float, Field(ge=0, description="failed jobs and their inputs: kept this many days")] = 30.0
    archive_days: Annotated[float, Field(ge=0, description="inputs of finished jobs: kept this many days")] = 7.0
    outbox_max_bytes: Annotated[
        int, Field(ge=0, description="results: the oldest go when all are larger than this")
    ] = 0
    failed_max_bytes: Annotated[
        int, Field(ge=0, description="failed jobs and their inputs: the oldest go when all are larger than this")
    ] = 0
    archive_max_bytes: Annotated[
        int, Field(ge=0, description="inputs of finished jobs: the oldest go when all are larger than this")
    ] = 0
    outbox_max_jobs: Annotated[int, Field(ge=0, description="results: the oldest go when there are more jobs")] = 0
    failed_max_jobs: Annotated[int, Field(ge=0, description="failed jobs: the oldest go when there are more")] = 0
    archive_max_jobs: Annotated[
        int, Field(ge=0, description="inputs of finished jobs: the oldest go when there are more jobs")
    ] = 0
    keep_unfetched: Annotated[
        bool,
        Field(description="results that nobody has read stay, whatever the limits; needs access times (relatime)"),
    ] = False
    min_free_bytes: Annotated[
        int, Field(ge=0, description="when the share has less room, the oldest of archive, then failed goes first")
    ] = 0
    interval_seconds: Annotated[float, Field(gt=0, description="seconds between two clean-ups")] = 3600.0


class LogSettings(Section):
    """Where log lines go and how they look."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Field(description="the least important lines that are written")
    ] = "info"
    format: Annotated[
        Literal["auto", "json", "console"], Field(description="auto: readable on a terminal, JSON lines elsewhere")
    ] = "auto"
    file: Annotated[str, Field(description="also write JSON lines here, rotated at 20 MB, five kept; empty = no")] = ""


class MetricsSettings(Section):
    """Figures for Prometheus: on a port, in a file for node_exporter, or both; docs/metrics.md lists them."""

    port: Annotated[int, Field(ge=0, le=65535, description="port of /metrics; 0 = none; 9464 is free for such")] = 0
    address: Annotated[
        str, Field(description="address of that port; there is no password: another than loopback shows it to others")
    ] = "127.0.0.1"
    textfile: Annotated[
        str, Field(pattern=r"^$|\.prom$", description="also write them here, for node_exporter: NAME.prom; empty = no")
    ] = ""
    textfile_seconds: Annotated[float, Field(ge=1, description="seconds between two such files")] = 15.0


class ServiceSettings(Section):
    """The daemon's own behaviour."""

    drain_seconds: Annotated[
        float, Field(ge=0, description="on SIGTERM, running segments may take this long to end")
    ] = 20.0
    status_seconds: Annotated[float, Field(gt=0, description="status files are rewritten at most this often")] = 1.0
    takeover_seconds: Annotated[
        float,
        Field(
            ge=0,
            description="several daemons may serve one share: one works, the others stand by and take over when it has "
            "been silent for this long; 0 = this is the only one",
        ),
    ] = 0.0
    notify_hosts: Annotated[
        tuple[str, ...],
        Field(description="hosts that `notify` may call; empty = none, since users of the share choose the address"),
    ] = ()
    min_free_state_bytes: Annotated[int, Field(ge=0, description="below this the queue pauses")] = 500_000_000
    min_free_share_bytes: Annotated[int, Field(ge=0, description="below this the queue pauses")] = 500_000_000
    max_work_bytes: Annotated[
        int, Field(ge=0, description="work files of all jobs together; jobs wait until there is room; 0 = no limit")
    ] = 0


class WebSettings(Section):
    """The web page (`heygemd web`, docs/web.md). The daemon reads none of it."""

    host: Annotated[str, Field(description="address to listen on; 0.0.0.0 = every one, then use auth and a proxy")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Field(ge=0, le=65535, description="port to listen on; 0 = any free one")] = 7860
    root_path: Annotated[
        str,
        Field(pattern=r"^(/[A-Za-z0-9._~-]+)*$", description="path behind a proxy, such as /video; empty = none"),
    ] = ""
    auth: Annotated[
        Literal["none", "basic", "proxy"],
        Field(description="none: each browser is a guest of its own; basic: names and passwords; proxy: its header"),
    ] = "none"
    users_file: Annotated[
        str,
        Field(description="names and hashed passwords for basic (`heygemd web --add-user`); empty = STATE/web/users"),
    ] = ""
    user_header: Annotated[str, Field(min_length=1, description="header in which the proxy names the user")] = (
        "X-Remote-User"
    )
    proxies: Annotated[
        tuple[str, ...], Field(description="addresses of proxies that are believed: user, original host and scheme")
    ] = ("127.0.0.1", "::1")
    admins: Annotated[tuple[str, ...], Field(description="users who see the operators' page; guests never do")] = ()
    max_upload_bytes: Annotated[int, Field(ge=1000, description="largest file that is taken")] = 20 * 10**9
    max_user_bytes: Annotated[int, Field(ge=1000, description="all files that one user keeps here")] = 100 * 10**9
    max_user_files: Annotated[int, Field(ge=2, description="files that one user keeps here, unfinished ones too")] = (
        1000
    )
    max_user_jobs: Annotated[int, Field(ge=1, description="jobs of one user that may wait or run at once")] = 100
    max_sessions: Annotated[int, Field(ge=1, description="users and guests that keep files here at once")] = 1000
    upload_days: Annotated[float, Field(gt=0, description="uploaded files are kept this long after their last use")] = (
        7.0
    )
    chunk_bytes: Annotated[
        int, Field(ge=65536, description="browsers send pieces of this size; a proxy must let them through")
    ] = 8_000_000
    link_hours: Annotated[float, Field(gt=0, description="a link to a result works this long")] = 168.0
    estimate_timeout_seconds: Annotated[
        float, Field(ge=0, description="an estimate may look at the files this long; 0 = no estimates")
    ] = 90.0
