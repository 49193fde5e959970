//! Runs steps on the machine that it runs on, to try actions by hand:
//!
//! `step grow '{"disk": {"name": "vda"}}' bootloader '{"kind": "grub", "root": "root"}' kexec '{"target": "root"}'`
//!
//! The last step may be one that hands the machine over; it is left at once, without asking any server.
//! Disks that carry data are overwritten: use it where nothing can be lost.
#![allow(clippy::print_stdout, reason = "a program for a console")]

use std::process::ExitCode;
use std::sync::Arc;

use dragonfly_actions::run::{Leave, leave};
use dragonfly_core::action::{ActionContext, Canceller, ImageSource, ImageStream, Permit, Progress, ProgressSink};
use dragonfly_core::resource::hardware::Overwrite;

#[derive(Debug)]
struct Console;

impl ProgressSink for Console {
    fn report(&self, _: Progress) {}
    fn log(&self, line: &str) {
        println!("{line}");
    }
}

/// No images: what is tried here brings its own.
#[derive(Debug)]
struct None;

#[async_trait::async_trait]
impl ImageSource for None {
    async fn open(
        &self,
        url: &url::Url,
        _: u64,
        _: Option<&str>,
    ) -> Result<ImageStream, dragonfly_core::action::ImageError> {
        Err(dragonfly_core::action::ImageError::NotFound { url: url.to_string(), status: 404 })
    }
}

fn words(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", words(cause)),
        Option::None => error.to_string(),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let actions = dragonfly_actions::builtin();
    let canceller = Canceller::default();
    let permit = Permit { workflow_uid: uuid::Uuid::new_v4(), generation: 1, overwrite: Overwrite::All };
    let cx = ActionContext::new(&canceller, Arc::new(Console), Arc::new(None), permit);
    let mut last = String::new();
    for pair in arguments.chunks(2) {
        let [name, with] = pair else {
            println!("usage: step ACTION JSON [ACTION JSON]...");
            return ExitCode::FAILURE;
        };
        let with = match serde_json::from_str(with) {
            Ok(with) => with,
            Err(error) => {
                println!("{with}: {error}");
                return ExitCode::FAILURE;
            }
        };
        let result = match actions.plan(name, &with) {
            Ok(planned) => planned.run(&cx).await.map_err(|error| vec![error]),
            Err(errors) => Err(errors),
        };
        if let Err(errors) = result {
            for error in errors {
                println!("{name}: {}", words(&error));
            }
            return ExitCode::FAILURE;
        }
        println!("{name}: done");
        last.clone_from(name);
    }
    if let Some(how) = Leave::of(&last) {
        match leave(how) {
            Err(error) => println!("{}", words(&error)),
            Ok(never) => match never {},
        }
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
