//! How a session begins (IPMI 2.0, chapters 13.17 to 13.24): both sides prove that they know the password, and
//! neither sends it.

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::Privilege;
use super::suite::{Keys, Suite};

/// "The user name alone finds the account": else some controllers also compare its privilege.
const BY_NAME: u8 = 0x10;

/// Why a step of the handshake failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The controller's status code (table 13-15), not zero.
    Status(u8),
    /// It chose other algorithms than were asked for.
    OtherSuite,
    /// It does not know the password that we know.
    Password,
    /// It is too short, or names another session.
    Malformed(&'static str),
}

impl Fault {
    /// Whether another cipher suite may be taken.
    pub(crate) fn is_about_the_suite(&self) -> bool {
        matches!(self, Self::OtherSuite | Self::Status(0x04..=0x07 | 0x10 | 0x11 | 0x12))
    }
}

/// The words for a status code.
pub(crate) fn words(status: u8) -> &'static str {
    match status {
        0x01 => "it has no room for another session",
        0x02 => "it does not know the session",
        0x03 => "invalid payload type",
        0x04 => "it does not know the authentication algorithm",
        0x05 => "it does not know the integrity algorithm",
        0x06 => "no matching authentication payload",
        0x07 => "no matching integrity payload",
        0x08 => "the session is not active",
        0x09 => "invalid role",
        0x0a => "the account may not have the privilege that was asked for",
        0x0b => "it has no room for another session of this privilege",
        0x0c => "the user name is too long for it",
        0x0d => "there is no such user",
        0x0e => "unknown GUID",
        0x0f => "the proof of the password is wrong",
        0x10 => "it does not know the encryption algorithm",
        0x11 => "it does not offer this cipher suite",
        0x12 => "it does not understand the request",
        _ => "a status that the specification does not name",
    }
}

/// What both sides know of a session before there is one.
#[derive(Debug, Clone)]
pub(crate) struct Begin {
    pub(crate) suite: Suite,
    pub(crate) privilege: Privilege,
    pub(crate) user: Vec<u8>,
    /// Our number of the session.
    pub(crate) ours: u32,
    /// Our challenge.
    pub(crate) challenge: [u8; 16],
}

/// What the controller proved, and what our answer is made of.
pub(crate) struct Proven {
    answer: Zeroizing<Vec<u8>>,
    sik: Zeroizing<Vec<u8>>,
    guid: [u8; 16],
}

impl Begin {
    /// Role, length of the name, name: as all codes sign them.
    fn who(&self) -> Vec<u8> {
        [&[BY_NAME | self.privilege as u8, self.user.len() as u8], &self.user[..]].concat()
    }

    /// Asks for a session (table 13-9).
    pub(crate) fn open_request(&self, tag: u8) -> Vec<u8> {
        let mut bytes = vec![tag, self.privilege as u8, 0, 0];
        bytes.extend(self.ours.to_le_bytes());
        for (kind, algorithm) in (0..).zip(self.suite.algorithms()) {
            bytes.extend([kind, 0, 0, 8, algorithm, 0, 0, 0]);
        }
        bytes
    }

    /// The controller's number of the session (table 13-10).
    pub(crate) fn opened(&self, bytes: &[u8]) -> Result<u32, Fault> {
        check_status(bytes)?;
        let Some(head) = bytes.first_chunk::<36>() else { return Err(Fault::Malformed("its answer is too short")) };
        if head[4..8] != self.ours.to_le_bytes() {
            return Err(Fault::Malformed("it answers to another session"));
        }
        if [head[16], head[24], head[32]] != self.suite.algorithms() {
            return Err(Fault::OtherSuite);
        }
        Ok(u32::from_le_bytes([head[8], head[9], head[10], head[11]]))
    }

    /// RAKP message 1 (table 13-11): who we are, and our challenge.
    pub(crate) fn rakp1(&self, tag: u8, theirs: u32) -> Vec<u8> {
        let mut bytes = vec![tag, 0, 0, 0];
        bytes.extend(theirs.to_le_bytes());
        bytes.extend(self.challenge);
        bytes.extend([BY_NAME | self.privilege as u8, 0, 0, self.user.len() as u8]);
        bytes.extend(&self.user);
        bytes
    }

    /// RAKP message 2 (table 13-12): the controller's challenge, and its proof.
    pub(crate) fn proven(&self, bytes: &[u8], theirs: u32, password: &[u8]) -> Result<Proven, Fault> {
        check_status(bytes)?;
        let Some((head, proof)) = bytes.split_first_chunk::<40>() else {
            return Err(Fault::Malformed("RAKP message 2 is too short"));
        };
        if head[4..8] != self.ours.to_le_bytes() {
            return Err(Fault::Malformed("RAKP message 2 is of another session"));
        }
        let (challenge, guid) = (&head[8..24], &head[24..40]);
        let (ours, theirs) = (self.ours.to_le_bytes(), theirs.to_le_bytes());
        let signed = [&ours, &theirs, &self.challenge[..], challenge, guid, &self.who()];
        let wanted = self.suite.hash(password, &signed);
        if !bool::from(wanted.ct_eq(proof)) {
            return Err(Fault::Password);
        }
        let mut id = [0; 16];
        id.copy_from_slice(guid);
        Ok(Proven {
            answer: self.suite.hash(password, &[challenge, &ours, &self.who()]),
            sik: self.suite.hash(password, &[&self.challenge, challenge, &self.who()]),
            guid: id,
        })
    }

    /// RAKP message 3 (table 13-13): our proof.
    pub(crate) fn rakp3(tag: u8, theirs: u32, proven: &Proven) -> Vec<u8> {
        let mut bytes = vec![tag, 0, 0, 0];
        bytes.extend(theirs.to_le_bytes());
        bytes.extend(&*proven.answer);
        bytes
    }

    /// RAKP message 4 (table 13-14): from here on there are keys.
    pub(crate) fn keys(&self, bytes: &[u8], theirs: u32, proven: &Proven) -> Result<Keys, Fault> {
        check_status(bytes)?;
        let code = bytes.get(8..).unwrap_or_default();
        let wanted = controller_code(self, theirs, &proven.guid, &proven.sik);
        if !bool::from(wanted[..].ct_eq(code)) {
            return Err(Fault::Malformed("RAKP message 4 bears a wrong code"));
        }
        Ok(Keys::derive(self.suite, &proven.sik))
    }
}

fn check_status(bytes: &[u8]) -> Result<(), Fault> {
    match bytes.get(1) {
        Some(0) => Ok(()),
        Some(status) => Err(Fault::Status(*status)),
        None => Err(Fault::Malformed("its answer is empty")),
    }
}

/// The code in RAKP message 4.
fn controller_code(begin: &Begin, theirs: u32, guid: &[u8], sik: &[u8]) -> Vec<u8> {
    let code = begin.suite.hash(sik, &[&begin.challenge, &theirs.to_le_bytes(), guid]);
    code[..begin.suite.code_length()].to_vec()
}

/// The controller's side, for simulators.
#[cfg(any(test, feature = "testing"))]
pub(crate) mod controller {
    use super::{Begin, Keys, Suite, controller_code};

    /// What a client asked for; `None` if it cannot be read or the suite is none of ours.
    pub(crate) fn read_open_request(bytes: &[u8]) -> (u8, u32, Option<Suite>) {
        let byte = |at: usize| bytes.get(at).copied().unwrap_or_default();
        let ours = u32::from_le_bytes([byte(4), byte(5), byte(6), byte(7)]);
        let asked = [byte(12), byte(20), byte(28)];
        let suite = [Suite::Sha1, Suite::Sha256].into_iter().find(|suite| suite.algorithms() == asked);
        (byte(0), ours, suite)
    }

    /// Table 13-10.
    pub(crate) fn open_response(tag: u8, status: u8, ours: u32, theirs: u32, suite: Option<Suite>) -> Vec<u8> {
        let mut bytes = vec![tag, status, 4, 0];
        bytes.extend(ours.to_le_bytes());
        if let Some(suite) = suite.filter(|_| status == 0) {
            bytes.extend(theirs.to_le_bytes());
            for (kind, algorithm) in (0..).zip(suite.algorithms()) {
                bytes.extend([kind, 0, 0, 8, algorithm, 0, 0, 0]);
            }
        }
        bytes
    }

    /// The code of RAKP message 2.
    pub(crate) fn proof(who: &Who, password: &[u8]) -> Vec<u8> {
        let (begin, raw) = (&who.begin, who.raw());
        begin
            .suite
            .hash(
                password,
                &[
                    &begin.ours.to_le_bytes(),
                    &who.theirs.to_le_bytes(),
                    &begin.challenge,
                    &who.challenge,
                    &who.guid,
                    &raw,
                ],
            )
            .to_vec()
    }

    /// A client in the middle of its handshake, as a controller sees it.
    #[derive(Debug, Clone)]
    pub(crate) struct Who {
        pub(crate) begin: Begin,
        /// The role byte as it came: it is signed as it came.
        pub(crate) role: u8,
        pub(crate) theirs: u32,
        pub(crate) challenge: [u8; 16],
        pub(crate) guid: [u8; 16],
    }

    impl Who {
        fn raw(&self) -> Vec<u8> {
            [&[self.role, self.begin.user.len() as u8][..], &self.begin.user].concat()
        }

        /// The code that the client must send in RAKP message 3.
        pub(crate) fn expected(&self, password: &[u8]) -> Vec<u8> {
            let ours = self.begin.ours.to_le_bytes();
            self.begin.suite.hash(password, &[&self.challenge, &ours, &self.raw()]).to_vec()
        }

        /// The code of RAKP message 4, and the keys.
        pub(crate) fn finish(&self, password: &[u8]) -> (Vec<u8>, Keys) {
            let sik = self.begin.suite.hash(password, &[&self.begin.challenge, &self.challenge, &self.raw()]);
            let code = controller_code(&self.begin, self.theirs, &self.guid, &sik);
            (code, Keys::derive(self.begin.suite, &sik))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(suite: Suite) -> Begin {
        Begin { suite, privilege: Privilege::Operator, user: b"ops".to_vec(), ours: 0x0102_0304, challenge: [9; 16] }
    }

    #[test]
    fn an_answer_is_read_or_its_fault_is_named() {
        let begin = begin(Suite::Sha256);
        let good = controller::open_response(0, 0, begin.ours, 77, Some(Suite::Sha256));
        assert_eq!(begin.opened(&good), Ok(77));
        let table: [(Vec<u8>, Fault); 5] = [
            (controller::open_response(0, 0x01, begin.ours, 77, None), Fault::Status(1)),
            (controller::open_response(0, 0, begin.ours, 77, Some(Suite::Sha1)), Fault::OtherSuite),
            (
                controller::open_response(0, 0, 5, 77, Some(Suite::Sha256)),
                Fault::Malformed("it answers to another session"),
            ),
            (good[..35].to_vec(), Fault::Malformed("its answer is too short")),
            (vec![], Fault::Malformed("its answer is empty")),
        ];
        for (bytes, fault) in table {
            assert_eq!(begin.opened(&bytes), Err(fault));
        }
        assert!(Fault::Status(0x11).is_about_the_suite() && Fault::OtherSuite.is_about_the_suite());
        assert!(!Fault::Status(0x0d).is_about_the_suite() && !Fault::Password.is_about_the_suite());
    }

    #[test]
    fn a_wrong_password_shows_before_ours_is_proved() {
        for suite in [Suite::Sha1, Suite::Sha256] {
            let begin = begin(suite);
            let who =
                controller::Who { begin: begin.clone(), role: 0x13, theirs: 77, challenge: [5; 16], guid: [6; 16] };
            let answer = |password: &[u8]| {
                let mut bytes = vec![0, 0, 0, 0];
                bytes.extend(begin.ours.to_le_bytes());
                bytes.extend(who.challenge);
                bytes.extend(who.guid);
                bytes.extend(controller::proof(&who, password));
                bytes
            };
            let proven = begin.proven(&answer(b"secret"), 77, b"secret").unwrap_or_else(|e| panic!("{e:?}"));
            assert_eq!(Begin::rakp3(1, 77, &proven)[8..], who.expected(b"secret"));
            let (code, _) = who.finish(b"secret");
            let fourth = [&[0, 0, 0, 0, 4, 3, 2, 1][..], &code].concat();
            assert!(begin.keys(&fourth, 77, &proven).is_ok());
            assert!(begin.keys(&fourth[..fourth.len() - 1], 77, &proven).is_err());
            assert_eq!(begin.proven(&answer(b"another"), 77, b"secret").err(), Some(Fault::Password));
        }
    }
}
