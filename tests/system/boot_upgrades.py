"""The boot test's second half: the web page and signing, a reboot, upgrades good and bad, the end."""

from __future__ import annotations

import sys
from pathlib import Path
from subprocess import CompletedProcess

from boot_day import FOLDER, INSTALL, LINK, ROOT, Day

sys.path.append(str(Path(__file__).resolve().parents[1]))

from certificates import make_chain

SIGNING = "/etc/heygemd/signing"
NEW_VERSION = "sed -i 's/^version = .*/version = \"{}\"/' pyproject.toml"


def the_page_says_what_it_lacks(day: Day) -> str:
    day.configure(f"[web]\nport = {day.web_port}\n")
    assert not day.machine.succeeds("systemctl start heygemd-web"), "it started without its packages"
    said = day.machine.output("journalctl -u heygemd-web -o cat")
    assert "--with-web" in said, said
    assert day.property("NRestarts", "heygemd-web") == "0", "tried again, although nothing can have changed"
    return next(line for line in said.splitlines() if line.startswith("Error"))


def page_and_signing_come_with_one_command(day: Day) -> str:
    """--with-web by an option, Content Credentials because the configuration names a certificate."""
    machine = day.machine
    folder = machine.root / SIGNING.lstrip("/")
    folder.mkdir()
    make_chain(folder)
    machine.run(f"chgrp -R heygemd {SIGNING} && chmod 640 {SIGNING}/* && chmod 750 {SIGNING}")
    day.configure(
        f"[web]\nport = {day.web_port}\n"
        f'[provenance]\ncertificate = "{SIGNING}/chain.pem"\nprivate_key = "{SIGNING}/key.pem"\n'
    )
    said = machine.run(f"{INSTALL} --with-web").stdout
    assert "linked from there" in said, f"all packages were installed anew:\n{said}"
    machine.run("systemctl enable --quiet --now heygemd-web")
    assert '{"status":"ok"}' in day.page("/healthz")
    assert "<title>heygemd" in day.page(), day.page()
    assert machine.output("systemctl is-enabled heygemd-web") == "enabled"
    day.drop_pair("signed", user="alice")
    seconds = day.result("signed")
    (item,) = day.receipt("signed")["items"]
    assert item["provenance"]["content_credentials"]["signer"] == "Test signer", item["provenance"]
    return f"the page answers; a signed result after {seconds:.0f} s"


def a_reboot_brings_both_back(day: Day) -> str:
    machine = day.machine
    machine.stop()
    seconds = machine.start()
    machine.wait_for("both services", lambda: day.is_active() and day.is_active("heygemd-web"), 240)
    assert "<title>heygemd" in day.page()
    errors = machine.output("journalctl -q -b -p err -u heygemd -u heygemd-web")
    assert errors == "", errors
    return f"booted in {seconds:.0f} s; {day.property('StatusText')}; the page answers"


def an_upgrade_takes_both_along(day: Day) -> str:
    machine = day.machine
    before = machine.output(LINK)
    pids = day.property("MainPID"), day.property("MainPID", "heygemd-web")
    config = machine.output("sha256sum </etc/heygemd/heygemd.toml")
    machine.run(
        f"cd {FOLDER} && {NEW_VERSION.format('9.9.9')}"
        " && printf '\\n[inbox.test]\\n#new_key = 1\\n' >>config/heygemd.toml"
    )
    said = machine.run(INSTALL).stdout
    assert "inbox.test.new_key" in said, f"the new key was not named:\n{said}"
    after = machine.output(LINK)
    assert after != before, "the link did not move"
    assert "9.9.9" in after, after
    for unit, pid in zip(("heygemd", "heygemd-web"), pids, strict=True):
        assert day.is_active(unit), unit
        assert day.property("MainPID", unit) != pid, f"{unit} was not restarted"
        assert day.program(unit) == after, f"{unit} runs {day.program(unit)}"
    assert '{"status":"ok"}' in day.page("/healthz")
    assert machine.output("sha256sum </etc/heygemd/heygemd.toml") == config, "the operator's file was changed"
    return f"{Path(before).name} -> {Path(after).name}, daemon and page"


def a_bad_upgrade_goes_back(day: Day) -> str:
    """One that passes the doctor, but ends as soon as it serves."""
    machine = day.machine
    before = machine.output(LINK)
    page = day.property("MainPID", "heygemd-web")
    machine.run(
        f"cd {FOLDER} && {NEW_VERSION.format('9.9.10')}"
        " && sed -i '0,/^from __future__.*/s//&\\nraise SystemExit(1)/' heygemd/service/daemon.py"
    )
    error = _refused(machine.run(INSTALL, check=False))
    _runs(day, before)
    assert day.property("MainPID", "heygemd-web") != "0", page
    machine.run(f"cd {FOLDER} && git checkout -q heygemd/service/daemon.py")
    return error


def a_version_whose_page_fails_goes_back(day: Day) -> str:
    machine = day.machine
    before = machine.output(LINK)
    machine.run(
        f"cd {FOLDER} && {NEW_VERSION.format('9.9.11')}"
        " && sed -i '0,/^from __future__.*/s//&\\nraise SystemExit(1)/' heygemd/web/serve.py"
    )
    error = _refused(machine.run(INSTALL, check=False))
    assert "web page" in error, error
    _runs(day, before)
    machine.run(f"cd {FOLDER} && git checkout -q heygemd/web/serve.py")
    return error


def a_version_whose_doctor_fails_leaves_no_trace(day: Day) -> str:
    machine = day.machine
    pids = day.property("MainPID"), day.property("MainPID", "heygemd-web")
    look = (
        f"{LINK}; cat /usr/local/lib/systemd/system/heygemd.service /usr/local/lib/systemd/system/heygemd-web.service"
    )
    look += " /etc/heygemd/heygemd.toml.defaults /etc/samba/smb.conf /etc/samba/heygemd.conf | sha256sum"
    before = machine.output(look)
    machine.run(
        f"cd {FOLDER} && {NEW_VERSION.format('9.9.12')}"
        ' && sed -i \'s/"libx264": /"nosuchencoder": "tests", &/\' heygemd/cli/checks/tools.py'
        " && sed -i 's/^Nice=5/Nice=6/' systemd/heygemd.service"
        " && sed -i 's/^CPUWeight=200/CPUWeight=201/' systemd/heygemd-web.service"
        " && printf '#other_key = 1\n' >>config/heygemd.toml"
    )
    done = machine.run(INSTALL, check=False)
    error = _refused(done)
    assert "nosuchencoder is missing" in done.stdout, done.stdout
    assert machine.output(look) == before, done.stdout
    assert (day.property("MainPID"), day.property("MainPID", "heygemd-web")) == pids, "it was restarted"
    return error


def uninstall_leaves_users_files(day: Day) -> str:
    machine = day.machine
    machine.run(f"echo keep >{ROOT}/inbox/notes.part")
    files = f"find {ROOT} ! -name '.heygemd-*.part' | sort"  # the daemon writes its figures all the time
    before = machine.output(files)
    machine.run(f"{INSTALL} uninstall", show=True)
    assert machine.output(files) == before
    machine.run("test -f /etc/heygemd/heygemd.toml && test -d /var/lib/heygemd && test ! -e /opt/heygemd")
    units = machine.output(
        "systemctl list-units --all --plain --no-legend 'heygemd*'; find /etc/systemd -name 'heygemd*'"
    )
    assert units == "", units
    running = machine.output("find /proc -maxdepth 1 -user heygemd")
    assert running == "", running
    assert not machine.succeeds("grep -q heygemd /etc/samba/smb.conf || test -e /etc/samba/heygemd.conf")
    return f"{len(before.splitlines())} files and folders of the share left, no unit, no process"


def _refused(done: CompletedProcess[str]) -> str:
    """The installer's error."""
    assert done.returncode != 0, f"a broken version was accepted:\n{done.stdout}"
    return next(line for line in done.stdout.splitlines() if line.startswith("error"))


def _runs(day: Day, release: str) -> None:
    """Daemon and page both run this release."""
    assert day.machine.output(LINK) == release
    for unit in ("heygemd", "heygemd-web"):
        assert day.is_active(unit), unit
        assert day.program(unit) == release, f"{unit} runs {day.program(unit)}"
    assert '{"status":"ok"}' in day.page("/healthz")


STEPS = (
    the_page_says_what_it_lacks,
    page_and_signing_come_with_one_command,
    a_reboot_brings_both_back,
    an_upgrade_takes_both_along,
    a_bad_upgrade_goes_back,
    a_version_whose_page_fails_goes_back,
    a_version_whose_doctor_fails_leaves_no_trace,
    uninstall_leaves_users_files,
)
