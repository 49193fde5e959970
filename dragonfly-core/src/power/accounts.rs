//! Who may try to log in to one controller: a password that may be wrong goes out no oftener than it may be refused,
//! however many calls there are at a time.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{Credential, PowerError, Result};

/// Of so many accounts something is remembered.
const MOST: usize = 64;

/// The accounts that one controller was tried with.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    known: Mutex<Vec<Account>>,
    /// A try has ended.
    ended: Notify,
}

#[derive(Debug)]
struct Account {
    credential: Credential,
    /// How often in a row it was refused.
    refused: u32,
    /// It was let in, and has not been refused since.
    is_good: bool,
    /// Calls with it that are at work.
    trying: u32,
}

impl Account {
    fn is(&self, credential: &Credential) -> bool {
        let Credential { username, password } = &self.credential;
        *username == credential.username && password.reveal() == credential.password.reveal()
    }
}

impl Accounts {
    fn known(&self) -> MutexGuard<'_, Vec<Account>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a refusal is remembered.
    pub(super) fn has_refused(&self) -> bool {
        self.known().iter().any(|account| account.refused > 0)
    }

    /// Forgets refusals.
    pub(super) fn forgive(&self) {
        self.known().iter_mut().for_each(|account| account.refused = 0);
        self.ended.notify_waiters();
    }

    /// Waits until these may be tried. One that was not let in yet waits for those that might use up its last tries.
    ///
    /// # Errors
    /// `LockedOut` when they were refused `most` times.
    pub(super) async fn enter(&self, credential: Option<&Credential>, most: u32) -> Result<Trying<'_>> {
        let Some(credential) = credential else { return Ok(Trying { accounts: self, credential: None }) };
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // From here on no end is missed.
            ended.as_mut().enable();
            if self.may_try(credential, most.max(1))? {
                return Ok(Trying { accounts: self, credential: Some(credential.clone()) });
            }
            ended.await;
        }
    }

    fn may_try(&self, credential: &Credential, most: u32) -> Result<bool> {
        let mut known = self.known();
        let Some(account) = known.iter_mut().find(|account| account.is(credential)) else {
            if known.len() >= MOST {
                // That it was refused is worth more than that it was let in.
                let idle = |refused| known.iter().position(|a| a.trying == 0 && (a.refused == 0 || refused));
                if let Some(oldest) = idle(false).or_else(|| idle(true)) {
                    known.remove(oldest);
                }
            }
            known.push(Account { credential: credential.clone(), refused: 0, is_good: false, trying: 1 });
            return Ok(true);
        };
        if account.refused >= most {
            return Err(PowerError::LockedOut { times: account.refused });
        }
        let may = account.is_good || account.refused + account.trying < most;
        account.trying += u32::from(may);
        Ok(may)
    }
}

/// A call that may be refused.
#[derive(Debug)]
pub(super) struct Trying<'a> {
    accounts: &'a Accounts,
    credential: Option<Credential>,
}

impl Trying<'_> {
    /// What came of it.
    pub(super) fn remember<T>(&self, done: &Result<T>) {
        let Some(credential) = &self.credential else { return };
        let mut known = self.accounts.known();
        let Some(account) = known.iter_mut().find(|account| account.is(credential)) else { return };
        match done {
            Err(PowerError::Unauthorised) => (account.refused, account.is_good) = (account.refused + 1, false),
            // It let them in.
            Ok(_) => (account.refused, account.is_good) = (0, true),
            Err(_) => {}
        }
    }
}

impl Drop for Trying<'_> {
    /// Also that of a caller who stops waiting.
    fn drop(&mut self) {
        let Some(credential) = &self.credential else { return };
        let mut known = self.accounts.known();
        if let Some(account) = known.iter_mut().find(|account| account.is(credential)) {
            account.trying = account.trying.saturating_sub(1);
        }
        known.retain(|account| account.trying > 0 || account.refused > 0 || account.is_good);
        drop(known);
        self.accounts.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(password: &str) -> Credential {
        Credential { username: "root@pam".to_owned(), password: password.to_owned().into() }
    }

    fn begins(accounts: &Accounts, password: &str) -> bool {
        accounts.may_try(&of(password), 2).unwrap()
    }

    fn ends(accounts: &Accounts, password: &str, done: Result<()>) {
        let trying = Trying { accounts, credential: Some(of(password)) };
        trying.remember(&done);
    }

    #[test]
    fn what_may_be_wrong_goes_out_twice_at_most() {
        let accounts = Accounts::default();
        assert_eq!([(); 4].map(|()| begins(&accounts, "a")), [true, true, false, false]);
        ends(&accounts, "a", Err(PowerError::Unauthorised));
        assert!(!begins(&accounts, "a"), "the other may be refused as well");
        ends(&accounts, "a", Err(PowerError::Unauthorised));
        assert!(matches!(accounts.may_try(&of("a"), 2), Err(PowerError::LockedOut { times: 2 })));
        // Another password is another matter, and does not make the first one right.
        assert!(begins(&accounts, "b"));
        ends(&accounts, "b", Ok(()));
        assert!(accounts.may_try(&of("a"), 2).is_err());
        accounts.forgive();
        assert!(!accounts.has_refused() && begins(&accounts, "a"));
    }

    #[test]
    fn what_was_let_in_is_not_waited_for() {
        let accounts = Accounts::default();
        assert_eq!([(); 3].map(|()| begins(&accounts, "a")), [true, true, false]);
        ends(&accounts, "a", Ok(()));
        assert_eq!([(); 3].map(|()| begins(&accounts, "a")), [true; 3]);
        // It was changed meanwhile.
        ends(&accounts, "a", Err(PowerError::Unauthorised));
        assert!(!begins(&accounts, "a"));
    }

    #[test]
    fn who_did_not_learn_anything_leaves_nothing_behind() {
        let accounts = Accounts::default();
        assert!(begins(&accounts, "a"));
        ends(&accounts, "a", Err(PowerError::Withdrawn));
        assert!(accounts.known().is_empty());
        for n in 0..2 * MOST {
            assert!(begins(&accounts, &n.to_string()));
            ends(&accounts, &n.to_string(), Err(PowerError::Unauthorised));
        }
        assert_eq!(accounts.known().len(), MOST);
    }

    #[test]
    fn a_refusal_outlives_those_that_were_let_in() {
        let accounts = Accounts::default();
        for _ in 0..2 {
            assert!(begins(&accounts, "wrong"));
            ends(&accounts, "wrong", Err(PowerError::Unauthorised));
        }
        for n in 0..2 * MOST {
            assert!(begins(&accounts, &n.to_string()));
            ends(&accounts, &n.to_string(), Ok(()));
        }
        assert!(matches!(accounts.may_try(&of("wrong"), 2), Err(PowerError::LockedOut { times: 2 })));
        assert_eq!(accounts.known().len(), MOST);
    }
}
