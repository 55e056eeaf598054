#!/bin/bash
# Builds a small bootable guest (Debian cloud kernel + initramfs) for storage tests.
# Everything comes from Debian packages through `apt-get download`; nothing is installed.
#
#   build-initramfs.sh [-o OUTDIR] [-f]
#
# OUTDIR (default: $GUEST_CACHE, else ~/.cache/sheepdog-guest) receives vmlinuz, initrd.gz
# and build.txt. A second call returns at once unless -f is given or a script here changed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${GUEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sheepdog-guest} force=0
while getopts o:f c; do case $c in o) out=$OPTARG ;; f) force=1 ;; *) exit 2 ;; esac; done
mkdir -p "$out/debs"
out=$(cd "$out" && pwd)
exec 9>"$out/lock" && flock 9 # two callers build one after the other
stamp=$(cat "$here/build-initramfs.sh" "$here/init" | sha256sum | cut -c1-16)
if [[ $force = 0 && -s $out/vmlinuz && -s $out/initrd.gz && -x $out/cpio && $(head -n1 "$out/build.txt" 2>/dev/null) = "$stamp" ]]; then
	echo "guest: cached in $out"
	exit 0
fi

# The kernel the metapackage points at; the cloud flavour carries nbd.ko and all virtio drivers.
kernel() { apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends: linux-image-[0-9]/ { print $2; exit }'; }
kpkg=$(kernel)
if [[ -z $kpkg && $EUID = 0 ]]; then # a machine that has never asked for its package lists
	apt-get update -qq
	kpkg=$(kernel)
fi
[[ -n $kpkg ]] || { echo "guest: no cloud kernel package known to apt (run apt-get update)" >&2; exit 1; }
# Tools and the libraries they link; the closure is checked below, so a missing one is an error.
list="busybox-static nbd-client e2fsprogs xfsprogs cpio
	libc6 libblkid1 libuuid1 libcom-err2 libext2fs2 libss2
	libgnutls30 libp11-kit0 libidn2-0 libunistring2 libtasn1-6 libnettle8 libhogweed6 libgmp10 libffi8
	libnl-3-200 libnl-genl-3-200 libinih1 liburcu8 libedit2 libbsd0 libtinfo6 libmd0"
cd "$out/debs"
for p in $kpkg $list; do
	ls "${p}"_*.deb >/dev/null 2>&1 || echo "$p"
done >"$out/wanted"
download() { xargs -a "$out/wanted" apt-get download -o APT::Sandbox::User=root -q >"$out/apt.log" 2>&1; }
if [[ -s $out/wanted ]] && ! download; then # the lists may be older than the packages
	[[ $EUID != 0 ]] || apt-get update -qq
	download || { tail -n5 "$out/apt.log" >&2; exit 1; }
fi

tree=$out/tree kern=$out/kern root=$out/root
rm -rf "$tree" "$kern" "$root"
mkdir -p "$tree" "$kern" "$root"/{bin,sbin,lib64,lib,proc,sys,dev,mnt,tmp,run,etc,extra,modules}
for d in *.deb; do
	case $d in "$kpkg"_*) dpkg-deb -x "$d" "$kern" ;; linux-image*) ;; *) dpkg-deb -x "$d" "$tree" ;; esac
done
cp "$kern"/boot/vmlinuz-* "$out/vmlinuz.new"
ver=$(basename "$kern"/lib/modules/*)

cp "$tree/bin/busybox" "$root/bin/busybox"
lib=$tree/lib/x86_64-linux-gnu:$tree/usr/lib/x86_64-linux-gnu
ld=$(readlink -f "$tree/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
install -m755 "$ld" "$root/lib64/ld-linux-x86-64.so.2"
for b in sbin/nbd-client sbin/mke2fs sbin/e2fsck sbin/resize2fs sbin/mkfs.xfs sbin/xfs_repair usr/sbin/xfs_io; do
	[[ -x $tree/$b ]] || continue
	cp "$tree/$b" "$root/sbin/"
	"$ld" --library-path "$lib" --list "$tree/$b" >"$out/ldd"
	if grep 'not found' "$out/ldd" >&2; then echo "guest: $b lacks libraries" >&2; exit 1; fi
	awk '/=> \// { print $3 }' "$out/ldd"
done >"$out/libs"
sort -u "$out/libs" | while read -r so; do cp -L "$so" "$root/lib/"; done
for f in ext2 ext3 ext4; do ln -s mke2fs "$root/sbin/mkfs.$f"; done
cp "$tree/etc/mke2fs.conf" "$root/etc/"

# Modules, each with the ones it needs, in load order (insmod is enough, no depmod in the guest).
want="virtio_pci virtio_blk virtio_scsi sd_mod virtio_net virtio_rng nbd xfs"
python3 - "$kern/lib/modules/$ver" $want >"$out/order" <<'PY' || { echo "guest: cannot order modules" >&2; exit 1; }
import os, subprocess, sys
base, want = sys.argv[1], sys.argv[2:]
ko = {}
for d, _, fs in os.walk(base):
    for f in fs:
        if f.endswith('.ko'):
            ko[f[:-3].replace('-', '_')] = os.path.join(d, f)
def deps(p):
    # .modinfo is a run of NUL-separated key=value strings
    b = open(p, 'rb').read()
    for s in b.split(b'\0'):
        if s.startswith(b'depends='):
            return [x.replace('-', '_') for x in s[8:].decode().split(',') if x]
    return []
seen = []
def add(m):
    if m in seen or m not in ko: return
    for x in deps(ko[m]): add(x)
    seen.append(m)
# soft dependencies of the file systems
if 'crc32c_generic' in ko: add('crc32c_generic')
for m in want: add(m)
for m in seen: print(ko[m])
PY
while read -r m; do
	cp "$m" "$root/modules/"
	basename "$m"
done <"$out/order" >"$root/modules/order"
# Debug data is most of a module's size.
if command -v strip >/dev/null; then strip --strip-debug "$root"/modules/*.ko; fi

install -m755 "$here/init" "$root/init"
cp "$tree/bin/cpio" "$out/cpio" # run-guest.sh needs it too, and the host may have none
(cd "$root" && find . -print0 | sort -z | "$out/cpio" -0 -o -H newc -R 0:0 --quiet) | gzip -1 >"$out/initrd.gz.new"
mv "$out/initrd.gz.new" "$out/initrd.gz"
mv "$out/vmlinuz.new" "$out/vmlinuz"
{ echo "$stamp"; echo "$kpkg"; ls -l "$out/vmlinuz" "$out/initrd.gz" | awk '{ print $5, $9 }'; } >"$out/build.txt"
rm -rf "$tree" "$kern" "$root" "$out/wanted" "$out/libs" "$out/ldd" "$out/order"
echo "guest: built in $out ($kpkg, initrd $(stat -c %s "$out/initrd.gz") bytes)"
