//! Tasks of the simulated cluster: what they do when their time is over, and with which words they fail.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::world::World;

/// What a task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Job {
    Start,
    Stop,
    Shutdown,
    Reset,
    /// Asks the cluster to keep it running.
    Keep,
    /// Asks the cluster to keep it stopped.
    Release,
}

impl Job {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "qmstart",
            Self::Stop => "qmstop",
            Self::Shutdown => "qmshutdown",
            Self::Reset => "qmreset",
            Self::Keep => "hastart",
            Self::Release => "hastop",
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) upid: String,
    pub(super) user: String,
    node: String,
    number: u32,
    job: Job,
    vmid: u32,
    ends: Instant,
    /// With which words it fails whatever else is.
    dies: Option<String>,
    end: Option<String>,
}

/// When the first task began, in seconds since 1970.
const BEGIN: u32 = 0x66a1_b2c3;

impl Task {
    /// What `GET /nodes/{node}/tasks/{upid}/status` says.
    pub(super) fn status(&self) -> Value {
        let mut status = json!({ "upid": self.upid, "node": self.node, "pid": self.number, "pstart": self.number * 7,
            "starttime": BEGIN + self.number, "type": self.job.name(), "id": self.vmid.to_string(),
            "user": self.user, "status": "running" });
        if let Some(end) = &self.end {
            status["status"] = "stopped".into();
            status["exitstatus"] = end.as_str().into();
        }
        status
    }
}

impl World {
    /// Begins a task; `longest` is how long a shutdown waits.
    pub(super) fn begin(
        &mut self,
        job: Job,
        node: &str,
        vmid: u32,
        user: &str,
        overrules: bool,
        longest: Duration,
    ) -> String {
        let now = Instant::now();
        let number = self.tasks.len() as u32 + 0x1000;
        let upid =
            format!("UPID:{node}:{number:08X}:{:08X}:{:08X}:{}:{vmid}:{user}:", number * 7, BEGIN + number, job.name());
        let (mut ends, mut dies) = (now + self.task, None);
        // A shutdown that is waited for holds the lock on the VM's file.
        let holder = |task: &&mut Task| task.vmid == vmid && task.job == Job::Shutdown && task.end.is_none();
        if let Some(holder) = self.tasks.iter_mut().find(holder) {
            if job == Job::Stop && overrules {
                holder.end = Some("received interrupt".to_owned());
            } else if holder.ends > now + self.lock {
                ends = now + self.lock;
                let file = format!("/var/lock/qemu-server/lock-{vmid}.conf");
                dies = Some(format!("can't lock file '{file}' - got timeout"));
            } else {
                ends = holder.ends + self.task;
            }
        }
        if job == Job::Shutdown && dies.is_none() && self.vms.get(&vmid).is_some_and(|vm| vm.is_on && !vm.obeys) {
            ends = now + longest;
            dies = Some("VM quit/powerdown failed - got timeout".to_owned());
        }
        let (node, user) = (node.to_owned(), user.to_owned());
        self.tasks.push(Task { upid: upid.clone(), user, node, number, job, vmid, ends, dies, end: None });
        upid
    }

    /// Ends what is due.
    pub(super) fn settle(&mut self) {
        let now = Instant::now();
        for vm in self.vms.values_mut() {
            if let Some((_, on)) = vm.comes.take_if(|(when, _)| *when <= now)
                && vm.is_on != on
            {
                vm.done.push(if on { "start" } else { "stop" });
                if on { vm.start() } else { vm.is_on = false }
            }
        }
        for n in 0..self.tasks.len() {
            if self.tasks[n].end.is_none() && self.tasks[n].ends <= now {
                let task = self.tasks[n].clone();
                let end = self.carry_out(&task).err().unwrap_or_else(|| "OK".to_owned());
                self.tasks[n].end = Some(end);
            }
        }
    }

    fn carry_out(&mut self, task: &Task) -> Result<(), String> {
        let vmid = task.vmid;
        let comes = Instant::now() + self.keeper;
        let vm = self.vms.get_mut(&vmid).filter(|vm| vm.node == task.node);
        let vm = vm.ok_or_else(|| super::calls::no_file(&task.node, vmid))?;
        if let Some(words) = &task.dies {
            return Err(words.clone());
        }
        if matches!(task.job, Job::Keep | Job::Release) {
            vm.comes = Some((comes, task.job == Job::Keep));
            return Ok(());
        }
        match vm.config.get("lock").map(String::as_str) {
            // It is continued by its start.
            Some("suspended") if task.job == Job::Start => drop(vm.config.remove("lock")),
            Some(lock) => return Err(format!("VM is locked ({lock})")),
            None => {}
        }
        match task.job {
            Job::Start if vm.is_on => return Err(format!("VM {vmid} already running")),
            Job::Start if vm.config.contains_key("template") => {
                return Err("you can't start a vm if it's a template".to_owned());
            }
            Job::Start => {
                if let Some(words) = &vm.fails {
                    return Err(words.clone());
                }
                vm.start();
                vm.done.push("start");
            }
            Job::Stop | Job::Shutdown => {
                if vm.is_on {
                    vm.done.push(if task.job == Job::Stop { "stop" } else { "shutdown" });
                }
                vm.is_on = false;
            }
            Job::Reset if !vm.is_on => return Err(format!("VM {vmid} not running")),
            Job::Reset => vm.done.push("reset"),
            Job::Keep | Job::Release => {}
        }
        Ok(())
    }
}
