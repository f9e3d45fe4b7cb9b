# shellcheck shell=bash
# The service: user, folders, environment, configuration, units. Each step looks first and changes only what differs.
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
        if systemd_runs; then
            systemctl restart heygemd.service || warn "the old version does not start either: journalctl -u heygemd"
        fi
    fi
    rm -rf "$ASIDE"
    exit "$rc"
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
    if [[ $UNITS_CHANGED == yes ]]; then changed=yes; fi
    start_service "$changed"
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
    if [[ -n $old_root && -n $ROOT && $ROOT != "$old_root" ]]; then
        DIE_CODE=2 die "the service is installed with --root $old_root, not $ROOT" \
            "Move it: ./install.sh uninstall, move the files, set root in $CONFIG, then install with --root $ROOT."
    fi
    ROOT=${ROOT:-${old_root:-/srv/heygemd}}
    SHARE_GROUP=${SHARE_GROUP:-${old_group:-heygemd}}
}

check_answers() {
    ROOT=${ROOT%/}
    # systemd's files have quoting rules of their own; a share's path needs none of these.
    if [[ $ROOT != /?* || $ROOT =~ [[:space:]\"\'\\%\$:,] ]]; then
        DIE_CODE=2 die "--root $ROOT: must be an absolute path without spaces, quotes, %, \$, :, commas or backslashes"
    fi
    case $ROOT in
    /tmp | /tmp/* | /var/tmp | /var/tmp/* | /proc/* | /sys/* | /dev/* | /run/*)
        DIE_CODE=2 die "--root $ROOT: a share there does not last" "Choose a folder on a disk or a mounted share."
        ;;
    esac
    if [[ ! $SHARE_GROUP =~ ^[A-Za-z_][A-Za-z0-9_.-]*$ ]]; then
        DIE_CODE=2 die "--share-group $SHARE_GROUP: not a group's name"
    fi
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

# A release is named by its version and by all that goes into its environment.
release_name() {
    local version
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$HERE/pyproject.toml")
    printf '%s-%s\n' "$version" "$(
        {
            source_files | (cd "$HERE" && tr '\n' '\0' | xargs -0 sha256sum)
            "$PYTHON" --version
            uname -m
            torch_wanted
            service_extras
        } | sha256sum | cut -c1-12
    )"
}

# The extras that this machine's service needs: asked for by an option, or by what its configuration says.
service_extras() {
    local -a extras=()
    if [[ $WITH_WEB == yes ]]; then extras+=(web); fi
    if configured certificate '"[^"]'; then extras+=(credentials); fi
    if configured executor '"ray"'; then extras+=(ray); fi
    (
        IFS=,
        printf '%s' "${extras[*]:+[${extras[*]}]}"
    )
}

# configured KEY PATTERN: the operator's file sets the key to something that begins so.
configured() { [[ -f $CONFIG ]] && grep -Eq "^[[:space:]]*$1[[:space:]]*=[[:space:]]*$2" "$CONFIG"; }

# What the package is built from, relative to the checkout.
source_files() (
    cd "$HERE" || exit
    {
        find heygemd checkpoints config -type f ! -name '*.pyc'
        printf '%s\n' pyproject.toml constraints.txt LICENSE
        if [[ -f README.md ]]; then printf 'README.md\n'; fi
    } | LC_ALL=C sort
)

install_release() {
    local release=$1 source extras
    extras=$(service_extras)
    if [[ -f $release/.complete ]]; then
        note "environment $release is in place"
        return 0
    fi
    if [[ $DRY_RUN == yes ]]; then
        say "Would make the environment $release with heygemd and torch ($(torch_wanted) build)"
        return 0
    fi
    rm -rf "$release"
    mkdir -p "$release"
    # Whatever goes wrong below, nothing half-made stays.
    # shellcheck disable=SC2064  # the name as it is now: the variable is gone when the trap runs
    trap "rm -rf '$release'" EXIT
    make_venv "$release" "$LOG"
    install_torch "$release" "$LOG"
    # Built from a copy: a build writes into its source, and root's files in somebody's checkout are a nuisance.
    source=$(mktemp -d)
    (cd "$HERE" && source_files | tar -cf - -T - | tar -xf - -C "$source")
    say "Installing heygemd and the packages it needs (a minute or two)"
    if ! pip_install "$release" "$LOG" "$source$extras"; then
        rm -rf "$source"
        tail_log "$LOG"
        die "pip could not install heygemd" \
            "Is a package index reachable? Without a network: --wheelhouse DIR --offline (docs/install.md)."
    fi
    rm -rf "$source"
    # Where an installation looks for what a checkout keeps beside the package.
    mkdir -p "$release/share/heygemd"
    install -m 0644 "$HERE"/checkpoints/registry.toml "$HERE"/config/* "$release/share/heygemd/"
    # The service may not write here, so the byte code must be there before it starts.
    say "Compiling"
    run_logged "$LOG" "$release/bin/python" -m compileall -q -j 0 -x '/tests?/' "$release/lib" ||
        note "a few modules could not be compiled (see $LOG): templates that some packages ship"
    "$release/bin/heygemd" --version >>"$LOG" 2>&1 ||
        die "the installed heygemd does not start" "See $LOG, or try: $release/bin/heygemd --version"
    touch "$release/.complete"
    trap - EXIT
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
    UNITS_CHANGED=no
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
    put "$(<"$HERE/systemd/heygemd-web.service")" "$WEB_UNIT" || true
    put "$(dropin)" "$WEB_DROPIN" || true
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

start_service() {
    local changed=$1
    act systemctl enable --quiet heygemd.service
    if ! systemd_runs; then
        note "systemd does not run here: the service starts with the next boot"
        return 0
    fi
    act systemctl daemon-reload
    if [[ $changed == yes ]]; then act systemctl try-restart heygemd-web.service || true; fi # where it is in use
    if [[ $changed == no ]] && systemctl --quiet is-active heygemd.service; then return 0; fi
    say "Starting the service (ready when the inbox is watched and the workers answer)"
    if act systemctl restart heygemd.service; then return 0; fi
    journalctl --no-pager -u heygemd.service -n 20 -o cat >&2 || true
    if [[ -n $PREVIOUS && -d $PREVIOUS ]]; then
        die "the new version did not become ready; $(basename "$PREVIOUS") will run again" "See the lines above."
    fi
    die "the service did not become ready" "See the lines above, and: systemctl status heygemd.service"
}

# The current release and the one before it stay.
remove_old_releases() {
    local keep=$1 release
    for release in "$PREFIX"/releases/*; do
        if [[ ! -d $release || $release == "$keep" || $release == "$PREVIOUS" ]]; then continue; fi
        if [[ -z $PREVIOUS || $PREVIOUS == "$keep" ]]; then continue; fi # nothing was switched: what is there was the one before
        act rm -rf "$release"
    done
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
