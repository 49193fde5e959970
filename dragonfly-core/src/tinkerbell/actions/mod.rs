//! Actions, which are container images there, as the native ones here.

mod cexec;
mod files;
mod image;
mod leave;
mod rootio;

pub(super) use image::{check, is_digest, mapped};

use std::collections::BTreeMap;

use serde_json::Value;

use super::device::Device;
use super::hardware::unfilled;
use super::{Options, Outcome};

/// Names of actions here.
pub(super) const KEXEC: &str = "kexec";
/// As [`KEXEC`].
pub(super) const REBOOT: &str = "reboot";
/// As [`KEXEC`].
pub(super) const POWEROFF: &str = "poweroff";

/// What is told of a place in a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) path: String,
    pub(super) outcome: Outcome,
    pub(super) said: String,
}

/// A step of ours.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Made {
    pub(super) action: &'static str,
    pub(super) with: Value,
}

/// One action of a template.
pub(super) struct Step<'a> {
    pub(super) path: String,
    pub(super) image: String,
    pub(super) command: Vec<String>,
    /// Each with the path that it stands at.
    pub(super) environment: BTreeMap<String, (String, String)>,
    pub(super) timeout: Option<u64>,
    pub(super) options: &'a Options,
    pub(super) storage: Option<&'a Value>,
    pub(super) said: &'a mut Vec<Said>,
}

/// What an environment variable of an action is for, where it is not carried over.
type Settings = &'static [(&'static str, Outcome, &'static str)];

/// What there are none of here.
const NOT_NATIVE: [(&str, &str); 6] = [
    ("archive2disk", "unpack the archive into an image, and write that with image2disk"),
    ("oci2disk", "put the image on a web server, and write it with image2disk"),
    ("qemuimg2disk", "convert the image to a raw one (qemu-img convert -O raw), and write that with image2disk"),
    ("slurp", "disks are not copied to a server"),
    ("syslinux", "boot with GRUB: grub2disk"),
    ("cidata", "write cloud-init's seed with writefile"),
];

/// The steps that one action becomes; none where it is refused or not needed.
pub(super) fn convert(mut step: Step<'_>) -> Vec<Made> {
    step.map_image();
    match step.kind() {
        "image2disk" => image::image2disk(&mut step),
        "writefile" => files::writefile(&mut step),
        "grub2disk" => files::grub2disk(&mut step),
        "cexec" => cexec::cexec(&mut step),
        "rootio" => rootio::rootio(&mut step),
        KEXEC => leave::kexec(&mut step),
        REBOOT => leave::leave(&mut step, REBOOT),
        POWEROFF => leave::leave(&mut step, POWEROFF),
        "waitdaemon" => leave::waitdaemon(step),
        _ if leave::resets(&step.command) => leave::reset(&mut step),
        _ => {
            step.not_native();
            Vec::new()
        }
    }
}

impl Step<'_> {
    /// The image's last part without tag and digest: `image2disk`.
    fn kind(&self) -> &str {
        last_part(&self.image)
    }

    /// The image that is meant instead, if the options name one.
    fn map_image(&mut self) {
        let whole = self.image.as_str();
        let bare = whole.split('@').next().unwrap_or_default();
        let untagged = match bare.rsplit_once(':') {
            Some((before, tag)) if !tag.contains('/') => before,
            _ => bare,
        };
        let fits = |from: &str| from == whole || from == untagged || from == last_part(whole);
        if let Some((_, to)) = self.options.images.iter().find(|(from, _)| fits(from)) {
            let to = to.clone();
            self.say("image", Outcome::Changed, format!("`{}` is read as `{to}`", self.image));
            self.image = to;
        }
    }

    fn not_native(&mut self) {
        let kind = self.kind().to_owned();
        let advice = NOT_NATIVE.iter().find(|(name, _)| *name == kind).map(|(_, advice)| *advice);
        let advice = advice.unwrap_or(
            "actions here are image2disk, writefile, cexec, rootio, grub2disk, kexec, reboot and poweroff; \
             --map-image says which of them an image is",
        );
        let said = match self.image.as_str() {
            "" => "the action names no image".to_owned(),
            image => format!("`{image}` is not native: {advice}"),
        };
        self.say("image", Outcome::Refused, said);
    }

    /// Tells of a field of the action.
    fn say(&mut self, field: &str, outcome: Outcome, said: impl Into<String>) {
        let path = match self.environment.get(field) {
            Some((_, path)) => path.clone(),
            None if field.chars().all(|c| c.is_ascii_uppercase() || c == '_') => {
                format!("{}.environment.{field}", self.path)
            }
            None => format!("{}.{field}", self.path),
        };
        self.said.push(Said { path, outcome, said: said.into() });
    }

    fn refuse(&mut self, field: &str, said: impl Into<String>) {
        self.say(field, Outcome::Refused, said);
    }

    /// A variable that is set to something; it then counts as carried over.
    fn take(&mut self, name: &str) -> Option<String> {
        self.environment.remove(name).map(|(text, _)| text).filter(|text| !text.is_empty())
    }

    /// The same for one that must be there.
    fn need(&mut self, name: &str) -> Option<String> {
        let text = self.environment.get(name).map(|(text, _)| text.clone()).filter(|text| !text.is_empty());
        if text.is_none() {
            self.refuse(name, "is not set");
        }
        self.environment.remove(name);
        text
    }

    /// A device that must be there.
    fn device(&mut self, name: &str) -> Option<Device> {
        let path = self.environment.get(name).map(|(_, path)| path.clone());
        let text = self.need(name)?;
        match Device::parse(&text) {
            Ok(device) => Some(device),
            Err(said) => {
                let said = if text.contains(super::go::LATE_BEGINS) {
                    "is known only when a Workflow names the machine".to_owned()
                } else {
                    unfilled(&text).unwrap_or(said)
                };
                let path = path.unwrap_or_else(|| format!("{}.environment.{name}", self.path));
                self.said.push(Said { path, outcome: Outcome::Refused, said });
                None
            }
        }
    }

    /// A device that is a partition.
    fn partition(&mut self, name: &str) -> Option<Value> {
        let path = self.environment.get(name).map(|(_, path)| path.clone());
        let device = self.device(name)?;
        let target = device.target();
        if target.is_none() {
            let said = "is a whole disk; files are in a partition's file system";
            let path = path.unwrap_or_else(|| format!("{}.environment.{name}", self.path));
            self.said.push(Said { path, outcome: Outcome::Refused, said: said.to_owned() });
        }
        target
    }

    /// What Go reads as true.
    fn is_true(&mut self, name: &str) -> bool {
        self.take(name).is_some_and(|text| matches!(text.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True"))
    }

    /// Tells of every variable that was not taken.
    fn tell_rest(&mut self, settings: Settings) {
        let kind = self.kind().to_owned();
        for (name, (text, path)) in std::mem::take(&mut self.environment) {
            let known = settings.iter().find(|(known, ..)| *known == name);
            let (outcome, said) = match known {
                Some((_, outcome, said)) => (*outcome, (*said).to_owned()),
                None if text.is_empty() => continue,
                None => (Outcome::Lost, format!("{kind} has no such setting here")),
            };
            self.said.push(Said { path, outcome, said });
        }
    }

    /// Tells that the image's own command is not used.
    fn no_command(&mut self) {
        if !std::mem::take(&mut self.command).is_empty() {
            self.say("command", Outcome::Lost, "the action takes its environment alone");
        }
    }
}

/// `image2disk` of `quay.io/tinkerbell/actions/image2disk:latest@sha256:...`.
fn last_part(image: &str) -> &str {
    let bare = image.split('@').next().unwrap_or_default();
    let last = bare.rsplit('/').next().unwrap_or_default();
    last.split(':').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::last_part;

    #[test]
    fn an_image_is_known_by_its_last_part() {
        for image in [
            "image2disk",
            "image2disk:v1.0.0",
            "quay.io/tinkerbell/actions/image2disk:latest",
            "localhost:5000/image2disk",
            "a/b/image2disk@sha256:00",
            "a:1/image2disk:t@sha256:00",
        ] {
            assert_eq!(last_part(image), "image2disk", "{image}");
        }
        assert_eq!(last_part(""), "");
        assert_eq!(last_part("a/"), "");
    }
}
