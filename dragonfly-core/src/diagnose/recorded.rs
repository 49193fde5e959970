//! Timelines of faults that `cargo lab run --scenario why --keep DIR` injected into real machines, as it kept them:
//! each is told by its name, at the time when the lab was told.

use serde_json::Value;

use super::*;
use crate::boot::Seen;
use crate::timeline::What;

const KEPT: [(&str, &str); 15] = [
    ("blocked-http", include_str!("recorded/blocked-http.json")),
    ("blocked-tftp", include_str!("recorded/blocked-tftp.json")),
    ("broken-transfer", include_str!("recorded/broken-transfer.json")),
    ("dead-agent", include_str!("recorded/dead-agent.json")),
    ("foreign-offer", include_str!("recorded/foreign-offer.json")),
    ("missing-driver", include_str!("recorded/missing-driver.json")),
    ("mtu-kernel", include_str!("recorded/mtu-kernel.json")),
    ("mtu-script", include_str!("recorded/mtu-script.json")),
    ("no-link", include_str!("recorded/no-link.json")),
    ("rogue-dhcp", include_str!("recorded/rogue-dhcp.json")),
    ("server-unreachable", include_str!("recorded/server-unreachable.json")),
    ("stale-token", include_str!("recorded/stale-token.json")),
    ("unsigned-image", include_str!("recorded/unsigned-image.json")),
    ("wrong-architecture", include_str!("recorded/wrong-architecture.json")),
    ("wrong-clock", include_str!("recorded/wrong-clock.json")),
];

fn entry(item: &Value) -> Arc<Entry> {
    let text = |field: &str| item[field].as_str().unwrap().to_owned();
    let facts: Option<Seen> = item.get("facts").map(|facts| serde_json::from_value(facts.clone()).unwrap());
    let what = match (facts, text("type").as_str()) {
        (Some(seen), _) => What::Seen(seen),
        (None, "agent.log") => What::Logged(text("message")),
        (None, kind) => What::Told { kind: kind.to_owned().into(), message: text("message") },
    };
    Arc::new(Entry {
        id: item["id"].as_u64().unwrap(),
        time: serde_json::from_value(item["time"].clone()).unwrap(),
        mac: item["mac"].as_str().map(|mac| mac.parse().unwrap()),
        times: item["times"].as_u64().unwrap().try_into().unwrap(),
        what,
    })
}

#[test]
fn what_the_lab_recorded_is_told_by_its_name() {
    for (name, text) in KEPT {
        let kept: Value = serde_json::from_str(text).unwrap();
        let (why, at) = (&kept["why"], serde_json::from_value(kept["at"].clone()).unwrap());
        let entries: Vec<_> = kept["timeline"]["items"].as_array().unwrap().iter().map(entry).collect();
        let patient = Patient {
            phase: serde_json::from_value(why["phase"].clone()).unwrap(),
            phase_since: serde_json::from_value(why["phaseSince"].clone()).unwrap(),
            agent_heard: serde_json::from_value(why["agentHeard"].clone()).unwrap(),
            wants_agent: ["discover", "image"].iter().any(|fate| why["decision"].get(fate).is_some()),
            ..Patient::default()
        };
        let causes = diagnose(&entries, &patient, at);
        let named: Vec<_> = causes.iter().map(|cause| cause.fault.code()).collect();
        assert_eq!(named, [kept["fault"].as_str().unwrap()], "{name}: {causes:#?}");
        // Half a minute before, when there was less to see, it was not taken for anything else.
        for end in 1..entries.len() {
            let then = entries[end - 1].time;
            let early: Vec<_> = diagnose(&entries[..end], &patient, then).iter().map(|c| c.fault.code()).collect();
            assert!(early.iter().all(|fault| *fault == kept["fault"]), "{name} after {end} entries: {early:?}");
        }
    }
}
