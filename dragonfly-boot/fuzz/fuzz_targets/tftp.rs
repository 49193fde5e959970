//! A request, then any packets: the transfer never sends what is not in the file, nor for ever.
#![no_main]

use std::time::Duration;

use dragonfly_boot::tftp::{Incoming, Limits, Output, Transfer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], u16, Vec<(bool, u16)>)| {
    let (first, size, later) = input;
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
});
