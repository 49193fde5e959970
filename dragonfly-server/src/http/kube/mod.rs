//! Kubernetes' own API on our objects: discovery, schemas, list, get, create, replace, patch, delete, watch and
//! tables, so that `kubectl` and every other client of custom resources is a client of ours.

mod discovery;
mod events;
mod existing;
mod objects;
mod openapi;
mod patch;
mod proto;
mod query;
mod remove;
mod select;
mod shape;
mod status;
mod watch;

use dragonfly_core::engine::{Engine, EngineError};
use dragonfly_core::near::did_you_mean;
use dragonfly_core::resource::Kind;
use dragonfly_core::store::{Page, Selector};

use super::problem::Problem;
use super::route::Routes;
use select::Selection;

pub(super) use status::{is_theirs, translated};

/// The API group of our kinds.
const GROUP: &str = "dragonfly.computer";

/// The largest number of objects in one answer.
pub(super) const PAGE: usize = 500;

pub(super) fn routes(routes: Routes) -> Routes {
    openapi::routes(events::routes(discovery::routes(objects::routes(routes))))
}

fn kind(plural: &str) -> Result<Kind, Problem> {
    Kind::ALL.into_iter().find(|kind| kind.plural == plural).ok_or_else(|| {
        let known = Kind::ALL.map(|kind| kind.plural);
        let meant = did_you_mean(plural, known).unwrap_or_else(|| format!("there are: {}", known.join(", ")));
        Problem::not_found(format!("no kind is called `{plural}`; {meant}"))
    })
}

/// The object of this name as a page, and the version that it was read at.
async fn named(engine: &Engine, kind: Kind, name: &str) -> Result<Page, EngineError> {
    // The version first: whoever follows from it hears of what has changed meanwhile.
    let page = engine.list(kind, &Selector::all(), 1, None).await?;
    let items = match engine.get(kind, name).await {
        Ok(record) => vec![record],
        Err(EngineError::NotFound { .. }) => Vec::new(),
        Err(other) => return Err(other),
    };
    Ok(Page { items, more: None, version: page.version })
}

/// `a=b,c==d` for those who search by equality alone.
pub(super) fn equality(labels: &str) -> Result<Selector, Problem> {
    let selection = Selection::parse(labels, "")?;
    if !selection.is_plain() {
        return Err(Problem::bad_request("labelSelector: machines are searched by `key=value`, several with commas"));
    }
    Ok(selection.equal)
}
