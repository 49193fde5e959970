//! The published API, and whether requests and answers are of it. Who starts a cluster brings the API with it.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Every method that this server has.
const METHODS: [(&str, &str); 16] = [
    ("POST", "/access/ticket"),
    ("GET", "/access/permissions"),
    ("GET", "/version"),
    ("GET", "/nodes"),
    ("GET", "/cluster/status"),
    ("GET", "/cluster/resources"),
    ("GET", "/nodes/{node}/qemu"),
    ("GET", "/nodes/{node}/qemu/{vmid}/config"),
    ("PUT", "/nodes/{node}/qemu/{vmid}/config"),
    ("GET", "/nodes/{node}/qemu/{vmid}/pending"),
    ("GET", "/nodes/{node}/qemu/{vmid}/status/current"),
    ("POST", "/nodes/{node}/qemu/{vmid}/status/start"),
    ("POST", "/nodes/{node}/qemu/{vmid}/status/stop"),
    ("POST", "/nodes/{node}/qemu/{vmid}/status/shutdown"),
    ("POST", "/nodes/{node}/qemu/{vmid}/status/reset"),
    ("GET", "/nodes/{node}/tasks/{upid}/status"),
];

/// The API of Proxmox VE, as it is published: paths, parameters, permissions and answers.
#[derive(Debug, Clone)]
pub struct Schema {
    methods: Vec<Method>,
}

/// One verb of one path.
#[derive(Debug, Clone)]
pub(super) struct Method {
    pub(super) verb: String,
    /// `/nodes/{node}/qemu/{vmid}/config`
    pub(super) path: String,
    /// `["perm", "/vms/{vmid}", ["VM.Audit"], "any", 1]`
    pub(super) check: Value,
    /// `world` for everybody, `all` for everybody who is logged in.
    pub(super) user: Option<String>,
    /// Whether the node in the path carries it out.
    pub(super) proxied: bool,
    parameters: BTreeMap<String, Shape>,
    returns: Shape,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Shape {
    r#type: Option<String>,
    #[serde(deserialize_with = "or_default")]
    optional: bool,
    r#enum: Vec<String>,
    pattern: Option<String>,
    /// The name of a format; of a list of properties in one string, nothing.
    #[serde(deserialize_with = "name_alone")]
    format: Option<String>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    max_length: Option<usize>,
    extra: ShapeExtra,
    properties: BTreeMap<String, Self>,
    items: Option<Box<Self>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct ShapeExtra {
    requires: Option<String>,
}

fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

fn name_alone<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<Value>::deserialize(from)?.and_then(|format| format.as_str().map(ToOwned::to_owned)))
}

mod file {
    //! How a published API stands in a file.

    use serde::Deserialize;
    use serde_json::Value;

    use super::{Shape, or_default};

    #[derive(Deserialize)]
    pub(super) struct Api {
        pub(super) paths: Vec<Path>,
    }

    #[derive(Deserialize)]
    pub(super) struct Path {
        pub(super) path: String,
        pub(super) methods: Vec<Method>,
    }

    #[derive(Deserialize)]
    pub(super) struct Method {
        pub(super) verb: String,
        #[serde(default)]
        pub(super) permissions: Option<Permissions>,
        #[serde(default)]
        pub(super) extra: MethodExtra,
        #[serde(default)]
        pub(super) parameters: Vec<Parameter>,
        #[serde(default, deserialize_with = "or_default")]
        pub(super) returns: Shape,
    }

    #[derive(Default, Deserialize)]
    #[serde(default)]
    pub(super) struct Permissions {
        pub(super) user: Option<String>,
        pub(super) expression: Value,
    }

    #[derive(Default, Deserialize)]
    #[serde(default)]
    pub(super) struct MethodExtra {
        pub(super) proxyto: Option<Value>,
    }

    #[derive(Deserialize)]
    pub(super) struct Parameter {
        pub(super) name: String,
        pub(super) definition: Shape,
    }
}

/// Text by name.
pub(super) type Parameters = BTreeMap<String, String>;

impl Schema {
    /// Reads it from JSON: `{"paths": [{"path": "/version", "methods": [{"verb": "GET", "parameters": [{"name": …,
    /// "definition": …}], "permissions": …, "returns": …}]}]}`, with definitions as in a JSON schema. Other fields are
    /// passed over, and so are methods that this server does not have.
    pub fn read(file: impl io::Read) -> io::Result<Self> {
        let all = Self::all(file)?;
        let wanted = METHODS.iter().map(|(verb, path)| {
            let found = all.methods.iter().find(|method| method.verb == *verb && method.path == *path);
            found.cloned().ok_or_else(|| io::Error::other(format!("the API has no method {verb} {path}")))
        });
        Ok(Self { methods: wanted.collect::<io::Result<_>>()? })
    }

    fn all(file: impl io::Read) -> io::Result<Self> {
        let api: file::Api = serde_json::from_reader(io::BufReader::new(file))?;
        let of_path = |file::Path { path, methods }: file::Path| {
            methods.into_iter().map(move |method| {
                let file::Method { verb, permissions, extra, parameters, returns } = method;
                let file::Permissions { user, expression } = permissions.unwrap_or_default();
                let parameters = parameters.into_iter().map(|one| (one.name, one.definition)).collect();
                let (check, proxied) = (expression["check"].clone(), extra.proxyto.is_some());
                Method { verb, path: path.clone(), check, user, proxied, parameters, returns }
            })
        };
        Ok(Self { methods: api.paths.into_iter().flat_map(of_path).collect() })
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
                    let other = shape.extra.requires.as_ref().filter(|other| !given.contains_key(*other))?;
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
mod tests;
