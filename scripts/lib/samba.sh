# shellcheck shell=bash
# A ready share (--with-samba): one section in a file of its own, included by the system's smb.conf. The system's file
# gets two lines at its end, which the uninstallation takes away again.

readonly SAMBA_CONF=/etc/samba/smb.conf
readonly SAMBA_SHARE=/etc/samba/heygemd.conf
readonly SAMBA_MARK='# heygemd: by its install.sh --with-samba; its uninstall takes these two lines away'
readonly SAMBA_INCLUDE="include = $SAMBA_SHARE"
readonly SAMBA_SECTION=heygemd

# shellcheck disable=SC2034  # used by service.sh
SAMBA_NEEDS=(
    "command:smbd|samba"
    "command:testparm|samba-common-bin"
)

# samba_share ROOT GROUP: the section.
samba_share() {
    local root=$1 group=$2
    cat <<TEXT
# Made by heygemd's install.sh --with-samba; upgrades replace this file. Your own changes belong into
# $SAMBA_CONF, in a section [$SAMBA_SECTION] behind the include line.
[$SAMBA_SECTION]
   comment = heygemd: drop a video and a recording into inbox, fetch the result from outbox
   path = $root
   read only = no
   guest ok = no
   valid users = @$group

   # Whoever drops a file: it belongs to the group, the service may read and move it, nobody else sees it.
   force group = $group
   create mask = 0660
   force create mode = 0660
   directory mask = 2770
   force directory mode = 2770
   inherit acls = yes
   store dos attributes = no

   # What a client has written is on the server when it says so, and no client goes on using a copy of a file that the
   # service has moved: no caching on the clients' side.
   oplocks = no
   level2 oplocks = no
   strict sync = yes

   # No vfs objects here: what the [global] section sets for all shares (fruit for macOS, recycle) holds for this one.
TEXT
}

# install_samba: section, include, check, start. Refuses a [heygemd] that somebody else wrote.
install_samba() {
    # shellcheck disable=SC2153  # ROOT is what --root says
    local log=$1 root=$ROOT group=$SHARE_GROUP changed=no before
    say "Samba share [$SAMBA_SECTION] on $root for group $group"
    if [[ $DRY_RUN == no && ! -f $SAMBA_CONF ]]; then
        die "$SAMBA_CONF is missing" "Reinstall the package samba-common, then run the same command again."
    fi
    if [[ -f $SAMBA_CONF ]] && grep -Eiq "^[[:space:]]*\[[[:space:]]*${SAMBA_SECTION}[[:space:]]*\]" "$SAMBA_CONF" &&
        ! grep -qxF "$SAMBA_INCLUDE" "$SAMBA_CONF"; then
        die "$SAMBA_CONF has a section [$SAMBA_SECTION] of its own" "Rename or remove it, or install without --with-samba."
    fi
    if put "$(samba_share "$root" "$group")" "$SAMBA_SHARE"; then changed=yes; fi
    if ! { [[ -f $SAMBA_CONF ]] && grep -qxF "$SAMBA_INCLUDE" "$SAMBA_CONF"; }; then
        changed=yes
        if [[ $DRY_RUN == yes ]]; then
            note "would add to $SAMBA_CONF: $SAMBA_INCLUDE"
        else
            before=$(<"$SAMBA_CONF")
            printf '%s\n%s\n%s\n' "$before" "$SAMBA_MARK" "$SAMBA_INCLUDE" >"$SAMBA_CONF.new"
            chmod --reference="$SAMBA_CONF" "$SAMBA_CONF.new"
            mv -f "$SAMBA_CONF.new" "$SAMBA_CONF"
            note "added to $SAMBA_CONF: $SAMBA_INCLUDE"
        fi
    fi
    if [[ $DRY_RUN == yes ]]; then return 0; fi
    if [[ $(testparm -s --section-name="$SAMBA_SECTION" --parameter-name=path 2>>"$log") != "$root" ]]; then
        testparm -s "$SAMBA_CONF" >>"$log" 2>&1 || true
        remove_samba
        die "testparm does not accept the share; it was taken out again" "See $log."
    fi
    if ! systemd_runs; then return 0; fi
    systemctl enable --quiet smbd.service
    if ! systemctl --quiet is-active smbd.service; then
        systemctl start smbd.service || die "smbd does not start" "See: journalctl -u smbd"
    elif [[ $changed == yes ]]; then
        smbcontrol smbd reload-config || systemctl reload smbd.service
    fi
}

# remove_samba: the section and the include; the package and everything else of Samba's stay.
remove_samba() {
    local rest
    if [[ -f $SAMBA_CONF ]] && grep -qxF "$SAMBA_INCLUDE" "$SAMBA_CONF"; then
        if [[ $DRY_RUN == yes ]]; then
            note "would take out of $SAMBA_CONF: $SAMBA_INCLUDE"
        else
            rest=$(grep -vxF -e "$SAMBA_MARK" -e "$SAMBA_INCLUDE" "$SAMBA_CONF") || true
            printf '%s\n' "$rest" >"$SAMBA_CONF.new"
            chmod --reference="$SAMBA_CONF" "$SAMBA_CONF.new"
            mv -f "$SAMBA_CONF.new" "$SAMBA_CONF"
        fi
    fi
    act rm -f "$SAMBA_SHARE"
    if systemd_runs && systemctl --quiet is-active smbd.service; then
        act smbcontrol smbd reload-config || true
    fi
}
