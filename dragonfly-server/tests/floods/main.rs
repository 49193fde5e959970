//! Strangers who send as much as they can: machines that boot are answered all the same, and the server's
//! memory stays within its bound.
//!
//! Needs root and iproute2: everything happens in two network namespaces joined by a cable. Skips without
//! them, and fails instead where `CI` is set. `DRAGONFLY_FLOODS=N` makes each flood N times as long and
//! sends as fast as it can, where nothing is asserted of answers; `DRAGONFLY_FLOODS_REPORT=FILE` writes the figures as JSON.
//!
//! Nothing is asserted of how long an answer takes: only that there is one.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

mod agents;
mod honest;
mod strangers;
mod world;

use honest::Figures;
use serde_json::{Value, json};
use strangers::Flood;
use world::World;

/// How much more memory the server may take under any of the floods than before, in MiB.
const MORE_MEMORY: u64 = 150;
/// How much more at its peak, over all floods together, than before the first of them, in MiB.
const MOST_MEMORY: u64 = 250;
/// Questions of each kind that a machine asks during one flood.
const ROUNDS: usize = 12;

#[test]
fn machines_boot_beside_a_flood() {
    let times = std::env::var("DRAGONFLY_FLOODS").ok().map_or(1, |n| n.parse().expect("DRAGONFLY_FLOODS is a number"));
    let Some(world) = World::new(20_000) else { return };
    let before = world.server.memory();
    world.client_side(async |site| {
        let mut report = vec![row("calm", &honest::boot_often(&site, ROUNDS * times).await, before, &world)];
        let first = world.server.memory();
        for flood in Flood::ALL {
            let calm = world.server.memory();
            let running = flood.start(&site, times);
            running.reaches(flood.full()).await;
            let figures = honest::boot_often(&site, ROUNDS * times).await;
            let (memory, open) = (world.server.memory(), world.server.open_files());
            let sent = running.end().await;
            let mut row = row(flood.word(), &figures, memory, &world);
            row["sent"] = sent.into();
            row["openFiles"] = open.into();
            println!("{row}");
            report.push(row);
            assert!(sent > 0, "{}: nothing was sent", flood.word());
            // Packets that do not fit into the server's queue are lost, whoever sends them.
            let answered = times > 1 || figures.unanswered().is_empty();
            assert!(answered, "{}: {:?}\n{}", flood.word(), figures.unanswered(), world.server.said());
            let more = memory.saturating_sub(calm) >> 20;
            assert!(more <= MORE_MEMORY, "{}: {more} MiB more\n{report:#?}", flood.word());
            // 8192 connections and a file for each, 1024 transfers and a file for each, and the house's own.
            assert!(open <= 2 * (6666 + 1024) + 200, "{}: {open} open files", flood.word());
        }
        write(&report);
        // Each of them may leave what it took: together they may not.
        let most = world.server.most_memory().saturating_sub(first) >> 20;
        println!("{most} MiB more at most than before the first flood");
        assert!(most <= MOST_MEMORY, "{most} MiB more at most\n{report:#?}");
    });
}

#[test]
fn who_has_few_files_answers_those_it_has_and_says_so() {
    // A third of them for connections: 85.
    let Some(world) = World::new(256) else { return };
    world.client_side(async |site| {
        let mut old = honest::Web::open(&site).await.unwrap();
        old.script(&honest::card(1)).await.unwrap();
        let crowd = Flood::Idle.start(&site, 1);
        crowd.reaches(1000).await;
        for n in 0..5 {
            old.script(&honest::card(n)).await.expect("a connection that was there before is answered");
        }
        let figures = honest::boot_often(&site, 5).await;
        assert_eq!(figures.unanswered(), Vec::<String>::new(), "{}", world.server.said());
        assert!(world.server.open_files() <= 256);
        crowd.end().await;
    });
    let said = world.server.said();
    assert!(said.contains("all 85 connections are in use"), "{said}");
}

fn row(name: &str, figures: &Figures, memory: u64, world: &World) -> Value {
    json!({ "flood": name, "honest": figures.report(), "memoryMiB": memory >> 20, "mostMiB": world.server.most_memory() >> 20 })
}

fn write(report: &[Value]) {
    let Some(path) = std::env::var_os("DRAGONFLY_FLOODS_REPORT") else { return };
    std::fs::write(path, serde_json::to_vec_pretty(report).unwrap()).unwrap();
}
