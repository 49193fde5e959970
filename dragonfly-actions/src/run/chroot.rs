//! `chroot-exec`.

use std::time::Duration;

use dragonfly_core::action::{Action, ActionContext, ActionError, Resume};

use super::fail::{because, blocking};
use super::host::Host;
use super::program::Program;
use super::root::{Root, places};
use crate::plan::{self, Check, ChrootExecParams, Stage};

/// How long a program may run unless told.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Runs a program inside what was installed.
#[derive(Debug, Clone)]
pub(crate) struct ChrootExecAction(pub(crate) Host);

impl Action for ChrootExecAction {
    const NAME: &'static str = plan::CHROOT_EXEC;
    const RESUME: Resume = Resume::Restart;
    type Params = ChrootExecParams;

    fn check(&self, params: &ChrootExecParams) -> Vec<(String, String)> {
        let mut check = Check::new(Stage::Rendered);
        params.check(&mut check);
        check.into_problems()
    }

    async fn run(&self, params: ChrootExecParams, cx: &ActionContext) -> Result<(), ActionError> {
        let (host, cx) = (self.0.clone(), cx.clone());
        blocking(move || {
            cx.check_cancelled()?;
            let place = host.find(&params.target, cx.permit())?;
            let extra = places(&host, &params.mounts, &cx)?;
            let mut root = Root::open(&host, place, extra, &cx)?;
            if params.network {
                root.lend_name_servers()?;
            }
            let ran = run(&root, &params, &cx);
            // The first of two errors is the cause.
            ran.and(root.close())
        })
        .await
    }
}

fn run(root: &Root, params: &ChrootExecParams, cx: &ActionContext) -> Result<(), ActionError> {
    let Some((name, arguments)) = params.argv.split_first() else {
        return because("`argv` is empty; write the program and its arguments, one each");
    };
    let there = if name.contains('/') { root.has(name) } else { root.program(&[name])?.is_some() };
    if !there {
        let on = root.place().name();
        let what =
            format!("there is no program `{name}` in the system on {on}; write its path, or install it into the image");
        return because(root.with_left_out(what, &["/usr"]));
    }
    let timeout = params.timeout_seconds.map_or(TIMEOUT, Duration::from_secs);
    let mut program = Program::inside(root.path(), name)?.args(arguments).limit(timeout);
    for (key, value) in &params.env {
        program = program.env(key, value);
    }
    program.succeed(cx)
}
