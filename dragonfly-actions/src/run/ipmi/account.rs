//! An account of our own in the controller's user table (IPMI 2.0, 22.26 to 22.30): made so that a stop at any point
//! leaves nobody else's slot changed, and so that doing it again ends in the same.

use dragonfly_core::wire::BmcAccount;

use super::users::{NAME, Slot, table};
use super::{Ask, IpmiError, Request, content, lan};

/// Password lengths, the longer first: what was set in 20 bytes opens IPMI 2.0 sessions alone (22.30).
const LENGTHS: [usize; 2] = [20, 16];
/// Administrator (table 6-1).
const ADMINISTRATOR: u8 = 4;
/// What Set User Password says of a test: another password, or set in the other length.
const NOT_IT: [u8; 2] = [0x80, 0x81];

/// An account that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// Its user ID.
    pub slot: u8,
    /// Whether the controller has confirmed the password; some cannot test any.
    pub verified: bool,
}

/// Why there is no account.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// It has no network channel to log in on.
    #[error("the management controller has no network channel")]
    NoNetwork,
    /// Every slot is somebody's.
    #[error("the management controller has no free slot for a user: none of its {0}; delete one that nobody needs")]
    NoFreeSlot(usize),
    /// Name or password do not fit into IPMI's fields.
    #[error("the account's {what} is not 1 to {most} printable ASCII characters")]
    Unfit {
        /// Which of the two.
        what: &'static str,
        /// How many fit.
        most: usize,
    },
    /// It will not do one of the things that make an account.
    #[error("the management controller refuses {what} for user {slot} with completion code {}", list(codes))]
    Refused {
        /// Which command.
        what: &'static str,
        /// User ID.
        slot: u8,
        /// One for each form of the command that was tried.
        codes: Vec<u8>,
    },
    /// It took the password, and when asked says that it is another. The user is disabled again.
    #[error("the management controller took the password of user {0} and does not know it again")]
    NotKept(u8),
    /// It cannot be spoken to.
    #[error(transparent)]
    Ipmi(#[from] IpmiError),
}

fn list(codes: &[u8]) -> String {
    codes.iter().map(|code| format!("{code:#04x}")).collect::<Vec<_>>().join(", then ")
}

/// Which slot it goes into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    slot: u8,
    /// It bears the name already.
    named: bool,
}

/// The slot that has this name already, else the first free one. Never slot 1, which is for users without a name
/// (6.9.1), nor one whose name is fixed.
fn place(slots: &[Slot], name: &str) -> Result<Place, AccountError> {
    let mut ours = slots.iter().filter(|slot| slot.id > 1);
    if let Some(slot) = ours.clone().find(|slot| slot.is_called(name)) {
        return Ok(Place { slot: slot.id, named: true });
    }
    let fixed = slots.first().and_then(|slot| slot.access).map_or(1, |access| access.fixed);
    let free = ours.find(|slot| slot.id > fixed && slot.is_free());
    free.map(|slot| Place { slot: slot.id, named: false }).ok_or(AccountError::NoFreeSlot(slots.len()))
}

/// Something that is to be done, in the forms that controllers want it in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    what: &'static str,
    /// The next one is for those that refuse the one before.
    forms: Vec<Request>,
}

/// Set User Name (22.28).
fn set_name(slot: u8, name: &str) -> Request {
    Request { netfn: 0x06, command: 0x45, data: [&[slot & 0x3f], padded(name, NAME).as_slice()].concat() }
}

/// Set User Access (22.26): IPMI messaging and the administrator's privilege on one channel. The last byte, no limit
/// of sessions, is left out at first.
fn set_access(channel: u8, slot: u8) -> Step {
    let short = vec![0x90 | channel & 0x0f, slot & 0x3f, ADMINISTRATOR];
    let long = [short.as_slice(), &[0]].concat();
    let form = |data| Request { netfn: 0x06, command: 0x43, data };
    Step { what: "Set User Access", forms: vec![form(short), form(long)] }
}

/// Set User Password (22.30).
#[derive(Debug, Clone, Copy)]
enum Operation {
    Disable = 0,
    Enable = 1,
    Set = 2,
    Test = 3,
}

fn password(slot: u8, operation: Operation, bytes: &[u8]) -> Request {
    let long = u8::from(bytes.len() == LENGTHS[0]) << 7;
    let data = [&[long | slot & 0x3f, operation as u8], bytes].concat();
    Request { netfn: 0x06, command: 0x47, data }
}

/// With the password in either length.
fn with_password(what: &'static str, slot: u8, operation: Operation, secret: &str) -> Step {
    let forms = LENGTHS.map(|length| password(slot, operation, &padded(secret, length)));
    Step { what, forms: forms.into() }
}

/// Without a password; some want its bytes all the same.
fn without_password(what: &'static str, slot: u8, operation: Operation) -> Step {
    Step { what, forms: vec![password(slot, operation, &[]), password(slot, operation, &[0; 16])] }
}

fn padded(text: &str, length: usize) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(length, 0);
    bytes
}

/// What makes the account, in order: nobody can log in before the password stands. The test comes after it.
fn steps(place: Place, channel: u8, account: &BmcAccount) -> Vec<Step> {
    let slot = place.slot;
    let named = (!place.named).then(|| Step { what: "Set User Name", forms: vec![set_name(slot, &account.username)] });
    let rest = [
        with_password("Set User Password", slot, Operation::Set, account.password.reveal()),
        set_access(channel, slot),
        without_password("Set User Password (enable)", slot, Operation::Enable),
    ];
    named.into_iter().chain(rest).collect()
}

/// Does one of them, in the first form that is taken. The codes of the others, if none is.
fn carry_out(step: &Step, ask: Ask<'_>) -> Result<Result<(), Vec<u8>>, IpmiError> {
    let mut codes = Vec::new();
    for form in &step.forms {
        match ask(form).and_then(|answer| content(&answer).map(drop)) {
            Ok(()) => return Ok(Ok(())),
            Err(IpmiError::Refused(code)) => codes.push(code),
            Err(error) => return Err(error),
        }
    }
    Ok(Err(codes))
}

fn fits(what: &'static str, text: &str) -> Result<(), AccountError> {
    let good = (1..=NAME).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if good { Ok(()) } else { Err(AccountError::Unfit { what, most: NAME }) }
}

/// Makes an administrator of the network channel with this name and password: in the slot that has the name already,
/// else in a free one. Doing it again sets the same again.
///
/// # Errors
/// `NoNetwork`, `NoFreeSlot` and `Unfit`: nothing was changed. `Refused` and `NotKept`: what was begun in a free slot
/// cannot be logged in to. `Ipmi`: it may have been begun.
pub fn make_account(account: &BmcAccount, ask: Ask<'_>) -> Result<Made, AccountError> {
    fits("name", &account.username)?;
    fits("password", account.password.reveal())?;
    let channel = lan(ask)?.channel.ok_or(AccountError::NoNetwork)?;
    let place = place(&table(channel, ask)?, &account.username)?;
    let slot = place.slot;
    for step in steps(place, channel, account) {
        if let Err(codes) = carry_out(&step, ask)? {
            if !place.named {
                // As it was; whether that works changes nothing of what went wrong.
                let _ = carry_out(&without_password("disable", slot, Operation::Disable), ask);
                let _ = ask(&set_name(slot, ""));
            }
            return Err(AccountError::Refused { what: step.what, slot, codes });
        }
    }
    let test = with_password("Set User Password (test)", slot, Operation::Test, account.password.reveal());
    match carry_out(&test, ask)? {
        Ok(()) => Ok(Made { slot, verified: true }),
        Err(codes) if codes.iter().any(|code| NOT_IT.contains(code)) => {
            let _ = carry_out(&without_password("disable", slot, Operation::Disable), ask);
            Err(AccountError::NotKept(slot))
        }
        // It knows no test.
        Err(_) => Ok(Made { slot, verified: false }),
    }
}

#[cfg(test)]
mod tests;
