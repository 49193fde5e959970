//! The fields that a type has at some place, for errors about one that it does not have.

use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer as _, MapAccess, SeqAccess, Visitor,
};
use serde_ignored::Path;

use crate::near::did_you_mean;

/// One step from a value into what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// The field or key of this name.
    Key(String),
    /// A place in a list: all places of one list are alike.
    Place,
}

/// The steps to what `serde_ignored` found.
pub(crate) fn steps(path: &Path<'_>) -> Vec<Step> {
    fn walk(path: &Path<'_>, out: &mut Vec<Step>) {
        match path {
            Path::Root => {}
            Path::Seq { parent, .. } => {
                walk(parent, out);
                out.push(Step::Place);
            }
            Path::Map { parent, key } => {
                walk(parent, out);
                out.push(Step::Key(key.clone()));
            }
            Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
                walk(parent, out);
            }
        }
    }
    let mut out = Vec::new();
    walk(path, &mut out);
    out
}

/// That `T` has no such field, with the one that was meant or all that there are.
pub(crate) fn no_such_field<T: DeserializeOwned>(steps: &[Step]) -> String {
    const NONE: &str = "there is no such field";
    let Some((Step::Key(word), parent)) = steps.split_last() else { return NONE.to_owned() };
    let fields = of::<T>(parent);
    match did_you_mean(word, fields.iter().copied()) {
        Some(question) => format!("{NONE}; {question}"),
        None if fields.is_empty() => NONE.to_owned(),
        None => format!("{NONE}; there are: {}", fields.join(", ")),
    }
}

/// The names of the fields of `T` at a place in it; none when it has no fields there, or a shape of its own.
pub(crate) fn of<T: DeserializeOwned>(place: &[Step]) -> &'static [&'static str] {
    let mut found = None;
    // It always ends in an error: there is no value, only the way to one.
    let _ = T::deserialize(Seek { rest: place, found: &mut found });
    found.unwrap_or_default()
}

/// Walks through a type along a path and notes the fields at its end.
struct Seek<'a> {
    rest: &'a [Step],
    found: &'a mut Option<&'static [&'static str]>,
}

/// The end of every walk.
#[derive(Debug)]
struct Done;

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the walk has ended")
    }
}

impl std::error::Error for Done {}

impl serde::de::Error for Done {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

impl<'de> Deserializer<'de> for Seek<'_> {
    type Error = Done;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Done> {
        match self.rest.first() {
            Some(Step::Key(_)) => visitor.visit_map(self),
            Some(Step::Place) => visitor.visit_seq(self),
            None => Err(Done),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Done> {
        if self.rest.is_empty() {
            *self.found = Some(fields);
            return Err(Done);
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Done> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Done> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// A map of the one entry that leads on.
impl<'de> MapAccess<'de> for Seek<'_> {
    type Error = Done;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Done> {
        match self.rest.first() {
            Some(Step::Key(key)) => {
                let key: serde::de::value::StrDeserializer<'_, Done> = key.as_str().into_deserializer();
                seed.deserialize(key).map(Some)
            }
            _ => Err(Done),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Done> {
        let rest = self.rest.get(1..).ok_or_else(|| Done::custom(""))?;
        seed.deserialize(Seek { rest, found: self.found })
    }
}

/// A list of the one item that leads on.
impl<'de> SeqAccess<'de> for Seek<'_> {
    type Error = Done;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Done> {
        let rest = self.rest.get(1..).ok_or_else(|| Done::custom(""))?;
        seed.deserialize(Seek { rest, found: self.found }).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{HardwareSpec, Metadata, NetworkSpec, TemplateSpec};

    fn key(word: &str) -> Step {
        Step::Key(word.to_owned())
    }

    #[test]
    fn finds_fields_at_the_root_in_lists_options_and_maps() {
        assert!(of::<NetworkSpec>(&[]).contains(&"leaseSeconds"));
        assert_eq!(of::<NetworkSpec>(&[key("pool")]), ["start", "end"]);
        assert!(of::<TemplateSpec>(&[key("actions"), Step::Place]).contains(&"action"));
        let secret = [key("values"), key("any"), key("valueFrom"), key("secretRef")];
        assert_eq!(of::<TemplateSpec>(&secret), ["name", "key"]);
        assert!(of::<HardwareSpec>(&[key("bmc")]).contains(&"secretRef"));
        // A walk into what is no structure, or does not exist, finds nothing and ends.
        for nowhere in [vec![key("interface")], vec![key("none")], vec![Step::Place], vec![key("dhcp"), key("x")]] {
            assert!(of::<NetworkSpec>(&nowhere).is_empty(), "{nowhere:?}");
        }
    }

    #[test]
    fn names_the_field_that_was_meant_or_all() {
        let said = |word: &str| no_such_field::<NetworkSpec>(&[key(word)]);
        assert_eq!(said("interfce"), "there is no such field; did you mean `interface`?");
        assert!(said("colour").contains("there are: interface, dhcp, subnet"), "{}", said("colour"));
        assert!(no_such_field::<Metadata>(&[key("label")]).contains("`labels`"));
        assert_eq!(no_such_field::<NetworkSpec>(&[key("interface"), key("x")]), "there is no such field");
    }
}
