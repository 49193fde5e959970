//! Inputs near a seed, the same each time: what a fuzzer finds first, without one.

/// What formats and their readers take for more than it is.
const WORDS: [&[u8]; 20] = [
    b"\0",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\n",
    b"\r\n",
    b"%",
    b"%2e%2e/",
    b"../",
    b"{{",
    b"}}",
    b"${",
    b"\"",
    b"\\",
    b"---\n",
    b"&a *a",
    b"9223372036854775808",
    b"\xed\xa0\x80",
    b"\xe2\x80\xae",
    b": ",
];

/// The seed, every way of cutting it off in up to 64 places, and then `count` inputs with up to eight changes
/// each: bits, bytes, words that matter, stretches repeated, moved and taken out.
pub fn mutations(seed: &[u8], count: usize) -> impl Iterator<Item = Vec<u8>> + use<'_> {
    let step = (seed.len() / 64).max(1);
    let cuts = (0..seed.len()).step_by(step).map(|end| seed[..end].to_vec());
    let mut state =
        seed.iter().fold(0x9e37_79b9_7f4a_7c15_u64, |n, b| (n ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
    let changed = (0..count).map(move |_| {
        let mut input = seed.to_vec();
        for _ in 0..=roll(&mut state, 8) {
            change(&mut input, &mut state);
        }
        input
    });
    std::iter::once(seed.to_vec()).chain(cuts).chain(changed)
}

/// A number below `below`, by xorshift.
fn roll(state: &mut u64, below: usize) -> usize {
    *state |= 1;
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    usize::try_from(*state >> 33).unwrap_or_default() % below.max(1)
}

fn change(input: &mut Vec<u8>, state: &mut u64) {
    let at = roll(state, input.len() + 1);
    let end = at + roll(state, (input.len() - at).min(64) + 1);
    match roll(state, 7) {
        0 => {
            let bit = roll(state, 8);
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        1 => {
            let value = roll(state, 256);
            if let Some(byte) = input.get_mut(at) {
                *byte = u8::try_from(value).unwrap_or_default();
            }
        }
        2 => drop(input.splice(at..at, WORDS[roll(state, WORDS.len())].iter().copied())),
        3 => drop(input.splice(at..end, WORDS[roll(state, WORDS.len())].iter().copied())),
        4 => drop(input.drain(at..end)),
        5 => {
            let piece = input[at..end].repeat(1 + roll(state, 16));
            drop(input.splice(at..at, piece));
        }
        _ => {
            let piece: Vec<u8> = input.drain(at..end).collect();
            let to = roll(state, input.len() + 1);
            drop(input.splice(to..to, piece));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_many_and_the_same_each_time() {
        let all: Vec<_> = mutations(b"a seed that is somewhat long", 500).collect();
        assert_eq!(all, mutations(b"a seed that is somewhat long", 500).collect::<Vec<_>>());
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert!(different.len() > 450 && all.len() == 529, "{} of {}", different.len(), all.len());
        assert_eq!(mutations(b"", 10).count(), 11);
    }
}
