//! What a simulated service is like.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::power::{Health, LoggedEvent};

/// How a service tags its resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tags {
    /// Not at all.
    None,
    /// As it should.
    #[default]
    Strong,
    /// With weak tags; it wants them back without their mark.
    Weak,
    /// With weak tags; it refuses whatever names one.
    WeakAlways,
}

/// What a service is like.
#[derive(Debug, Clone)]
pub struct Personality {
    /// Its only account.
    pub username: String,
    /// That account's password.
    pub password: String,
    /// That account may read and change nothing.
    pub reads_only: bool,
    /// It wants the password to be changed first.
    pub wants_new_password: bool,
    /// Whether sessions can be opened; without, every request has the password.
    pub has_sessions: bool,
    /// Its systems say what belongs to them.
    pub has_links: bool,
    /// It says where things are by a name of its own, which nobody else knows.
    pub has_own_name: bool,
    /// How many sessions it has room for.
    pub sessions: usize,
    /// How many systems it controls.
    pub systems: usize,
    /// Its maker: `Dell`, `HPE`, `Supermicro`, `ASRockRack`.
    pub vendor: String,
    /// Its systems' model.
    pub model: String,
    /// Reset types that it has.
    pub allowed: Vec<String>,
    /// It says which it has in a resource of its own.
    pub has_action_info: bool,
    /// It answers so much later.
    pub delay: Duration,
    /// A change of power is seen so much later.
    pub takes: Duration,
    /// It says yes to everything and does nothing.
    pub lies: bool,
    /// Changes are tasks, which it answers for later.
    pub has_tasks: bool,
    /// Its tasks end in this.
    pub task_fails: Option<String>,
    /// How it tags its resources.
    pub tags: Tags,
    /// So many changes come too late: somebody else was faster.
    pub races: u32,
    /// It keeps an override for ever that was for the next boot.
    pub forgets_once: bool,
    /// It forgets so many overrides when it is looked at again.
    pub reverts: u32,
    /// It knows legacy boot and UEFI boot.
    pub has_boot_mode: bool,
    /// It refuses `None` as a target.
    pub rejects_none: bool,
    /// It changes nothing but what is told to the system's future state.
    pub has_future_state: bool,
    /// It lists members with what they say, when asked.
    pub expands: bool,
    /// It lists so many members on a page.
    pub page: usize,
    /// It has a collection of sensors; without, Thermal and Power.
    pub has_sensors: bool,
    /// Its log.
    pub events: Vec<LoggedEvent>,
}

impl Default for Personality {
    /// Quick, honest, one system, `admin` with `secret`.
    fn default() -> Self {
        let event = |id: u32, message: &str, health| LoggedEvent {
            id: id.to_string(),
            at: Some(Timestamp::from_unix_seconds(1_700_000_000 + i64::from(id))),
            sensor: "Fan".to_owned(),
            message: message.to_owned(),
            health,
        };
        Self {
            username: "admin".to_owned(),
            password: "secret".to_owned(),
            reads_only: false,
            wants_new_password: false,
            has_sessions: true,
            has_links: true,
            has_own_name: false,
            sessions: 4,
            systems: 1,
            vendor: "Acme".to_owned(),
            model: "R1".to_owned(),
            allowed: ["On", "ForceOff", "GracefulShutdown", "ForceRestart", "PowerCycle"].map(str::to_owned).to_vec(),
            has_action_info: false,
            delay: Duration::ZERO,
            takes: Duration::ZERO,
            lies: false,
            has_tasks: false,
            task_fails: None,
            tags: Tags::Strong,
            races: 0,
            forgets_once: false,
            reverts: 0,
            has_boot_mode: true,
            rejects_none: false,
            has_future_state: false,
            expands: false,
            page: usize::MAX,
            has_sensors: true,
            events: vec![
                event(1, "The log was cleared.", Health::Ok),
                event(2, "A fan turns slowly.", Health::Warning),
                event(3, "A fan stands still.", Health::Critical),
            ],
        }
    }
}
