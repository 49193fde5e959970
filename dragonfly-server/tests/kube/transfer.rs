//! `dragonfly export` from one server, `dragonfly import` into another.

use serde_json::Value;

use crate::site::{NETWORK, SECRET, Site, TEMPLATE, machine};

/// A machine that was seen and installed, and one that is being installed, as a server writes them out.
const SEEN: &str = "---
apiVersion: dragonfly.computer/v1
kind: Hardware
metadata: { name: seen, labels: { rack: a7 }, annotations: { note: 'a: #b' }, finalizers: [a/b] }
spec: { macs: ['52:54:00:ab:cd:17'], displayName: Seen }
status:
  phase: Ready
  phaseSince: 2026-01-02T03:04:05Z
  message: 'one line, and

    another'
  installed: small
  workflow: seen-1
  inventory: { system: { serial: \"$(reboot)\\n\" }, memory: { total: 17179869184 } }
---
apiVersion: dragonfly.computer/v1
kind: Hardware
metadata: { name: busy }
spec: { macs: ['52:54:00:ab:cd:18'] }
status: { phase: Provisioning, workflow: busy-1, authorisationGeneration: 3 }
---
apiVersion: dragonfly.computer/v1
kind: Workflow
metadata: { name: busy-1 }
spec: { hardware: busy, template: small, content: { actions: [{ name: r, action: reboot }] } }
status: { state: Running, attempt: 1, authorisationGeneration: 3 }
---
apiVersion: dragonfly.computer/v1
kind: Workflow
metadata: { name: seen-1 }
spec: { hardware: seen, template: small, content: { actions: [{ name: r, action: reboot }] } }
status: { state: Succeeded, attempt: 2, authorisationGeneration: 2 }
";

fn object(site: &Site, kind: &str, name: &str) -> Value {
    serde_json::from_str(&site.done(&["get", kind, name, "-o", "json"], "")).unwrap()
}

#[test]
fn everything_moves_to_another_server_and_what_was_at_work_is_held() {
    let (first, second, third) = (Site::start(), Site::start(), Site::start());
    let all = [TEMPLATE, NETWORK, SECRET, &machine("db-1", 1, "a1"), &machine("db-2", 2, "a2")].join("---\n");
    first.done(&["apply", "-f", "-"], &all);

    // What a broken file says, and that nothing of it is written.
    let broken = first.write("broken.yaml", &SEEN.replace("rack: a7", "rack: a7 }, lables: { a: b"));
    let refused = first.dragonfly(&["import", &broken], "");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("nothing was written"), "{said}");
    assert!(said.contains("hardware/seen: metadata.lables") && said.contains("did you mean `labels`?"), "{said}");
    assert!(!first.dragonfly(&["get", "hardware", "busy"], "").status.success());

    let seen = first.write("seen.yaml", SEEN);
    assert!(first.done(&["import", &seen, "--dry-run"], "").contains("hardware/seen created (dry run)"));
    let imported = first.dragonfly(&["import", &seen], "");
    let said = String::from_utf8_lossy(&imported.stderr).into_owned();
    assert!(imported.status.success() && said.contains("dragonfly release busy"), "{said}");
    // The same again changes nothing; another object of a name that is taken is refused.
    assert!(first.done(&["import", &seen], "").contains("hardware/seen unchanged"));
    let other = first.write("other.yaml", &SEEN.replace("rack: a7", "rack: a8"));
    let refused = first.dragonfly(&["import", &other], "");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Hardware `seen` already exists"));

    let file = first.dir.path().join("export.yaml");
    let exported = first.dragonfly(&["export", "-o", file.to_str().unwrap()], "");
    let said = String::from_utf8_lossy(&exported.stderr).into_owned();
    assert!(exported.status.success() && said.contains("secret/bmc is left out"), "{said}");
    let before = std::fs::read_to_string(&file).unwrap();
    assert!(!before.contains("hunter2") && before.contains("name: busy-1"), "{before}");
    assert!(!first.dragonfly(&["export", "-o", file.to_str().unwrap()], "").status.success(), "never overwritten");

    second.done(&["import", file.to_str().unwrap()], "");
    assert_eq!(second.done(&["export"], ""), before);
    let middle = second.write("export.yaml", &second.done(&["export"], ""));
    third.done(&["import", &middle], "");
    assert_eq!(third.done(&["export"], ""), before);

    for site in [&first, &second] {
        let (busy, run) = (object(site, "hardware", "busy"), object(site, "workflow", "busy-1"));
        assert_eq!((&busy["status"]["phase"], &run["status"]["state"]), (&"Held".into(), &"Held".into()));
        assert!(busy["status"].get("authorisation").is_none());
        // Beyond every authorisation that the other server gave.
        assert!(busy["status"]["authorisationGeneration"].as_u64().unwrap() > 1_700_000_000);
        let seen = object(site, "hardware", "seen");
        assert_eq!((&seen["status"]["phase"], &seen["status"]["installed"]), (&"Ready".into(), &"small".into()));
        assert_eq!(object(site, "workflow", "seen-1")["status"]["state"], "Succeeded");
    }
    assert_eq!(second.done(&["export", "--kind", "tpl"], "").matches("kind: ").count(), 1);
}
