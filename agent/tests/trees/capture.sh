#!/bin/bash
# Captures what a machine's kernel shows, as a text for the inventory's tests:
#
#   capture.sh BOOT_FILES OUT.tree [QEMU OPTIONS...]
#
# BOOT_FILES is what `dragonfly mage build` made. The machine boots with a script instead of the agent:
# it loads every driver and writes what the inventory reads. A line is `F PATH BASE64`, `L PATH TARGET`
# or `D PATH`.
set -euo pipefail
files=$1 out=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/root"
cat > "$work/root/capture" <<'GUEST'
#!/bin/sh
export PATH=/bin:/sbin
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev
for round in 1 2 3 4; do cat /sys/bus/*/devices/*/modalias | sort -u | xargs -n 20 /sbin/modprobe -q; done
/sbin/modprobe -q sd_mod; sleep 3
F() { for f; do [ -f "$f" ] && [ -r "$f" ] && echo "F $f $(base64 "$f" 2>/dev/null | tr -d '\n')"; done; }
L() { for f; do [ -L "$f" ] && echo "L $f $(readlink "$f")"; done; }
D() { for f; do [ -d "$f" ] && echo "D $f"; done; }
exec > /dev/ttyS0
stty raw -echo < /dev/ttyS0
echo BEGIN-TREE
D /sys/firmware /sys/firmware/efi
F /sys/firmware/dmi/tables/* /sys/class/dmi/id/sys_vendor /proc/cpuinfo /proc/meminfo /proc/net/route
F /sys/devices/system/cpu/cpu*/topology/physical_package_id /sys/devices/system/cpu/cpu*/topology/core_id /sys/devices/system/cpu/cpu*/topology/die_id
L /sys/class/tpm/*
for b in /sys/block/*; do
  case $b in */ram*|*/loop*) continue;; esac
  L "$b"; p=$(readlink -f "$b")
  F "$p/size" "$p/removable" "$p/serial" "$p/wwid" "$p/hidden" "$p/queue/logical_block_size" "$p/queue/rotational"
  L "$p/device"; d=$(readlink -f "$p/device")
  D "$d"; F "$d/model" "$d/serial" "$d/vpd_pg80" "$d/wwid" "$d/name"
done
for n in /sys/class/net/*; do
  L "$n"; p=$(readlink -f "$n")
  F "$p/address" "$p/type" "$p/carrier" "$p/speed"; L "$p/device"
  d=$(readlink -f "$p/device") && { D "$d"; L "$d/driver"; }
done
for f in /sys/bus/pci/devices/*; do
  L "$f"; p=$(readlink -f "$f"); F "$p/class" "$p/vendor" "$p/device"; L "$p/driver"
done
echo END-TREE
poweroff -f
GUEST
chmod +x "$work/root/capture"
{
  cat "$files/initramfs"
  head -c $(( (512 - $(stat -c %s "$files/initramfs") % 512) % 512 )) /dev/zero
  (cd "$work/root" && find . | cpio --quiet -o -H newc)
} > "$work/initrd"
timeout 120 qemu-system-x86_64 -accel tcg -cpu max -machine q35 -m 1024 -nodefaults -nographic -serial file:"$work/serial" \
  -no-reboot -kernel "$files/vmlinuz" -initrd "$work/initrd" -append "console=ttyS0 quiet rdinit=/capture" "$@"
tr -d '\r' < "$work/serial" | sed -n '/BEGIN-TREE$/,/^END-TREE$/p' | sed '1d;$d' > "$out"
test -s "$out"
