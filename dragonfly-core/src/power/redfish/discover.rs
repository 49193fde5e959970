//! From the service root to one system, and to what can be done with it.

use url::Url;

use super::plan;
use super::quirks::Quirks;
use super::resource::{Resource, is_same};
use super::service::Service;
use crate::power::{PowerError, Result};

/// What there is.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    /// The path of the system.
    pub(super) system: String,
    /// The path of what its boot device is read from and told to.
    pub(super) boot: String,
    pub(super) has_boot: bool,
    pub(super) has_http_boot: bool,
    pub(super) has_state: bool,
    pub(super) reset: Option<ResetAction>,
    pub(super) lamp: Option<Lamp>,
    pub(super) chassis: Vec<String>,
    /// Collections of log services.
    pub(super) logs: Vec<String>,
    /// Collections of virtual drives.
    pub(super) media: Vec<String>,
    pub(super) updates: Option<String>,
    pub(super) quirks: Quirks,
}

/// How power is switched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResetAction {
    pub(super) target: String,
    pub(super) allowed: Vec<String>,
}

/// How the machine is lit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lamp {
    pub(super) path: String,
    pub(super) property: LampProperty,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LampProperty {
    LocationIndicatorActive,
    /// Deprecated since 2020, and in use.
    IndicatorLed,
}

pub(super) async fn discover(service: &Service, address: &Url, named: Option<&str>) -> Result<Found> {
    let what = "tell what systems it has";
    let root = service.root();
    let systems = root
        .link(&["Systems"])
        .ok_or_else(|| PowerError::Malformed { reason: "its service root has no Systems".to_owned() })?;
    let all = service.references(systems, what).await?;
    let paths: Vec<&str> = all.iter().filter_map(Resource::path).collect();
    let path = choose(&paths, named, address)?.to_owned();
    let listed = all.iter().find(|system| system.path() == Some(&path) && !system.is_reference());
    let system = match listed {
        Some(system) => system.clone(),
        None => service.read(&path, "tell what system it is").await?.resource,
    };
    let manager = match related(service, &system, "ManagedBy", "Managers").await?.first() {
        Some(path) => service.find(path, "tell what it is").await?,
        None => None,
    };
    let quirks = Quirks::of(root, &system, manager.as_ref());
    let reset = reset_action(service, &system).await?;
    let chassis = related(service, &system, "Chassis", "Chassis").await?;
    let lamp = match lamp(&system, &path) {
        Some(lamp) => Some(lamp),
        None => match chassis.first() {
            Some(path) => service.find(path, "tell its lamp").await?.and_then(|chassis| lamp(&chassis, path)),
            None => None,
        },
    };
    let of_either = |property: &str| -> Vec<String> {
        let either = [Some(&system), manager.as_ref()];
        either.into_iter().flatten().filter_map(|of| of.link(&[property])).map(str::to_owned).collect()
    };
    let boot = boot_path(&system, &path, quirks);
    let future = match is_same(&boot, &path) {
        true => None,
        false => service.find(&boot, "tell the boot device").await?,
    };
    let of_boot = future.as_ref().unwrap_or(&system);
    Ok(Found {
        has_boot: of_boot.has(&["Boot"]),
        has_http_boot: plan::has_http_boot(of_boot),
        boot,
        has_state: system.text(&["PowerState"]).is_some(),
        reset,
        lamp,
        chassis,
        logs: of_either("LogServices"),
        media: of_either("VirtualMedia"),
        updates: root.link(&["UpdateService"]).map(str::to_owned),
        quirks,
        system: path,
    })
}

/// Where a system's link leads; one that leaves it out has the only one that the service has.
async fn related(service: &Service, system: &Resource, link: &str, of_root: &str) -> Result<Vec<String>> {
    let named = system.links(&["Links", link]);
    if !named.is_empty() {
        return Ok(named.into_iter().map(str::to_owned).collect());
    }
    let Some(all) = service.root().link(&[of_root]) else { return Ok(vec![]) };
    let all = match service.pages(all, "tell what belongs together").await {
        Err(PowerError::Refused { .. } | PowerError::Forbidden { .. }) => return Ok(vec![]),
        all => all?,
    };
    match &all[..] {
        [only] => Ok(only.path().map(str::to_owned).into_iter().collect()),
        _ => Ok(vec![]),
    }
}

/// The system that is meant.
fn choose<'a>(all: &[&'a str], named: Option<&str>, address: &Url) -> Result<&'a str> {
    let wrong = |reason: String| {
        let mut like = address.clone();
        let list: Vec<String> = all
            .iter()
            .map(|path| {
                like.set_path(path);
                like.to_string()
            })
            .collect();
        let reason = format!("{reason}: {}", list.join(", "));
        Err(PowerError::InvalidAddress { address: address.to_string(), reason })
    };
    match (named, all) {
        (_, []) => Err(PowerError::Malformed { reason: "it lists no system".to_owned() }),
        (Some(named), _) => match all.iter().find(|path| is_same(path, named)) {
            Some(path) => Ok(path),
            None => wrong("the controller has no such system; it has".to_owned()),
        },
        (None, [path]) => Ok(path),
        (None, _) => wrong(format!("the controller has {} systems; name one", all.len())),
    }
}

/// What the system's boot device is read from and told to.
fn boot_path(system: &Resource, path: &str, quirks: Quirks) -> String {
    if !quirks.needs_future_state() {
        return path.to_owned();
    }
    match system.link(&["@Redfish.Settings", "SettingsObject"]) {
        Some(settings) => settings.to_owned(),
        None => format!("{}/SD", path.trim_end_matches('/')),
    }
}

async fn reset_action(service: &Service, system: &Resource) -> Result<Option<ResetAction>> {
    let action = ["Actions", "#ComputerSystem.Reset"];
    let Some(target) = system.text(&[action[0], action[1], "target"]) else { return Ok(None) };
    let mut allowed = system.words(&[action[0], action[1], "ResetType@Redfish.AllowableValues"]);
    if let (None, Some(info)) = (&allowed, system.text(&[action[0], action[1], "@Redfish.ActionInfo"])) {
        let info = service.find(info, "tell how power is switched").await?.unwrap_or_default();
        let parameters = info.parts(&["Parameters"]);
        let reset = parameters.iter().find(|parameter| parameter.text(&["Name"]) == Some("ResetType"));
        allowed = reset.and_then(|parameter| parameter.words(&["AllowableValues"]));
    }
    // One that does not say has what nearly all have, and refuses what it has not.
    let allowed = allowed.unwrap_or_else(|| plan::USUAL.map(str::to_owned).to_vec());
    Ok(Some(ResetAction { target: target.to_owned(), allowed }))
}

fn lamp(of: &Resource, path: &str) -> Option<Lamp> {
    let property = match () {
        () if of.flag(&["LocationIndicatorActive"]).is_some() => LampProperty::LocationIndicatorActive,
        () if of.text(&["IndicatorLED"]).is_some() => LampProperty::IndicatorLed,
        () => return None,
    };
    Some(Lamp { path: path.to_owned(), property })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_system_is_chosen_or_all_are_named() {
        let address: Url = "redfish://10.0.0.6?tls=off".parse().unwrap();
        let two = ["/redfish/v1/Systems/a", "/redfish/v1/Systems/b/"];
        assert_eq!(choose(&two[..1], None, &address).unwrap(), two[0]);
        assert_eq!(choose(&two, Some("/redfish/v1/systems/B"), &address).unwrap(), two[1]);
        for (named, why) in [(None, "has 2 systems; name one"), (Some("/redfish/v1/Systems/c"), "no such system")] {
            let error = choose(&two, named, &address).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert!(error.contains("redfish://10.0.0.6/redfish/v1/Systems/a?tls=off, redfish://10"), "{error}");
        }
        assert!(choose(&[], None, &address).is_err());
    }

    #[test]
    fn a_lamp_is_what_the_newer_property_says_it_is() {
        let property = |of| lamp(&Resource(of), "/x").map(|lamp| lamp.property);
        let both = json!({ "LocationIndicatorActive": false, "IndicatorLED": "Off" });
        assert_eq!(property(both), Some(LampProperty::LocationIndicatorActive));
        let null = json!({ "LocationIndicatorActive": null, "IndicatorLED": "Off" });
        assert_eq!(property(null), Some(LampProperty::IndicatorLed));
        assert_eq!(property(json!({})), None);
    }
}
