# Makes the real clients that tests use: boto3, the aws command line, boto 2.49, Apache Libcloud and zeep on Debian's Python 3,
# boto 2.20 on Python 2.7.  Sourced after prepare.sh.
# shellcheck shell=bash
#
# zeep signs with xmlsec, and both it and lxml come as wheels with their libraries: no package of Debian's is wanted.
# Everything is kept in target/clients, in a folder named after what this file and the list of
# versions say, so that a change of either makes it anew.  Nothing is installed on the machine.
#
# Debian 12 has no Python 2.  Its packages are still among those of Debian 11 on the mirror that the
# machine uses; they are unpacked here and run by their path, with their own libraries beside them.

CLIENTS_PYTHON2_PACKAGES="python2.7-minimal libpython2.7-minimal libpython2.7-stdlib libssl1.1 libffi7 libexpat1 zlib1g"
# The last releases for Python 2.7.
CLIENTS_PYTHON2_TOOLS="pip==20.3.4 setuptools==44.1.1 wheel==0.37.1"
CLIENTS_BOTO_2007="boto==2.20.0"

# Makes the clients if need be and sets CLIENTS to their folder.
make_clients() {
  local root stamp
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
  stamp=$(cat "$root/scripts/lib/clients.sh" "$root/tests/clients/requirements.txt" | sha256sum | cut -c1-16)
  CLIENTS=$root/target/clients/$stamp
  [ -e "$CLIENTS/complete" ] && return 0
  mkdir -p "$CLIENTS"
  # Two runs at the same time: the second waits, and then finds everything made.
  exec 8>"$CLIENTS/lock"
  flock 8
  if [ ! -e "$CLIENTS/complete" ]; then
    need_packages python3 python3-venv debian-archive-keyring
    make_python3_clients "$root"
    make_python2
    make_python2_clients
    touch "$CLIENTS/complete"
  fi
  exec 8>&-
}

make_python3_clients() {
  step "installing boto3, the aws command line, boto 2.49, Apache Libcloud and zeep"
  local python=/usr/bin/python3
  [ -x "$python" ] || python=python3
  # Python 3.12 dropped what boto 2 is imported with.
  "$python" -c 'import sys; sys.exit(not (3, 9) <= sys.version_info < (3, 12))' ||
    fail "the clients need Python 3.9 to 3.11; $python is another"
  rm -rf "$CLIENTS/python3"
  "$python" -m venv "$CLIENTS/python3"
  "$CLIENTS/python3/bin/python" -m pip install --quiet --disable-pip-version-check \
    --no-deps --only-binary xmlsec,lxml --requirement "$1/tests/clients/requirements.txt"
  # Its own tests are more than half of it.
  rm -rf "$CLIENTS"/python3/lib/python3*/site-packages/libcloud/test
}

# The address from which this machine gets Debian itself.
debian_mirror() {
  local release
  release=$(. /etc/os-release && echo "$VERSION_CODENAME")
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Release: $release" 'Component: main' | head -n 1
}

make_python2() {
  step "unpacking Python 2.7 from Debian 11's packages"
  local mirror apt=$CLIENTS/apt package options
  mirror=$(debian_mirror)
  [ -n "$mirror" ] || fail "apt names no Debian mirror from which Python 2.7 could be fetched"
  rm -rf "$apt" "$CLIENTS/python2"
  mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/packages" "$CLIENTS/python2"
  : >"$apt/status"
  printf 'Types: deb\nURIs: %s\nSuites: bullseye\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' \
    "$mirror" >"$apt/bullseye.sources"
  # A world of its own for apt: other sources, nothing installed, no lists or caches of the machine.
  options=(-qq -o "Dir::Etc::sourcelist=$apt/bullseye.sources" -o Dir::Etc::sourceparts=- -o "Dir::State=$apt"
    -o "Dir::State::Lists=$apt/lists" -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt"
    -o APT::Sandbox::User=root -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false)
  apt-get "${options[@]}" update
  # shellcheck disable=SC2086
  (cd "$apt/packages" && apt-get "${options[@]}" download $CLIENTS_PYTHON2_PACKAGES)
  for package in "$apt"/packages/*.deb; do dpkg-deb -x "$package" "$CLIENTS/python2"; done
  rm -rf "$apt"
  cat >"$CLIENTS/python2/run" <<'RUN'
#!/bin/sh
# Python 2.7 with its own libraries, and what was installed for it.
here=$(dirname "$(readlink -f "$0")")
libraries=$(echo "$here"/usr/lib/*-linux-gnu | tr ' ' ':'):$(echo "$here"/lib/*-linux-gnu | tr ' ' ':')
LD_LIBRARY_PATH=$libraries PYTHONHOME=$here/usr PYTHONPATH=$here/site${PYTHONPATH:+:$PYTHONPATH} \
  PYTHONDONTWRITEBYTECODE=1 exec "$here/usr/bin/python2.7" "$@"
RUN
  chmod +x "$CLIENTS/python2/run"
}

make_python2_clients() {
  step "installing boto 2.20 for Python 2.7"
  local tools=$CLIENTS/python2/tools wheels=$CLIENTS/python2/wheels wheel
  mkdir -p "$tools" "$wheels"
  # shellcheck disable=SC2086
  "$CLIENTS/python3/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps \
    --python-version 2.7 --only-binary :all: --dest "$wheels" $CLIENTS_PYTHON2_TOOLS
  for wheel in "$wheels"/*.whl; do "$CLIENTS/python3/bin/python" -m zipfile -e "$wheel" "$tools"; done
  PYTHONPATH=$tools "$CLIENTS/python2/run" -W ignore -m pip install --quiet --disable-pip-version-check --no-compile \
    --no-deps --no-build-isolation --no-python-version-warning \
    --target "$CLIENTS/python2/site" "$CLIENTS_BOTO_2007"
  rm -rf "$tools" "$wheels"
}
