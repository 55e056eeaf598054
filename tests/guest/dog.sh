# What a user does with dog on a machine with this kernel. Sourced by init, with
# dog in /extra; the parameters are ports, the NBD ports of all sheep on the host.
dog=/extra/dog log=/tmp/monitor.log
addrs=$(def ports 10809 | sed "s/[0-9][0-9]*/$host:&/g")
export SHEEPDOG_NBD_ADDR=$addrs
status() { # WANTED COMMAND...: the exit status is the wanted one, and what is said one line
	want=$1
	shift
	said=$("$@" 2>&1)
	got=$?
	say "$* -> $got: $said"
	[ $got = $want ] && [ "$(echo "$said" | wc -l)" = 1 ] || die "$* -> $got, not $want: $said"
}

status 1 $dog nbd attach nosuch
status 1 $dog nbd detach /dev/nbd0
status 1 $dog nbd detach "$name"
dev=$($dog nbd attach "$name" /dev/nbd2 -c "$conns" -t 5 -l $log) || die "dog nbd attach -> $?"
[ "$dev" = /dev/nbd2 ] || die "dog says the device is '$dev'"
q=/sys/block/nbd2/queue
say "$dev: $(blockdev --getsize64 $dev) bytes, cache '$(cat $q/write_cache)', fua $(cat $q/fua)," \
	"discard max $(cat $q/discard_max_bytes), backend $(cat /sys/block/nbd2/backend)"
status 1 $dog nbd attach "$name"
status 1 $dog nbd attach other /dev/nbd2
run $dog nbd list
run $dog nbd list --json

# Writing goes on while the host takes one sheep after the other away.
makefs; mountit "$opts"
status 1 $dog nbd detach "$name"
ackloop
sed 's/^/monitor: /' $log
grep -q 'connections are complete' $log || die "the monitor has replaced nothing"
run umount $mnt
check; mountit ro; n=$files; acked_files; run umount $mnt
if dmesg | grep -E 'I/O error|Buffer I/O|Shutting down filesystem|corrupt'; then die "errors reached the kernel"; fi

run $dog nbd detach "$name"
[ ! -e /sys/block/nbd2/pid ] || die "still attached"
i=0
while pidof dog >/dev/null; do
	i=$((i + 1))
	[ $i -lt 50 ] || die "the monitor stays: $(ps)"
	usleep 100000
done
say "the monitor has ended"
tail -n1 $log | grep -q 'was detached' || die "the monitor ended for another reason: $(tail -n1 $log)"
# A device of the kernel's choice, without a monitor, read-only.
dev=$($dog nbd attach "$name" --no-monitor --read-only) || die "dog nbd attach -> $?"
[ "$(cat /sys/block/${dev#/dev/}/ro)" = 1 ] || die "$dev can be written to"
run $dog nbd detach $dev

# In the foreground; a signal detaches.
$dog nbd attach "$name" /dev/nbd1 --foreground >/tmp/foreground 2>&1 &
i=0
until grep -q 'connections are complete' /tmp/foreground; do
	i=$((i + 1))
	[ $i -lt 50 ] || die "dog does not attach: $(cat /tmp/foreground)"
	usleep 100000
done
kill $!
wait $! || die "dog ended with status $?: $(cat /tmp/foreground)"
[ "$(head -n1 /tmp/foreground)" = /dev/nbd1 ] || die "dog says $(cat /tmp/foreground)"
[ ! -e /sys/block/nbd1/pid ] || die "still attached"

# Without a monitor a device survives as long as its connections; a monitor that
# comes later finds those that died.
dev=$($dog nbd attach "$name" --no-monitor -t 5) || die "dog nbd attach -> $?"
echo GUEST-ALONE # and the host takes the sheep away
until dmesg | grep -q "${dev#/dev/}: Receive control failed"; do usleep 100000; done
$dog nbd monitor $dev -l $log >/tmp/foreground 2>&1 &
run dd if=$dev of=/dev/null bs=4k count=1 iflag=direct
run $dog nbd detach $dev
wait $! || die "the monitor ended with status $?: $(cat /tmp/foreground)"
