//! What templates become, and what is said of those that become nothing.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::value::Keys;
use super::{LATE_BEGINS, LATE_ENDS, Value, render};

fn data() -> Value {
    let hardware = json!({
        "disks": ["/dev/nvme0n1", "/dev/sda"],
        "interfaces": [{ "dhcp": {
            "arch": "x86_64", "mac": "52:54:00:ab:cd:01", "uefi": false, "lease_time": 86400,
            "name_servers": ["1.1.1.1", "8.8.8.8"], "ip": { "address": "10.0.0.5", "netmask": "255.255.255.0" },
        } }],
        "metadata": { "instance": { "hostname": "m1", "ssh_keys": ["a", "b"] } },
        "userdata": "",
    });
    let mut root = BTreeMap::from([
        ("device_1".to_owned(), Value::text("52:54:00:ab:cd:01")),
        ("count".to_owned(), Value::Int(3)),
        ("yes".to_owned(), Value::Bool(true)),
        ("nothing".to_owned(), Value::Nil),
    ]);
    root.insert("Hardware".to_owned(), Value::from_json(&hardware, Keys::Structure).unwrap());
    let plain = json!({ "spec": { "x": { "b": 2, "a": 1 } } });
    root.insert("hardware".to_owned(), Value::from_json(&plain, Keys::Strict).unwrap());
    Value::map(root, Keys::Strict).unwrap()
}

#[test]
fn templates_become_what_go_makes_of_them() {
    let table = [
        ("", ""),
        ("plain\ntext } }} {", "plain\ntext } }} {"),
        ("{{.device_1}}", "52:54:00:ab:cd:01"),
        ("{{ index .Hardware.Disks 0 }}", "/dev/nvme0n1"),
        ("{{ (index .Hardware.Interfaces 0).DHCP.MAC }}", "52:54:00:ab:cd:01"),
        ("{{ (index .Hardware.Interfaces 0).DHCP.LeaseTime }}", "86400"),
        ("{{ index (index .Hardware.Interfaces 0).DHCP.NameServers 1 }}", "8.8.8.8"),
        ("{{ join \",\" .Hardware.Metadata.Instance.SSHKeys }}", "a,b"),
        ("{{ formatPartition ( index .Hardware.Disks 0 ) 1 }}", "/dev/nvme0n1p1"),
        ("{{ formatPartition (index .Hardware.Disks 1) 2 }}", "/dev/sda2"),
        ("{{ formatPartition \"/dev/disk/by-id/x1\" 2 }}", "/dev/disk/by-id/x1-part2"),
        ("{{ netmaskToPrefixLength (index .Hardware.Interfaces 0).DHCP.IP.Netmask }}", "24"),
        // The playground's own question.
        (
            "{{- if regexMatch \"a(arch|rm)\" (lower (index .Hardware.Interfaces 0).DHCP.Arch) }}arm{{ else }}x86{{ end }}",
            "x86",
        ),
        ("a  {{- 1 -}}  b", "a1b"),
        ("a {{/* said */}} b {{- /* too */ -}} c", "a  bc"),
        ("{{-3}}", "-3"),
        ("{{ .Hardware.UserData }}|", "|"),
        ("{{ if .nothing }}a{{ else if .yes }}b{{ else }}c{{ end }}", "b"),
        ("{{ if and .yes (eq .count 3) }}y{{ end }}{{ if or .nothing false }}n{{ end }}", "y"),
        ("{{ if not (hasPrefix \"/dev/nvme\" (index .Hardware.Disks 1)) }}no nvme{{ end }}", "no nvme"),
        ("{{ with .Hardware.Metadata.Instance.Hostname }}{{ . }} {{ $.count }}{{ end }}", "m1 3"),
        ("{{ with .nothing }}x{{ else }}none{{ end }}", "none"),
        ("{{ range .Hardware.Disks }}[{{ . }}]{{ end }}", "[/dev/nvme0n1][/dev/sda]"),
        ("{{ range $i, $d := .Hardware.Disks }}{{ $i }}={{ $d }};{{ end }}", "0=/dev/nvme0n1;1=/dev/sda;"),
        ("{{ range $k, $v := .hardware.spec.x }}{{ $k }}{{ $v }}{{ end }}", "a1b2"),
        ("{{ range list }}x{{ else }}empty{{ end }}", "empty"),
        (
            "{{ range until 9 }}{{ if eq . 2 }}{{ continue }}{{ end }}{{ if gt . 4 }}{{ break }}{{ end }}{{ . }}{{ end }}",
            "0134",
        ),
        ("{{ $x := 1 }}{{ if .yes }}{{ $x = 2 }}{{ end }}{{ $x }}", "2"),
        ("{{ $x := 1 }}{{ if .yes }}{{ $x := 2 }}{{ end }}{{ $x }}", "1"),
        ("{{ define \"d\" }}<{{ . }}>{{ end }}{{ template \"d\" .count }}{{ template \"d\" \"z\" }}", "<3><z>"),
        ("{{ block \"b\" .count }}({{ . }}){{ end }}", "(3)"),
        ("{{ \"a\\t\\\"b\\u00e9\" }}{{ `raw\\n` }}{{ 'a' }}", "a\t\"béraw\\n97"),
        ("{{ 0x10 }} {{ 1.5 }} {{ 017 }} {{ 1e3 }}", "16 1.5 15 1000"),
        ("{{ printf \"%s-%03d-%q-%v-%x%%\" \"a\" 7 \"b\" true 255 }}", "a-007-\"b\"-true-ff%"),
        ("{{ \"abc\" | upper | trimSuffix \"C\" | quote }}", "\"AB\""),
        ("{{ default \"d\" .nothing }} {{ .nothing | default 5 }} {{ coalesce .nothing \"\" \"x\" }}", "d 5 x"),
        ("{{ ternary \"a\" \"b\" .yes }} {{ empty \"\" }}", "a true"),
        ("{{ \"a b\" | replace \" \" \"-\" }} {{ \"hello\" | trunc 3 }} {{ \"hello\" | trunc -2 }}", "a-b hel lo"),
        (
            "{{ add 1 2 3 }} {{ sub 5 7 }} {{ mul 2 3 }} {{ div 7 2 }} {{ mod 7 2 }} {{ add1 1 }} {{ max 1 9 3 }}",
            "6 -2 6 3 1 2 9",
        ),
        ("{{ splitList \",\" \"a,b\" | last }} {{ (split \",\" \"a,b\")._1 }}", "b b"),
        (
            "{{ list 3 1 2 | sortAlpha | join \"\" }} {{ list \"a\" \"a\" \"b\" | uniq | len }} {{ has 2 (list 1 2) }}",
            "123 2 true",
        ),
        (
            "{{ $d := dict \"k\" \"v\" \"n\" 1 }}{{ $d.k }}{{ get $d \"n\" }}{{ hasKey $d \"z\" }} {{ keys $d | join \",\" }}",
            "v1false k,n",
        ),
        ("{{ dig \"spec\" \"x\" \"a\" 9 .hardware }}{{ dig \"spec\" \"z\" 9 .hardware }}", "19"),
        (
            "{{ toJson .hardware.spec.x }} {{ toYaml (list 1 \"a\") }} {{ (fromJson `{\"a\":[1]}`).a }}",
            "{\"a\":1,\"b\":2} [1,\"a\"] [1]",
        ),
        ("{{ (fromYaml \"a: {b: 3}\").a.b }}", "3"),
        ("{{ b64enc \"hi\" }} {{ b64dec \"aGk=\" }} {{ sha256sum \"\" | trunc 8 }}", "aGk= hi e3b0c442"),
        ("{{ regexFind \"[0-9]+\" \"ab12c\" }} {{ regexReplaceAll \"(a)b\" \"ab\" \"${1}x\" }}", "12 ax"),
        ("{{ indent 2 \"a\\nb\" }}|{{ nindent 1 \"c\" }}", "  a\n  b|\n c"),
        (
            "{{ substr 1 3 \"hello\" }} {{ slice \"hello\" 1 3 }} {{ repeat 2 \"ab\" }} {{ cat \"a\" 1 }}",
            "el el abab a 1",
        ),
        ("{{ kebabcase \"FirstName\" }} {{ snakecase \"a b\" }} {{ title \"big mac\" }}", "first-name a_b Big Mac"),
        ("{{ index .hardware \"spec\" \"x\" \"a\" }} {{ len \"abc\" }}", "1 3"),
        ("{{ eq 1 2 1 }} {{ ne \"a\" \"b\" }} {{ lt 1 2 }} {{ ge \"b\" \"a\" }}", "true true true true"),
    ];
    for (template, wanted) in table {
        assert_eq!(render(template, &data()).as_deref(), Ok(wanted), "{template}");
    }
}

#[test]
fn what_is_wrong_is_named_with_line_and_column() {
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(60), ")".repeat(60));
    let nested = "{{ if true }}".repeat(60) + &"{{ end }}".repeat(60);
    let table = [
        ("a\n  {{ .missing }}", "line 2, column 6: there is no `.missing`"),
        ("{{ .devcie_1 }}", "did you mean `device_1`?"),
        (
            "{{ index .Hardware.Disks 7 }}",
            "line 1, column 4: index: there is no item 7: the list has 2, counted from 0",
        ),
        ("{{ lookup \"a\" }}", "line 1, column 4: there is no function `lookup` here"),
        ("{{ hasPrefx \"a\" \"b\" }}", "did you mean `hasPrefix`?"),
        ("{{ env \"HOME\" }}", "there is no function `env` here"),
        ("x {{ if true }}", "line 1, column 3: this `if` has no `end`"),
        ("{{ end }}", "line 1, column 1: this `end` ends nothing"),
        ("{{ else }}", "belongs to no `if`"),
        ("a\n{{ 1", "line 2, column 1: this `{{` is not closed"),
        ("{{ \"abc }}", "this text does not end"),
        ("{{ \"a\\qb\" }}", "`\\q` is not known in a text"),
        ("{{/* x", "this comment does not end"),
        ("{{ }}", "a value is missing here"),
        ("{{ 1 | }}", "a value is missing here"),
        ("{{ (1 }}", "this `(` is not closed"),
        ("{{ 1 2 }}", "this is no function"),
        ("{{ .device_1 \"x\" }}", "this is no function"),
        ("{{ .device_1.name }}", "`.name` is asked of a text, which has no fields"),
        ("{{ .nothing }}", "this is printed, and the manifest leaves it out"),
        ("{{ .Hardware.VendorData }}", "this is printed, and the manifest leaves it out"),
        ("{{ $x }}", "`$x` is not declared"),
        ("{{ $x = 1 }}", "`$x` is not declared"),
        ("{{ template \"no\" }}", "no template `no` is defined"),
        ("{{ define \"a\" }}{{ template \"a\" }}{{ end }}{{ template \"a\" }}", "call each other deeper than 50"),
        ("{{ break }}", "stands in no `range`"),
        ("{{ range 1.5 }}{{ end }}", "`range` goes through a list or a map, not a number"),
        ("{{ range until 10000 }}{{ range until 10000 }}{{ end }}{{ end }}", "takes more than 200000 steps"),
        ("{{ repeat 200000 \"ab\" }}", "a text longer than"),
        ("{{ range until 100 }}{{ repeat 9999 \"x\" }}{{ end }}", "the template becomes longer than"),
        ("{{ untilStep 0 99999 1 }}", "more than 10000 items"),
        ("{{ add 9223372036854775807 1 }}", "too large"),
        ("{{ div 1 0 }}", "divides by 0"),
        ("{{ regexMatch \"(\" \"a\" }}", "is not a pattern"),
        ("{{ regexMatch \"a{1000}{1000}{1000}\" \"a\" }}", "is not a pattern"),
        ("{{ b64dec \"%\" }}", "not base64"),
        ("{{ eq (list 1) (list 1) }}", "cannot be compared"),
        ("{{ fail \"stop here\" }}", "stop here"),
        ("{{ required \"give it\" .nothing }}", "give it"),
        ("{{ printf \"%d\" }}", "nothing is given for `%d`"),
        ("{{ printf \"%z\" 1 }}", "`%z` is not known here"),
        ("{{ 1 ! 2 }}", "`!` means nothing here"),
        ("{{ 12ab }}", "`12ab` is not a number"),
        ("{{ $x := list }}{{ range until 60 }}{{ $x = list $x }}{{ end }}", "nests too deep"),
        (
            "{{ $x := list 1 1 }}{{ range until 30 }}{{ $x = list $x $x }}{{ end }}{{ toJson $x }}",
            "more than 200000 steps",
        ),
        (deep.as_str(), "nests deeper than 50"),
        (nested.as_str(), "nests deeper than 50"),
    ];
    for (template, wanted) in table {
        let said = render(template, &data()).expect_err(template).to_string();
        assert!(said.contains(wanted), "{template}: {said}");
        assert!(said.starts_with("line "), "{template}: {said}");
    }
}

#[test]
fn what_comes_later_can_be_printed_and_nothing_else() {
    let root = Value::map(BTreeMap::new(), Keys::Late).unwrap();
    assert_eq!(render("a {{.device_1}} b", &root).unwrap(), format!("a {LATE_BEGINS}device_1{LATE_ENDS} b"));
    for template in
        ["{{ if .x }}{{ end }}", "{{ upper .x }}", "{{ range .x }}{{ end }}", "{{ .x.y }}", "{{ eq .x \"a\" }}"]
    {
        let said = render(template, &root).unwrap_err().to_string();
        assert!(said.contains("it can only be printed"), "{template}: {said}");
    }
    assert!(render("{{ .Hardware.Disks }}", &root).unwrap_err().to_string().contains("there is no `.Hardware`"));
}

/// Pieces of templates, whole and broken.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "(\\{\\{|\\}\\}|\\{\\{-? |-? ?\\}\\}|\\(|\\)|\\||:=|=|,|\\.|\\$)",
        "(if|else|end|range|with|define|template|block|break|continue|index|list|dict|printf|repeat|until|toJson|eq|and|or|not)",
        "(\\.Hardware|\\.Disks|\\.device_1|\\$x|\\$|\"[a-z%{}\\\\]{0,4}\"|`[a-z]`|'.'|-?[0-9]{1,6}|1\\.5|true|nil)",
        "[ \n\t]{1,2}",
        any::<String>(),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn whatever_is_written_becomes_a_text_or_an_error(template in pieces()) {
        if let Ok(text) = render(&template, &data()) {
            prop_assert!(text.len() <= super::MAX_TEXT);
        }
    }

    #[test]
    fn text_without_braces_stays_what_it_is(template in "[^{]{0,200}") {
        prop_assert_eq!(render(&template, &data()).unwrap(), template);
    }

    #[test]
    fn a_quoted_text_comes_out_again(text in any::<String>()) {
        let quoted: String = text.chars().flat_map(|c| match c {
            '"' | '\\' => vec!['\\', c],
            '\n' => vec!['\\', 'n'],
            c => vec![c],
        }).collect();
        prop_assert_eq!(render(&format!("{{{{ \"{quoted}\" }}}}"), &data()).unwrap(), text);
    }
}
