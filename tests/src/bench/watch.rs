//! Fifty readers of what happens, while objects change.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::client::{Connection, send};
use super::fill::{mac, name};
use super::http::somewhere;
use super::report::{Report, Times};
use super::server::Server;

const READERS: usize = 50;
/// Changes made one by one, each when every reader has seen the one before.
const SINGLE: usize = 100;
/// Changes made as fast as they go.
const BURST: usize = 1000;
const WRITERS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(60);

/// How readers follow.
#[derive(Debug, Clone, Copy)]
enum How {
    /// `GET /dragonfly/v1/events`.
    Events,
    /// `GET /apis/.../hardware?watch=1`, from now on.
    Objects,
}

/// The name of the machine that a line is about, if it is about a change of one.
fn about(how: How, line: &str) -> Option<String> {
    let text = match how {
        How::Events => line.strip_prefix("data: ")?,
        How::Objects => line,
    };
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    let found = match how {
        How::Events if value["type"] == "object.applied" => &value["machine"],
        // Whoever follows from a version is told of what it has not heard of before as added.
        How::Objects if value["type"] == "MODIFIED" || value["type"] == "ADDED" => &value["object"]["metadata"]["name"],
        How::Events | How::Objects => return None,
    };
    found.as_str().map(str::to_owned)
}

/// A change that no other is the same as: one that changes nothing is told to nobody.
fn change(server: &Server, how: How, machine: usize, number: usize) -> Vec<u8> {
    let name = name(machine);
    let text = format!(
        "apiVersion: dragonfly.computer/v1\nkind: Hardware\nmetadata: {{name: {name}, labels: {{rack: r{}, change: {how:?}-{number}}}}}\n\
         spec: {{macs: [\"{}\"]}}\n",
        machine / 40,
        mac(machine),
    );
    let path = format!("/apis/dragonfly.computer/v1/hardware/{name}");
    send("PATCH", &path, server.token(), "application/apply-patch+yaml", &text)
}

async fn readers(server: &Server, how: How) -> Result<(JoinSet<()>, mpsc::UnboundedReceiver<(String, Instant)>)> {
    let (seen, sees) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    for _ in 0..READERS {
        let mut connection = server.connect()?;
        follow(server, how, &mut connection).await?;
        let seen = seen.clone();
        tasks.spawn(async move {
            while let Ok(line) = connection.line().await {
                if let Some(name) = about(how, &line)
                    && seen.send((name, Instant::now())).is_err()
                {
                    return;
                }
            }
        });
    }
    Ok((tasks, sees))
}

async fn follow(server: &Server, how: How, connection: &mut Connection) -> Result<()> {
    let path = match how {
        How::Events => "/dragonfly/v1/events".to_owned(),
        How::Objects => {
            let page = server.get("/apis/dragonfly.computer/v1/hardware?limit=1").await?;
            let list: serde_json::Value = serde_json::from_slice(&page.body)?;
            let version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
            format!("/apis/dragonfly.computer/v1/hardware?watch=1&resourceVersion={version}")
        }
    };
    connection.follow(&path, server.token()).await
}

/// When a reader was told of this machine.
async fn next_about(sees: &mut mpsc::UnboundedReceiver<(String, Instant)>, name: &str) -> Option<Instant> {
    loop {
        match sees.recv().await? {
            (about, at) if about == name => return Some(at),
            _ => {}
        }
    }
}

async fn one(report: &mut Report, server: &Server, machines: usize, how: How, word: &str) -> Result<()> {
    let (_tasks, mut sees) = readers(server, how).await?;
    let mut writer = server.connect()?;
    let mut times = Times::default();
    for n in 0..SINGLE {
        let machine = somewhere(n, machines);
        let begin = Instant::now();
        let answer = writer.ask(&change(server, how, machine, n)).await?;
        ensure!(answer.status == 200, "a change is answered {}", answer.status);
        let mut last = begin;
        for reader in 0..READERS {
            // The server has things of its own to say meanwhile: machines that nobody has heard of for months are late.
            let told = tokio::time::timeout(PATIENCE, next_about(&mut sees, &name(machine))).await;
            let told = told.with_context(|| format!("change {n}: {reader} of {READERS} readers were told"))?;
            last = last.max(told.context("the readers ended")?);
        }
        times.add(last - begin);
    }
    let case = format!("{word}: from a change to the last of {READERS} readers, {machines} machines");
    report.ours(&format!("{case}, p50"), "ms", times.part(0.5));
    report.ours(&format!("{case}, p99"), "ms", times.part(0.99));

    let begin = Instant::now();
    let mut writers = JoinSet::new();
    for first in 0..WRITERS {
        let mut writer = server.connect()?;
        // Distinct machines as far as there are: a change that changes nothing would be told to nobody.
        let requests: Vec<_> =
            (first..BURST).step_by(WRITERS).map(|n| change(server, how, n % machines, SINGLE + n)).collect();
        writers.spawn(async move {
            for request in requests {
                let answer = writer.ask(&request).await?;
                ensure!(answer.status == 200, "a change is answered {}", answer.status);
            }
            Ok(())
        });
    }
    let mut missing: HashMap<String, usize> = HashMap::new();
    for n in 0..BURST {
        *missing.entry(name(n % machines)).or_default() += READERS;
    }
    while !missing.is_empty() {
        let left = || missing.values().sum::<usize>();
        let news = tokio::time::timeout(PATIENCE, sees.recv()).await;
        let news = news.with_context(|| format!("{} of {} were not told", left(), READERS * BURST))?;
        let (about, _) = news.context("the readers ended")?;
        if let Some(count) = missing.get_mut(&about) {
            *count -= 1;
            if *count == 0 {
                missing.remove(&about);
            }
        }
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let case = format!("{word}: changes told to {READERS} readers, none missing, {machines} machines");
    report.ours(&case, "changes/s", BURST as f64 / seconds);
    Ok(())
}

pub(crate) async fn run(report: &mut Report, server: &Server, machines: usize) -> Result<()> {
    one(report, server, machines, How::Events, "events").await?;
    one(report, server, machines, How::Objects, "watch").await
}
