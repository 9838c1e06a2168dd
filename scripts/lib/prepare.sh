# Shared by the scripts: says what is done, and installs what is missing.
# shellcheck shell=bash

step() { printf '\n== %s\n' "$*" >&2; }

fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Installs the Debian packages that are missing; does nothing when all are there.
need_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ "${#missing[@]}" -eq 0 ] && return 0
  [ "$(id -u)" -eq 0 ] || fail "these packages are missing: ${missing[*]}; run this as root, or install them first"
  step "installing with apt-get: ${missing[*]}"
  apt-get update -qq
  # A host that has newer backports of one QEMU package must take all of them from one release.
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends --allow-downgrades \
      "${missing[@]}" qemu-utils/bookworm qemu-system-common/bookworm >/dev/null
}

# The pinned toolchain is named in rust-toolchain.toml; rustup finds it.
need_rust() {
  command -v cargo >/dev/null && return 0
  if [ ! -x "$HOME/.cargo/bin/cargo" ]; then
    need_packages curl ca-certificates
    step "installing rustup (Debian's own Rust is too old)"
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
      sh -s -- -y --quiet --no-modify-path --profile minimal --component clippy,rustfmt --default-toolchain none
  fi
  export PATH="$HOME/.cargo/bin:$PATH"
}
