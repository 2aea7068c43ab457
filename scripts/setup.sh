#!/usr/bin/env bash
# Installs what building, testing and the demo need, on Debian 12 or its like: packages, and the pinned Rust toolchain
# where rustup is there. Does nothing, and needs no root, when everything is there already. No service is started and
# none is enabled: the lab packs the programs into images and starts its own engines.
#
# compat                  as its argument: also what `make compat` needs
# CONMON_INSTALL_RUST=1   also fetch rustup from https://sh.rustup.rs when there is no Rust at all
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH:/usr/sbin:/sbin"

say() { echo "setup: $*"; }
fail() { echo "setup: $*" >&2; exit 1; }

# Program or file : package that brings it. A program that came another way (Docker's own packages, say) is as good.
needs=(
    # building
    cc:gcc make:make git:git curl:curl clang:clang llvm-strip:llvm
    /usr/include/bpf/bpf_helpers.h:libbpf-dev /usr/include/linux/bpf.h:linux-libc-dev
    protoc:protobuf-compiler /usr/include/google/protobuf/empty.proto:libprotobuf-dev
    "/usr/lib/*-linux-gnu/libc.a:libc6-dev" /etc/ssl/certs/ca-certificates.crt:ca-certificates
    # the lab: engine, namespaces, applications
    dockerd:docker.io docker:docker.io containerd:containerd runc:runc iptables:iptables
    docker-compose:docker-compose /lib/systemd/systemd:systemd
    podman:podman /usr/lib/podman/netavark:netavark /usr/lib/podman/aardvark-dns:aardvark-dns
    rootlesskit:rootlesskit slirp4netns:slirp4netns newuidmap:uidmap
    ip:iproute2 nsenter:util-linux setpriv:util-linux ldd:libc-bin busybox:busybox-static
    redis-server:redis-server redis-benchmark:redis-tools nginx:nginx-light wrk:wrk iperf3:iperf3
    memcached:memcached "/usr/lib/postgresql/*/bin/postgres:postgresql" "/usr/lib/postgresql/*/bin/pgbench:postgresql"
    etcd:etcd-server etcdctl:etcd-client
    # truth, scraping, the tests' own tools
    openssl:openssl tcpdump:tcpdump tshark:tshark tcptrace:tcptrace softflowd:softflowd nfdump:nfdump gtlsclient:ngtcp2-client
    gtlsserver:ngtcp2-server prometheus:prometheus promtool:prometheus ping:iputils-ping
    jq:jq tmux:tmux ethtool:ethtool python3:python3 "/usr/lib/python3*/ensurepip:python3-venv"
)

# An emulator for other kernels, and what unpacks them.
if [[ ${1:-} == compat ]]; then
    needs+=(qemu-system-x86_64:qemu-system-x86 dpkg-deb:dpkg xz:xz-utils zstd:zstd sysctl:procps bash:bash)
fi

# Where the kernel enforces AppArmor, engines load a profile with this; minimal installations lack it.
if [[ $(cat /sys/module/apparmor/parameters/enabled 2>/dev/null) == Y ]]; then
    needs+=(apparmor_parser:apparmor)
fi

there() { # program, or file (with wildcards)
    case $1 in
        /*) compgen -G "$1" >/dev/null ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

missing=()
for need in "${needs[@]}"; do
    there "${need%:*}" || missing+=("${need##*:}")
done

if (( ${#missing[@]} > 0 )); then
    mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
    command -v apt-get >/dev/null || fail "please install: ${missing[*]} (Debian's names; there is no apt-get here)"
    sudo=()
    if (( EUID != 0 )); then
        command -v sudo >/dev/null || fail "please install as root: apt-get install ${missing[*]}"
        sudo=(sudo)
    fi
    say "installing ${missing[*]}"
    log=$(mktemp)

    # Debian starts what it installs unless policy-rc.d says no; 101 is "forbidden". What was there comes back.
    policy=/usr/sbin/policy-rc.d
    saved=
    if [[ -e $policy ]]; then
        saved=$(mktemp)
        cp -p "$policy" "$saved"
    fi
    restore() {
        if [[ -n $saved ]]; then
            "${sudo[@]}" cp -p "$saved" "$policy"
            rm -f "$saved"
        else
            "${sudo[@]}" rm -f "$policy"
        fi
        rm -f "$log"
    }
    trap restore EXIT
    printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee "$policy" >/dev/null
    "${sudo[@]}" chmod 755 "$policy"

    services=(docker.service docker.socket containerd.service redis-server.service nginx.service memcached.service
        nfdump.service softflowd.service ngtcp2d.service etcd.service
        postgresql.service prometheus.service podman.service podman.socket podman-restart.service
        podman-auto-update.service podman-auto-update.timer)
    enabled() { command -v systemctl >/dev/null && systemctl is-enabled --quiet "$1" 2>/dev/null; }
    before=()
    for service in "${services[@]}"; do
        enabled "$service" && before+=("$service")
    done

    apt() { "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@"; }
    apt update >"$log" 2>&1 || say "apt-get update failed; going on with the package lists there are"
    if ! apt install --no-install-recommends --yes "${missing[@]}" >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        fail "apt-get could not install: ${missing[*]}"
    fi
    # Installing a service also enables it for the next boot; what was not enabled before shall not be now.
    for service in "${services[@]}"; do
        if enabled "$service" && [[ " ${before[*]} " != *" $service "* ]]; then
            "${sudo[@]}" systemctl disable --quiet "$service" >/dev/null 2>&1 || say "could not disable $service"
        fi
    done
    for need in "${needs[@]}"; do
        there "${need%:*}" || fail "${need%:*} is still missing although package ${need##*:} was installed"
    done
fi

channel=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' rust-toolchain.toml)
if ! command -v cargo >/dev/null; then
    if [[ ${CONMON_INSTALL_RUST:-} == 1 ]]; then
        say "fetching rustup"
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
            sh -s -- -y -q --profile minimal --default-toolchain none --no-modify-path
    else
        fail "there is no Rust here. Either run
    CONMON_INSTALL_RUST=1 $0
or install rustup yourself (https://rustup.rs), as the user who builds:
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal"
    fi
fi
# rust-toolchain.toml decides which compiler runs in this folder.
if ! cargo --version >/dev/null 2>&1; then
    command -v rustup >/dev/null || fail "cargo does not run here and there is no rustup; Rust $channel is needed"
    say "installing Rust $channel"
    rustup --quiet toolchain install "$channel" --profile minimal --component rustfmt --component clippy
fi
for tool in rustfmt cargo-clippy; do
    "$tool" --version >/dev/null 2>&1 || say "$tool is missing: rustup component add rustfmt clippy --toolchain $channel"
done
say "everything is there ($(rustc --version | cut -d' ' -f1,2))"
