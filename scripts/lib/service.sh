# shellcheck shell=bash
# The service: user, folders, release, configuration, units. Each step looks first and changes only what differs.
# An upgrade makes the new environment beside the old one, lets its doctor look at the machine, then switches a link;
# when the new version does not become ready, the link goes back.

readonly PREFIX=/opt/heygemd
readonly CURRENT=$PREFIX/current
readonly CONFIG=/etc/heygemd/heygemd.toml
readonly UNIT=/usr/local/lib/systemd/system/heygemd.service
readonly DROPIN=/etc/systemd/system/heygemd.service.d/10-install.conf
readonly WEB_UNIT=/usr/local/lib/systemd/system/heygemd-web.service
readonly WEB_DROPIN=/etc/systemd/system/heygemd-web.service.d/10-install.conf
readonly SYSUSERS=/usr/local/lib/sysusers.d/heygemd.conf
readonly TMPFILES=/usr/local/lib/tmpfiles.d/heygemd.conf
readonly LINK=/usr/local/bin/heygemd
readonly ANSWERS=$PREFIX/install.conf
readonly LOG=/var/log/heygemd-install.log

# act COMMAND…: does it, or says it with --dry-run.
act() {
    if [[ $DRY_RUN == yes ]]; then
        note "would run: $*"
    else
        "$@"
    fi
}

# What an upgrade changes outside its release is copied first. Whatever ends the installation early puts it back, with
# the link, so that a version that is refused leaves no trace.
readonly ASIDE=$PREFIX/.before
readonly MANAGED=("$UNIT" "$DROPIN" "$WEB_UNIT" "$WEB_DROPIN" "$SYSUSERS" "$TMPFILES" "$CONFIG.defaults"
    "$SAMBA_SHARE" "$SAMBA_CONF")
PREVIOUS='' # the release that was in use before; empty on a first installation
WEB_RAN=no  # the web page ran before: it follows the daemon to the new release, and back

take_aside() {
    local file
    if [[ $DRY_RUN == yes || -z $PREVIOUS || ! -d $PREVIOUS ]]; then return 0; fi
    rm -rf "$ASIDE"
    mkdir -p "$ASIDE"
    for file in "${MANAGED[@]}"; do
        if [[ ! -e $file ]]; then continue; fi
        mkdir -p "$ASIDE$(dirname "$file")"
        cp -a "$file" "$ASIDE$file"
    done
    trap roll_back EXIT
}

forget_aside() {
    trap - EXIT
    if [[ -d $ASIDE ]]; then act rm -rf "$ASIDE"; fi
}

roll_back() {
    local rc=$? file changed=no
    trap - EXIT
    for file in "${MANAGED[@]}"; do
        if [[ -e $ASIDE$file ]]; then
            if cmp -s "$ASIDE$file" "$file"; then continue; fi
            cp -a "$ASIDE$file" "$file"
        elif [[ -e $file ]]; then
            rm -f "$file"
        else
            continue
        fi
        changed=yes
        note "put back $file"
    done
    if [[ $changed == yes ]]; then
        systemd-tmpfiles --create "$TMPFILES" || true
        if systemd_runs; then systemctl daemon-reload || true; fi
    fi
    if [[ $(readlink "$CURRENT") != "$PREVIOUS" ]]; then
        switch_to "$PREVIOUS"
        warn "went back to $(basename "$PREVIOUS")"
        run_the_old
    elif [[ $changed == yes ]] && systemd_runs && ! systemctl --quiet is-active heygemd.service; then
        run_the_old # the version stayed, and its new units did not do
    fi
    rm -rf "$ASIDE"
    exit "$rc"
}

run_the_old() {
    if ! systemd_runs; then return 0; fi
    systemctl restart heygemd.service || warn "the old version does not start either: journalctl -u heygemd"
    if [[ $WEB_RAN == yes ]]; then
        systemctl restart heygemd-web.service || warn "nor does its web page: journalctl -u heygemd-web"
    fi
}

systemd_runs() { [[ -d /run/systemd/system ]]; }

install_service() {
    local release changed=no
    require_service_machine
    read_answers
    check_answers
    choose_service_python
    use_wheelhouse
    if [[ $DRY_RUN == no ]]; then
        : >"$LOG"
        # One installation at a time.
        mkdir -p "$PREFIX"
        exec {lock}<"$PREFIX"
        flock --nonblock "$lock" || die "another installation of the service is running"
    fi
    if [[ $WITH_SAMBA == yes ]]; then SYSTEM_NEEDS+=("${SAMBA_NEEDS[@]}"); fi
    ensure_system_packages "$PYTHON" "$LOG"
    release=$PREFIX/releases/$(release_name)
    install_release "$release"
    PREVIOUS=$(readlink "$CURRENT" 2>/dev/null || true)
    if systemd_runs && systemctl --quiet is-active heygemd-web.service; then WEB_RAN=yes; fi
    take_aside
    install_units
    if [[ $WITH_SAMBA == yes ]]; then install_samba "$LOG"; fi
    install_configuration "$release"
    if [[ $PREVIOUS != "$release" ]]; then
        examine "$release"
        say "Switching $CURRENT to $(basename "$release")"
        switch_to "$release"
        changed=yes
    fi
    if [[ $(readlink "$LINK" 2>/dev/null || true) != "$CURRENT/bin/heygemd" ]]; then
        act ln -sfn "$CURRENT/bin/heygemd" "$LINK"
    fi
    if [[ $changed == yes ]]; then UNITS_CHANGED=yes WEB_UNITS_CHANGED=yes; fi
    start_services
    forget_aside
    remember_answers
    remove_old_releases "$release"
    tell_where_things_are "$release"
}

require_service_machine() {
    local tool
    if ((EUID != 0)) && [[ $DRY_RUN == no ]]; then
        DIE_CODE=2 die "the service can only be installed by root" \
            "sudo ./install.sh        installs it" \
            "./install.sh --dry-run   says what that would do" \
            "./install.sh demo        needs no service"
    fi
    for tool in systemctl systemd-sysusers systemd-tmpfiles; do
        command -v "$tool" >/dev/null 2>&1 || die "$tool is missing: the service needs systemd" \
            "Without it, run the daemon by hand: ./install.sh dev && .venv/bin/heygemd serve --root DIR"
    done
}

# What was answered the first time holds for upgrades.
read_answers() {
    local key value old_root='' old_group=''
    if [[ -f $ANSWERS ]]; then
        while IFS='=' read -r key value; do
            case $key in
            root) old_root=$value ;;
            share_group) old_group=$value ;;
            samba) if [[ $value == yes ]]; then WITH_SAMBA=yes; fi ;;
            web) if [[ $value == yes ]]; then WITH_WEB=yes; fi ;;
            esac
        done <"$ANSWERS"
    fi
    if [[ -n $old_root && -n $ROOT && ${ROOT%/} != "$old_root" ]]; then
        DIE_CODE=2 die "the service is installed with --root $old_root, not $ROOT" \
            "Move it: ./install.sh uninstall, move the files, set root in $CONFIG, then install with --root $ROOT."
    fi
    KEPT_ROOT=$old_root
    ROOT=${ROOT:-${old_root:-/srv/heygemd}}
    SHARE_GROUP=${SHARE_GROUP:-${old_group:-heygemd}}
}

check_answers() {
    local given=$ROOT
    ROOT=${ROOT%/}
    # systemd's files have quoting rules of their own; a share's path needs none of these.
    if [[ $ROOT != /?* || $ROOT =~ [[:space:]\"\'\\%\$:,] ]]; then
        DIE_CODE=2 die "--root $given: must be an absolute path without spaces, quotes, %, \$, :, commas or backslashes"
    fi
    case $ROOT in
    /tmp | /tmp/* | /var/tmp | /var/tmp/* | /proc/* | /sys/* | /dev/* | /run/*)
        DIE_CODE=2 die "--root $ROOT: a share there does not last" "Choose a folder on a disk or a mounted share."
        ;;
    esac
    if [[ $ROOT != "$KEPT_ROOT" ]]; then refuse_foreign_root; fi
    if [[ ! $SHARE_GROUP =~ ^[A-Za-z_][A-Za-z0-9_.-]*$ ]]; then
        DIE_CODE=2 die "--share-group $SHARE_GROUP: not a group's name"
    fi
}

# The share's folder gets an owner, a group and a mode of its own: on /etc or /home that would lock everybody out.
refuse_foreign_root() {
    local real
    real=$(realpath -m "$ROOT")
    case $real in
    / | /bin | /bin/* | /boot | /boot/* | /dev | /etc | /etc/* | /home | /lib | /lib/* | /lib32 | /lib64 | /media | \
        /mnt | /opt | /opt/heygemd* | /proc | /root | /run | /sbin | /sbin/* | /srv | /sys | /usr | /usr/* | /var | \
        /var/lib | /var/lib/heygemd* | /var/cache | /var/log)
        DIE_CODE=2 die "--root $ROOT: belongs to the system; the share needs a folder of its own" \
            "For example the default: /srv/heygemd."
        ;;
    esac
    if getent passwd | cut -d: -f6 | grep -xF "$real" >/dev/null; then
        DIE_CODE=2 die "--root $ROOT: is somebody's home; the share needs a folder of its own" \
            "For example: --root $ROOT/heygemd, or the default, /srv/heygemd."
    fi
    if [[ -e $ROOT && ! -d $ROOT ]]; then DIE_CODE=2 die "--root $ROOT: is not a folder"; fi
}

remember_answers() {
    if [[ $DRY_RUN == no ]]; then
        printf 'root=%s\nshare_group=%s\nsamba=%s\nweb=%s\n' \
            "$ROOT" "$SHARE_GROUP" "$WITH_SAMBA" "$WITH_WEB" >"$ANSWERS"
    fi
}

# The service sees no home folders, so an interpreter from there (pyenv, conda) would not start.
choose_service_python() {
    local candidate
    if [[ -z ${PYTHON:-} ]]; then
        for candidate in /usr/bin/python3 /usr/bin/python3.11 /usr/bin/python3.13 /usr/bin/python3.12 \
            /usr/local/bin/python3; do
            if [[ -x $candidate ]] && supported_python "$candidate"; then
                PYTHON=$candidate
                break
            fi
        done
    fi
    choose_python
    case $(readlink -f "$PYTHON") in
    /home/* | /root/*)
        die "$(readlink -f "$PYTHON") lies in a home folder, which the service cannot see" \
            "Install the system's own: apt-get install python3 python3-venv"
        ;;
    esac
}

# put TEXT FILE: writes FILE if it says something else; success means it was changed.
put() {
    local text=$1 file=$2
    if [[ -f $file && $(<"$file") == "$text" ]]; then return 1; fi
    if [[ $DRY_RUN == yes ]]; then
        note "would write $file"
        return 0
    fi
    mkdir -p "$(dirname "$file")"
    printf '%s\n' "$text" >"$file.new"
    mv -f "$file.new" "$file"
    note "wrote $file"
}

install_units() {
    local group_line=''
    say "User heygemd, share $ROOT for group $SHARE_GROUP, units"
    UNITS_CHANGED=no WEB_UNITS_CHANGED=no
    if [[ $SHARE_GROUP != heygemd ]] && ! getent group "$SHARE_GROUP" >/dev/null; then
        group_line=$'\n'"g $SHARE_GROUP -"
    elif [[ -f $SYSUSERS ]] && grep -qx "g $SHARE_GROUP -" "$SYSUSERS"; then
        group_line=$'\n'"g $SHARE_GROUP -" # made by an earlier run
    fi
    put "$(<"$HERE/systemd/heygemd.sysusers.conf")$group_line" "$SYSUSERS" || true
    put "$(sed -e "s|@ROOT@|$ROOT|g" -e "s|@GROUP@|$SHARE_GROUP|g" "$HERE/systemd/heygemd.tmpfiles.conf.in")" \
        "$TMPFILES" || true
    if put "$(<"$HERE/systemd/heygemd.service")" "$UNIT"; then UNITS_CHANGED=yes; fi
    if put "$(dropin)" "$DROPIN"; then UNITS_CHANGED=yes; fi
    if put "$(<"$HERE/systemd/heygemd-web.service")" "$WEB_UNIT"; then WEB_UNITS_CHANGED=yes; fi
    if put "$(dropin)" "$WEB_DROPIN"; then WEB_UNITS_CHANGED=yes; fi
    act systemd-sysusers "$SYSUSERS"
    act systemd-tmpfiles --create "$TMPFILES"
}

# What differs from the unit's own assumptions: the share's place and its users' group.
dropin() {
    printf '# Made by install.sh; change it with --root and --share-group there.\n[Unit]\n'
    printf 'RequiresMountsFor=%s\n\n[Service]\n' "$ROOT"
    printf 'ReadWritePaths=\nReadWritePaths=%s\n' "$ROOT"
    if [[ $SHARE_GROUP != heygemd ]]; then printf 'SupplementaryGroups=%s\n' "$SHARE_GROUP"; fi
    case $ROOT in
    /home/* | /root/*) printf 'ProtectHome=tmpfs\nBindPaths=%s\n' "$ROOT" ;;
    esac
}

# The operator's file is never changed; keys that came with the new version are named.
install_configuration() {
    local release=$1 fresh
    if [[ ! -f $CONFIG ]]; then
        fresh=$(sed -e "s|^#root = .*|root = \"$ROOT\"|" -e 's|^#state = .*|state = "/var/lib/heygemd"|' \
            "$HERE/config/heygemd.toml")
        put "$fresh" "$CONFIG" || true
        act install -m 0644 "$HERE/config/heygemd.toml" "$CONFIG.defaults"
        return 0
    fi
    note "kept $CONFIG"
    if [[ -f $CONFIG.defaults ]]; then
        local -a new
        mapfile -t new < <(comm -13 <(config_keys "$CONFIG.defaults") <(config_keys "$HERE/config/heygemd.toml"))
        if ((${#new[@]} > 0)); then
            say "New settings since the installed version (their defaults hold; $CONFIG.defaults explains them):"
            printf '      %s\n' "${new[@]}"
        fi
    fi
    if ! cmp -s "$HERE/config/heygemd.toml" "$CONFIG.defaults"; then
        act install -m 0644 "$HERE/config/heygemd.toml" "$CONFIG.defaults"
    fi
}

# table.key of every setting in a documented file, commented out or not.
config_keys() {
    awk '/^\[/ { table = $0; gsub(/[][]/, "", table); table = table "." }
         /^#?[a-z_]+ = / { sub(/^#/, ""); print table $1 }' "$1" | LC_ALL=C sort
}

# examine RELEASE: its check of the configuration and its doctor, as the service's user. An installed service goes on
# with the old release when they find something wrong; a first installation says it and goes on.
examine() {
    local release=$1
    if [[ $DRY_RUN == yes ]]; then
        note "would run: heygemd check-config and heygemd doctor of the new release, as user heygemd"
        return 0
    fi
    say "Checking the configuration, the share and the machine"
    if ! as_service "$release" check-config >>"$LOG" 2>&1; then
        tail_log "$LOG"
        die "the configuration $CONFIG is not valid for this version; nothing was switched" "Correct it and run again."
    fi
    if ! as_service "$release" doctor --without-unit; then
        if [[ -e $CURRENT ]]; then
            die "the new version's doctor found something wrong; the installed version stays" \
                "Follow the arrows above, then run the same command again."
        fi
        warn "the doctor found something wrong: follow the arrows above, then run: heygemd doctor"
    fi
}

as_service() {
    local release=$1
    shift
    (cd / && setpriv --reuid heygemd --regid heygemd --init-groups --no-new-privs \
        env -i PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 \
        HOME=/nonexistent XDG_CACHE_HOME=/var/cache/heygemd "$release/bin/heygemd" --config "$CONFIG" "$@")
}

switch_to() {
    if [[ $DRY_RUN == yes ]]; then
        note "would link $CURRENT to $1"
        return 0
    fi
    ln -sfn "$1" "$CURRENT.new"
    mv -T "$CURRENT.new" "$CURRENT"
}

start_services() {
    act systemctl enable --quiet heygemd.service
    if ! systemd_runs; then
        note "systemd does not run here: the service starts with the next boot"
        return 0
    fi
    act systemctl daemon-reload
    if [[ $UNITS_CHANGED == yes ]] || ! systemctl --quiet is-active heygemd.service; then
        say "Starting the service (ready when the inbox is watched and the workers answer)"
        act systemctl restart heygemd.service || not_ready heygemd.service "the service"
    fi
    # The page only where it is in use.
    if [[ $WEB_UNITS_CHANGED == yes && $WEB_RAN == yes ]]; then
        say "Restarting the web page"
        act systemctl restart heygemd-web.service || not_ready heygemd-web.service "the web page"
    fi
}

not_ready() {
    local unit=$1 what=$2
    journalctl --no-pager -u "$unit" -n 20 -o cat >&2 || true
    if [[ -n $PREVIOUS && -d $PREVIOUS && $(readlink "$CURRENT") != "$PREVIOUS" ]]; then
        die "$what did not become ready with the new version; $(basename "$PREVIOUS") will run again" \
            "See the lines above."
    fi
    die "$what did not become ready" "See the lines above, and: systemctl status $unit"
}

tell_where_things_are() {
    if [[ $DRY_RUN == yes ]]; then return 0; fi
    say "heygemd is installed ($(basename "$1"))"
    note "share:          $ROOT/inbox   (members of the group $SHARE_GROUP; add one: usermod -aG $SHARE_GROUP NAME)"
    if [[ $WITH_SAMBA == yes ]]; then
        note "from Windows:   \\\\$(hostname)\\$SAMBA_SECTION   (each member needs a password there: smbpasswd -a NAME)"
    fi
    if [[ $WITH_WEB == yes ]]; then
        note "the web page:   systemctl enable --now heygemd-web   (http://127.0.0.1:7860; docs/web.md)"
    fi
    note "configuration:  $CONFIG   (then: systemctl reload heygemd)"
    note "what it does:   systemctl status heygemd; journalctl -t heygemd -o cat; sudo heygemd status --watch"
    note "remove it:      ./install.sh uninstall   (users' files stay)"
}

uninstall_service() {
    local dropin
    require_service_machine
    say "Removing the service; the share, $CONFIG and /var/lib/heygemd stay"
    if systemd_runs; then
        act systemctl disable --quiet --now heygemd-web.service heygemd.service || true
    elif [[ -e $UNIT ]]; then
        act systemctl disable --quiet heygemd-web.service heygemd.service || true
    fi
    read_answers
    if [[ $WITH_SAMBA == yes || -e $SAMBA_SHARE ]]; then remove_samba; fi
    act rm -f "$UNIT" "$DROPIN" "$WEB_UNIT" "$WEB_DROPIN" "$SYSUSERS" "$TMPFILES" "$LINK" "$CONFIG.defaults"
    for dropin in "$DROPIN" "$WEB_DROPIN"; do
        if [[ -d $(dirname "$dropin") ]]; then act rmdir --ignore-fail-on-non-empty "$(dirname "$dropin")"; fi
    done
    act rm -rf "$PREFIX" /var/cache/heygemd
    if systemd_runs; then act systemctl daemon-reload; fi
    say "Removed. Left for you: $ROOT, $CONFIG, /var/lib/heygemd, /var/log/heygemd, the user heygemd (owner of these)"
}
