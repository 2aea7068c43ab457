#!/bin/sh
# The first process of the emulated machine: what a boot does, then the steps, each between two marks, then power off.
if [ "$1" != moved ]; then
    # containers are started by pivot_root, which the kernel refuses below its very first mount
    mkdir -p /root/whole
    mount --bind / /root/whole
    cd /root/whole && mount --move . / && exec chroot . /init moved
fi
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /run
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
for module in /modules/*.ko; do
    insmod "$module" || echo "compat: cannot load $module"
done
hostname compat
ip link set lo up
export CI=true CONMON_TEST_REQUIRE_ROOT=1 CONMON_BIN_DIR=/bin LAB_CACHE=/tmp/lab-cache RUST_BACKTRACE=1
# the firmware has left half a line of escapes
echo
echo "compat: booted $(uname -r) $(cut -d' ' -f1 /proc/uptime)"

step() { # name, seconds, line
    echo "compat: begin $1 $(cut -d' ' -f1 /proc/uptime)"
    timeout -s KILL "$2" sh -c "$3" 2>&1
    echo "compat: end $1 $? $(cut -d' ' -f1 /proc/uptime)"
}
. /steps
echo "compat: all"
poweroff -f
