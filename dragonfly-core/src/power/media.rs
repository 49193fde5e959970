//! What a machine is given to boot from over its controller: an address for UEFI HTTP boot, or a medium in a drive
//! that does not exist.

use async_trait::async_trait;
use url::Url;

use super::{PowerError, Result};

/// Booting over HTTP from an address that the controller tells the firmware (UEFI 2.5, 24.7).
#[async_trait]
pub trait HttpBoot: Send + Sync {
    /// From this address at the next boot, or with `None` as the firmware likes. What the controller says of it
    /// afterwards is returned, as it writes it.
    async fn set_http_boot(&self, image: Option<&Url>) -> Result<Option<String>>;

    /// The address that is set.
    async fn http_boot(&self) -> Result<Option<String>>;
}

/// An optical drive that does not exist.
#[async_trait]
pub trait VirtualMedia: Send + Sync {
    /// Puts an image in, in the place of one that is there. What the controller says is in it afterwards is
    /// returned, as it writes it.
    async fn insert(&self, image: &Url) -> Result<Option<String>>;

    /// Takes it out. An empty drive stays so.
    async fn eject(&self) -> Result<()>;

    /// What is in it.
    async fn inserted(&self) -> Result<Option<String>>;
}

/// Protocols that controllers fetch an image over.
const FOR_A_DRIVE: [&str; 6] = ["http", "https", "nfs", "cifs", "smb", "tftp"];
/// Those that firmware boots from.
const FOR_FIRMWARE: [&str; 2] = ["http", "https"];

/// Whether an image can be put into a drive, by its address alone.
pub(super) fn check_medium(image: &Url) -> Result<()> {
    check(image, &FOR_A_DRIVE)
}

/// Whether firmware can boot from an address, by the address alone.
pub(super) fn check_boot(image: &Url) -> Result<()> {
    check(image, &FOR_FIRMWARE)
}

fn check(image: &Url, schemes: &[&str]) -> Result<()> {
    let wrong = |reason: String| Err(PowerError::InvalidImage { address: shown(image), reason });
    if !image.username().is_empty() || image.password().is_some() {
        let reason = "user and password do not belong into an address, where every log has them; serve the image where \
                      none are needed, or behind a link that is hard to guess";
        return wrong(reason.to_owned());
    }
    if !schemes.contains(&image.scheme()) {
        return wrong(format!("`{}` is none of {}", image.scheme(), schemes.join(", ")));
    }
    if image.host_str().is_none_or(str::is_empty) {
        return wrong("it names no host".to_owned());
    }
    Ok(())
}

/// An address for logs and events: without what may open something, user, password and query.
pub(super) fn shown(image: &Url) -> String {
    let mut image = image.clone();
    // Of addresses that have no place for them, nothing is to be taken away.
    let _ = image.set_username("");
    let _ = image.set_password(None);
    if image.query().is_some() {
        image.set_query(Some("..."));
    }
    image.set_fragment(None);
    image.to_string()
}

/// What a controller says is in its drive. Somebody else may have put it there with a password.
pub(super) fn said(image: String) -> String {
    match Url::parse(&image) {
        Ok(mut address) if !address.username().is_empty() || address.password().is_some() => {
            let _ = address.set_username("");
            let _ = address.set_password(None);
            address.to_string()
        }
        _ => image,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_carries_no_login() {
        let refused = |check: fn(&Url) -> Result<()>, image: &str| match check(&image.parse().unwrap()) {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        };
        for good in ["http://10.0.0.1/a.iso", "https://h/a.iso?key=1", "nfs://h/a.iso", "cifs://h/share/a.iso"] {
            assert_eq!(refused(check_medium, good), "", "{good}");
        }
        assert_eq!(refused(check_boot, "https://h/boot.efi"), "");
        for bad in ["http://root:hunter2@h/a.iso?k=v", "http://hunter2@h/a.iso", "nfs://:hunter2@h/a.iso"] {
            let error = refused(check_medium, bad);
            assert!(error.contains("user and password") && !error.contains("hunter2"), "{error}");
            assert!(error.contains("h/a.iso"), "{error}");
        }
        assert!(refused(check_medium, "file:///etc/passwd").contains("`file` is none of http, https, nfs"));
        assert!(refused(check_boot, "nfs://h/boot.efi").contains("`nfs` is none of http, https"));
        assert!(refused(check_medium, "nfs:/a.iso").contains("names no host"));
    }

    #[test]
    fn what_is_shown_opens_nothing() {
        let shown = |image: &str| shown(&image.parse().unwrap());
        assert_eq!(shown("https://u:p@h/a.iso?signature=abc#x"), "https://h/a.iso?...");
        assert_eq!(shown("https://h/a.iso"), "https://h/a.iso");
        assert_eq!(said("nfs://u:p@h/a.iso".to_owned()), "nfs://h/a.iso");
        for as_it_is in ["http://h/a.iso", "//h/share/a.iso", "a.iso", ""] {
            assert_eq!(said(as_it_is.to_owned()), as_it_is);
        }
    }
}
