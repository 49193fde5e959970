//! What a snapshot says, written.

use std::collections::BTreeSet;

use futures_util::stream::{self, StreamExt as _};

use super::edit::{self, News};
use super::plan::{Doubled, Machine, plan};
use super::{ClusterSource, doubled};
use crate::Mac;
use crate::cache::Owner;
use crate::clock::Timestamp;
use crate::engine::{Engine, Result};
use crate::name;
use crate::power::proxmox::{Found, Snapshot};
use crate::resource::{Hardware, HardwareSpec};

/// How many machines are written at a time.
const AT_ONCE: usize = 64;

impl Engine {
    /// None is left out for another's error.
    pub(super) async fn take_in(
        &self,
        source: &ClusterSource,
        snapshot: &Snapshot,
        began: Timestamp,
        told: &mut BTreeSet<Doubled>,
    ) -> Result<()> {
        let (mut machines, mut marked) = (Vec::new(), Vec::new());
        for piece in self.inner.cache.pieces::<HardwareSpec>() {
            machines.extend(piece.iter().map(|machine| Machine::of(machine)));
            let ours = piece.iter().filter(|machine| doubled::is_marked(machine, &snapshot.cluster));
            marked.extend(ours.map(|machine| machine.name().to_owned()));
            tokio::task::yield_now().await;
        }
        let plan = plan(&machines, snapshot, &self.inner.clusters.names());
        drop(machines);
        let new: Vec<_> = plan.new.iter().map(|found| self.appear(found, source, began)).collect();
        let mut failed = each(new).await;
        let same: Vec<_> = plan.same.iter().map(|(name, found)| self.keep_up(name, found, source, began)).collect();
        failed = failed.or(each(same).await);
        let gone: Vec<_> = plan.gone.iter().map(|name| self.vm_gone(name, &snapshot.cluster)).collect();
        failed = failed.or(each(gone).await);
        let done = self.mark_doubled(snapshot, &plan.same, &plan.doubled, &marked).await;
        failed = failed.or(done.err());
        self.tell_doubled(plan.doubled, &snapshot.cluster, told);
        failed.map_or(Ok(()), Err)
    }

    async fn appear(&self, found: &Found, source: &ClusterSource, began: Timestamp) -> Result<()> {
        // It may have registered meanwhile; the next look recognises it.
        if found.macs.iter().any(|mac| !matches!(self.inner.cache.by_mac(*mac), Owner::Nobody)) {
            return Ok(());
        }
        let (title, card) = match found.macs.first() {
            Some(mac) => (name::memorable(*mac), Some(*mac)),
            None => (plain_name(found), None),
        };
        let name = self.write_down(&title, card, |name| edit::made(name, found, source)).await?;
        let (object, _) = self.change_vm_status(&name, found, began).await?;
        self.inner.recorder.adopt(&name, &object.spec.macs);
        let Found { vmid, cluster, node, .. } = found;
        let held = if found.adopted { "" } else { "; it is held until it is adopted or released" };
        self.tell("machine.found", &name, None, format!("VM {vmid} of Proxmox cluster {cluster}, on {node}{held}"));
        Ok(())
    }

    async fn keep_up(&self, name: &str, found: &Found, source: &ClusterSource, began: Timestamp) -> Result<()> {
        let now = self.now();
        let is_taken = |mac: Mac| match self.inner.cache.by_mac(mac) {
            Owner::Nobody => false,
            Owner::One(owner) => owner.name() != name,
            Owner::Several(_) => true,
        };
        let Some(machine) = self.inner.cache.get::<HardwareSpec>(name) else { return Ok(()) };
        // Most are as they were: nothing is written, and nobody waits.
        let mut copy = Hardware::clone(&machine);
        edit::follow(&mut copy, found, source, is_taken);
        edit::note(&mut copy.status, found, began, now);
        if copy == *machine {
            return Ok(());
        }
        let mut news: Vec<News> = Vec::new();
        let _guard = self.lock(name).await;
        if copy.metadata != machine.metadata || copy.spec != machine.spec {
            self.change_spec::<HardwareSpec>(name, |m| {
                news = edit::follow(m, found, source, is_taken);
                Ok(())
            })
            .await?;
        }
        if copy.status != machine.status {
            news.extend(self.change_vm_status(name, found, began).await?.1);
        }
        for (kind, words) in news {
            self.tell(kind, name, None, words);
        }
        Ok(())
    }

    async fn change_vm_status(&self, name: &str, found: &Found, began: Timestamp) -> Result<(Hardware, Vec<News>)> {
        let now = self.now();
        self.change_status::<HardwareSpec, _>(name, |m| Ok(edit::note(&mut m.status, found, began, now))).await
    }

    async fn vm_gone(&self, name: &str, cluster: &str) -> Result<()> {
        let now = self.now();
        let _guard = self.lock(name).await;
        let (_, news) =
            self.change_status::<HardwareSpec, _>(name, |m| Ok(edit::note_gone(&mut m.status, cluster, now))).await?;
        for (kind, words) in news {
            self.tell(kind, name, None, words);
        }
        Ok(())
    }

    /// Tells each that was not so the last time.
    fn tell_doubled(&self, doubled: Vec<Doubled>, cluster: &str, told: &mut BTreeSet<Doubled>) {
        let doubled: BTreeSet<Doubled> = doubled.into_iter().collect();
        for Doubled { vmid, mac, others, machine } in doubled.difference(told) {
            let others = others.join(" and ");
            let message = format!(
                "VM {vmid} of Proxmox cluster {cluster} has the MAC {mac}, and so has {others}: the VM is no machine \
                 here until one of them has another"
            );
            self.tell("cluster.doubled", machine, None, message);
        }
        *told = doubled;
    }
}

/// Does them all, several at a time; the first error.
async fn each<F: Future<Output = Result<()>>>(acts: Vec<F>) -> Option<crate::engine::EngineError> {
    let mut failed = None;
    let mut done = stream::iter(acts).buffer_unordered(AT_ONCE);
    while let Some(result) = done.next().await {
        failed = failed.or(result.err());
    }
    failed
}

/// The name of a VM without a network card.
fn plain_name(found: &Found) -> String {
    let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let cluster: String = found.cluster.chars().map(word).take(40).collect();
    let cluster = cluster.trim_matches('-');
    let cluster = if cluster.is_empty() { "vm" } else { cluster };
    format!("{cluster}-{}", found.vmid)
}
