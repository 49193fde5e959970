//! The kernel's command line, as far as the agent reads it. It never carries a secret.

use dragonfly_core::Mac;

/// What the command line says to the agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cmdline {
    /// `dragonfly.mac=`: the card that the machine booted from.
    pub mac: Option<Mac>,
    /// `dragonfly.shell`: offer the rescue shell from the start.
    pub shell: bool,
}

impl Cmdline {
    /// Reads the text of `/proc/cmdline`. What it does not know is the kernel's business.
    pub fn parse(text: &str) -> Self {
        let mut cmdline = Self::default();
        for word in text.split_ascii_whitespace() {
            match word.split_once('=') {
                Some(("dragonfly.mac", mac)) => cmdline.mac = mac.parse().ok(),
                // PXELINUX's spelling: hardware type, then the address, all joined by dashes.
                Some(("BOOTIF", boot)) if cmdline.mac.is_none() => {
                    cmdline.mac = boot.strip_prefix("01-").and_then(|mac| mac.parse().ok());
                }
                None if word == "dragonfly.shell" => cmdline.shell = true,
                _ => {}
            }
        }
        cmdline
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_concerns_it() {
        let mac = "52:54:00:ab:cd:01".parse().ok();
        let table = [
            ("quiet console=ttyS0", Cmdline::default()),
            ("dragonfly.mac=52:54:00:ab:cd:01 quiet", Cmdline { mac, shell: false }),
            ("BOOTIF=01-52-54-00-ab-cd-01", Cmdline { mac, shell: false }),
            ("dragonfly.mac=52:54:00:ab:cd:01 BOOTIF=01-52-54-00-ab-cd-02", Cmdline { mac, shell: false }),
            ("dragonfly.mac=nonsense dragonfly.shell", Cmdline { mac: None, shell: true }),
        ];
        for (text, want) in table {
            assert_eq!(Cmdline::parse(text), want, "{text}");
        }
    }
}
