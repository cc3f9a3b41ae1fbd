#!/usr/bin/env bash
# Makes sure that a Debian slim base is in the engine's store: ci/debian_base.sh ENGINE debian:trixie-slim
#
# It is pulled when Docker Hub can be reached, at the digest of base-images/digests.lock where that file has one.
# Otherwise it is put together from Debian's own signed packages, under the same name, so that no Dockerfile changes.
# The same packages always give the same layer, bit for bit: every file time is clamped to SOURCE_DATE_EPOCH.
set -euo pipefail
engine=${1:?usage: ci/debian_base.sh ENGINE IMAGE}
image=${2:?usage: ci/debian_base.sh ENGINE IMAGE}
here=$(cd "$(dirname "$0")" && pwd)
lock=$here/../base-images/digests.lock

say() { echo "base: $*" >&2; }

release_of() {
    case $1 in
        debian:*-slim) release=${1#debian:} && echo "${release%-slim}" ;;
        *) say "$1 is neither in the engine's store nor can it be pulled, and only debian:<release>-slim can be made here"; return 1 ;;
    esac
}

# The day of the release, in seconds since 1970: only has to be fixed, and not after the packages' own last change.
release_day() {
    case $1 in
        bookworm) echo 1686355200 ;;
        trixie) echo 1754697600 ;;
        *) say "no release day is known for Debian $1: add it to ci/debian_base.sh"; return 1 ;;
    esac
}

pull() {
    local digest reference=$image
    digest=$(awk -v image="$image" '$1 == image { print $2 }' "$lock" 2>/dev/null || true)
    [ -z "$digest" ] || reference=${image%%:*}@$digest
    timeout 300 "$engine" pull --quiet "$reference" >/dev/null 2>&1 && "$engine" tag "$reference" "$image"
}

# This machine's own Debian mirror and its security mirror, if it has them: what reaches packages here is what works.
mirror() {
    # shellcheck disable=SC2016 # the words in $() are apt's, not this shell's
    apt-get indextargets --format '$(SITE) $(LABEL)' 'Created-By: Packages' 2>/dev/null |
        awk -v label="$1" '$2 == label { print $1; exit }'
}

need_mmdebstrap() {
    type -P mmdebstrap >/dev/null && return 0
    if [ "$(id -u)" != 0 ] || ! type -P apt-get >/dev/null; then
        say "$image can't be pulled here, and making it needs the package mmdebstrap (Debian or Ubuntu): apt-get install mmdebstrap"
        return 1
    fi
    say "installing mmdebstrap"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mmdebstrap debian-archive-keyring >/dev/null 2>&1 ||
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mmdebstrap debian-archive-keyring; } >/dev/null
}

make_rootfs() {
    local release=$1 rootfs=$2 archive security sources=()
    archive=$(mirror Debian) && security=$(mirror Debian-Security)
    # Without them (on Ubuntu, say) mmdebstrap takes Debian's public ones, security included.
    [ -z "$archive" ] || [ -z "$security" ] || sources=("deb $archive $release main"
        "deb $archive $release-updates main" "deb $security $release-security main")
    # What the public slim images leave out, and what would differ from one build to the next. An empty /etc/hosts is
    # there because builders otherwise create and remove one, which changes the time of /etc.
    # shellcheck disable=SC2016 # "$1" is mmdebstrap's, not this shell's
    mmdebstrap --quiet --variant=minbase --format=tar --skip=cleanup/apt \
        --hook-dir=/usr/share/mmdebstrap/hooks/maybe-merged-usr \
        --aptopt='Acquire::Languages "none"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/lintian/*' \
        --customize-hook='cd "$1" && rm -rf var/cache/apt/*.bin var/cache/apt/archives/*.deb var/lib/apt/lists/* var/log/* var/cache/ldconfig/aux-cache' \
        --customize-hook='cd "$1" && echo "127.0.0.1 localhost" >etc/hosts && chmod 644 etc/hosts && touch -d "@$SOURCE_DATE_EPOCH" etc/hosts etc' \
        "$release" "$rootfs" "${sources[@]}"
}

make_base() {
    local release workspace
    release=$(release_of "$image")
    SOURCE_DATE_EPOCH=$(release_day "$release")
    export SOURCE_DATE_EPOCH
    need_mmdebstrap
    say "$image can't be pulled here: making it from Debian's packages (takes about 20 seconds)"
    workspace=$(mktemp -d)
    # shellcheck disable=SC2064 # expands now on purpose
    trap "rm -rf '$workspace'" EXIT
    make_rootfs "$release" "$workspace/rootfs.tar" >"$workspace/log" 2>&1 ||
        { tail -n 20 "$workspace/log" >&2 && say "making $image failed: mmdebstrap's last lines stand above" && return 1; }
    "$engine" import --change 'CMD ["bash"]' \
        --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
        --message "made from Debian's packages by ci/debian_base.sh" "$workspace/rootfs.tar" "$image" >/dev/null
}

"$engine" image inspect "$image" >/dev/null 2>&1 || pull || make_base
