//! A failing history made short.

use crate::events::Event;

/// Leaves out what is not needed to fail: halves, then quarters, down to single events.
pub(crate) fn shrink(events: &[Event], fails: impl Fn(&[Event]) -> bool) -> Vec<Event> {
    let mut short = events.to_vec();
    let mut size = short.len().div_ceil(2);
    while size > 0 {
        let (mut at, mut shorter) = (0, false);
        while at < short.len() {
            let mut without = short.clone();
            without.drain(at..(at + size).min(short.len()));
            if fails(&without) {
                (short, shorter) = (without, true);
            } else {
                at += size;
            }
        }
        if size == 1 && shorter {
            continue;
        }
        size /= 2;
    }
    short
}

#[test]
fn only_what_is_needed_stays() {
    let events: Vec<Event> = (0..40).map(|token| Event::OldToken { token }).collect();
    let needed = [Event::OldToken { token: 3 }, Event::OldToken { token: 31 }];
    let short = shrink(&events, |events| needed.iter().all(|event| events.contains(event)));
    assert_eq!(short, needed);
}
