use serde_json::{Value, json};

use super::*;

fn template(actions: Value) -> TemplateSpec {
    serde_json::from_value(json!({ "actions": actions })).unwrap()
}

fn told(actions: Value) -> Vec<String> {
    Catalog::builtin().check(&template(actions)).into_iter().map(|p| format!("{}: {}", p.path, p.problem)).collect()
}

fn partition() -> Value {
    json!({"name": "table", "action": "partition", "with": {"partitions": [
        {"label": "esp", "type": "esp", "size": "64MiB"},
        {"label": "root", "size": "rest"},
    ]}})
}

fn image(with: Value) -> Value {
    let mut all = json!({"url": "https://server/a.raw.zst", "digest": format!("sha256:{}", "ab".repeat(32))});
    all.as_object_mut().unwrap().extend(with.as_object().cloned().unwrap());
    json!({"name": "write", "action": "image2disk", "with": all})
}

fn file(target: Value) -> Value {
    json!({"name": "file", "action": "writefile", "with": {"target": target, "path": "/etc/nonce", "content": "x"}})
}

#[test]
fn good_templates_pass() {
    assert_eq!(told(json!([partition(), image(json!({"target": "root"})), file(json!("root"))])), [""; 0]);
    assert_eq!(told(json!([image(json!({})), file(json!("cloudimg-rootfs"))])), [""; 0]);
    assert_eq!(
        told(json!([
            partition(),
            {"name": "fs", "action": "format", "with": {"target": "root", "filesystem": "ext4", "label": "sys"}},
            image(json!({"disk": {"serial": "DATA"}})),
            file(json!({"partition": 2})),
            file(json!("sys"))["with"].as_object().map(|w| json!({"name": "f2", "action": "writefile", "with": w})).unwrap(),
            {"name": "go", "action": "kexec", "with": {"target": "root"}},
        ])),
        [""; 0]
    );
    let later = json!([
        {"name": "a", "action": "partition", "with": {"disk": {"serial": "{{ values.disk }}"}, "partitions": [
            {"label": "{{ values.label }}", "size": "{{ values.size }}", "type": "{{ values.type }}"},
            {"label": "b", "size": "1GiB", "start": "{{ values.start }}"}]}},
        {"name": "b", "action": "image2disk", "with": {"url": "{{ server }}/images/a", "digest": "{{ values.digest }}", "target": "root"}},
        {"name": "c", "action": "writefile", "with": {"target": {"label": "{{ values.label }}"}, "path": "{{ values.path }}", "mode": "{{ values.mode }}", "contentBase64": "{{ values.c }}"}},
        {"name": "d", "action": "chain", "with": {"url": "{{ server }}/boot"}},
    ]);
    assert_eq!(told(later), [""; 0], "template expressions are judged by type only");
}

#[test]
fn every_wrong_thing_is_named_with_its_place() {
    let table: Vec<(Value, &str)> = vec![
        (json!([]), "actions: is empty"),
        (
            json!([{"name": "a", "action": "image2dsk"}]),
            "actions[0].action: no action is called `image2dsk`; did you mean `image2disk`?",
        ),
        (json!([{"name": "a", "action": "dance"}]), "there are: bootloader, chain, chroot-exec"),
        (json!([{"name": "a", "action": "image2disk"}]), "actions[0].with: missing field `url`"),
        (
            json!([{"name": "a", "action": "writefile", "with": {"target": "root", "path": "/a", "contents": "x"}}]),
            "actions[0].with.contents: there is no such field; did you mean `content`?",
        ),
        (
            json!([{"name": "a", "action": "writefile", "with": {"target": "root", "path": "/a"}}]),
            "actions[0].with.content: is missing",
        ),
        (
            json!([{"name": "a", "action": "writefile", "with": {"target": "root", "path": "a", "content": ""}}]),
            "actions[0].with.path: `a` is not an absolute path; write `/a`",
        ),
        (
            json!([{"name": "a", "action": "writefile", "with": {"target": "root", "path": "/a/../b", "content": ""}}]),
            "holds `.` or `..`",
        ),
        (
            json!([{"name": "a", "action": "writefile", "with": {"target": "root", "path": "/a", "content": "", "mode": 644}}]),
            "actions[0].with.mode: is a number; write permissions in quotes",
        ),
        (
            json!([{"name": "a", "action": "writefile", "with": {"target": "root", "path": "/a", "contentBase64": "!"}}]),
            "contentBase64: is not base64",
        ),
        (
            json!([{"name": "a", "action": "partition", "with": {"partitions": [{"size": "many"}]}}]),
            "actions[0].with.partitions[0].size: `many` is not a size",
        ),
        (
            json!([{"name": "a", "action": "partition", "with": {"partitions": [{"size": "1KiB"}]}}]),
            "actions[0].with.partitions[0].size: 1 KiB is too small",
        ),
        (
            json!([{"name": "a", "action": "partition", "with": {"partitions": [{"size": "rest"}, {"size": "rest"}]}}]),
            "actions[0].with.partitions[1].size: is `rest`, and so is partitions[0]",
        ),
        (
            json!([{"name": "a", "action": "partition", "with": {"partitions": [{"size": "10MiB"}, {"size": "1MiB", "start": "5MiB"}]}}]),
            "actions[0].with.partitions[1].start: 5 MiB overlaps partitions[0], which ends at 11 MiB",
        ),
        (
            json!([{"name": "a", "action": "partition", "with": {"partitions": [{"size": "1MiB", "type": "linus"}]}}]),
            "partitions[0].type: `linus` is not a partition type",
        ),
        (
            json!([{"name": "a", "action": "partition", "with": {"partitions": [{"size": "1MiB", "label": "a"}, {"size": "1MiB", "label": "a"}]}}]),
            "partitions[1].label: `a` is already partitions[0]'s",
        ),
        (
            json!([{"name": "a", "action": "partition", "with": {"table": "mbr", "partitions": [{"size": "1MiB"}, {"size": "1MiB"}, {"size": "1MiB"}, {"size": "1MiB"}, {"size": "1MiB"}]}}]),
            "are 5; this table holds 4; use `table: gpt`",
        ),
        (
            json!([{"name": "a", "action": "partition", "with": {"disk": "sda", "partitions": [{"size": "1MiB"}]}}]),
            "actions[0].with.disk: invalid type: string \"sda\", expected what the disk is, such as {serial: S1}, {name: sda}",
        ),
        (
            json!([{"name": "a", "action": "partition", "with": {"disk": {"ssd": true}, "partitions": [{"size": "1MiB"}]}}]),
            "actions[0].with.disk.ssd: there is no such field",
        ),
        (
            json!([{"name": "a", "action": "image2disk", "with": {"url": "https://s/i"}}]),
            "actions[0].with.digest: is missing; write `digest: sha256:",
        ),
        (
            json!([{"name": "a", "action": "image2disk", "with": {"url": "https://s/i", "digest": "sha256:12"}}]),
            "actions[0].with.digest: sha256 has 64 hex digits, this has 2",
        ),
        (
            json!([{"name": "a", "action": "image2disk", "with": {"url": "ftp://s/i", "insecureNoDigest": true}}]),
            "`ftp:` cannot be fetched",
        ),
        (
            json!([{"name": "a", "action": "image2disk", "with": {"url": "s.example/i.raw", "insecureNoDigest": true}}]),
            "actions[0].with.url: `s.example/i.raw` is not an URL (relative URL without a base); write https://",
        ),
        (
            json!([{"name": "a", "action": "image2disk", "with": {"url": "u:p@s.example/i", "insecureNoDigest": true}}]),
            "actions[0].with.url: `...@s.example/i`: `u:` cannot be fetched; write https://",
        ),
        (
            json!([{"name": "a", "action": "chain", "with": {"url": "s.example/x.ipxe"}}]),
            "actions[0].with.url: `s.example/x.ipxe` is not an URL (relative URL without a base); write an URL such as",
        ),
        (
            json!([{"name": "a", "action": "image2disk", "with": {"url": "https://u:p@s/i", "insecureNoDigest": true}}]),
            "a password does not belong",
        ),
        (json!([partition(), partition()]), "actions[1].name: `table` is already the name of actions[0]"),
        (json!([partition(), partition()]), "actions[1].with.disk: actions[0] partitions the same disk"),
        (
            json!([partition(), image(json!({}))]),
            "actions[1].with.disk: this would destroy the table that actions[0] writes",
        ),
        (
            json!([image(json!({})), partition()]),
            "actions[1].with.disk: this would destroy the image that actions[0] writes",
        ),
        (
            json!([partition(), file(json!("rot"))]),
            "actions[1].with.target: no step makes a partition `rot`; there are: esp, root",
        ),
        (
            json!([partition(), file(json!({"partition": 3}))]),
            "actions[1].with.target: there is no partition 3: actions[0] makes 2",
        ),
        (
            json!([file(json!("root")), partition()]),
            "actions[0].with.target: `root` is made by actions[1], which comes later",
        ),
        (json!([partition(), file(json!({"label": "root", "partition": 1}))]), "has a label and a number"),
        (json!([partition(), file(json!({}))]), "names no partition"),
        (
            json!([{"name": "r", "action": "reboot"}, partition()]),
            "actions[0].action: `reboot` leaves the machine, so nothing can follow it; put it last",
        ),
        (
            json!([{"name": "r", "action": "reboot", "with": {"now": true}}]),
            "actions[0].with.now: there is no such field",
        ),
        (json!([{"name": "r", "action": "chain", "with": {"url": "http://s/a b\n#!ipxe"}}]), "actions[0].with.url"),
        (json!([{"name": "r", "action": "chain", "with": {"url": "http://s/$(reboot)"}}]), "holds `$`"),
        (
            json!([{"name": "k", "action": "kexec", "with": {"target": "root", "kernel": "/vmlinuz"}}]),
            "actions[0].with.cmdline: is missing",
        ),
        (
            json!([{"name": "c", "action": "chroot-exec", "with": {"target": "root", "argv": []}}]),
            "actions[0].with.argv: is empty",
        ),
        (
            json!([{"name": "c", "action": "chroot-exec", "with": {"target": "root", "argv": "ls -l"}}]),
            "actions[0].with.argv: invalid type: string",
        ),
        (json!([{"name": "b", "action": "bootloader", "with": {"kind": "grub"}}]), "actions[0].with.root: is missing"),
        (json!([{"name": "b", "action": "bootloader", "with": {"kind": "lilo"}}]), "unknown variant `lilo`"),
        (
            json!([{"name": "f", "action": "format", "with": {"target": "root", "filesystem": "ext4", "label": "much-longer-than-sixteen"}}]),
            "is longer than the 16 bytes",
        ),
        (
            json!([{"name": "f", "action": "format", "with": {"target": "root", "filesystem": "zfs"}}]),
            "unknown variant `zfs`",
        ),
    ];
    for (actions, want) in table {
        let told = told(actions.clone());
        assert!(told.iter().any(|line| line.contains(want)), "{actions}\n wanted {want}\n told {told:#?}");
    }
}

#[test]
fn others_actions_are_let_through_by_name() {
    let mine = json!([{"name": "a", "action": "bless", "with": {"anything": [1, 2]}}]);
    assert!(!told(mine.clone()).is_empty());
    let catalog = Catalog::builtin().with("bless");
    assert!(catalog.check(&template(mine)).is_empty());
    // It may have made any partition, but what the others destroy is still seen.
    let among = json!([partition(), {"name": "a", "action": "bless"}, file(json!("mine")), image(json!({}))]);
    let told: Vec<_> = catalog.check(&template(among)).into_iter().map(|p| p.path).collect();
    assert_eq!(told, ["actions[3].with.disk"]);
}

#[test]
fn a_digest_that_a_person_must_fix_is_not_swallowed() {
    let both = told(json!([image(json!({"insecureNoDigest": true}))]));
    assert!(both[0].contains("is true beside a digest"), "{both:?}");
}
