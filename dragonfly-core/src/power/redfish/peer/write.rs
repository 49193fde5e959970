//! What a simulated service lets be changed.

use serde_json::Value;

use super::door::{Effect, missing};
use super::http::{Ask, Reply};
use super::{BootSet, Command, Machine, State, Tags};

fn refuse(message: &str) -> (Reply, Effect) {
    (Reply::error(400, "PropertyValueNotInList", message), None)
}

impl State {
    pub(super) fn write(&mut self, path: &str, ask: &Ask) -> (Reply, Effect) {
        let Some(number) = self.number(path) else { return (missing(path), None) };
        let words: Vec<&str> = path.split('/').skip(3).collect();
        match (&*ask.method, &words[..]) {
            ("POST", ["Systems", _, "Actions", "ComputerSystem.Reset"]) => self.reset(number, &ask.body),
            ("POST", ["Managers", _, "VirtualMedia", "2", "Actions", action]) => {
                (self.media(number, action, ask), None)
            }
            ("PATCH", ["Systems", _, "BiosSettings"]) => (self.attributes(number, ask), None),
            ("PATCH", ["Systems", _, "SD"]) if self.is.has_future_state => (self.patch(number, path, ask), None),
            ("PATCH", ["Systems", _]) => (self.patch(number, path, ask), None),
            _ => (missing(path), None),
        }
    }

    fn reset(&self, number: usize, body: &Value) -> (Reply, Effect) {
        let kind = body["ResetType"].as_str().unwrap_or_default();
        let command = Command::of(kind).filter(|_| self.is.allowed.iter().any(|allowed| allowed == kind));
        let Some(command) = command else {
            return refuse(&format!("The value '{kind}' for the property ResetType is not in the list."));
        };
        if self.is.lies {
            return (Reply::status(200), None);
        }
        if !self.machines[number].can(command) {
            let words = "The server is already in the state that was asked for.";
            return (Reply::error(409, "NoOperation", words), None);
        }
        (Reply::status(204), Some((number, command)))
    }

    /// Whether a change names the resource as it is.
    fn is_current(&mut self, path: &str, ask: &Ask) -> bool {
        let Some(named) = ask.header("if-match") else { return self.is.tags != Tags::Strong };
        if self.is.races > 0 {
            self.is.races -= 1;
            if let Some(machine) = self.number(path).and_then(|number| self.machines.get_mut(number)) {
                machine.version += 1;
            }
            return false;
        }
        match (self.is.tags, self.tag(path)) {
            (Tags::None, _) | (_, None) => true,
            (Tags::Strong, Some(tag)) => named == tag,
            (Tags::Weak, Some(tag)) => Some(named) == tag.strip_prefix("W/"),
            (Tags::WeakAlways, Some(_)) => false,
        }
    }

    fn patch(&mut self, number: usize, path: &str, ask: &Ask) -> Reply {
        if !self.is_current(path, ask) {
            return Reply::error(412, "PreconditionFailed", "The ETag supplied did not match the current one.");
        }
        let is_future = path.ends_with("/SD");
        // It says yes, and does nothing.
        if self.is.lies || (ask.body["Boot"].is_object() && is_future != self.is.has_future_state) {
            return Reply::status(200);
        }
        let Self { is, machines, .. } = self;
        let Machine { boot, is_lit, version, .. } = &mut machines[number];
        if let Some(lit) = ask.body["LocationIndicatorActive"].as_bool() {
            *is_lit = lit;
        }
        if let Value::Object(wish) = &ask.body["Boot"] {
            let mut set = boot.clone();
            for (name, value) in wish {
                let value = value.as_str().unwrap_or_default().to_owned();
                match (&**name, &*value) {
                    ("BootSourceOverrideTarget", "None") if is.rejects_none => {
                        return refuse(
                            "The value 'None' for the property BootSourceOverrideTarget is not in the list.",
                        )
                        .0;
                    }
                    ("BootSourceOverrideMode", _) if !is.has_boot_mode => {
                        let words = "The property BootSourceOverrideMode is not in the list of valid properties.";
                        return Reply::error(400, "PropertyUnknown", words);
                    }
                    ("BootSourceOverrideEnabled", "Once") if is.forgets_once => {
                        "Continuous".clone_into(&mut set.enabled)
                    }
                    ("BootSourceOverrideEnabled", "Once" | "Continuous" | "Disabled") => set.enabled = value,
                    ("BootSourceOverrideTarget", "None" | "Pxe" | "Hdd" | "Cd" | "BiosSetup" | "UefiHttp") => {
                        set.target = value;
                    }
                    ("BootSourceOverrideMode", "UEFI" | "Legacy") => set.mode = value,
                    ("HttpBootUri", _) => set.uri = Some(value),
                    (name, value) => {
                        return refuse(&format!("The value '{value}' for the property {name} is not in the list.")).0;
                    }
                }
            }
            if set.enabled == "Disabled" && !is.rejects_none {
                "None".clone_into(&mut set.target);
            }
            *boot = set;
            if is.reverts > 0 {
                is.reverts -= 1;
                *boot = BootSet::default();
            }
        }
        *version += 1;
        Reply::status(204)
    }

    fn attributes(&mut self, number: usize, ask: &Ask) -> Reply {
        if let Some(mode) = ask.body["Attributes"]["HttpDev1TlsMode"].as_str() {
            mode.clone_into(&mut self.machines[number].tls_mode);
        }
        Reply::status(202).with("Location", "/redfish/v1/TaskService/TaskMonitors/never")
    }

    fn media(&mut self, number: usize, action: &str, ask: &Ask) -> Reply {
        if self.is.lies {
            return Reply::status(200);
        }
        let media = &mut self.machines[number].media;
        match (action, ask.body["Image"].as_str()) {
            ("VirtualMedia.InsertMedia", Some(_)) if media.is_some() => {
                Reply::error(400, "ResourceInUse", "The drive has an image in it.")
            }
            ("VirtualMedia.InsertMedia", Some(image)) => {
                *media = Some(image.to_owned());
                Reply::status(204)
            }
            ("VirtualMedia.EjectMedia", _) if media.take().is_some() => Reply::status(204),
            ("VirtualMedia.EjectMedia", _) => refuse("There is nothing to eject.").0,
            _ => refuse("There is no image.").0,
        }
    }
}
