"""The boot test's first half: an installation, its users, its journal, its stops, reloads and watchdogs."""

from __future__ import annotations

import json
import sys
import time

from boot_day import GROUP, INSTALL, LONG_TEXT, RENDER_SECONDS, ROOT, Day

EXPOSURE_LIMIT = 1.5
# Short enough to wait for, and long enough that a busy disk does not starve a healthy service.
WATCHDOG_SECONDS = 15
WORKERS = "grep -lz 'heygemd[.]work[.]worker' /proc/[0-9]*/cmdline | cut -d/ -f3"
SHARE = "smbclient //localhost/heygemd -U"

MAKE_SAMPLE = r"""
set -e
cd /tmp && mkdir -p sample && cd sample
/opt/heygemd/current/bin/python - <<'PY'
from skimage import data, io
io.imsave("face.png", data.astronaut()[0:300, 78:378], check_contrast=False)
PY
espeak-ng -w speech.wav "Please put the papers on the table by the window."
ffmpeg -v error -y -loop 1 -i face.png -t 2 -r 25 -vf scale=600:600 -pix_fmt yuv420p clip.mp4
chmod -R a+rX /tmp/sample
"""


def install(day: Day) -> str:
    day.machine.run(f"{INSTALL} --root {ROOT} --share-group {GROUP} --with-samba", show=True)
    assert day.machine.output("systemctl is-active heygemd && systemctl is-enabled heygemd").split() == [
        "active",
        "enabled",
    ]
    return day.property("StatusText")


def install_again_costs_nothing(day: Day) -> str:
    before = day.property("MainPID")
    started = time.monotonic()
    day.machine.run(INSTALL)
    assert day.property("MainPID") == before, "it was restarted"
    return f"{time.monotonic() - started:.1f} s, not restarted"


def units_are_sound(day: Day) -> str:
    said = []
    for unit in ("heygemd.service", "heygemd-web.service"):
        complaints = day.machine.output(f"systemd-analyze verify {unit} 2>&1")
        assert not complaints, complaints
        table = day.machine.output(f"systemd-analyze security --no-pager {unit}")
        exposure = float(table.splitlines()[-1].partition(f"{unit}:")[2].split()[0])
        assert exposure <= EXPOSURE_LIMIT, table
        said.append(f"{unit}: verify clean, exposure {exposure}")
    return "; ".join(said)


def members_drop_pairs(day: Day) -> str:
    """Locally, in a folder made with a narrow umask, over SMB; others are refused."""
    machine = day.machine
    complaints = machine.output("testparm -s 2>&1 >/dev/null | grep -i 'heygemd' || true")
    assert not complaints, complaints
    machine.run(f"useradd -G {GROUP} alice && useradd mallory && useradd -G users bob && {{ {MAKE_SAMPLE}\n}}")
    machine.run(
        "apt-get install -q -y --no-install-recommends smbclient"
        " && for user in alice bob; do printf 'pw\npw\n' | smbpasswd -s -a $user; done"
    )
    assert not machine.succeeds(f"ls {ROOT}/inbox", user="mallory"), "the share is open to everybody"
    assert not machine.succeeds(f"{SHARE} bob%pw -c ls"), "not a member, and let in"
    assert not machine.succeeds("smbclient //localhost/heygemd -N -c ls"), "a guest was let in"
    started = time.monotonic()
    day.drop_pair("课程 1", user="alice")
    day.drop_pair("quiet", user="alice", folder="private", umask="077")
    machine.run(
        f"cd /tmp/sample && {SHARE} alice%pw -c 'cd inbox; mkdir team; cd team;"
        " put clip.mp4 over-smb.mp4; put speech.wav over-smb.wav'"
    )
    for name in ("课程 1", "quiet", "over-smb"):
        day.result(name)
    seconds = time.monotonic() - started
    folder = f"{ROOT}/outbox/课程 1"
    assert day.receipt("课程 1"), "an empty receipt"
    machine.run(f"ffprobe -v error '{folder}/课程 1.mp4' && mv '{folder}/课程 1.mp4' '{folder}/mine.mp4'", user="alice")
    machine.run(
        f"cd /tmp && {SHARE} alice%pw -c 'cd outbox/over-smb; get over-smb.mp4; del over-smb.mp4'"
        " && ffprobe -v error over-smb.mp4"
    )
    left = machine.output(f"find {ROOT}/inbox -type f")
    assert left == "", f"inputs are still in the inbox: {left}"
    return f"three results after {seconds:.0f} s, read and moved by the member, fetched and removed over SMB"


def the_journal_is_json(day: Day) -> str:
    lines = day.machine.output("journalctl -t heygemd -o cat").splitlines()
    records = [json.loads(line) for line in lines]
    assert records, "no line in the journal"
    untagged = [record for record in records if "event.action" not in record and "event" not in record]
    assert not untagged, untagged[:3]
    jobs = day.machine.output("journalctl -t heygemd -o cat | jq -r .message | head -20")
    errors = day.machine.output("journalctl -q -p err -u heygemd")
    assert errors == "", errors
    sys.stdout.write("    " + jobs.replace("\n", "\n    ") + "\n")
    return f"{len(records)} lines, each a JSON object; none of priority err"


def stop_in_the_middle_and_start_again(day: Day) -> str:
    machine = day.machine
    day.configure("[scheduler]\nsegment_seconds = 4.0\n")
    # The tight watchdog holds from here to the steps that starve it: it must leave a healthy service alone meanwhile.
    machine.run(
        "mkdir -p /etc/systemd/system/heygemd.service.d && printf"
        f" '[Service]\\nWatchdogSec={WATCHDOG_SECONDS}\\n' >/etc/systemd/system/heygemd.service.d/50-test.conf"
        " && systemctl daemon-reload && systemctl restart heygemd"
    )
    day.drop_text("long", LONG_TEXT)
    day.wait_until_it_renders("long", 5)
    started = time.monotonic()
    machine.run("systemctl stop heygemd")
    stopped = time.monotonic() - started
    assert day.property("Result") == "success", f"Result={day.property('Result')}"
    assert not machine.succeeds(f"test -e {ROOT}/outbox/long/long.json"), "it was done before the stop"
    machine.run("systemctl start heygemd")
    return f"stopped in {stopped:.1f} s, finished {day.result('long'):.0f} s after the start"


def reload_takes_good_and_refuses_bad(day: Day) -> str:
    pid = day.property("MainPID")
    day.configure("[scheduler]\nsegment_seconds = 5.0\n")
    day.machine.run("systemctl reload heygemd")
    day.wait_for_event("config.reloaded")
    day.configure("[scheduler]\nsegment_second = 5.0\n")
    day.machine.run("systemctl reload heygemd")
    day.wait_for_event("config.refused")
    day.configure("")
    day.machine.run("systemctl reload heygemd")
    assert day.is_active()
    assert day.property("MainPID") == pid, "a reload is no restart"
    return day.machine.output("journalctl -t heygemd -o cat | jq -r .message | grep -i refused | tail -1")


def a_wedged_loop_is_restarted(day: Day) -> str:
    machine = day.machine
    pid = day.property("MainPID")
    restarts = int(day.property("NRestarts"))

    def fed_for_seconds() -> float:
        """From READY to the last word to the watchdog."""
        assert day.property("MainPID") == pid, "it was restarted while it was well"
        return (
            int(day.property("WatchdogTimestampMonotonic")) / 1e6
            - int(day.property("ActiveEnterTimestampMonotonic")) / 1e6
        )

    # Healthy first: a watchdog that nobody feeds would also pass the rest of this.
    machine.wait_for("a fed watchdog", lambda: fed_for_seconds() > WATCHDOG_SECONDS * 1.5, 120)
    machine.run(f"kill -STOP {pid}")
    seconds = machine.wait_for(
        "restart by the watchdog", lambda: int(day.property("NRestarts")) > restarts and day.is_active(), 300
    )
    machine.run("journalctl -q -u heygemd | grep -i watchdog >/dev/null")
    return f"ready again {seconds:.0f} s after the wedge"


def a_wedged_worker_is_replaced(day: Day) -> str:
    """With the tight watchdog of the steps before: the service is never restarted, the job ends well."""
    machine = day.machine
    day.configure(
        f"[scheduler]\nsegment_seconds = 4.0\nheartbeat_timeout_seconds = 20.0\n[metrics]\nport = {day.metrics_port}\n"
    )
    machine.run("systemctl restart heygemd")
    before = machine.output("systemctl show -P MainPID -P NRestarts heygemd")
    day.drop_text("wedged", LONG_TEXT)
    day.wait_until_it_renders("wedged", 30)
    workers = machine.output(WORKERS).split()
    machine.run(f"kill -STOP {' '.join(workers)}")
    seconds = day.wait_for_event("worker.hung")
    machine.wait_for("the result", lambda: day.is_done("wedged"), RENDER_SECONDS)
    assert machine.output("systemctl show -P MainPID -P NRestarts heygemd") == before, "it was restarted"
    figures = day.metrics()
    assert 'heygemd_worker_ends_total{device="cpu",reason="hung"}' in figures, figures
    day.configure("")
    machine.run("rm /etc/systemd/system/heygemd.service.d/50-test.conf && systemctl daemon-reload")
    return f"all {len(workers)} workers stopped, killed after {seconds:.0f} s; the job ended well, no restart"


def root_does_not_lock_the_service_out(day: Day) -> str:
    machine = day.machine
    machine.run("systemctl stop heygemd && rm -f /var/lib/heygemd/journal.sqlite3*")
    machine.run("heygemd serve --once; heygemd status; heygemd clean; heygemd doctor", check=False)
    strangers = machine.output("find /var/lib/heygemd ! -user heygemd")
    assert not strangers, strangers
    assert machine.succeeds("test -f /var/lib/heygemd/journal.sqlite3"), "root made no journal"
    machine.run("systemctl start heygemd")
    return "the journal that root made is the service's"


STEPS = (
    install,
    install_again_costs_nothing,
    units_are_sound,
    members_drop_pairs,
    the_journal_is_json,
    stop_in_the_middle_and_start_again,
    reload_takes_good_and_refuses_bad,
    a_wedged_loop_is_restarted,
    a_wedged_worker_is_replaced,
    root_does_not_lock_the_service_out,
)
