# Makes guest images for the demonstration and the tests, from Debian's packages.  Sourced.
# shellcheck shell=bash
shopt -s inherit_errexit
#
# Every function prints the path of an image.  Images are kept in $GUESTS_CACHE (default
# target/guests), named by a digest of what went in, and never changed afterwards.

guests_folder() {
  local folder=${GUESTS_CACHE:-target/guests}
  mkdir -p "$folder"
  (cd "$folder" && pwd)
}

# guests_key NAME [FUNCTION|FILE]...: a name that changes with what makes the image.
guests_key() {
  local name=$1 part
  shift
  printf '%s-%s' "$name" "$(
    for part in "$@" /etc/debian_version; do
      if [ -f "$part" ]; then cat "$part"; else declare -f "$part"; fi
    done | sha256sum | cut -c1-16
  )"
}

# guests_unpack FOLDER PACKAGE...: packages of this Debian release, without installing them.
guests_unpack() {
  local folder=$1 download
  shift
  mkdir -p "$folder"
  download=$(mktemp -d)
  (cd "$download" && apt-get -qq -o APT::Sandbox::User=root download "$@" >/dev/null)
  for file in "$download"/*.deb; do dpkg-deb -x "$file" "$folder"; done
  rm -rf "$download"
}

# A small root file system with an init, a DHCP client and an ssh server of its own.
guests_mini() {
  local scripts=scripts/guests out work root
  out=$(guests_folder)/$(guests_key mini "$scripts/mini" guests_mini).ext4
  if [ ! -f "$out" ]; then
    work=$(mktemp -d)
    root=$work/root
    guests_unpack "$root" busybox-static dropbear-bin libc6 libcrypt1 libtomcrypt1 libtommath1 libgmp10 zlib1g
    rm -rf "$root/usr/share" "$root/usr/lib/x86_64-linux-gnu/gconv" "$root/usr/lib/x86_64-linux-gnu/audit" \
      "$root/lib/x86_64-linux-gnu"/lib{c_malloc_debug,memusage,pcprofile,nss_hesiod}*
    "$scripts/mini" "$root"
    truncate -s 64M "$work/image"
    mke2fs -q -F -t ext4 -L root -d "$root" "$work/image"
    mv "$work/image" "$out.new" && mv "$out.new" "$out"
    rm -rf "$work"
  fi
  printf '%s\n' "$out"
}

# A disk whose boot sector says one letter on the serial port and halts: a guest that costs nothing
# and never answers the power button.
guests_halt() {
  local out
  out=$(guests_folder)/$(guests_key halt guests_halt).img
  if [ ! -f "$out" ]; then
    truncate -s 4M "$out.new"
    printf 'label: dos\n2048,2048,83,*\n' | sfdisk -q "$out.new"
    # mov dx,0x3f8; mov al,'H'; out dx,al; cli; hlt; jmp to hlt
    printf '\xba\xf8\x03\xb0\x48\xee\xfa\xf4\xeb\xfd' | dd of="$out.new" conv=notrunc status=none
    mv "$out.new" "$out"
  fi
  printf '%s\n' "$out"
}

# The tree of a Debian 12 with systemd, OpenSSH, cloud-init and its own kernel, as a tar file.
guests_debian_tree() {
  local out include
  include=systemd-sysv,udev,dbus,openssh-server,cloud-init,ifupdown,isc-dhcp-client,iproute2
  include=$include,linux-image-cloud-amd64,initramfs-tools,zstd
  out=$(guests_folder)/$(guests_key debian-tree guests_debian_tree).tar
  if [ ! -f "$out" ]; then
    mmdebstrap --quiet --format=tar --variant=minbase --include="$include" --customize-hook='rm -f $1/etc/ssh/ssh_host_*' \
      --customize-hook='echo MODULES=most > $1/etc/initramfs-tools/conf.d/cumulet; echo COMPRESS=lz4 >> $1/etc/initramfs-tools/conf.d/cumulet' \
      bookworm "$out.new" >&2
    mv "$out.new" "$out"
  fi
  printf '%s\n' "$out"
}

# A Debian 12 root file system without a partition table: boots with the cloud's kernel.
guests_debian_rootfs() {
  local out tree work
  out=$(guests_folder)/$(guests_key debian-rootfs guests_debian_rootfs guests_debian_tree).ext4
  if [ ! -f "$out" ]; then
    tree=$(guests_debian_tree)
    work=$(mktemp -d)
    mkdir "$work/root"
    tar -C "$work/root" --exclude='./boot/*' --exclude='./usr/lib/modules/*' -xf "$tree"
    echo '/dev/sda1 / ext4 defaults 0 1' >"$work/root/etc/fstab"
    truncate -s 1500M "$work/image"
    mke2fs -q -F -t ext4 -d "$work/root" "$work/image"
    mv "$work/image" "$out.new" && mv "$out.new" "$out"
    rm -rf "$work"
  fi
  printf '%s\n' "$out"
}

# A Debian 12 disk: an MBR, a boot loader on a FAT partition, and the root file system.
guests_debian_disk() {
  local out tree work tools kernel disk boot_start=2048 boot_sectors=262144 root_mib=1500 root_start
  out=$(guests_folder)/$(guests_key debian-disk guests_debian_disk guests_debian_tree).img
  if [ ! -f "$out" ]; then
    tree=$(guests_debian_tree)
    work=$(mktemp -d)
    mkdir "$work/root"
    tar -C "$work/root" -xf "$tree"
    kernel=$(basename "$(ls "$work"/root/boot/vmlinuz-*)")
    mkdir "$work/boot"
    cp "$work/root/boot/$kernel" "$work/boot/vmlinuz"
    cp "$work/root/boot/initrd.img-${kernel#vmlinuz-}" "$work/boot/initrd"
    rm -rf "$work"/root/boot/*
    printf 'LABEL=cloud-root / ext4 defaults 0 1\n' >"$work/root/etc/fstab"
    printf 'DEFAULT linux\nPROMPT 0\nSERIAL 0 115200\nLABEL linux\n KERNEL vmlinuz\n APPEND %s\n INITRD initrd\n' \
      'root=LABEL=cloud-root ro console=ttyS0' >"$work/boot/syslinux.cfg"
    tools=$work/tools
    guests_unpack "$tools" syslinux syslinux-common
    root_start=$((boot_start + boot_sectors))
    disk=$work/disk
    truncate -s $(((root_start + root_mib * 2048) * 512)) "$disk"
    printf 'label: dos\n%s,%s,c,*\n%s,%s,83\n' "$boot_start" "$boot_sectors" "$root_start" $((root_mib * 2048)) |
      sfdisk -q "$disk"
    dd if="$tools/usr/lib/syslinux/mbr/mbr.bin" of="$disk" bs=440 count=1 conv=notrunc status=none
    truncate -s $((boot_sectors * 512)) "$work/fat"
    mkfs.vfat -F 16 -n BOOT "$work/fat" >/dev/null
    MTOOLS_SKIP_CHECK=1 mcopy -i "$work/fat" "$work/boot"/* ::
    MTOOLS_SKIP_CHECK=1 "$tools/usr/bin/syslinux" --install "$work/fat"
    dd if="$work/fat" of="$disk" bs=512 seek="$boot_start" conv=notrunc,sparse status=none
    truncate -s "${root_mib}M" "$work/ext4"
    mke2fs -q -F -t ext4 -L cloud-root -d "$work/root" "$work/ext4"
    dd if="$work/ext4" of="$disk" bs=1M seek=$((root_start * 512)) oflag=seek_bytes conv=notrunc,sparse status=none
    mv "$disk" "$out.new" && mv "$out.new" "$out"
    rm -rf "$work"
  fi
  printf '%s\n' "$out"
}
