#!/usr/bin/env python3
"""An administrator's day on a booted Debian: install, use, read the journal, stop, reload, wedge, upgrade, uninstall.

    python tests/system/boot.py            everything, in minutes; a transcript on stdout
    python tests/system/boot.py --keep     leaves the root for a look

Needs root, debootstrap and systemd-nspawn. Tests what is committed. Exit code 0: every step passed; 1: one failed;
77: containers cannot be made here.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import debian_root
from nspawn import CannotBootError, Machine, booted

PACKAGES = ("python3", "git", "ca-certificates", "systemd", "systemd-sysv", "dbus", "jq", "acl")
FOLDER = "/srv/checkout"
ROOT = "/srv/studio"
GROUP = "studio"
INSTALL = f"cd {FOLDER} && ./install.sh"
EXPOSURE_LIMIT = 1.5
RENDER_SECONDS = 240.0
WATCHDOG_SECONDS = 15
LONG_TEXT = "The quick brown fox jumps over the lazy dog. " * 12

WORKERS = "grep -lz 'heygemd[.]work[.]worker' /proc/[0-9]*/cmdline | cut -d/ -f3"
READ_METRICS = 'import urllib.request; print(urllib.request.urlopen("http://127.0.0.1:19464/metrics").read().decode())'

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


class BootTest:
    """The steps, in order; each uses what the ones before it left."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def step_01_install(self) -> str:
        self.machine.run(f"{INSTALL} --root {ROOT} --share-group {GROUP} --with-samba", show=True)
        state = self.machine.output("systemctl is-active heygemd && systemctl is-enabled heygemd")
        assert state.split() == ["active", "enabled"], state
        return self.machine.output("systemctl show -P StatusText heygemd")

    def step_02_install_again_costs_nothing(self) -> str:
        before = self.machine.output("systemctl show -P MainPID heygemd")
        started = time.monotonic()
        self.machine.run(f"{INSTALL}")
        assert self.machine.output("systemctl show -P MainPID heygemd") == before, "it was restarted"
        return f"{time.monotonic() - started:.1f} s, not restarted"

    def step_03_units(self) -> str:
        said = self.machine.output("systemd-analyze verify heygemd.service 2>&1")
        assert not said, said
        table = self.machine.output("systemd-analyze security --no-pager heygemd.service")
        exposure = float(table.splitlines()[-1].partition("heygemd.service:")[2].split()[0])
        assert exposure <= EXPOSURE_LIMIT, table
        return f"verify clean, exposure {exposure}"

    def step_04_a_member_drops_a_pair(self) -> str:
        self.machine.run(f"useradd -G {GROUP} alice && useradd mallory && {{ {MAKE_SAMPLE}\n}}")
        assert not self.machine.succeeds(f"ls {ROOT}/inbox", user="mallory"), "the share is open to everybody"
        seconds = self._render("课程 1", user="alice")
        folder = f"{ROOT}/outbox/课程 1"
        receipt = json.loads(self.machine.output(f"cat '{folder}/课程 1.json'", user="alice"))
        assert receipt, "an empty receipt"
        self.machine.run(f"ffprobe -v error '{folder}/课程 1.mp4'", user="alice")
        self.machine.run(f"mv '{folder}/课程 1.mp4' '{folder}/mine.mp4'", user="alice")
        assert self.machine.output(f"ls -A {ROOT}/inbox") == "", "the inputs are still in the inbox"
        return f"result after {seconds:.0f} s, read and moved by the member"

    def step_05_a_subfolder_made_with_a_narrow_umask(self) -> str:
        seconds = self._render("quiet", user="alice", folder="private", umask="077")
        return f"result after {seconds:.0f} s"

    def step_05b_a_member_drops_a_pair_over_samba(self) -> str:
        complaints = self.machine.output("testparm -s 2>&1 >/dev/null | grep -i 'heygemd' || true")
        assert not complaints, complaints
        self.machine.run(
            "apt-get install -q -y --no-install-recommends smbclient >/dev/null && useradd -G users bob"
            " && for user in alice bob; do printf 'pw\npw\n' | smbpasswd -s -a $user; done"
        )
        share = "smbclient //localhost/heygemd -U"
        assert not self.machine.succeeds(f"{share} bob%pw -c ls"), "not a member, and let in"
        assert not self.machine.succeeds("smbclient //localhost/heygemd -N -c ls"), "a guest was let in"
        self.machine.run(
            f"cd /tmp/sample && {share} alice%pw -c 'cd inbox; mkdir team; cd team;"
            " put clip.mp4 over-smb.mp4; put speech.wav over-smb.wav'"
        )
        seconds = self.machine.wait_for("the result of over-smb", lambda: self._is_done("over-smb"), RENDER_SECONDS)
        self.machine.run(
            f"cd /tmp && {share} alice%pw -c 'cd outbox/over-smb; get over-smb.mp4; del over-smb.mp4'"
            " && ffprobe -v error over-smb.mp4"
        )
        return f"result after {seconds:.0f} s, fetched and removed over SMB; others are refused"

    def step_06_the_journal(self) -> str:
        lines = self.machine.output("journalctl -t heygemd -o cat").splitlines()
        records = [json.loads(line) for line in lines]
        assert records, "no line in the journal"
        untagged = [record for record in records if "event.action" not in record and "event" not in record]
        assert not untagged, untagged[:3]
        jobs = self.machine.output("journalctl -t heygemd -o cat | jq -r .message | head -20")
        errors = self.machine.output("journalctl -q -p err -u heygemd")
        assert errors == "", errors
        sys.stdout.write("    " + jobs.replace("\n", "\n    ") + "\n")
        return f"{len(records)} lines, each a JSON object; none of priority err"

    def step_07_stop_in_the_middle_and_start_again(self) -> str:
        self._configure("[scheduler]\nsegment_seconds = 4.0\n")
        self.machine.run("systemctl restart heygemd")
        self._drop_text("long", LONG_TEXT)
        self.machine.wait_for("the job to render", lambda: self._percent("long") >= 5, RENDER_SECONDS)
        started = time.monotonic()
        self.machine.run("systemctl stop heygemd")
        stopped = time.monotonic() - started
        result = self.machine.output("systemctl show -P Result heygemd")
        assert result == "success", f"Result={result}"
        assert not self.machine.succeeds(f"test -e {ROOT}/outbox/long/long.json"), "it was done before the stop"
        self.machine.run("systemctl start heygemd")
        seconds = self.machine.wait_for("the result", lambda: self._is_done("long"), RENDER_SECONDS * 2)
        return f"stopped in {stopped:.1f} s, finished {seconds:.0f} s after the start"

    def step_08_reload(self) -> str:
        pid = self.machine.output("systemctl show -P MainPID heygemd")
        self._configure("[scheduler]\nsegment_seconds = 5.0\n")
        self.machine.run("systemctl reload heygemd")
        self.machine.wait_for("config.reloaded", lambda: self._logged("config.reloaded"), 20)
        self._configure("[scheduler]\nsegment_second = 5.0\n")
        self.machine.run("systemctl reload heygemd")
        self.machine.wait_for("config.refused", lambda: self._logged("config.refused"), 20)
        self._configure("")
        self.machine.run("systemctl reload heygemd")
        assert self.machine.output("systemctl is-active heygemd") == "active"
        assert self.machine.output("systemctl show -P MainPID heygemd") == pid, "a reload is no restart"
        return self.machine.output("journalctl -t heygemd -o cat | jq -r .message | grep -i refused | tail -1")

    def step_09_a_wedged_loop_is_restarted(self) -> str:
        self.machine.run(
            "mkdir -p /etc/systemd/system/heygemd.service.d && printf"
            f" '[Service]\\nWatchdogSec={WATCHDOG_SECONDS}\\n' >/etc/systemd/system/heygemd.service.d/50-test.conf"
            " && systemctl daemon-reload && systemctl restart heygemd"
        )
        pid = self.machine.output("systemctl show -P MainPID heygemd")
        restarts = int(self.machine.output("systemctl show -P NRestarts heygemd"))
        # Healthy first: a watchdog that nobody feeds would also pass the rest of this.
        time.sleep(WATCHDOG_SECONDS * 1.5)
        assert self.machine.output("systemctl show -P MainPID heygemd") == pid, "it was restarted while it was well"
        self.machine.run(f"kill -STOP {pid}")
        seconds = self.machine.wait_for(
            "restart by the watchdog",
            lambda: (
                int(self.machine.output("systemctl show -P NRestarts heygemd")) > restarts
                and self.machine.output("systemctl is-active heygemd || true") == "active"
            ),
            WATCHDOG_SECONDS * 2 + 120,
        )
        self.machine.run("journalctl -q -u heygemd | grep -qi watchdog")
        return f"ready again {seconds:.0f} s after the wedge"

    def step_09b_a_wedged_worker_is_replaced(self) -> str:
        """With the tight watchdog of the step before: the service is never restarted, the job ends well."""
        self._configure(
            "[scheduler]\nsegment_seconds = 4.0\nheartbeat_timeout_seconds = 20.0\n[metrics]\nport = 19464\n"
        )
        self.machine.run("systemctl restart heygemd")
        before = self.machine.output("systemctl show -P MainPID -P NRestarts heygemd")
        self._drop_text("wedged", LONG_TEXT)
        self.machine.wait_for("the job to render", lambda: self._percent("wedged") >= 30, RENDER_SECONDS)
        workers = self.machine.output(WORKERS).split()
        self.machine.run(f"kill -STOP {' '.join(workers)}")
        seconds = self.machine.wait_for("worker.hung", lambda: self._logged("worker.hung"), 90)
        self.machine.wait_for("the result", lambda: self._is_done("wedged"), RENDER_SECONDS * 2)
        assert self.machine.output("systemctl show -P MainPID -P NRestarts heygemd") == before, "it was restarted"
        figures = self.machine.output(f"python3 -c '{READ_METRICS}'")
        assert 'heygemd_worker_ends_total{device="cpu",reason="hung"}' in figures, figures
        self._configure("")
        self.machine.run("rm /etc/systemd/system/heygemd.service.d/50-test.conf && systemctl daemon-reload")
        return f"all {len(workers)} workers stopped, killed after {seconds:.0f} s; the job ended well, no restart"

    def step_09c_root_does_not_lock_the_service_out(self) -> str:
        self.machine.run("systemctl stop heygemd && rm -f /var/lib/heygemd/journal.sqlite3*")
        self.machine.run("heygemd serve --once; heygemd status; heygemd clean; heygemd doctor", check=False)
        strangers = self.machine.output("find /var/lib/heygemd ! -user heygemd")
        assert not strangers, strangers
        assert self.machine.succeeds("test -f /var/lib/heygemd/journal.sqlite3"), "root made no journal"
        self.machine.run("systemctl start heygemd")
        return "the journal that root made is the service's"

    def step_10_upgrade(self) -> str:
        self.machine.run("printf '[inbox]\\nscan_seconds = 2.0\\n' >>/etc/heygemd/heygemd.toml.mine; true")
        before = self.machine.output("readlink /opt/heygemd/current")
        config = self.machine.output("sha256sum </etc/heygemd/heygemd.toml")
        self.machine.run(
            f"cd {FOLDER} && sed -i 's/^version = .*/version = \"9.9.9\"/' pyproject.toml"
            " && printf '\\n[inbox.test]\\n#new_key = 1\\n' >>config/heygemd.toml"
        )
        said = self.machine.run(f"{INSTALL}", show=False).stdout
        assert "inbox.test.new_key" in said, f"the new key was not named:\n{said}"
        after = self.machine.output("readlink /opt/heygemd/current")
        assert after != before, "the link did not move"
        assert "9.9.9" in after, after
        assert self.machine.output("systemctl is-active heygemd") == "active"
        assert self.machine.output("sha256sum </etc/heygemd/heygemd.toml") == config, "the operator's file was changed"
        return f"{Path(before).name} -> {Path(after).name}"

    def step_11_a_bad_upgrade_goes_back(self) -> str:
        before = self.machine.output("readlink /opt/heygemd/current")
        # Passes the doctor, but ends as soon as it serves.
        self.machine.run(
            f"cd {FOLDER} && sed -i 's/^version = .*/version = \"9.9.10\"/' pyproject.toml"
            " && sed -i '0,/^from __future__.*/s//&\\nraise SystemExit(1)/' heygemd/service/daemon.py"
        )
        done = self.machine.run(f"{INSTALL}", check=False)
        assert done.returncode != 0, f"a broken version was accepted:\n{done.stdout}"
        assert self.machine.output("readlink /opt/heygemd/current") == before
        assert self.machine.output("systemctl is-active heygemd") == "active"
        return next(line for line in done.stdout.splitlines() if line.startswith("error"))

    def step_11b_a_version_whose_doctor_fails_leaves_no_trace(self) -> str:
        pid = self.machine.output("systemctl show -P MainPID heygemd")
        look = "readlink /opt/heygemd/current; cat /usr/local/lib/systemd/system/heygemd.service"
        look += " /etc/heygemd/heygemd.toml.defaults /etc/samba/smb.conf /etc/samba/heygemd.conf | sha256sum"
        before = self.machine.output(look)
        self.machine.run(
            f"cd {FOLDER} && git checkout -q heygemd/service/daemon.py"
            " && sed -i 's/^version = .*/version = \"9.9.11\"/' pyproject.toml"
            ' && sed -i \'s/"libx264": /"nosuchencoder": "tests", &/\' heygemd/cli/checks/tools.py'
            " && sed -i 's/^Nice=5/Nice=6/' systemd/heygemd.service"
            " && printf '#other_key = 1\n' >>config/heygemd.toml"
        )
        done = self.machine.run(f"{INSTALL}", check=False)
        assert done.returncode != 0, f"a version whose doctor fails was accepted:\n{done.stdout}"
        assert "nosuchencoder is missing" in done.stdout, done.stdout
        assert self.machine.output(look) == before, done.stdout
        assert self.machine.output("systemctl show -P MainPID heygemd") == pid, "it was restarted"
        return next(line for line in done.stdout.splitlines() if line.startswith("error"))

    def step_12_uninstall_leaves_users_files(self) -> str:
        self.machine.run(f"echo keep >{ROOT}/inbox/notes.part")
        before = self.machine.output(f"find {ROOT} | sort")
        self.machine.run(f"{INSTALL} uninstall", show=True)
        assert self.machine.output(f"find {ROOT} | sort") == before
        self.machine.run("test -f /etc/heygemd/heygemd.toml && test -d /var/lib/heygemd && test ! -e /opt/heygemd")
        assert not self.machine.succeeds("systemctl cat heygemd.service")
        assert not self.machine.succeeds("grep -q heygemd /etc/samba/smb.conf || test -e /etc/samba/heygemd.conf")
        return f"{len(before.splitlines())} files and folders of the share left"

    # ---------------------------------------------------------------------------------------------- helpers

    def _render(self, name: str, *, user: str, folder: str = "", umask: str = "022") -> float:
        target = f"{ROOT}/inbox/{folder}".rstrip("/")
        self.machine.run(
            f"umask {umask} && mkdir -p {target} && cp /tmp/sample/clip.mp4 '{target}/{name}.mp4'"
            f" && cp /tmp/sample/speech.wav '{target}/{name}.wav'",
            user=user,
        )
        return self.machine.wait_for(f"the result of {name}", lambda: self._is_done(name), RENDER_SECONDS)

    def _drop_text(self, name: str, text: str) -> None:
        self.machine.run(
            f"cp /tmp/sample/face.png {ROOT}/inbox/{name}.png && echo '{text}' >{ROOT}/inbox/{name}.txt", user="alice"
        )

    def _is_done(self, name: str) -> bool:
        """The receipt is there; a failed job ends the wait with its reason."""
        for place in ("failed", "outbox"):
            found = self.machine.output(f"find {ROOT}/{place} -name '{name}*' -maxdepth 1 -type d | head -1")
            if not found:
                continue
            if place == "failed":
                raise AssertionError(self.machine.output(f"cat '{found}'/error.json"))
            return self.machine.succeeds(f"ls '{found}'/*.json")
        return False

    def _percent(self, name: str) -> float:
        texts = self.machine.output(f"cat {ROOT}/status/{name}*.json 2>/dev/null || true")
        return float(json.loads(texts).get("percent") or 0) if texts else 0.0

    def _logged(self, action: str) -> bool:
        return self.machine.succeeds(f"journalctl -t heygemd -o cat | grep -qF '{action}'")

    def _configure(self, more: str) -> None:
        """The operator's file as installed, with more at its end."""
        self.machine.run(
            "f=/etc/heygemd/heygemd.toml; test -f $f.first || cp $f $f.first;"
            f" grep -E '^(root|state) ' $f.first >$f; printf '%s' '{more}' >>$f"
        )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="bookworm", help="Debian release (default: bookworm)")
    parser.add_argument("--cache", type=Path, help="where the made root is kept (default: the user's cache folder)")
    parser.add_argument("--keep", action="store_true", help="leave the used root, for a look")
    options = parser.parse_args(arguments)
    try:
        base = debian_root.base_root(options.suite, PACKAGES, options.cache)
        with debian_root.fresh_root(base, keep=options.keep) as root:
            debian_root.clone_checkout(root, FOLDER)
            _tell(f"booting {root}")
            console = Path(tempfile.mkstemp(prefix="heygemd-boot-", suffix=".log")[1])
            with booted(root, debian_root.carried_settings(), console) as machine:
                _tell(f"console: {console}")
                return _run_steps(BootTest(machine))
    except (CannotBootError, debian_root.CannotMakeRootError) as error:
        _tell(f"SKIPPED: {error}")
        return 77


def _run_steps(test: BootTest) -> int:
    names = sorted(name for name in dir(test) if name.startswith("step_"))
    for name in names:
        step: Callable[[], str] = getattr(test, name)
        started = time.monotonic()
        try:
            result = step()
        except AssertionError as error:
            _tell(f"FAILED {name} after {time.monotonic() - started:.0f} s: {error}")
            sys.stdout.write(test.machine.run("journalctl --no-pager -u heygemd -n 40 -o cat", check=False).stdout)
            return 1
        _tell(f"ok {name} ({time.monotonic() - started:.1f} s): {result}")
    _tell(f"{len(names)} passed, 0 failed")
    return 0


def _tell(text: str) -> None:
    sys.stdout.write(f"[boot test] {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
