#!/usr/bin/env bash
# container_environment.sh cpu|cuda FOLDER: heygemd and all that it needs into a new environment in FOLDER, as install.sh
# does it for the service. Called by the Containerfile; pip's settings (PIP_*) are honoured.
set -euo pipefail
umask 022

# shellcheck disable=SC2034  # read by the files below
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck disable=SC2034
TORCH=$1 WHEELHOUSE='' OFFLINE=no DRY_RUN=no
FOLDER=$2
# shellcheck source=scripts/lib/say.sh
source "$HERE/scripts/lib/say.sh"
# shellcheck source=scripts/lib/system.sh
source "$HERE/scripts/lib/system.sh"
# shellcheck source=scripts/lib/python.sh
source "$HERE/scripts/lib/python.sh"

mkdir -p "$FOLDER"
LOG=$FOLDER/install.log
: >"$LOG"
choose_python
use_wheelhouse
make_venv "$FOLDER" "$LOG"
install_torch "$FOLDER" "$LOG"
say "Installing heygemd and the packages it needs"
if ! pip_install "$FOLDER" "$LOG" "$HERE"; then
    tail_log "$LOG"
    die "pip could not install heygemd" "Is a package index reachable from the build? --build-arg and --env pass PIP_*."
fi
mkdir -p "$FOLDER/share/heygemd"
install -m 0644 "$HERE/checkpoints/registry.toml" "$HERE/config/heygemd.toml" "$HERE/config/manifest.schema.json" \
    "$FOLDER/share/heygemd/"
"$FOLDER/bin/python" -m compileall -q -j 0 -x '/tests?/' "$FOLDER/lib" >>"$LOG" || true
"$FOLDER/bin/heygemd" --version
