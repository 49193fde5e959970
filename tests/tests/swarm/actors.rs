//! Who talks to the instances: an operator, the machines' agents, and strangers that want to speak for a machine too.

use std::time::Duration;

use dragonfly_core::engine::{AssignRequest, EngineError, ReimageRequest};
use dragonfly_core::resource::hardware::Overwrite;
use dragonfly_core::wire::{Ask, Heard, Orders, Report, ReportKind, Work};
use tokio::time::Instant;
use uuid::Uuid;

use crate::common;
use crate::machine::{Agent, Did, Machine, Run, Stage};
use crate::world::{MACHINES, World, number};

/// How long an agent waits for an answer before it asks another instance.
const PATIENCE: Duration = Duration::from_secs(5);

async fn rest(world: &World, from: u64, to: u64) {
    tokio::time::sleep(Duration::from_millis(from + world.dice.below(to - from))).await;
}

/// One of two operators, who asks one thing after the other; in one history of two hastily, while agents begin.
pub(crate) async fn operator(world: &World) {
    let longest = if world.dice.one_in(2) { 4_000 } else { 20_000 };
    loop {
        rest(world, 500, longest).await;
        let machine = world.dice.below(MACHINES as u64 + 2) as usize % MACHINES;
        let (word, at, asked) = (common::card(number(machine)).to_string(), world.any(), Instant::now());
        match world.dice.below(20) {
            0..8 => {
                let all = world.dice.one_in(2);
                let overwrite = if all { Overwrite::All } else { Overwrite::Blank };
                let request = AssignRequest { template: "debian".to_owned(), overwrite, ..AssignRequest::default() };
                world.oracle.borrow_mut().asks(machine, asked, all);
                let answer = world.call(at, |engine| async move { engine.assign(&word, request, "operator").await });
                granted(world, machine, asked, answer.await);
            }
            8..12 => {
                let request = ReimageRequest { template: Some("debian".to_owned()), ..ReimageRequest::default() };
                world.oracle.borrow_mut().asks(machine, asked, true);
                let answer = world.call(at, |engine| async move { engine.reimage(&word, request, "operator").await });
                granted(world, machine, asked, answer.await);
            }
            12..15 => {
                let answer = world.call(at, |engine| async move { engine.retry(&word, "operator").await }).await;
                if !matches!(answer, Some(Err(_))) {
                    world.oracle.borrow_mut().retried(machine);
                }
            }
            15..18 => {
                let answer = world.call(at, |engine| async move { engine.abort(&word, "operator").await }).await;
                if matches!(answer, Some(Ok(()))) {
                    world.oracle.borrow_mut().aborted(machine, asked);
                }
            }
            _ => {
                let on = world.dice.one_in(3);
                world.oracle.borrow_mut().protects(machine);
                let answer = world.call(at, |engine| async move { engine.protect(&word, on, "operator").await }).await;
                world.oracle.borrow_mut().protected(machine, matches!(answer, Some(Ok(()))).then_some(on));
            }
        }
    }
}

fn granted(
    world: &World,
    machine: usize,
    asked: Instant,
    answer: Option<Result<dragonfly_core::resource::Workflow, EngineError>>,
) {
    if let Some(answer) = answer {
        let answer = answer.map(|run| run.name().to_owned()).map_err(|error| error.to_string());
        world.oracle.borrow_mut().granted(machine, asked, answer);
    } else {
        world.oracle.borrow_mut().cut(machine, asked);
    }
}

/// Says hello until it is welcomed or not wanted: the session's key.
async fn hello(world: &World, machine: usize, boot: Uuid, tries: u32, data: &Machine) -> Option<String> {
    let mut token = None;
    for _ in 0..tries {
        let at = world.any();
        if token.is_none() {
            token = world.identity(at, machine).await;
        }
        let Some(identity) = &token else {
            rest(world, 500, 3_000).await;
            continue;
        };
        let (text, said) =
            (identity.token.reveal().to_owned(), common::hello(number(machine), boot, data.existing_os()));
        let (from, asked) = (common::address(number(machine)), Instant::now());
        let answer = world.call(world.any(), |engine| async move { engine.hello(&text, said, from).await }).await;
        match answer {
            Some(Ok(welcome)) => {
                world.oracle.borrow_mut().welcomed(machine, boot, asked);
                return Some(welcome.session.reveal().to_owned());
            }
            Some(Err(EngineError::Busy { .. })) => world.oracle.borrow_mut().seen.refused += 1,
            Some(Err(EngineError::Unproven { .. } | EngineError::Forbidden { .. })) => token = None,
            Some(Err(_)) | None => {}
        }
        rest(world, 1_000, 9_000).await;
    }
    None
}

/// A machine: it boots, its agent does what it is told, and now and then it is switched off in the middle.
pub(crate) async fn machine(world: &World, index: usize) {
    // One of them came with an operating system.
    let mut machine = Machine::default();
    machine.disk.data = index == 1;
    loop {
        rest(world, 500, 12_000).await;
        let boot = Uuid::from_u128(u128::from(world.dice.below(u64::MAX)));
        if let Some(session) = hello(world, index, boot, 12, &machine).await {
            machine.agent = Some(Agent { boot, token: 0, session: None, run: None });
            agent(world, index, &mut machine, boot, session).await;
        }
        machine.agent = None;
        world.oracle.borrow_mut().left(index, boot);
    }
}

async fn agent(world: &World, index: usize, machine: &mut Machine, boot: Uuid, mut session: String) {
    // It stays with one instance until that one does not answer.
    let mut at = world.any();
    loop {
        rest(world, 50, 3_000).await;
        if world.dice.one_in(60) {
            return;
        }
        if world.dice.one_in(4) {
            at = world.any();
        }
        let Some(run) = machine.agent.as_ref().and_then(|agent| agent.run.clone()) else {
            match work(world, at, index, boot, session.clone()).await {
                Some(Ok(Orders::Execute(work))) => set(machine, Some(Run::new(Work::clone(&work)))),
                Some(Ok(Orders::Wait { .. })) => {}
                Some(Ok(_)) => return,
                // Its session may be over, or not known where it asked.
                Some(Err(EngineError::Unauthenticated { .. })) => match hello(world, index, boot, 6, machine).await {
                    Some(fresh) => session = fresh,
                    None => return,
                },
                Some(Err(_)) | None => at = world.any(),
            }
            continue;
        };
        if run.outbox.is_empty() || world.dice.one_in(2) {
            if run.stage == Stage::In(1) && world.dice.one_in(6) {
                machine.fails = Some(world.dice.one_in(2));
            }
            match machine.work() {
                Some(Did::Wiped { carried_data }) => {
                    let all = run.grant == Some(1);
                    world.oracle.borrow_mut().wiped(index, carried_data, all);
                    continue;
                }
                Some(_) => continue,
                None => {}
            }
        }
        let Some(what) = run.to_tell() else {
            set(machine, None);
            continue;
        };
        let asked = Instant::now();
        if matches!(what, ReportKind::HandOver) {
            // From here on another may speak, whether this one has heard the answer or not.
            world.oracle.borrow_mut().left(index, boot);
        }
        let Some(answer) = report(world, at, session.clone(), run.report(what.clone())).await else {
            at = world.any();
            continue;
        };
        let Ok(heard) = answer else {
            set(machine, None);
            continue;
        };
        // Of one that was said to two at once the one may be told to stop, since the other was heard.
        if !matches!(what, ReportKind::HandOver) {
            world.oracle.borrow_mut().heard(index, boot, asked);
        }
        if heard != Heard::GoOn {
            world.oracle.borrow_mut().seen.stopped += 1;
            set(machine, None);
            continue;
        }
        if let ReportKind::Step { .. } = &what {
            world.oracle.borrow_mut().went_on(index, &run.work.workflow, asked);
        }
        match what {
            ReportKind::HandOver => {
                let finished = machine.disk.is_finished(run.work.permit.workflow_uid, run.work.steps.len());
                world.oracle.borrow_mut().handed_over(index, &run.work.workflow, finished);
                return;
            }
            ReportKind::Began => {
                let Work { workflow, attempt, permit, .. } = &run.work;
                let all = world.oracle.borrow_mut().began(index, workflow, *attempt, permit.generation, boot, asked);
                change(machine, |run| {
                    run.stage = Stage::At(0);
                    run.grant = Some(usize::from(all));
                });
            }
            _ => change(machine, |run| drop(run.outbox.pop_front())),
        }
    }
}

fn set(machine: &mut Machine, run: Option<Run>) {
    if let Some(agent) = &mut machine.agent {
        agent.run = run;
    }
}

fn change(machine: &mut Machine, change: impl FnOnce(&mut Run)) {
    if let Some(run) = machine.agent.as_mut().and_then(|agent| agent.run.as_mut()) {
        change(run);
    }
}

async fn work(
    world: &World,
    at: usize,
    index: usize,
    boot: Uuid,
    session: String,
) -> Option<Result<Orders, EngineError>> {
    let (ask, asked) = (Ask { wait_seconds: world.dice.below(8) as u32 }, Instant::now());
    let call = world.call(at, |engine| async move { engine.work(&session, ask).await });
    let answer = tokio::time::timeout(PATIENCE * 3, call).await.ok()?;
    if matches!(answer, Some(Ok(_))) {
        world.oracle.borrow_mut().heard(index, boot, asked);
    }
    answer
}

/// Reports; now and then to two instances at once, as whoever asks again too soon does. `None`: not answered in time.
async fn report(world: &World, at: usize, session: String, report: Report) -> Option<Result<Heard, EngineError>> {
    let twice = world.dice.one_in(5);
    let other = async {
        if twice {
            world.oracle.borrow_mut().seen.doubled += 1;
            let (session, report) = (session.clone(), report.clone());
            rest(world, 0, 50).await;
            let call = world.call(world.any(), |engine| async move { engine.report(&session, report).await });
            drop(tokio::time::timeout(PATIENCE, call).await);
        }
    };
    let (session, report) = (session.clone(), report.clone());
    let call = world.call(at, |engine| async move { engine.report(&session, report).await });
    let (answer, ()) = tokio::join!(tokio::time::timeout(PATIENCE, call), other);
    answer.ok()?
}

/// Somebody with the machine's card: says hello now and then, and would begin what the machine is to run.
pub(crate) async fn stranger(world: &World, index: usize) {
    loop {
        rest(world, 10_000, 90_000).await;
        let boot = Uuid::from_u128(u128::from(world.dice.below(u64::MAX)));
        let Some(session) = hello(world, index, boot, 3, &Machine::default()).await else { continue };
        let at = world.any();
        if let Some(Ok(Orders::Execute(work))) = work(world, at, index, boot, session.clone()).await {
            let (run, asked) = (Run::new(Work::clone(&work)), Instant::now());
            let said = run.report(ReportKind::Began);
            if let Some(Ok(Heard::GoOn)) = report(world, world.any(), session, said).await {
                let Work { workflow, attempt, permit, .. } = &run.work;
                world.oracle.borrow_mut().began(index, workflow, *attempt, permit.generation, boot, asked);
            }
        }
        world.oracle.borrow_mut().left(index, boot);
    }
}
