//! What controllers do otherwise than the specification has it, each as a question. This is the only place that
//! knows makers.

use std::time::Duration;

use super::resource::Resource;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Maker {
    Dell,
    Hpe,
    Supermicro,
    Lenovo,
    /// ASRock Rack and others whose firmware is AMI's.
    Ami,
    #[default]
    Other,
}

/// The habits of one controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Quirks {
    maker: Maker,
    is_x10: bool,
    is_idrac9: bool,
}

impl Quirks {
    /// By what the service, the system and the manager say that they are.
    pub(super) fn of(root: &Resource, system: &Resource, manager: Option<&Resource>) -> Self {
        let names = [
            root.text(&["Vendor"]),
            root.text(&["Product"]),
            system.text(&["Manufacturer"]),
            manager.and_then(|manager| manager.text(&["Manufacturer"])),
            manager.and_then(|manager| manager.text(&["Model"])),
        ];
        let names = names.into_iter().flatten().collect::<Vec<_>>().join("\n").to_ascii_lowercase();
        let any = |words: &[&str]| words.iter().any(|word| names.contains(word));
        let maker = match () {
            () if any(&["dell", "idrac"]) => Maker::Dell,
            () if any(&["hpe", "hewlett", "ilo 4", "ilo 5", "ilo 6", "ilo 7"]) => Maker::Hpe,
            () if any(&["supermicro"]) => Maker::Supermicro,
            () if any(&["lenovo", "xclarity"]) => Maker::Lenovo,
            () if any(&["asrock", "american megatrends", "megarac"]) || names.split('\n').any(|name| name == "ami") => {
                Maker::Ami
            }
            () => Maker::Other,
        };
        let model = system.text(&["Model"]).unwrap_or_default();
        let is_idrac9 = manager.and_then(|manager| manager.text(&["Model"])).is_none_or(|model| {
            // 14G to 16G; the tenth iDRAC comes with 17G.
            ["14G", "15G", "16G"].iter().any(|generation| model.contains(generation))
        });
        Self {
            maker,
            is_x10: maker == Maker::Supermicro && model.contains("X10"),
            is_idrac9: maker == Maker::Dell && is_idrac9,
        }
    }

    /// Supermicro X10 has no `BootSourceOverrideMode` and refuses a request that names it; others leave it out of
    /// what they say when they do not know it either.
    pub(super) fn has_boot_mode(&self, system: &Resource) -> bool {
        !self.is_x10 && system.has(&["Boot", "BootSourceOverrideMode"])
    }

    /// Supermicro answers 200 to an override and forgets it a moment later; iDRAC 9 sometimes loses one for the next
    /// boot. It is looked at again after so long, and set once more when it is gone.
    pub(super) fn override_may_revert(&self) -> Option<Duration> {
        (self.maker == Maker::Supermicro || self.is_idrac9).then_some(Duration::from_secs(1))
    }

    /// iLO refuses the target `None`: the override is disabled and its target is left as it is.
    pub(super) fn rejects_override_none(&self) -> bool {
        self.maker == Maker::Hpe
    }

    /// ASRock and AMI keep what is to be in a resource of its own beside the system (`/redfish/v1/Systems/Self/SD`),
    /// and change nothing that is told to the system itself.
    pub(super) fn needs_future_state(&self) -> bool {
        self.maker == Maker::Ami
    }

    /// The virtual drive that is optical where several say that they are: the second at HPE, the first at Dell and
    /// Lenovo.
    pub(super) fn cd_slot(&self) -> Option<&'static str> {
        match self.maker {
            Maker::Hpe => Some("2"),
            Maker::Dell | Maker::Lenovo => Some("1"),
            Maker::Supermicro | Maker::Ami | Maker::Other => None,
        }
    }

    /// Supermicro refuses to insert an image while another is set, even where it says that none is inserted.
    pub(super) fn needs_eject_before_insert(&self) -> bool {
        self.maker == Maker::Supermicro
    }

    /// Dell boots over plain HTTP only when this attribute of its firmware is `None`; it comes as `OneWay`.
    pub(super) fn http_boot_needs_tls_attribute(&self) -> Option<&'static str> {
        (self.maker == Maker::Dell).then_some("HttpDev1TlsMode")
    }

    /// Dell's lamp is `Lit` when nobody looks for it, and cannot be `Off`: it blinks when it is to be found.
    pub(super) fn lamp_rests_lit(&self) -> bool {
        self.maker == Maker::Dell
    }

    /// The `If-Match` of a change. Several give weak tags and then compare them as strong ones, which a weak tag
    /// never equals (RFC 9110, 8.8.3.2): they get it without its mark, and when they refuse that too, none.
    pub(super) fn if_match(&self, tag: Option<&str>, is_second: bool) -> Option<String> {
        let tag = tag?;
        match (tag.strip_prefix("W/"), is_second) {
            (None, _) => Some(tag.to_owned()),
            (Some(strong), false) => Some(strong.to_owned()),
            (Some(_), true) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn quirks(vendor: &str, model: &str, manager: &str) -> Quirks {
        let root = Resource(json!({ "Vendor": vendor }));
        let system = Resource(json!({ "Manufacturer": vendor, "Model": model }));
        Quirks::of(&root, &system, Some(&Resource(json!({ "Model": manager }))))
    }

    #[test]
    fn makers_are_known_by_their_names() {
        for (vendor, model, manager, wanted) in [
            ("Dell", "PowerEdge R750", "15G Monolithic", Maker::Dell),
            ("HPE", "ProLiant DL385 Gen10 Plus v2", "iLO 5", Maker::Hpe),
            ("Supermicro", "SYS-821GE-TNHR", "", Maker::Supermicro),
            ("Super Micro", "X10", "Supermicro BMC", Maker::Supermicro),
            ("Lenovo", "ThinkSystem SR670 V2", "XCC", Maker::Lenovo),
            ("ASRockRack", "X570D4U", "", Maker::Ami),
            ("AMI", "", "", Maker::Ami),
            ("Sushy Emulator", "", "", Maker::Other),
            ("Miami Computers", "", "", Maker::Other),
        ] {
            assert_eq!(quirks(vendor, model, manager).maker, wanted, "{vendor} {model} {manager}");
        }
    }

    #[test]
    fn habits() {
        let (dell, hpe) = (quirks("Dell", "R750", "15G Monolithic"), quirks("HPE", "", "iLO 5"));
        let (x10, as1015) = (quirks("Supermicro", "X10DRi", ""), quirks("Supermicro", "AS-1015CS", ""));
        let (asrock, other) = (quirks("ASRockRack", "", ""), quirks("Acme", "", ""));
        let ours = Resource(json!({ "Boot": { "BootSourceOverrideMode": "UEFI" } }));
        assert_eq!([dell, x10, other].map(|q| q.has_boot_mode(&ours)), [true, false, true]);
        assert!(!other.has_boot_mode(&Resource(json!({ "Boot": {} }))));
        let reverts = [dell, quirks("Dell", "R770", "17G Monolithic"), as1015, hpe, other];
        let reverts = reverts.map(|q| q.override_may_revert().is_some());
        assert_eq!(reverts, [true, false, true, false, false]);
        assert_eq!([dell, hpe, other].map(|q| q.rejects_override_none()), [false, true, false]);
        assert_eq!([dell, asrock, other].map(|q| q.needs_future_state()), [false, true, false]);
        assert_eq!([dell, hpe, other].map(|q| q.cd_slot()), [Some("1"), Some("2"), None]);
        assert_eq!([as1015, dell].map(|q| q.needs_eject_before_insert()), [true, false]);
        assert_eq!([dell, hpe].map(|q| q.lamp_rests_lit()), [true, false]);
        assert_eq!([dell, hpe].map(|q| q.http_boot_needs_tls_attribute().is_some()), [true, false]);
    }

    #[test]
    fn a_weak_tag_is_not_sent_as_such() {
        let tag = |tag, again| Quirks::default().if_match(tag, again);
        assert_eq!(tag(Some("\"a\""), false).as_deref(), Some("\"a\""));
        assert_eq!(tag(Some("\"a\""), true).as_deref(), Some("\"a\""));
        assert_eq!(tag(Some("W/\"a\""), false).as_deref(), Some("\"a\""));
        assert_eq!(tag(Some("W/\"a\""), true), None);
        assert_eq!(tag(None, false), None);
    }
}
