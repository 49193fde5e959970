//! One step of a workflow, run by the agent on the machine itself.
//!
//! An author writes [`Action`]: typed parameters, a pure [`check`](Action::check), an async
//! [`run`](Action::run). The runner holds [`Actions`] and [`Planned`] values: every step of a run
//! is planned before the first one touches a disk.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::stream::BoxStream;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;
use url::Url;

use crate::secret::Mask;
use crate::wire::FailureKind;
use crate::{Source, fields};

/// What went wrong with a step, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ActionError {
    /// No such action is built in.
    #[error("no action is called `{name}`; there are: {}", .known.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<&'static str>,
    },
    /// The parameters do not fit. Nothing has been done.
    #[error("`{action}`: {path}: {problem}")]
    Invalid {
        /// Which action.
        action: &'static str,
        /// Where in its parameters: `partitions[1].size`; `.` for the whole.
        path: String,
        /// What is wrong there.
        problem: String,
    },
    /// Somebody asked for it to stop.
    #[error("cancelled")]
    Cancelled,
    /// It was tried and failed. `what` names the thing and what to do.
    #[error("{what}")]
    Failed {
        /// The thing that failed, its place, and what a person can do.
        what: String,
        /// What it is, for programs.
        kind: Option<FailureKind>,
        /// The cause.
        #[source]
        source: Option<Source>,
    },
}

impl ActionError {
    /// A failure with its cause.
    pub fn failed(what: impl Into<String>, source: impl Into<Source>) -> Self {
        Self::Failed { what: what.into(), kind: None, source: Some(source.into()) }
    }

    /// A failure that is its own cause.
    pub fn because(what: impl Into<String>) -> Self {
        Self::Failed { what: what.into(), kind: None, source: None }
    }

    /// The same, of this kind.
    #[must_use]
    pub fn of_kind(self, of: FailureKind) -> Self {
        match self {
            Self::Failed { what, source, .. } => Self::Failed { what, kind: Some(of), source },
            other => other,
        }
    }

    /// What it is, if it was said; its causes may know more.
    pub fn kind(&self) -> Option<FailureKind> {
        match self {
            Self::Failed { kind, .. } => *kind,
            _ => None,
        }
    }
}

/// Something wrong with a template, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Where in the template's `spec`: `actions[2].with.url`.
    pub path: String,
    /// What is wrong there and what to write instead.
    pub problem: String,
}

/// Who can say whether a template makes a plan, without running any of it.
pub trait TemplateChecker: fmt::Debug + Send + Sync + 'static {
    /// Everything that is wrong with it: unknown actions, missing fields, wrong types, overlapping
    /// partitions, images without a digest, steps that contradict each other. Strings that still
    /// hold `{{ ... }}` are judged by their type only.
    fn check(&self, template: &crate::resource::TemplateSpec) -> Vec<Problem>;
}

/// What progress is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Octets.
    Bytes,
    /// Whatever the step has several of.
    Items,
}

/// How much of a step is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Progress {
    /// This much.
    pub done: u64,
    /// Of this much, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Counted in this.
    pub unit: Unit,
}

/// Who hears of progress and of a step's log lines.
pub trait ProgressSink: fmt::Debug + Send + Sync {
    /// Never blocks and never fails; a slow reader sees fewer reports.
    fn report(&self, progress: Progress);
    /// One line for the log, without a line feed.
    fn log(&self, line: &str);
}

/// Asks a running step to stop. Held by the runner.
#[derive(Debug, Clone)]
pub struct Canceller(Arc<watch::Sender<bool>>);

impl Default for Canceller {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Canceller {
    /// Asks. The step stops at its next unit of work.
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }
}

/// Where images come from: HTTP, peers, a directory, a test.
#[async_trait]
pub trait ImageSource: fmt::Debug + Send + Sync + 'static {
    /// The bytes of `url` from `offset` on. Called again with a larger offset after a broken
    /// connection; `validator` is then the first answer's, and a source whose image has changed
    /// since must answer [`ImageError::Changed`].
    async fn open(&self, url: &Url, offset: u64, validator: Option<&str>) -> Result<ImageStream, ImageError>;
}

/// Bytes on their way.
pub struct ImageStream {
    /// The bytes from the offset that was asked for.
    pub bytes: BoxStream<'static, Result<Bytes, ImageError>>,
    /// Length of the whole image in bytes, when known.
    pub total: Option<u64>,
    /// What identifies this very content: an HTTP entity tag or date.
    pub validator: Option<String>,
}

impl fmt::Debug for ImageStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageStream")
            .field("total", &self.total)
            .field("validator", &self.validator)
            .finish_non_exhaustive()
    }
}

/// Why an image does not come.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// There is no such image: trying again does not help.
    #[error("{url} does not exist ({status})")]
    NotFound {
        /// What was asked for, without its query.
        url: String,
        /// What was answered.
        status: u16,
    },
    /// The source refuses: trying again does not help.
    #[error("{url} was refused ({status})")]
    Refused {
        /// What was asked for, without its query.
        url: String,
        /// What was answered.
        status: u16,
    },
    /// The image is another one than when the transfer began.
    #[error("{url} changed while it was fetched")]
    Changed {
        /// What was asked for, without its query.
        url: String,
    },
    /// The source cannot start in the middle.
    #[error("{url} cannot be resumed: the server ignores ranges")]
    NoRange {
        /// What was asked for, without its query.
        url: String,
    },
    /// Its server's certificate has ended or has not begun, by the clock here.
    #[error("{url} could not be fetched: the server's certificate is not valid at this time")]
    Untimely {
        /// What was asked for, without its query.
        url: String,
        /// The cause.
        #[source]
        source: Source,
    },
    /// The connection broke or could not be made: try again.
    #[error("{url} could not be fetched")]
    Io {
        /// What was asked for, without its query.
        url: String,
        /// The cause.
        #[source]
        source: Source,
    },
}

impl ImageError {
    /// Whether asking again may help.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Io { .. })
    }
}

/// What a step may use while it runs.
#[derive(Debug, Clone)]
pub struct ActionContext {
    cancelled: watch::Receiver<bool>,
    sink: Arc<dyn ProgressSink>,
    images: Arc<dyn ImageSource>,
    permit: Permit,
    mask: Arc<Mask>,
}

/// What the machine's authorisation allows, and which run it is: becomes the marker on the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Permit {
    /// The workflow's uid.
    pub workflow_uid: uuid::Uuid,
    /// The authorisation's number on this machine. A marker of a later one on a disk refuses the run.
    pub generation: u64,
    /// Which disks that carry data may be overwritten.
    pub overwrite: crate::resource::hardware::Overwrite,
}

impl ActionContext {
    /// A context for one run of one step.
    pub fn new(
        canceller: &Canceller,
        sink: Arc<dyn ProgressSink>,
        images: Arc<dyn ImageSource>,
        permit: Permit,
    ) -> Self {
        Self { cancelled: canceller.0.subscribe(), sink, images, permit, mask: Arc::default() }
    }

    /// The same, for a step whose run knows these secrets.
    #[must_use]
    pub fn with_mask(self, mask: Mask) -> Self {
        Self { mask: Arc::new(mask), ..self }
    }

    /// What takes the run's secrets out of text. Needed only before text is cut: the log and failures are masked
    /// anyway, but half a secret is not recognised there.
    pub fn mask(&self) -> &Mask {
        &self.mask
    }

    /// Says how much is done. Never blocks and never fails; slow readers see fewer reports.
    pub fn progress(&self, done: u64, total: Option<u64>, unit: Unit) {
        self.sink.report(Progress { done, total, unit });
    }

    /// Adds a line to the step's log.
    pub fn log(&self, line: impl AsRef<str>) {
        self.sink.log(line.as_ref());
    }

    /// Call between units of work that may be abandoned safely.
    pub fn check_cancelled(&self) -> Result<(), ActionError> {
        if *self.cancelled.borrow() { Err(ActionError::Cancelled) } else { Ok(()) }
    }

    /// Resolves when somebody asks for the step to stop.
    pub async fn cancelled(&self) {
        let mut cancelled = self.cancelled.clone();
        if cancelled.wait_for(|c| *c).await.is_err() {
            // The canceller is gone: nobody can ask any more.
            std::future::pending::<()>().await;
        }
    }

    /// Where images come from.
    pub fn images(&self) -> &Arc<dyn ImageSource> {
        &self.images
    }

    /// What may be destroyed.
    pub fn permit(&self) -> &Permit {
        &self.permit
    }
}

/// What a retry does with a step that was done in an earlier attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resume {
    /// Ask [`Action::verify`]; skip the step if it still holds.
    Verify,
    /// Do it again, and all after it.
    Restart,
}

/// What an author writes: typed in, typed out, safe to run again.
pub trait Action: fmt::Debug + Send + Sync + 'static {
    /// As in a template.
    const NAME: &'static str;
    /// What a retry does with it.
    const RESUME: Resume;
    /// Its parameters.
    type Params: DeserializeOwned + Clone + Send + Sync + 'static;

    /// What is wrong with these parameters beyond their types: `(path, problem)` pairs. Pure.
    fn check(&self, params: &Self::Params) -> Vec<(String, String)>;

    /// Does it. Cancellation is asked for through the context, not imposed by dropping the future.
    fn run(&self, params: Self::Params, cx: &ActionContext) -> impl Future<Output = Result<(), ActionError>> + Send;

    /// Whether what [`run`](Self::run) did is still true on the machine. Asked before a retry.
    fn verify(
        &self,
        params: Self::Params,
        cx: &ActionContext,
    ) -> impl Future<Output = Result<bool, ActionError>> + Send {
        let _ = (params, cx);
        async { Ok(false) }
    }
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A step whose parameters have been parsed and checked. Only [`Actions::plan`] makes one.
pub struct Planned {
    name: &'static str,
    resume: Resume,
    erased: Arc<dyn Erased>,
}

impl fmt::Debug for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Planned").field("name", &self.name).field("resume", &self.resume).finish_non_exhaustive()
    }
}

impl Planned {
    /// The action's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What a retry does with it.
    pub fn resume(&self) -> Resume {
        self.resume
    }

    /// Does it.
    pub async fn run(&self, cx: &ActionContext) -> Result<(), ActionError> {
        self.erased.run(cx).await
    }

    /// Whether it is done already.
    pub async fn verify(&self, cx: &ActionContext) -> Result<bool, ActionError> {
        self.erased.verify(cx).await
    }
}

trait Erased: Send + Sync {
    fn run<'a>(&'a self, cx: &'a ActionContext) -> BoxFuture<'a, Result<(), ActionError>>;
    fn verify<'a>(&'a self, cx: &'a ActionContext) -> BoxFuture<'a, Result<bool, ActionError>>;
}

struct Ready<A: Action> {
    action: Arc<A>,
    params: A::Params,
}

impl<A: Action> Erased for Ready<A> {
    fn run<'a>(&'a self, cx: &'a ActionContext) -> BoxFuture<'a, Result<(), ActionError>> {
        Box::pin(self.action.run(self.params.clone(), cx))
    }

    fn verify<'a>(&'a self, cx: &'a ActionContext) -> BoxFuture<'a, Result<bool, ActionError>> {
        Box::pin(self.action.verify(self.params.clone(), cx))
    }
}

trait DynAction: fmt::Debug + Send + Sync {
    fn plan(self: Arc<Self>, params: &Value) -> Result<Planned, Vec<ActionError>>;
}

impl<A: Action> DynAction for A {
    fn plan(self: Arc<Self>, params: &Value) -> Result<Planned, Vec<ActionError>> {
        let params: A::Params = parse_params(A::NAME, params)?;
        let problems = self.check(&params);
        if !problems.is_empty() {
            return Err(problems
                .into_iter()
                .map(|(path, problem)| ActionError::Invalid { action: A::NAME, path, problem })
                .collect());
        }
        Ok(Planned { name: A::NAME, resume: A::RESUME, erased: Arc::new(Ready { action: self, params }) })
    }
}

/// Parameters with their types; an unknown field is an error like a wrong type.
pub fn parse_params<P: DeserializeOwned>(action: &'static str, params: &Value) -> Result<P, Vec<ActionError>> {
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let parsed = {
        let mut note = |path: serde_ignored::Path<'_>| unknown.push((path.to_string(), fields::steps(&path)));
        let inner = serde_path_to_error::Deserializer::new(params, &mut track);
        serde_ignored::deserialize::<_, _, P>(inner, &mut note)
    };
    let mut problems: Vec<ActionError> = unknown
        .into_iter()
        .map(|(path, steps)| ActionError::Invalid { action, path, problem: fields::no_such_field::<P>(&steps) })
        .collect();
    match parsed {
        Ok(params) if problems.is_empty() => Ok(params),
        Ok(_) => Err(problems),
        Err(error) => {
            problems.push(ActionError::Invalid { action, path: track.path().to_string(), problem: error.to_string() });
            Err(problems)
        }
    }
}

/// The actions one agent knows: a plain value, filled by whoever builds the agent.
#[derive(Debug, Default, Clone)]
pub struct Actions(BTreeMap<&'static str, Arc<dyn DynAction>>);

impl Actions {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more. One of the same name is replaced.
    #[must_use]
    pub fn with<A: Action>(mut self, action: A) -> Self {
        self.0.insert(A::NAME, Arc::new(action));
        self
    }

    /// The names of all of them.
    pub fn names(&self) -> Vec<&'static str> {
        self.0.keys().copied().collect()
    }

    /// Parses and checks one step. An agent plans every step before it runs the first.
    pub fn plan(&self, name: &str, params: &Value) -> Result<Planned, Vec<ActionError>> {
        let Some(action) = self.0.get(name) else {
            return Err(vec![ActionError::Unknown { name: name.to_owned(), known: self.names() }]);
        };
        Arc::clone(action).plan(params)
    }
}
