//! Each fault is told by its name, from what it leaves behind; a boot that goes well is told nothing.

use super::*;
use crate::Mac;
use crate::boot::{Arch, Asker, DhcpAsk, Ended, Firmware, Refusal, Seen, silence};
use crate::inventory::PciDevice;
use crate::resource::workflow::AttemptFailure;
use crate::timeline::What;
use crate::wire::{Failure, FailureKind};
use crate::workflow::RunState;

const NAME: &str = "snponly.efi";
const KERNEL: &str = "vmlinuz";
const START: i64 = 1_800_000_000;

/// A timeline being written, a second an entry.
#[derive(Default)]
struct Story(Vec<Arc<Entry>>);

impl Story {
    fn then(mut self, what: What) -> Self {
        let n = self.0.len() as i64;
        let time = Timestamp::from_unix_seconds(START + n);
        let mac = Some(Mac::new([2, 0, 0, 0, 0, 1]));
        self.0.push(Arc::new(Entry { id: n as u64 + 1, time, mac, times: 1, what }));
        self
    }

    fn saw(self, seen: Seen) -> Self {
        self.then(What::Seen(seen))
    }

    fn told(self, kind: &'static str) -> Self {
        self.then(What::Told { kind: kind.into(), message: kind.into() })
    }

    fn logged(self, line: &str) -> Self {
        self.then(What::Logged(line.into()))
    }

    fn asks(self, asker: Asker, firmware: Firmware, message: DhcpAsk) -> Self {
        let system = asker == Asker::System;
        let (firmware, arch) = if system { (None, None) } else { (Some(firmware), Some(Arch::X86_64)) };
        self.saw(Seen::DhcpAsked { message, asker, firmware, arch, network: "lab".into() })
    }

    fn discovers(self, firmware: Firmware) -> Self {
        self.asks(Asker::Firmware, firmware, DhcpAsk::Discover)
    }

    fn unanswered(self, message: DhcpAsk, why: &str) -> Self {
        self.saw(Seen::DhcpSilence { message, why: why.into() })
    }

    fn identity_refused(self, path: &str) -> Self {
        self.saw(Seen::HttpRefused { path: path.into(), status: 404, why: "asked from 192.0.2.7".into() })
    }

    fn second_agent(self) -> Self {
        let message = "a second agent asked from 10.0.0.7 while another speaks for this machine".into();
        self.then(What::Told { kind: "identity.refused".into(), message })
    }

    fn offered(self, asker: Asker, file: Option<&str>) -> Self {
        let address = "10.0.0.9".parse().ok();
        self.saw(Seen::DhcpOffered { asker, address, file: file.map(Into::into) })
    }

    fn confirmed(self, asker: Asker, file: Option<&str>) -> Self {
        let address = "10.0.0.9".parse().ok();
        self.saw(Seen::DhcpConfirmed { asker, address, file: file.map(Into::into) })
    }

    /// DISCOVER, OFFER, REQUEST, ACK.
    fn address(self, asker: Asker, firmware: Firmware, file: Option<&str>) -> Self {
        let asked = self.asks(asker, firmware, DhcpAsk::Discover).offered(asker, file);
        asked.asks(asker, firmware, DhcpAsk::Request).confirmed(asker, file)
    }

    fn foreign(self, asker: Asker, expected: bool) -> Self {
        let (server, address) = ("10.0.0.66".parse().unwrap(), "10.0.0.77".parse().ok());
        self.saw(Seen::DhcpForeign { asker, server, address, expected })
    }

    fn tftp(self, file: &str, block: u16, passed: u64, ended: Ended) -> Self {
        let (file, why) = (file.to_owned(), "file not found".to_owned());
        self.saw(Seen::TftpEnded { file, bytes: 1_000_000, passed, block, milliseconds: 900, ended, why })
    }

    fn http(self, file: &str, passed: u64) -> Self {
        self.saw(Seen::FileEnded { file: file.into(), bytes: 30_000_000, passed, milliseconds: 900 })
    }

    /// Up to iPXE's start.
    fn loaded(self, firmware: Firmware) -> Self {
        self.address(Asker::Firmware, firmware, Some(NAME)).tftp(NAME, 1468, 1_000_000, Ended::Whole)
    }

    /// Up to the kernel's start.
    fn started(self) -> Self {
        let script = "http://10.0.0.1:3000/boot/02:00:00:00:00:01";
        let loaded = self.loaded(Firmware::Uefi).address(Asker::Ipxe, Firmware::Uefi, Some(script));
        let script = loaded.saw(Seen::Script { fate: "image".into(), reason: "assigned".into() });
        script.http(KERNEL, 30_000_000).saw(Seen::Identity { how: "archive".into() })
    }

    /// Up to the agent's hello.
    fn greeted(self) -> Self {
        self.started().address(Asker::System, Firmware::Uefi, None).told("machine.hello")
    }

    /// What is told, so many seconds after the last entry.
    fn causes(&self, patient: &Patient<'_>, later: i64) -> Vec<Cause> {
        let now = Timestamp::from_unix_seconds(START + self.0.len() as i64 - 1 + later);
        diagnose(&self.0, patient, now)
    }
}

fn patient() -> Patient<'static> {
    let phase_since = Some(Timestamp::from_unix_seconds(START - 10));
    Patient { phase: Some(Phase::Assigned), phase_since, wants_agent: true, ..Patient::default() }
}

fn failed(message: &str, cause: &str) -> WorkflowStatus {
    let failure = Failure { message: message.into(), causes: vec![cause.into()], kind: None };
    let failures = vec![AttemptFailure { attempt: 2, step: Some("image".into()), failure }];
    WorkflowStatus { state: RunState::Failed, failures, ..WorkflowStatus::default() }
}

#[test]
fn each_fault_of_a_boot_is_told_by_name() {
    use {Fault as F, Firmware as Fw};
    let new = Story::default;
    let unknown = || Seen::NoLoader { firmware: Some(Fw::Uefi), arch: None };
    let script = || Seen::Script { fate: "discover".into(), reason: "new".into() };
    let other = |file: Option<&str>| {
        let (server, address) = ("10.0.0.66".parse().unwrap(), "10.0.0.77".parse().ok());
        Seen::DhcpOther { server, address, file: file.map(Into::into), from: Some(server) }
    };
    let stale = || Seen::AgentRefused { refusal: Refusal::StaleToken, why: "older than ten minutes".into() };
    let url = "http://10.0.0.1:3000/boot/files/ipxe.efi";
    let table = [
        (F::RogueDhcp, new().discovers(Fw::Bios).foreign(Asker::Firmware, false)),
        (
            F::ForeignOffer,
            new().discovers(Fw::Bios).offered(Asker::Firmware, Some(NAME)).foreign(Asker::Firmware, false),
        ),
        (
            F::RogueDhcp,
            new()
                .discovers(Fw::Bios)
                .offered(Asker::Firmware, Some(NAME))
                .foreign(Asker::Firmware, false)
                .saw(other(Some("theirs.pxe"))),
        ),
        (
            F::ForeignOffer,
            new()
                .discovers(Fw::Bios)
                .offered(Asker::Firmware, Some(NAME))
                .foreign(Asker::Firmware, false)
                .saw(other(None)),
        ),
        (F::WrongArchitecture, new().discovers(Fw::Uefi).saw(unknown()).offered(Asker::Firmware, None)),
        (
            F::WrongArchitecture,
            new().address(Asker::Firmware, Fw::Uefi, Some("ipxe-arm64.efi")).tftp(
                "ipxe-arm64.efi",
                0,
                0,
                Ended::Refused,
            ),
        ),
        (F::MissingFile, new().address(Asker::Firmware, Fw::Uefi, Some(NAME)).tftp(NAME, 0, 0, Ended::Refused)),
        (F::BlockedTftp, new().address(Asker::Firmware, Fw::Bios, Some(NAME))),
        (F::BlockedTftp, new().discovers(Fw::Bios).offered(Asker::Firmware, Some(NAME)).foreign(Asker::Firmware, true)),
        (F::BlockedTftp, new().address(Asker::Firmware, Fw::Bios, Some(NAME)).tftp(NAME, 512, 0, Ended::Lost)),
        (F::Mtu, new().address(Asker::Firmware, Fw::Bios, Some(NAME)).tftp(NAME, 1468, 0, Ended::Lost)),
        (F::Mtu, new().address(Asker::Firmware, Fw::Bios, Some(NAME)).tftp(NAME, 1468, 14_680, Ended::Lost)),
        (F::Mtu, new().loaded(Fw::Bios).http(KERNEL, 65_536)),
        (F::BrokenTransfer, new().loaded(Fw::Bios).http(KERNEL, 1_835_008)),
        (
            F::BrokenTransfer,
            new().address(Asker::Firmware, Fw::Bios, Some(NAME)).tftp(NAME, 1468, 587_200, Ended::Lost),
        ),
        (F::BlockedHttp, new().loaded(Fw::Bios)),
        (F::BlockedHttp, new().loaded(Fw::Uefi).address(Asker::Ipxe, Fw::Uefi, Some(url))),
        (F::BlockedHttp, new().address(Asker::Firmware, Fw::UefiHttp, Some(url))),
        (F::UnsignedImage, new().loaded(Fw::Uefi)),
        (F::UnsignedImage, new().address(Asker::Firmware, Fw::UefiHttp, Some(url)).http("ipxe.efi", 30_000_000)),
        (F::Mtu, new().loaded(Fw::Bios).saw(script())),
        // An agent without a driver restarts after a minute; one without a link stays.
        (F::NoLink, new().started()),
        (F::MissingDriver, new().started().discovers(Fw::Uefi)),
        (F::ServerUnreachable, new().started().address(Asker::System, Fw::Uefi, None)),
        (F::ServerUnreachable, new().started().foreign(Asker::System, true)),
        (F::StaleToken, new().started().address(Asker::System, Fw::Uefi, None).saw(stale())),
        (F::PoolExhausted, new().discovers(Fw::Bios).unanswered(DhcpAsk::Discover, silence::POOL_EMPTY)),
        // iPXE and the agent ask with identifiers of their own.
        (
            F::PoolExhausted,
            new()
                .loaded(Fw::Bios)
                .asks(Asker::Ipxe, Fw::Bios, DhcpAsk::Discover)
                .unanswered(DhcpAsk::Discover, silence::POOL_EMPTY),
        ),
        (
            F::PoolExhausted,
            new()
                .started()
                .asks(Asker::System, Fw::Uefi, DhcpAsk::Discover)
                .unanswered(DhcpAsk::Discover, silence::POOL_EMPTY),
        ),
        (F::NoReservation, new().discovers(Fw::Uefi).unanswered(DhcpAsk::Discover, silence::NO_RESERVATION)),
        (F::OutsideNetworks, new().identity_refused(Seen::IDENTITY)),
        // What follows from it: nobody has a token without an identity.
        (
            F::OutsideNetworks,
            new().identity_refused(Seen::IDENTITY).identity_refused("02:00:00:00:00:01/identity").saw(stale()),
        ),
    ];
    for (number, (fault, story)) in table.into_iter().enumerate() {
        // An answer comes at once where the firmware is back, and after its time where nothing comes.
        let back = story.0.last().is_some_and(|last| last.kind() == "dhcp.discover");
        let causes = story.causes(&patient(), if back { 1 } else { 300 });
        let told: Vec<_> = causes.iter().map(|cause| cause.fault).collect();
        assert_eq!(told, [fault], "row {number}: {causes:#?}");
        assert!(!causes[0].evidence.is_empty() && !causes[0].next.is_empty() && !causes[0].says.is_empty());
    }
}

#[test]
fn an_address_or_identity_that_is_given_in_the_end_is_no_fault() {
    use {Asker as A, Firmware as Fw};
    let unanswered = |why: &str| Story::default().discovers(Fw::Bios).unanswered(DhcpAsk::Discover, why);
    let identity = || Seen::Identity { how: "archive".into() };
    let table = [
        unanswered(silence::POOL_EMPTY).offered(A::Firmware, Some(NAME)),
        unanswered(silence::POOL_EMPTY).foreign(A::Firmware, true),
        // Another server's, which is not for us to answer.
        unanswered("proxy: only network boot is answered"),
        Story::default()
            .asks(A::Firmware, Fw::Bios, DhcpAsk::Request)
            .unanswered(DhcpAsk::Request, silence::POOL_EMPTY),
        Story::default().identity_refused(Seen::IDENTITY).saw(identity()),
        // Its fate is not to boot the agent.
        Story::default().identity_refused("02:00:00:00:00:01/identity"),
    ];
    for (number, story) in table.into_iter().enumerate() {
        assert_eq!(story.causes(&patient(), 5), [], "row {number}");
    }
    // Another server may give it what we do not.
    assert_eq!(unanswered(silence::NO_RESERVATION).causes(&patient(), 1), []);
    let named = unanswered(silence::POOL_EMPTY).causes(&patient(), 0);
    assert!(named[0].says.contains("Network lab") && named[0].next.contains("spec.pool"), "{named:#?}");
}

#[test]
fn a_second_agent_is_told_while_both_speak() {
    let refused = |times: usize| (0..times).fold(Story::default().greeted(), |story, _| story.second_agent());
    // (story, when its own agent was heard last, in seconds after the last refusal, told)
    let table = [
        (refused(1), Some(1), false),
        (refused(2), Some(1), true),
        (refused(2), Some(0), false),
        // A machine that was restarted: its agent of before is heard no more.
        (refused(9), Some(-20), false),
        // Nobody restarts for so long.
        (refused(12), Some(-3), true),
        (refused(12), None, true),
        // The first was silent in the end, and the other is welcomed.
        (refused(4).told("machine.hello"), Some(1), false),
        (Story::default().greeted().told("identity.refused").told("identity.refused"), Some(1), false),
    ];
    for (number, (story, heard, told)) in table.into_iter().enumerate() {
        let last = START + story.0.len() as i64 - 1;
        let agent_heard = heard.map(|after| Timestamp::from_unix_seconds(last + after));
        let patient = Patient { phase: Some(Phase::Registered), agent_heard, ..patient() };
        let causes = story.causes(&patient, 5);
        let named: Vec<_> = causes.iter().map(|cause| cause.fault).collect();
        assert_eq!(named == [Fault::SecondAgent], told, "row {number}: {causes:#?}");
        assert!(!told || causes[0].says.contains("from 10.0.0.7 "), "{causes:#?}");
        assert_eq!(story.causes(&patient, 700), [], "row {number}, long after");
    }
}

#[test]
fn a_boot_that_was_given_up_is_told_at_once_when_the_firmware_comes_back() {
    let again = Story::default().loaded(Firmware::Uefi).discovers(Firmware::Uefi);
    assert_eq!(again.causes(&patient(), 1)[0].fault, Fault::UnsignedImage);
    let blocked = Story::default().address(Asker::Firmware, Firmware::Bios, Some(NAME)).discovers(Firmware::Bios);
    assert_eq!(blocked.causes(&patient(), 1)[0].fault, Fault::BlockedTftp);
    // What was overcome is not told any more.
    let story = Story::default().loaded(Firmware::Uefi).greeted().discovers(Firmware::Uefi);
    assert!(story.causes(&patient(), 1).is_empty());
}

#[test]
fn a_transfer_that_a_reset_ended_says_nothing_of_the_boot_after_it() {
    let new_boot = || Story::default().loaded(Firmware::Uefi).discovers(Firmware::Uefi);
    let cut = |story: Story, milliseconds| {
        story.saw(Seen::FileEnded { file: KERNEL.into(), bytes: 30_000_000, passed: 65_536, milliseconds })
    };
    let lost = |story: Story, milliseconds| {
        let (file, why, ended) = (NAME.to_owned(), String::new(), Ended::Lost);
        story.saw(Seen::TftpEnded { file, bytes: 1_000_000, passed: 1468, block: 1468, milliseconds, ended, why })
    };
    for end in [cut, lost] {
        let told = |milliseconds| {
            let causes = end(new_boot().offered(Asker::Firmware, Some(NAME)), milliseconds).causes(&patient(), 1);
            causes.first().map(|cause| cause.fault)
        };
        assert_eq!(told(2000), Some(Fault::Mtu), "begun in this boot");
        assert_ne!(told(3000), Some(Fault::Mtu), "begun in the boot before");
    }
}

#[test]
fn each_fault_of_a_run_is_told_by_name() {
    use Fault as F;
    let table = [
        (F::BadImage, "the image's digest is wrong", "sha256:00"),
        (F::BadImage, "there is no such image; check the template's `url`", "404"),
        (F::FullDisk, "sda is too small: the image has 3 GiB", ""),
        (F::FullDisk, "/etc/x cannot be written", "No space left on device (os error 28)"),
        (
            F::WrongClock,
            "the image cannot be fetched",
            "invalid peer certificate: certificate not valid yet: NotValidYet",
        ),
        (F::ServerUnreachable, "the image could not be fetched: 12 tries", "connection refused"),
        (F::DeadAgent, "the agent has not been heard for a long time", ""),
    ];
    for (fault, message, cause) in table {
        let run = failed(message, cause);
        let patient = Patient { phase: Some(Phase::Error), run: Some(&run), ..patient() };
        let causes = Story::default().greeted().told("workflow.failed").causes(&patient, 5);
        assert_eq!(causes.iter().map(|c| c.fault).collect::<Vec<_>>(), [fault], "{message}");
        assert!(causes[0].says.contains("attempt 2 in step `image`"), "{}", causes[0].says);
    }
    let other = failed("grub-install ended with 1", "see the log");
    let patient = Patient { phase: Some(Phase::Error), run: Some(&other), ..patient() };
    assert!(Story::default().greeted().causes(&patient, 5).is_empty(), "what has no name gets none");
}

#[test]
fn a_failure_is_named_by_its_kind_whatever_it_says() {
    use FailureKind as K;
    let table = [
        (K::ImageDigest, Some(Fault::BadImage)),
        (K::ImageMissing, Some(Fault::BadImage)),
        (K::ImageRefused, Some(Fault::BadImage)),
        (K::ImageUnfit, Some(Fault::BadImage)),
        (K::TooLarge, Some(Fault::FullDisk)),
        (K::NoSpace, Some(Fault::FullDisk)),
        (K::CertificateTime, Some(Fault::WrongClock)),
        (K::Unreachable, Some(Fault::ServerUnreachable)),
        (K::AgentSilent, Some(Fault::DeadAgent)),
        (K::Restarts, Some(Fault::RestartLoop)),
        (K::Other, None),
    ];
    for (kind, fault) in table {
        let failure = Failure::message("no digest was refused for want of space").of_kind(kind);
        assert_eq!(read_failure(&failure), fault, "{kind:?}");
    }
}

#[test]
fn a_token_that_is_refused_beside_a_live_agent_is_a_strangers() {
    let stale = Seen::AgentRefused { refusal: Refusal::UsedToken, why: "used".into() };
    let story = Story::default().greeted().saw(stale);
    let heard = |before: i64| {
        let at = Timestamp::from_unix_seconds(START + story.0.len() as i64 - 1 - before);
        Patient { agent_heard: Some(at), ..patient() }
    };
    assert!(story.causes(&heard(5), 1).is_empty());
    assert_eq!(story.causes(&heard(40), 1)[0].fault, Fault::StaleToken);
}

#[test]
fn an_agent_that_falls_silent_at_work_is_dead_until_its_machine_comes_back() {
    let story = Story::default().greeted().told("step.began");
    let heard = story.0.last().map(|entry| entry.time);
    let patient = Patient { phase: Some(Phase::Provisioning), agent_heard: heard, ..patient() };
    assert!(story.causes(&patient, 30).is_empty());
    let causes = story.causes(&patient, 95);
    assert_eq!(causes[0].fault, Fault::DeadAgent);
    assert!(causes[0].says.contains("95 s"), "{}", causes[0].says);
    let back = Story(story.0.clone()).discovers(Firmware::Uefi);
    assert!(back.causes(&patient, 2).is_empty());
}

#[test]
fn no_link_is_told_from_silence_from_the_log_and_from_what_was_seen_before() {
    let silence = Story::default();
    let since = Timestamp::from_unix_seconds(START - 1000);
    let causes =
        diagnose(&silence.0, &Patient { phase_since: Some(since), ..patient() }, Timestamp::from_unix_seconds(START));
    assert_eq!(causes[0].fault, Fault::NoLink);
    let logged = Story::default().greeted().logged("12.0 eth0 has no link after 90 s; look at its cable");
    assert_eq!(logged.causes(&patient(), 1)[0].fault, Fault::NoLink);
    let driver =
        Story::default().greeted().logged("the network card 02:00 that this machine booted from has no driver here");
    assert_eq!(driver.causes(&patient(), 1)[0].fault, Fault::MissingDriver);
    let device = |driver: Option<&str>| PciDevice {
        address: "0000:01:00.0".into(),
        id: "15b3:1017".into(),
        class: "020000".into(),
        driver: driver.map(Into::into),
    };
    let seen = Inventory { pci: vec![device(Some("e1000e")), device(None)], ..Inventory::default() };
    let causes = Story::default().started().causes(&Patient { inventory: Some(&seen), ..patient() }, 300);
    assert_eq!(causes[0].fault, Fault::MissingDriver, "it is known to have none");
    assert!(causes[0].evidence.iter().any(|e| e.words.contains("15b3:1017")), "{causes:#?}");
}

#[test]
fn a_clock_that_lies_by_days_is_told_beside_whatever_else_is_wrong() {
    let off = |offset_seconds| Story::default().greeted().saw(Seen::AgentClock { offset_seconds });
    assert_eq!(off(-1_000_000_000).causes(&patient(), 1)[0].fault, Fault::WrongClock);
    assert!(off(400).causes(&patient(), 1).is_empty());
    let run = failed("the image's digest is wrong", "");
    let patient = Patient { phase: Some(Phase::Error), run: Some(&run), ..patient() };
    let told: Vec<_> = off(90_000_000).causes(&patient, 1).iter().map(|c| c.fault).collect();
    assert_eq!(told, [Fault::BadImage, Fault::WrongClock]);
}

#[test]
fn a_boot_that_goes_on_is_told_nothing() {
    let mut story = Story::default().greeted().0;
    while !story.is_empty() {
        let so_far = Story(story.clone());
        assert!(so_far.causes(&patient(), 5).is_empty(), "after {:?}", story.last());
        story.pop();
    }
    // A machine that is to boot its own disk owes us no hello.
    let rests = Patient { phase: Some(Phase::Ready), wants_agent: false, ..patient() };
    assert!(Story::default().loaded(Firmware::Uefi).causes(&rests, 9999).is_empty());
}

#[test]
fn every_fault_has_a_name_of_its_own() {
    let names: std::collections::BTreeSet<_> = Fault::ALL.iter().map(|fault| fault.name()).collect();
    assert_eq!(names.len(), Fault::ALL.len());
}
