//! What a person may write, and what is said when it cannot be.

use dragonfly_core::resource::{Template, TemplateSpec};
use dragonfly_core::store::StoreExt as _;
use serde_json::{Value, json};

use super::*;

const MACHINE: &str = "
apiVersion: dragonfly.computer/v1
kind: Hardware
metadata: { name: db-8 }
spec: { macs: ['52:54:00:ab:cd:08'] }
";

fn note(content: &str) -> String {
    format!(
        "apiVersion: dragonfly.computer/v1\nkind: Template\nmetadata: {{ name: note }}\nspec:\n  actions:\n    - name: a\n      \
         action: writefile\n      with:\n        content: \"{content}\"\n"
    )
}

fn notes() -> AssignRequest {
    AssignRequest { template: "note".into(), ..AssignRequest::default() }
}

impl Site {
    async fn refuses(&self, manifest: &str) -> String {
        self.engine.apply(manifest, "op").await.unwrap_err().to_string()
    }

    async fn label(&self, kind: Kind, name: &str, key: &str, value: &str) -> Result<(), String> {
        let change = |object: &mut Value| {
            object["metadata"]["labels"][key] = json!(value);
            Ok(())
        };
        let write = dragonfly_core::engine::Write::by("op");
        self.engine.patch_object(kind, name, change, write).await.map(drop).map_err(|error| error.to_string())
    }
}

#[tokio::test]
async fn a_template_that_no_machine_can_fill_is_refused_with_its_line() {
    let site = Site::new().await;
    for (content, want) in [
        ("{{ values.", "line 9: spec.actions[0].with.content: `{{ }}` cannot be read"),
        ("{{ machine.name | uper }}", "line 9: spec.actions[0].with.content: `{{ }}`: there is no filter `uper`"),
        ("{{ lookup('x') }}", "line 9: spec.actions[0].with.content: `lookup` is known of no machine"),
    ] {
        let said = site.refuses(&note(content)).await;
        assert!(said.contains(want), "{said}");
    }
    let object = json!({
        "apiVersion": "dragonfly.computer/v1", "kind": "Template", "metadata": { "name": "note" },
        "spec": { "actions": [{ "name": "a", "action": "writefile", "with": { "content": "{{ machine.nmae }}" } }] },
    });
    let said = site.engine.create_object(object, "op").await.unwrap_err().to_string();
    assert!(said.starts_with("spec.actions[0].with.content: `machine.nmae`"), "{said}");
    site.engine.apply(&note("{{ values.later }} {{ inventory.system.vendor }}"), "op").await.unwrap();
}

#[tokio::test]
async fn what_was_taken_before_stays_changeable_and_is_not_assigned() {
    let site = Site::new().await;
    site.engine.apply(MACHINE, "op").await.unwrap();
    let spec = |content: &str| -> TemplateSpec {
        let actions = json!([{ "name": "a", "action": "writefile", "with": { "content": content } }]);
        serde_json::from_value(json!({ "actions": actions })).unwrap()
    };
    let mut old = Template::new("note", spec("{{ machine.name | uper }}"));
    old.metadata.labels.insert("rack".into(), "row 7".into());
    site.store.create(&old).await.unwrap();
    let site = site.restarted().await;

    site.label(Kind::TEMPLATE, "note", "room", "a").await.unwrap();
    let said = site.label(Kind::TEMPLATE, "note", "rack", "row 8").await.unwrap_err();
    assert!(said.contains("metadata.labels.rack: `row 8` cannot be a label's value"), "{said}");
    site.label(Kind::TEMPLATE, "note", "rack", "row-8").await.unwrap();

    // Nobody has seen the machine.
    let said = site.engine.assign("db-8", notes(), "me").await.unwrap_err().to_string();
    assert!(said.contains("actions[0].with.content: `{{ }}`: there is no filter `uper`"), "{said}");
    site.engine.apply(&note("{{ inventory.system.vendor }} {{ machine.serial }}"), "op").await.unwrap();
    site.engine.assign("db-8", notes(), "me").await.unwrap();
}

#[tokio::test]
async fn values_are_judged_before_the_machine_was_seen() {
    let site = Site::new().await;
    site.engine.apply(MACHINE, "op").await.unwrap();
    let template = note("{{ machine.serial }}").replace("with:\n", "with:\n        mode: '{{ values.mode }}'\n");
    site.engine.apply(&template, "op").await.unwrap();
    let with = |mode: &str| {
        let values = serde_json::from_value(json!({ "mode": mode })).unwrap();
        AssignRequest { values, ..notes() }
    };
    let said = site.engine.assign("db-8", with("rw"), "me").await.unwrap_err().to_string();
    assert_eq!(said, "actions[0].with.mode: \"rw\" is not a mode");
    site.engine.assign("db-8", with("0644"), "me").await.unwrap();
}

#[tokio::test]
async fn a_retry_says_that_its_run_keeps_the_template() {
    let site = Site::new().await;
    site.engine.apply(MACHINE, "op").await.unwrap();
    site.engine.apply(&note("{{ inventory.hypervisor }}"), "op").await.unwrap();
    let run = site.engine.assign("db-8", notes(), "me").await.unwrap();
    let agent = site.boot(8).await;
    assert!(matches!(agent.orders().await, Orders::Wait { .. }));
    let failed = site.run(run.name()).status.message.clone();
    assert!(failed.contains("dragonfly abort db-8 and assign it again"), "{failed}");
    assert!(failed.contains("`inventory.hypervisor` is not known of this machine"), "{failed}");

    let said = site.engine.retry("db-8", "me").await.unwrap().status.message;
    assert_eq!(said, "me asked for another attempt");
    assert!(matches!(agent.orders().await, Orders::Wait { .. }));
    site.engine.apply(&note("mended"), "op").await.unwrap();
    let said = site.engine.retry("db-8", "me").await.unwrap().status.message;
    assert!(said.contains("note has been changed since: for the new one, dragonfly abort db-8"), "{said}");
    assert!(matches!(agent.orders().await, Orders::Wait { .. }));
    site.engine.abort("db-8", "me").await.unwrap();
    site.engine.assign("db-8", notes(), "me").await.unwrap();
    assert_eq!(agent.work().await.steps[0].with["content"], "mended");
}

#[tokio::test]
async fn a_machine_needs_something_to_be_known_by() {
    let site = Site::new().await;
    let bare = MACHINE.replace("macs: ['52:54:00:ab:cd:08']", "macs: []");
    let said = site.refuses(&bare).await;
    assert!(said.contains("line 5: spec.macs: nothing tells this machine from others when it boots"), "{said}");
    site.engine.apply(MACHINE, "op").await.unwrap();
    let said = site.refuses(&bare).await;
    assert!(said.contains("spec.macs: this takes away the cards that db-8 is known by"), "{said}");
    let kept = site.engine.get(Kind::HARDWARE, "db-8").await.unwrap();
    assert_eq!(kept.spec["macs"], json!(["52:54:00:ab:cd:08"]));

    // One that is so already can still be held.
    site.store.create(&Hardware::new("old", HardwareSpec::default())).await.unwrap();
    let site = site.restarted().await;
    site.label(Kind::HARDWARE, "old", "rack", "a1").await.unwrap();
    site.engine.hold("old", "it is on its way out", "op").await.unwrap();
}

#[tokio::test]
async fn labels_that_kubernetes_would_refuse_are_refused() {
    let site = Site::new().await;
    for (metadata, want) in [
        ("labels: { rack: row 7 }", "line 4: metadata.labels.rack: `row 7` cannot be a label's value"),
        ("labels: { 'a b': x }", "line 4: metadata.labels.a b: `a b` cannot be a label"),
        ("annotations: { '-a': x }", "line 4: metadata.annotations.-a: `-a` cannot be an annotation"),
    ] {
        let said = site.refuses(&MACHINE.replace("name: db-8", &format!("name: db-8, {metadata}"))).await;
        assert!(said.contains(want), "{said}");
    }
    for (key, value) in [("rack", "a1"), ("example.org/rack", "")] {
        site.engine.apply(MACHINE, "op").await.unwrap();
        site.label(Kind::HARDWARE, "db-8", key, value).await.unwrap();
    }
    let network = site.label(Kind::NETWORK, "rack", "x", "a/b").await.unwrap_err();
    assert!(network.contains("metadata.labels.x: `a/b`"), "{network}");
    let secret = site.label(Kind::SECRET, "root", "x", "a/b").await.unwrap_err();
    assert!(secret.contains("metadata.labels.x: `a/b`") && !secret.contains("correct-horse"), "{secret}");
}
