//! Metal3's BareMetalHost.

use serde_json::{Map, Value, json};

use super::actions::{check, is_digest, mapped};
use super::bmc;
use super::fields::Fields;
use super::hardware::{Machine, unfilled};
use super::read::Document;
use super::secret::{Secrets, labels};
use super::workflow::Made;
use super::{Assignment, Note, Options, Outcome, known, read};
use crate::power::BootMode;
use crate::resource::hardware::{Bmc, NameRef};
use crate::resource::template::{TemplateAction, TemplateSpec};
use crate::resource::{Hardware, HardwareSpec, Record, Template};

pub(super) fn convert(
    document: &Document,
    secrets: &Secrets<'_>,
    options: &Options,
    machines: &mut Vec<Machine>,
    made: &mut Made,
    notes: &mut Vec<Note>,
) {
    let name = document.name.clone();
    if machines.iter().any(|machine| machine.object.name() == name) {
        notes.push(document.note("metadata.name", Outcome::Refused, "a machine of this name stands before it"));
        return;
    }
    let mut fields = Fields::new(document);
    let mut spec = HardwareSpec::default();
    let (names, mut annotations) = labels(&mut fields);
    if let Some(words) = fields.take_text("/spec/description") {
        annotations.entry("description".to_owned()).or_insert(words);
    }
    match fields.take_text("/spec/bootMACAddress").map(|text| (text.parse::<crate::Mac>(), text)) {
        Some((Ok(mac), _)) if mac.is_unicast() => spec.macs.push(mac),
        Some((Ok(mac), _)) => {
            let said = format!("{mac} is not the address of one card");
            notes.push(document.note("spec.bootMACAddress", Outcome::Refused, said));
            return;
        }
        Some((Err(error), text)) => {
            let said = unfilled(&text).unwrap_or_else(|| error.to_string());
            notes.push(document.note("spec.bootMACAddress", Outcome::Refused, said));
            return;
        }
        None => {
            let said = "is missing, so the machine could not be known when it comes";
            notes.push(document.note("spec.bootMACAddress", Outcome::Refused, said));
            return;
        }
    }
    spec.bmc = controller(document, &mut fields, secrets, notes);
    if fields.take_bool("/spec/externallyProvisioned") == Some(true) {
        spec.protected = true;
        let said = "the machine is protected: assign and reimage are refused";
        notes.push(document.note("spec.externallyProvisioned", Outcome::Changed, said));
    }
    let template = template(document, &mut fields, options, notes);
    if let Some(template) = template.filter(|made| read::is_taken(document, Record::from(made).to_json(), notes)) {
        let state = document.text("/status/provisioning/state").unwrap_or_default().to_owned();
        if matches!(state.as_str(), "" | "registering" | "inspecting" | "preparing" | "available" | "ready") {
            if spec.protected {
                let said = "it is not assigned: the machine was provisioned by somebody else";
                notes.push(document.note("spec.image", Outcome::Lost, said));
            } else {
                let (hardware, workflow) = (name.clone(), name.clone());
                made.assignments.push(Assignment { hardware, template: template.name().to_owned(), workflow });
            }
        } else {
            let said = format!("it is not assigned: the machine is {state} there already");
            notes.push(document.note("status.provisioning.state", Outcome::Lost, said));
        }
        made.made.push(template);
    }
    fields.tell_rest(&known::bare_metal_host(), notes);
    let mut object = Hardware::new(name, spec);
    (object.metadata.labels, object.metadata.annotations) = (names, annotations);
    if !read::is_taken(document, Record::from(&object).to_json(), notes) {
        made.assignments.retain(|pair| pair.hardware != document.name);
        return;
    }
    machines.push(Machine {
        agent: String::new(),
        namespace: document.namespace.clone(),
        told: None,
        manifest: Value::Null,
        object,
    });
}

fn controller(
    document: &Document,
    fields: &mut Fields<'_>,
    secrets: &Secrets<'_>,
    notes: &mut Vec<Note>,
) -> Option<Bmc> {
    let boot_mode = match fields.take_text("/spec/bootMode").as_deref() {
        Some("legacy") => Some(BootMode::Legacy),
        Some("UEFI") => Some(BootMode::Uefi),
        Some("UEFISecureBoot") => {
            notes.push(document.note(
                "spec.bootMode",
                Outcome::Changed,
                "Secure Boot is not switched on; it boots by UEFI",
            ));
            Some(BootMode::Uefi)
        }
        Some(_) => {
            notes.push(document.note("spec.bootMode", Outcome::Lost, "is not known; there are legacy and UEFI"));
            None
        }
        None => None,
    };
    let address = fields.take_text("/spec/bmc/address");
    let insecure = fields.take_bool("/spec/bmc/disableCertificateVerification").unwrap_or(false);
    let account = fields.take_text("/spec/bmc/credentialsName");
    let address = match bmc::metal3_address(&address?, insecure) {
        Ok(address) => address,
        Err(said) => {
            notes.push(document.note("spec.bmc.address", Outcome::Lost, said));
            return None;
        }
    };
    let path = "spec.bmc.credentialsName";
    let secret_ref =
        account.map(|name| NameRef { name: secrets.refer(&name, &document.namespace, document, path, notes) });
    Some(Bmc { address, secret_ref, boot_mode })
}

/// The image as a Template that writes it and reboots.
fn template(
    document: &Document,
    fields: &mut Fields<'_>,
    options: &Options,
    notes: &mut Vec<Note>,
) -> Option<Template> {
    let url = fields.take_text("/spec/image/url")?;
    let (url, changed) = mapped(&url, &options.urls);
    let mut refused = check(&url).err();
    match fields.take_text("/spec/image/format").as_deref() {
        None | Some("raw") => {}
        Some(other) => {
            refused = refused
                .or_else(|| Some(format!("images of the format `{other}` are not written; convert it to a raw one")));
        }
    }
    if url.rsplit('.').next().is_some_and(|end| matches!(end, "qcow2" | "iso")) {
        refused = refused.or_else(|| Some("only raw images are written; convert it to a raw one".to_owned()));
    }
    if let Some(said) = refused {
        notes.push(document.note("spec.image", Outcome::Refused, format!("no Template is made: {said}")));
        for field in ["checksum", "checksumType"] {
            fields.take(&format!("/spec/image/{field}"));
        }
        return None;
    }
    if let Some(said) = changed {
        notes.push(document.note("spec.image.url", Outcome::Changed, said));
    }
    let mut with = Map::from_iter([("url".to_owned(), json!(url))]);
    let (sum, kind) = (fields.take_text("/spec/image/checksum"), fields.take_text("/spec/image/checksumType"));
    let digest = sum.as_deref().and_then(|sum| {
        let by_length = match sum.len() {
            64 => "sha256",
            128 => "sha512",
            _ => "",
        };
        let kind = kind.as_deref().filter(|kind| *kind != "auto").unwrap_or(by_length);
        Some(format!("{kind}:{sum}")).filter(|digest| is_digest(digest))
    });
    match digest {
        Some(digest) => {
            with.insert("digest".to_owned(), json!(digest));
        }
        None => {
            with.insert("insecureNoDigest".to_owned(), json!(true));
            let said = "whatever comes from this URL is written (`insecureNoDigest: true`): a digest is sha256 or sha512 in \
                        hex here, no other kind and no URL of one. Set `digest: sha256:...` in the Template";
            notes.push(document.note("spec.image.checksum", Outcome::Changed, said));
        }
    }
    if let Some(disk) = disk(document, fields, notes) {
        with.insert("disk".to_owned(), disk);
    }
    let step = |name: &str, action: &str, with: Value| TemplateAction {
        name: name.to_owned(),
        action: action.to_owned(),
        with,
        timeout_seconds: None,
    };
    let actions = vec![step("image", "image2disk", Value::Object(with)), step("reboot", "reboot", json!({}))];
    let description = format!("image of {}", document.name);
    Some(Template::new(document.name.clone(), TemplateSpec { description, actions, ..TemplateSpec::default() }))
}

/// Hints for the root disk as a selector.
fn disk(document: &Document, fields: &mut Fields<'_>, notes: &mut Vec<Note>) -> Option<Value> {
    let mut disk = Map::new();
    let at = |name: &str| format!("/spec/rootDeviceHints/{name}");
    for (name, field) in [("deviceName", "name"), ("serialNumber", "serial"), ("wwn", "wwn")] {
        let Some(text) = document.text(&at(name)).map(str::to_owned) else { continue };
        if name == "deviceName" && text.starts_with("/dev/disk/") {
            continue;
        }
        fields.take(&at(name));
        disk.insert(field.to_owned(), json!(text));
    }
    if let Some(gigabytes) = fields.take_text(&at("minSizeGigabytes")) {
        disk.insert("minSize".to_owned(), json!(format!("{gigabytes}GB")));
    }
    if let Some(rotational) = fields.take_bool(&at("rotational")) {
        disk.insert("rotational".to_owned(), json!(rotational));
    }
    let mut is_part = |name: &str, said: &str| {
        if fields.take(&at(name)).is_some() {
            notes.push(document.note(&format!("spec.rootDeviceHints.{name}"), Outcome::Lost, said));
        }
    };
    is_part("model", "a part of the model's name is meant there, and the whole of it here");
    is_part("vendor", "disks are not known by their vendor; by serial, wwn, model, bus and size");
    is_part("hctl", "disks are not known by their place; by serial, wwn, model, bus and size");
    is_part("wwnWithExtension", "`wwn` is what is looked at");
    is_part("wwnVendorExtension", "`wwn` is what is looked at");
    is_part("deviceName", "is a link; name the disk by what it is: `disk: {serial: ...}`");
    (!disk.is_empty()).then_some(Value::Object(disk))
}
