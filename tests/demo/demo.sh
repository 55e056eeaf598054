#!/bin/bash
# A cluster of three sheep on this machine, to try things out: demo.sh start|stop
# Everything is kept in .demo; DEMO_PORT is the first of the three ports. Other
# places for the data and the programs can be given with DEMO_DIR and DEMO_BIN.
set -euo pipefail
cd "$(dirname "$0")/../.."
top=$PWD
demo=${DEMO_DIR:-$top/.demo}
bin=${DEMO_BIN:-$top/bin}
port=${DEMO_PORT:-7000}
[[ -f $demo/port && ${1:-} == stop ]] && port=$(<"$demo/port")

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
dog() { local at=$1; shift; "$bin/dog" "$@" -a 127.0.0.1 -p $((port + at)); }
show_dog() { local at=$1; shift; printf '$ bin/dog %s -p %d\n' "$*" $((port + at)); dog "$at" "$@"; }

# sheep I starts the I'th daemon. It returns when the daemon serves.
sheep() {
	"$bin/sheep" -b 127.0.0.1 -y 127.0.0.1 -p $((port + $1)) -z "$1" \
		-c "local:$demo/cluster" -P "$demo/sheep$1.pid" --nbd "unix:$demo/nbd$1.sock" "$demo/store$1"
}

# pid I prints the number of the I'th daemon's process, if it is one of ours.
pid() {
	local p
	p=$(head -n1 "$demo/sheep$1.pid" 2>/dev/null) || return 1
	[[ -n $p && $(readlink "/proc/$p/exe") == "$bin/sheep"* ]] && echo "$p"
}

# await N waits until the cluster runs with N nodes.
await() {
	local i
	for ((i = 0; i < 300; i++)); do
		if [[ $(dog 0 node list -r 2>/dev/null | wc -l) == "$1" ]] &&
			dog 0 cluster info 2>/dev/null | grep -q 'status: \(running\|Waiting for cluster to be formatted\)'; then
			return
		fi
		sleep 0.1
	done
	echo "the cluster does not come up; see $demo/store*/sheep.log" >&2
	exit 1
}

stop() {
	local i p
	for i in 0 1 2; do
		if p=$(pid "$i"); then
			kill "$p"
			for ((n = 0; n < 100; n++)); do
				kill -0 "$p" 2>/dev/null || break
				sleep 0.1
			done
			kill -9 "$p" 2>/dev/null || :
		fi
	done
	rm -rf "$demo"
}

start() {
	stop
	mkdir -p "$demo"
	echo "$port" >"$demo/port"
	for i in 0 1 2; do
		if (exec 3<>"/dev/tcp/127.0.0.1/$((port + i))") 2>/dev/null; then
			echo "port $((port + i)) is taken; choose others with DEMO_PORT=9000 make demo" >&2
			exit 1
		fi
	done

	say 'Three sheep, each in a zone of its own'
	for i in 0 1 2; do
		sheep "$i"
		await $((i + 1))
	done
	show_dog 0 node list

	say 'A cluster that keeps three copies of everything, and a disk on it'
	show_dog 0 cluster format -c 3
	show_dog 0 vdi create demo 256M
	show_dog 0 vdi list

	say 'A file of 64 MiB, written through the first sheep, read through the second'
	head -c 64M /dev/urandom >"$demo/file"
	echo "\$ bin/dog vdi write demo -p $port <.demo/file"
	dog 0 vdi write demo 0 64M <"$demo/file"
	local want
	want=$(sha256sum <"$demo/file")
	compare 1 "$want"

	say 'One sheep is killed; the third still reads the same'
	kill -9 "$(pid 1)"
	compare 2 "$want"
	show_dog 2 node list

	say 'It comes back and catches up'
	sheep 1
	await 3
	show_dog 0 node list

	say 'All three are running. Try next:'
	cat <<-END
		  bin/dog cluster info -p $port
		  bin/dog vdi snapshot -s first demo -p $port
		  bin/dog vdi tree -p $port
		  bin/dog vdi check demo -p $port
		  bin/dog node kill 2 -p $port
		  qemu-img info 'nbd+unix:///demo?socket=$demo/nbd0.sock'
		  nbdinfo --list 'nbd+unix:///?socket=$demo/nbd1.sock'
		  qemu-system-x86_64 -drive 'file=nbd+unix:///demo?socket=$demo/nbd0.sock,format=raw'
		  qemu-system-x86_64 -drive file=sheepdog://127.0.0.1:$port/demo     (QEMU 6.0 or older)
		  make demo-stop
	END
}

# compare AT WANT reads the file back through the AT'th sheep.
compare() {
	local got
	echo "\$ bin/dog vdi read demo 0 64M -p $((port + $1)) | sha256sum"
	got=$(dog "$1" vdi read demo 0 64M | sha256sum)
	echo "$got"
	if [[ $got != "$2" ]]; then
		echo "not what was written: $2" >&2
		exit 1
	fi
	echo 'the same as was written'
}

case ${1:-} in
start) start ;;
stop) stop ;;
*)
	echo 'usage: demo.sh start|stop' >&2
	exit 64
	;;
esac
