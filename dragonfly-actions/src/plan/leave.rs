//! `kexec`, `chain`, `reboot`, `poweroff`: how the agent leaves.

use dragonfly_core::text::shown_url;
use serde::Deserialize;
use url::Url;

use super::given::Word;
use super::{Check, Given, Target};

/// The longest kernel command line we hand over: the kernel's own limit on x86-64 (COMMAND_LINE_SIZE).
pub(crate) const LONGEST_COMMAND_LINE: usize = 2047;

/// Parameters of `kexec`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KexecParams {
    /// The partition with the kernel, or with the boot loader's configuration.
    pub target: Target,
    /// The kernel's path; left out, what the boot loader's default entry says.
    #[serde(default)]
    pub kernel: Option<String>,
    /// The initial RAM disk's path.
    #[serde(default)]
    pub initrd: Option<String>,
    /// The kernel's command line; left out, the entry's.
    #[serde(default)]
    pub cmdline: Option<String>,
    /// Added to the command line.
    #[serde(default)]
    pub append: Option<String>,
    /// The boot loader's entry of this title or id instead of its default.
    #[serde(default)]
    pub entry: Option<String>,
}

/// Parameters of `chain`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChainParams {
    /// The iPXE script to go on with.
    pub url: Given<ScriptUrl>,
}

/// Where an iPXE script is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptUrl(pub Url);

impl Word for ScriptUrl {
    const WHAT: &'static str = "an URL such as http://server/script.ipxe";

    fn from_text(text: &str) -> Result<Self, String> {
        let url = Url::parse(text)
            .map_err(|error| format!("`{}` is not an URL ({error}); write {}", shown_url(text), Self::WHAT))?;
        if !matches!(url.scheme(), "http" | "https" | "tftp") {
            return Err(format!(
                "`{}`: `{}:` is nothing that iPXE fetches; write http://..., https://... or tftp://...",
                shown_url(text),
                url.scheme()
            ));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("a password does not belong in an URL".to_owned());
        }
        // It becomes a line of an iPXE script.
        let fits = |c: char| c.is_ascii_alphanumeric() || "._:/-[]?=&%~+,@".contains(c);
        match url.as_str().chars().find(|c| !fits(*c)) {
            Some(other) => Err(format!("holds `{other}`, which does not belong in an iPXE script; write it as %XX")),
            None => Ok(Self(url)),
        }
    }
}

/// Parameters of `reboot` and `poweroff`: none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct LeaveParams {}

impl KexecParams {
    pub(crate) fn check(&self, check: &mut Check) {
        self.target.check("target", check);
        for (path, text) in [("kernel", &self.kernel), ("initrd", &self.initrd)] {
            if let Some(text) = text {
                check.inside(path, text);
            }
        }
        for (path, text) in [("cmdline", &self.cmdline), ("append", &self.append)] {
            if let Some(text) = text
                && let Some(text) = check.plain(path, text)
                && text.len() > LONGEST_COMMAND_LINE
            {
                check.say(path, format!("is longer than {LONGEST_COMMAND_LINE} bytes"));
            }
        }
        if let Some(entry) = &self.entry {
            check.plain("entry", entry);
        }
        match (&self.kernel, &self.initrd, &self.entry) {
            (None, Some(_), _) => {
                check.say("initrd", "stands without `kernel`; write both, or neither to take the boot loader's")
            }
            (Some(_), _, Some(_)) => check.say("entry", "stands beside `kernel`; keep one of them"),
            _ => {}
        }
        if self.kernel.is_some() && self.cmdline.is_none() {
            check.say("cmdline", "is missing; a kernel given by path needs one, `root=LABEL=root ro` for one");
        }
    }
}

impl ChainParams {
    pub(crate) fn check(&self, check: &mut Check) {
        check.given("url", &self.url);
    }
}
