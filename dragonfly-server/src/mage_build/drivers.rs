//! Which drivers the RAM disk carries.

/// What racks have: every one must be in the RAM disk that is built from the generic kernel.
pub const RACK_DRIVERS: &[&str] = &[
    // Network.
    "ixgbe",
    "i40e",
    "ice",
    "igb",
    "igc",
    "e1000e",
    "tg3",
    "bnxt_en",
    "mlx4_en",
    "mlx5_core",
    "qede",
    "be2net",
    "ena",
    "virtio_net",
    "vmxnet3",
    // Storage.
    "nvme",
    "ahci",
    "megaraid_sas",
    "mpt3sas",
    "smartpqi",
    "hpsa",
    "aacraid",
    "vmw_pvscsi",
];

/// What goes with them.
const OTHERS: &[&str] = &[
    // Network cards of small machines and of hypervisors.
    "e1000",
    "r8169",
    "atlantic",
    "iavf",
    "ixgbevf",
    "hv_netvsc",
    "xen_netfront",
    "r8152",
    "cdc_ether",
    "8021q",
    // Disks: virtual, small, behind USB, behind Intel's volume management.
    "virtio_blk",
    "virtio_scsi",
    "sd_mod",
    "ata_piix",
    "vmd",
    "mptsas",
    "mptspi",
    "hv_storvsc",
    "xen_blkfront",
    "usb_storage",
    "uas",
    "mmc_block",
    "sdhci_pci",
    "sdhci_acpi",
    // Buses and the keyboard of the rescue shell.
    "virtio_pci",
    "virtio_mmio",
    "xhci_pci",
    "ehci_pci",
    "uhci_hcd",
    "ohci_pci",
    "hv_vmbus",
    "usbhid",
    "hid_generic",
    "i8042",
    "atkbd",
    // File systems and their character sets.
    "ext4",
    "vfat",
    "xfs",
    "nls_cp437",
    "nls_ascii",
    "nls_utf8",
    "nls_iso8859_1",
    "efivarfs",
    "crc32c_generic",
    "crc32c_intel",
    // Management and trust.
    "ipmi_si",
    "ipmi_devintf",
    "ipmi_ssif",
    "tpm_tis",
    "tpm_crb",
    "virtio_rng",
    "dmi_sysfs",
];

/// Every driver that is wanted.
pub(super) fn all() -> impl Iterator<Item = &'static str> {
    RACK_DRIVERS.iter().chain(OTHERS).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_module_names() {
        for name in all() {
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
            assert_eq!(all().filter(|n| *n == name).count(), 1, "{name} is listed twice");
        }
    }
}
