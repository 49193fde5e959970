//! A request, then any packets: the transfer never sends what is not in the file, nor for ever.
use std::time::Duration;

use dragonfly_boot::tftp::{Incoming, Limits, Output, Transfer};

/// One input: a request up to its last zero byte, the file's size (two bytes), and then what comes, three
/// bytes each: nothing for too long, or an acknowledgement and its block.
pub(crate) fn tftp(bytes: &[u8]) {
    let end = bytes.iter().rposition(|b| *b == 0).map_or(bytes.len(), |last| last + 1);
    let (first, rest) = bytes.split_at(end);
    let (size, later) = match rest {
        [a, b, rest @ ..] => (u16::from_be_bytes([*a, *b]), rest),
        _ => (40_000, rest),
    };
    let later = later.chunks_exact(3).map(|one| (one[0] % 2 == 1, u16::from_be_bytes([one[1], one[2]])));
    let Ok(Incoming::Read(request)) = Incoming::decode(first) else { return };
    let size = u64::from(size);
    let mut transfer = Transfer::new(&request, size, &Limits::default());
    let terms = transfer.terms();
    assert!(
        terms.block_size >= 8 && u32::from(terms.window) * u32::from(terms.block_size) <= 1 << 20 || terms.window == 1
    );
    let blocks = size / u64::from(terms.block_size) + 1;
    let mut now = Duration::ZERO;
    let mut output = Some(transfer.start(now));
    for (late, block) in later {
        match output {
            Some(Output::Blocks(range)) => {
                assert!(range.end <= blocks && range.end - range.start <= u64::from(terms.window));
            }
            Some(Output::Done | Output::Aborted(_) | Output::Lost) => return,
            Some(Output::OptionAck) | None => {}
        }
        now += Duration::from_millis(7);
        output = if late {
            now = now.max(transfer.deadline());
            Some(transfer.late(now))
        } else {
            transfer.packet(&Incoming::Ack(block), now)
        };
    }
}
