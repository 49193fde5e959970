//! What depmod wrote: which module serves which device and what it needs first.

use std::collections::HashMap;

/// When a device's driver is loaded: the network first, because an address takes seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Network cards, and the buses that carry them.
    Network,
    /// Everything else.
    Rest,
    /// Management controllers. Their drivers wait for them while they load, and a dead one lets them
    /// wait long.
    Management,
}

impl Phase {
    /// Whether a device of phase `of` has its turn: in that phase, and a card that nobody took for one
    /// with the rest.
    pub fn includes(self, of: Self) -> bool {
        self == of || (self == Self::Rest && of == Self::Network)
    }
}

/// PCI base classes that are loaded in the network's phase.
pub const NIC_CLASSES: [&str; 1] = ["02"];

/// When the driver of the device with this modalias is loaded.
pub fn phase_of(modalias: &str) -> Phase {
    let network = |is: bool| if is { Phase::Network } else { Phase::Rest };
    match modalias.split_once(':') {
        // `pci:v0000vvvvd0000ddddsv...sd...bcCCscSSiII`
        Some(("pci", rest)) => {
            let class = rest.find("bc").and_then(|at| rest.get(at + 2..)).unwrap_or_default();
            if class.starts_with("0Csc07") {
                return Phase::Management;
            }
            network(class.get(..2).is_some_and(|class| NIC_CLASSES.contains(&class)))
        }
        Some(("virtio", rest)) => network(rest.starts_with("d00000001")),
        // Hypervisors' own buses: their cards show up only when the bus driver is there.
        Some(("vmbus" | "xen" | "xen-backend", _)) => Phase::Network,
        // IPI0001 and, behind an I2C bus, IPI0002.
        Some(("acpi", rest)) if rest.starts_with("IPI") => Phase::Management,
        Some(("acpi", rest)) => network(rest.contains("VMBUS")),
        // What the kernel has found in the SMBIOS table.
        Some(("platform", rest)) if rest.starts_with("dmi-ipmi") => Phase::Management,
        _ => Phase::Rest,
    }
}

/// A pattern of `modules.alias`: `*`, `?` and `[...]`, as in fnmatch(3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// The pattern with this text.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Whether a modalias fits. The time is bounded by the product of both lengths.
    pub fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut p, mut t) = (0, 0);
        // Where to go back to: after the last star, and the text it has swallowed up to there.
        let mut star: Option<(usize, usize)> = None;
        while t < text.len() {
            if pattern.get(p) == Some(&b'*') {
                star = Some((p + 1, t));
                p += 1;
                continue;
            }
            match one(&pattern[p.min(pattern.len())..], text[t]) {
                Some(used) => (p, t) = (p + used, t + 1),
                None => match star {
                    Some((after, swallowed)) => {
                        (p, t) = (after, swallowed + 1);
                        star = Some((after, swallowed + 1));
                    }
                    None => return false,
                },
            }
        }
        pattern[p.min(pattern.len())..].iter().all(|c| *c == b'*')
    }
}

/// How many bytes of the pattern stand for this one character, if they do.
fn one(pattern: &[u8], c: u8) -> Option<usize> {
    match *pattern.first()? {
        b'?' => Some(1),
        b'[' => {
            let end = pattern.iter().skip(2).position(|b| *b == b']')? + 2;
            let set = &pattern[1..end];
            let (negated, set) = match set {
                [b'!' | b'^', rest @ ..] => (true, rest),
                _ => (false, set),
            };
            let mut i = 0;
            let mut found = false;
            while i < set.len() {
                if let (Some(b'-'), Some(high)) = (set.get(i + 1), set.get(i + 2)) {
                    found |= (set[i]..=*high).contains(&c);
                    i += 3;
                } else {
                    found |= set[i] == c;
                    i += 1;
                }
            }
            (found != negated).then_some(end + 1)
        }
        literal => (literal == c).then_some(1),
    }
}

/// What `modules.dep`, `modules.alias` and `modules.softdep` say.
#[derive(Debug, Clone, Default)]
pub struct Index {
    files: HashMap<String, (String, Vec<String>)>,
    aliases: Vec<(Pattern, String)>,
    soft: HashMap<String, (Vec<String>, Vec<String>)>,
}

/// The name of the module in a file: `kernel/net/8021q/8021q.ko.xz` -> `8021q`, dashes as underscores.
pub(crate) fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

impl Index {
    /// Reads the three texts; a line it does not understand is left out.
    pub fn parse(dep: &str, alias: &str, softdep: &str) -> Self {
        let mut index = Self::default();
        for line in dep.lines() {
            if let Some((path, needs)) = line.split_once(':') {
                let needs = needs.split_ascii_whitespace().map(name_of).collect();
                index.files.insert(name_of(path), (path.to_owned(), needs));
            }
        }
        for line in alias.lines() {
            let mut words = line.split_ascii_whitespace();
            if let (Some("alias"), Some(pattern), Some(module)) = (words.next(), words.next(), words.next()) {
                index.aliases.push((Pattern::new(pattern), module.replace('-', "_")));
            }
        }
        for line in softdep.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some("softdep"), Some(module)) = (words.next(), words.next()) else { continue };
            let entry = index.soft.entry(module.replace('-', "_")).or_default();
            let mut after = false;
            for word in words {
                match word {
                    "pre:" => after = false,
                    "post:" => after = true,
                    name if after => entry.1.push(name.replace('-', "_")),
                    name => entry.0.push(name.replace('-', "_")),
                }
            }
        }
        index
    }

    /// The modules that serve a device.
    pub fn for_device(&self, modalias: &str) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for (pattern, module) in &self.aliases {
            if pattern.matches(modalias) && !names.contains(&module.as_str()) {
                names.push(module);
            }
        }
        names
    }

    /// The file of a module, below `/lib/modules/VERSION`, and the modules it cannot do without.
    pub fn file(&self, module: &str) -> Option<(&str, &[String])> {
        self.files.get(module).map(|(path, needs)| (path.as_str(), needs.as_slice()))
    }

    /// What should be loaded before and after a module where it is there.
    pub fn soft(&self, module: &str) -> (&[String], &[String]) {
        self.soft.get(module).map_or((&[], &[]), |(before, after)| (before.as_slice(), after.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_as_fnmatch_does() {
        let table = [
            ("pci:v00008086d00001533sv*sd*bc*sc*i*", "pci:v00008086d00001533sv00008086sd00000001bc02sc00i00", true),
            ("pci:v00008086d00001533sv*sd*bc*sc*i*", "pci:v00008086d00001534sv00008086sd00000001bc02sc00i00", false),
            ("pci:v*d*sv*sd*bc01sc06i01*", "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01", true),
            ("virtio:d00000001v*", "virtio:d00000001v00001AF4", true),
            ("scsi:t-0x00*", "scsi:t-0x00", true),
            ("usb:v*p*d*dc*dsc*dp*ic08isc06ip50in*", "usb:v0951p1666d0110dc00dsc00dp00ic08isc06ip50in00", true),
            ("a[0-3]c", "a2c", true),
            ("a[0-3]c", "a4c", false),
            ("a[!0-3]c", "a4c", true),
            ("a?c", "abc", true),
            ("", "", true),
            ("*", "", true),
            ("a", "", false),
            ("a[", "a[", false),
        ];
        for (pattern, text, want) in table {
            assert_eq!(Pattern::new(pattern).matches(text), want, "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn any_pattern_ends(pattern in "[a*?\\[\\]!-]{0,20}", text in "[ab]{0,30}") {
            let _ = Pattern::new(&pattern).matches(&text);
            prop_assert!(Pattern::new("*").matches(&text));
            prop_assert!(Pattern::new(&text).matches(&text));
        }
    }

    #[test]
    fn an_index_knows_files_needs_and_aliases() {
        let index = Index::parse(
            "kernel/drivers/net/virtio_net.ko: kernel/net/core/failover.ko kernel/drivers/net/net_failover.ko\n\
             kernel/net/core/failover.ko:\n",
            "# comment\nalias virtio:d00000001v* virtio_net\nalias broken\n",
            "softdep virtio-net pre: a-b c post: d\n",
        );
        assert_eq!(index.for_device("virtio:d00000001v00001AF4"), ["virtio_net"]);
        let (path, needs) = index.file("virtio_net").unwrap();
        assert_eq!(path, "kernel/drivers/net/virtio_net.ko");
        assert_eq!(needs, ["failover", "net_failover"]);
        assert_eq!(index.soft("virtio_net"), (&["a_b".to_owned(), "c".to_owned()][..], &["d".to_owned()][..]));
        assert!(index.file("nothing").is_none());
    }

    #[test]
    fn the_network_comes_first() {
        let table = [
            ("pci:v00008086d00001533sv00008086sd00000001bc02sc00i00", Phase::Network),
            ("pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01", Phase::Rest),
            ("virtio:d00000001v00001AF4", Phase::Network),
            ("virtio:d00000002v00001AF4", Phase::Rest),
            ("cpu:type:x86", Phase::Rest),
            ("acpi:IPI0001:", Phase::Management),
            ("acpi:PNP0A08:PNP0A03:", Phase::Rest),
            ("platform:dmi-ipmi-si", Phase::Management),
            ("platform:dmi-ipmi-ssif", Phase::Management),
            ("pci:v0000103Cd0000333Asv0000103Csd00003381bc0Csc07i01", Phase::Management),
            ("pci:v00008086d0000A323sv000017AAsd00003136bc0Csc05i00", Phase::Rest),
        ];
        for (modalias, want) in table {
            assert_eq!(phase_of(modalias), want, "{modalias}");
        }
    }

    #[test]
    fn every_phase_has_its_turn_once() {
        let table = [
            (Phase::Network, [true, false, false]),
            (Phase::Rest, [true, true, false]),
            (Phase::Management, [false, false, true]),
        ];
        for (phase, want) in table {
            assert_eq!([Phase::Network, Phase::Rest, Phase::Management].map(|of| phase.includes(of)), want);
        }
    }
}
