//! `chain`: iPXE is loaded now, with a script that goes on at another URL, and started when the agent
//! leaves.

use dragonfly_core::action::{Action, ActionContext, ActionError, Resume};
use dragonfly_core::inventory::FirmwareMode;
use futures_util::StreamExt;
use url::Url;

use super::fail::{OrFailed, because, blocking};
use super::host::Host;
use super::{kexec, realmode, sys};
use crate::plan::{self, ChainParams, Check, SERVER_SCHEME, ScriptUrl, Stage};

/// What the server has it as.
const ON_SERVER: &str = "/boot/files/ipxe.lkrn";
/// The largest iPXE that is taken; Debian's has 0.3 MiB.
const LARGEST: usize = 16 << 20;

/// Loads iPXE.
#[derive(Debug, Clone)]
pub(crate) struct ChainAction(pub(crate) Host);

impl Action for ChainAction {
    const NAME: &'static str = plan::CHAIN;
    const RESUME: Resume = Resume::Restart;
    type Params = ChainParams;

    fn check(&self, params: &ChainParams) -> Vec<(String, String)> {
        let mut check = Check::new(Stage::Rendered);
        params.check(&mut check);
        check.into_problems()
    }

    async fn run(&self, params: ChainParams, cx: &ActionContext) -> Result<(), ActionError> {
        cx.check_cancelled()?;
        let Some(url) = params.url.known() else {
            return because("the URL of the script was not filled in");
        };
        if self.0.firmware() == FirmwareMode::Uefi || !cfg!(target_arch = "x86_64") {
            return because(
                "iPXE cannot be started from a running Linux on this machine: it needs PC BIOS. End the template with \
                 `reboot`, and let the server's boot script chain to the URL",
            );
        }
        let script = script(url);
        let image = match self.local().await? {
            Some(image) => image,
            None => fetch(cx).await?,
        };
        let (host, cx) = (self.0.clone(), cx.clone());
        blocking(move || {
            let segments = realmode::arrange(sys::real_mode_entry(), &image, script.as_bytes())
                .map_err(|problem| ActionError::because(format!("ipxe.lkrn {problem}")))?;
            let loaded = sys::kexec_load(realmode::ENTRY, &segments);
            loaded.map_err(|error| kexec::refused("ipxe.lkrn", error))?;
            kexec::confirm(&host, "ipxe.lkrn")?;
            cx.log("iPXE is loaded with a script that goes on at the URL");
            Ok(())
        })
        .await
    }
}

impl ChainAction {
    /// One that the agent's RAM disk brings.
    async fn local(&self) -> Result<Option<Vec<u8>>, ActionError> {
        let paths = self.0.ipxe.clone();
        blocking(move || {
            let Some(path) = paths.iter().find(|path| path.is_file()) else { return Ok(None) };
            std::fs::read(path).map(Some).or_failed(|| format!("{} could not be read", path.display()))
        })
        .await
    }
}

/// The one that the server gives to firmware.
async fn fetch(cx: &ActionContext) -> Result<Vec<u8>, ActionError> {
    let what =
        || format!("ipxe.lkrn is not in the agent's RAM disk, and the server's {ON_SERVER} could not be fetched");
    let url = Url::parse(&format!("{SERVER_SCHEME}://{ON_SERVER}")).or_failed(what)?;
    let mut stream = cx.images().open(&url, 0, None).await.or_failed(what)?;
    let mut image = Vec::new();
    while let Some(part) = stream.bytes.next().await {
        cx.check_cancelled()?;
        image.extend(part.or_failed(what)?);
        if image.len() > LARGEST {
            return because(format!("the server's {ON_SERVER} is larger than {LARGEST} bytes; it cannot be iPXE"));
        }
    }
    Ok(image)
}

/// Tries every interface, then the script; a machine that cannot get there goes back to the firmware,
/// and so to whoever decides, instead of standing at a prompt.
fn script(url: &ScriptUrl) -> String {
    format!(
        "#!ipxe\n\
         set tries:int32 0\n\
         :again\n\
         inc tries\n\
         iseq ${{tries}} 6 && goto lost ||\n\
         ifconf -c dhcp || goto wait\n\
         chain --replace {} || goto wait\n\
         :wait\n\
         echo The script could not be had; trying again\n\
         sleep 10\n\
         goto again\n\
         :lost\n\
         echo Giving up; rebooting\n\
         sleep 10\n\
         reboot\n",
        url.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_goes_to_the_url_and_ends_somewhere() {
        let script = script(&ScriptUrl("http://10.0.0.1/x.ipxe?a=b".parse().unwrap()));
        assert!(script.starts_with("#!ipxe\n"));
        assert!(script.contains("\nchain --replace http://10.0.0.1/x.ipxe?a=b || goto wait\n"), "{script}");
        assert!(script.contains("iseq ${tries} 6 && goto lost ||"), "{script}");
        assert!(script.ends_with("reboot\n"));
    }
}
