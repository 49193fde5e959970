//! The account that the server wants on this machine's own management controller.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dragonfly_actions::run::ipmi::{Ask, Device, Made, Request, make_account};
use dragonfly_core::secret::Mask;
use dragonfly_core::wire::{BmcAccount, BmcAccountReport, Failure};

use crate::client::{Link, chain};
use crate::inventory::bmc_device;
use crate::journal::Journal;

/// How long everything about it may take. Most controllers are done within 2 s.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long one answer may take: names and passwords go into slow flash.
const ANSWER: Duration = Duration::from_secs(10);
/// "Node busy" (table 5-2), and how long it is let be then.
const BUSY: (u8, Duration) = (0xc0, Duration::from_millis(200));

/// Makes it and says what came of it. The server has it in writing when this is over.
pub async fn make(link: Arc<Link>, journal: Journal, dev: PathBuf, account: BmcAccount) {
    let mask = Mask::new([&account.password]);
    journal.hide_own(mask.clone());
    let username = account.username.clone();
    let report = match tokio::time::timeout(PATIENCE, on_a_thread(dev, account)).await {
        Ok(Ok(made)) => {
            journal.say(format!("the account {username} is on the management controller, as user {}", made.slot));
            BmcAccountReport { username, slot: Some(made.slot), verified: made.verified, failure: None }
        }
        failed => {
            let late = || format!("the management controller was not done with it in {} s", PATIENCE.as_secs());
            let failure = failed.unwrap_or_else(|_| Err(Failure::message(late()))).err();
            let failure = mask.hide_in(failure.unwrap_or_else(|| Failure::message(late())));
            journal.say(format!("the account {username}: {}", failure.message));
            BmcAccountReport { username, slot: None, verified: false, failure: Some(failure) }
        }
    };
    if let Err(error) = link.bmc_account(&report).await {
        journal.say(format!("the account: {}", chain(&error)));
    }
}

/// A controller that hangs takes its own thread with it, and nothing waits for that.
async fn on_a_thread(dev: PathBuf, account: BmcAccount) -> Result<Made, Failure> {
    let (give, take) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("account".to_owned()).spawn(move || {
        // Whoever wanted it may have given up.
        let _ = give.send(on_device(&dev, &account));
    });
    thread.map_err(|error| Failure::of(&error))?;
    take.await.unwrap_or_else(|_| Err(Failure::message("the thread that made the account has died")))
}

fn on_device(dev: &Path, account: &BmcAccount) -> Result<Made, Failure> {
    let device = bmc_device(dev)
        .ok_or_else(|| Failure::message("the machine's management controller has no driver here: no /dev/ipmi0"))?;
    let mut device = Device::open(&device).map_err(|error| Failure::of(&error))?;
    let end = Instant::now() + PATIENCE;
    let mut ask = |request: &Request| device.ask(request, ANSWER);
    make_account(account, &mut patient(&mut ask, end)).map_err(|error| Failure::of(&error))
}

/// Asks a controller that is busy again.
fn patient(
    ask: Ask<'_>,
    end: Instant,
) -> impl FnMut(&Request) -> Result<Vec<u8>, dragonfly_actions::run::ipmi::IpmiError> {
    move |request| {
        loop {
            let answer = ask(request)?;
            if answer.first() != Some(&BUSY.0) || Instant::now() + BUSY.1 > end {
                return Ok(answer);
            }
            std::thread::sleep(BUSY.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_busy_is_asked_again_until_it_is_time() {
        let request = Request { netfn: 6, command: 1, data: Vec::new() };
        let mut asked = 0;
        let mut ask = |_: &Request| {
            asked += 1;
            Ok(vec![if asked < 3 { BUSY.0 } else { 0 }])
        };
        let answer = patient(&mut ask, Instant::now() + PATIENCE)(&request);
        assert_eq!((answer.unwrap(), asked), (vec![0], 3));
        let mut ask = |_: &Request| Ok(vec![BUSY.0]);
        assert_eq!(patient(&mut ask, Instant::now())(&request).unwrap(), [BUSY.0]);
    }

    #[test]
    fn a_machine_without_a_device_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let account = BmcAccount { username: "dragonfly".into(), password: "Ab3Ab3".to_owned().into() };
        let failure = on_device(dir.path(), &account).unwrap_err();
        assert!(failure.message.contains("no driver"), "{failure:?}");
        std::fs::write(dir.path().join("ipmi0"), b"").unwrap();
        let failure = on_device(dir.path(), &account).unwrap_err();
        assert!(failure.message.contains("IPMI device"), "{failure:?}");
    }
}
