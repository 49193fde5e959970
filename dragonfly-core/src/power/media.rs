//! What a machine is given to boot from over its controller: an address for UEFI HTTP boot, or a medium in a drive
//! that does not exist.

use async_trait::async_trait;
use url::Url;

use super::Result;

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
