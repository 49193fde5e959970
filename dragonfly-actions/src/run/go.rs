//! `reboot` and `poweroff`: nothing to prepare but the disks.

use dragonfly_core::action::{Action, ActionContext, ActionError, Resume};

use super::fail::blocking;
use crate::plan::{self, LeaveParams};

/// Leaves through the firmware.
#[derive(Debug, Clone)]
pub(crate) struct RebootAction;

/// Leaves by switching the machine off.
#[derive(Debug, Clone)]
pub(crate) struct PowerOffAction;

async fn settle(cx: &ActionContext) -> Result<(), ActionError> {
    cx.check_cancelled()?;
    blocking(|| {
        nix::unistd::sync();
        Ok(())
    })
    .await
}

impl Action for RebootAction {
    const NAME: &'static str = plan::REBOOT;
    const RESUME: Resume = Resume::Restart;
    type Params = LeaveParams;

    fn check(&self, _: &LeaveParams) -> Vec<(String, String)> {
        Vec::new()
    }

    async fn run(&self, _: LeaveParams, cx: &ActionContext) -> Result<(), ActionError> {
        settle(cx).await
    }
}

impl Action for PowerOffAction {
    const NAME: &'static str = plan::POWEROFF;
    const RESUME: Resume = Resume::Restart;
    type Params = LeaveParams;

    fn check(&self, _: &LeaveParams) -> Vec<(String, String)> {
        Vec::new()
    }

    async fn run(&self, _: LeaveParams, cx: &ActionContext) -> Result<(), ActionError> {
        settle(cx).await
    }
}
