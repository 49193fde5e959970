//! One read transfer as a state machine: packets and time in, what to send out. It holds no data
//! and no socket, so that every loss and reordering can be played in a test.

use std::time::Duration;

use super::packet::{Incoming, Request};

/// What a client may ask for.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes a block.
    pub block_size: u16,
    /// Blocks between acknowledgements.
    pub window: u16,
    /// Bytes between acknowledgements: what one transfer keeps in memory.
    pub window_bytes: u32,
    /// Retransmissions of one window before the transfer is given up.
    pub retries: u32,
    /// Transfers at one time.
    pub transfers: usize,
    /// How long one transfer may take.
    pub duration: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            block_size: 65464,
            window: 64,
            window_bytes: 1 << 20,
            retries: 8,
            transfers: 1024,
            duration: Duration::from_secs(1800),
        }
    }
}

/// What is in effect after negotiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Bytes a block.
    pub block_size: u16,
    /// Blocks a window.
    pub window: u16,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send the option acknowledgement.
    OptionAck,
    /// Send these blocks, counted from 0; on the wire each is its number plus one, modulo 65536.
    Blocks(std::ops::Range<u64>),
    /// The client has everything.
    Done,
    /// The client ended it, with its reason.
    Aborted(String),
    /// The client is gone.
    Lost,
}

/// A transfer under way.
#[derive(Debug, Clone)]
pub struct Transfer {
    terms: Terms,
    options: Vec<(&'static str, u64)>,
    /// How many blocks there are; the last is shorter than a whole one, perhaps empty.
    blocks: u64,
    /// Whether the first answer is an option acknowledgement that is not yet acknowledged.
    negotiating: bool,
    /// Blocks that the client has.
    acked: u64,
    /// Blocks sent since.
    sent: u64,
    sent_at: Duration,
    /// When to send again.
    deadline: Duration,
    retransmitted: bool,
    retries: u32,
    max_retries: u32,
    timer: Timer,
}

impl Transfer {
    /// A transfer of `size` bytes. The first packet is [`start`](Self::start)'s.
    pub fn new(request: &Request, size: u64, limits: &Limits) -> Self {
        let block_size = request.block_size.map_or(512, |n| n.min(limits.block_size.max(8)));
        let fits = u16::try_from(limits.window_bytes / u32::from(block_size)).unwrap_or(u16::MAX).max(1);
        let window = request.window.map_or(1, |n| n.min(limits.window).min(fits).max(1));
        // Only what was asked for is acknowledged: some firmware refuses anything else.
        let mut options = Vec::new();
        if request.block_size.is_some() {
            options.push(("blksize", u64::from(block_size)));
        }
        if request.size {
            options.push(("tsize", size));
        }
        if let Some(seconds) = request.timeout {
            options.push(("timeout", u64::from(seconds)));
        }
        if request.window.is_some() {
            options.push(("windowsize", u64::from(window)));
        }
        Self {
            terms: Terms { block_size, window },
            blocks: size / u64::from(block_size) + 1,
            negotiating: !options.is_empty(),
            options,
            acked: 0,
            sent: 0,
            sent_at: Duration::ZERO,
            deadline: Duration::ZERO,
            retransmitted: false,
            retries: 0,
            max_retries: limits.retries,
            timer: Timer::new(request.timeout),
        }
    }

    /// What is in effect.
    pub fn terms(&self) -> Terms {
        self.terms
    }

    /// What the option acknowledgement says.
    pub fn options(&self) -> &[(&'static str, u64)] {
        &self.options
    }

    /// Whether the client has answered anything.
    pub fn is_answered(&self) -> bool {
        self.acked > 0 || (!self.negotiating && !self.options.is_empty())
    }

    /// How many bytes the client has acknowledged, of a file of this size.
    pub fn passed(&self, size: u64) -> u64 {
        self.acked.saturating_mul(self.terms.block_size.into()).min(size)
    }

    /// When [`late`](Self::late) is to be called if nothing comes before.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// The first thing to send.
    pub fn start(&mut self, now: Duration) -> Output {
        self.send(now)
    }

    /// A packet came. `None`: nothing follows from it.
    pub fn packet(&mut self, packet: &Incoming, now: Duration) -> Option<Output> {
        match packet {
            Incoming::Error { code, message } => Some(Output::Aborted(format!("error {code}: {message}"))),
            Incoming::Ack(block) => self.ack(*block, now),
            Incoming::Read(_) | Incoming::Write => None,
        }
    }

    /// The deadline has passed.
    pub fn late(&mut self, now: Duration) -> Output {
        self.retries += 1;
        if self.retries > self.max_retries {
            return Output::Lost;
        }
        self.timer.back_off();
        self.again(now)
    }

    fn ack(&mut self, block: u16, now: Duration) -> Option<Output> {
        if self.negotiating {
            // Block 0 answers the options. Nothing else can come: nothing else was sent.
            if block != 0 {
                return None;
            }
            self.negotiating = false;
            self.measure(now);
            return Some(self.send(now));
        }
        // How many of the blocks on their way this acknowledges, counted modulo 65536.
        let ahead = u64::from(block.wrapping_sub(self.acked as u16));
        if ahead > self.sent {
            return None;
        }
        if ahead == 0 {
            // Nothing new. With a window it says that the first block is missing (RFC 7440 section 4); but
            // to answer each copy of it would double the traffic for ever after, so one per round trip.
            // Nor for ever: it counts like silence.
            let fresh = now.saturating_sub(self.sent_at) >= self.timer.round_trip();
            if self.terms.window == 1 || !fresh || self.retries >= self.max_retries {
                return None;
            }
            self.retries += 1;
            return Some(self.again(now));
        }
        self.measure(now);
        self.acked += ahead;
        if self.acked == self.blocks {
            return Some(Output::Done);
        }
        // Fewer than were sent: the window begins again behind the last that came in order.
        Some(self.send(now))
    }

    fn measure(&mut self, now: Duration) {
        // What was sent twice cannot be timed: which of the two is answered? (RFC 6298 section 3)
        if !self.retransmitted {
            self.timer.measure(now.saturating_sub(self.sent_at));
        }
        self.retries = 0;
        self.retransmitted = false;
        self.timer.calm();
    }

    fn again(&mut self, now: Duration) -> Output {
        self.retransmitted = true;
        self.send(now)
    }

    fn send(&mut self, now: Duration) -> Output {
        self.sent_at = now;
        self.deadline = now + self.timer.patience();
        if self.negotiating {
            return Output::OptionAck;
        }
        self.sent = u64::from(self.terms.window).min(self.blocks - self.acked);
        Output::Blocks(self.acked..self.acked + self.sent)
    }
}

/// When to send again, from how long answers take (RFC 6298).
#[derive(Debug, Clone)]
struct Timer {
    smoothed: Option<Duration>,
    variation: Duration,
    backed_off: u32,
    first: Duration,
}

impl Timer {
    const FIRST: Duration = Duration::from_secs(1);
    /// Firmware polls its card, some of it every 10 ms or slower.
    const MIN: Duration = Duration::from_millis(60);
    const MAX: Duration = Duration::from_secs(5);

    /// The timeout that the client names is how patient it is: we send again no later than that.
    fn new(asked: Option<u8>) -> Self {
        let first = asked.map_or(Self::FIRST, |s| Duration::from_secs(s.into()).min(Self::FIRST));
        Self { smoothed: None, variation: Duration::ZERO, backed_off: 0, first }
    }

    fn measure(&mut self, sample: Duration) {
        match self.smoothed {
            None => {
                self.smoothed = Some(sample);
                self.variation = sample / 2;
            }
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(sample)) / 4;
                self.smoothed = Some((smoothed * 7 + sample) / 8);
            }
        }
    }

    fn round_trip(&self) -> Duration {
        self.smoothed.unwrap_or(Self::MIN).max(Duration::from_millis(5))
    }

    fn patience(&self) -> Duration {
        let base = self.smoothed.map_or(self.first, |smoothed| smoothed + self.variation * 4).max(Self::MIN);
        (base * 2u32.saturating_pow(self.backed_off.min(8))).min(Self::MAX)
    }

    fn back_off(&mut self) {
        self.backed_off += 1;
    }

    fn calm(&mut self) {
        self.backed_off = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn request(block_size: Option<u16>, window: Option<u16>) -> Request {
        Request { name: "f".into(), octet: true, block_size, size: false, timeout: None, window }
    }

    fn start(request: &Request, size: u64) -> (Transfer, Output) {
        let mut transfer = Transfer::new(request, size, &Limits::default());
        let first = transfer.start(Duration::ZERO);
        (transfer, first)
    }

    #[test]
    fn without_options_data_comes_at_once() {
        let (mut transfer, first) = start(&request(None, None), 1000);
        assert_eq!(first, Output::Blocks(0..1));
        assert_eq!(transfer.packet(&Incoming::Ack(1), MS), Some(Output::Blocks(1..2)));
        assert_eq!(transfer.packet(&Incoming::Ack(2), MS), Some(Output::Done));
    }

    #[test]
    fn an_exact_multiple_ends_with_an_empty_block() {
        for (size, blocks) in [(0, 1), (511, 1), (512, 2), (1024, 3)] {
            assert_eq!(Transfer::new(&request(None, None), size, &Limits::default()).blocks, blocks, "{size}");
        }
    }

    #[test]
    fn only_what_was_asked_is_acknowledged_and_within_limits() {
        let asked = Request { size: true, timeout: Some(3), ..request(Some(1468), Some(4)) };
        let (mut transfer, first) = start(&asked, 5000);
        assert_eq!(first, Output::OptionAck);
        assert_eq!(transfer.options(), [("blksize", 1468), ("tsize", 5000), ("timeout", 3), ("windowsize", 4)]);
        assert_eq!(transfer.packet(&Incoming::Ack(0), MS), Some(Output::Blocks(0..4)));
        let (transfer, _) = start(&request(Some(65464), Some(65535)), 1);
        assert_eq!(transfer.terms(), Terms { block_size: 65464, window: 16 });
        let (transfer, _) = start(&request(None, Some(65535)), 1);
        assert_eq!((transfer.terms().window, transfer.options()), (64, &[("windowsize", 64)][..]));
    }

    /// OVMF learns the size and aborts on purpose; one that does not hear an ERROR would resend for minutes.
    #[test]
    fn an_error_ends_it() {
        let (mut transfer, _) = start(&Request { size: true, ..request(None, None) }, 1);
        let error = Incoming::Error { code: 8, message: "User aborted the transfer".into() };
        assert!(matches!(transfer.packet(&error, MS), Some(Output::Aborted(_))));
    }

    #[test]
    fn a_gap_restarts_the_window_behind_it() {
        let (mut transfer, _) = start(&request(None, Some(8)), 512 * 20);
        assert_eq!(transfer.packet(&Incoming::Ack(0), MS), Some(Output::Blocks(0..8)));
        assert_eq!(transfer.packet(&Incoming::Ack(3), MS * 2), Some(Output::Blocks(3..11)));
        assert_eq!(transfer.packet(&Incoming::Ack(11), MS * 3), Some(Output::Blocks(11..19)));
        assert_eq!(transfer.packet(&Incoming::Ack(19), MS * 4), Some(Output::Blocks(19..21)));
        assert_eq!(transfer.packet(&Incoming::Ack(21), MS * 5), Some(Output::Done));
    }

    /// The sorcerer's apprentice (RFC 1123 section 4.2.3.1): a second copy of an acknowledgement
    /// brings no second copy of the data.
    #[test]
    fn a_doubled_acknowledgement_doubles_nothing() {
        let (mut transfer, _) = start(&request(None, None), 5000);
        assert!(transfer.packet(&Incoming::Ack(1), MS).is_some());
        assert_eq!(transfer.packet(&Incoming::Ack(1), MS * 2), None);
        assert_eq!(transfer.packet(&Incoming::Ack(0), MS * 2), None);
        assert_eq!(transfer.packet(&Incoming::Ack(77), MS * 2), None);
    }

    #[test]
    fn silence_is_answered_patiently_then_given_up() {
        let (mut transfer, _) = start(&request(None, None), 5000);
        let mut now = Duration::ZERO;
        for _ in 0..8 {
            assert!(transfer.deadline() > now && transfer.deadline() <= now + Timer::MAX);
            now = transfer.deadline();
            assert_eq!(transfer.late(now), Output::Blocks(0..1));
        }
        assert_eq!(transfer.late(now), Output::Lost);
    }

    #[test]
    fn a_fast_client_is_resent_to_fast() {
        let (mut transfer, _) = start(&request(None, None), 512 * 100);
        for block in 1..20u16 {
            transfer.packet(&Incoming::Ack(block), MS * u32::from(block));
        }
        assert_eq!(transfer.deadline(), MS * 19 + Timer::MIN);
    }

    /// A client behind a network that loses and doubles: `fates` says what happens to each packet.
    /// Returns how many blocks it got, and how the transfer ended.
    fn play(blocks: u64, window: u16, fates: &[u8]) -> (u64, Output) {
        let (mut transfer, mut out) = start(&request(Some(8), Some(window)), (blocks - 1) * 8 + 3);
        let mut fate = fates.iter().copied().cycle();
        // The next block that it needs, and how many came since it last acknowledged.
        let (mut next, mut since) = (0u64, 0u64);
        let (mut now, mut lost_in_row) = (Duration::ZERO, 0u32);
        loop {
            now += MS;
            let mut acks = Vec::new();
            match &out {
                Output::OptionAck => acks.push(0u16),
                Output::Blocks(range) => {
                    for block in range.clone().filter(|_| fate.next() != Some(0)) {
                        assert!(block < blocks);
                        if block == next {
                            next += 1;
                            since += 1;
                        }
                        // A window is full, all is there, or something came out of order.
                        if since == u64::from(window) || next == blocks || block + 1 != next {
                            acks.push(next as u16);
                            since = 0;
                        }
                    }
                }
                _ => return (next, out),
            }
            let mut followed = None;
            for ack in acks {
                let copies = match fate.next() {
                    Some(1) => 0,
                    Some(2) => 2,
                    _ => 1,
                };
                for _ in 0..copies {
                    now += MS;
                    followed = transfer.packet(&Incoming::Ack(ack), now).or(followed);
                }
            }
            out = match followed {
                Some(next) => {
                    lost_in_row = 0;
                    next
                }
                None => {
                    now = transfer.deadline();
                    lost_in_row += 1;
                    // Luck that bad ends; the machine gives up later than this.
                    if lost_in_row > 8 {
                        return (next, Output::Lost);
                    }
                    transfer.late(now)
                }
            };
        }
    }

    #[test]
    fn block_numbers_wrap() {
        for blocks in [65_535, 65_536, 65_537, 140_000] {
            assert_eq!(play(blocks, 64, &[9; 7]), (blocks, Output::Done), "{blocks}");
        }
        let mut fates = [9; 1009];
        fates[500] = 0;
        assert_eq!(play(70_000, 16, &fates), (70_000, Output::Done));
    }

    proptest! {
        #[test]
        fn everything_arrives(
            blocks in 1u64..300,
            window in prop_oneof![Just(1u16), 2..64u16],
            fates in prop::collection::vec(0u8..20, 50..400),
        ) {
            let (got, end) = play(blocks, window, &fates);
            prop_assert!(end == Output::Lost || (end, got) == (Output::Done, blocks));
        }
    }
}
