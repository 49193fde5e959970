//! From what was learned about one machine to its stages. Pure.

use serde::Serialize;

use super::serial::Mark;

/// One stage of a machine's way, in milliseconds from when it was switched on. A stage that this
/// way does not have begins and ends with its predecessor's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    pub(crate) start_ms: u64,
    pub(crate) end_ms: u64,
}

/// One thing that was learned about one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) ms: u64,
    pub(crate) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// An event of the server; for steps, with the action.
    Event { kind: String, action: Option<String> },
    /// Something on its serial line.
    Serial(Mark),
    /// Its installed system spoke.
    Echo,
}

/// Which part of a template an action belongs to.
fn part(action: &str) -> &'static str {
    match action {
        "partition" | "format" => "partition",
        "image2disk" => "image",
        "reboot" | "kexec" | "chain" => "handover",
        _ => "configure",
    }
}

/// The stages as far as the machine came.
pub(crate) fn stages(moments: &[Moment]) -> Vec<Stage> {
    let event =
        |name: &str| moments.iter().find(|m| matches!(&m.what, What::Event { kind, .. } if kind == name)).map(|m| m.ms);
    let last_before = |name: &str, end: u64| {
        moments
            .iter()
            .filter(|m| m.ms <= end && matches!(&m.what, What::Event { kind, .. } if kind == name))
            .map(|m| m.ms)
            .next_back()
    };
    let step_end = |of: &str| {
        moments
            .iter()
            .filter(|m| {
                matches!(&m.what, What::Event { kind, action: Some(action) }
                    if (kind == "step.succeeded" || kind == "step.skipped") && part(action) == of)
            })
            .map(|m| m.ms)
            .next_back()
    };
    let serial = |mark| moments.iter().find(|m| m.what == What::Serial(mark)).map(|m| m.ms);
    let hello = event("machine.hello").or(event("machine.registered"));
    // What the boot loader fetched first: its script, or the unified image with the identity in it.
    let script = event("boot.script");
    let fetched = script.or(event("boot.identity"));
    let mage = serial(Mark::Mage).filter(|ms| hello.is_none_or(|hello| *ms <= hello));
    let echo = moments.iter().find(|m| m.what == What::Echo).map(|m| m.ms);
    let ends: [(&'static str, Option<u64>); 12] = [
        ("firmware", event("dhcp.discover").or(fetched)),
        ("dhcp", fetched.and_then(|end| last_before("dhcp.ack", end)).or(fetched)),
        ("ipxe", fetched),
        ("kernel", mage.or(hello)),
        ("mage", hello),
        ("register", event("machine.registered").or(hello)),
        ("assign", event("workflow.began")),
        ("partition", step_end("partition")),
        ("image", step_end("image")),
        ("configure", step_end("configure")),
        ("handover", event("machine.ready")),
        ("os_up", echo),
    ];
    let came = ends.iter().rposition(|(_, end)| end.is_some()).map_or(0, |last| last + 1);
    let mut from = 0;
    ends[..came]
        .iter()
        .map(|(name, end)| {
            let start_ms = from;
            from = end.unwrap_or(from).max(from);
            Stage { name, start_ms, end_ms: from }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(ms: u64, kind: &str, action: Option<&str>) -> Moment {
        Moment { ms, what: What::Event { kind: kind.into(), action: action.map(str::to_owned) } }
    }

    fn whole() -> Vec<Moment> {
        vec![
            event(2300, "dhcp.discover", None),
            event(2400, "dhcp.ack", None),
            event(2500, "boot.script", None),
            Moment { ms: 5000, what: What::Serial(Mark::Mage) },
            event(6000, "dhcp.ack", None),
            event(7000, "machine.hello", None),
            event(7001, "machine.registered", None),
            event(7300, "workflow.assigned", None),
            event(7500, "workflow.began", None),
            event(7600, "step.began", Some("image2disk")),
            event(17_000, "step.succeeded", Some("image2disk")),
            event(18_000, "step.succeeded", Some("writefile")),
            event(19_000, "step.succeeded", Some("grow")),
            event(19_500, "step.succeeded", Some("reboot")),
            event(19_600, "machine.ready", None),
            Moment { ms: 30_000, what: What::Echo },
        ]
    }

    #[test]
    fn a_whole_way_has_every_stage_end_to_end() {
        let stages = stages(&whole());
        let names: Vec<_> = stages.iter().map(|s| s.name).collect();
        assert_eq!(
            names,
            [
                "firmware",
                "dhcp",
                "ipxe",
                "kernel",
                "mage",
                "register",
                "assign",
                "partition",
                "image",
                "configure",
                "handover",
                "os_up"
            ]
        );
        for pair in stages.windows(2) {
            assert_eq!(pair[0].end_ms, pair[1].start_ms, "{pair:?}");
        }
        let of = |name| stages.iter().find(|s| s.name == name).map(|s| (s.start_ms, s.end_ms)).unwrap();
        assert_eq!(of("firmware"), (0, 2300));
        assert_eq!(of("dhcp"), (2300, 2400), "the agent's own lease later does not count");
        assert_eq!(of("kernel"), (2500, 5000));
        assert_eq!(of("partition"), (7500, 7500), "this template has no partition step");
        assert_eq!(of("image"), (7500, 17_000));
        assert_eq!(of("os_up"), (19_600, 30_000));
    }

    #[test]
    fn a_machine_that_stops_on_the_way_has_only_the_stages_it_reached() {
        let stages = stages(&whole()[..7]);
        assert_eq!(stages.last().map(|s| s.name), Some("register"));
        assert!(super::stages(&[]).is_empty());
    }
}
