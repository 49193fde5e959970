//! Controllers: Rufio's Machine, and the addresses of Metal3.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::Value;
use url::Url;

use super::fields::Fields;
use super::read::Document;
use super::secret::Secrets;
use super::{Note, Outcome, hardware, known};
use crate::resource::hardware::{Bmc, NameRef};

/// The controllers of the files, and which of them belong to a machine.
#[derive(Debug)]
pub(super) struct Controllers<'a> {
    all: Vec<&'a Document>,
    used: RefCell<BTreeSet<usize>>,
}

/// Drivers of Rufio that speak Redfish.
const REDFISH: [&str; 5] = ["gofish", "redfish", "dell", "supermicro", "openbmc"];

impl<'a> Controllers<'a> {
    pub(super) fn new(documents: &'a [Document]) -> Self {
        Self { all: documents.iter().filter(|document| document.is("Machine")).collect(), used: RefCell::default() }
    }

    pub(super) fn is_used(&self, document: &Document) -> bool {
        self.used.borrow().iter().any(|index| self.all.get(*index).is_some_and(|used| std::ptr::eq(*used, document)))
    }

    /// The controller that a Hardware names.
    pub(super) fn convert(
        &self,
        name: &str,
        machine: &Document,
        secrets: &Secrets<'_>,
        is_uefi: Option<bool>,
        notes: &mut Vec<Note>,
    ) -> Option<Bmc> {
        let found = self.all.iter().position(|bmc| bmc.name == name && bmc.namespace == machine.namespace);
        let Some((index, document)) = found.and_then(|index| Some((index, *self.all.get(index)?))) else {
            let said = format!("the controller `{name}` is not in these files; add it with `dragonfly bmc set`");
            notes.push(machine.note("spec.bmcRef", Outcome::Lost, said));
            return None;
        };
        self.used.borrow_mut().insert(index);
        convert(document, secrets, is_uefi, notes)
    }
}

pub(super) fn convert(
    document: &Document,
    secrets: &Secrets<'_>,
    is_uefi: Option<bool>,
    notes: &mut Vec<Note>,
) -> Option<Bmc> {
    const OPTIONS: &str = "/spec/connection/providerOptions";
    let mut fields = Fields::new(document);
    super::secret::labels(&mut fields);
    let host = fields.take_text("/spec/connection/host");
    let port = fields.take_text("/spec/connection/port");
    let insecure = fields.take_bool("/spec/connection/insecureTLS").unwrap_or(false);
    let order = document.value.pointer(&format!("{OPTIONS}/preferredOrder")).and_then(Value::as_array);
    let preferred = order.and_then(|order| order.first()).and_then(Value::as_str).map(str::to_owned);
    let has = |name: &str| document.value.pointer(&format!("{OPTIONS}/{name}")).is_some();
    let is_redfish = match preferred.as_deref() {
        Some(driver) if REDFISH.contains(&driver) => true,
        Some("ipmitool" | "ipmi") => false,
        Some(other) => {
            let path = "spec.connection.providerOptions.preferredOrder";
            notes.push(document.note(path, Outcome::Refused, format!("no driver here speaks as `{other}` does")));
            return None;
        }
        None if has("rpc") || has("intelAMT") || has("homeassistant") => {
            let said = "no driver here speaks to it; it is switched by ipmi, redfish, wol or proxmox";
            notes.push(document.note("spec.connection.providerOptions", Outcome::Refused, said));
            return None;
        }
        None => has("redfish") && !has("ipmitool"),
    };
    if preferred.is_none() && !is_redfish {
        let said = "is spoken to by IPMI, which is tried first there; where it speaks Redfish alone, set its address to redfish://HOST";
        notes.push(document.note("spec.connection.providerOptions", Outcome::Changed, said));
    }
    let mut address = String::from(if is_redfish { "redfish://" } else { "ipmi://" });
    match host.as_deref().map(bare_host) {
        Some(Some(host)) => address.push_str(&host),
        _ => {
            let said = host.as_deref().and_then(hardware::unfilled).unwrap_or_else(|| "is not a host".to_owned());
            notes.push(document.note("spec.connection.host", Outcome::Refused, said));
            return None;
        }
    }
    let own = fields.take_text(&format!("{OPTIONS}/{}/port", if is_redfish { "redfish" } else { "ipmitool" }));
    // 623 is what every Machine has unless told: it says nothing of Redfish.
    let usual = if is_redfish { ["443", "623"] } else { ["623", "0"] };
    if let Some(port) = own.or(port).filter(|port| !usual.contains(&port.as_str()) && port != "0") {
        address.push_str(&format!(":{port}"));
    }
    let cipher = fields.take_text(&format!("{OPTIONS}/ipmitool/cipherSuite")).filter(|_| !is_redfish);
    match (cipher.as_deref(), is_redfish && insecure) {
        (Some(suite @ ("3" | "17")), _) => address.push_str(&format!("?cipher={suite}")),
        (Some(_), _) => {
            let path = "spec.connection.providerOptions.ipmitool.cipherSuite";
            notes.push(document.note(path, Outcome::Lost, "cipher suites 17 and 3 are spoken, in that order"));
        }
        (None, true) => address.push_str("?tls=insecure"),
        (None, false) => {}
    }
    let reference = fields.take("/spec/connection/authSecretRef").unwrap_or_default();
    let part = |name: &str| reference.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let path = "spec.connection.authSecretRef";
    let secret_ref = part("name").map(|name| NameRef {
        name: secrets.refer(name, part("namespace").unwrap_or(&document.namespace), document, path, notes),
    });
    fields.tell_rest(&known::controller(), notes);
    match Url::parse(&address) {
        Ok(address) => Some(Bmc { address, secret_ref, boot_mode: hardware::boot_mode(is_uefi) }),
        Err(error) => {
            notes.push(document.note("spec.connection", Outcome::Refused, format!("gives no address: {error}")));
            None
        }
    }
}

/// A host name or an address; IPv6 in brackets.
fn bare_host(host: &str) -> Option<String> {
    if host.parse::<std::net::Ipv6Addr>().is_ok() {
        return Some(format!("[{host}]"));
    }
    let fits = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.');
    (!host.is_empty() && host.bytes().all(fits)).then(|| host.to_owned())
}

/// An address as Metal3 writes it, as one of ours. The error says why there is none.
pub(super) fn metal3_address(text: &str, insecure: bool) -> Result<Url, String> {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (scheme, rest),
        // A bare host speaks IPMI.
        None => ("ipmi", text),
    };
    let (driver, transport) = scheme.split_once('+').unwrap_or((scheme, "https"));
    if rest.contains('@') {
        return Err("user and password do not belong into an address".to_owned());
    }
    let address = match driver {
        "ipmi" => format!("ipmi://{}", rest.trim_end_matches('/')),
        "redfish"
        | "redfish-virtualmedia"
        | "redfish-uefihttp"
        | "idrac-redfish"
        | "idrac-virtualmedia"
        | "ilo5-redfish"
        | "ilo5-virtualmedia" => {
            let tls = match (transport, insecure) {
                ("http", _) => "?tls=off",
                ("https", true) => "?tls=insecure",
                ("https", false) => "",
                _ => {
                    return Err(format!(
                        "`{scheme}` is not known; there are {driver}, {driver}+http and {driver}+https"
                    ));
                }
            };
            format!("redfish://{rest}{tls}")
        }
        other => return Err(format!("no driver here speaks `{other}`; there are ipmi and redfish")),
    };
    let url = Url::parse(&address).map_err(|error| format!("is not an address: {error}"))?;
    if url.host_str().is_none_or(str::is_empty) { Err("names no host".to_owned()) } else { Ok(url) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_metal3_become_ours() {
        let table = [
            ("ipmi://10.0.0.6", false, Ok("ipmi://10.0.0.6")),
            ("ipmi://10.0.0.6:6230", true, Ok("ipmi://10.0.0.6:6230")),
            ("10.0.0.6", false, Ok("ipmi://10.0.0.6")),
            ("redfish://10.0.0.6/redfish/v1/Systems/1", false, Ok("redfish://10.0.0.6/redfish/v1/Systems/1")),
            (
                "redfish+http://10.0.0.6:8000/redfish/v1/Systems/1",
                true,
                Ok("redfish://10.0.0.6:8000/redfish/v1/Systems/1?tls=off"),
            ),
            (
                "idrac-virtualmedia+https://h/redfish/v1/Systems/S.1",
                true,
                Ok("redfish://h/redfish/v1/Systems/S.1?tls=insecure"),
            ),
            ("ilo5-redfish://h/redfish/v1/Systems/1", false, Ok("redfish://h/redfish/v1/Systems/1")),
            ("libvirt://192.168.122.1:6233/", false, Err("no driver here speaks `libvirt`")),
            ("redfish+ftp://h/x", false, Err("`redfish+ftp` is not known")),
            ("ipmi://root:calvin@h", false, Err("do not belong into an address")),
            ("", false, Err("")),
        ];
        for (text, insecure, wanted) in table {
            match (metal3_address(text, insecure), wanted) {
                (Ok(url), Ok(wanted)) => assert_eq!(url.as_str(), wanted, "{text}"),
                (Err(said), Err(wanted)) => {
                    assert!(said.contains(wanted) && !said.contains("calvin"), "{text}: {said}")
                }
                (got, wanted) => panic!("{text}: {got:?}, wanted {wanted:?}"),
            }
        }
    }
}
