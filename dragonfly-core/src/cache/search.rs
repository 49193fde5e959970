//! Searching machines by what people know of them, a page at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::{Cache, State};
use crate::lifecycle::Phase;
use crate::resource::Hardware;

/// How many machines are looked at before others may have the lock and the thread.
const AT_ONCE: usize = 2000;

/// Which machines are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Find {
    /// Each must stand, whatever its capitals, in the name, a MAC, an address, the serial number, vendor and
    /// product, a label as `key=value`, the template or the phase.
    pub words: Vec<String>,
    /// Only those in one of these phases; `None` among them is a machine that never reported. Empty is any.
    pub phases: BTreeSet<Option<Phase>>,
    /// Labels that they must have, exactly.
    pub labels: BTreeMap<String, String>,
}

impl Find {
    /// The words of a text as a person types it.
    pub fn typed(text: &str) -> Self {
        let words = text.split_whitespace().map(|word| with_colons(word).unwrap_or_else(|| word.to_lowercase()));
        Self { words: words.collect(), ..Self::default() }
    }

    fn is_everything(&self) -> bool {
        self.words.is_empty() && self.phases.is_empty() && self.labels.is_empty()
    }
}

/// A MAC, whole or in part, that was written with hyphens.
fn with_colons(word: &str) -> Option<String> {
    let pair = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
    (word.contains('-') && word.split('-').all(pair)).then(|| word.replace('-', ":").to_lowercase())
}

/// Some of the machines that are meant, ordered by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// They.
    pub machines: Vec<Arc<Hardware>>,
    /// There are more after the last of them.
    pub more: bool,
}

/// What is looked at in a search, of every machine, and how many are in each phase.
#[derive(Debug, Default)]
pub(super) struct Texts {
    of: BTreeMap<String, Text>,
    phases: HashMap<Option<Phase>, usize>,
}

#[derive(Debug)]
struct Text {
    /// In lower case.
    text: Box<str>,
    phase: Option<Phase>,
    /// The workflow that tells the template while none is installed.
    run: Option<Box<str>>,
}

impl Texts {
    pub(super) fn forget(&mut self, name: &str) {
        let Some(Text { phase, .. }) = self.of.remove(name) else { return };
        if let Some(count) = self.phases.get_mut(&phase) {
            *count -= 1;
            if *count == 0 {
                self.phases.remove(&phase);
            }
        }
    }

    pub(super) fn learn(&mut self, name: &str, machine: &Hardware) {
        self.forget(name);
        let phase = machine.status.phase;
        *self.phases.entry(phase).or_default() += 1;
        let run = machine.status.workflow.as_deref().filter(|_| phase != Some(Phase::Ready)).map(Into::into);
        self.of.insert(name.to_owned(), Text { text: text(machine).into(), phase, run });
    }
}

/// Everything that a person may know a machine by.
fn text(machine: &Hardware) -> String {
    let (spec, status) = (&machine.spec, &machine.status);
    let mut text = format!("{}\n{}\n", machine.name(), spec.display_name);
    let mut add = |part: &str| {
        text.push_str(part);
        text.push('\n');
    };
    let anchored = status.anchors.iter().flat_map(|anchors| anchors.macs.iter().filter(|mac| !spec.macs.contains(mac)));
    spec.macs.iter().chain(anchored).for_each(|mac| add(&mac.to_string()));
    if let Some(serial) = &spec.serial {
        add(serial);
    }
    if let Some(address) = status.address {
        add(&address.to_string());
    }
    if let Some(reservation) = spec.dhcp.as_ref().filter(|r| Some(r.address) != status.address) {
        add(&reservation.address.to_string());
    }
    let system = status.inventory.as_ref().map(|inventory| &inventory.system);
    let serial = status.anchors.as_ref().and_then(|anchors| anchors.serial.as_deref());
    let told = system.and_then(|system| system.serial.as_deref());
    let expected = spec.serial.as_deref();
    let more = serial.into_iter().chain(told.filter(|told| Some(*told) != serial));
    more.filter(|more| Some(*more) != expected).for_each(&mut add);
    if let Some(system) = system {
        // As it is shown: one after the other, so that both may be typed.
        let model = [system.vendor.as_deref(), system.product.as_deref()];
        add(&model.into_iter().flatten().map(str::trim).collect::<Vec<_>>().join(" "));
    }
    machine.metadata.labels.iter().for_each(|(key, value)| add(&format!("{key}={value}")));
    add(status.installed.as_deref().unwrap_or_default());
    add(&status.phase.map_or_else(|| "unseen".to_owned(), |phase| phase.to_string()));
    text.to_lowercase()
}

impl Cache {
    /// The machines that are meant, `most` of them (0: all) after the one of this name. Looks at as many as it
    /// must and lets others work meanwhile.
    pub async fn find(&self, wanted: &Find, after: Option<&str>, most: usize) -> Found {
        let mut found = Found::default();
        let room = if most == 0 { usize::MAX } else { most };
        let mut after = after.map(str::to_owned);
        loop {
            let looked = self.read().look(wanted, after.as_deref(), room, &mut found);
            match looked {
                Some(last) if !found.more => after = Some(last),
                _ => return found,
            }
            tokio::task::yield_now().await;
        }
    }

    /// The machine of this name, if it is meant.
    pub fn meant(&self, wanted: &Find, name: &str) -> Option<Arc<Hardware>> {
        let state = self.read();
        let text = state.machines.texts.of.get(name)?;
        state.fits(wanted, name, text).then(|| state.hardware.get(name)).flatten()
    }

    /// How many machines are in each phase, those that never reported first; phases without a machine are
    /// left out.
    pub fn phases(&self) -> Vec<(Option<Phase>, usize)> {
        let mut all: Vec<_> = self.read().machines.texts.phases.iter().map(|(phase, count)| (*phase, *count)).collect();
        all.sort_unstable();
        all
    }
}

impl State {
    /// Looks at some machines after one. Gives the last that was looked at; `None` at the end.
    fn look(&self, wanted: &Find, after: Option<&str>, room: usize, found: &mut Found) -> Option<String> {
        let rest = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let texts = &self.machines.texts.of;
        // With a label, only those that have it: a rack costs what a rack has.
        let some: &mut dyn Iterator<Item = (&String, &Text)> = match self.machines.labelled(&wanted.labels) {
            Some(names) => &mut names.range::<str, _>(rest).filter_map(|name| texts.get_key_value(name)),
            None => &mut texts.range::<str, _>(rest),
        };
        let mut last = None;
        for (name, text) in some.take(AT_ONCE) {
            last = Some(name);
            if !wanted.is_everything() && !self.fits(wanted, name, text) {
                continue;
            }
            if found.machines.len() == room {
                found.more = true;
                break;
            }
            found.machines.extend(self.hardware.get(name));
        }
        last.cloned()
    }

    fn fits(&self, wanted: &Find, name: &str, text: &Text) -> bool {
        if !wanted.phases.is_empty() && !wanted.phases.contains(&text.phase) {
            return false;
        }
        let template = || {
            let run = text.run.as_deref().and_then(|run| self.workflows.get(run));
            run.map(|run| run.spec.template.to_lowercase()).unwrap_or_default()
        };
        if !wanted.words.iter().all(|word| text.text.contains(word.as_str()) || template().contains(word.as_str())) {
            return false;
        }
        wanted.labels.is_empty()
            || self.hardware.get(name).is_some_and(|machine| {
                wanted.labels.iter().all(|(key, value)| machine.metadata.labels.get(key) == Some(value))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mac;
    use crate::inventory::Inventory;
    use crate::resource::hardware::Reservation;
    use crate::resource::{HardwareSpec, TemplateSpec, Workflow, WorkflowSpec};

    fn cache(machines: impl IntoIterator<Item = Hardware>) -> Cache {
        let cache = Cache::new();
        for (n, mut machine) in machines.into_iter().enumerate() {
            machine.metadata.resource_version = (n + 1).to_string();
            cache.applied(&machine);
        }
        cache
    }

    fn machine(name: &str, n: u8) -> Hardware {
        let spec = HardwareSpec { macs: vec![Mac::new([2, 0xdf, 0, 0, 0xab, n])], ..HardwareSpec::default() };
        Hardware::new(name, spec)
    }

    async fn names(cache: &Cache, wanted: &Find, after: Option<&str>, most: usize) -> (Vec<String>, bool) {
        let found = cache.find(wanted, after, most).await;
        (found.machines.iter().map(|m| m.name().to_owned()).collect(), found.more)
    }

    #[tokio::test]
    async fn a_machine_is_found_by_everything_that_it_is_known_by() {
        let mut one = machine("censusablequalityparent", 1);
        one.spec.display_name = "CensusAbleQualityParent".into();
        one.spec.dhcp = Some(Reservation { address: "10.0.0.77".parse().unwrap(), hostname: None });
        one.metadata.labels.insert("Rack".into(), "A1".into());
        one.status.phase = Some(Phase::Assigned);
        one.status.workflow = Some("w".into());
        let mut inventory = Inventory::default();
        inventory.system.vendor = Some("Supermicro ".into());
        inventory.system.product = Some("SYS-121H".into());
        inventory.system.serial = Some("S500042".into());
        one.status.inventory = Some(inventory);
        let cache = cache([one, machine("other", 2)]);
        let spec = WorkflowSpec {
            hardware: "censusablequalityparent".into(),
            template: "Debian-12".into(),
            content: TemplateSpec::default(),
            values: BTreeMap::new(),
        };
        let mut run = Workflow::new("w", spec);
        run.metadata.resource_version = "9".into();
        cache.applied(&run);
        for text in [
            "census",
            "ABLEquality",
            "02:df:00:00:ab:01",
            "02-DF-00-00-AB-01",
            "ab-01",
            "10.0.0.77",
            "s500042",
            "supermicro sys-121h",
            "sys-121h census",
            "rack=a1",
            "debian-12",
            "assigned",
        ] {
            let found = names(&cache, &Find::typed(text), None, 0).await;
            assert_eq!(found, (vec!["censusablequalityparent".to_owned()], false), "{text}");
        }
        for text in ["census other", "debian-13", "rack=a2", "ready", "unseen census"] {
            assert_eq!(names(&cache, &Find::typed(text), None, 0).await.0, Vec::<String>::new(), "{text}");
        }
        assert_eq!(names(&cache, &Find::typed("02:df"), None, 0).await.0.len(), 2);
        let rack = |value: &str| Find { labels: [("Rack".to_owned(), value.to_owned())].into(), ..Find::default() };
        assert_eq!(names(&cache, &rack("A1"), None, 0).await.0.len(), 1);
        assert_eq!(names(&cache, &rack("A"), None, 0).await.0.len(), 0, "a label is meant exactly");
        let mut both = rack("A1");
        both.labels.insert("row".to_owned(), "7".to_owned());
        assert_eq!(names(&cache, &both, None, 0).await.0.len(), 0, "each label is meant");
        let phase = Find { phases: [None].into(), ..Find::default() };
        assert_eq!(names(&cache, &phase, None, 0).await.0, ["other"]);
        assert_eq!(cache.phases(), [(None, 1), (Some(Phase::Assigned), 1)]);
    }

    #[tokio::test]
    async fn pages_follow_one_another_and_the_last_one_says_so() {
        let many = AT_ONCE + 5;
        let cache = cache((0..many).map(|n| {
            let mut machine = machine(&format!("m{n:05}"), 1);
            if n % 2 == 0 {
                machine.metadata.labels.insert("even".into(), "yes".into());
            }
            machine
        }));
        let sevens = (0..many).filter(|n| n.to_string().contains('7')).count();
        let even = Find { labels: [("even".to_owned(), "yes".to_owned())].into(), ..Find::default() };
        for (wanted, all) in
            [(Find::default(), many), (Find::typed("m0000"), 10), (Find::typed("7"), sevens), (even, many.div_ceil(2))]
        {
            let (mut seen, mut after, mut pages) = (Vec::new(), None::<String>, 0);
            loop {
                let (page, more) = names(&cache, &wanted, after.as_deref(), 400).await;
                pages += 1;
                seen.extend(page);
                if !more {
                    break;
                }
                after = seen.last().cloned();
            }
            assert_eq!((seen.len(), pages), (all, all.div_ceil(400)), "{wanted:?}");
            assert!(seen.is_sorted() && seen.windows(2).all(|two| two[0] != two[1]));
        }
        // A page that ends with the last machine is the last page.
        assert!(!names(&cache, &Find::typed("m0000"), None, 10).await.1);
        assert!(names(&cache, &Find::typed("m0000"), None, 9).await.1);
        assert_eq!(names(&cache, &Find::default(), None, 0).await.0.len(), many);
    }

    #[tokio::test]
    async fn what_changes_is_found_as_it_is_now() {
        let cache = cache([machine("a", 1)]);
        let mut changed = machine("a", 9);
        changed.metadata.resource_version = "7".into();
        changed.status.phase = Some(Phase::Ready);
        cache.applied(&changed);
        assert_eq!(names(&cache, &Find::typed("ab:01"), None, 0).await.0.len(), 0);
        assert_eq!(names(&cache, &Find::typed("ab:09"), None, 0).await.0, ["a"]);
        assert_eq!(cache.phases(), [(Some(Phase::Ready), 1)]);
        let rack = |value: &str| Find { labels: [("rack".to_owned(), value.to_owned())].into(), ..Find::default() };
        for (version, value) in [("8", "r1"), ("9", "r2")] {
            changed.metadata.resource_version = version.into();
            changed.metadata.labels.insert("rack".into(), value.into());
            cache.applied(&changed);
            for (of, want) in [("r1", value == "r1"), ("r2", value == "r2")] {
                assert_eq!(names(&cache, &rack(of), None, 0).await.0.len(), usize::from(want), "{of} at {value}");
            }
        }
        cache.removed(&crate::store::Key::new(crate::resource::Kind::HARDWARE, "a"), "9");
        assert_eq!(names(&cache, &rack("r2"), None, 0).await.0.len(), 0);
        assert_eq!((cache.find(&Find::default(), None, 0).await, cache.phases()), (Found::default(), vec![]));
    }
}
