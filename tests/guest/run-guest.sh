#!/bin/bash
# Boots the guest made by build-initramfs.sh, runs one test in it, and exits 0 on PASS.
#
#   run-guest.sh --nbd PORT [--host ADDR] [--export NAME] [--conns N] [options]
#       attaches /dev/nbd0 with the kernel's own client to an NBD server on the host's
#       loopback (10.0.2.2 in the guest is the host's 127.0.0.1), then runs the stage
#   run-guest.sh --drive 'SPEC' [options]
#       boots with one virtio disk; SPEC goes to -drive as it is, such as
#       'file=nbd://127.0.0.1:7810/vol,format=raw,cache=none' or 'file=sheepdog:vol,format=raw'
#
# options: --stage all|write|verify|ack|acked|raw|extra   (default all)
#   --fs ext4|xfs (stage all: ext4,xfs for both)  --files N  --kb N  --seed N  --acked N  --bs N
#   --mountopts O  --mkfsopts O
#   --extra FILE   adds FILE to the guest as /extra/NAME (repeatable; a static binary, or run.sh
#                  for --stage extra, which sees the disk as $dev)
#   --kill-after N kills the machine after the Nth "GUEST-ACK" line (stage ack), exit 0; prints ACKED=N
#   --net          gives the guest a network with --drive too, or instead of a disk
#   --arg K=V      a parameter of run.sh: def K DEFAULT is V there (repeatable)
#   --timeout S (default 180)  --mem MiB (512)  --smp N (2)  --log FILE
# environment: QEMU (default qemu-system-x86_64), GUEST_CACHE, ACCEL (default tcg)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=$(realpath -m "${GUEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sheepdog-guest}")
qemu=${QEMU:-qemu-system-x86_64} accel=${ACCEL:-tcg,thread=multi}
drive='' append='' timeout=180 mem=512 smp=2 log='' kill_after=0 net=0 extra=()
while (($#)); do
	case $1 in
	--nbd) append+=" g.mode=nbd g.port=$2"; shift ;;
	--drive) drive=$2; append+=" g.mode=blk"; shift ;;
	--host | --export | --conns | --stage | --fs | --files | --kb | --seed | --acked | --bs | --mountopts | --mkfsopts | --rawmb | --discard)
		append+=" g.${1#--}=$2"; shift ;;
	--net) net=1 ;;
	--arg) append+=" g.$2"; shift ;;
	--extra) extra+=("$2"); shift ;;
	--kill-after) kill_after=$2; shift ;;
	--timeout) timeout=$2; shift ;;
	--mem) mem=$2; shift ;;
	--smp) smp=$2; shift ;;
	--log) log=$2; shift ;;
	-h | --help) sed -n '2,26s/^# \{0,1\}//p' "$0"; exit 0 ;;
	*) echo "run-guest: unknown argument $1" >&2; exit 2 ;;
	esac
	shift
done
[[ $append == *g.mode=* || $net = 0 ]] || append+=" g.mode=net"
[[ $append == *g.mode=* ]] || { echo "run-guest: --nbd PORT or --drive SPEC" >&2; exit 2; }
GUEST_CACHE=$cache "$here/build-initramfs.sh" >&2
tmp=$(mktemp -d)
pid=''
trap '[[ -z $pid ]] || kill -9 "$pid" 2>/dev/null || true; rm -rf "$tmp"' EXIT
log=${log:-$tmp/serial.log}
initrd=$cache/initrd.gz
if ((${#extra[@]})); then # a second archive after the first: the kernel unpacks both
	mkdir -p "$tmp/x/extra"
	cp -- "${extra[@]}" "$tmp/x/extra/"
	(cd "$tmp/x" && find . | "$cache/cpio" -o -H newc -R 0:0 --quiet) | gzip -1 >"$tmp/x.gz"
	cat "$cache/initrd.gz" "$tmp/x.gz" >"$tmp/initrd.gz"
	initrd=$tmp/initrd.gz
fi
args=(-accel "$accel" -M pc -cpu max -m "$mem" -smp "$smp" -nodefaults -no-user-config -display none -no-reboot
	-kernel "$cache/vmlinuz" -initrd "$initrd" -append "console=ttyS0 panic=-1 quiet random.trust_cpu=on mitigations=off tsc=unstable$append"
	-serial "file:$log" -monitor none
	-device virtio-rng-pci)
# Only when needed: a QEMU built without slirp has no user network.
[[ $append != *g.mode=nbd* && $net = 0 ]] || args+=(-netdev user,id=n0 -device virtio-net-pci,netdev=n0,romfile=)
[[ -z $drive ]] || args+=(-drive "if=virtio,$drive")
: >"$log"
start=$SECONDS
"$qemu" "${args[@]}" </dev/null 2>"$tmp/qemu.err" &
pid=$!
while kill -0 "$pid" 2>/dev/null; do
	if ((kill_after > 0)) && (($(grep -c '^GUEST-ACK' "$log" || true) >= kill_after)); then
		kill -9 "$pid"
		wait "$pid" 2>/dev/null || true
		pid=''
		tr -d '\r' <"$log"
		echo "ACKED=$(grep -c '^GUEST-ACK' "$log")"
		exit 0
	fi
	if ((SECONDS - start > timeout)); then
		tr -d '\r' <"$log"
		echo "run-guest: no end after $timeout s" >&2
		exit 124
	fi
	sleep 0.1
done
wait "$pid" || true
pid=''
tr -d '\r' <"$log"
cat "$tmp/qemu.err" >&2
echo "run-guest: $((SECONDS - start)) s"
grep -q '^GUEST-RESULT: PASS' "$log"
