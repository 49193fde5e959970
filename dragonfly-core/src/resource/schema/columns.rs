//! The columns of each kind's table, as `kubectl get` shows it.

use super::super::Kind;

/// One column beside the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its heading: `Phase`.
    pub name: &'static str,
    /// `string`, `integer`, `boolean` or `date` (OpenAPI v3's types, and Kubernetes' `date`, shown as an age).
    pub kind: &'static str,
    /// Where the value stands in the object, as in Kubernetes' `jsonPath`: fields, `[0]`, and
    /// `[?(@.type=="Served")]`, nothing else.
    pub path: &'static str,
    /// 0 is always shown, greater than 0 with `-o wide`.
    pub priority: u8,
    /// What it says.
    pub about: &'static str,
}

const fn column(name: &'static str, kind: &'static str, path: &'static str, about: &'static str) -> Column {
    Column { name, kind, path, priority: 0, about }
}

const fn wide(name: &'static str, kind: &'static str, path: &'static str, about: &'static str) -> Column {
    Column { name, kind, path, priority: 1, about }
}

const AGE: Column = column("Age", "date", ".metadata.creationTimestamp", "When it was created.");

const HARDWARE: &[Column] = &[
    column("Phase", "string", ".status.phase", "Where in its life it is."),
    column("Installed", "string", ".status.installed", "The template that was installed last."),
    column("Address", "string", ".status.address", "Where its agent asked from last."),
    column("MAC", "string", ".spec.macs[0]", "The address of its first network card."),
    wide("Display name", "string", ".spec.displayName", "Its name with capitals."),
    wide("Workflow", "string", ".status.workflow", "The workflow at work, or the last one."),
    wide("Product", "string", ".status.inventory.system.product", "What its maker calls it."),
    wide("Serial", "string", ".status.inventory.system.serial", "Its serial number."),
    wide("BMC", "string", ".spec.bmc.address", "Its management controller."),
    wide("Message", "string", ".status.message", "Why it is in this phase."),
    AGE,
];

const TEMPLATE: &[Column] = &[column("Description", "string", ".spec.description", "What it is for."), AGE];

const WORKFLOW: &[Column] = &[
    column("Hardware", "string", ".spec.hardware", "The machine."),
    column("Template", "string", ".spec.template", "The template it was made from."),
    column("State", "string", ".status.state", "The state of the whole run."),
    wide("Attempt", "integer", ".status.attempt", "Counts tries."),
    wide("Message", "string", ".status.message", "Why it is in this state."),
    AGE,
];

const NETWORK: &[Column] = &[
    column("Interface", "string", ".spec.interface", "The interface it is on."),
    column("DHCP", "string", ".spec.dhcp", "What DHCP does there."),
    column("Subnet", "string", ".spec.subnet", "The subnet."),
    column(
        "Served",
        "string",
        ".status.conditions[?(@.type==\"Served\")].status",
        "Whether boot services answer there.",
    ),
    wide("Message", "string", ".status.conditions[?(@.type==\"Served\")].message", "Why not."),
    AGE,
];

const OTHER: &[Column] = &[AGE];

/// The columns of a kind's table after its name, in order.
pub fn columns(kind: Kind) -> &'static [Column] {
    match kind {
        Kind::HARDWARE => HARDWARE,
        Kind::TEMPLATE => TEMPLATE,
        Kind::WORKFLOW => WORKFLOW,
        Kind::NETWORK => NETWORK,
        _ => OTHER,
    }
}
