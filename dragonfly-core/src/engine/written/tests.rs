use super::*;
use crate::resource::template::TemplateAction;
use serde_json::json;

fn said(text: &str) -> String {
    let with = json!({ "files": [{ "content": text }] });
    let action = TemplateAction { name: "a".into(), action: "writefile".into(), with, timeout_seconds: None };
    let found = problems(&TemplateSpec { actions: vec![action], ..TemplateSpec::default() });
    assert!(found.iter().all(|p| p.path == "actions[0].with.files[0].content"), "{found:?}");
    found.into_iter().map(|p| p.problem).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_no_machine_can_fill_is_named() {
    for (text, want) in [
        ("{{ values.", "cannot be read: "),
        ("{{ machine.name", "cannot be read: "),
        ("{{ machine.name } }", "cannot be read: "),
        ("{% if values.x %}a", "cannot be read: "),
        ("a\nb\n{{ 1 + }}\n", "cannot be read in line 3 of this text: "),
        ("{% include 'x' %}", "cannot be read: "),
        ("{{ machine.name | uper }}", "there is no filter `uper`; did you mean `upper`?"),
        // A branch that this machine would not take, too.
        ("{% if values.x == '1' %}{{ machine.name | nonsense }}{% endif %}", "there is no filter `nonsense`"),
        ("{% filter shout %}a{% endfilter %}", "there is no filter `shout`"),
        ("{% if machine.name is empty %}a{% endif %}", "there is no test `is empty`"),
        ("{% if machine.name is not empty %}a{% endif %}", "there is no test `is empty`"),
        ("{{ machine.name.upper() }}", "nothing here has a method `upper()`; write the filter `| upper`"),
        ("{{ values.x.strip() }}", "nothing here has a method `strip()`"),
        ("{{ machnie.name }}", "`machnie` is known of no machine; did you mean `machine`?"),
        (
            "{{ lookup('x') }}",
            "`lookup` is known of no machine; there are: machine, inventory, values, server, phoneHome",
        ),
        ("{{ machine.nmae }}", "`machine.nmae` is known of no machine; did you mean `name`?"),
        ("{{ machine.rack }}", "; there are: machine.address, machine.displayName"),
        ("{{ inventory.sytem.vendor }}", "`inventory.sytem` is known of no machine; did you mean `system`?"),
        ("{{ inventory.system.vendro }}", "`inventory.system.vendro` is known of no machine; did you mean `vendor`?"),
        // Another name is asked for.
        ("{{ machine.nmae }} {{ values.x | default('y') }}", "`machine.nmae` is known of no machine"),
        ("{% if values.x is defined %}{{ machine.nmae }}{% endif %}", "`machine.nmae` is known of no machine"),
        ("{% for m in machine.mcas %}{{ m }}{% endfor %}", "`machine.mcas` is known of no machine"),
    ] {
        assert!(said(text).contains(want), "{text}: {:?} and not {want:?}", said(text));
    }
}

#[test]
fn what_a_fact_may_still_bring_is_taken() {
    for text in [
        "plain } text { {{ machine.name }} {{ machine.displayName }} {{ server }} {{ phoneHome }} {{ values['a-b'] }}",
        "{{ inventory.disks[0].name }} {{ inventory.system.serial }} {{ inventory.bmc.address }} {{ inventory.tpm }}",
        "{{ values.count | int + 1 }} {{ values.list | split(',') | first | upper }}",
        "{{ {'a': {'b': 1}}.a.b }} {{ '}}' }} {{ \"{{ x | nonsense\" }}",
        "{% raw %}{{ v1.hostname | nonsense }}{% endraw %} {{ machine.name }}",
        "{# {{ nobody }} #}{{ machine.name }}",
        "{{ machine.rack | default('none') }}",
        "{% if machine.rack is defined %}{{ machine.rack }}{% endif %}",
        "{% if machine.rack is not defined %}a{% else %}{{ machine.rack.unit }}{% endif %}",
        "{{ machine.rack if machine.rack is defined else 'none' }} {{ (machine.room) | d('none') }}",
        "{% set rack = machine.rack %}{{ rack | default('none') }}",
        "{{ [machine.rack, 'none'] | select('defined') | first }}",
        "{% if values.x %}{% set y = 1 %}{% else %}{% set y = 2 %}{% endif %}{{ y }}",
        "{% for k, v in dict(a=1) | items %}{{ loop.index }} {{ loop.cycle('a', 'b') }} {{ k }}{{ v }}{% endfor %}",
        "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}",
        "{% for i in range(3) %}{{ i }}{% endfor %}",
        "{% set ns = namespace(n=0) %}{% for d in inventory.disks %}{% set ns.n = ns.n + d.size %}{% endfor %}{{ ns.n }}",
        "{{ inventory | tojson }} {%- if machine.mac in machine.macs -%} a {%- endif %}",
        "{% if machine.serial is string and values.a == 'is nonsense' %}a{% endif %}",
        "{{ '{{' }} v1.hostname {{ '{%' }}{{ '\\n' }}",
    ] {
        assert_eq!(said(text), "", "{text}");
    }
}

#[test]
fn any_text_is_judged_without_a_panic() {
    use proptest::prelude::*;
    proptest!(|(text in "[ {}%#'\"\\\\a.|()is=\\-\n]{0,24}")| {
        said(&text);
    });
}
