//! Lists in pages. The API server orders by name, as etcd does.

#[cfg(test)]
mod tests;

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use serde_json::Value;
use url::form_urlencoded::Serializer;

use super::failure::{Answer, Doing, is_away};
use super::{Inner, NAME};
use crate::resource::{Kind, Record};
use crate::store::{Page, Result, Selector, StoreError};

/// How many objects are asked for at a time.
const PAGE: usize = 500;
/// How long an API server that could not select in time is not asked to.
const SPARED: Duration = Duration::from_secs(600);

/// Where a list goes on: after a name, by the API server's token while that lasts. As text `name:token`; a name alone
/// is good too.
#[derive(Debug, Clone, PartialEq, Eq)]
struct From<'a> {
    after: &'a str,
    token: Option<&'a str>,
}

impl<'a> From<'a> {
    fn parse(text: &'a str) -> Self {
        // No name has a colon.
        match text.split_once(':') {
            Some((after, token)) if !token.is_empty() => Self { after, token: Some(token) },
            _ => Self { after: text.trim_end_matches(':'), token: None },
        }
    }
}

/// What the API server gave at once.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) items: Vec<Record>,
    pub(super) token: Option<String>,
    pub(super) version: String,
}

impl Inner {
    /// One request's worth of a kind.
    pub(super) async fn page(
        &self,
        kind: Kind,
        selector: &Selector,
        limit: usize,
        token: Option<&str>,
    ) -> Result<Chunk> {
        let place = self.place(kind);
        let path = format!("{}?{}", place.all(), query(place.field_selector(), selector, limit, token));
        let mut answer = self.call(Doing::kind("list", kind, place), "GET", &path, None).await?;
        let text = |field: &str| answer.pointer(field).and_then(Value::as_str).filter(|text| !text.is_empty());
        let token = text("/metadata/continue").map(str::to_owned);
        let version = text("/metadata/resourceVersion").map(str::to_owned);
        let version = version
            .ok_or_else(|| StoreError::Backend { store: NAME, source: "a list without a resourceVersion".into() })?;
        let objects = match answer.get_mut("items").map(Value::take) {
            Some(Value::Array(objects)) => objects,
            _ => Vec::new(),
        };
        let items = self.read_all(kind, objects).await?;
        Ok(Chunk { items, token, version })
    }

    pub(super) async fn list(&self, kind: Kind, selector: &Selector, limit: usize, from: Option<&str>) -> Result<Page> {
        let all = Selector::all();
        if selector.labels.is_empty() {
            return self.selected(kind, &all, &all, limit, from).await;
        }
        if !self.is_spared() {
            match self.selected(kind, selector, &all, limit, from).await {
                // To find few among very many, it reads them all for one answer: it gives that up after a minute, and
                // we may before. Page by page each answer is a short one.
                Err(error) if is_away(&error) => {
                    let page = self.selected(kind, &all, selector, limit, from).await?;
                    tracing::warn!(
                        %kind,
                        error = &error as &dyn std::error::Error,
                        "the API server cannot select by label in time: for {} minutes everything is read and selected here",
                        SPARED.as_secs() / 60
                    );
                    *self.spared.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + SPARED);
                    return Ok(page);
                }
                done => return done,
            }
        }
        self.selected(kind, &all, selector, limit, from).await
    }

    fn is_spared(&self) -> bool {
        self.spared.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| Instant::now() < until)
    }

    /// Of what the API server selects by `theirs`, that which `ours` means.
    async fn selected(
        &self,
        kind: Kind,
        theirs: &Selector,
        ours: &Selector,
        limit: usize,
        from: Option<&str>,
    ) -> Result<Page> {
        let wanted = if limit == 0 { usize::MAX } else { limit };
        let from = From::parse(from.unwrap_or_default());
        let (mut items, mut version) = (Vec::<Record>::new(), None);
        let mut token = from.token.map(str::to_owned);
        // Where the last page was read from.
        let mut place;
        loop {
            place = token.clone();
            let after = items.last().map_or(from.after, |last| last.metadata.name.as_str());
            let passes_over = (token.is_none() && !after.is_empty()) || !ours.labels.is_empty();
            let ask = if passes_over { PAGE } else { PAGE.min(wanted.saturating_sub(items.len()).max(1)) };
            let page = match self.page(kind, theirs, ask, token.as_deref()).await {
                // The token is older than what etcd keeps, or is none: begin anew and pass over what is had.
                Err(error) if token.is_some() && (is_expired(&error) || has_code(&error, 400)) => {
                    place = None;
                    self.page(kind, theirs, PAGE, None).await?
                }
                other => other?,
            };
            let after = after.to_owned();
            version.get_or_insert(page.version);
            let meant = |record: &Record| record.metadata.name > after && ours.matches(record);
            items.extend(page.items.into_iter().filter(meant));
            token = page.token;
            if token.is_none() || items.len() >= wanted {
                break;
            }
        }
        let cut = items.len() > wanted;
        items.truncate(wanted);
        // The token stands after what was cut off: that page is read again.
        let token = if cut { place } else { token };
        let more = match (items.last(), token) {
            (Some(last), None) if cut => Some(last.metadata.name.clone()),
            (Some(last), Some(token)) => Some(format!("{}:{token}", last.metadata.name)),
            _ => None,
        };
        Ok(Page { items, more, version: version.unwrap_or_default() })
    }

    /// Everything of a kind at one version.
    pub(super) async fn everything(&self, kind: Kind) -> Result<(Vec<Record>, String)> {
        let all = Selector::all();
        loop {
            let first = self.page(kind, &all, PAGE, None).await?;
            let (mut items, mut token) = (first.items, first.token);
            let mut expired = false;
            while let Some(next) = token.take() {
                match self.page(kind, &all, PAGE, Some(&next)).await {
                    Ok(page) => {
                        items.extend(page.items);
                        token = page.token;
                    }
                    Err(error) if is_expired(&error) => expired = true,
                    Err(error) => return Err(error),
                }
            }
            if !expired {
                return Ok((items, first.version));
            }
        }
    }
}

/// Whether the API server no longer has what a token or version names.
fn is_expired(error: &StoreError) -> bool {
    has_code(error, 410)
}

pub(super) fn has_code(error: &StoreError, code: u16) -> bool {
    let StoreError::Unavailable { source: Some(source), .. } = error else { return false };
    source.downcast_ref::<Answer>().is_some_and(|answer| answer.code == code)
}

fn query(fields: Option<String>, selector: &Selector, limit: usize, token: Option<&str>) -> String {
    let mut query = Serializer::new(String::new());
    if !selector.labels.is_empty() {
        let labels = selector.labels.iter().map(|(key, value)| format!("{key}={value}"));
        query.append_pair("labelSelector", &labels.collect::<Vec<_>>().join(","));
    }
    if let Some(fields) = fields {
        query.append_pair("fieldSelector", &fields);
    }
    if limit > 0 {
        query.append_pair("limit", &limit.to_string());
    }
    if let Some(token) = token {
        query.append_pair("continue", token);
    }
    query.finish()
}
