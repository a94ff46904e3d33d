#!/usr/bin/env bash
# Runs in a clean root of Debian: installs one kind of package out of /packages, uses it, and removes it.
set -euo pipefail

# step COMMAND...: runs it, and says how long it took.
step() {
  local start end
  start=$(date +%s%N)
  "$@" >/root/out 2>&1 || {
    cat /root/out
    printf 'FAILED: %s\n' "$*"
    exit 1
  }
  end=$(date +%s%N)
  printf '   %6d ms  %s\n' $(((end - start) / 1000000)) "$*"
}

# twice COMMAND...: the first run computes, the second one restores.
twice() {
  step "$@" /root/store
  sed 's/^/              /' /root/out
  grep -qx 'computed and stored 64' /root/out
  step "$@" /root/store
  sed 's/^/              /' /root/out
  grep -qx 'restored 64 of 64 blocks' /root/out
}

# README's blocks, as they stand.
read_readme() {
  step python3 /packages/readme.py /packages/README.md /root/readme
  sed 's/^/              /' /root/out
  rm -rf /root/readme
}

# The command, and a store that an example has made.
use_command() {
  step kvstore --version
  step kvstore inspect /root/store
  grep -q 64 /root/out
  step kvstore verify /root/store
  step kvstore inspect report /root/store -o /root/report.html
  test -s /root/report.html
  step kvstore bench restore --total 32MiB --runs 1 --path /root
  rm -rf /root/store /root/report.html
}

# Where it is in the package; with the command in one program there.
use_companion() {
  if command -v kvstore-llama >/dev/null; then
    step kvstore-llama --help
    grep -q llama-server /root/out
    step kvstore bench multiprocess --total 4MiB --runs 1 --path /root
  fi
}

nothing_is_left_in() {
  local left
  left=$(find "$@" -xdev -name '*kvstore*' -not -path '/packages/*' -not -path '/var/*')
  [[ -z $left ]] || { printf 'left behind:\n%s\n' "$left"; exit 1; }
}

absent() {
  if command -v "$1"; then
    printf '%s is there\n' "$1"
    exit 1
  fi
}

absent swift
absent kvstore
case $1 in
  deb)
    step apt-get update -q
    step apt-get install -y -q /packages/libkvstore0_*.deb /packages/libkvstore-dev_*.deb /packages/kvstore_*.deb
    # shellcheck disable=SC2046
    step cc /usr/share/doc/libkvstore-dev/examples/restore.c $(pkg-config --cflags --libs kvstore) -o /root/restore
    twice /root/restore
    use_command
    read_readme
    dpkg --verify libkvstore0 libkvstore-dev kvstore
    step apt-get purge -y -q kvstore libkvstore-dev libkvstore0
    hash -r
    absent kvstore
    nothing_is_left_in /
    ;;
  wheel)
    step python3 -m venv /root/venv
    export PATH=/root/venv/bin:$PATH
    step pip install -q --no-index /packages/kvstore-*.whl
    twice python3 /packages/restore.py
    use_command
    if [[ -x $(echo /root/venv/lib/python3*/site-packages/kvstore/bin/kvstore-llama) ]]; then use_companion; fi
    step python3 -c 'import kvstore.hygiene; kvstore.hygiene.check_log([{"messages": [{"role": "user", "content": "a"}]}])'
    step python3 -c 'import kvstore; assert kvstore.__version__ == kvstore.version()'
    step pip uninstall -q -y kvstore
    hash -r
    absent kvstore
    nothing_is_left_in /root/venv
    ;;
  tarball)
    mkdir /opt/kvstore
    step tar -xf /packages/kvstore-*.tar.gz -C /opt/kvstore --strip-components 1
    export PATH=/opt/kvstore/bin:$PATH PKG_CONFIG_PATH=/opt/kvstore/lib/pkgconfig
    # shellcheck disable=SC2046
    step cc /opt/kvstore/examples/restore.c $(pkg-config --cflags --libs kvstore) -Wl,-rpath,/opt/kvstore/lib \
      -o /root/restore
    twice /root/restore
    use_command
    use_companion
    ;;
  container)
    # The steps of the Containerfile, which come after the folder that it copies.
    mkdir -p /tmp/packages
    cp /packages/*.deb /tmp/packages
    du -sxm / 2>/dev/null | sed 's|\t.*| MiB before|; s/^/              /'
    step bash -euc "$2"
    du -sxm / 2>/dev/null | sed 's|\t.*| MiB after|; s/^/              /'
    test ! -e /tmp/packages
    step /usr/bin/kvstore --help
    ;;
esac
