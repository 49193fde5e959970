#!/bin/bash
# Makes a Debian system with Debian's own tools: no loop device, no mount.
# build.sh small|full INTO FILES SUITE
#   INTO   a directory: gets root.tar, bios.img (GRUB for a BIOS-boot partition), bootx64.efi
#   FILES  where this script's companions are (init, echo, udhcpc, echo.service)
set -euo pipefail
variant=$1 into=$2 files=$3 suite=${4:-bookworm}
options=(
    --aptopt='APT::Install-Recommends "false"'
    --dpkgopt='path-exclude=/usr/share/man/*'
    --dpkgopt='path-exclude=/usr/share/doc/*'
    --dpkgopt='path-include=/usr/share/doc/*/copyright'
    --dpkgopt='path-exclude=/usr/share/locale/*'
    --dpkgopt='path-exclude=/usr/share/info/*'
)
# What a virtual machine's disk, card and file systems need, and no more: an emulated disk is slow to fill.
only_modules=(
    --dpkgopt='path-exclude=/lib/modules/*/kernel/*'
    --dpkgopt='path-exclude=/lib/udev/hwdb*'
    --dpkgopt='path-exclude=/usr/share/i18n/*'
    --dpkgopt='path-exclude=/usr/lib/x86_64-linux-gnu/gconv/*'
)
for part in arch/x86/crypto crypto drivers/block/virtio_blk drivers/char/hw_random drivers/net/net_failover \
    drivers/net/virtio_net drivers/nvme drivers/virtio fs/efivarfs fs/ext4 fs/fat fs/jbd2 fs/mbcache fs/nls lib \
    net/core/failover net/packet; do
    only_modules+=(--dpkgopt="path-include=/lib/modules/*/kernel/$part*")
done
place_echo() {
    printf '%s\n' \
        "--customize-hook=install -d \"\$1\"/usr/lib/dragonfly-lab" \
        "--customize-hook=install -m 755 '$files/echo' \"\$1\"/usr/lib/dragonfly-lab/echo"
}
mapfile -t hooks < <(place_echo)
case $variant in
small | small-grub)
    # In place of usrmerge, which needs 45 MB of Perl once, while the system is made.
    include=usr-is-merged,linux-image-cloud-amd64,initramfs-tools,busybox-static,udev,mount
    # With GRUB's own files inside, for systems that get their boot loader where they are installed.
    [[ $variant == small-grub ]] && include+=,grub-pc-bin,grub-efi-amd64-bin,grub2-common
    options+=("${only_modules[@]}" --variant=essential)
    hooks+=(
        '--customize-hook=chroot "$1" dpkg --purge usrmerge libfile-find-rule-perl libnumber-compare-perl \
            libtext-glob-perl perl libperl5.36 perl-modules-5.36 libgdbm-compat4 libgdbm6'
        '--customize-hook=rm -f "$1"/usr/lib/udev/hwdb.bin'
        "--customize-hook=install -m 755 '$files/init' \"\$1\"/usr/sbin/init"
        "--customize-hook=install -m 755 '$files/udhcpc' \"\$1\"/usr/lib/dragonfly-lab/udhcpc"
    )
    ;;
full)
    include=linux-image-cloud-amd64,systemd-sysv,udev,dbus,cloud-init,openssh-server,ifupdown,isc-dhcp-client
    include+=,iproute2,sudo,ca-certificates,less,e2fsprogs,fdisk,busybox-static
    include+=,grub-pc-bin,grub-efi-amd64-bin,grub2-common
    options+=(--variant=minbase)
    hooks+=(
        "--customize-hook=install -m 644 '$files/echo.service' \"\$1\"/etc/systemd/system/dragonfly-lab-echo.service"
        "--customize-hook=chroot \"\$1\" systemctl enable dragonfly-lab-echo.service"
        "--customize-hook=rm -f \"\$1\"/etc/ssh/ssh_host_*"
        "--customize-hook=printf 'datasource_list: [ NoCloud, None ]\n' > \"\$1\"/etc/cloud/cloud.cfg.d/90_lab.cfg"
    )
    ;;
*)
    echo "build.sh: no such system: $variant (small, small-grub, full)" >&2
    exit 2
    ;;
esac
mmdebstrap --format=tar "${options[@]}" --include="$include" \
    "${hooks[@]}" \
    --customize-hook=': > "$1"/etc/machine-id; echo debian > "$1"/etc/hostname' \
    --customize-hook='printf "LABEL=dflyroot / ext4 defaults,errors=remount-ro 0 1\n" > "$1"/etc/fstab' \
    --customize-hook='mkdir -p "$1"/boot/grub; kernel=$(ls "$1"/lib/modules | tail -n 1)
        sed "s/@KERNEL@/$kernel/g" '"'$files/grub.cfg'"' > "$1"/boot/grub/grub.cfg' \
    --customize-hook="install -D -m 644 '$files/default-grub' \"\$1\"/etc/default/grub" \
    "$suite" "$into/root.tar"
# GRUB for a disk image that nobody runs grub-install in: finds the root file system by its label.
modules="part_gpt part_msdos ext2 fat normal linux serial terminal search search_label echo configfile test"
printf '%s\n' 'search --no-floppy --label dflyroot --set=root' 'set prefix=($root)/boot/grub' \
    'configfile /boot/grub/grub.cfg' > "$into/early.cfg"
grub-mkimage -O x86_64-efi -o "$into/bootx64.efi" -c "$into/early.cfg" -p /boot/grub $modules
grub-mkimage -O i386-pc -o "$into/bios.img" -c "$into/early.cfg" -p /boot/grub $modules biosdisk
cp /usr/lib/grub/i386-pc/boot.img "$into/boot.img"
