//! Virtual media (DSP0268, VirtualMedia).

use serde_json::{Value, json};
use url::Url;

use super::control::Controller;
use super::quirks::Quirks;
use super::resource::Resource;
use super::service::Wait;
use crate::power::{PowerError, Result};

/// The drive to use: an optical one, and of several the one that this maker means.
fn choose(drives: Vec<Resource>, quirks: Quirks) -> Option<Resource> {
    let is_optical = |drive: &Resource| {
        let kinds = drive.words(&["MediaTypes"]).unwrap_or_default();
        kinds.iter().any(|kind| matches!(&**kind, "CD" | "DVD"))
    };
    let mut optical: Vec<Resource> = drives.into_iter().filter(is_optical).collect();
    let meant = optical.iter().position(|drive| drive.text(&["Id"]) == quirks.cd_slot());
    (!optical.is_empty()).then(|| optical.swap_remove(meant.unwrap_or_default()))
}

/// What is in a drive, by what it says.
fn image(drive: &Resource) -> Option<String> {
    match drive.flag(&["Inserted"]) {
        Some(false) => None,
        _ => drive.owned(&["Image"]).or_else(|| drive.owned(&["ImageName"])),
    }
}

fn action<'a>(drive: &'a Resource, name: &str) -> Option<&'a str> {
    drive.text(&["Actions", name, "target"])
}

impl Controller {
    async fn drive(&self, what: &str) -> Result<Resource> {
        for drives in &self.found.media {
            let drives = match self.service.members(drives, what).await {
                // Of the two places where drives may be, this one is not it.
                Err(PowerError::Refused { .. }) => continue,
                drives => drives?,
            };
            if let Some(drive) = choose(drives, self.found.quirks) {
                return Ok(drive);
            }
        }
        Err(PowerError::Refused { what: what.to_owned(), reason: "it has no optical drive".to_owned() })
    }

    /// Calls a drive's action, or changes the drive where it has none.
    async fn tell(&self, drive: &Resource, name: &str, bodies: &[Value], what: &str) -> Result<()> {
        let refused = |reason: &str| PowerError::Refused { what: what.to_owned(), reason: reason.to_owned() };
        let path = drive.path().ok_or_else(|| refused("its drive has no path"))?;
        let mut first = None;
        for body in bodies {
            let done = match action(drive, name) {
                Some(target) => self.service.post(target, body, what).await,
                None => {
                    let tag = self.service.read(path, what).await?.tag;
                    let body =
                        if name.ends_with("EjectMedia") { &json!({ "Image": null, "Inserted": false }) } else { body };
                    self.service.patch(path, tag, body, self.found.quirks, (what, Wait::Done)).await
                }
            };
            match done {
                Err(error @ PowerError::Refused { .. }) => first = first.or(Some(error)),
                done => return done,
            }
        }
        first.map_or(Ok(()), Err)
    }

    pub(super) async fn insert_media(&self, image: &Url) -> Result<Option<String>> {
        let what = "insert an image";
        let drive = self.drive(what).await?;
        let is_set = self.found.quirks.needs_eject_before_insert() && drive.text(&["Image"]).is_some();
        if is_set || self::image(&drive).is_some() {
            self.tell(&drive, "#VirtualMedia.EjectMedia", &[json!({})], what).await?;
        }
        // Older ones know the image alone.
        let whole = json!({ "Image": image.as_str(), "Inserted": true, "WriteProtected": true });
        let bodies = [whole, json!({ "Image": image.as_str() })];
        self.tell(&drive, "#VirtualMedia.InsertMedia", &bodies, what).await?;
        self.inserted_media().await
    }

    pub(super) async fn eject_media(&self) -> Result<()> {
        let what = "eject the image";
        let drive = self.drive(what).await?;
        if image(&drive).is_none() && drive.text(&["Image"]).is_none() {
            return Ok(());
        }
        self.tell(&drive, "#VirtualMedia.EjectMedia", &[json!({})], what).await?;
        match self.inserted_media().await? {
            None => Ok(()),
            Some(image) => {
                let reason = format!("it said yes, and {image} is still in it");
                Err(PowerError::Refused { what: what.to_owned(), reason })
            }
        }
    }

    pub(super) async fn inserted_media(&self) -> Result<Option<String>> {
        Ok(image(&self.drive("tell what is in its drive").await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_optical_drive_is_chosen() {
        let drive = |id: &str, kinds: &[&str]| Resource(json!({ "Id": id, "MediaTypes": kinds }));
        let id = |drives: Vec<Resource>, maker: &str| {
            let quirks = Quirks::of(&Resource(json!({ "Vendor": maker })), &Resource::default(), None);
            choose(drives, quirks).and_then(|drive| drive.owned(&["Id"]))
        };
        let hpe = || vec![drive("1", &["Floppy", "USBStick"]), drive("2", &["CD", "DVD"])];
        assert_eq!(id(hpe(), "HPE").as_deref(), Some("2"));
        assert_eq!(id(hpe(), "").as_deref(), Some("2"));
        let dell = || vec![drive("1", &["CD", "DVD", "USBStick"]), drive("2", &["CD", "DVD", "USBStick"])];
        assert_eq!(id(dell(), "Dell").as_deref(), Some("1"));
        assert_eq!(id(vec![drive("Floppy", &["Floppy"])], "Dell"), None);
    }

    #[test]
    fn what_is_in_a_drive() {
        let said = |drive| image(&Resource(drive));
        assert_eq!(said(json!({ "Image": "http://a/b.iso", "Inserted": true })).as_deref(), Some("http://a/b.iso"));
        assert_eq!(said(json!({ "Image": "", "Inserted": false })), None);
        assert_eq!(said(json!({ "Image": "http://a/b.iso", "Inserted": false })), None);
        assert_eq!(said(json!({ "Image": null, "ImageName": "b.iso", "Inserted": true })).as_deref(), Some("b.iso"));
    }
}
