# Shared by the scripts beside it: where things are, and how a download is checked. Sourced, never run.

root=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
deps=${FORK_INSTRUMENT_DEPS:-third_party}
case $deps in /*) ;; *) deps=$root/$deps ;; esac

binaryen_version=132.0.0
node_version=26.10.0
zig_version=0.17.1

program=${0##*/}
say() { printf '%s: %s\n' "$program" "$*" >&2; }
die() { say "$*"; exit 1; }

# A fresh folder on the file system of $deps, so that a finished folder can be moved into place in one
# step: an interrupted run leaves no half of anything behind. Removed when the script ends.
make_staging() {
  mkdir -p "$deps"
  staging=$(mktemp -d "$deps/.staging.XXXXXX")
  trap 'rm -rf "$staging"' EXIT
  trap 'exit 130' INT TERM
}

# publish FROM TO: puts a finished folder in place. When another run was quicker, that one's stays.
publish() {
  mkdir -p "$(dirname -- "$2")"
  if [ ! -e "$2" ]; then mv -- "$1" "$2"; fi
}

# npm_pack NAME VERSION TARBALL: leaves the package's tarball in $staging. `npm pack` runs no script of the
# package and fetches no dependency; what arrives must have the checksum in pins.sha512.
npm_pack() {
  pin=$(grep -- "  $3\$" "$root/scripts/pins.sha512") || die "scripts/pins.sha512 has no line for $3"
  command -v npm >/dev/null || die "npm is missing: install Node.js with npm"
  say "fetching $1 $2"
  (cd "$staging" && npm pack --silent --ignore-scripts "$1@$2" >/dev/null) || die "npm pack $1@$2 failed"
  (cd "$staging" && printf '%s\n' "$pin" | sha512sum --check --status) ||
    die "$3 is not the file that scripts/pins.sha512 pins"
}
