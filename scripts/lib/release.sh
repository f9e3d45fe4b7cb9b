# shellcheck shell=bash
# A release: heygemd and its packages in an environment of its own below /opt/heygemd/releases, named by what went into it.

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
    if ! link_packages "$release"; then
        make_venv "$release" "$LOG"
        install_torch "$release" "$LOG"
    fi
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
    packages_stamp >"$release/.packages.new"
    mv -f "$release/.packages.new" "$release/.packages"
    touch "$release/.complete"
    trap - EXIT
}

# What decides which packages an environment holds, extras aside: more of them are added, fewer do no harm.
packages_stamp() {
    printf 'python=%s torch=%s machine=%s inputs=%s\n' \
        "$("$PYTHON" -c 'import sys; print(sys.version.split()[0], sys.executable)')" "$(torch_wanted)" "$(uname -m)" \
        "$({ grep -v '^version = ' "$HERE/pyproject.toml" && cat "$HERE/constraints.txt"; } | sha256sum | cut -c1-16)"
}

# link_packages RELEASE: where only heygemd's own code is newer, the packages are those of the release in use. Their
# files are linked: seconds in place of minutes, no download, no second gigabyte. Nothing writes into a linked file: pip
# and compileall put new ones in the place of old ones. Fails, leaving RELEASE empty, where that release cannot be used.
link_packages() {
    local release=$1 used script
    used=$(readlink "$CURRENT" 2>/dev/null || true)
    if [[ -z $used || ! -f $used/.packages || $(<"$used/.packages") != "$(packages_stamp)" ]]; then return 1; fi
    say "The packages are those of $(basename "$used"): linked from there"
    # Without .complete: a half-made copy must not look whole.
    if find "$used" -mindepth 1 -maxdepth 1 ! -name .complete -exec cp -al -t "$release" {} + 2>>"$LOG"; then
        while IFS= read -r script; do
            sed -i "s|$used|$release|g" "$script"
        done < <(grep -lIF -- "$used" "$release"/bin/* "$release/pyvenv.cfg")
        # Somebody may have changed them by hand.
        if run_logged "$LOG" "$release/bin/python" -m pip check; then return 0; fi
        note "they are not as they were installed (see $LOG): installing all of them anew"
    fi
    find "$release" -mindepth 1 -delete
    return 1
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
