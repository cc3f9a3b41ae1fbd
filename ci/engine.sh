#!/usr/bin/env bash
# Prints the container engine's command line (a path to docker or podman) that builds and runs images here.
#
# Looks at $ENGINE, then Docker, then Podman. When none works and this is root on Debian or Ubuntu, it installs
# the distribution's Docker and starts it, without systemd too. Everything but the answer goes to standard error.
# Exit codes: 0 an engine works, 1 none does and none could be had.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
stamp=$here/../.make/engine${ENGINE:+-${ENGINE//\//_}}
log=${GBDX_ENGINE_LOG:-/var/log/dockerd-gbdx.log}
help_url=https://docs.docker.com/engine/install/
export DOCKER_BUILDKIT=1

say() { echo "engine: $*" >&2; }

answers() { timeout 20 "$1" version --format '{{.Server.Version}}' >/dev/null 2>&1 || timeout 20 "$1" info >/dev/null 2>&1; }

# `docker version` is not proof enough: a client without its build plug-in answers it and can't build.
builds() {
    local context image
    context=$(mktemp -d) && echo probe >"$context/probe" && printf 'FROM scratch\nCOPY probe /probe\n' >"$context/Dockerfile"
    image=$(timeout 60 "$1" build --quiet "$context" 2>/dev/null) || image=
    rm -rf "$context"
    [ -n "$image" ] && { "$1" rmi "$image" >/dev/null 2>&1 || true; }
}

# Every run has an init process; Podman keeps its own in a package apart.
has_init() {
    [ "$(basename "$1")" != podman ] || [ -x /usr/libexec/podman/catatonit ] || type -P catatonit >/dev/null ||
        { say "podman can't run tasks without an init: install the package catatonit"; return 1; }
}

candidates() {
    if [ -n "${ENGINE:-}" ]; then
        type -P "$ENGINE" || true
    else
        { type -ap docker; ls /usr/bin/docker; type -ap podman; } 2>/dev/null | awk '!seen[$0]++'
    fi
}

find_engine() {
    local cli
    for cli in $(candidates); do
        if answers "$cli" && has_init "$cli" && builds "$cli"; then
            mkdir -p "$(dirname "$stamp")" && echo "$cli" >"$stamp"
            echo "$cli"
            return 0
        fi
    done
    return 1
}

# A stamp from the last time saves the test build; the engine still has to answer.
remembered() {
    local cli
    [ -r "$stamp" ] && cli=$(<"$stamp") && [ -n "$cli" ] || return 1
    answers "$cli" && echo "$cli"
}

is_debian() { [ -r /etc/os-release ] && grep -Eq '^ID(_LIKE)?=.*(debian|ubuntu)' /etc/os-release && type -P apt-get >/dev/null; }

install_docker() {
    local packages=docker.io package output
    say "no working engine: installing Docker from the distribution's packages (takes about 20 seconds)"
    apt-get update -qq >&2 || say "apt-get update failed; trying with the package lists that are here"
    # Newer releases keep the client and the builder in packages of their own.
    for package in docker-cli docker-buildx; do
        apt-cache show "$package" >/dev/null 2>&1 && packages="$packages $package"
    done
    # shellcheck disable=SC2086 # a list of words
    output=$(DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        $packages iptables ca-certificates 2>&1) || { tail -n 20 <<<"$output" >&2; return 1; }
}

wait_for() {
    local try
    for try in $(seq 1 100); do
        answers "$1" && return 0
        # A daemon that has already ended won't answer any more.
        [ "$try" -lt 10 ] || kill -0 "$daemon" 2>/dev/null || return 1
        sleep 0.2
    done
    return 1
}

start_docker() {
    local flags cli=/usr/bin/docker
    [ -x "$cli" ] || cli=$(type -P docker)
    if [ -d /run/systemd/system ]; then
        systemctl start docker >&2 && answers "$cli" && return 0
    fi
    # One that is just starting answers soon; one that is just ending is soon gone.
    daemon=$(pgrep -o -x dockerd || true)
    if [ -n "$daemon" ]; then
        wait_for "$cli" && return 0
        ! kill -0 "$daemon" 2>/dev/null || { say "dockerd (process $daemon) runs but does not answer: see its log"; return 1; }
    fi
    rm -f /var/run/docker.pid
    # Plain networking first; some sandboxes allow no iptables, some no bridge either.
    for flags in "" "--iptables=false" "--iptables=false --bridge=none"; do
        # shellcheck disable=SC2086 # a list of words
        setsid dockerd $flags >"$log" 2>&1 </dev/null &
        daemon=$!
        wait_for "$cli" && { say "started dockerd${flags:+ $flags} (log: $log)"; return 0; }
        kill "$daemon" 2>/dev/null || true
        wait "$daemon" 2>/dev/null || true
    done
    say "dockerd did not start; the end of $log:"
    tail -n 5 "$log" >&2
    return 1
}

give_up() {
    say "$1"
    say "container tests and runs need Docker or Podman. To install Docker: $help_url"
    exit 1
}

main() {
    remembered && return 0
    find_engine && return 0
    [ -z "${ENGINE:-}" ] || give_up "ENGINE=$ENGINE does not work: expected a command that builds images, found none that answers and builds"
    [ "$(id -u)" = 0 ] || give_up "no engine answers, and installing one needs root"
    is_debian || give_up "no engine answers, and this is not Debian or Ubuntu, where this script can install one"
    type -P dockerd >/dev/null || install_docker || give_up "installing Docker from the distribution's packages failed"
    start_docker || give_up "Docker is installed but its daemon does not start"
    find_engine || give_up "the engine was started but a test build fails"
}

main
