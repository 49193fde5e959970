//! One service: its session, and its requests.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, IF_MATCH};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::Patience;
use super::login::{Login, TOKEN};
use super::quirks::Quirks;
use super::resource::{Resource, path_of};
use super::said;
use crate::power::https::{Answer, Https, Request};
use crate::power::{Credential, PowerError, Result};

/// The one path that is known beforehand (DSP0266, 6.4).
const ROOT: &str = "/redfish/v1/";
/// More pages and members than any collection has that is read whole.
const MOST_PAGES: usize = 200;
const MOST_MEMBERS: usize = 4096;

/// What a resource is, and the tag that a change of it names.
#[derive(Debug, Clone, Default)]
pub(super) struct Read {
    pub(super) resource: Resource,
    pub(super) tag: Option<String>,
}

/// Whether what a request begins is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    Done,
    /// It is done at the next boot.
    Accepted,
}

/// One service.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) http: Https,
    pub(super) credential: Option<Credential>,
    patience: Patience,
    root: Resource,
    /// Where sessions are opened; without, every request has the password.
    pub(super) sessions: Option<String>,
    pub(super) login: Mutex<Login>,
}

impl Service {
    /// Reads the service root, and sees how it lets us in. Logs in at the first request.
    pub(super) async fn connect(http: Https, credential: Option<Credential>, patience: Patience) -> Result<Self> {
        let mut service = Self {
            http,
            credential,
            patience,
            root: Resource::default(),
            sessions: None,
            login: Mutex::new(Login::None),
        };
        // It is for everybody (DSP0266, 9.2), and a few want the password for it all the same.
        let open = service.http.send(&Request::new(Method::GET, ROOT)).await?;
        let root = match open.status {
            StatusCode::UNAUTHORIZED => service.request(Method::GET, ROOT, None, None).await?,
            _ => open,
        };
        if root.status == StatusCode::NOT_FOUND {
            return Err(PowerError::Refused { what: "speak Redfish".to_owned(), reason: format!("it has no {ROOT}") });
        }
        service.root = Resource(said::judge(root, "tell what it is")?.json("its service root")?);
        let named = service.root.link(&["Links", "Sessions"]).map(str::to_owned);
        service.sessions = match (named, service.root.link(&["SessionService"])) {
            (Some(path), _) => Some(path),
            (None, None) => None,
            (None, Some(path)) => {
                let path = path.to_owned();
                match service.http.send(&Request::new(Method::GET, path)).await? {
                    answer if answer.status.is_success() => {
                        let service = Resource(answer.json("its session service")?);
                        service.link(&["Sessions"]).map(str::to_owned)
                    }
                    _ => None,
                }
            }
        };
        *service.login.get_mut() = match std::mem::replace(service.login.get_mut(), Login::None) {
            // It wanted the password for its root, and may have sessions still.
            Login::Basic(_) if service.sessions.is_some() => Login::None,
            login => login,
        };
        Ok(service)
    }

    pub(super) fn root(&self) -> &Resource {
        &self.root
    }

    /// How a collection is asked for with its members, if it can be (DSP0266, 7.3).
    fn expand(&self) -> Option<&'static str> {
        let query = |name| self.root.flag(&["ProtocolFeaturesSupported", "ExpandQuery", name]) == Some(true);
        match () {
            () if query("NoLinks") => Some("$expand=."),
            () if query("ExpandAll") => Some("$expand=*"),
            () => None,
        }
    }

    /// Sends a request with what it takes to be let in, and again in a new session when the old one was forgotten.
    async fn request(&self, method: Method, path: &str, body: Option<&Value>, tag: Option<&str>) -> Result<Answer> {
        // Held for as long as it takes: controllers are asked one thing at a time.
        let mut login = self.login.lock().await;
        loop {
            let is_new = matches!(*login, Login::None);
            if is_new {
                *login = match self.log_in().await {
                    Err(PowerError::Unauthorised) => {
                        *login = Login::Refused;
                        return Err(PowerError::Unauthorised);
                    }
                    done => done?,
                };
            }
            let mut request = Request::new(method.clone(), path);
            request = match &*login {
                Login::None => request,
                Login::Session { token, .. } => request.header(TOKEN, token.clone()),
                Login::Basic(value) => request.header(AUTHORIZATION, value.clone()),
                Login::Refused => return Err(PowerError::Unauthorised),
            };
            if let Some(tag) = tag {
                request = request.header(IF_MATCH, tag.to_owned().into());
            }
            if let Some(body) = body {
                request = request.json(body);
            }
            let answer = self.http.send(&request).await?;
            match &*login {
                _ if answer.status != StatusCode::UNAUTHORIZED => return Ok(answer),
                Login::None => return Err(PowerError::NoCredential),
                // It was silent for too long, or the controller began anew.
                Login::Session { .. } if !is_new => *login = Login::None,
                _ => {
                    *login = Login::Refused;
                    return Err(PowerError::Unauthorised);
                }
            }
        }
    }

    /// Reads a resource.
    pub(super) async fn read(&self, path: &str, what: &str) -> Result<Read> {
        let answer = said::judge(self.request(Method::GET, path, None, None).await?, what)?;
        let resource = Resource(answer.json(path)?);
        let tag = answer.header("etag").or_else(|| resource.text(&["@odata.etag"])).map(str::to_owned);
        Ok(Read { resource, tag })
    }

    /// Reads a resource that need not be there.
    pub(super) async fn find(&self, path: &str, what: &str) -> Result<Option<Resource>> {
        match self.read(path, what).await {
            Ok(read) => Ok(Some(read.resource)),
            Err(PowerError::Refused { .. } | PowerError::Forbidden { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The members of a collection, page by page, each with what it says.
    pub(super) async fn members(&self, path: &str, what: &str) -> Result<Vec<Resource>> {
        let mut whole = vec![];
        for member in self.references(path, what).await? {
            match member.path() {
                Some(path) if member.is_reference() => whole.extend(self.find(path, what).await?),
                _ => whole.push(member),
            }
        }
        Ok(whole)
    }

    /// The members of a collection, as it lists them: references, or more where it gives more.
    pub(super) async fn references(&self, path: &str, what: &str) -> Result<Vec<Resource>> {
        if let Some(expand) = self.expand() {
            match self.pages(&format!("{path}?{expand}"), what).await {
                // It says that it can, and cannot here, or says more than we take.
                Err(PowerError::Refused { .. } | PowerError::Malformed { .. }) => {}
                done => return done,
            }
        }
        self.pages(path, what).await
    }

    /// The members of a collection, as it lists them unasked.
    pub(super) async fn pages(&self, path: &str, what: &str) -> Result<Vec<Resource>> {
        let mut members = vec![];
        let mut next = Some(path.to_owned());
        for _ in 0..MOST_PAGES {
            let Some(path) = next.take() else { break };
            let page = self.read(&path, what).await?.resource;
            members.extend(page.parts(&["Members"]));
            next = page.text(&["Members@odata.nextLink"]).or_else(|| page.text(&["@odata.nextLink"])).map(path_of);
            // Else one that leads to itself is read two hundred times.
            if members.len() >= MOST_MEMBERS || next.as_deref() == Some(&*path) {
                break;
            }
        }
        members.truncate(MOST_MEMBERS);
        Ok(members)
    }

    /// Calls an action.
    pub(super) async fn post(&self, path: &str, body: &Value, what: &str) -> Result<()> {
        let answer = said::judge(self.request(Method::POST, path, Some(body), None).await?, what)?;
        self.finish(answer, what).await
    }

    /// Changes a resource that was read, and which nobody may have changed since.
    pub(super) async fn patch(
        &self,
        path: &str,
        tag: Option<String>,
        body: &Value,
        quirks: Quirks,
        (what, wait): (&str, Wait),
    ) -> Result<()> {
        let first = quirks.if_match(tag.as_deref(), false);
        let mut answer = self.request(Method::PATCH, path, Some(body), first.as_deref()).await?;
        let is_stale = [StatusCode::PRECONDITION_FAILED, StatusCode::PRECONDITION_REQUIRED];
        if is_stale.contains(&answer.status) {
            let tag = self.read(path, what).await?.tag;
            let second = quirks.if_match(tag.as_deref(), true);
            answer = self.request(Method::PATCH, path, Some(body), second.as_deref()).await?;
        }
        let answer = said::judge(answer, what)?;
        match wait {
            Wait::Done => self.finish(answer, what).await,
            Wait::Accepted => Ok(()),
        }
    }

    /// Waits for the task that a request began (DSP0266, 12.2).
    async fn finish(&self, answer: Answer, what: &str) -> Result<()> {
        if answer.status != StatusCode::ACCEPTED {
            return Ok(());
        }
        let begun = Resource(serde_json::from_slice(&answer.body).unwrap_or_default());
        let monitor = answer.header("location").map(path_of).or_else(|| begun.path().map(str::to_owned));
        // Without one, what comes of it is seen where it happens.
        let Some(monitor) = monitor else { return Ok(()) };
        let end = Instant::now() + self.patience.task;
        loop {
            let answer = self.request(Method::GET, &monitor, None, None).await?;
            // Monitors are gone when their task has ended.
            if matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::GONE) {
                return Ok(());
            }
            let is_accepted = answer.status == StatusCode::ACCEPTED;
            let pause = answer.header("retry-after").and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
            let answer = said::judge(answer, what)?;
            let task = Resource(serde_json::from_slice(&answer.body).unwrap_or_default());
            match task.text(&["TaskState"]) {
                Some("Completed") => return Ok(()),
                Some(state @ ("Exception" | "Killed" | "Cancelled" | "Interrupted")) => {
                    let words = said::words(answer.status, &answer.body);
                    let reason = format!("its task ended as {state}: {words}");
                    return Err(PowerError::Refused { what: what.to_owned(), reason });
                }
                None if !is_accepted => return Ok(()),
                _ => {}
            }
            if Instant::now() >= end {
                return Err(PowerError::TimedOut { after: self.patience.task });
            }
            sleep(pause.unwrap_or(self.patience.poll).min(self.patience.task)).await;
        }
    }
}
