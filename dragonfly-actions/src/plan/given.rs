//! A typed field that may still hold a template expression.

use std::fmt;
use std::marker::PhantomData;

use serde::{Deserialize, Deserializer};

/// A value that a template writes as one word.
pub trait Word: Sized {
    /// What to write, for an error: `a size such as 512MiB or rest`.
    const WHAT: &'static str;

    /// From text. The error says what is wrong with it.
    fn from_text(text: &str) -> Result<Self, String>;

    /// From a bare number.
    fn from_number(number: u64) -> Result<Self, String> {
        Self::from_text(&number.to_string())
    }
}

/// A field of type `T`, or the template expression that will become one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given<T> {
    /// Written out.
    Known(T),
    /// Holds `{{ ... }}`: known when the template is filled for a machine.
    Template(String),
}

impl<T> Given<T> {
    /// The value, if it is written out.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Template(_) => None,
        }
    }
}

impl<T> From<T> for Given<T> {
    fn from(value: T) -> Self {
        Self::Known(value)
    }
}

/// Whether a string still holds a template expression.
pub(crate) fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%")
}

impl<'de, T: Word> Deserialize<'de> for Given<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(PhantomData<T>);
        impl<T: Word> serde::de::Visitor<'_> for Visitor<T> {
            type Value = Given<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::WHAT)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                if is_template(text) {
                    return Ok(Given::Template(text.to_owned()));
                }
                T::from_text(text).map(Given::Known).map_err(E::custom)
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Self::Value, E> {
                T::from_number(number).map(Given::Known).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor(PhantomData))
    }
}

impl Word for u32 {
    const WHAT: &'static str = "a whole number";

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("`{text}` is not a whole number from 0 to {}", Self::MAX))
    }
}

impl Word for u64 {
    const WHAT: &'static str = "a whole number";

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("`{text}` is not a whole number"))
    }
}

impl Word for uuid::Uuid {
    const WHAT: &'static str = "a UUID such as 0fc63daf-8483-4772-8e79-3d69d8477de4";

    fn from_text(text: &str) -> Result<Self, String> {
        Self::try_parse(text)
            .map_err(|_| format!("`{text}` is not a UUID; write {}", Self::WHAT.trim_start_matches("a ")))
    }
}
