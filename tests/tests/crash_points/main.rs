//! The server is killed between any two writes to its store, once and twice; the machine loses its
//! power between any two reports. Whatever is durable then, what starts next brings to the same end,
//! and no disk is written without leave.

#[path = "../common/mod.rs"]
mod common;
mod world;

use dragonfly_core::boot::{BootRequest, Fate};
use dragonfly_core::lifecycle::Phase;
use dragonfly_core::workflow::RunState;

use world::{CARD, MACHINE, Script, World};

/// A story with a known end. Panics when it ends otherwise.
#[derive(Debug, Clone, Copy)]
enum Story {
    /// Seen, assigned, installed.
    Install,
    /// A step fails once; the second attempt succeeds.
    FailsOnce,
    /// A step fails twice with the same cause; the operator asks for a third attempt.
    FailsAndIsRetried,
    /// Called off before it begins, then assigned anew.
    CalledOff,
    /// Called off while it runs.
    CalledOffAtWork,
    /// Installed, then installed anew.
    Reimage,
}

const STORIES: [Story; 6] = [
    Story::Install,
    Story::FailsOnce,
    Story::FailsAndIsRetried,
    Story::CalledOff,
    Story::CalledOffAtWork,
    Story::Reimage,
];

impl Story {
    async fn play(self, world: &mut World) {
        let mut calm = Script::default();
        assert!(world.power_on().await, "a machine that nobody has seen boots the agent");
        assert!(!world.agent_works(&mut calm).await);
        world.assign().await;
        match self {
            Self::Install => assert!(world.agent_works(&mut calm).await),
            Self::FailsOnce => {
                let mut script = Script { failures: [(1, "no space left")].into(), ..Script::default() };
                assert!(world.agent_works(&mut script).await);
            }
            Self::FailsAndIsRetried => {
                let failures = [(1, "no space left"), (1, "no space left")].into();
                let mut script = Script { failures, ..Script::default() };
                assert!(!world.agent_works(&mut script).await, "the same cause twice");
                assert_eq!(world.machine().await.and_then(|m| m.status.phase), Some(Phase::Error));
                world.retry().await;
                assert!(world.agent_works(&mut script).await);
            }
            Self::CalledOff => {
                world.abort().await;
                assert!(!world.agent_works(&mut calm).await);
                world.assign().await;
                assert!(world.agent_works(&mut calm).await);
            }
            Self::CalledOffAtWork => {
                // It is called off while the machine is without power, in the middle of a step.
                let mut script = Script { dies_before: Some(2), ..Script::default() };
                assert!(!world.agent_works(&mut script).await);
                world.abort().await;
                assert!(world.power_on().await, "its agent is to look again");
                assert!(!world.agent_works(&mut calm).await, "nothing is to be done");
                world.assign().await;
                assert!(world.agent_works(&mut calm).await);
            }
            Self::Reimage => {
                assert!(world.agent_works(&mut calm).await);
                assert!(!world.power_on().await, "it is Ready: it boots from its disk");
                world.reimage().await;
                assert!(world.power_on().await);
                assert!(world.agent_works(&mut calm).await);
            }
        }
        self.has_ended_well(world).await;
    }

    async fn has_ended_well(self, world: &mut World) {
        let (machine, runs) = world.settled().await;
        assert_eq!(machine.status.phase, Some(Phase::Ready), "{:?}", machine.status);
        assert_eq!(machine.status.installed.as_deref(), Some("debian"));
        let succeeded: Vec<_> = runs.iter().filter(|run| run.status.state == RunState::Succeeded).collect();
        let want = if matches!(self, Self::Reimage) { 2 } else { 1 };
        assert_eq!(succeeded.len(), want, "{runs:#?}");
        assert!(runs.iter().all(|run| run.status.state.is_final()), "{runs:#?}");
        // The machine names the workflow that installed it, and that one wrote its disk last.
        let last = machine.status.workflow.expect("a machine that was installed names its workflow");
        assert!(succeeded.iter().any(|run| run.name() == last));
        assert_eq!(world.imaged.last().map(|(workflow, _)| workflow), Some(&last));
        assert!(!world.power_on().await, "{MACHINE} is Ready and boots from its disk, again and again");
        let fate = world.call(async |engine| Ok(engine.decision(&BootRequest::from_mac(CARD)).fate)).await;
        assert_eq!(fate.expect("a decision cannot fail"), Fate::Local);
    }
}

/// How many writes a story takes when nobody is killed.
async fn writes(story: Story) -> u64 {
    let mut world = World::new(None, &[]).await;
    story.play(&mut world).await;
    assert_eq!(world.kills, 0);
    world.writes()
}

#[tokio::test(start_paused = true)]
async fn killed_once_between_any_two_writes() {
    for story in STORIES {
        let writes = writes(story).await;
        assert!(writes > 8, "{story:?} writes {writes} times only");
        for limit in 0..writes {
            println!("{story:?}, killed after {limit} of {writes} writes");
            let mut world = World::new(None, &[limit]).await;
            story.play(&mut world).await;
            assert_eq!(world.kills, 1, "the server was to be killed");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn killed_twice() {
    for story in STORIES {
        let writes = writes(story).await;
        for first in 0..writes {
            for second in 0..3 {
                println!("{story:?}, killed after {first} of {writes} writes and {second} more");
                let mut world = World::new(None, &[first, second]).await;
                story.play(&mut world).await;
                assert!(world.kills >= 1, "the server was to be killed");
            }
        }
    }
}

#[tokio::test]
async fn killed_on_a_real_file() {
    let directory = tempfile::tempdir().expect("a directory for the stores");
    for story in [Story::Install, Story::FailsAndIsRetried] {
        for limit in 0..writes(story).await {
            println!("{story:?}, killed after {limit} writes");
            let path = directory.path().join(format!("{story:?}-{limit}.redb"));
            let mut world = World::new(Some(path), &[limit]).await;
            story.play(&mut world).await;
            assert_eq!(world.kills, 1, "the server was to be killed");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_machine_loses_its_power_between_any_two_reports() {
    // Began, two reports for each of three steps, the hand-over.
    for reports in 0..8 {
        println!("without power before report {reports}");
        let mut world = World::new(None, &[]).await;
        assert!(world.power_on().await);
        world.assign().await;
        let mut script = Script { dies_before: Some(reports), ..Script::default() };
        assert!(!world.agent_works(&mut script).await);
        assert!(world.power_on().await, "its workflow is not done: it boots the agent again");
        assert!(world.agent_works(&mut script).await);
        Story::Install.has_ended_well(&mut world).await;
    }
}
