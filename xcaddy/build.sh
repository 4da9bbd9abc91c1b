#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 The caddy-knock authors
# SPDX-License-Identifier: Apache-2.0
#
# Builds static release archives into dist/: a Caddy with caddy-knock, and the
# client caddy-knock, for each platform, with SHA-256 sums. The archives are
# reproducible: same source, same Go, same bytes.
#
#   xcaddy/build.sh                          all platforms
#   xcaddy/build.sh linux/arm64 linux/arm/7  some
#   PROGRAMS=caddy-knock xcaddy/build.sh     the client alone
set -euo pipefail
cd "$(dirname "$0")/.."

platforms=("$@")
[ ${#platforms[@]} -gt 0 ] || platforms=(linux/amd64 linux/arm64 linux/arm/7 darwin/arm64 windows/amd64 freebsd/amd64)

declare -A packages=([caddy]=./xcaddy [caddy-knock]=./knockcore/cmd/caddy-knock)
version=$(git describe --tags --always --dirty 2>/dev/null || echo dev)
when=$(git log -1 --format=%ct 2>/dev/null || echo 0)
mkdir -p dist
for platform in "${platforms[@]}"; do
	IFS=/ read -r os arch arm <<<"$platform"
	name=caddy-knock-$version-$os-$arch${arm:+v$arm}
	dir=dist/$name
	rm -rf "$dir" && mkdir -p "$dir"
	suffix=''
	[ "$os" = windows ] && suffix=.exe
	for program in ${PROGRAMS:-caddy caddy-knock}; do
		CGO_ENABLED=0 GOOS=$os GOARCH=$arch GOARM=${arm:-} \
			go build -trimpath -buildvcs=false -ldflags '-s -w -buildid=' -o "$dir/$program$suffix" "${packages[$program]}"
	done
	cp LICENSE README.md "$dir/"
	tar --sort=name --mtime="@$when" --owner=0 --group=0 --numeric-owner -C dist -cf - "$name" | gzip -n >"$dir.tar.gz"
	rm -rf "$dir"
	echo "$dir.tar.gz"
done
(cd dist && sha256sum ./*.tar.gz >SHA256SUMS)
