//! Which logs are kept: what is there, and which go when there is too much of it. Knows no disk.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

/// The log of one session of one machine's agent.
pub(super) type Name = (String, Uuid);

/// What is kept of one machine.
const SESSIONS: usize = 4;
const OF_ONE_MACHINE: u64 = 16 * 1024 * 1024;
/// What a file takes on a disk at least.
const BLOCK: u64 = 4096;

/// Every log that is there.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// The most that all may take.
    most: u64,
    taken: u64,
    /// By the turn in which each was last written to, oldest first.
    by_age: BTreeMap<u64, Name>,
    /// Of each machine, oldest first.
    machines: HashMap<String, Vec<File>>,
    turn: u64,
}

#[derive(Debug)]
struct File {
    session: Uuid,
    turn: u64,
    takes: u64,
}

impl Files {
    pub(super) fn new(most: u64) -> Self {
        Self { most, ..Self::default() }
    }

    /// A log has this length now. Says which go for it: of this machine, then of all, those first that were
    /// not written to for the longest time; never this one.
    pub(super) fn wrote(&mut self, machine: &str, session: Uuid, length: u64) -> Vec<Name> {
        self.take_out(machine, session);
        let takes = length.max(1).next_multiple_of(BLOCK);
        self.turn += 1;
        self.taken += takes;
        self.by_age.insert(self.turn, (machine.to_owned(), session));
        let of_it = self.machines.entry(machine.to_owned()).or_default();
        of_it.push(File { session, turn: self.turn, takes });

        let mut sum: u64 = of_it.iter().map(|file| file.takes).sum();
        let mut go = Vec::new();
        for (n, file) in of_it.iter().enumerate().take(of_it.len() - 1) {
            if of_it.len() - n <= SESSIONS && sum <= OF_ONE_MACHINE {
                break;
            }
            sum -= file.takes;
            go.push((machine.to_owned(), file.session));
        }
        for (machine, session) in &go {
            self.take_out(machine, *session);
        }
        while self.taken > self.most
            && let Some((turn, oldest)) = self.by_age.first_key_value()
            && *turn != self.turn
        {
            let (machine, session) = oldest.clone();
            self.take_out(&machine, session);
            go.push((machine, session));
        }
        go
    }

    /// A machine is gone; of its logs only that of this session is still wanted.
    pub(super) fn gone(&mut self, machine: &str, but: Option<Uuid>) -> Vec<Name> {
        let of_it = self.machines.get(machine).map(Vec::as_slice).unwrap_or_default();
        let sessions = of_it.iter().map(|file| file.session).filter(|session| Some(*session) != but);
        let go: Vec<Name> = sessions.map(|session| (machine.to_owned(), session)).collect();
        for (machine, session) in &go {
            self.take_out(machine, *session);
        }
        go
    }

    #[cfg(test)]
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Every machine that has a log.
    pub(super) fn machines(&self) -> impl Iterator<Item = &str> {
        self.machines.keys().map(String::as_str)
    }

    fn take_out(&mut self, machine: &str, session: Uuid) {
        let Some(of_it) = self.machines.get_mut(machine) else { return };
        if let Some(n) = of_it.iter().position(|file| file.session == session) {
            let file = of_it.remove(n);
            self.taken -= file.takes;
            self.by_age.remove(&file.turn);
        }
        if of_it.is_empty() {
            self.machines.remove(machine);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Writes logs of these machines, sessions and lengths one after the other; says which went, in order.
    fn play(most: u64, writes: &[(&str, u128, u64)]) -> (Files, Vec<(String, u128)>) {
        let mut files = Files::new(most);
        let mut went = Vec::new();
        for (machine, session, length) in writes {
            let go = files.wrote(machine, Uuid::from_u128(*session), *length);
            went.extend(go.into_iter().map(|(machine, session)| (machine, session.as_u128())));
            assert_eq!(files.by_age.len(), files.machines.values().map(Vec::len).sum::<usize>());
            let sum: u64 = files.machines.values().flatten().map(|file| file.takes).sum();
            assert_eq!(files.taken, sum);
        }
        (files, went)
    }

    #[test]
    fn the_last_logs_are_kept() {
        let few = [("a", 1, 9), ("a", 2, 9), ("a", 3, 9), ("a", 4, 9)];
        type Row<'a> = (&'a str, u64, &'a [(&'a str, u128, u64)], &'a [(&'a str, u128)]);
        let table: [Row<'_>; 7] = [
            ("four of a machine", MIB, &few, &[]),
            ("a fifth", MIB, &[few.as_slice(), &[("a", 5, 9)]].concat(), &[("a", 1)]),
            ("it is age that counts", MIB, &[few.as_slice(), &[("a", 1, 10), ("a", 5, 9)]].concat(), &[("a", 2)]),
            (
                "16 MiB of a machine",
                1 << 30,
                &[("a", 1, 8 * MIB), ("a", 2, 7 * MIB), ("b", 3, 8 * MIB), ("a", 4, 8 * MIB)],
                &[("a", 1)],
            ),
            (
                "of all, the oldest go",
                10 * MIB,
                &[("a", 1, 4 * MIB), ("b", 2, 4 * MIB), ("a", 1, 5 * MIB), ("c", 3, 4 * MIB), ("d", 4, MIB)],
                &[("b", 2)],
            ),
            ("a file takes a block", 8192, &[("a", 1, 0), ("b", 2, 1), ("c", 3, 1)], &[("a", 1)]),
            ("never the one that is written", MIB, &[("a", 1, 9), ("b", 2, 8 * MIB)], &[("a", 1)]),
        ];
        for (what, most, writes, wanted) in table {
            let wanted: Vec<_> = wanted.iter().map(|(machine, session)| ((*machine).to_owned(), *session)).collect();
            assert_eq!(play(most, writes).1, wanted, "{what}");
        }
    }

    #[test]
    fn a_machine_that_is_gone_takes_its_logs_with_it() {
        let (mut files, _) = play(MIB, &[("a", 1, 9), ("a", 2, 9), ("b", 3, 9)]);
        let named = |n: u128| ("a".to_owned(), Uuid::from_u128(n));
        // One of the same name is there already, and writes.
        assert_eq!(files.gone("a", Some(Uuid::from_u128(2))), [named(1)]);
        assert_eq!(files.gone("a", None), [named(2)]);
        assert_eq!(files.gone("a", None), []);
        assert_eq!(files.machines().collect::<Vec<_>>(), ["b"]);
        assert_eq!(files.taken, BLOCK);
    }
}
