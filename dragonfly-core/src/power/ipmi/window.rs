//! Which packets of a session are new (IPMI 2.0, 6.12.13).

/// How far behind the newest one a packet may be.
const WIDTH: u32 = 32;

/// The sequence numbers that have come.
#[derive(Debug, Clone, Default)]
pub(crate) struct Window {
    highest: u32,
    /// Bit n: the packet n before the highest one has come.
    seen: u32,
}

impl Window {
    /// Takes a number; false for one that has come before or is too old to tell.
    pub(crate) fn take(&mut self, number: u32) -> bool {
        let ahead = number.wrapping_sub(self.highest);
        if self.seen == 0 || (ahead != 0 && ahead < u32::MAX / 2) {
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = number;
            return true;
        }
        let behind = self.highest.wrapping_sub(number);
        let bit = if behind < WIDTH { 1 << behind } else { return false };
        let is_new = self.seen & bit == 0;
        self.seen |= bit;
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_once() {
        let mut window = Window::default();
        let table = [
            (1, true),
            (1, false),
            (2, true),
            (5, true),
            (4, true),
            (4, false),
            (3, true),
            (2, false),
            (40, true),
            (9, true),
            (8, false),
            (u32::MAX, false),
        ];
        for (number, is_new) in table {
            assert_eq!(window.take(number), is_new, "{number}");
        }
        // Numbers wrap round.
        let mut window = Window::default();
        for (number, is_new) in [(u32::MAX, true), (1, true), (u32::MAX, false), (0, true)] {
            assert_eq!(window.take(number), is_new, "{number}");
        }
    }
}
