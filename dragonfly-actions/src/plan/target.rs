//! Which partition, or which disk: where a step works.

use std::fmt;

use serde::{Deserialize, Deserializer};

use super::Check;
use super::disk::DiskSelector;
use super::given::Given;

/// A partition: `{disk: {...}, partition: 3}`, `{label: root}`, or just `root` or `3`.
///
/// A label is the partition's name in the table (GPT) or its file system's label. Without `disk`, a
/// disk that the same run has written is meant before any other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// On this disk.
    pub disk: Option<DiskSelector>,
    /// By number, as in `sda3`.
    pub partition: Option<Given<u32>>,
    /// By name in the table or label of its file system.
    pub label: Option<String>,
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Target;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a label, a partition number, `{label: root}` or `{disk: {...}, partition: 3}`")
            }

            fn visit_str<E>(self, label: &str) -> Result<Target, E> {
                Ok(Target { label: Some(label.to_owned()), ..Target::default() })
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Target, E> {
                let number = u32::try_from(number).map_err(|_| E::custom("no partition has such a number"))?;
                Ok(Target { partition: Some(Given::Known(number)), ..Target::default() })
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Target, A::Error> {
                #[derive(Default, Deserialize)]
                #[serde(rename_all = "camelCase", default)]
                struct Fields {
                    disk: Option<DiskSelector>,
                    partition: Option<Given<u32>>,
                    label: Option<String>,
                }
                let Fields { disk, partition, label } =
                    Fields::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                Ok(Target { disk, partition, label })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Target {
    /// The partition of this label.
    pub fn labelled(label: impl Into<String>) -> Self {
        Self { label: Some(label.into()), ..Self::default() }
    }

    pub(crate) fn check(&self, path: &str, check: &mut Check) {
        if let Some(disk) = &self.disk {
            disk.check(&format!("{path}.disk"), check);
        }
        if let Some(label) = &self.label {
            check.plain(&format!("{path}.label"), label);
        }
        if let Some(0) = check.optional(&format!("{path}.partition"), self.partition.as_ref()) {
            check.say(format!("{path}.partition"), "partitions count from 1");
        }
        match (&self.partition, &self.label) {
            (None, None) => check.say(path, "names no partition; write `label: root` or `partition: 1`"),
            (Some(_), Some(_)) => check.say(path, "has a label and a number; keep one of them"),
            _ => {}
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.label, &self.partition) {
            (Some(label), _) => write!(f, "partition `{label}`")?,
            (None, Some(Given::Known(number))) => write!(f, "partition {number}")?,
            (None, Some(Given::Template(text))) => write!(f, "partition {text}")?,
            (None, None) => f.write_str("no partition")?,
        }
        match &self.disk {
            Some(disk) => write!(f, " on {disk}"),
            None => Ok(()),
        }
    }
}
