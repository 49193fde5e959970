//! Metal3's hosts.

use dragonfly_core::power::BootMode;
use serde_json::json;

use super::{machines, note, of, refused, steps, templates, told};

fn host(spec: &str) -> String {
    format!(
        "apiVersion: metal3.io/v1alpha1\nkind: BareMetalHost\nmetadata: {{name: node-1, namespace: metal3}}\nspec:\n{spec}"
    )
}

#[test]
fn a_host_with_an_image_is_a_machine_and_a_template() {
    let sum = "ab".repeat(32);
    let text = host(&format!(
        "  online: true
  description: third from the top
  bootMACAddress: 00:5C:52:31:3A:9C
  bootMode: legacy
  bmc: {{address: \"idrac-virtualmedia://10.0.0.7/redfish/v1/Systems/System.Embedded.1\", credentialsName: bmc-secret, disableCertificateVerification: true}}
  rootDeviceHints: {{serialNumber: S1, minSizeGigabytes: 100, rotational: false, model: PM}}
  image: {{url: \"http://h/i.raw\", checksum: {sum}, checksumType: sha256, format: raw}}
  userData: {{name: u}}
  consumerRef: {{kind: Metal3Machine, name: x}}
---
apiVersion: v1
kind: Secret
metadata: {{name: bmc-secret, namespace: metal3}}
stringData: {{username: root, password: geheim}}
"
    ));
    let converted = of(&text);
    let [machine] = machines(&converted)[..] else { panic!("{converted:#?}") };
    let bmc = machine.spec.bmc.as_ref().unwrap();
    assert_eq!(bmc.address.as_str(), "redfish://10.0.0.7/redfish/v1/Systems/System.Embedded.1?tls=insecure");
    assert_eq!(bmc.boot_mode, Some(BootMode::Legacy));
    assert_eq!(machine.metadata.annotations["description"], "third from the top");
    let made = steps(&converted);
    assert_eq!(
        made[0].2,
        json!({
            "url": "http://h/i.raw", "digest": format!("sha256:{sum}"),
            "disk": { "serial": "S1", "minSize": "100GB", "rotational": false },
        })
    );
    assert_eq!(made[1].1, "reboot");
    assert_eq!((converted.assignments.len(), converted.objects[0].kind()), (1, "Secret"));
    let mut told = told(&converted);
    told.sort_unstable();
    assert_eq!(
        told,
        [
            "spec.consumerRef.kind: lost",
            "spec.consumerRef.name: lost",
            "spec.online: not needed",
            "spec.rootDeviceHints.model: lost",
            "spec.userData.name: lost",
        ]
    );
    assert!(!format!("{converted:?}").contains("geheim"));
    // One that is in use is not assigned.
    let used = of(&text.replace("\n---\napi", "\nstatus: {provisioning: {state: provisioned}}\n---\napi"));
    assert!(used.assignments.is_empty() && templates(&used).len() == 1);
    assert!(note(&used, "status.provisioning.state").said.contains("is provisioned there already"));
}

#[test]
fn what_cannot_be_had_of_a_host_is_told() {
    let mac = "  bootMACAddress: 00:5c:52:31:3a:9c\n";
    let image = |image: &str| of(&host(&format!("{mac}  image: {{{image}}}\n")));
    let sum = image("url: \"http://h/i.raw\", checksum: \"http://h/i.raw.sha256sum\"");
    assert_eq!(steps(&sum)[0].2, json!({ "url": "http://h/i.raw", "insecureNoDigest": true }));
    assert!(note(&sum, "spec.image.checksum").said.contains("no URL of one"));
    for (spec, words) in [
        ("url: \"http://h/i.qcow2\", checksum: x", "only raw images are written"),
        ("url: \"http://h/i\", format: live-iso", "`live-iso` are not written"),
        ("url: \"file:///i.raw\"", "`file:` cannot be fetched"),
    ] {
        let converted = image(spec);
        refused(&converted, "spec.image", words);
        assert_eq!((machines(&converted).len(), templates(&converted).len()), (1, 0), "{spec}");
    }
    refused(&of(&host("  online: true\n")), "spec.bootMACAddress", "is missing");
    refused(&of(&host("  bootMACAddress: x\n")), "spec.bootMACAddress", "not a MAC address");
    let libvirt = of(&host(&format!("{mac}  bmc: {{address: \"libvirt://h\", credentialsName: x}}\n")));
    assert!(machines(&libvirt)[0].spec.bmc.is_none());
    assert!(note(&libvirt, "spec.bmc.address").said.contains("no driver here speaks `libvirt`"));
    let external = of(&host(&format!(
        "{mac}  externallyProvisioned: true\n  bootMode: UEFISecureBoot\n  bmc: {{address: 10.0.0.6}}\n  image: {{url: \"http://h/i.raw\"}}\n"
    )));
    assert!(machines(&external)[0].spec.protected && external.assignments.is_empty());
    assert_eq!(machines(&external)[0].spec.bmc.as_ref().unwrap().address.as_str(), "ipmi://10.0.0.6");
}
