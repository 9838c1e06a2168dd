#!/bin/busybox sh
# The first process of an instance that boots with the cloud's own kernel.
# It loads the drivers, puts the key pair's public half on the ephemeral store
# and hands over to the image's own init.  It changes nothing on the image.

B=/bin/busybox
say() { $B echo "cumulet: $*"; }
fail() {
    say "cannot start this image: $*"
    $B sync
    $B sleep 1
    # A panic, not a power off: that would count as the guest's own wish to end, and its disk
    # would go with it.
    $B echo c >/proc/sysrq-trigger
    while :; do $B sleep 60; done
}

$B mkdir -p /proc /sys /dev /root /store
$B mount -t proc -o nosuid,noexec,nodev proc /proc
$B mount -t sysfs -o nosuid,noexec,nodev sysfs /sys
$B mount -t devtmpfs -o mode=0755 dev /dev
exec </dev/console >/dev/console 2>&1

read -r words </proc/cmdline
case " $words " in
*" cumulet.probe "*)
    say "the kernel runs"
    $B poweroff -f
    while :; do $B sleep 60; done
    ;;
esac

while read -r module; do
    $B insmod "/modules/$module" || say "the driver $module did not load"
done </modules/order

root=/dev/sda1
init=/sbin/init
mode=ro
for word in $words; do
    case $word in
    root=/dev/*) root=${word#root=} ;;
    init=*) init=${word#init=} ;;
    rw) mode=rw ;;
    esac
done

tries=0
while [ ! -b "$root" ]; do
    tries=$((tries + 1))
    [ $tries -gt 300 ] && fail "the disk $root did not appear"
    $B usleep 100000
done

if [ -f /cumulet/openssh_id.pub ]; then
    if $B mount -t ext3 -o noatime /dev/sda2 /store; then
        $B cp /cumulet/openssh_id.pub /store/openssh_id.pub &&
            $B chmod 644 /store/openssh_id.pub ||
            say "the public key could not be written to the ephemeral store"
        $B umount /store
    else
        say "there is no ephemeral store for the public key"
    fi
fi

mounted=
for type in ext4 ext3 ext2 auto; do
    $B mount -t $type -o $mode "$root" /root 2>/dev/null && mounted=yes && break
done
[ -n "$mounted" ] || fail "$root holds no file system that this kernel can mount"
[ -x "/root$init" ] || [ -L "/root$init" ] || fail "it has no program $init"

if [ -d /root/dev ]; then
    $B mount -o move /dev /root/dev
fi
$B umount /proc
$B umount /sys
say "starting $init on $root"
exec $B switch_root -c /dev/console /root "$init"
fail "could not start $init"
