//! Hardware, controllers, Secrets and networks.

use dragonfly_core::power::BootMode;
use dragonfly_core::tinkerbell::{Object, Outcome};

use super::{machines, note, of, refused, told};

const MACHINE: &str = r##"apiVersion: tinkerbell.org/v1alpha1
kind: Hardware
metadata:
  name: rack-1
  namespace: tink
  labels: {rack: a1, v1alpha1.tinkerbell.org/ownerName: ""}
  annotations: {note: by hand, kubectl.kubernetes.io/last-applied-configuration: "{}"}
  uid: 3d1c
  finalizers: [x]
spec:
  agentID: agent-1
  bmcRef: {apiGroup: bmc.tinkerbell.org, kind: Machine, name: bmc-1}
  userData: "geheim-user-data"
  disks: [{device: /dev/sda}]
  interfaces:
    - dhcp:
        mac: 52:54:00:AB:CD:01
        hostname: one
        uefi: true
        vlan_id: "7"
        domain_name: example.test
        lease_time: 600
        name_servers: [10.0.0.2]
        time_servers: [10.0.0.3]
        ip: {address: 10.0.0.5, netmask: 255.255.255.0, gateway: 10.0.0.1, family: 4}
        classless_static_routes: [{destination_descriptor: 10.9.0.0/16, router: 10.0.0.9}]
      netboot:
        allowPXE: false
        allowWorkflow: false
        ipxe: {url: "http://h/boot.ipxe", contents: "#!ipxe"}
        osie: {baseURL: "http://h", kernelParams: [a=b]}
      isoboot: {sourceISO: "http://h/i.iso"}
    - dhcp: {mac: "52:54:00:ab:cd:02", hostname: two, ip: {address: 10.1.0.5, netmask: 255.255.255.0}}
  metadata:
    facility: {facility_code: dc-1, plan_slug: big}
    manufacturer: {slug: acme, id: "9"}
    instance: {hostname: other, crypted_root_password: geheim-hash, ssh_keys: [k1, k2], tags: [t]}
status: {state: Ready}
---
apiVersion: bmc.tinkerbell.org/v1alpha1
kind: Machine
metadata: {name: bmc-1, namespace: tink}
spec:
  connection:
    host: 10.0.9.5
    port: 623
    insecureTLS: true
    authSecretRef: {name: account, namespace: tink}
    providerOptions: {preferredOrder: [gofish], redfish: {port: 8443, systemName: blade, useBasicAuth: true}}
---
apiVersion: v1
kind: Secret
metadata: {name: account, namespace: tink}
type: Opaque
data: {username: cm9vdA==, password: Z2VoZWlt, extra: eA==}
---
apiVersion: v1
kind: Secret
metadata: {name: other, namespace: tink}
stringData: {password: geheim}
---
apiVersion: bmc.tinkerbell.org/v1alpha1
kind: Machine
metadata: {name: nobodys, namespace: tink}
spec: {connection: {host: h}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: x}
"##;

#[test]
fn a_machine_with_everything() {
    let converted = of(MACHINE);
    let [machine] = machines(&converted)[..] else { panic!("{converted:#?}") };
    assert_eq!(machine.spec.macs, ["52:54:00:ab:cd:01".parse().unwrap(), "52:54:00:ab:cd:02".parse().unwrap()]);
    assert!(machine.spec.protected && machine.spec.hold.is_none());
    assert_eq!(machine.spec.chain.as_ref().unwrap().as_str(), "http://h/boot.ipxe");
    let reserved = machine.spec.dhcp.as_ref().unwrap();
    assert_eq!((reserved.address.to_string().as_str(), reserved.hostname.as_deref()), ("10.0.0.5", Some("one")));
    let labels: Vec<(&str, &str)> = machine.metadata.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(
        labels,
        [
            ("facility", "dc-1"),
            ("manufacturer", "acme"),
            ("plan", "big"),
            ("rack", "a1"),
            ("v1alpha1.tinkerbell.org/ownerName", "")
        ]
    );
    assert_eq!(machine.metadata.annotations.keys().collect::<Vec<_>>(), ["note"]);
    let bmc = machine.spec.bmc.as_ref().unwrap();
    assert_eq!(bmc.address.as_str(), "redfish://10.0.9.5:8443?tls=insecure");
    assert_eq!((bmc.secret_ref.as_ref().unwrap().name.as_str(), bmc.boot_mode), ("account", Some(BootMode::Uefi)));
    let [hint] = &converted.networks[..] else { panic!("{:?}", converted.networks) };
    let network = hint.network("eth1");
    assert_eq!(network.name(), "net-10-0-0-0-24");
    assert_eq!((network.spec.router, network.spec.lease_seconds), (Some("10.0.0.1".parse().unwrap()), 600));
    assert_eq!((network.spec.domain.as_deref(), network.spec.ntp.len()), (Some("example.test"), 1));

    let mut told = told(&converted);
    told.sort_unstable();
    let wanted = [
        ": lost",
        ": refused",
        "data.extra: lost",
        "kind: refused",
        "metadata.finalizers: lost",
        "metadata.uid: not needed",
        "spec.agentID: lost",
        "spec.connection.providerOptions.preferredOrder: not needed",
        "spec.connection.providerOptions.redfish.systemName: lost",
        "spec.connection.providerOptions.redfish.useBasicAuth: not needed",
        "spec.disks[0].device: changed",
        "spec.interfaces[0].dhcp.classless_static_routes[0].destination_descriptor: lost",
        "spec.interfaces[0].dhcp.classless_static_routes[0].router: lost",
        "spec.interfaces[0].dhcp.uefi: not needed",
        "spec.interfaces[0].dhcp.vlan_id: lost",
        "spec.interfaces[0].isoboot.sourceISO: lost",
        "spec.interfaces[0].netboot.allowPXE: changed",
        "spec.interfaces[0].netboot.allowWorkflow: changed",
        "spec.interfaces[0].netboot.ipxe.contents: lost",
        "spec.interfaces[0].netboot.ipxe.url: changed",
        "spec.interfaces[0].netboot.osie.baseURL: not needed",
        "spec.interfaces[0].netboot.osie.kernelParams: lost",
        "spec.interfaces[1].dhcp.hostname: lost",
        "spec.interfaces[1].dhcp.ip.address: lost",
        "spec.interfaces[1].dhcp.ip.netmask: lost",
        "spec.metadata.instance.crypted_root_password: lost",
        "spec.metadata.instance.hostname: lost",
        "spec.metadata.instance.ssh_keys: lost",
        "spec.metadata.instance.tags: lost",
        "spec.metadata.manufacturer.id: lost",
        "spec.userData: lost",
        "status.state: not needed",
    ];
    assert_eq!(told, wanted);
    let said = note(&converted, "spec.interfaces[0].netboot.ipxe.url");
    assert!(
        said.to_string().starts_with(
            "f.yaml, document 1, line 30: Hardware \"rack-1\": spec.interfaces[0].netboot.ipxe.url: changed: "
        ),
        "{said}"
    );
}

#[test]
fn a_secret_is_taken_and_never_shown() {
    let converted = of(MACHINE);
    let Some(Object::Secret(secret)) = converted.objects.first() else { panic!("no Secret") };
    let values: Vec<(&str, &str)> = secret.spec.data.iter().map(|(k, v)| (k.as_str(), v.reveal())).collect();
    assert_eq!(values, [("password", "geheim"), ("username", "root")]);
    assert_eq!(converted.objects[0].to_apply()["spec"]["data"]["password"], "geheim");
    let shown: String = converted.objects.iter().map(|object| object.shown().to_string()).collect();
    let all = format!("{shown}{:?}{}", converted, converted.notes.iter().map(ToString::to_string).collect::<String>());
    assert!(!all.contains("geheim"), "{all}");
    let wrong = of(&MACHINE.replace("password: Z2VoZWlt", "password: \"%%\""));
    assert!(note(&wrong, "data.password").said.contains("not the base64 of a text"));
}

#[test]
fn controllers_are_spoken_to_as_rufio_would() {
    let table = [
        ("host: 10.0.0.6, port: 623", Ok("ipmi://10.0.0.6")),
        ("host: 10.0.0.6, port: 6230", Ok("ipmi://10.0.0.6:6230")),
        ("host: bmc.example, port: 443, providerOptions: {redfish: {useBasicAuth: true}}", Ok("redfish://bmc.example")),
        (
            "host: h, providerOptions: {preferredOrder: [ipmitool], ipmitool: {cipherSuite: \"3\"}}",
            Ok("ipmi://h?cipher=3"),
        ),
        ("host: \"fd00::1\"", Ok("ipmi://[fd00::1]")),
        ("host: h, providerOptions: {preferredOrder: [intelamt]}", Err("as `intelamt` does")),
        ("host: h, providerOptions: {rpc: {consumerURL: x}}", Err("no driver here speaks to it")),
        ("host: \"a b\"", Err("is not a host")),
        ("port: 623", Err("is not a host")),
        ("host: $BMC", Err("was not filled in")),
    ];
    for (connection, wanted) in table {
        let text = format!(
            "{{apiVersion: tinkerbell.org/v1alpha1, kind: Hardware, metadata: {{name: m}}, spec: {{bmcRef: {{name: b}}, interfaces: [{{dhcp: {{mac: \"52:54:00:00:00:01\"}}}}]}}}}
---
{{apiVersion: bmc.tinkerbell.org/v1alpha1, kind: Machine, metadata: {{name: b}}, spec: {{connection: {{{connection}}}}}}}"
        );
        let converted = of(&text);
        let bmc = machines(&converted)[0].spec.bmc.as_ref().map(|bmc| bmc.address.to_string());
        match wanted {
            Ok(wanted) => assert_eq!(bmc.as_deref(), Some(wanted), "{connection}: {:?}", converted.notes),
            Err(words) => {
                assert_eq!(bmc, None, "{connection}");
                assert!(
                    converted.notes.iter().any(|n| n.outcome == Outcome::Refused && n.said.contains(words)),
                    "{connection}"
                );
            }
        }
    }
    let missing = of(
        "{apiVersion: tinkerbell.org/v1alpha1, kind: Hardware, metadata: {name: m}, spec: {bmcRef: {name: b}, interfaces: [{dhcp: {mac: \"52:54:00:00:00:01\"}}]}}",
    );
    assert!(note(&missing, "spec.bmcRef").said.contains("the controller `b` is not in these files"));
}

#[test]
fn what_makes_no_machine_is_refused() {
    let machine = |spec: &str| {
        format!("apiVersion: tinkerbell.org/v1alpha1\nkind: Hardware\nmetadata: {{name: m}}\nspec: {spec}\n")
    };
    let table = [
        ("{}", "spec.interfaces", "no interface with a MAC"),
        ("{interfaces: [{dhcp: {mac: zz}}]}", "spec.interfaces[0].dhcp.mac", "not a MAC address"),
        (
            "{interfaces: [{dhcp: {mac: \"ff:ff:ff:ff:ff:ff\"}}]}",
            "spec.interfaces[0].dhcp.mac",
            "not the address of one card",
        ),
        (
            "{interfaces: [{dhcp: {mac: \"52:54:00:00:00:01\", ip: {address: 10.0.0}}}]}",
            "spec.interfaces[0].dhcp.ip.address",
            "not an address",
        ),
    ];
    for (spec, path, words) in table {
        let converted = of(&machine(spec));
        assert!(converted.objects.is_empty(), "{spec}");
        refused(&converted, path, words);
    }
    let good = machine("{interfaces: [{dhcp: {mac: \"52:54:00:00:00:01\"}}]}");
    let twice = of(&format!("{good}---\n{good}"));
    assert_eq!(machines(&twice).len(), 1);
    refused(&twice, "metadata.name", "stands before it");
    let items = of(
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: tinkerbell.org/v1alpha1, kind: Hardware, metadata: {name: m}, spec: {x: 1, interfaces: [{dhcp: {mac: \"52:54:00:00:00:01\"}}]}}\n",
    );
    assert_eq!((machines(&items).len(), note(&items, "spec.x").line), (1, 4));
    for (text, words) in [
        ("{", "this is not YAML"),
        ("a: 1", "begins with apiVersion and kind"),
        ("{apiVersion: tinkerbell.org/v1alpha2, kind: Hardware, metadata: {name: m}}", "only tinkerbell.org/v1alpha1"),
        ("{apiVersion: tinkerbell.org/v1alpha1, kind: Hardware, metadata: {name: M_1}}", "is not a name"),
        (
            "{apiVersion: tinkerbell.org/v1alpha1, kind: WorkflowRuleSet, metadata: {name: m}}",
            "WorkflowRuleSet of tinkerbell.org is not converted",
        ),
        (&"[".repeat(5000), "nests too deep"),
    ] {
        let converted = of(text);
        assert!(converted.objects.is_empty());
        assert!(
            converted.notes.iter().any(|n| n.outcome == Outcome::Refused && n.said.contains(words)),
            "{words}: {:?}",
            converted.notes
        );
    }
    assert!(of("").notes.is_empty());
}

#[test]
fn machines_that_contradict_each_other_about_their_network_are_told() {
    let machine = |name: &str, last: u8, more: &str| {
        format!(
            "{{apiVersion: tinkerbell.org/v1alpha1, kind: Hardware, metadata: {{name: {name}}}, spec: {{interfaces: [{{dhcp: {{mac: \"52:54:00:00:00:0{last}\", {more} ip: {{address: 10.0.0.{last}, netmask: 255.255.255.0}}}}}}]}}}}\n---\n"
        )
    };
    let text = machine("a", 1, "name_servers: [1.1.1.1],")
        + &machine("b", 2, "name_servers: [8.8.8.8], lease_time: 700,")
        + &machine("c", 3, "");
    let converted = of(&text);
    let [hint] = &converted.networks[..] else { panic!("{:?}", converted.networks) };
    assert_eq!((hint.machines.len(), hint.lease_seconds, hint.dns[0].to_string().as_str()), (3, Some(700), "1.1.1.1"));
    assert_eq!(told(&converted), ["spec.interfaces[0].dhcp.name_servers: lost"]);
    assert_eq!(converted.notes[0].object, "Hardware \"b\"");
}
