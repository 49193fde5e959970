//! What a service says of one thing, read leniently: a property that is missing, null or of another kind than the
//! schema has is absent.

use serde_json::Value;

/// One resource.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Resource(pub(super) Value);

impl Resource {
    /// What stands at a path of property names.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Value> {
        let found = path.iter().try_fold(&self.0, |value, name| value.get(name))?;
        (!found.is_null()).then_some(found)
    }

    /// Text without the blanks around it; what is empty is absent.
    pub(super) fn text(&self, path: &[&str]) -> Option<&str> {
        self.at(path)?.as_str().map(str::trim).filter(|text| !text.is_empty())
    }

    pub(super) fn owned(&self, path: &[&str]) -> Option<String> {
        self.text(path).map(str::to_owned)
    }

    /// A number; some write numbers as text.
    pub(super) fn number(&self, path: &[&str]) -> Option<f64> {
        let value = self.at(path)?;
        value.as_f64().or_else(|| value.as_str()?.trim().parse().ok()).filter(|number| number.is_finite())
    }

    /// A number of things, more than none.
    pub(super) fn count(&self, path: &[&str]) -> Option<u64> {
        // The cast saturates.
        self.number(path).filter(|number| *number >= 1.0).map(|number| number as u64)
    }

    pub(super) fn flag(&self, path: &[&str]) -> Option<bool> {
        self.at(path)?.as_bool()
    }

    /// Where a reference leads.
    pub(super) fn link(&self, path: &[&str]) -> Option<&str> {
        link(self.at(path)?)
    }

    /// Where a list of references leads.
    pub(super) fn links(&self, path: &[&str]) -> Vec<&str> {
        self.list(path).iter().filter_map(link).collect()
    }

    pub(super) fn list(&self, path: &[&str]) -> &[Value] {
        self.at(path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    /// A list of words.
    pub(super) fn words(&self, path: &[&str]) -> Option<Vec<String>> {
        let list = self.at(path)?.as_array()?;
        Some(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }

    /// The parts in a list.
    pub(super) fn parts(&self, path: &[&str]) -> Vec<Self> {
        self.list(path).iter().cloned().map(Self).collect()
    }

    pub(super) fn has(&self, path: &[&str]) -> bool {
        path.iter().try_fold(&self.0, |value, name| value.get(name)).is_some()
    }

    /// Its own path.
    pub(super) fn path(&self) -> Option<&str> {
        link(&self.0)
    }

    /// Whether it is a reference alone, without what it refers to.
    pub(super) fn is_reference(&self) -> bool {
        self.0.as_object().is_some_and(|properties| properties.keys().all(|name| name.starts_with("@odata.")))
    }

    /// Its name for people: `Name`, or else `Id`.
    pub(super) fn name(&self) -> String {
        self.text(&["Name"]).or_else(|| self.text(&["Id"])).unwrap_or("?").to_owned()
    }
}

fn link(value: &Value) -> Option<&str> {
    value.get("@odata.id")?.as_str().filter(|path| !path.is_empty())
}

/// The same path, with or without a slash at its end, and in whatever case: services disagree with themselves.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    one.trim_end_matches('/').eq_ignore_ascii_case(other.trim_end_matches('/'))
}

/// A path on the same service, of an address that may name the host by another name than we do.
pub(super) fn path_of(location: &str) -> String {
    match url::Url::parse(location) {
        Ok(url) => match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        },
        Err(_) => location.to_owned(),
    }
}
