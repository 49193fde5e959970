//! Power of several machines, from the list. What ends what they do is asked again before it is done.

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use futures_util::future::join_all;

use super::forms::{Form, soon};
use super::{page, problem};
use crate::http::App;
use crate::http::extract::Whole;
use crate::http::guard::Caller;
use crate::http::power::Switch;
use crate::http::problem::Problem;
use crate::http::route::{Access, Routes};

/// The most machines at one time: what a page can show.
const MOST: usize = 500;

pub(super) fn routes(routes: Routes) -> Routes {
    routes.post("/power", Access::Page, "Switch machines, from the list's form", act)
}

#[derive(Debug, Template)]
#[template(path = "pick.html")]
struct Sure {
    title: String,
    verb: &'static str,
    operation: String,
    loses: &'static str,
    machines: Vec<String>,
}

/// What is asked before it is done: the verb, and what it ends.
fn warning(operation: Switch) -> Option<(&'static str, &'static str)> {
    match operation {
        Switch::On => None,
        Switch::Off => Some(("Switch off", "They lose their power, and whatever they do ends.")),
        Switch::Soft => Some(("Shut down", "Their operating systems are asked to shut down.")),
        Switch::Cycle => Some(("Cycle", "They lose their power for a moment, and whatever they do ends.")),
        Switch::Reset => Some(("Reset", "They are reset, and whatever they do ends.")),
        Switch::NetworkBoot => {
            Some(("Boot from the network", "They restart and boot from the network, and whatever they do ends."))
        }
    }
}

fn count(machines: &[String]) -> String {
    if machines.len() == 1 { "1 machine".to_owned() } else { format!("{} machines", machines.len()) }
}

/// What is meant, or what is wrong with it.
fn meant(form: &Form) -> Result<(Switch, Vec<String>), Problem> {
    let word = form.one("operation");
    let operation = serde_json::from_value::<Switch>(word.into())
        .map_err(|_| Problem::bad_request(format!("operation: `{word}` is none")))?;
    let mut machines = form.all("machine");
    machines.sort_unstable();
    machines.dedup();
    match machines.len() {
        0 => Err(Problem::bad_request("choose machines first: tick the box beside their names")),
        1..=MOST => Ok((operation, machines)),
        many => Err(Problem::bad_request(format!("{many} machines are more than the {MOST} that go at one time"))),
    }
}

async fn act(State(app): State<App>, Extension(caller): Extension<Caller>, Whole(body): Whole) -> Response {
    let form = Form::read(&body);
    let (operation, machines) = match meant(&form) {
        Ok(meant) => meant,
        Err(refusal) => return problem(&refusal, "/"),
    };
    if let Some((verb, loses)) = warning(operation).filter(|_| form.one("confirmed") != "yes") {
        let title = format!("{verb}: {}", count(&machines));
        let operation = form.one("operation").to_owned();
        return page(StatusCode::OK, &Sure { title, verb, operation, loses, machines });
    }
    let all = machines.iter().map(async |name| {
        let done = soon(&app, name, operation.operation(), &caller.by).await;
        done.err().map(|refusal| format!("{name}: {}", refusal.detail))
    });
    let failed: Vec<String> = join_all(all).await.into_iter().flatten().collect();
    if failed.is_empty() {
        return Redirect::to("/").into_response();
    }
    let mut refusal = Problem::new(StatusCode::CONFLICT, failed.join("\n"));
    refusal.title = format!("{} of {} not switched", failed.len(), count(&machines));
    problem(&refusal, "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_and_what_is_asked_first() {
        let read = |body: &str| meant(&Form::read(body.as_bytes()));
        let (operation, machines) = read("operation=cycle&machine=b&machine=a&machine=b").unwrap();
        assert_eq!((operation, machines), (Switch::Cycle, vec!["a".to_owned(), "b".to_owned()]));
        assert!(read("operation=explode&machine=a").unwrap_err().detail.contains("`explode` is none"));
        assert!(read("operation=on").unwrap_err().detail.contains("choose machines first"));
        assert!(warning(Switch::On).is_none());
        for ends in [Switch::Off, Switch::Soft, Switch::Cycle, Switch::Reset, Switch::NetworkBoot] {
            assert!(warning(ends).is_some(), "{ends:?}");
        }
    }
}
