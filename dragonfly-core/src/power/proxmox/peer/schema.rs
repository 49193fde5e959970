//! The published API, and whether requests and answers are of it. `schema.json` names its source.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// Every method that this server has.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Schema {
    methods: Vec<Method>,
}

/// One verb of one path.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Method {
    pub(super) verb: String,
    /// `/nodes/{node}/qemu/{vmid}/config`
    pub(super) path: String,
    /// `["perm", "/vms/{vmid}", ["VM.Audit"], "any", 1]`
    #[serde(default)]
    pub(super) check: Value,
    /// `world` for everybody, `all` for everybody who is logged in.
    #[serde(default)]
    pub(super) user: Option<String>,
    /// Whether the node in the path carries it out.
    pub(super) proxied: bool,
    parameters: BTreeMap<String, Shape>,
    returns: Shape,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Shape {
    #[serde(default)]
    r#type: Option<String>,
    #[serde(default)]
    optional: bool,
    #[serde(default)]
    r#enum: Vec<String>,
    #[serde(default)]
    pattern: Option<String>,
    #[serde(default)]
    format: Option<String>,
    #[serde(default)]
    minimum: Option<f64>,
    #[serde(default)]
    maximum: Option<f64>,
    #[serde(default)]
    max_length: Option<usize>,
    #[serde(default)]
    requires: Option<String>,
    #[serde(default)]
    properties: BTreeMap<String, Self>,
    #[serde(default)]
    items: Option<Box<Self>>,
}

/// Text by name.
pub(super) type Parameters = BTreeMap<String, String>;

impl Schema {
    pub(super) fn published() -> Result<Self, serde_json::Error> {
        serde_json::from_str(include_str!("schema.json"))
    }

    /// The method for a path below `/api2/json`, and what stands in place of its braces.
    pub(super) fn find(&self, verb: &str, path: &[String]) -> Option<(&Method, Parameters)> {
        self.methods.iter().filter(|method| method.verb == verb).find_map(|method| {
            let parts: Vec<&str> = method.path.split('/').skip(1).collect();
            if parts.len() != path.len() {
                return None;
            }
            let mut found = Parameters::new();
            for (part, given) in parts.iter().zip(path) {
                match part.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
                    Some(name) => drop(found.insert(name.to_owned(), given.clone())),
                    None if part == given => {}
                    None => return None,
                }
            }
            Some((method, found))
        })
    }
}

/// `net0` for `net[n]`.
fn shape_of<'a>(shapes: &'a BTreeMap<String, Shape>, name: &str) -> Option<&'a Shape> {
    shapes.get(name).or_else(|| {
        let bare = name.trim_end_matches(|c: char| c.is_ascii_digit());
        (bare.len() < name.len()).then(|| shapes.get(&format!("{bare}[n]")))?
    })
}

impl Method {
    /// What is wrong with parameters, by name and in the words of Proxmox (`PVE::JSONSchema`).
    pub(super) fn check_parameters(&self, given: &Parameters) -> BTreeMap<String, String> {
        let mut wrong = BTreeMap::new();
        for (name, value) in given {
            let told = match shape_of(&self.parameters, name) {
                None => {
                    Some("property is not defined in schema and the schema does not allow additional properties".into())
                }
                Some(shape) => shape.wrong(value).or_else(|| {
                    let other = shape.requires.as_ref().filter(|other| !given.contains_key(*other))?;
                    Some(format!("missing property - '{name}' requires this property: {other}"))
                }),
            };
            wrong.extend(told.map(|told| (name.clone(), told)));
        }
        for (name, shape) in &self.parameters {
            if !shape.optional && !given.contains_key(name) {
                wrong.insert(name.clone(), "property is missing and it is not optional".to_owned());
            }
        }
        wrong
    }

    /// Why an answer cannot be one of this method.
    pub(super) fn check_answer(&self, data: &Value) -> Result<(), String> {
        self.returns.fits(data, &self.path)
    }
}

impl Shape {
    fn wrong(&self, value: &str) -> Option<String> {
        let number = value.parse::<f64>().ok();
        match self.r#type.as_deref() {
            Some("integer") if value.parse::<i64>().is_err() => {
                return Some(format!("type check ('integer') failed - got '{value}'"));
            }
            Some("number") if number.is_none() => return Some(format!("type check ('number') failed - got '{value}'")),
            Some("boolean") if !matches!(value, "0" | "1" | "on" | "off" | "yes" | "no" | "true" | "false") => {
                return Some(format!("type check ('boolean') failed - got '{value}'"));
            }
            _ => {}
        }
        if let (Some(least), Some(number)) = (self.minimum, number)
            && number < least
        {
            return Some(format!("value must have a minimum value of {least}"));
        }
        if let (Some(most), Some(number)) = (self.maximum, number)
            && number > most
        {
            return Some(format!("value must have a maximum value of {most}"));
        }
        if let Some(most) = self.max_length.filter(|most| value.chars().count() > *most) {
            return Some(format!("value may only be {most} characters long"));
        }
        if !self.r#enum.is_empty() && !self.r#enum.iter().any(|known| known == value) {
            return Some(format!(
                "value '{value}' does not have a value in the enumeration '{}'",
                self.r#enum.join(", ")
            ));
        }
        match (&self.pattern, &self.format) {
            (Some(pattern), _) if !matches(pattern, value) => Some("value does not match the regex pattern".to_owned()),
            (None, Some(format)) => wrong_format(format, value),
            _ => None,
        }
    }

    fn fits(&self, data: &Value, at: &str) -> Result<(), String> {
        let fail = |wanted: &str| Err(format!("{at}: {data} is no {wanted}"));
        match (self.r#type.as_deref(), data) {
            (Some("object"), Value::Object(map)) => {
                for (name, value) in map {
                    match shape_of(&self.properties, name) {
                        Some(shape) => shape.fits(value, &format!("{at}.{name}"))?,
                        None if self.properties.is_empty() => {}
                        None => return Err(format!("{at}.{name} is not in the schema")),
                    }
                }
                let missing = self.properties.iter().find(|(name, shape)| !shape.optional && !map.contains_key(*name));
                missing.map_or(Ok(()), |(name, _)| Err(format!("{at}.{name} is missing")))
            }
            (Some("array"), Value::Array(items)) => match &self.items {
                Some(shape) => items.iter().try_for_each(|item| shape.fits(item, &format!("{at}[]"))),
                None => Ok(()),
            },
            (Some("null"), Value::Null) | (None, _) => Ok(()),
            (Some("string"), Value::String(text)) if self.r#enum.is_empty() || self.r#enum.contains(text) => Ok(()),
            (Some("integer" | "number"), Value::Number(number)) => match (self.minimum, number.as_f64()) {
                (Some(least), Some(number)) if number < least => fail("number of this size"),
                _ => Ok(()),
            },
            // Perl has no other.
            (Some("boolean"), Value::Number(number)) if number.as_u64().is_some_and(|number| number < 2) => Ok(()),
            (Some(wanted), _) => fail(wanted),
        }
    }
}

/// Whether a value is of a pattern, for the patterns of parameters that are sent; of the others nothing is.
fn matches(pattern: &str, value: &str) -> bool {
    match pattern {
        r"(ide|sata|scsi|virtio)\d+" => {
            let bus = value.trim_end_matches(|c: char| c.is_ascii_digit());
            bus.len() < value.len() && ["ide", "sata", "scsi", "virtio"].contains(&bus)
        }
        _ => false,
    }
}

/// What is wrong with a value of this format, for the formats of parameters that are sent.
fn wrong_format(format: &str, value: &str) -> Option<String> {
    let is_word = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    let told = match format {
        "pve-node" if !is_word(value) => "value does not look like a valid node name",
        "pve-vmid" if value.parse::<u32>().is_err() => "value does not look like a valid VM ID",
        "dns-name" if !value.split('.').all(is_word) => "value does not look like a valid DNS name",
        "pve-configid-list" if !value.split([',', ';', ' ']).all(is_word) => "invalid configuration ID",
        "pve-qm-boot" => {
            let order = value.strip_prefix("order=").or_else(|| value.strip_prefix("legacy=")).unwrap_or(value);
            let is_order = value.starts_with("order=") && order.split([';', ' ']).all(is_word);
            let is_legacy = !order.is_empty() && order.len() <= 4 && order.chars().all(|c| "acdn".contains(c));
            return (!is_order && !is_legacy).then(|| "invalid format - value does not match the regex pattern".into());
        }
        _ => return None,
    };
    Some(told.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn method(verb: &str, path: &str) -> (Schema, Vec<String>) {
        let path: Vec<String> = path.split('/').skip(1).map(ToOwned::to_owned).collect();
        let schema = Schema::published().unwrap();
        assert!(schema.find(verb, &path).is_some(), "{verb} {path:?}");
        (schema, path)
    }

    #[test]
    fn parameters_are_judged() {
        let (schema, path) = method("PUT", "/nodes/pve1/qemu/101/config");
        let (put, found) = schema.find("PUT", &path).unwrap();
        assert!(put.check_parameters(&found).is_empty());
        let long = "x".repeat(8193);
        for (name, value, why) in [
            ("boot", "order=net0;scsi0", ""),
            ("boot", "cdn", ""),
            ("boot", "order=", "invalid format"),
            ("boot", "pxe", "invalid format"),
            ("bootdisk", "scsi0", ""),
            ("bootdisk", "net0", "regex pattern"),
            ("description", &long, "may only be 8192 characters long"),
            ("net7", "virtio=BC:24:11:00:00:01", ""),
            ("net", "virtio", "not defined in schema"),
            ("bootorder", "scsi0", "not defined in schema"),
            ("skiplock", "maybe", "type check ('boolean') failed"),
            ("bios", "coreboot", "does not have a value in the enumeration 'seabios, ovmf'"),
            ("cores", "two", "type check ('integer') failed"),
            ("cores", "0", "minimum value of 1"),
            ("force", "1", "requires this property: delete"),
            ("vmid", "7", "minimum value of 100"),
            ("startdate", "tomorrow", "regex pattern"),
        ] {
            let mut given = found.clone();
            given.insert(name.to_owned(), value.to_owned());
            let wrong = put.check_parameters(&given);
            let told = wrong.get(name).map(String::as_str).unwrap_or_default();
            assert!(told.is_empty() == why.is_empty() && told.contains(why), "{name}={value}: {told}");
        }
        let (schema, path) = method("POST", "/access/ticket");
        let (login, found) = schema.find("POST", &path).unwrap();
        assert_eq!(login.check_parameters(&found).len(), 2, "user and password");
    }

    #[test]
    fn answers_are_judged() {
        let (schema, path) = method("GET", "/nodes/pve1/tasks/UPID/status");
        let (status, _) = schema.find("GET", &path).unwrap();
        let good = json!({ "upid": "U", "node": "pve1", "pid": 1, "pstart": 2, "starttime": 3, "type": "qmstart",
            "id": "101", "user": "root@pam", "status": "running" });
        status.check_answer(&good).unwrap();
        for (name, value) in
            [("status", json!("waiting")), ("pid", json!("1")), ("id", Value::Null), ("more", json!(1))]
        {
            let mut bad = good.clone();
            bad[name] = value;
            assert!(status.check_answer(&bad).unwrap_err().contains(name));
        }
        assert!(status.check_answer(&json!({})).unwrap_err().contains("is missing"));
        assert!(status.check_answer(&json!([])).is_err());
    }
}
