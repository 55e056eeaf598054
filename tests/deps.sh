#!/bin/bash
# Installs the Debian packages that the tests use and this machine lacks.
set -euo pipefail

# program:Debian package; /sbin is not in everybody's PATH
needed=(
	tgtd:tgt tgtadm:tgt
	qemu-img:qemu-utils qemu-io:qemu-utils
	fusermount3:fuse3
	mkfs.ext4:e2fsprogs debugfs:e2fsprogs
	fio:fio
	nbdinfo:libnbd-bin nbdcopy:libnbd-bin nbdsh:python3-libnbd
	nbdkit:nbdkit qemu-nbd:qemu-utils
	qemu-system-x86_64:qemu-system-x86 python3:python3
	gcc:gcc
	ip:iproute2 nsenter:util-linux unshare:util-linux
)
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
packages=()
for need in "${needed[@]}"; do
	command -v "${need%%:*}" >/dev/null || packages+=("${need##*:}")
done
# The iSCSI driver of qemu-img is a file, not a program.
compgen -G '/usr/lib/*/qemu/block-iscsi.so' >/dev/null || packages+=(qemu-block-extra)
((${#packages[@]})) || exit 0

run=()
if ((EUID != 0)); then
	command -v sudo >/dev/null || {
		echo "the tests need these packages: ${packages[*]}; please install them" >&2
		exit 1
	}
	run=(sudo)
fi
export DEBIAN_FRONTEND=noninteractive
"${run[@]}" apt-get update -qq
"${run[@]}" apt-get install -qq -y --no-install-recommends "${packages[@]}" >/dev/null
