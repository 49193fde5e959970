//! Boot scripts: what iPXE is told for each fate.
//!
//! Every script ends somewhere safe by itself: at the machine's own disk, or at a reset that asks
//! again. None carries a secret. Whatever a stranger may have written (a serial number in a reason)
//! is reduced to letters that mean nothing to iPXE.

use std::fmt::Write as _;

use dragonfly_core::Mac;
use dragonfly_core::boot::{Decision, Fate};
use url::Url;

use crate::Base;

/// How often a failing script tries again before it gives up.
const TRIES: u32 = 5;
/// Seconds between tries.
const PAUSE: u32 = 5;
/// The kernel's console when none was set: screen, and the port that most machines redirect.
const CONSOLE: &str = "console=tty0 console=ttyS0,115200";

/// The script for one machine. It branches by itself between BIOS and UEFI, x86-64 and arm64. With
/// `firmware` the machine also asks for its network card's.
pub fn render(decision: &Decision, mac: Mac, base: &Base, firmware: bool) -> String {
    let mut out = String::from("#!ipxe\n");
    let _ = writeln!(out, "echo Dragonfly: {}: {}", decision.fate.word(), plain(&decision.reason));
    match &decision.fate {
        Fate::Discover => agent(&mut out, decision, mac, base, firmware, Otherwise::Disk),
        Fate::Image { .. } => agent(&mut out, decision, mac, base, firmware, Otherwise::Reset),
        Fate::Chain { url } => chain(&mut out, url, base),
        // Local, Hold, and whatever a later version adds: nothing that destroys.
        _ => disk(&mut out, base),
    }
    out
}

/// Where a script ends that cannot do what it should.
#[derive(Clone, Copy)]
enum Otherwise {
    /// The machine's own disk.
    Disk,
    /// A reset, to ask again: a machine that is to be imaged has nothing on its disk that should run.
    Reset,
}

fn agent(out: &mut String, decision: &Decision, mac: Mac, base: &Base, firmware: bool, otherwise: Otherwise) {
    let console = decision.console.as_deref().and_then(console).unwrap_or_else(|| CONSOLE.to_owned());
    let (files, identity) = (base.file(""), base.identity(mac));
    let files = files.trim_end_matches('/');
    // The card is named as the archives are: bus type, vendor and device in hex digits. Most cards need
    // none and get a 404. An archive that is not there must not be named to the kernel.
    let (load, name) = if firmware {
        let load = "set blobs\n\
             initrd --name firmware ${files}/firmware/${netX/busid:hexraw}.img && set blobs initrd=firmware ||\n";
        (load, "${blobs} ")
    } else {
        ("", "")
    };
    attempt(out, |out| {
        let _ = write!(
            out,
            "set files {files}\n\
             iseq ${{buildarch}} arm64 && set files {files}/arm64 ||\n\
             {load}kernel ${{files}}/vmlinuz initrd=initramfs {name}initrd=identity dragonfly.mac={mac} quiet {console} || goto failed\n\
             initrd --name initramfs ${{files}}/initramfs || goto failed\n\
             initrd --name identity {identity} || goto failed\n\
             boot || goto failed\n"
        );
    });
    match otherwise {
        Otherwise::Disk => {
            out.push_str("echo Dragonfly: giving up, booting from disk\n");
            disk(out, base);
        }
        Otherwise::Reset => {
            let _ = write!(out, "echo Dragonfly: giving up, resetting in {PAUSE} s\nsleep {PAUSE}\nreboot\n");
        }
    }
}

fn chain(out: &mut String, url: &Url, base: &Base) {
    let url = operand(url);
    attempt(out, |out| {
        let _ = writeln!(out, "chain --replace --autofree {url} || goto failed");
    });
    out.push_str("echo Dragonfly: giving up, booting from disk\n");
    disk(out, base);
}

/// What `body` does, and again when it goes to `failed`, up to [`TRIES`] times.
fn attempt(out: &mut String, body: impl FnOnce(&mut String)) {
    // Naming the configurator is worth 16 s: without it iPXE also waits for an IPv6 router.
    out.push_str("set try:int32 0\n:again\nimgfree\nisset ${ip} || ifconf -c dhcp || goto failed\n");
    body(out);
    let _ = write!(
        out,
        ":failed\n\
         inc try\n\
         iseq ${{try}} {TRIES} && goto give_up ||\n\
         echo Dragonfly: try ${{try}} of {TRIES} failed, again in {PAUSE} s\n\
         sleep {PAUSE}\n\
         goto again\n\
         :give_up\n\
         imgfree\n"
    );
}

/// The machine's own disk. On UEFI `exit` would try PXE over IPv6 and HTTP first, some 40 s, so a
/// loader that finds the disk is chained; leaving with an error still gets there in the end.
fn disk(out: &mut String, base: &Base) {
    let local = base.file(crate::files::LOCAL_LOADER);
    let arm64 = base.file(&format!("arm64/{}", crate::files::LOCAL_LOADER));
    let _ = write!(
        out,
        "iseq ${{platform}} efi && goto disk_efi ||\n\
         sanboot --no-describe --drive 0x80 ||\n\
         echo Dragonfly: no bootable disk, leaving to the next boot device\n\
         sleep {PAUSE}\n\
         exit 1\n\
         :disk_efi\n\
         set local {local}\n\
         iseq ${{buildarch}} arm64 && set local {arm64} ||\n\
         isset ${{ip}} || ifconf -c dhcp ||\n\
         chain --autofree ${{local}} ||\n\
         echo Dragonfly: no loader for the disk, leaving to the next boot option\n\
         sleep {PAUSE}\n\
         exit 1\n"
    );
}

/// Text for `echo`: words of harmless letters, 200 of them at most. Everything else becomes `_`.
fn plain(text: &str) -> String {
    let keep = |c: char| if harmless(c) { c } else { '_' };
    let words: Vec<String> = text.split_whitespace().map(|word| word.chars().map(keep).collect()).collect();
    words.join(" ").chars().take(200).collect()
}

fn harmless(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '/' | '-')
}

/// Kernel consoles, as `ttyS1,115200n8` or `console=ttyS1,115200n8`, several with spaces between;
/// `None` when something else stands there.
fn console(text: &str) -> Option<String> {
    let one = |word: &str| {
        let device = word.strip_prefix("console=").unwrap_or(word);
        let fits = !device.is_empty() && device.len() <= 64 && device.chars().all(|c| harmless(c) || c == ',');
        fits.then(|| format!("console={device}"))
    };
    let words = text.split_whitespace().map(one).collect::<Option<Vec<_>>>()?;
    (1..=8).contains(&words.len()).then(|| words.join(" "))
}

/// A URL as one word to iPXE: whitespace is escaped already, `$` would begin a setting.
fn operand(url: &Url) -> String {
    url.as_str()
        .chars()
        .map(|c| match c {
            '$' => "%24".to_owned(),
            '{' => "%7B".to_owned(),
            '}' => "%7D".to_owned(),
            c => c.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn base() -> Base {
        Base::at("192.168.77.1:3000".parse().unwrap())
    }

    const MAC: Mac = Mac::new([0x52, 0x54, 0, 0xab, 0xcd, 1]);

    fn decision(fate: Fate) -> Decision {
        Decision { fate, reason: "because".into(), machine: None, address: None, hostname: None, console: None }
    }

    fn fates() -> [Fate; 5] {
        let url = "http://example.org/x?a=1&b=${evil} || shell".parse().unwrap();
        [Fate::Discover, Fate::Image { workflow: "w".into() }, Fate::Local, Fate::Hold, Fate::Chain { url }]
    }

    #[test]
    fn discover_boots_the_agent() {
        let script = render(&decision(Fate::Discover), MAC, &base(), false);
        let want = "\
#!ipxe
echo Dragonfly: discover: because
set try:int32 0
:again
imgfree
isset ${ip} || ifconf -c dhcp || goto failed
set files http://192.168.77.1:3000/boot/files
iseq ${buildarch} arm64 && set files http://192.168.77.1:3000/boot/files/arm64 ||
kernel ${files}/vmlinuz initrd=initramfs initrd=identity dragonfly.mac=52:54:00:ab:cd:01 quiet console=tty0 console=ttyS0,115200 || goto failed
initrd --name initramfs ${files}/initramfs || goto failed
initrd --name identity http://192.168.77.1:3000/boot/52:54:00:ab:cd:01/identity || goto failed
boot || goto failed
:failed
inc try
iseq ${try} 5 && goto give_up ||
echo Dragonfly: try ${try} of 5 failed, again in 5 s
sleep 5
goto again
:give_up
imgfree
echo Dragonfly: giving up, booting from disk
iseq ${platform} efi && goto disk_efi ||
sanboot --no-describe --drive 0x80 ||
echo Dragonfly: no bootable disk, leaving to the next boot device
sleep 5
exit 1
:disk_efi
set local http://192.168.77.1:3000/boot/files/local.efi
iseq ${buildarch} arm64 && set local http://192.168.77.1:3000/boot/files/arm64/local.efi ||
isset ${ip} || ifconf -c dhcp ||
chain --autofree ${local} ||
echo Dragonfly: no loader for the disk, leaving to the next boot option
sleep 5
exit 1
";
        assert_eq!(script, want);
    }

    #[test]
    fn firmware_is_asked_for_by_card_and_may_be_absent() {
        let plain = render(&decision(Fate::Discover), MAC, &base(), false);
        let with = render(&decision(Fate::Discover), MAC, &base(), true);
        let more: Vec<_> = with.lines().filter(|line| !plain.lines().any(|other| other == *line)).collect();
        assert_eq!(
            more,
            [
                "set blobs",
                "initrd --name firmware ${files}/firmware/${netX/busid:hexraw}.img && set blobs initrd=firmware ||",
                "kernel ${files}/vmlinuz initrd=initramfs ${blobs} initrd=identity dragonfly.mac=52:54:00:ab:cd:01 \
                 quiet console=tty0 console=ttyS0,115200 || goto failed",
            ]
        );
    }

    #[test]
    fn an_image_that_fails_asks_again_and_never_boots_what_is_on_the_disk() {
        let script = render(&decision(Fate::Image { workflow: "w".into() }), MAC, &base(), true);
        assert!(script.ends_with("reboot\n") && !script.contains("sanboot"), "{script}");
    }

    #[test]
    fn what_is_ready_or_held_meets_no_kernel() {
        for fate in [Fate::Local, Fate::Hold] {
            let script = render(&decision(fate), MAC, &base(), true);
            assert!(script.contains("sanboot") && !script.contains("kernel "), "{script}");
        }
    }

    #[test]
    fn the_console_is_the_machines_own_if_it_is_one() {
        let with = |console: &str| {
            let decision = Decision { console: Some(console.into()), ..decision(Fate::Discover) };
            render(&decision, MAC, &base(), true)
        };
        assert!(with("ttyS1,115200n8").contains(" quiet console=ttyS1,115200n8 || "));
        assert!(with("console=tty0 ttyAMA0").contains(" quiet console=tty0 console=ttyAMA0 || "));
        for bad in ["", "a\n#!ipxe", "x || shell", "${evil}", "console="] {
            assert!(with(bad).contains(&format!(" quiet {CONSOLE} || ")), "{bad:?}");
        }
    }

    /// Every label that is gone to exists once.
    #[test]
    fn labels_hold() {
        for fate in fates() {
            let script = render(&decision(fate), MAC, &base(), true);
            let words: Vec<_> = script.split_whitespace().collect();
            for target in words.windows(2).filter(|w| w[0] == "goto").map(|w| w[1]) {
                let label = format!(":{target}");
                assert_eq!(script.lines().filter(|line| **line == label).count(), 1, "{target} in {script}");
            }
        }
    }

    proptest! {
        /// `$(reboot)` and a newline followed by `#!ipxe` are among what strangers write.
        #[test]
        fn a_reason_is_only_words(reason in "(.|\n|\\$\\(reboot\\)|#!ipxe|\\|\\||&&|\\$\\{)*") {
            for fate in fates() {
                let lines = render(&decision(fate.clone()), MAC, &base(), true).lines().count();
                let script = render(&Decision { reason: reason.clone(), ..decision(fate.clone()) }, MAC, &base(), true);
                prop_assert_eq!(script.lines().count(), lines);
                let echo = script.lines().nth(1).unwrap_or_default();
                prop_assert!(echo.strip_prefix("echo Dragonfly: ").is_some());
                prop_assert!(echo.chars().all(|c| harmless(c) || c == ' '), "{}", echo);
            }
        }
    }
}
