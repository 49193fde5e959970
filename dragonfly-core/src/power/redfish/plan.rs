//! What a wish becomes, given what a system says it allows. Nothing is sent here.

use serde_json::{Value, json};
use url::Url;

use super::discover::LampProperty;
use super::quirks::Quirks;
use super::resource::Resource;
use crate::power::{BootDevice, BootMode, BootOverride, PowerError, PowerState, Result};

/// The reset types of a system that does not say which it has.
pub(super) const USUAL: [&str; 4] = ["On", "ForceOff", "GracefulShutdown", "ForceRestart"];

/// What is wished of the power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Switch {
    On,
    Off,
    Soft,
    Cycle,
    Reset,
}

impl Switch {
    pub(super) fn what(self) -> &'static str {
        match self {
            Self::On => "switch on",
            Self::Off => "switch off",
            Self::Soft => "ask the operating system to shut down",
            Self::Cycle => "cycle the power",
            Self::Reset => "reset the machine",
        }
    }
}

/// The reset type for a wish (DSP0268, ComputerSystem), if the system has one.
pub(super) fn reset_type(switch: Switch, allowed: &[String]) -> Option<&str> {
    let wanted: &[&str] = match switch {
        Switch::On => &["On", "ForceOn"],
        Switch::Off => &["ForceOff"],
        Switch::Soft => &["GracefulShutdown"],
        Switch::Cycle => &["PowerCycle", "ForceRestart"],
        Switch::Reset => &["ForceRestart"],
    };
    wanted.iter().find_map(|wanted| allowed.iter().find(|allowed| allowed == wanted)).map(String::as_str)
}

/// Whether it is on. On the way it is what it was.
pub(super) fn power_state(system: &Resource) -> Option<PowerState> {
    match system.text(&["PowerState"])? {
        "On" | "PoweringOff" | "Paused" => Some(PowerState::On),
        "Off" | "PoweringOn" => Some(PowerState::Off),
        _ => None,
    }
}

const TARGETS: &str = "BootSourceOverrideTarget@Redfish.AllowableValues";

fn target(device: BootDevice) -> &'static str {
    match device {
        BootDevice::Pxe => "Pxe",
        BootDevice::Disk => "Hdd",
        BootDevice::Cdrom => "Cd",
        BootDevice::Bios => "BiosSetup",
    }
}

fn mode_word(mode: BootMode) -> &'static str {
    match mode {
        BootMode::Legacy => "Legacy",
        BootMode::Uefi => "UEFI",
    }
}

fn allows(system: &Resource, wanted: &str) -> Result<(), String> {
    match system.words(&["Boot", TARGETS]) {
        Some(allowed) if !allowed.iter().any(|allowed| allowed == wanted) => {
            Err(format!("it cannot boot from {wanted}; it can from {}", allowed.join(", ")))
        }
        _ => Ok(()),
    }
}

/// The changes that set a boot device; the second where the first is refused.
pub(super) fn boot(system: &Resource, wish: Option<BootOverride>, quirks: Quirks) -> Result<Vec<Value>> {
    let Some(wish) = wish else {
        let disabled = json!({ "Boot": { "BootSourceOverrideEnabled": "Disabled" } });
        // There are some that want the target too, and some that do not.
        let whole = json!({ "Boot": { "BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideTarget": "None" } });
        return Ok(if quirks.rejects_override_none() { vec![disabled] } else { vec![whole, disabled] });
    };
    let target = target(wish.device);
    let refused = |reason| PowerError::Refused { what: "set the boot device".to_owned(), reason };
    allows(system, target).map_err(refused)?;
    let enabled = if wish.persistent { "Continuous" } else { "Once" };
    let mut boot = json!({ "BootSourceOverrideEnabled": enabled, "BootSourceOverrideTarget": target });
    if let (Some(mode), true) = (wish.mode, quirks.has_boot_mode(system)) {
        boot["BootSourceOverrideMode"] = mode_word(mode).into();
    }
    Ok(vec![json!({ "Boot": boot })])
}

/// What is set, by what a system says; `None` for nothing, or for a device that we have no word for.
pub(super) fn boot_said(system: &Resource) -> Option<BootOverride> {
    let enabled = system.text(&["Boot", "BootSourceOverrideEnabled"])?;
    if enabled == "Disabled" {
        return None;
    }
    let device = match system.text(&["Boot", "BootSourceOverrideTarget"])? {
        "Pxe" => BootDevice::Pxe,
        "Hdd" => BootDevice::Disk,
        "Cd" => BootDevice::Cdrom,
        "BiosSetup" => BootDevice::Bios,
        _ => return None,
    };
    let mode = match system.text(&["Boot", "BootSourceOverrideMode"]) {
        Some("Legacy") => Some(BootMode::Legacy),
        Some("UEFI") => Some(BootMode::Uefi),
        _ => None,
    };
    Some(BootOverride { device, persistent: enabled == "Continuous", mode })
}

/// Whether what is set is what was wished. Of a mode that was left open every one is.
pub(super) fn is_kept(wish: Option<BootOverride>, kept: Option<BootOverride>) -> bool {
    match (wish, kept) {
        (None, None) => true,
        (Some(wish), Some(kept)) => {
            wish.device == kept.device
                && wish.persistent == kept.persistent
                && (wish.mode.is_none() || wish.mode == kept.mode)
        }
        _ => false,
    }
}

/// Whether firmware can be told an address to boot from.
pub(super) fn has_http_boot(system: &Resource) -> bool {
    system.words(&["Boot", TARGETS]).is_some_and(|targets| targets.iter().any(|target| target == "UefiHttp"))
}

/// The change that sets an address to boot from.
pub(super) fn http_boot(system: &Resource, image: &Url, quirks: Quirks) -> Value {
    let mut boot = json!({
        "BootSourceOverrideEnabled": "Once",
        "BootSourceOverrideTarget": "UefiHttp",
        "HttpBootUri": image.as_str(),
    });
    if quirks.has_boot_mode(system) {
        boot["BootSourceOverrideMode"] = mode_word(BootMode::Uefi).into();
    }
    json!({ "Boot": boot })
}

/// The address that is set, by what a system says.
pub(super) fn http_boot_said(system: &Resource) -> Option<String> {
    let is_on = system.text(&["Boot", "BootSourceOverrideEnabled"]) != Some("Disabled");
    let is_http = system.text(&["Boot", "BootSourceOverrideTarget"]) == Some("UefiHttp");
    system.owned(&["Boot", "HttpBootUri"]).filter(|_| is_on && is_http)
}

/// The changes that light a lamp or put it out; the second where the first is refused.
pub(super) fn lamp(property: LampProperty, is_lit: bool, quirks: Quirks) -> Vec<Value> {
    match (property, is_lit) {
        (LampProperty::LocationIndicatorActive, is_lit) => vec![json!({ "LocationIndicatorActive": is_lit })],
        (LampProperty::IndicatorLed, false) => {
            let rest = if quirks.lamp_rests_lit() { "Lit" } else { "Off" };
            vec![json!({ "IndicatorLED": rest })]
        }
        (LampProperty::IndicatorLed, true) => {
            vec![json!({ "IndicatorLED": "Blinking" }), json!({ "IndicatorLED": "Lit" })]
        }
    }
}

/// Whether it is lit.
pub(super) fn lamp_said(property: LampProperty, of: &Resource, quirks: Quirks) -> Option<bool> {
    match property {
        LampProperty::LocationIndicatorActive => of.flag(&["LocationIndicatorActive"]),
        LampProperty::IndicatorLed => {
            of.text(&["IndicatorLED"]).map(|led| led == "Blinking" || (led == "Lit" && !quirks.lamp_rests_lit()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_type_is_one_that_the_system_has() {
        let of = |switch, allowed: &[&str]| {
            let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
            reset_type(switch, &allowed).map(str::to_owned)
        };
        for (switch, allowed, wanted) in [
            (Switch::On, &["ForceOn", "On"][..], Some("On")),
            (Switch::On, &["ForceOn"], Some("ForceOn")),
            (Switch::Off, &["GracefulShutdown"], None),
            (Switch::Cycle, &["ForceRestart", "PowerCycle"], Some("PowerCycle")),
            (Switch::Cycle, &["ForceRestart"], Some("ForceRestart")),
            (Switch::Cycle, &["On", "ForceOff"], None),
            (Switch::Reset, &["GracefulRestart"], None),
            (Switch::Soft, &USUAL, Some("GracefulShutdown")),
        ] {
            assert_eq!(of(switch, allowed).as_deref(), wanted, "{switch:?} {allowed:?}");
        }
    }

    #[test]
    fn a_boot_device_is_said_as_it_was_told() {
        let system = Resource(json!({ "Boot": {
            "BootSourceOverrideMode": "UEFI", TARGETS: ["None", "Pxe", "Hdd", "Cd", "BiosSetup"] } }));
        let quirks = Quirks::default();
        for device in [BootDevice::Pxe, BootDevice::Disk, BootDevice::Cdrom, BootDevice::Bios] {
            for persistent in [false, true] {
                for mode in [Some(BootMode::Legacy), Some(BootMode::Uefi)] {
                    let wish = Some(BootOverride { device, persistent, mode });
                    let said = boot_said(&Resource(boot(&system, wish, quirks).unwrap()[0].clone()));
                    assert!(said == wish && is_kept(wish, said), "{wish:?} {said:?}");
                }
            }
        }
        let cleared = boot(&system, None, quirks).unwrap();
        assert_eq!(cleared.len(), 2);
        assert!(cleared.into_iter().all(|change| boot_said(&Resource(change)).is_none()));
        // Nobody is told a mode that it does not know.
        let old = Resource(json!({ "Boot": {} }));
        let wish = BootOverride { mode: Some(BootMode::Uefi), ..BootOverride::once(BootDevice::Pxe) };
        let change = boot(&old, Some(wish), quirks).unwrap().remove(0);
        assert_eq!(change["Boot"].get("BootSourceOverrideMode"), None);
        assert!(!is_kept(Some(wish), boot_said(&Resource(change))));
        let few = Resource(json!({ "Boot": { TARGETS: ["None", "Hdd"] } }));
        let error = boot(&few, Some(wish), quirks).unwrap_err().to_string();
        assert!(error.contains("it cannot boot from Pxe; it can from None, Hdd"), "{error}");
    }

    #[test]
    fn an_address_to_boot_from() {
        let system = Resource(json!({ "Boot": { "BootSourceOverrideMode": "Legacy", TARGETS: ["UefiHttp"] } }));
        assert!(has_http_boot(&system) && !has_http_boot(&Resource(json!({ "Boot": {} }))));
        let change = Resource(http_boot(&system, &"http://10.0.0.1/boot.efi".parse().unwrap(), Quirks::default()));
        assert_eq!(http_boot_said(&change).as_deref(), Some("http://10.0.0.1/boot.efi"));
        assert_eq!(change.text(&["Boot", "BootSourceOverrideMode"]), Some("UEFI"));
        assert_eq!(boot_said(&change), None);
        let left = json!({ "Boot": { "BootSourceOverrideTarget": "None", "HttpBootUri": "http://10.0.0.1/" } });
        assert_eq!(http_boot_said(&Resource(left)), None);
    }

    #[test]
    fn a_lamp_is_said_as_it_was_told() {
        let dell = Quirks::of(&Resource(json!({ "Vendor": "Dell" })), &Resource::default(), None);
        for quirks in [Quirks::default(), dell] {
            for property in [LampProperty::IndicatorLed, LampProperty::LocationIndicatorActive] {
                for is_lit in [false, true] {
                    let first = Resource(lamp(property, is_lit, quirks).remove(0));
                    assert_eq!(lamp_said(property, &first, quirks), Some(is_lit), "{property:?} {quirks:?}");
                }
            }
        }
    }

    #[test]
    fn a_power_state_on_the_way_is_what_it_was() {
        let state = |text: &str| power_state(&Resource(json!({ "PowerState": text })));
        let (on, off) = (Some(PowerState::On), Some(PowerState::Off));
        let said = ["On", "Off", "PoweringOn", "PoweringOff", "Paused", "Unknown"].map(state);
        assert_eq!(said, [on, off, off, on, on, None]);
        assert_eq!(power_state(&Resource::default()), None);
    }
}
