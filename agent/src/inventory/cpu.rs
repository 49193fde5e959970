//! Processors, and what they say of a hypervisor.

use std::collections::BTreeSet;
use std::path::Path;

use dragonfly_core::inventory::Cpu;

use super::{clean, entries, number};

/// Sockets and cores from the topology in sysfs, the model from `/proc/cpuinfo`.
pub(crate) fn read(sys: &Path, proc: &Path) -> Cpu {
    let cpuinfo = std::fs::read_to_string(proc.join("cpuinfo")).unwrap_or_default();
    let field = |name: &str| {
        cpuinfo.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == name).then(|| clean(value.as_bytes())).flatten()
        })
    };
    let mut packages = BTreeSet::new();
    let mut cores = BTreeSet::new();
    let mut threads = 0u32;
    for (name, path) in entries(&sys.join("devices/system/cpu")) {
        let is_cpu = name.strip_prefix("cpu").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
        if !is_cpu {
            continue;
        }
        // Without a topology it is switched off.
        let Some(package) = number::<i64>(&path.join("topology/physical_package_id")) else { continue };
        threads += 1;
        packages.insert(package);
        if let Some(core) = number::<i64>(&path.join("topology/core_id")) {
            // Dies count their cores anew.
            cores.insert((package, number::<i64>(&path.join("topology/die_id")).unwrap_or(0), core));
        }
    }
    let count = |n: usize| u32::try_from(n).ok().filter(|n| *n > 0);
    Cpu {
        model: field("model name"),
        arch: Some(std::env::consts::ARCH.to_owned()),
        sockets: count(packages.len()),
        cores: count(cores.len()),
        threads: Some(threads).filter(|t| *t > 0),
    }
}

/// The hypervisor under this kernel; absent on bare metal.
pub(crate) fn hypervisor(sys: &Path) -> Option<String> {
    if let Some(kind) = super::text(&sys.join("hypervisor/type")) {
        return Some(kind);
    }
    // Only this machine can answer: another root means that a captured one is looked at.
    if sys != Path::new("/sys") {
        return None;
    }
    signature().map(|s| name_of(&s))
}

/// What hypervisors write in the registers of CPUID leaf 4000_0000h.
fn name_of(signature: &str) -> String {
    let known = [
        ("KVMKVMKVM", "kvm"),
        ("TCGTCGTCGTCG", "qemu"),
        ("VMwareVMware", "vmware"),
        ("Microsoft Hv", "hyperv"),
        ("XenVMMXenVMM", "xen"),
        ("bhyve bhyve ", "bhyve"),
        ("VBoxVBoxVBox", "virtualbox"),
        (" lrpepyh  vr", "parallels"),
    ];
    known
        .iter()
        .find(|(text, _)| *text == signature)
        .map_or_else(|| signature.trim().to_owned(), |(_, n)| (*n).to_owned())
}

#[cfg(target_arch = "x86_64")]
fn signature() -> Option<String> {
    use std::arch::x86_64::__cpuid;
    // Leaf 1, ECX bit 31: there is a hypervisor.
    if __cpuid(1).ecx >> 31 == 0 {
        return None;
    }
    let leaf = __cpuid(0x4000_0000);
    let bytes = [leaf.ebx.to_le_bytes(), leaf.ecx.to_le_bytes(), leaf.edx.to_le_bytes()].concat();
    let text: String = bytes.iter().take_while(|b| **b != 0).filter(|b| b.is_ascii()).map(|b| char::from(*b)).collect();
    (!text.trim().is_empty()).then_some(text)
}

#[cfg(not(target_arch = "x86_64"))]
fn signature() -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hypervisors_by_their_signature() {
        for (signature, want) in [("KVMKVMKVM", "kvm"), ("TCGTCGTCGTCG", "qemu"), ("NewHyper", "NewHyper")] {
            assert_eq!(name_of(signature), want);
        }
    }
}
