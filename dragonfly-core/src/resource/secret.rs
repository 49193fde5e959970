//! Secret: values that are written and never read back.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Kind, NoStatus, Resource, Spec};
use crate::secret::{Sealed, SecretString};

/// Values that are written and never read back: reads give key names.
pub type SecretObject = Resource<SecretSpec>;

/// A secret's values: plain on the way in, sealed at rest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretSpec {
    /// As given by a person; never stored, never written out.
    #[serde(default, skip_serializing)]
    #[schemars(with = "BTreeMap<String, String>")]
    pub data: BTreeMap<String, SecretString>,
    /// As stored.
    #[schemars(skip)]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sealed: BTreeMap<String, Sealed>,
}

impl Spec for SecretSpec {
    const KIND: Kind = Kind::SECRET;
    type Status = NoStatus;
}
